/* mosld/bench/steps.c - see steps.h. */
#include "mosld/bench/steps.h"

#include "mosld/train/step.h"
#include "runtime/trace.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define MOST_TIMES 1024

/* ---- the batch ---- */

enum rt_status mosld_bench_tokens(uint32_t vocabulary, uint32_t rows, uint32_t length, struct mosld_tokens *out,
                                  struct rt_error *err)
{
    uint32_t T, n = 0, state = 1;
    *out = (struct mosld_tokens){0};
    if (length < 2 || rows < 1 || __builtin_mul_overflow(rows, length, &T) || T > 1u << 24)
        return rt_fail(err, RT_USAGE, "tokens: %u rows of %u tokens: at least one row of 2, and at most 2^24 in all",
                       rows, length);
    uint32_t *words = calloc((size_t)T * 8, sizeof *words), *tokens = words, *pos = words + T,
             *seg = words + 2 * (size_t)T;
    if (!words)
        return rt_fail(err, RT_NO_MEMORY, "no memory for %u tokens", T);
    uint32_t *target_row = words + 6 * (size_t)T, *target = words + 7 * (size_t)T;
    for (uint32_t t = 0; t < T; t++) {
        uint32_t begin = t / length * length;
        state = state * 1664525u + 1013904223u;
        tokens[t] = (uint32_t)((uint64_t)state * vocabulary >> 32);
        pos[t] = t - begin;
        memcpy(seg + 4 * (size_t)t, (uint32_t[]){begin, begin, begin, begin + length}, 16);
        if (t > begin)
            target_row[n] = t - 1, target[n++] = tokens[t];
    }
    *out = (struct mosld_tokens){.T = T,
                                 .tokens = tokens,
                                 .pos = pos,
                                 .seg = seg,
                                 .n_targets = n,
                                 .target_row = target_row,
                                 .target = target};
    return RT_OK;
}

void mosld_bench_tokens_finish(struct mosld_tokens *tokens)
{
    free((void *)tokens->tokens);
    *tokens = (struct mosld_tokens){0};
}

/* ---- no adapter ---- */

enum rt_status mosld_bench_no_adapter(const struct mosld_config *config, struct mosld_adapter **out,
                                      struct rt_device *dev, struct rt_error *err)
{
    struct mosld_adapter_params params = mosld_adapter_defaults(MOSLD_METHOD_LORA);
    struct mosld_config lowest = *config;
    params.r = 1;
    memset(params.targets, 0, sizeof params.targets);
    params.targets[MOSLD_Q] = true;
    lowest.num_layers = 1;
    RT_TRY(mosld_adapter_create(dev, &lowest, &params, true, false, out, err));
    /* The layers above have empty groups. */
    struct mosld_adapter *a = *out;
    struct mosld_adapter_group(*groups)[MOSLD_GROUPS] = calloc(config->num_layers, sizeof *groups);
    if (!groups)
        return rt_fail(err, RT_NO_MEMORY, "no memory for the adapter");
    memcpy(groups, a->groups, sizeof *groups);
    for (uint32_t i = 0; i < a->n_modules; i++)
        a->modules[i].group = &groups[0][a->modules[i].group - a->groups[0]];
    free(a->groups);
    a->groups = groups;
    a->layers = config->num_layers;
    return RT_OK;
}

/* ---- one variant, ready to run ---- */

struct turn {
    struct mosld_train_config config;
    struct mosld_adapter *adapter;
    struct mosld_pass *pass;
    struct mosld_step *step;
};

static enum rt_status open_turn(struct turn *t, struct mosld_model *model, const struct mosld_bench_variant *v,
                                const struct mosld_tokens *batch, struct rt_error *err)
{
    struct mosld_pass_params params = {.max_tokens = batch->T, .max_targets = batch->n_targets, .trains = true};
    t->config = (struct mosld_train_config){MOSLD_TRAIN_DEFAULTS, .adapter = v->adapter};
    if (v->none)
        RT_TRY(mosld_bench_no_adapter(&model->config, &t->adapter, model->dev, err));
    else
        RT_TRY(mosld_adapter_create(model->dev, &model->config, &v->adapter, true, false, &t->adapter, err));
    RT_TRY(mosld_pass_create(model, t->adapter, &params, &t->pass, err));
    RT_TRY(mosld_adapter_commit(t->adapter, err));
    RT_TRY(mosld_adapter_init(t->adapter, err));
    RT_TRY(mosld_pass_commit(t->pass, err));
    return mosld_step_create(t->pass, &t->config, &t->step, err);
}

