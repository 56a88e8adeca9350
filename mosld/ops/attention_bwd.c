/* mosld/ops/attention_bwd.c - gradient of attention.
 *
 *     delta  = <o, do>                          a token and head; equals sum_j p_j dp_j
 *     p      = exp(scale <q, k_j> - lse)        made again, never stored
 *     dp     = <do, v_j>
 *     ds     = scale p (dp - delta)
 *     dq     = sum_j ds k_j
 *     dk_j   = sum_t ds q,   dv_j = sum_t p do,    over the tokens that see j and the heads that share the key head
 *
 * On Vulkan three kernels: delta; dq, a group a tile of queries; dk and dv, a group a tile of keys. On the host
 * scores are made once for all three: an item is a key head, a chunk of queries and a chunk of keys. Items of a round have
 * all queries the same number of chunks behind their keys, so that no two write the same; rounds follow each other. */
#include "mosld/ops/attention_common.h"
#include "mosld/ops/host_blas.h"
#include "mosld/ops/host_lanes.h"
#include "mosld/ops/shape.h"

#include <math.h>
#include <stdlib.h>

enum { QKV, O, D_O, STATS, DQKV };

/* ---- the truth; p is made from qkv alone, so that it also judges what forward kept ---- */

static void bwd_ref_row(const struct attention_push *p, const double *qkv, const double *d_o, const uint32_t *seg,
                        uint32_t t, uint32_t h, double delta, double *dqkv, double *w)
{
    uint32_t D = p->head_dim;
    size_t stride = attention_qkv_words(p), q = t * stride + h * D,
           k = (p->heads + h / (p->heads / p->kv_heads)) * (size_t)D;
    size_t v = k + p->kv_heads * (size_t)D;
    attention_ref_row(qkv + q, qkv + k, stride, D, p->scale, seg, t, w);
    for (uint32_t j = 0; j <= t; j++) {
        double dp = 0;
        for (uint32_t d = 0; d < D; d++)
            dp += d_o[d] * qkv[v + j * stride + d];
        double ds = p->scale * w[j] * (dp - delta);
        for (uint32_t d = 0; d < D; d++) {
            dqkv[q + d] += ds * qkv[k + j * stride + d];
            dqkv[k + j * stride + d] += ds * qkv[q + d];
            dqkv[v + j * stride + d] += w[j] * d_o[d];
        }
    }
}

static void attention_bwd_ref(void *const *b, const void *push)
{
    const struct attention_push *p = push;
    const double *o = b[O], *d_o = b[D_O];
    uint32_t *stats = b[STATS];
    double *dqkv = b[DQKV], *w = malloc((p->T + 1) * sizeof *w);
    memset(dqkv, 0, (size_t)p->T * attention_qkv_words(p) * sizeof *dqkv);
    for (uint32_t t = 0; w && t < p->T; t++)
        for (uint32_t h = 0; h < p->heads; h++) {
            size_t at = ((size_t)t * p->heads + h) * p->head_dim;
            double delta = 0;
            for (uint32_t d = 0; d < p->head_dim; d++)
                delta += o[at + d] * d_o[at + d];
            uint32_t *s = stats + (size_t)t * attention_stats_words(p);
            float rounded = (float)delta;
            memcpy(s + STATS_LSE + p->heads + h, &rounded, sizeof rounded);
            bwd_ref_row(p, b[QKV], d_o + at, s, t, h, delta, dqkv, w);
        }
    free(w);
}

/* ---- the host ---- */

struct backward_job {
    struct attend a;
    const float *o, *d_o;
    uint32_t *stats;
    float *dqkv;
    struct chunk *chunks;
    uint32_t chunk_rows, round;
};

/* Up to chunk_rows tokens, which see nothing before `first` and are seen by nothing before it either. */
struct chunk {
    uint32_t first, begin, rows;
};

struct backward_state {
    _Alignas(64) float weight[ATTENTION_ROWS * ATTENTION_KEYS];
    _Alignas(64) float slope[ATTENTION_ROWS * ATTENTION_KEYS];
    float lse[ATTENTION_ROWS], delta[ATTENTION_ROWS];
    struct row_bounds bounds[ATTENTION_ROWS];
};

#define MOST_ROWS 256
#define ENOUGH_ITEMS 8

