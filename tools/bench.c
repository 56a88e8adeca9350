/* tools/bench.c - mosld bench: what the device can do, what each op does of it, and what a whole training step costs.
 */
#include "tools/answer_options.h"
#include "tools/commands.h"

#include "mosld/bench/shapes.h"
#include "mosld/ops/op.h"
#include "tools/bench_report.h"
#include "tools/doctor_report.h"
#include "tools/session.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct bench_options {
    char *model, *shapes, *device, *tokens;
    int64_t threads, cube, r, top_k, ops_experts, rounds, steps;
    int cache_type; /* index into answer_cache_types */
    int weights, matmul_precision;
    double seconds;
    struct option_list what, methods, targets, counters;
    struct option_ints experts;
    bool json, tune;
    struct profiling_options profiling;
};

static const char *const weight_names[] = {"file", "f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", NULL};

#define DECODE_TOKENS 32 /* that follow a prompt */
#define FIELD struct bench_options
static const struct option table[] = {
    {.name = "model",
     OPTION_STRING(FIELD, model),
     .value = "PATH",
     .section = "Model and device",
     .help = "a Hugging Face directory or a .gguf file"},
    {.name = "shapes",
     OPTION_STRING(FIELD, shapes),
     .value = "NAME",
     .help = "random weights in the shapes of a known model instead, such as smollm2-135m or llama-3.2-1b"},
    {.name = "matmul_precision",
     OPTION_CHOICE(FIELD, matmul_precision, session_precisions),
     .help = "as for train: high, highest or medium"},
    {.name = "weights",
     OPTION_CHOICE(FIELD, weights, weight_names),
     .help = "type of the frozen weights in memory; file: as they are, f32 with --shapes"},
    {.name = "device",
     OPTION_STRING(FIELD, device),
     .value = "NAME",
     .help = "an index or a part of a name of `mosld devices`, or host; auto: the best GPU, else the host"},
    {.name = "threads", OPTION_INT(FIELD, threads, 0, 1024), .help = "of the host device; 0: one a processor"},
    {.name = "what",
     OPTION_STRINGS(FIELD, what),
     .commas = true,
     .value = "LIST",
     .section = "What is measured",
     .help = "of peaks, ops, step and decode (generation); the first three unless given"},
    {.name = "tokens",
     OPTION_STRING(FIELD, tokens),
     .value = "ROWSxLENGTH",
     .help = "the batch of a step and of the ops"},
    {.name = "seconds", OPTION_REAL(FIELD, seconds, 0, 3600), .help = "for each measurement of a peak or an op, about"},
    {.name = "cube",
     OPTION_INT(FIELD, cube, 16, 16384),
     .help = "rows, columns and depth of the product among the peaks"},
    {.name = "cache_type",
     OPTION_CHOICE(FIELD, cache_type, answer_cache_types),
     .help = "of keys and values in generation"},
    {.name = "rounds", OPTION_INT(FIELD, rounds, 1, 1000), .help = "how often each adapter has its turn"},
    {.name = "steps", OPTION_INT(FIELD, steps, 1, 1000), .help = "timed steps of a turn"},
    {.name = "methods",
     OPTION_STRINGS(FIELD, methods),
     .commas = true,
     .value = "LIST",
     .section = "Adapters",
     .help = "of lora, mosl and mosld; all three unless given"},
    {.name = "num_experts",
     OPTION_INTS(FIELD, experts, 1, 64),
     .value = "LIST",
     .help = "of mosl and mosld; 1,2,4,8,16 unless given"},
    {.name = "targets",
     OPTION_STRINGS(FIELD, targets),
     .commas = true,
     .value = "LIST",
     .help = "of qv and all; both unless given"},
    {.name = "r", OPTION_INT(FIELD, r, 1, MOSLD_MAX_RANK), .help = "rank"},
    {.name = "top_k", OPTION_INT(FIELD, top_k, 1, 64), .help = "experts a token uses, at most"},
    {.name = "ops_experts",
     OPTION_INT(FIELD, ops_experts, 1, 64),
     .help = "of the adapter whose ops are measured (mosld on q and v)"},
    PROFILING_OPTIONS(FIELD, profiling), /* of the steps */
    {.name = "counters",
     OPTION_STRINGS(FIELD, counters),
     .commas = true,
     .value = "LIST",
     .help = "hardware counters of the ops by parts of their names, where the driver gives them (VK_KHR_performance_query); list: what there is"},
    {.name = "tune",
     OPTION_BOOL(FIELD, tune),
     .help = "instead: check and time the variants of every op, and write down the fastest for other commands to take",
     .section = "Tuning"},
    {.name = "json", OPTION_BOOL(FIELD, json), .help = "print one JSON document"},
};

