/* tools/profile_report.c - a profile as a table for people and as JSON. All figures are those of one step, token or batch, on average. */
#include "tools/profiling.h"

#include <cjson/cJSON.h>
#include <stdio.h>

/* Seconds that the work takes at the device's peaks, and which of the two bounds it. 0 where nothing is known. */
static double bound_of(const struct profiling *p, const struct mosld_profile_row *r, bool *memory)
{
    double by_flops = p->has_peaks ? r->flops / p->peaks.flops : 0, by_bytes = p->has_peaks ? r->bytes / p->peaks.copy_bytes : 0;
    *memory = by_bytes > by_flops;
    return *memory ? by_bytes : by_flops;
}

/* ---- for people ---- */

static void print_name(const struct mosld_profile_row *r, int width)
{
    char text[80];
    if (r->number >= 0)
        snprintf(text, sizeof text, "%s %lld", r->name, (long long)r->number);
    else
        snprintf(text, sizeof text, "%s%s%s", r->name, r->variant ? ", " : "", r->variant ? r->variant : "");
    fprintf(stderr, "    %-*.60s", width, r->path[0] ? r->path : text);
}

static void print_rows(const struct profiling *p, const struct mosld_profile_part *part, const struct mosld_profile_rows *rows, const char *title)
{
    double n = part->windows;
    fprintf(stderr, "\n  %-36s%8s %11s %11s %8s %9s %9s  %s\n", title, "calls", "ms", "mean us", "share", "GFLOP/s", "GB/s", "of peak");
    for (uint32_t i = 0; i < rows->n; i++) {
        const struct mosld_profile_row *r = &rows->row[i];
        bool memory;
        double bound = bound_of(p, r, &memory);
        print_name(r, 34);
        fprintf(stderr, "%10.4g %11.3f %11.1f %6.1f %% ", (double)r->calls / n, 1e3 * r->seconds / n,
                r->calls ? 1e6 * r->seconds / (double)r->calls : 0, 100 * r->seconds / part->wall);
        if (r->flops > 0 && r->seconds > 0)
            fprintf(stderr, "%9.1f ", r->flops / r->seconds * 1e-9);
        else
            fprintf(stderr, "%9s ", "");
        if (r->bytes > 0 && r->seconds > 0)
            fprintf(stderr, "%9.2f ", r->bytes / r->seconds * 1e-9);
        else
            fprintf(stderr, "%9s ", "");
        if (bound > 0 && r->seconds > 0)
            fprintf(stderr, "%6.1f %% %s", 100 * bound / r->seconds, memory ? "mem" : "flop");
        fputc('\n', stderr);
    }
}

static void print_short(const struct mosld_profile_part *part, const struct mosld_profile_rows *rows, const char *title)
{
    fprintf(stderr, "\n  %-46s%8s %11s %10s\n", title, "kernels", "ms", "share");
    for (uint32_t i = 0; i < rows->n; i++) {
        const struct mosld_profile_row *r = &rows->row[i];
        print_name(r, 44);
        fprintf(stderr, "%10.4g %11.3f %8.1f %%\n", (double)r->calls / part->windows, 1e3 * r->seconds / part->windows,
                100 * r->seconds / part->wall);
    }
}

struct share {
    const char *name, *key;
    double seconds;
};

static unsigned shares_of(const struct mosld_profile_part *part, bool host, struct share out[7])
{
    const struct mosld_profile_time *t = &part->time;
    const struct share all[7] = {
        {host ? "ops" : "kernels", "work", t->work},
        {"copies, fills, uploads alone", "transfer", t->transfer},
        {"between kernels of a submission", "between", t->between},
        {"submitting and noticing the end", "latency", t->latency},
        {"building pipelines", "build", t->build},
        {"moving bytes to and from it", "move", t->move},
        {host ? "the program's own" : "the program: recording, its own", "program", t->program},
    };
    unsigned n = 0;
    for (int i = 0; i < 7; i++)
        if (!host || i == 0 || i >= 5)
            out[n++] = all[i];
    return n;
}