/* Large chunks read less again, small ones are more to share out. By the shape alone, so that the bits are too. */
static uint32_t rows_of_chunk(const struct attention_push *p)
{
    uint32_t rows = MOST_ROWS;
    while (rows > ATTENTION_ROWS && (uint64_t)p->T * p->kv_heads < (uint64_t)ENOUGH_ITEMS * rows)
        rows /= 2;
    return rows;
}

/* Lists chunks from .. from + room - 1, counted from the pass's end. Returns how many there are in all, and in *rounds how many the
 * longest stretch has that neither sees nor is seen by tokens outside it. Chunks begin where their stretch does. */
static uint32_t list_chunks(const struct backward_job *job, struct chunk *list, uint32_t from, uint32_t room, uint32_t *rounds)
{
    const struct attend *a = &job->a;
    const uint32_t size = job->chunk_rows;
    uint32_t low = a->p->T, end = low, n = 0;
    *rounds = 0;
    for (uint32_t t = a->p->T; t-- > 0;) {
        const uint32_t *seg = a->seg + t * a->seg_stride;
        low = seg[0] < low ? seg[0] : low;
        if (seg[1] < seg[2] && seg[1] < low)
            low = seg[1];
        if (low < t)
            continue;
        uint32_t count = (end - t + size - 1) / size;
        *rounds = count > *rounds ? count : *rounds;
        for (uint32_t i = count; i-- > 0; n++) {
            uint32_t begin = t + i * size;
            if (n - from < room)
                list[n - from] = (struct chunk){t, begin, i + 1 < count ? size : end - begin};
        }
        end = t;
    }
    return n;
}

/* Scores become weights, and the gradient of weights that of scores. */
MOSLD_CLONES static void slope_rows(struct backward_state *s, uint32_t rows, uint32_t keys, float scale)
{
    for (uint32_t r = 0; r < rows; r++) {
        float *restrict w = s->weight + r * ATTENTION_KEYS, *restrict d = s->slope + r * ATTENTION_KEYS;
        const struct row_bounds *b = &s->bounds[r];
        float lse = s->lse[r], delta = s->delta[r];
        uint32_t done = 0;
        for (int i = 0; i < 2; i++) {
            memset(w + done, 0, (b->begin[i] - done) * sizeof *w);
            memset(d + done, 0, (b->begin[i] - done) * sizeof *d);
            for (uint32_t j = b->begin[i]; j < b->end[i]; j++) {
                w[j] = host_exp(w[j] - lse);
                d[j] = w[j] * (d[j] - delta) * scale;
            }
            done = b->end[i];
        }
        memset(w + done, 0, (keys - done) * sizeof *w);
        memset(d + done, 0, (keys - done) * sizeof *d);
    }
}

MOSLD_CLONES static void delta_rows(const float *o, const float *d_o, size_t stride, uint32_t rows, uint32_t D,
                                    float *delta)
{
    for (uint32_t r = 0; r < rows; r++)
        delta[r] = host_dot(o + r * stride, d_o + r * stride, D);
}

static void backward_block(const struct backward_job *job, uint32_t head, uint32_t t0, uint32_t rows, uint32_t j0,
                           uint32_t keys, struct backward_state *s)
{
    const struct attend *a = &job->a;
    const struct attention_push *p = a->p;
    const int D = (int)p->head_dim, stride = (int)a->q_stride, o_stride = (int)a->o_stride, R = (int)rows,
              K = (int)keys;
    size_t q = t0 * a->q_stride + (size_t)head * p->head_dim,
           k = j0 * a->kv_stride + head / (p->heads / p->kv_heads) * p->head_dim;
    size_t dk = k + (size_t)(a->k - a->q), dv = k + (size_t)(a->v - a->q);
    const float *d_o = job->d_o + t0 * a->o_stride + (size_t)head * p->head_dim;
    if (!attention_bounds(a, t0, rows, j0, keys, s->bounds))
        return;
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, R, K, D, p->scale, a->q + q, stride, a->k + k, stride, 0,
                s->weight, ATTENTION_KEYS);
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, R, K, D, 1, d_o, o_stride, a->v + k, stride, 0, s->slope,
                ATTENTION_KEYS);
    slope_rows(s, rows, keys, p->scale);
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, R, D, K, 1, s->slope, ATTENTION_KEYS, a->k + k, stride, 1,
                job->dqkv + q, stride);
    cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, K, D, R, 1, s->slope, ATTENTION_KEYS, a->q + q, stride, 1,
                job->dqkv + dk, stride);
    cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, K, D, R, 1, s->weight, ATTENTION_KEYS, d_o, o_stride, 1,
                job->dqkv + dv, stride);
}

