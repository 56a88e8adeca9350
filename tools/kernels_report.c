/* tools/kernels_report.c - see kernels_report.h. */
#include "tools/kernels_report.h"

#include "mosld/ops/weight.h"
#include "tools/kernels_mix.h"

#include <cjson/cJSON.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const struct {
    const char *json, *title;
} measures[RT_MEASURES] = {
    [RT_MEASURE_REGISTERS] = {"registers", "regs"},
    [RT_MEASURE_SCALAR_REGISTERS] = {"scalar_registers", "sregs"},
    [RT_MEASURE_SPILLS] = {"spills", "spills"},
    [RT_MEASURE_SCRATCH] = {"scratch_bytes", "scratch"},
    [RT_MEASURE_SHARED] = {"shared_bytes", "shared"},
    [RT_MEASURE_OCCUPANCY] = {"occupancy", "occup."},
    [RT_MEASURE_INSTRUCTIONS] = {"instructions", "instr."},
    [RT_MEASURE_CODE] = {"code_bytes", "code"},
    [RT_MEASURE_LATENCY] = {"latency", "latency"},
    [RT_MEASURE_INVERSE_THROUGHPUT] = {"inverse_throughput", "inv.thr."},
};

const char *kernels_first_failure(const struct kernels_report *r)
{
    for (size_t i = 0; i < r->n; i++)
        if (r->rows[i].failure[0])
            return r->rows[i].failure;
    return "";
}

static bool reported(const struct kernels_report *r)
{
    for (size_t i = 0; i < r->n; i++)
        if (r->rows[i].description && r->rows[i].description->reported)
            return true;
    return false;
}

/* In the last text, which is the one nearest to the machine. */
static bool mix_of(const struct rt_executable *e, struct kernels_mix *mix)
{
    return e->n_texts && kernels_mix_read(e->texts[e->n_texts - 1].text, mix);
}

static double percent(const struct kernels_mix *m) { return m->vector ? 100.0 * m->multiply_add / m->vector : 0; }

/* ---- for people ---- */

static void print_executable(const struct rt_executable *e, FILE *to)
{
    struct kernels_mix mix;
    fprintf(to, " %4u", e->subgroup_size);
    for (int m = 0; m < RT_MEASURES; m++)
        if (isnan(e->measures[m]))
            fprintf(to, " %8s", "-");
        else
            fprintf(to, " %8.0f", e->measures[m]);
    if (mix_of(e, &mix))
        fprintf(to, " %7u %5.0f%% %5u %5u %6.0f%%", mix.vector, percent(&mix), mix.shared, mix.global, 100 * mix.share_of_peak);
}

static void print_row(const struct kernels_row *row, FILE *to)
{
    fprintf(to, "%-15s %-14s %-22s ", row->op->name, row->variant->name, row->kernel ? row->kernel->name : "(C function)");
    const struct rt_kernel_description *d = row->description;
    if (row->failure[0])
        fprintf(to, "does not build: %s\n", row->failure);
    if (!d) {
        fputs(row->failure[0] ? "" : "\n", to);
        return;
    }
    fprintf(to, "%3ux%ux%u %6u", d->workgroup[0], d->workgroup[1], d->workgroup[2], d->shared_bytes);
    for (size_t e = 0; e < d->n_executables; e++) {
        if (e)
            fprintf(to, "\n%-53s              ", "");
        print_executable(&d->executables[e], to);
    }
    fputs(row->taken ? "\n" : "   not taken\n", to);
}

void kernels_print(const struct kernels_report *r, FILE *to)
{
    const struct rt_device_info *info = rt_device_info(r->dev);
    fprintf(to, "%s, %s\n", info->name, info->driver);
    if (info->kind == RT_VULKAN && !reported(r))
        fprintf(to, "This driver does not tell what it made of a kernel (VK_KHR_pipeline_executable_properties).\n");
    fprintf(to, "\n%-15s %-14s %-22s %7s %6s", "op", "variant", "kernel", "group", "shared");
    if (reported(r)) {
        fprintf(to, " %4s", "sub");
        for (int m = 0; m < RT_MEASURES; m++)
            fprintf(to, " %8s", measures[m].title);
        if (r->mix)
            fprintf(to, " %7s %6s %5s %5s %7s", "loop: v", "m-add", "lds", "mem", "of peak");
    }
    fputc('\n', to);
    for (size_t i = 0; i < r->n; i++)
        print_row(&r->rows[i], to);
}