static void print_time(const struct profiling *p, const char *name, const struct mosld_profile_part *part)
{
    struct share shares[7];
    unsigned n = shares_of(part, p->profile.host, shares);
    double windows = part->windows;
    fprintf(stderr, "\n  %-44s %11s %20s\n", "where the time goes", "ms", "share");
    for (unsigned i = 0; i < n; i++)
        fprintf(stderr, "    %-42s %11.3f %18.1f %%\n", shares[i].name, 1e3 * shares[i].seconds / windows, 100 * shares[i].seconds / part->wall);
    fprintf(stderr, "    %-42s %11.3f %18.1f %%\n", "sum, the device by its own clock", 1e3 * mosld_profile_accounted(part) * part->wall / windows,
            100 * mosld_profile_accounted(part));
    fprintf(stderr, "    %-42s %11.3f\n", "processor time, all threads", 1e3 * part->process / windows);
    fprintf(stderr, "    %-42s %11.3f\n", "processor time, the program's own thread", 1e3 * part->thread / windows);
    if (!p->profile.host)
        fprintf(stderr, "    a %s has %.4g kernels, %.4g transfers, %.4g submissions\n", name, (double)part->kernels / windows,
                (double)part->transfers / windows, (double)part->submissions / windows);
}

static void print_root(const struct profiling *p, struct mosld_profile_root *root)
{
    const struct mosld_profile_part *part = mosld_profile_part(root);
    const char *why = p->profile.host ? "memory is touched for the first time in it" : "drivers compile in it";
    fprintf(stderr, "\nprofile of \"%s\": %u of them, %.3f ms each (%.4g a second)", root->name, part->windows, 1e3 * part->wall / part->windows,
            part->wall > 0 ? part->windows / part->wall : 0);
    if (part == &root->rest)
        fprintf(stderr, "; the first, which took %.3f ms, is left out: %s", 1e3 * root->first.wall, why);
    else
        fprintf(stderr, "; it is the first: %s", why);
    fputc('\n', stderr);
    print_time(p, root->name, part);
    print_rows(p, part, &part->ops, "by op");
    if (!p->profile.host)
        print_rows(p, part, &part->by_kernel, "by kernel");
    else if (part->by_kernel.n > part->ops.n) /* otherwise each op took one variant, and the table is the same again */
        print_rows(p, part, &part->by_kernel, "by variant");
    print_short(part, &part->phases, "by phase");
    if (part->modules.n > part->phases.n) /* otherwise nothing has modules in it */
        print_short(part, &part->modules, "by module");
    print_short(part, &part->layers, "by layer");
    if (part->dropped)
        fprintf(stderr, "  %llu events found no memory and are missing\n", (unsigned long long)part->dropped);
}

static double start_seconds(const struct profiling *p) { return p->phase[p->n_phases - 1].end - p->phase[0].begin; }

static void print_start(const struct profiling *p)
{
    if (!p->begun || !p->n_phases)
        return;
    fprintf(stderr, "\nstart: %.3f s to the first step\n", start_seconds(p));
    for (uint32_t i = 0; i < p->n_phases; i++)
        fprintf(stderr, "    %-42s %11.3f ms\n", p->phase[i].name, 1e3 * (p->phase[i].end - p->phase[i].begin));
    if (p->start_build > 0)
        fprintf(stderr, "    %-42s %11.3f ms\n", "  of which building pipelines", 1e3 * p->start_build);
}

void profiling_print(struct profiling *p)
{
    const struct rt_device_info *info = rt_device_info(p->dev);
    print_start(p);
    for (uint32_t i = 0; i < p->profile.n_roots; i++)
        print_root(p, &p->profile.roots[i]);
    fprintf(stderr, "\ndevice %s (%s), clock: %s%s\n", info->name, info->driver, p->clock,
            p->mode == PROFILING_SERIAL && !p->profile.host ? "; every kernel ran alone" : "");
    if (p->has_peaks)
        fprintf(stderr, "peaks %.1f GFLOP/s, %.2f GB/s copied, as measured just now\n", p->peaks.flops * 1e-9, p->peaks.copy_bytes * 1e-9);
    fprintf(stderr, "memory at most, MiB:");
    for (uint32_t i = 0; i < p->n_memory; i++)
        fprintf(stderr, "%s %s %.1f", i ? "," : "", p->memory[i].purpose, (double)p->memory[i].peak / (1 << 20));
    fprintf(stderr, "\n%s", p->profile.no_memory ? "there was no memory for some of it, which is missing\n" : "");
}

/* ---- JSON ---- */