/* What rows t0 .. t0 + rows - 1 need of forward; delta is made in the first round. */
static void begin_rows(const struct backward_job *job, uint32_t head, uint32_t t0, uint32_t rows, struct backward_state *s)
{
    const struct attention_push *p = job->a.p;
    size_t words = attention_stats_words(p), o = t0 * job->a.o_stride + (size_t)head * p->head_dim;
    if (job->round == 0)
        delta_rows(job->o + o, job->d_o + o, job->a.o_stride, rows, p->head_dim, s->delta);
    for (uint32_t r = 0; r < rows; r++) {
        uint32_t *stats = job->stats + (t0 + r) * words + STATS_LSE + head;
        s->lse[r] = host_float(stats[0]);
        if (job->round == 0)
            stats[p->heads] = host_bits(s->delta[r]);
        else
            s->delta[r] = host_float(stats[p->heads]);
    }
}

static void clear_rows(const struct backward_job *job, uint32_t kv_head, const struct chunk *c)
{
    const struct attention_push *p = job->a.p;
    uint32_t share = p->heads / p->kv_heads;
    size_t head_bytes = p->head_dim * sizeof(float);
    for (uint32_t t = c->begin; t < c->begin + c->rows; t++) {
        float *row = job->dqkv + t * job->a.q_stride;
        memset(row + (size_t)kv_head * share * p->head_dim, 0, share * head_bytes);
        memset(row + (size_t)(p->heads + kv_head) * p->head_dim, 0, head_bytes);
        memset(row + (size_t)(p->heads + p->kv_heads + kv_head) * p->head_dim, 0, head_bytes);
    }
}

static void backward_chunk(const struct backward_job *job, uint32_t kv_head, const struct chunk *c)
{
    uint32_t share = job->a.p->heads / job->a.p->kv_heads, behind = job->round * job->chunk_rows, end = c->begin + c->rows;
    if (c->begin - c->first < behind)
        return;
    if (job->round == 0)
        clear_rows(job, kv_head, c);
    struct backward_state s;
    for (uint32_t head = kv_head * share; head < (kv_head + 1) * share; head++)
        for (uint32_t t = c->begin; t < end; t += ATTENTION_ROWS) {
            uint32_t rows = end - t < ATTENTION_ROWS ? end - t : ATTENTION_ROWS;
            uint32_t keys_end = behind ? c->begin - behind + job->chunk_rows : t + rows;
            begin_rows(job, head, t, rows, &s);
            for (uint32_t j = c->begin - behind; j < keys_end; j += ATTENTION_KEYS)
                backward_block(job, head, t, rows, j, keys_end - j < ATTENTION_KEYS ? keys_end - j : ATTENTION_KEYS, &s);
        }
}

static void backward_item(void *arg, int item, int worker)
{
    (void)worker;
    const struct backward_job *job = arg;
    backward_chunk(job, (uint32_t)item % job->a.p->kv_heads, &job->chunks[(uint32_t)item / job->a.p->kv_heads]);
}

/* A round by one thread, for when there is no memory for the list: slow, and right. */
static void backward_round(const struct backward_job *job, uint32_t n)
{
    struct chunk c;
    uint32_t rounds;
    for (uint32_t i = 0; i < n; i++) {
        list_chunks(job, &c, i, 1, &rounds);
        for (uint32_t kv_head = 0; kv_head < job->a.p->kv_heads; kv_head++)
            backward_chunk(job, kv_head, &c);
    }
}

static void attention_bwd_host(struct rt_device *dev, void *const *b, const void *push)
{
    const struct attention_push *p = push;
    size_t stride = attention_qkv_words(p);
    const float *q = b[QKV], *k = q + (size_t)p->heads * p->head_dim;
    struct backward_job job = {
        .a = {.p = p,
              .q = q,
              .k = k,
              .v = k + (size_t)p->kv_heads * p->head_dim,
              .q_stride = stride,
              .kv_stride = stride,
              .o_stride = (size_t)p->heads * p->head_dim,
              .seg = b[STATS],
              .seg_stride = attention_stats_words(p)},
        .o = b[O],
        .d_o = b[D_O],
        .stats = b[STATS],
        .dqkv = b[DQKV],
        .chunk_rows = rows_of_chunk(p),
    };
    uint32_t rounds, n = list_chunks(&job, NULL, 0, 0, &rounds);
    job.chunks = rt_host_scratch(dev, 0, n * sizeof *job.chunks);
    host_blas_alone();
    if (job.chunks)
        list_chunks(&job, job.chunks, 0, n, &rounds);
    for (job.round = 0; job.round < rounds; job.round++)
        if (job.chunks)
            rt_parallel(dev, (int)(n * p->kv_heads), backward_item, &job);
        else
            backward_round(&job, n);
}

