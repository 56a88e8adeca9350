/* tools/kernels.c - mosld kernels: every kernel that a device would use, and what its driver's compiler makes of it.
 *
 * Nothing is run: a device without hardware (RADV's, or Mesa's drivers behind a shim) serves, with --compile-only. */
#include "tools/commands.h"

#include "mosld/ops/op.h"
#include "mosld/ops/weight.h"
#include "tools/kernels_report.h"
#include "tools/session.h"

#include <stdlib.h>
#include <string.h>

struct kernels_options {
    char *device, *assembly;
    struct option_list weights, ops;
    bool all, compile_only, mix, json;
};

#define FIELD struct kernels_options
static const struct option table[] = {
    {.name = "device",
     OPTION_STRING(FIELD, device),
     .value = "NAME",
     .section = "Device",
     .help = "an index or a part of a name of `mosld devices`; auto: the best GPU, else the host"},
    {.name = "compile_only",
     OPTION_BOOL(FIELD, compile_only),
     .help = "ask for nothing but a compiler: for drivers without their hardware"},
    {.name = "all",
     OPTION_BOOL(FIELD, all),
     .section = "Which kernels",
     .help = "also those that the device could run and would not take"},
    {.name = "weights",
     OPTION_STRINGS(FIELD, weights),
     .commas = true,
     .value = "TYPES",
     .help = "of f32, f16, bf16, q8_0, q4_0 and q4_1; all of them unless given"},
    {.name = "ops", OPTION_STRINGS(FIELD, ops), .commas = true, .value = "NAMES", .help = "these alone"},
    {.name = "assembly",
     OPTION_STRING(FIELD, assembly),
     .value = "KERNEL",
     .section = "Output",
     .help = "print what the driver made of one kernel instead, as far as the driver gives it"},
    {.name = "mix", OPTION_BOOL(FIELD, mix), .help = "what the hottest loop consists of, where the driver's assembly can be read (AMD's)"},
    {.name = "json", OPTION_BOOL(FIELD, json), .help = "one JSON document on standard output"},
};

/* ---- which ---- */

static enum rt_status weight_bits(const struct option_list *names, uint32_t *bits, struct rt_error *err)
{
    *bits = names->n ? 0 : UINT32_MAX;
    for (size_t i = 0; i < names->n; i++) {
        uint32_t bit = 0;
        for (int t = 0; t < OP_W_TYPES; t++)
            if (strcmp(op_wtype_name((enum op_wtype)t), names->item[i]) == 0)
                bit = 1u << t;
        if (!bit)
            return rt_fail(err, RT_USAGE, "--weights %s: there is no such type; there are f32, f16, bf16, q8_0, q4_0 and q4_1", names->item[i]);
        *bits |= bit;
    }
    return RT_OK;
}

static enum rt_status check_ops(const struct option_list *names, struct rt_error *err)
{
    for (size_t i = 0; i < names->n; i++) {
        bool found = false;
        for (const struct op *const *op = op_table; *op; op++)
            found = found || strcmp((*op)->name, names->item[i]) == 0;
        if (!found)
            return rt_fail(err, RT_USAGE, "--ops %s: there is no such op; mosld kernels without it lists them", names->item[i]);
    }
    return RT_OK;
}

static bool wanted(const struct option_list *names, const char *name)
{
    for (size_t i = 0; i < names->n; i++)
        if (strcmp(names->item[i], name) == 0)
            return true;
    return names->n == 0;
}

static enum rt_status add_variant(struct kernels_report *r, const struct op *op, const struct op_variant *v, struct rt_error *err)
{
    int n = 0;
    while (n < OP_MAX_KERNELS && v->kernels[n])
        n++;
    size_t rows = n ? (size_t)n : 1; /* a host variant has no kernel and still is a row */
    struct kernels_row *grown = realloc(r->rows, (r->n + rows) * sizeof *grown);
    if (!grown)
        return rt_fail(err, RT_NO_MEMORY, "no memory for the list of kernels");
    r->rows = grown;
    for (size_t i = 0; i < rows; i++)
        r->rows[r->n++] = (struct kernels_row){.op = op, .variant = v, .kernel = n ? &v->kernels[i]->kernel : NULL,
                                               .taken = op_would_take(r->dev, v)};
    return RT_OK;
}

/* The weight types of all variants of this kind of device, and of those that run on this one. A variant that asks for no type is for all. */
static uint32_t types_of(const struct rt_device *dev, const struct op *op, bool that_run)
{
    uint32_t types = 0;
    for (uint32_t i = 0; i < op->n_variants; i++) {
        const struct op_variant *v = &op->variants[i];
        if (v->kind == rt_device_kind(dev) && (!that_run || op_can_run(dev, v)))
            types |= v->wtypes ? v->wtypes : UINT32_MAX;
    }
    return types;
}

/* Those of the cache have types too, which are not those of weights: --weights does not choose among them. */
static bool reads_weights(const struct op *op)
{
    for (uint32_t i = 0; i < op->n_bindings; i++)
        if (op->bindings[i].data == OP_WEIGHT)
            return true;
    return false;
}