bool kernels_print_assembly(const struct kernels_row *row, FILE *to)
{
    bool any = false;
    for (size_t e = 0; row->description && e < row->description->n_executables; e++) {
        const struct rt_executable *x = &row->description->executables[e];
        if (!x->n_texts)
            continue;
        const struct rt_executable_text *t = &x->texts[x->n_texts - 1];
        fprintf(to, "; %s, %s, subgroup %u: %s\n%s\n", row->kernel->name, x->name, x->subgroup_size, t->name, t->text);
        any = true;
    }
    return any;
}

/* ---- for programs ---- */

static cJSON *executable_json(const struct rt_executable *e)
{
    cJSON *o = cJSON_CreateObject(), *statistics;
    cJSON_AddStringToObject(o, "name", e->name);
    cJSON_AddNumberToObject(o, "subgroup_size", e->subgroup_size);
    for (int m = 0; m < RT_MEASURES; m++)
        if (!isnan(e->measures[m]))
            cJSON_AddNumberToObject(o, measures[m].json, e->measures[m]);
    struct kernels_mix mix;
    if (mix_of(e, &mix)) {
        cJSON *loop = cJSON_AddObjectToObject(o, "hottest_loop");
        cJSON_AddNumberToObject(loop, "vector", mix.vector);
        cJSON_AddNumberToObject(loop, "multiply_add", mix.multiply_add);
        cJSON_AddNumberToObject(loop, "matrix", mix.matrix);
        cJSON_AddNumberToObject(loop, "shared", mix.shared);
        cJSON_AddNumberToObject(loop, "global", mix.global);
        cJSON_AddNumberToObject(loop, "scalar", mix.scalar);
        cJSON_AddNumberToObject(loop, "share_of_peak", mix.share_of_peak);
    }
    statistics = cJSON_AddObjectToObject(o, "statistics");
    for (size_t i = 0; i < e->n_statistics; i++)
        cJSON_AddNumberToObject(statistics, e->statistics[i].name, e->statistics[i].value);
    return o;
}

static void add_description(cJSON *o, const struct rt_kernel_description *d)
{
    cJSON_AddItemToObject(o, "workgroup", cJSON_CreateDoubleArray((double[3]){d->workgroup[0], d->workgroup[1], d->workgroup[2]}, 3));
    cJSON_AddNumberToObject(o, "shared_bytes", d->shared_bytes);
    cJSON_AddNumberToObject(o, "push_bytes", d->push_bytes);
    cJSON_AddNumberToObject(o, "storage_buffers", d->storage_buffers);
    cJSON_AddNumberToObject(o, "spirv_bytes", d->spirv_bytes);
    cJSON *executables = cJSON_AddArrayToObject(o, "executables");
    for (size_t e = 0; e < d->n_executables; e++)
        cJSON_AddItemToArray(executables, executable_json(&d->executables[e]));
}

static cJSON *row_json(const struct kernels_row *row)
{
    cJSON *o = cJSON_CreateObject();
    cJSON_AddStringToObject(o, "op", row->op->name);
    cJSON_AddStringToObject(o, "variant", row->variant->name);
    cJSON_AddItemToObject(o, "kernel", row->kernel ? cJSON_CreateString(row->kernel->name) : cJSON_CreateNull());
    cJSON_AddBoolToObject(o, "taken", row->taken);
    cJSON *weights = cJSON_AddArrayToObject(o, "weights");
    for (int t = 0; t < OP_W_TYPES; t++)
        if (row->variant->wtypes & 1u << t)
            cJSON_AddItemToArray(weights, cJSON_CreateString(op_wtype_name((enum op_wtype)t)));
    if (row->failure[0])
        cJSON_AddStringToObject(o, "failure", row->failure);
    if (row->description)
        add_description(o, row->description);
    return o;
}

enum rt_status kernels_print_json(const struct kernels_report *r, FILE *to, struct rt_error *err)
{
    const struct rt_device_info *info = rt_device_info(r->dev);
    cJSON *root = cJSON_CreateObject();
    cJSON_AddStringToObject(root, "device", info->name);
    cJSON_AddStringToObject(root, "driver", info->driver);
    cJSON_AddBoolToObject(root, "statistics", reported(r));
    cJSON *kernels = cJSON_AddArrayToObject(root, "kernels");
    for (size_t i = 0; i < r->n; i++)
        cJSON_AddItemToArray(kernels, row_json(&r->rows[i]));
    char *text = cJSON_Print(root);
    cJSON_Delete(root);
    if (!text)
        return rt_fail(err, RT_NO_MEMORY, "no memory for the list of kernels");
    fputs(text, to);
    fputc('\n', to);
    free(text);
    return RT_OK;
}
