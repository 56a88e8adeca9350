/* tools/doctor_report.c - see doctor_report.h. */
#include "tools/doctor_report.h"

#include "mosld/ops/choice.h"

#include <string.h>
#include <sys/utsname.h>

static const char *const verdicts[MOSLD_VERDICTS] = {"right", "WRONG", "FAILED", "ENDED THE PROGRAM"};

static size_t count(const struct doctor_run *r, bool timed, int verdict)
{
    size_t n = 0;
    for (size_t i = 0; i < r->n; i++)
        n += r->trials[i].timed == timed && (verdict < 0 || (int)r->trials[i].verdict == verdict);
    return n;
}

static double worst_error(const struct doctor_run *r)
{
    double worst = 0;
    for (size_t i = 0; i < r->n; i++)
        if (r->trials[i].verdict == MOSLD_PASSED && r->trials[i].error > worst)
            worst = r->trials[i].error;
    return worst;
}

/* Variants, not trials. */
static size_t count_variants(const struct doctor_run *r)
{
    size_t n = 0;
    for (size_t i = 0; i < r->n; i++) {
        size_t k = 0;
        while (k < i && (strcmp(r->trials[k].op, r->trials[i].op) != 0 || strcmp(r->trials[k].variant, r->trials[i].variant) != 0))
            k++;
        n += k == i;
    }
    return n;
}

/* The tables' choice, and the faster one, in the same case. */
static const struct mosld_trial *first_of(const struct doctor_run *r, const struct mosld_trial *t)
{
    for (size_t i = 0; i < r->n; i++)
        if (r->trials[i].timed && r->trials[i].first && strcmp(r->trials[i].op, t->op) == 0 && strcmp(r->trials[i].class_, t->class_) == 0 &&
            strcmp(r->trials[i].label, t->label) == 0)
            return &r->trials[i];
    return NULL;
}

void doctor_report_fastest(const struct doctor_run *r, FILE *to)
{
    const cJSON *classes, *item;
    cJSON_ArrayForEach(classes, r->fastest) cJSON_ArrayForEach(item, classes) for (size_t i = 0; i < r->n; i++)
    {
        const struct mosld_trial *t = &r->trials[i], *first;
        if (t->timed && strcmp(t->op, classes->string) == 0 && strcmp(t->class_, item->string) == 0 && strcmp(t->variant, item->valuestring) == 0 &&
            (first = first_of(r, t)) && first != t)
            fprintf(to, "  %-16s %-20s %-12s %8.3g ms, instead of %-12s %8.3g ms (%s)\n", t->op, t->class_, t->variant, 1e3 * t->seconds,
                    first->variant, 1e3 * first->seconds, t->label);
    }
}

static void print_wrong(const struct doctor_run *r, FILE *to)
{
    const cJSON *item;
    int i = 0;
    cJSON_ArrayForEach(item, r->wrong)
    {
        fprintf(to, "  %s %s: %s\n    %s\n", cJSON_GetObjectItem(item, "op")->valuestring, cJSON_GetObjectItem(item, "variant")->valuestring,
                cJSON_GetObjectItem(item, "why")->valuestring,
                r->replaceable[i++] ? "another variant stands in for it" : "THERE IS NO OTHER: do not trust what this device computes");
    }
}

static void print_found(const struct doctor_run *r, FILE *to)
{
    fprintf(to, "%zu variants, %zu checks against the reference: %zu right (largest error %.1e), %zu wrong, %zu failed, %zu ended the program\n",
            count_variants(r), count(r, false, -1), count(r, false, MOSLD_PASSED), worst_error(r), count(r, false, MOSLD_WRONG),
            count(r, false, MOSLD_FAILED), count(r, false, MOSLD_ENDED));
    if (cJSON_GetArraySize(r->wrong)) {
        fprintf(to, "\nNot to be used on this driver:\n");
        print_wrong(r, to);
    }
    if (r->time && r->fastest->child) {
        fprintf(to, "\nFaster here than the first choice of the tables:\n");
        doctor_report_fastest(r, to);
    } else if (r->time) {
        fprintf(to, "The first choices of the tables are the fastest here (within 5 %%).\n");
    }
}

void doctor_report_summary(const struct doctor_run *r, FILE *to)
{
    const struct rt_device_info *d = rt_device_info(r->dev);
    fprintf(to, "%s (%s)\n", d->name, d->driver);
    print_found(r, to);
    if (r->path)
        fprintf(to, "\nwrote %s: other commands heed it, unless --no-tuning or MOSLD_TUNING=0 says not to\n", r->path);
}

