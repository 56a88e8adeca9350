/* mosld/ops/attention_cache.c - attention in generation: new tokens of a sequence look back over the cache of its keys and values.
 *
 *     o[i, h, :] = softmax_j(scale <q[i, h], k_j>) v_j,   j = 0 .. pos0 + i, or the last `window` of them
 *
 * Where a position lies and in which type: attention.h, kv_cache.h. A prompt is many rows and goes through the tiles of forward. One token is bound by
 * reading the cache once: on the host, parts of the keys are summed apart, each part as softmax relative to its own maximum, and put together in
 * order. Other types than f32 become floats a block at a time, once for all query heads that share it, so they are summed as f32 is. */
#include "mosld/ops/attention_common.h"
#include "mosld/ops/host_blas.h"
#include "mosld/ops/host_lanes.h"
#include "mosld/ops/shape.h"

#include <math.h>
#include <stdlib.h>

enum { QKV, CACHE, WHERE, O };

#define FEW_TOKENS 8 /* up to this many, a tile of queries would be mostly empty */

struct kv_block attention_kv_block(const struct attention_push *p, const struct kv_source *s, uint32_t kv_head, uint32_t j0, uint32_t keys)
{
    uint32_t D = p->head_dim, half = p->kv_heads * D;
    size_t words = attention_kv_words(p);
    const uint32_t *rows = s->cache + attention_kv_row(s->where, s->table, j0) * words;
    if (p->kv_type == OP_W_F32) {
        const float *k = (const float *)rows + kv_head * D;
        return (struct kv_block){k, k + half, words};
    }
    float *k = s->room, *v = k + ATTENTION_KEYS * D;
    op_kv_load((enum op_wtype)p->kv_type, rows, words, 2 * half, keys, kv_head * D, D, k);
    op_kv_load((enum op_wtype)p->kv_type, rows, words, 2 * half, keys, half + kv_head * D, D, v);
    return (struct kv_block){k, v, D};
}

/* ---- the truth ---- */

void attention_cache_ref_token(const struct attention_push *p, const double *q, const uint32_t *cache, const uint32_t *where, uint32_t table,
                               uint32_t pos, double *o)
{
    uint32_t D = p->head_dim, share = p->heads / p->kv_heads, first = attention_kv_first(p, pos), keys = pos + 1 - first;
    double *w = malloc(((size_t)keys + 1) * sizeof *w), *kv = malloc(2 * (size_t)keys * D * sizeof *kv);
    for (uint32_t h = 0; w && kv && h < p->heads; h++, q += D, o += D) {
        for (uint32_t j = 0; j < keys; j++)
            for (uint32_t d = 0; d < D; d++) {
                const uint32_t *row = cache + attention_kv_row(where, table, first + j) * attention_kv_words(p);
                kv[((size_t)2 * j) * D + d] = attention_kv_ref(p, row, h / share * D + d);
                kv[((size_t)2 * j + 1) * D + d] = attention_kv_ref(p, row, (p->kv_heads + h / share) * D + d);
            }
        attention_ref_row(q, kv, 2 * (size_t)D, D, p->scale, NULL, keys - 1, w);
        memset(o, 0, D * sizeof *o);
        for (uint32_t j = 0; j < keys; j++)
            for (uint32_t d = 0; d < D; d++)
                o[d] += w[j] * kv[((size_t)2 * j + 1) * D + d];
    }
    free(w);
    free(kv);
}

static void attention_cache_ref(void *const *b, const void *push)
{
    const struct attention_push *p = push;
    for (uint32_t i = 0; i < p->T; i++)
        attention_cache_ref_token(p, (const double *)b[QKV] + i * (size_t)attention_qkv_words(p), b[CACHE], b[WHERE], p->table, p->pos0 + i,
                                  (double *)b[O] + (size_t)i * p->heads * p->head_dim);
}

/* ---- the host: many rows ---- */

struct prompt_job {
    struct rt_device *dev;
    struct attend a;
    struct kv_source source;
    uint32_t tiles;
};

static void prompt_item(void *arg, int item, int worker)
{
    const struct prompt_job *job = arg;
    const struct attention_push *p = job->a.p;
    struct attend a = job->a;
    struct kv_source source = job->source;
    uint32_t head = (uint32_t)item % p->heads, t0 = (job->tiles - 1 - (uint32_t)item / p->heads) * ATTENTION_ROWS;
    uint32_t rows = p->T - t0 < ATTENTION_ROWS ? p->T - t0 : ATTENTION_ROWS;
    size_t room = attention_kv_room(p) * sizeof(float);
    a.kv = &source;
    source.room = room ? rt_host_scratch(job->dev, worker, room) : NULL;
    if (room && !source.room) /* some KiB that are not there: values that show it, rather than a crash */
        for (uint32_t r = 0; r < rows; r++)
            memset(a.o + (t0 + r) * a.o_stride + (size_t)head * p->head_dim, 0xff, p->head_dim * sizeof *a.o);
    else
        attention_forward_tile(&a, head, t0, rows, NULL, 0);
}

