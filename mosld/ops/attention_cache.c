/* mosld/ops/attention_cache.c - attention in generation: new tokens append to a cache of keys and values and look back
 * over it.
 *
 *     cache[pos0 + i, :] = the keys and values of token i       cache: [capacity, 2 Hk D], keys, then values
 *     o[i, h, :] = softmax_j(scale <q[i, h], k_j>) v_j,   j = 0 .. pos0 + i
 *
 * A prompt is many rows and goes through the tiles of forward. One token is bound by reading the cache once: on the
 * host, parts of the keys are summed apart, each part as softmax relative to its own maximum, and put together in
 * order. */
#include "mosld/ops/attention_common.h"
#include "mosld/ops/host_blas.h"
#include "mosld/ops/host_lanes.h"
#include "mosld/ops/shape.h"

#include <math.h>
#include <stdlib.h>

enum { QKV, CACHE, O };

#define FEW_TOKENS 8 /* up to this many, a tile of queries would be mostly empty */

static size_t cache_words(const struct attention_push *p) { return 2 * (size_t)p->kv_heads * p->head_dim; }

/* ---- the truth ---- */

static void kv_append_ref(void *const *b, const void *push)
{
    const struct attention_push *p = push;
    const double *kv = (double *)b[QKV] + (size_t)p->heads * p->head_dim;
    for (size_t t = 0; t < p->T; t++)
        memcpy((double *)b[CACHE] + (p->pos0 + t) * cache_words(p), kv + t * attention_qkv_words(p),
               cache_words(p) * sizeof *kv);
}

static void attention_cache_ref(void *const *b, const void *push)
{
    const struct attention_push *p = push;
    const double *q = b[QKV], *cache = b[CACHE];
    uint32_t D = p->head_dim, share = p->heads / p->kv_heads;
    double *o = b[O], *w = malloc(((size_t)p->pos0 + p->T + 1) * sizeof *w);
    for (uint32_t i = 0; w && i < p->T; i++)
        for (uint32_t h = 0; h < p->heads; h++) {
            const double *k = cache + h / share * D, *v = k + p->kv_heads * D;
            double *out = o + ((size_t)i * p->heads + h) * D;
            attention_ref_row(q + i * (size_t)attention_qkv_words(p) + h * D, k, cache_words(p), D, p->scale, NULL,
                              p->pos0 + i, w);
            memset(out, 0, D * sizeof *out);
            for (uint32_t j = 0; j <= p->pos0 + i; j++)
                for (uint32_t d = 0; d < D; d++)
                    out[d] += w[j] * v[j * cache_words(p) + d];
        }
    free(w);
}

/* ---- the host: many rows ---- */

struct prompt_job {
    struct attend a;
    uint32_t tiles;
};

static void prompt_item(void *arg, int item, int worker)
{
    (void)worker;
    const struct prompt_job *job = arg;
    const struct attention_push *p = job->a.p;
    uint32_t t0 = (job->tiles - 1 - (uint32_t)item / p->heads) * ATTENTION_ROWS;
    attention_forward_tile(&job->a, (uint32_t)item % p->heads, t0,
                           p->T - t0 < ATTENTION_ROWS ? p->T - t0 : ATTENTION_ROWS, NULL, 0);
}

static void attention_cache_host(struct rt_device *dev, void *const *b, const void *push)
{
    const struct attention_push *p = push;
    const float *k = b[CACHE];
    struct prompt_job job = {
        .a = {.p = p,
              .q = b[QKV],
              .k = k,
              .v = k + cache_words(p) / 2,
              .o = b[O],
              .q_stride = attention_qkv_words(p),
              .kv_stride = cache_words(p),
              .o_stride = (size_t)p->heads * p->head_dim},
        .tiles = (uint32_t)(((uint64_t)p->T + ATTENTION_ROWS - 1) / ATTENTION_ROWS),
    };
    host_blas_alone();
    rt_parallel(dev, (int)(job.tiles * p->heads), prompt_item, &job);
}

/* ---- the host: few rows ---- */

#define PART_KEYS 256u /* at least; a part is worth a thread's while */
#define MOST_PARTS 32u

struct row_job {
    const struct attention_push *p;
    const float *q, *cache;
    uint32_t parts, part_keys, kv_head0;
    float *sums; /* [kv_heads from kv_head0 on, parts, share * T, 2 + D]: maximum, sum, weighted values */
};