static void close_turn(struct turn *t)
{
    mosld_step_destroy(&t->step);
    mosld_pass_destroy(&t->pass);
    mosld_adapter_destroy(&t->adapter);
}

static double processor_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static enum rt_status step_of(struct turn *t, const struct mosld_tokens *batch, uint32_t *losses, double *wall,
                               double *processor, struct rt_error *err)
{
    float norm;
    bool skipped;
    double begin = mosld_bench_now(), processor_begin = processor_now();
    RT_TRY(mosld_step_begin(t->step, 1, err));
    RT_TRY(mosld_step_micro(t->step, batch, batch->n_targets, losses, err));
    RT_TRY(mosld_step_end(t->step, 1e-4, &norm, &skipped, err));
    RT_TRY(rt_finish(t->pass->model->dev, err));
    *wall = mosld_bench_now() - begin;
    *processor = processor_now() - processor_begin;
    return skipped ? rt_fail(err, RT_FAILED, "the gradient of a measured step is not finite") : RT_OK;
}

/* `variant` tells the steps of one adapter from another's where they are profiled. */
static enum rt_status run_step(struct turn *t, const char *variant, const struct mosld_tokens *batch, uint32_t *losses,
                               double *wall, double *processor, struct rt_error *err)
{
    unsigned scope = rt_scope_begin(t->pass->model->dev, variant, (int64_t)t->step->updates);
    enum rt_status st = step_of(t, batch, losses, wall, processor, err);
    rt_scope_end(t->pass->model->dev, scope);
    return st;
}

/* ---- memory ---- */

/* Sets the process's peak back to what it holds now, where the system can. */
static void forget_peak(void)
{
    FILE *f = fopen("/proc/self/clear_refs", "w");
    if (f) {
        fputs("5", f);
        fclose(f);
    }
}

static uint64_t process_peak(void)
{
    FILE *f = fopen("/proc/self/status", "r");
    unsigned long long kib = 0;
    char line[256];
    while (f && fgets(line, sizeof line, f) && sscanf(line, "VmHWM: %llu kB", &kib) != 1)
        ;
    if (f)
        fclose(f);
    return 1024 * kib;
}

static void note_memory(struct mosld_bench_variant *v, const struct turn *t)
{
    const struct rt_arena *arenas[] = {t->adapter->arena, t->pass->activations, t->pass->scratch, t->step->arena};
    v->arenas = v->planned = 0;
    for (size_t i = 0; i < sizeof arenas / sizeof *arenas; i++) {
        v->arenas += rt_arena_allocated(arenas[i]);
        v->planned += rt_arena_planned(arenas[i]);
    }
    v->weights = rt_arena_allocated(t->pass->model->arena);
    v->parameters = t->adapter->parameters;
    uint64_t peak = process_peak();
    v->process_peak = peak > v->process_peak ? peak : v->process_peak;
}

/* ---- turns ---- */

struct run {
    struct mosld_model *model;
    struct mosld_tokens tokens;
    uint32_t steps, rounds, n;
    double *times;  /* [2, n, rounds, steps]: by the wall clock, then the processor's */
    double *ratios; /* [rounds]: scratch */
    uint32_t *losses;
};

enum clock { WALL, PROCESSOR };

static double *times_of(const struct run *r, enum clock clock, uint32_t variant, uint32_t round)
{
    return r->times + (((size_t)clock * r->n + variant) * r->rounds + round) * r->steps;
}