static void put_rows(cJSON *to, const char *key, const struct profiling *p, const struct mosld_profile_part *part,
                     const struct mosld_profile_rows *rows)
{
    cJSON *list = cJSON_AddArrayToObject(to, key);
    for (uint32_t i = 0; i < rows->n; i++) {
        const struct mosld_profile_row *r = &rows->row[i];
        cJSON *row = cJSON_CreateObject();
        bool memory;
        double bound = bound_of(p, r, &memory);
        cJSON_AddStringToObject(row, "name", r->path[0] ? r->path : r->name);
        if (r->variant && !r->path[0])
            cJSON_AddStringToObject(row, "variant", r->variant);
        if (r->number >= 0 && !r->path[0])
            cJSON_AddNumberToObject(row, "number", (double)r->number);
        cJSON_AddNumberToObject(row, "calls", (double)r->calls / part->windows);
        cJSON_AddNumberToObject(row, "seconds", r->seconds / part->windows);
        if (r->flops > 0)
            cJSON_AddNumberToObject(row, "flops", r->flops / part->windows);
        if (r->bytes > 0)
            cJSON_AddNumberToObject(row, "bytes", r->bytes / part->windows);
        if (bound > 0 && r->seconds > 0) {
            cJSON_AddNumberToObject(row, "share_of_peak", bound / r->seconds);
            cJSON_AddStringToObject(row, "bound_by", memory ? "memory" : "arithmetic");
        }
        cJSON_AddItemToArray(list, row);
    }
}

static cJSON *root_json(const struct profiling *p, struct mosld_profile_root *root)
{
    const struct mosld_profile_part *part = mosld_profile_part(root);
    struct share shares[7];
    unsigned n = shares_of(part, p->profile.host, shares);
    cJSON *json = cJSON_CreateObject();
    cJSON_AddStringToObject(json, "of", root->name);
    cJSON_AddNumberToObject(json, "count", part->windows);
    cJSON_AddBoolToObject(json, "first_left_out", part == &root->rest);
    cJSON_AddNumberToObject(json, "first_seconds", root->first.wall);
    cJSON_AddNumberToObject(json, "seconds", part->wall / part->windows);
    cJSON *time = cJSON_AddObjectToObject(json, "time");
    for (unsigned i = 0; i < n; i++)
        cJSON_AddNumberToObject(time, shares[i].key, shares[i].seconds / part->windows);
    cJSON_AddNumberToObject(json, "accounted", mosld_profile_accounted(part));
    cJSON_AddNumberToObject(json, "processor_seconds", part->process / part->windows);
    cJSON_AddNumberToObject(json, "thread_seconds", part->thread / part->windows);
    cJSON_AddNumberToObject(json, "kernel_count", (double)part->kernels / part->windows);
    cJSON_AddNumberToObject(json, "transfer_count", (double)part->transfers / part->windows);
    cJSON_AddNumberToObject(json, "submission_count", (double)part->submissions / part->windows);
    put_rows(json, "ops", p, part, &part->ops);
    put_rows(json, "kernels", p, part, &part->by_kernel);
    put_rows(json, "phases", p, part, &part->phases);
    put_rows(json, "modules", p, part, &part->modules);
    put_rows(json, "layers", p, part, &part->layers);
    return json;
}

cJSON *profiling_json(struct profiling *p)
{
    if (!p->mode)
        return NULL;
    cJSON *json = cJSON_CreateObject();
    cJSON_AddStringToObject(json, "device", rt_device_info(p->dev)->name);
    cJSON_AddStringToObject(json, "clock", p->clock);
    cJSON_AddBoolToObject(json, "serial", p->mode == PROFILING_SERIAL);
    if (p->has_peaks) {
        cJSON_AddNumberToObject(json, "peak_flops", p->peaks.flops);
        cJSON_AddNumberToObject(json, "peak_bytes", p->peaks.copy_bytes);
    }
    cJSON *memory = cJSON_AddObjectToObject(json, "memory");
    for (uint32_t i = 0; i < p->n_memory; i++)
        cJSON_AddNumberToObject(memory, p->memory[i].purpose, (double)p->memory[i].peak);
    if (p->begun && p->n_phases) {
        cJSON *start = cJSON_AddObjectToObject(json, "start"), *phases;
        cJSON_AddNumberToObject(start, "seconds", start_seconds(p));
        cJSON_AddNumberToObject(start, "build_seconds", p->start_build);
        phases = cJSON_AddArrayToObject(start, "phases");
        for (uint32_t i = 0; i < p->n_phases; i++) {
            cJSON *phase = cJSON_CreateObject();
            cJSON_AddStringToObject(phase, "name", p->phase[i].name);
            cJSON_AddNumberToObject(phase, "seconds", p->phase[i].end - p->phase[i].begin);
            cJSON_AddItemToArray(phases, phase);
        }
    }
    cJSON *list = cJSON_AddArrayToObject(json, "profiles");
    for (uint32_t i = 0; i < p->profile.n_roots; i++)
        cJSON_AddItemToArray(list, root_json(p, &p->profile.roots[i]));
    return json;
}
