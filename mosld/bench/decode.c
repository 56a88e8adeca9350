/* mosld/bench/decode.c - see decode.h. */
#include "mosld/bench/decode.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#define MOST_ROUNDS 256u
#define READ_BYTES (256u << 20) /* far beyond any cache */
#define READ_ITEMS 64

static double processor_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* ---- what memory gives ---- */

struct read_job {
    const uint64_t *data;
    uint64_t sums[READ_ITEMS];
};

static void read_item(void *arg, int item, int worker)
{
    (void)worker;
    struct read_job *job = arg;
    size_t n = READ_BYTES / 8 / READ_ITEMS;
    const uint64_t *p = job->data + (size_t)item * n;
    uint64_t sum[8] = {0};
    for (size_t i = 0; i < n; i += 8)
        for (int l = 0; l < 8; l++)
            sum[l] += p[i + l];
    for (int l = 1; l < 8; l++)
        sum[0] += sum[l];
    job->sums[item] = sum[0];
}

static enum rt_status measure_read(struct rt_device *dev, double *rate, struct rt_error *err)
{
    *rate = 0;
    if (rt_device_kind(dev) != RT_HOST)
        return RT_OK;
    uint64_t *data = malloc(READ_BYTES);
    if (!data)
        return rt_fail(err, RT_NO_MEMORY, "no memory to measure memory with");
    memset(data, 1, READ_BYTES);
    static struct read_job job;
    job.data = data;
    double best = 1e30;
    for (int i = 0; i < 7; i++) {
        double begin = mosld_bench_now();
        rt_parallel(dev, READ_ITEMS, read_item, &job);
        double seconds = mosld_bench_now() - begin;
        best = seconds < best ? seconds : best;
    }
    free(data);
    *rate = READ_BYTES / best;
    return RT_OK;
}

/* ---- a variant, ready to run ---- */

struct turn {
    struct mosld_adapter *adapter;
    struct mosld_pass *pass;
    double *prefill, *decode, *processor; /* [rounds] */
    double dispatches;                    /* a token; the same every round */
};

static uint64_t weight_bytes(const struct op_weight *w) { return op_weight_bytes(w->type, w->rows, w->cols); }

static uint64_t bytes_a_token(const struct mosld_model *m, const struct mosld_adapter *a)
{
    uint64_t bytes = weight_bytes(&m->head);
    for (uint32_t l = 0; l < m->config.num_layers; l++)
        for (int i = 0; i < MOSLD_LINEARS; i++)
            bytes += weight_bytes(&m->layers[l].linear[i]);
    for (uint32_t i = 0; a && i < a->n_modules; i++) { /* A and the router whole, of B the experts chosen */
        const struct mosld_adapter_module *mod = &a->modules[i];
        uint32_t chosen = mod->experts > a->params.top_k && a->params.top_k ? a->params.top_k : mod->experts;
        bytes += 4ull * ((uint64_t)mod->r * mod->d_in + (mod->experts > 1 ? (uint64_t)mod->experts * mod->d_in : 0) +
                         (uint64_t)chosen * mod->r * mod->d_out);
    }
    return bytes;
}

static enum rt_status open_turn(struct turn *t, struct mosld_model *model, struct mosld_bench_decode *v, const struct mosld_bench_decode_params *p,
                                struct rt_error *err)
{
    t->prefill = calloc(3 * (size_t)p->rounds, sizeof *t->prefill);
    if (!t->prefill)
        return rt_fail(err, RT_NO_MEMORY, "no memory for the measurements");
    t->decode = t->prefill + p->rounds;
    t->processor = t->decode + p->rounds;
    if (!v->none) {
        RT_TRY(mosld_adapter_create(model->dev, &model->config, &v->adapter, false, false, &t->adapter, err));
    }
    v->bytes = bytes_a_token(model, t->adapter);
    RT_TRY(mosld_pass_create(model, t->adapter, &(struct mosld_pass_params){.max_tokens = p->prompt, .max_targets = 1,
                                                                           .cache_tokens = p->prompt + p->tokens,
                                                                           .cache_type = p->cache_type}, &t->pass, err));
    if (t->adapter) {
        RT_TRY(mosld_adapter_commit(t->adapter, err));
        RT_TRY(mosld_adapter_init(t->adapter, err));
    }
    return mosld_pass_commit(t->pass, err);
}

static void close_turn(struct turn *t)
{
    mosld_pass_destroy(&t->pass);
    mosld_adapter_destroy(&t->adapter);
    free(t->prefill);
}