static void print_device(const struct rt_device_info *d, FILE *to)
{
    static const char *const names[] = {"fp16-storage", "fp16-arithmetic", "int8", "subgroup", "subgroup-size", "integer-dot", "cooperative-matrix",
                                        "push-descriptor", "memory-budget", "buffer-address", "timestamps"};
    const struct rt_limits *l = &d->limits;
    fprintf(to, "device        %s\ndriver        %s\nids           vendor %#x, device %#x, Vulkan %u.%u.%u\n", d->name, d->driver, d->vendor_id, d->device_id,
            d->api_version >> 22 & 0x7f, d->api_version >> 12 & 0x3ff, d->api_version & 0xfff);
    fprintf(to, "limits        binding %llu, buffer %llu, allocation %llu, memory %llu bytes; offsets of %u, %u storage buffers, %u bytes of push\n"
                "              constants, %u bytes shared, %u invocations (%u x %u x %u), %u x %u x %u groups, subgroup %u\n",
            (unsigned long long)l->max_range, (unsigned long long)l->max_buffer, (unsigned long long)l->max_allocation, (unsigned long long)l->memory,
            l->offset_align, l->max_storage_buffers, l->max_push, l->max_shared, l->max_invocations, l->max_size[0], l->max_size[1], l->max_size[2],
            l->max_groups[0], l->max_groups[1], l->max_groups[2], l->subgroup_size);
    fprintf(to, "used         ");
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (d->caps >> i & 1)
            fprintf(to, " %s", names[i]);
    fprintf(to, "%s\n", d->caps ? "" : " nothing beyond the floor of Vulkan 1.2");
}

void doctor_report_text(const struct doctor_run *r, FILE *to)
{
    struct utsname system;
    fprintf(to, "mosld doctor, version %s, kernels %s, compiler %s\n", MOSLD_VERSION, rt_kernels_id(), __VERSION__);
    if (uname(&system) == 0) /* not its nodename */
        fprintf(to, "system        %s %s, %s\n", system.sysname, system.release, system.machine);
    print_device(rt_device_info(r->dev), to);
    fputc('\n', to);
    print_found(r, to);
    fprintf(to, "\n%-16s %-14s %-22s %-34s %s\n", "op", "variant", "class", "case", "");
    for (size_t i = 0; i < r->n; i++) {
        const struct mosld_trial *t = &r->trials[i];
        fprintf(to, "%-16s %-14s %-22s %-34s ", t->op, t->variant, t->class_, t->label);
        if (t->verdict != MOSLD_PASSED)
            fprintf(to, "%s: %s\n", verdicts[t->verdict], t->why);
        else if (t->timed)
            fprintf(to, "%.4g ms%s\n", 1e3 * t->seconds, t->first ? " (first in the table)" : "");
        else
            fprintf(to, "right, %.1e\n", t->error);
    }
}

static cJSON *trial_json(const struct mosld_trial *t)
{
    cJSON *o = cJSON_CreateObject();
    cJSON_AddStringToObject(o, "op", t->op);
    cJSON_AddStringToObject(o, "variant", t->variant);
    cJSON_AddStringToObject(o, "class", t->class_);
    cJSON_AddStringToObject(o, "case", t->label);
    cJSON_AddStringToObject(o, "verdict", t->verdict == MOSLD_PASSED ? "right" : t->verdict == MOSLD_WRONG ? "wrong" : t->verdict == MOSLD_FAILED ? "failed" : "ended");
    cJSON_AddBoolToObject(o, "first", t->first);
    if (t->timed && t->verdict == MOSLD_PASSED)
        cJSON_AddNumberToObject(o, "seconds", t->seconds);
    else if (!t->timed)
        cJSON_AddNumberToObject(o, "error", t->error);
    if (t->verdict != MOSLD_PASSED)
        cJSON_AddStringToObject(o, "why", t->why);
    return o;
}

enum rt_status doctor_report_json(const struct doctor_run *r, struct rt_error *err)
{
    const struct rt_device_info *d = rt_device_info(r->dev);
    cJSON *json = cJSON_CreateObject(), *trials;
    cJSON_AddStringToObject(json, "mosld_version", MOSLD_VERSION);
    cJSON_AddStringToObject(json, "device", d->name);
    cJSON_AddStringToObject(json, "driver", d->driver);
    trials = cJSON_AddArrayToObject(json, "trials");
    for (size_t i = 0; i < r->n; i++)
        cJSON_AddItemToArray(trials, trial_json(&r->trials[i]));
    cJSON_AddItemToObject(json, "wrong", cJSON_Duplicate(r->wrong, true));
    cJSON_AddItemToObject(json, "fastest", cJSON_Duplicate(r->fastest, true));
    char *text = cJSON_PrintUnformatted(json);
    cJSON_Delete(json);
    if (!text)
        return rt_fail(err, RT_NO_MEMORY, "no memory for the report");
    puts(text);
    cJSON_free(text);
    return RT_OK;
}