/* Every op that is not optional has something that runs for every type, or the device is of no use: RT_NO_DEVICE. */
static enum rt_status collect(struct kernels_report *r, const struct kernels_options *o, struct rt_error *err)
{
    uint32_t bits;
    enum rt_status st = weight_bits(&o->weights, &bits, err);
    if (!st)
        st = check_ops(&o->ops, err);
    for (const struct op *const *op = op_table; *op && !st; op++) {
        uint32_t runs = types_of(r->dev, *op, true);
        uint32_t types = reads_weights(*op) ? bits : UINT32_MAX;
        if (!(*op)->optional && (!runs || types & types_of(r->dev, *op, false) & ~runs))
            return rt_fail(err, RT_NO_DEVICE, "%s cannot run %s%s: no variant of it fits the device's limits", rt_device_info(r->dev)->name,
                           (*op)->name, runs ? " with each type of weights" : "");
        for (uint32_t i = 0; i < (*op)->n_variants && !st && wanted(&o->ops, (*op)->name); i++) {
            const struct op_variant *v = &(*op)->variants[i];
            if (op_can_run(r->dev, v) && (v->wtypes == 0 || v->wtypes & types) && (o->all || op_would_take(r->dev, v)))
                st = add_variant(r, *op, v, err);
        }
    }
    return st;
}

/* ---- what the driver says ---- */

/* In parallel first; what does not build then says so row by row. */
static enum rt_status describe(struct kernels_report *r, struct rt_error *err)
{
    const struct rt_kernel **list = malloc((r->n ? r->n : 1) * sizeof *list);
    if (!list)
        return rt_fail(err, RT_NO_MEMORY, "no memory for the list of kernels");
    size_t n = 0;
    for (size_t i = 0; i < r->n; i++)
        if (r->rows[i].kernel)
            list[n++] = r->rows[i].kernel;
    rt_kernels_prepare(r->dev, list, n, NULL);
    free(list);
    for (size_t i = 0; i < r->n; i++) {
        struct kernels_row *row = &r->rows[i];
        struct rt_error why = {0};
        enum rt_status st = row->kernel ? rt_kernel_describe(r->dev, row->kernel, &row->description, &why) : RT_OK;
        if (st == RT_NO_MEMORY || st == RT_DEVICE_LOST)
            return rt_fail(err, st, "%s", why.text);
        if (st) {
            r->failed++;
            snprintf(row->failure, sizeof row->failure, "%s", why.text);
        }
    }
    return RT_OK;
}

static enum rt_status print_assembly(const struct kernels_report *r, const char *name, struct rt_error *err)
{
    for (size_t i = 0; i < r->n; i++) {
        const struct kernels_row *row = &r->rows[i];
        if (!row->kernel || strcmp(row->kernel->name, name) != 0)
            continue;
        if (!row->description)
            return rt_fail(err, RT_FAILED, "%s", row->failure);
        return kernels_print_assembly(row, stdout) ? RT_OK
                                                   : rt_fail(err, RT_FAILED, "the driver of %s gives no assembly of %s", rt_device_info(r->dev)->name, name);
    }
    return rt_fail(err, RT_USAGE, "--assembly %s: this device would not use a kernel of that name; mosld kernels lists those it would, and "
                   "--all those it could", name);
}

/* ---- the command ---- */

struct kernels_command {
    struct kernels_options o;
    struct kernels_report r;
};

static enum rt_status run(void *state, const struct options *given, struct rt_error *err)
{
    struct kernels_options *o = &((struct kernels_command *)state)->o;
    struct kernels_report *r = &((struct kernels_command *)state)->r;
    (void)given;
    r->mix = o->mix;
    enum rt_status st = rt_device_open(
        &(struct rt_device_params){.name = o->device, .compile_only = o->compile_only,
                                   .capture = o->assembly || o->mix ? RT_CAPTURE_ASSEMBLY : RT_CAPTURE_STATISTICS}, &r->dev, err);
    if (st == RT_FAILED && !o->compile_only)
        fprintf(stderr, "mosld kernels: a driver without its hardware needs --compile-only\n");
    if (!st)
        st = collect(r, o, err);
    if (!st)
        st = describe(r, err);
    if (!st && o->assembly)
        return print_assembly(r, o->assembly, err);
    if (!st)
        st = o->json ? kernels_print_json(r, stdout, err) : (kernels_print(r, stdout), RT_OK);
    if (!st && r->failed)
        st = rt_fail(err, RT_FAILED, "%zu kernels do not build, the first: %s", r->failed, kernels_first_failure(r));
    return st;
}

static void finish(void *state)
{
    struct kernels_report *r = &((struct kernels_command *)state)->r;
    for (size_t i = 0; i < r->n; i++)
        rt_kernel_description_free(&r->rows[i].description);
    free(r->rows);
    rt_device_close(&r->dev);
}

int cmd_kernels(int argc, char **argv)
{
    struct kernels_command c = {.o = {.device = "auto"}};
    return session_main(&(struct session_command){.name = "kernels",
                                                  .usage = "mosld kernels [--device NAME] [--compile-only] [--all] [--weights TYPES] [--json]",
                                                  .table = table,
                                                  .n = sizeof table / sizeof *table,
                                                  .values = &c.o,
                                                  .run = run,
                                                  .finish = finish,
                                                  .state = &c},
                        argc, argv);
}