static void cut_keys(struct row_job *job, uint32_t keys)
{
    job->part_keys = keys / MOST_PARTS < PART_KEYS ? PART_KEYS : (keys / MOST_PARTS / ATTENTION_KEYS + 1) * ATTENTION_KEYS;
    job->parts = (keys + job->part_keys - 1) / job->part_keys;
}

static float *part_of(const struct row_job *job, uint32_t kv_head, uint32_t part, uint32_t row)
{
    uint32_t share = job->p->heads / job->p->kv_heads;
    return job->sums + (((size_t)(kv_head - job->kv_head0) * job->parts + part) * share * job->p->T + row) * (2 + job->p->head_dim);
}

/* out += sum_j w_j v_j, 64 columns at a time in registers */
HOST_INLINE void add_values(float *out, const float *w, const float *v, size_t stride, uint32_t n, uint32_t D)
{
    uint32_t d = 0;
    for (; d + 4 * LANES16 <= D; d += 4 * LANES16) {
        lanes16 sum[4];
        memcpy(sum, out + d, sizeof sum);
        for (uint32_t j = 0; j < n; j++)
            for (int i = 0; i < 4; i++)
                sum[i] += w[j] * *(const lanes16 *)(v + j * stride + d + i * LANES16);
        memcpy(out + d, sum, sizeof sum);
    }
    for (uint32_t j = 0; d < D && j < n; j++)
        host_add_scaled(out + d, w[j], v + j * stride + d, D - d);
}

/* One query row against n keys, added to its part. */
MOSLD_CLONES static void row_block(const float *q, const float *k, const float *v, size_t stride, uint32_t n,
                                   uint32_t D, float scale, float *part)
{
    float w[ATTENTION_KEYS], sum = 0;
    for (uint32_t j = 0; j < n; j++)
        w[j] = host_dot(q, k + j * stride, D) * scale;
    float top = host_max(w, n, part[0]), shrink = host_exp(part[0] - top);
    for (uint32_t j = 0; j < n; j++)
        w[j] = host_exp(w[j] - top);
    for (uint32_t j = 0; j < n; j++)
        sum += w[j];
    part[0] = top;
    part[1] = part[1] * shrink + sum;
    for (uint32_t d = 0; d < D; d++)
        part[2 + d] *= shrink;
    add_values(part + 2, w, v, stride, n, D);
}

static void row_item(void *arg, int item, int worker)
{
    (void)worker;
    const struct row_job *job = arg;
    const struct attention_push *p = job->p;
    uint32_t kv_head = (uint32_t)item / job->parts, part = (uint32_t)item % job->parts, share = p->heads / p->kv_heads;
    uint32_t begin = part * job->part_keys, end = begin + job->part_keys, all = p->pos0 + p->T;
    end = end < all ? end : all;
    size_t stride = cache_words(p);
    const float *k = job->cache + (size_t)kv_head * p->head_dim, *v = k + stride / 2;
    for (uint32_t row = 0; row < share * p->T; row++) {
        float *sums = part_of(job, kv_head, part, row);
        memset(sums, 0, (2 + p->head_dim) * sizeof *sums);
        sums[0] = -1e30f;
    }
    for (uint32_t j = begin; j < end; j += ATTENTION_KEYS)
        for (uint32_t row = 0; row < share * p->T; row++) {
            uint32_t t = row / share, head = kv_head * share + row % share, seen = p->pos0 + t + 1;
            uint32_t stop = j + ATTENTION_KEYS < end ? j + ATTENTION_KEYS : end;
            stop = stop < seen ? stop : seen;
            if (j < stop)
                row_block(job->q + t * (size_t)attention_qkv_words(p) + (size_t)head * p->head_dim, k + j * stride,
                          v + j * stride, stride, stop - j, p->head_dim, p->scale, part_of(job, kv_head, part, row));
        }
}

/* The parts of one row, in order. */
static void join_parts(const struct row_job *job, uint32_t kv_head, uint32_t row, float *out)
{
    uint32_t D = job->p->head_dim;
    float top = -1e30f, sum = 0;
    for (uint32_t i = 0; i < job->parts; i++) {
        float t = part_of(job, kv_head, i, row)[0];
        top = t > top ? t : top;
    }
    memset(out, 0, D * sizeof *out);
    for (uint32_t i = 0; i < job->parts; i++) {
        const float *part = part_of(job, kv_head, i, row);
        float weight = host_exp(part[0] - top);
        sum += part[1] * weight;
        for (uint32_t d = 0; d < D; d++)
            out[d] += part[2 + d] * weight;
    }
    for (uint32_t d = 0; d < D; d++)
        out[d] /= sum;
}