/* ---- what was asked for ---- */

/* Whether the list has the name; an empty list has all. */
static bool asks(const struct option_list *list, const char *name)
{
    for (size_t i = 0; i < list->n; i++)
        if (strcmp(list->item[i], name) == 0)
            return true;
    return list->n == 0;
}

static enum rt_status check_list(const char *option, const struct option_list *list, const char *const *names,
                                 struct rt_error *err)
{
    for (size_t i = 0; i < list->n; i++) {
        int known = 0;
        for (int j = 0; names[j]; j++)
            known |= strcmp(list->item[i], names[j]) == 0;
        if (!known)
            return rt_fail(err, RT_USAGE, "--%s: there is no '%s': give a list of %s, %s%s%s%s%s", option, list->item[i],
                           names[0], names[1], names[2] ? ", " : "", names[2] ? names[2] : "",
                           names[2] && names[3] ? ", " : "", names[2] && names[3] ? names[3] : "");
    }
    return RT_OK;
}

static enum rt_status check(const struct bench_options *o, struct mosld_bench_batch *batch, struct rt_error *err)
{
    static const char *const whats[] = {"peaks", "ops", "step", "decode", NULL},
                             *const methods[] = {"lora", "mosl", "mosld", NULL}, *const targets[] = {"qv", "all", NULL};
    char rest;
    enum rt_status st = check_list("what", &o->what, whats, err);
    if (!st)
        st = check_list("methods", &o->methods, methods, err);
    if (!st)
        st = check_list("targets", &o->targets, targets, err);
    if (st)
        return st;
    if (o->counters.n && !bench_counters_lists(&o->counters) && !asks(&o->what, "ops"))
        return rt_fail(err, RT_USAGE, "--counters: they are of the ops, and --what leaves those out");
    if (o->model && o->shapes)
        return rt_fail(err, RT_USAGE, "--model and --shapes: give one of them");
    unsigned rows, length;
    if (sscanf(o->tokens, "%ux%u%c", &rows, &length, &rest) != 2 || strpbrk(o->tokens, "+- ") || rows < 1 ||
        length < 2 || rows > 1u << 20 || length > 1u << 20)
        return rt_fail(err, RT_USAGE, "--tokens: '%s' is not ROWSxLENGTH, such as 2x256: at least one row of 2 tokens",
                       o->tokens);
    *batch = (struct mosld_bench_batch){.rows = rows,
                                        .length = length,
                                        .steps = (uint32_t)o->steps,
                                        .rounds = (uint32_t)o->rounds};
    return RT_OK;
}

/* ---- the variants of a step ---- */

static void add_variant(const struct bench_options *o, struct bench_report *report, enum mosld_method method,
                        uint32_t experts, bool all)
{
    struct mosld_bench_variant *v = &report->variants[report->n_variants++];
    *v = (struct mosld_bench_variant){.adapter = mosld_adapter_defaults(method)};
    v->adapter.r = (uint32_t)o->r;
    v->adapter.num_experts[0] = experts;
    v->adapter.top_k = experts < o->top_k ? experts : (uint32_t)o->top_k;
    for (int i = 0; i < MOSLD_LINEARS && all; i++)
        v->adapter.targets[i] = true;
    if (method == MOSLD_METHOD_LORA)
        snprintf(v->name, sizeof v->name, "lora, %s", all ? "all linear" : "q and v");
    else
        snprintf(v->name, sizeof v->name, "%s E %u, %s", mosld_method_names[method], experts,
                 all ? "all linear" : "q and v");
}

static enum rt_status make_variants(const struct bench_options *o, struct bench_report *report, struct rt_error *err)
{
    static int64_t usual[] = {1, 2, 4, 8, 16};
    struct option_ints experts = o->experts.n ? o->experts : (struct option_ints){sizeof usual / sizeof *usual, usual};
    report->variants = calloc(1 + 2 * MOSLD_METHODS * experts.n, sizeof *report->variants);
    if (!report->variants)
        return rt_fail(err, RT_NO_MEMORY, "no memory for the variants");
    report->variants[0] = (struct mosld_bench_variant){.name = "no adapter", .none = true};
    report->n_variants = 1;
    for (int all = 0; all < 2; all++)
        for (int method = 0; method < MOSLD_METHODS && asks(&o->targets, all ? "all" : "qv"); method++)
            for (size_t i = 0;
                 i < (method == MOSLD_METHOD_LORA ? 1 : experts.n) && asks(&o->methods, mosld_method_names[method]);
                 i++)
                add_variant(o, report, (enum mosld_method)method,
                            method == MOSLD_METHOD_LORA ? 1 : (uint32_t)experts.item[i], all);
    return RT_OK;
}