/* ---- the descriptor ---- */

/* delta and dq are whole in the first launch; see WINDOW_TURNS. */
static void only_first(const void *push, uint32_t groups[3])
{
    groups[0] = ((const struct attention_push *)push)->from ? 0 : groups[0];
}

static void grid_delta(const void *push, uint32_t groups[3])
{
    const struct attention_push *p = push;
    groups[0] = op_groups((uint64_t)p->T * p->heads, 8);
    groups[0] = groups[0] > ATTENTION_MOST_GROUPS ? ATTENTION_MOST_GROUPS : groups[0];
    only_first(push, groups);
}

static void grid_q2(const void *push, uint32_t groups[3])
{
    attention_grid(push, ((const struct attention_push *)push)->heads, 2, groups);
    only_first(push, groups);
}
static void grid_q4(const void *push, uint32_t groups[3])
{
    attention_grid(push, ((const struct attention_push *)push)->heads, 4, groups);
    only_first(push, groups);
}
static void grid_k2(const void *push, uint32_t groups[3])
{
    attention_grid(push, ((const struct attention_push *)push)->kv_heads, 2, groups);
}
static void grid_k4(const void *push, uint32_t groups[3])
{
    attention_grid(push, ((const struct attention_push *)push)->kv_heads, 4, groups);
}

static void grid_q_lanes(const void *push, uint32_t groups[3])
{
    attention_lanes_grid(push, ((const struct attention_push *)push)->heads, groups);
    only_first(push, groups);
}
static void grid_k_lanes(const void *push, uint32_t groups[3])
{
    attention_lanes_grid(push, ((const struct attention_push *)push)->kv_heads, groups);
}

static const struct op_kernel delta_kernel = {
    .kernel = {"attention_delta", sizeof(struct attention_push), 3, {{"o", RT_READ}, {"d_o", RT_READ}, {"stats", RT_WRITE_BY_GROUPS}}},
    .map = {O, D_O, STATS},
    .grid = grid_delta,
    .share = 0.01f,
};
#define KERNEL(variant, dqkv_access, grid_fn)                                                                          \
    {                                                                                                                  \
        .kernel = {variant,                                                                                            \
                   sizeof(struct attention_push),                                                                      \
                   4,                                                                                                  \
                   {{"qkv", RT_READ}, {"d_o", RT_READ}, {"stats", RT_READ}, {"dqkv", dqkv_access}}},                         \
        .map = {QKV, D_O, STATS, DQKV}, .grid = grid_fn                                                                \
    }
static const struct op_kernel dq_64 = KERNEL("attention_dq.64", RT_WRITE_BY_GROUPS, grid_q2),
                              dq_128 = KERNEL("attention_dq.128", RT_WRITE_BY_GROUPS, grid_q4),
                              dq_lanes = KERNEL("attention_dq_lanes", RT_READ_WRITE_BY_GROUPS, grid_q_lanes);
static const struct op_kernel dkv_64 = KERNEL("attention_dkv.64", RT_READ_WRITE_BY_GROUPS, grid_k2),
                              dkv_128 = KERNEL("attention_dkv.128", RT_READ_WRITE_BY_GROUPS, grid_k4),
                              dkv_lanes = KERNEL("attention_dkv_lanes", RT_READ_WRITE_BY_GROUPS, grid_k_lanes);

/* Seven products for two, of which four are dk's and dv's: of the queries of this launch. */
static double backward_flops(const void *push)
{
    const struct attention_push *p = push;
    double part = p->to ? (double)(p->to - p->from) / p->T : 1;
    return 3.5 * attention_flops(push) * ((p->from ? 0 : 3) + 4 * part) / 7;
}