static enum rt_status run_turn(struct turn *t, const struct mosld_bench_decode_params *p, uint32_t round, const uint32_t *tokens, float *logits,
                               struct rt_error *err)
{
    double begin = mosld_bench_now();
    t->pass->cached = 0;
    RT_TRY(mosld_forward_cached(t->pass, tokens, p->prompt, err));
    RT_TRY(mosld_logits(t->pass, &(uint32_t){p->prompt - 1}, 1, logits, err));
    t->prefill[round] = mosld_bench_now() - begin;
    struct rt_statistics before, after;
    rt_get_statistics(t->pass->model->dev, &before);
    begin = mosld_bench_now();
    double processor = processor_now();
    for (uint32_t i = 0; i < p->tokens; i++) {
        RT_TRY(mosld_forward_cached(t->pass, &tokens[p->prompt + i], 1, err));
        RT_TRY(mosld_logits(t->pass, &(uint32_t){0}, 1, logits, err));
    }
    t->processor[round] = (processor_now() - processor) / p->tokens;
    t->decode[round] = (mosld_bench_now() - begin) / p->tokens;
    rt_get_statistics(t->pass->model->dev, &after);
    t->dispatches = (double)(after.dispatches - before.dispatches) / p->tokens;
    return RT_OK;
}

static double median_ratio(const double *a, const double *b, uint32_t n)
{
    double quotients[MOST_ROUNDS];
    for (uint32_t i = 0; i < n; i++)
        quotients[i] = a[i] / b[i];
    return mosld_bench_median(quotients, n);
}

static enum rt_status measure(const struct mosld_bench *bench, const struct mosld_bench_decode_params *p, struct turn *turns,
                              struct mosld_bench_decode *variants, uint32_t n, const uint32_t *tokens, float *logits, struct rt_error *err)
{
    for (uint32_t i = 0; i < n; i++) /* once unmeasured: pipelines are built, pages are touched */
        RT_TRY(run_turn(&turns[i], p, 0, tokens, logits, err));
    for (uint32_t round = 0; round < p->rounds; round++)
        for (uint32_t i = 0; i < n; i++) {
            RT_TRY(mosld_bench_progress(bench, "generation", round * n + i, p->rounds * n, err));
            RT_TRY(run_turn(&turns[i], p, round, tokens, logits, err));
        }
    for (uint32_t i = 0; i < n; i++) {
        variants[i].ratio = median_ratio(turns[i].decode, turns[0].decode, p->rounds);
        variants[i].processor_ratio = median_ratio(turns[i].processor, turns[0].processor, p->rounds);
    }
    for (uint32_t i = 0; i < n; i++) { /* a median sorts */
        variants[i].prefill_seconds = mosld_bench_median(turns[i].prefill, p->rounds);
        variants[i].decode_seconds = mosld_bench_median(turns[i].decode, p->rounds);
        variants[i].processor_seconds = mosld_bench_median(turns[i].processor, p->rounds);
        variants[i].dispatches = turns[i].dispatches;
    }
    return RT_OK;
}

enum rt_status mosld_bench_decode(const struct mosld_bench *bench, struct mosld_model *model, const struct mosld_bench_decode_params *params,
                                  struct mosld_bench_decode *variants, uint32_t n, double *read_rate, struct rt_error *err)
{
    struct mosld_bench_decode_params p = *params;
    p.prompt = p.prompt ? p.prompt : 512;
    p.tokens = p.tokens ? p.tokens : 32;
    p.rounds = !p.rounds ? 5 : p.rounds < MOST_ROUNDS ? p.rounds : MOST_ROUNDS;
    if ((uint64_t)p.prompt + p.tokens > model->positions)
        return rt_fail(err, RT_USAGE, "a prompt of %u tokens and %u more: the model was made for %u positions", p.prompt, p.tokens, model->positions);
    RT_TRY(measure_read(bench->dev, read_rate, err));
    struct turn *turns = calloc(n, sizeof *turns);
    uint32_t *tokens = calloc((size_t)p.prompt + p.tokens, sizeof *tokens), state = 1;
    float *logits = calloc(model->config.vocab_size, sizeof *logits);
    enum rt_status st = turns && tokens && logits ? RT_OK : rt_fail(err, RT_NO_MEMORY, "no memory for the measurements");
    for (uint32_t i = 0; !st && i < p.prompt + p.tokens; i++) {
        state = state * 1664525u + 1013904223u;
        tokens[i] = (uint32_t)((uint64_t)state * model->config.vocab_size >> 32);
    }
    for (uint32_t i = 0; i < n && !st; i++)
        st = open_turn(&turns[i], model, &variants[i], &p, err);
    if (!st)
        st = measure(bench, &p, turns, variants, n, tokens, logits, err);
    for (uint32_t i = 0; turns && i < n; i++)
        close_turn(&turns[i]);
    free(turns);
    free(tokens);
    free(logits);
    return st;
}