/* The model alone, and MoSLD on q and v and on all linear modules. */
static enum rt_status decode(const struct bench_options *o, const struct mosld_bench *bench, struct mosld_model *model,
                             struct bench_report *report, struct rt_error *err)
{
    report->decode = calloc(3, sizeof *report->decode);
    if (!report->decode)
        return rt_fail(err, RT_NO_MEMORY, "no memory for the measurements");
    report->decode[report->n_decode++] = (struct mosld_bench_decode){.name = "no adapter", .none = true};
    for (int all = 0; all < 2; all++) {
        struct mosld_bench_decode *v = &report->decode[report->n_decode];
        if (!asks(&o->targets, all ? "all" : "qv"))
            continue;
        v->adapter = mosld_adapter_defaults(MOSLD_METHOD_MOSLD);
        v->adapter.r = (uint32_t)o->r;
        v->adapter.num_experts[0] = (uint32_t)o->ops_experts;
        v->adapter.top_k = o->ops_experts < o->top_k ? (uint32_t)o->ops_experts : (uint32_t)o->top_k;
        for (int i = 0; i < MOSLD_LINEARS && all; i++)
            v->adapter.targets[i] = true;
        snprintf(v->name, sizeof v->name, "mosld E %u, %s", (unsigned)o->ops_experts, all ? "all linear" : "q and v");
        report->n_decode++;
    }
    struct mosld_bench_decode_params params = {.prompt = report->batch.rows * report->batch.length, .tokens = DECODE_TOKENS, .rounds = (uint32_t)o->rounds,
                                               .cache_type = answer_cache_wtype(o->cache_type)};
    return mosld_bench_decode(bench, model, &params, report->decode, report->n_decode, &report->read_rate, err);
}

/* ---- running ---- */

static void on_progress(void *user, const char *what, uint32_t done, uint32_t of)
{
    (void)user;
    progress_line("measuring %s (%u of %u)", what, done + 1, of);
}

static enum rt_status open_model(struct session *s, const struct bench_options *o, uint32_t positions,
                                 struct rt_error *err)
{
    struct mosld_config config;
    progress_line("%s", o->model ? "loading the model" : "drawing random weights");
    if (!o->model) {
        enum rt_status st = mosld_shapes_config(o->shapes ? o->shapes : "smollm2-135m", &config, err);
        return st ? st
                  : mosld_random_model(s->dev, &config, o->weights ? (enum op_wtype)(o->weights - 1) : OP_W_F32,
                                       positions, &s->model, err);
    }
    enum rt_status st = mosld_model_file_open(o->model, &s->file, err);
    if (!st)
        st = mosld_model_create(s->dev, s->file, positions, o->weights - 1, &s->model, err);
    return st ? st : mosld_model_load(s->model, s->file, err);
}

static enum rt_status measure(struct session *s, const struct bench_options *o, const struct mosld_bench *bench,
                              struct bench_report *report, struct rt_error *err)
{
    bool ops = asks(&o->what, "ops"), step = asks(&o->what, "step"), generates = o->what.n && asks(&o->what, "decode");
    enum rt_status st = op_prepare(s->dev, 1u << OP_W_F32, err); /* what the peaks need */
    if (!st && (asks(&o->what, "peaks") || ops)) {
        st = mosld_bench_peaks(bench, (uint32_t)o->cube, &report->peaks, err);
        report->has_peaks = true;
    }
    if (st || (!ops && !step && !generates))
        return st;
    uint32_t prompt = report->batch.rows * report->batch.length;
    st = open_model(s, o, generates ? prompt + DECODE_TOKENS : report->batch.length, err);
    report->model = s->model;
    if (!st)
        st = op_prepare(s->dev, mosld_model_wtypes(s->model), err);
    if (!st && ops) {
        struct mosld_adapter_params a =
            mosld_adapter_defaults(o->ops_experts > 1 ? MOSLD_METHOD_MOSLD : MOSLD_METHOD_LORA);
        a.r = (uint32_t)o->r;
        a.num_experts[0] = (uint32_t)o->ops_experts;
        a.top_k = o->ops_experts < o->top_k ? (uint32_t)o->ops_experts : (uint32_t)o->top_k;
        st = mosld_bench_ops(bench, s->model, &a, report->batch.rows, report->batch.length, &report->peaks,
                             &report->ops, &report->n_ops, err);
    }
    if (!st && generates)
        st = decode(o, bench, s->model, report, err);
    if (!st && step)
        st = make_variants(o, report, err);
    if (!st && step)
        st = profiling_start(&s->profiling, &o->profiling, s->dev, err);
    if (!st && step)
        st = mosld_bench_steps(bench, s->model, &report->batch, report->variants, report->n_variants, err);
    return st;
}