static void attention_cache_rows(struct rt_device *dev, void *const *b, const void *push)
{
    const struct attention_push *p = push;
    uint32_t share = p->heads / p->kv_heads;
    struct row_job job = {.p = p, .q = b[QKV], .cache = b[CACHE]};
    cut_keys(&job, p->pos0 + p->T);
    job.sums = malloc(sizeof(float) * (2 + p->head_dim) * p->heads * p->T * job.parts);
    if (!job.sums) { /* the tiles need none */
        attention_cache_host(dev, b, push);
        return;
    }
    rt_parallel(dev, (int)(job.parts * p->kv_heads), row_item, &job);
    for (uint32_t kv_head = 0; kv_head < p->kv_heads; kv_head++)
        for (uint32_t row = 0; row < share * p->T; row++) {
            uint32_t t = row / share, head = kv_head * share + row % share;
            join_parts(&job, kv_head, row, (float *)b[O] + ((size_t)t * p->heads + head) * p->head_dim);
        }
    free(job.sums);
}

void attention_cache_row(const struct attention_push *p, const float *q, const float *cache, uint32_t kv_head, float *room, float *o)
{
    struct row_job job = {.p = p, .q = q, .cache = cache, .kv_head0 = kv_head, .sums = room};
    cut_keys(&job, p->pos0 + p->T);
    for (uint32_t part = 0; part < job.parts; part++)
        row_item(&job, (int)(kv_head * job.parts + part), 0);
    for (uint32_t row = 0; row < p->heads / p->kv_heads * p->T; row++) {
        uint32_t share = p->heads / p->kv_heads, t = row / share, head = kv_head * share + row % share;
        join_parts(&job, kv_head, row, o + ((size_t)t * p->heads + head) * p->head_dim);
    }
}

size_t attention_cache_row_floats(const struct attention_push *p)
{
    return (size_t)MOST_PARTS * (p->heads / p->kv_heads) * (2 + p->head_dim);
}

static void kv_append_host(struct rt_device *dev, void *const *b, const void *push)
{
    (void)dev;
    const struct attention_push *p = push;
    const float *kv = (const float *)b[QKV] + (size_t)p->heads * p->head_dim;
    for (size_t t = 0; t < p->T; t++)
        memcpy((float *)b[CACHE] + (p->pos0 + t) * cache_words(p), kv + t * attention_qkv_words(p),
               cache_words(p) * sizeof *kv);
}

/* ---- the descriptors ---- */

static bool few_tokens(const void *push) { return ((const struct attention_push *)push)->T <= FEW_TOKENS; }

static void grid_words(const void *push, uint32_t groups[3])
{
    const struct attention_push *p = push;
    groups[0] = op_groups(p->T * (uint64_t)cache_words(p), 128);
    groups[0] = groups[0] > ATTENTION_MOST_GROUPS ? ATTENTION_MOST_GROUPS : groups[0];
}

static void grid_rows(const void *push, uint32_t groups[3])
{
    const struct attention_push *p = push;
    groups[0] = op_groups((uint64_t)p->T * p->heads, 1);
}

static void grid_tiles(const void *push, uint32_t groups[3])
{
    attention_grid(push, ((const struct attention_push *)push)->heads, 4, groups);
}

static void grid_lanes(const void *push, uint32_t groups[3])
{
    attention_lanes_grid(push, ((const struct attention_push *)push)->heads, groups);
}

static const struct op_kernel append_kernel = {
    .kernel = {"kv_append", sizeof(struct attention_push), 2, {{"qkv", RT_READ}, {"cache", RT_WRITE}}},
    .map = {QKV, CACHE},
    .grid = grid_words,
};
#define KERNEL(variant, o_access, grid_fn)                                                                             \
    {                                                                                                                  \
        .kernel = {variant,                                                                                            \
                   sizeof(struct attention_push),                                                                      \
                   3,                                                                                                  \
                   {{"qkv", RT_READ}, {"cache", RT_READ}, {"o", o_access}}},                         \
        .map = {QKV, CACHE, O}, .grid = grid_fn                                                                        \
    }