static void attention_cache_host(struct rt_device *dev, void *const *b, const void *push)
{
    const struct attention_push *p = push;
    struct prompt_job job = {
        .dev = dev,
        .a = {.p = p, .q = b[QKV], .o = b[O], .q_stride = attention_qkv_words(p), .o_stride = (size_t)p->heads * p->head_dim},
        .source = {.cache = b[CACHE], .where = b[WHERE], .table = p->table},
        .tiles = (uint32_t)(((uint64_t)p->T + ATTENTION_ROWS - 1) / ATTENTION_ROWS),
    };
    host_blas_alone();
    rt_parallel(dev, (int)(job.tiles * p->heads), prompt_item, &job);
}

/* ---- the host: few rows ---- */

#define PART_KEYS 256u /* at least; a part is worth a thread's while */
#define MOST_PARTS 32u

struct row_job {
    struct rt_device *dev;
    const struct attention_push *p;
    const float *q;
    struct kv_source source;
    uint32_t first, parts, part_keys, kv_head0; /* first: position at which the first part begins */
    float *sums; /* [kv_heads from kv_head0 on, parts, share * T, 2 + D]: maximum, sum, weighted values */
};

/* Parts begin where blocks do. */
static void cut_keys(struct row_job *job)
{
    job->first = attention_kv_first(job->p, job->p->pos0) / ATTENTION_KEYS * ATTENTION_KEYS;
    uint32_t keys = job->p->pos0 + job->p->T - job->first;
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

static void row_part(const struct row_job *job, uint32_t kv_head, uint32_t part, float *room)
{
    const struct attention_push *p = job->p;
    struct kv_source source = job->source;
    uint32_t share = p->heads / p->kv_heads, begin = job->first + part * job->part_keys, end = begin + job->part_keys, all = p->pos0 + p->T;
    source.room = room;
    end = end < all ? end : all;
    for (uint32_t row = 0; row < share * p->T; row++) {
        float *sums = part_of(job, kv_head, part, row);
        memset(sums, 0, (2 + p->head_dim) * sizeof *sums);
        sums[0] = -1e30f;
    }
    for (uint32_t j = begin; j < end; j += ATTENTION_KEYS) {
        uint32_t keys = end - j < ATTENTION_KEYS ? end - j : ATTENTION_KEYS;
        struct kv_block b = attention_kv_block(p, &source, kv_head, j, keys);
        for (uint32_t row = 0; row < share * p->T; row++) {
            uint32_t t = row / share, head = kv_head * share + row % share, pos = p->pos0 + t, first = attention_kv_first(p, pos);
            uint32_t from = first > j ? first - j : 0, to = pos + 1 - j < keys ? pos + 1 - j : keys;
            if (pos >= j && from < to)
                row_block(job->q + t * (size_t)attention_qkv_words(p) + (size_t)head * p->head_dim, b.k + from * b.stride, b.v + from * b.stride,
                          b.stride, to - from, p->head_dim, p->scale, part_of(job, kv_head, part, row));
        }
    }
}

static void row_item(void *arg, int item, int worker)
{
    const struct row_job *job = arg;
    uint32_t kv_head = (uint32_t)item / job->parts, part = (uint32_t)item % job->parts, share = job->p->heads / job->p->kv_heads;
    size_t room = attention_kv_room(job->p) * sizeof(float);
    float *block = room ? rt_host_scratch(job->dev, worker, room) : NULL;
    if (room && !block) /* values that show it, rather than a crash */
        memset(part_of(job, kv_head, part, 0), 0xff, share * job->p->T * (2 + job->p->head_dim) * sizeof(float));
    else
        row_part(job, kv_head, part, block);
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
    struct row_job job = {.dev = dev, .p = p, .q = b[QKV], .source = {.cache = b[CACHE], .where = b[WHERE], .table = p->table}};
    cut_keys(&job);
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

void attention_cache_row(const struct attention_push *p, const float *q, const struct kv_source *source, uint32_t kv_head, float *room, float *o)
{
    uint32_t share = p->heads / p->kv_heads;
    struct row_job job = {.p = p, .q = q, .source = *source, .kv_head0 = kv_head, .sums = room + attention_kv_room(p)};
    cut_keys(&job);
    for (uint32_t part = 0; part < job.parts; part++)
        row_part(&job, kv_head, part, room);
    for (uint32_t row = 0; row < share; row++)
        join_parts(&job, kv_head, row, o + (size_t)(kv_head * share + row) * p->head_dim);
}

size_t attention_cache_row_floats(const struct attention_push *p)
{
    return attention_kv_room(p) + (size_t)MOST_PARTS * (p->heads / p->kv_heads) * (2 + p->head_dim);
}

/* ---- the descriptors ---- */

static bool few_tokens(const void *push) { return ((const struct attention_push *)push)->T <= FEW_TOKENS; }

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

#define KERNEL(name, o_access, grid_fn)                                                                                       \
    {                                                                                                                         \
        .kernel = {name,                                                                                                      \
                   sizeof(struct attention_push),                                                                             \
                   4,                                                                                                         \
                   {{"qkv", RT_READ}, {"cache", RT_READ}, {"o", o_access}, {"where", RT_READ}}},                              \
        .map = {QKV, CACHE, O, WHERE}, .grid = grid_fn                                                                        \
    }
/* Of a type: a row a group, tiles of rows, and tiles for drivers that run on the processor. */
#define KERNELS(type)                                                                                                         \
    static const struct op_kernel row_##type = KERNEL("attention_row." #type, RT_WRITE_BY_GROUPS, grid_rows),                 \
                                  tile_##type = KERNEL("attention_cache." #type, RT_WRITE_BY_GROUPS, grid_tiles),             \
                                  lanes_##type = KERNEL("attention_cache_lanes." #type, RT_READ_WRITE_BY_GROUPS, grid_lanes); \
    static bool few_##type(const void *push) { return few_tokens(push) && attention_kv_is_##type(push); }                     \
    static bool fours_##type(const void *push) { return attention_in_fours(push) && attention_kv_is_##type(push); }
KERNELS(f32)
KERNELS(f16)
KERNELS(q8_0)

#define VARIANTS(type, wtype)                                                                                               \
    {.name = "rows_" #type, .kind = RT_VULKAN, .applies = few_##type, .wtypes = 1u << wtype, .kernels = {&row_##type}},     \
        {.name = "lanes_" #type,                                                                                            \
         .kind = RT_VULKAN,                                                                                                 \
         .applies = fours_##type,                                                                                           \
         .wtypes = 1u << wtype,                                                                                             \
         .needs = attention_has_lanes,                                                                                      \
         .suits = attention_suits_cpu,                                                                                      \
         .kernels = {&lanes_##type}},                                                                                       \
        {.name = "tiles_" #type, .kind = RT_VULKAN, .applies = attention_kv_is_##type, .wtypes = 1u << wtype, .kernels = {&tile_##type}}

static const struct op_variant cache_variants[] = {
    {.name = "host_rows", .kind = RT_HOST, .applies = few_tokens, .host = attention_cache_rows},
    {.name = "host_tiles", .kind = RT_HOST, .host = attention_cache_host},
    VARIANTS(f16, OP_W_F16),
    VARIANTS(q8_0, OP_W_Q8_0),
    VARIANTS(f32, OP_W_F32),
};

static double attention_cache_bytes(const void *push)
{
    const struct attention_push *p = push;
    return 4.0 * (2.0 * p->T * p->heads * p->head_dim + ((double)p->pos0 + p->T - attention_kv_first(p, p->pos0)) * (double)attention_kv_words(p));
}

const struct op op_attention_cache_desc = {
    .name = "attention_cache",
    .n_bindings = 4,
    .bindings = {{"qkv", RT_READ, OP_F32}, {"cache", RT_READ, OP_U32}, {"where", RT_READ, OP_U32}, {"o", RT_WRITE, OP_F32}},
    .push_size = sizeof(struct attention_push),
    .ref = attention_cache_ref,
    .flops = attention_flops,
    .bytes = attention_cache_bytes,
    .n_variants = OP_COUNT(cache_variants),
    .variants = cache_variants,
};

enum rt_status op_attention_cache(struct rt_device *dev, const struct op_attention_cache *a, struct rt_error *err)
{
    struct attention_push p;
    RT_TRY(attention_kv_check("attention_cache", a, &p, err));
    RT_TRY(op_check_rows("attention_cache", "o", a->o, p.T, p.heads * p.head_dim, 0, p.heads * p.head_dim, err));
    uint32_t blocks = op_kv_blocks(p.pos0 + p.T);
    if (p.T && (a->where.size / 4 < p.table || a->where.size / 4 - p.table < blocks))
        return rt_fail(err, RT_FAILED, "attention_cache: %u positions have %u blocks, and of the table from word %u on there are %llu words", p.pos0 + p.T,
                       blocks, p.table, (unsigned long long)(a->where.size / 4));
    return p.T == 0 ? RT_OK : op_launch(dev, &op_attention_cache_desc, (struct rt_span[]){a->qkv, a->cache, a->where, a->o}, &p, err);
}