struct bench_command {
    struct bench_options o;
    struct session s;
};

/* What `mosld doctor` does, told as what is faster. */
static enum rt_status tune(const struct bench_options *o, struct rt_error *err)
{
    struct doctor_run r = {.device = o->device, .threads = (int)o->threads, .seconds = o->seconds / 7, .time = true, .write = true,
                           .wtypes = o->weights ? 1u << OP_W_F32 | 1u << (o->weights - 1) : doctor_wtypes_default()};
    enum rt_status st = doctor_run(&r, err);
    if (!st && o->json)
        st = doctor_report_json(&r, err);
    else if (!st)
        doctor_report_summary(&r, stdout);
    doctor_run_finish(&r);
    return st;
}

static enum rt_status run(void *state, const struct options *given, struct rt_error *err)
{
    struct session *s = &((struct bench_command *)state)->s;
    const struct bench_options *o = &((struct bench_command *)state)->o;
    (void)given;
    if (o->tune)
        return tune(o, err);
    struct bench_report report = {.model_name = o->model ? o->model : o->shapes ? o->shapes : "smollm2-135m"};
    struct rt_device_params params = {.name = o->device, .threads = (int)o->threads,
                                      .precision = (enum rt_precision)o->matmul_precision, .counters = o->counters.n > 0,
                                      .compile_only = bench_counters_lists(&o->counters)};
    enum rt_status st = check(o, &report.batch, err);
    if (!st)
        st = profiling_params(&o->profiling, &params, err);
    if (!st)
        st = rt_device_open(&params, &s->dev, err);
    if (!st && o->counters.n)
        st = bench_counters_choose(s->dev, &o->counters, &report.counters, err);
    if (!st && bench_counters_lists(&o->counters)) {
        st = bench_counters_print_list(&report.counters, o->json, err);
        bench_counters_finish(&report.counters);
        return st;
    }
    struct mosld_bench bench = {.dev = s->dev,
                                .seconds = o->seconds,
                                .n_counters = report.counters.n_chosen,
                                .on_progress = on_progress,
                                .stop = &session_interrupted};
    report.device = st ? NULL : rt_device_info(s->dev);
    if (!st)
        st = measure(s, o, &bench, &report, err);
    progress_line("%s", "");
    report.profiling = &s->profiling;
    if (!st)
        st = profiling_end(&s->profiling, err);
    if (!st)
        st = o->json ? bench_report_json(&report, err) : bench_report_text(&report);
    fflush(stdout);
    if (!st && !o->json)
        st = profiling_report(&s->profiling, NULL, err);
    s->profiling.reported = true;
    mosld_bench_ops_free(report.ops, report.n_ops);
    bench_counters_finish(&report.counters);
    free(report.variants);
    free(report.decode);
    return st;
}

static void finish(void *state) { session_close(&((struct bench_command *)state)->s); }

int cmd_bench(int argc, char **argv)
{
    struct bench_command c = {.o = {.device = "auto",
                                 .tokens = "2x256",
                                 .seconds = 0.7,
                                 .cube = 1024,
                                 .r = 8,
                                 .top_k = 2,
                                 .ops_experts = 8,
                                 .rounds = 5,
                                 .steps = 2}};
    return session_main(&(struct session_command){.name = "bench",
                                                  .usage = "mosld bench [--model PATH | --shapes NAME] [options]",
                                                  .table = table,
                                                  .n = sizeof table / sizeof *table,
                                                  .values = &c.o,
                                                  .interruptible = true,
                                                  .run = run,
                                                  .finish = finish,
                                                  .state = &c},
                        argc, argv);
}