static const struct op_kernel row_kernel = KERNEL("attention_row", RT_WRITE_BY_GROUPS, grid_rows),
                              tile_kernel = KERNEL("attention_cache", RT_WRITE_BY_GROUPS, grid_tiles),
                              lanes_kernel = KERNEL("attention_cache_lanes", RT_READ_WRITE_BY_GROUPS, grid_lanes);

static const struct op_variant append_variants[] = {
    {.name = "host", .kind = RT_HOST, .host = kv_append_host},
    {.name = "plain", .kind = RT_VULKAN, .kernels = {&append_kernel}},
};
static double kv_append_bytes(const void *push)
{
    const struct attention_push *p = push;
    return 16.0 * p->T * p->kv_heads * p->head_dim;
}

const struct op op_kv_append_desc = {
    .name = "kv_append",
    .n_bindings = 2,
    .bindings = {{"qkv", RT_READ, OP_F32}, {"cache", RT_WRITE, OP_F32}},
    .push_size = sizeof(struct attention_push),
    .ref = kv_append_ref,
    .bytes = kv_append_bytes,
    .n_variants = OP_COUNT(append_variants),
    .variants = append_variants,
};

static const struct op_variant cache_variants[] = {
    {.name = "host_rows", .kind = RT_HOST, .applies = few_tokens, .host = attention_cache_rows},
    {.name = "host_tiles", .kind = RT_HOST, .host = attention_cache_host},
    {.name = "rows", .kind = RT_VULKAN, .applies = few_tokens, .kernels = {&row_kernel}},
    {.name = "lanes",
     .kind = RT_VULKAN,
     .applies = attention_in_fours,
     .needs = attention_has_lanes,
     .suits = attention_suits_cpu,
     .kernels = {&lanes_kernel}},
    {.name = "tiles", .kind = RT_VULKAN, .kernels = {&tile_kernel}},
};
static double attention_cache_bytes(const void *push)
{
    const struct attention_push *p = push;
    return 8.0 * p->head_dim * ((double)p->T * p->heads + ((double)p->pos0 + p->T) * p->kv_heads);
}

const struct op op_attention_cache_desc = {
    .name = "attention_cache",
    .n_bindings = 3,
    .bindings = {{"qkv", RT_READ, OP_F32}, {"cache", RT_READ, OP_F32}, {"o", RT_WRITE, OP_F32}},
    .push_size = sizeof(struct attention_push),
    .ref = attention_cache_ref,
    .flops = attention_flops,
    .bytes = attention_cache_bytes,
    .n_variants = OP_COUNT(cache_variants),
    .variants = cache_variants,
};

static enum rt_status check(const char *op, const struct op_attention_cache *a, struct attention_push *p,
                            struct rt_error *err)
{
    enum rt_status st = attention_check(op, a->heads, a->kv_heads, a->head_dim, err);
    if (st)
        return st;
    *p = (struct attention_push){.T = a->T,
                                 .heads = a->heads,
                                 .kv_heads = a->kv_heads,
                                 .head_dim = a->head_dim,
                                 .pos0 = a->pos0,
                                 .scale = a->scale};
    uint32_t wide = attention_qkv_words(p), row = (uint32_t)cache_words(p);
    if (a->pos0 > UINT32_MAX - a->T)
        return rt_fail(err, RT_FAILED, "%s: %u tokens from position %u are more than 32 bits count", op, a->T, a->pos0);
    st = op_check_rows(op, "qkv", a->qkv, a->T, wide, 0, wide, err);
    return st ? st : op_check_rows(op, "the cache", a->cache, a->T ? a->pos0 + a->T : 0, row, 0, row, err);
}

enum rt_status op_kv_append(struct rt_device *dev, const struct op_attention_cache *a, struct rt_error *err)
{
    struct attention_push p;
    enum rt_status st = check("kv_append", a, &p, err);
    return st || p.T == 0 ? st : op_launch(dev, &op_kv_append_desc, (struct rt_span[]){a->qkv, a->cache}, &p, err);
}

enum rt_status op_attention_cache(struct rt_device *dev, const struct op_attention_cache *a, struct rt_error *err)
{
    struct attention_push p;
    enum rt_status st = check("attention_cache", a, &p, err);
    if (!st)
        st = op_check_rows("attention_cache", "o", a->o, p.T, p.heads * p.head_dim, 0, p.heads * p.head_dim, err);
    return st || p.T == 0
               ? st
               : op_launch(dev, &op_attention_cache_desc, (struct rt_span[]){a->qkv, a->cache, a->o}, &p, err);
}