static enum rt_status take_turn(struct run *r, struct mosld_bench_variant *v, double *wall, double *processor,
                                struct rt_error *err)
{
    struct turn turn = {0};
    double unmeasured[2];
    forget_peak();
    enum rt_status st = open_turn(&turn, r->model, v, &r->tokens, err);
    if (!st)
        st = run_step(&turn, v->name, &r->tokens, r->losses, &unmeasured[WALL], &unmeasured[PROCESSOR], err);
    for (uint32_t i = 0; i < r->steps && !st; i++)
        st = run_step(&turn, v->name, &r->tokens, r->losses, &wall[i], &processor[i], err);
    if (!st)
        note_memory(v, &turn);
    close_turn(&turn);
    return st ? rt_error_prefix(err, "%s", v->name) : RT_OK;
}

static double sum(const double *values, uint32_t n)
{
    double s = 0;
    for (uint32_t i = 0; i < n; i++)
        s += values[i];
    return s;
}

/* Median over the rounds of a turn's seconds against those of variant 0 in the same round. */
static double ratio_of(struct run *r, enum clock clock, uint32_t variant)
{
    for (uint32_t round = 0; round < r->rounds; round++)
        r->ratios[round] =
            sum(times_of(r, clock, variant, round), r->steps) / sum(times_of(r, clock, 0, round), r->steps);
    return mosld_bench_median(r->ratios, r->rounds);
}

static void conclude(struct run *r, struct mosld_bench_variant *variants)
{
    for (uint32_t i = 0; i < r->n; i++) {
        variants[i].ratio = ratio_of(r, WALL, i);
        variants[i].cpu_ratio = ratio_of(r, PROCESSOR, i);
    }
    for (uint32_t i = 0; i < r->n; i++) { /* sorts the times, so it comes last */
        struct mosld_bench_variant *v = &variants[i];
        v->n = r->rounds * r->steps;
        v->median = mosld_bench_median(times_of(r, WALL, i, 0), v->n);
        v->best = times_of(r, WALL, i, 0)[0];
        v->cpu_seconds = mosld_bench_median(times_of(r, PROCESSOR, i, 0), v->n);
        v->tokens_per_second = r->tokens.T / v->median;
    }
}

enum rt_status mosld_bench_steps(const struct mosld_bench *bench, struct mosld_model *model,
                                 const struct mosld_bench_batch *batch, struct mosld_bench_variant *variants,
                                 uint32_t n, struct rt_error *err)
{
    struct run r = {.model = model,
                    .steps = batch->steps ? batch->steps : 2,
                    .rounds = batch->rounds ? batch->rounds : 5,
                    .n = n};
    if (batch->length > model->positions)
        return rt_fail(err, RT_USAGE, "tokens: rows of %u tokens, and the model is laid out for %u", batch->length,
                       model->positions);
    if (n == 0 || r.steps > MOST_TIMES || r.rounds > MOST_TIMES)
        return rt_fail(err, RT_USAGE, "steps, rounds: at most %d each, of at least one variant", MOST_TIMES);
    RT_TRY(mosld_bench_tokens(model->config.vocab_size, batch->rows, batch->length, &r.tokens, err));
    r.times = calloc(2 * (size_t)n * r.rounds * r.steps, sizeof *r.times);
    r.ratios = calloc(r.rounds, sizeof *r.ratios);
    r.losses = calloc(r.tokens.n_targets, 2 * sizeof *r.losses);
    enum rt_status st =
        r.times && r.ratios && r.losses ? RT_OK : rt_fail(err, RT_NO_MEMORY, "no memory for the measured times");
    for (uint32_t round = 0; round < r.rounds && !st; round++)
        for (uint32_t i = 0; i < n && !st; i++) {
            st = mosld_bench_progress(bench, variants[i].name, round * n + i, r.rounds * n, err);
            if (!st)
                st = take_turn(&r, &variants[i], times_of(&r, WALL, i, round), times_of(&r, PROCESSOR, i, round), err);
        }
    if (!st)
        conclude(&r, variants);
    free(r.times);
    free(r.ratios);
    free(r.losses);
    mosld_bench_tokens_finish(&r.tokens);
    return st;
}