static const struct op_variant variants[] = {
    {.name = "host", .kind = RT_HOST, .host = attention_bwd_host},
    {.name = "lanes",
     .kind = RT_VULKAN,
     .applies = attention_in_fours,
     .needs = attention_has_lanes,
     .suits = attention_suits_cpu,
     .kernels = {&delta_kernel, &dq_lanes, &dkv_lanes}},
    {.name = "128", .kind = RT_VULKAN, .applies = attention_wide, .kernels = {&delta_kernel, &dq_128, &dkv_128}},
    {.name = "64", .kind = RT_VULKAN, .kernels = {&delta_kernel, &dq_64, &dkv_64}},
};
static double attention_bwd_bytes(const void *push)
{
    const struct attention_push *p = push;
    return 4.0 * p->T * ((4.0 * p->heads + 4.0 * p->kv_heads) * p->head_dim + 2.0 * p->heads);
}

const struct op op_attention_bwd_desc = {
    .name = "attention_bwd",
    .n_bindings = 5,
    .bindings = {{"qkv", RT_READ, OP_F32},
                 {"o", RT_READ, OP_F32},
                 {"d_o", RT_READ, OP_F32},
                 {"stats", RT_READ_WRITE, OP_U32},
                 {"dqkv", RT_WRITE, OP_F32}},
    .push_size = sizeof(struct attention_push),
    .ref = attention_bwd_ref,
    .flops = backward_flops,
    .bytes = attention_bwd_bytes,
    .n_variants = OP_COUNT(variants),
    .variants = variants,
};

/* llvmpipe ends every loop of an invocation, without a word, once its loops together have turned 65,535 times
 * (matmul_common.h). dk and dv of a key sum over the queries of several heads, so that sequences of thousands would reach it (of hundreds, with many wide
 * heads a key head): the queries are cut into windows, a launch each, which add up in order and so to the same bits. Elsewhere it bounds how long a
 * dispatch can be. */
#define WINDOW_TURNS 60000u

static uint32_t window_of(struct rt_device *dev, const struct attention_push *p)
{
    const struct op_variant *v = op_choose(dev, &op_attention_bwd_desc, p);
    if (!v || v->kind == RT_HOST)
        return p->T;
    uint64_t share = p->heads / p->kv_heads, rows = 16, turns = p->head_dim + 1;
    if (v->kernels[2] != &dkv_lanes) {
        /* A tile of queries: for each 32 columns of a head four loads of 8 turns and two products of 32; for each of the output a load and a product, twice. */
        uint64_t chunks = (p->head_dim + TILE - 1) / TILE, outputs = v->kernels[2] == &dkv_64 ? 2 : 4;
        rows = TILE;
        turns = 1 + chunks * (1 + 4 * 8 + 2 * TILE) + outputs * 2 * (8 + TILE);
    }
    uint64_t blocks = WINDOW_TURNS / (share * turns);
    blocks = blocks ? blocks : 1;
    return blocks < p->T / rows + 1 ? (uint32_t)(rows * blocks) : p->T;
}

enum rt_status op_attention_bwd(struct rt_device *dev, const struct op_attention_bwd *b, struct rt_error *err)
{
    const struct op_attention *a = &b->a;
    enum rt_status st = attention_check("attention_bwd", a->heads, a->kv_heads, a->head_dim, err);
    if (st)
        return st;
    struct attention_push p = {.T = a->T,
                               .heads = a->heads,
                               .kv_heads = a->kv_heads,
                               .head_dim = a->head_dim,
                               .scale = a->scale};
    uint32_t wide_row = attention_qkv_words(&p), o_row = p.heads * p.head_dim, stats_row = attention_stats_words(&p);
    const struct {
        const char *name;
        struct rt_span span;
        uint32_t cols;
    } bound[] = {{"qkv", a->qkv, wide_row},
                 {"o", a->o, o_row},
                 {"d_o", b->d_o, o_row},
                 {"stats", a->stats, stats_row},
                 {"dqkv", b->dqkv, wide_row}};
    struct rt_span spans[OP_COUNT(bound)];
    for (uint32_t i = 0; i < OP_COUNT(bound) && !st; i++) {
        st = op_check_rows("attention_bwd", bound[i].name, bound[i].span, p.T, bound[i].cols, 0, bound[i].cols, err);
        spans[i] = bound[i].span;
    }
    uint32_t window = window_of(dev, &p);
    for (p.from = 0; p.from < p.T && !st; p.from += window) {
        p.to = p.T - p.from < window ? p.T : p.from + window;
        st = op_launch(dev, &op_attention_bwd_desc, spans, &p, err);
    }
    return st;
}
