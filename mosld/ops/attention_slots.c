/* mosld/ops/attention_slots.c - attention in generation of several sequences at once: one token of each, over one cache in which every sequence
 * has rows of its own.
 *
 *     cache[first + pos, :] = the keys and values of token t,   first, pos = where[t]      cache: [capacity, 2 Hk D], keys, then values
 *     o[t, h, :] = softmax_j(scale <q[t, h], k_j>) v_j,   j = first .. first + pos
 *
 * On the host an item is a token and a key head, summed as attention_cache does for one token: so a sequence has the same bits alone and among
 * others. pos0 of the push block is unused. */
#include "mosld/ops/attention_common.h"
#include "mosld/ops/shape.h"

#include <stdlib.h>
#include <string.h>

enum { QKV, CACHE, WHERE, O };

static uint32_t row_words(const struct attention_push *p) { return 2 * p->kv_heads * p->head_dim; }

/* ---- the truth ---- */

static void kv_append_slots_ref(void *const *b, const void *push)
{
    const struct attention_push *p = push;
    const uint32_t *where = b[WHERE];
    const double *kv = (double *)b[QKV] + (size_t)p->heads * p->head_dim;
    for (size_t t = 0; t < p->T; t++)
        memcpy((double *)b[CACHE] + ((size_t)where[2 * t] + where[2 * t + 1]) * row_words(p), kv + t * attention_qkv_words(p),
               row_words(p) * sizeof *kv);
}

static void attention_slots_ref(void *const *b, const void *push)
{
    const struct attention_push *p = push;
    const uint32_t *where = b[WHERE];
    uint32_t D = p->head_dim, share = p->heads / p->kv_heads;
    for (uint32_t t = 0; t < p->T; t++) {
        uint32_t pos = where[2 * t + 1];
        const double *cache = (double *)b[CACHE] + (size_t)where[2 * t] * row_words(p);
        double *w = malloc(((size_t)pos + 1) * sizeof *w);
        for (uint32_t h = 0; w && h < p->heads; h++) {
            const double *k = cache + h / share * D, *v = k + p->kv_heads * D;
            double *out = (double *)b[O] + ((size_t)t * p->heads + h) * D;
            attention_ref_row((double *)b[QKV] + t * (size_t)attention_qkv_words(p) + h * D, k, row_words(p), D, p->scale, NULL, pos, w);
            memset(out, 0, D * sizeof *out);
            for (uint32_t j = 0; j <= pos; j++)
                for (uint32_t d = 0; d < D; d++)
                    out[d] += w[j] * v[(size_t)j * row_words(p) + d];
        }
        free(w);
    }
}

/* ---- the host ---- */

static void kv_append_slots_host(struct rt_device *dev, void *const *b, const void *push)
{
    (void)dev;
    const struct attention_push *p = push;
    const uint32_t *where = b[WHERE];
    const float *kv = (float *)b[QKV] + (size_t)p->heads * p->head_dim;
    for (size_t t = 0; t < p->T; t++)
        memcpy((float *)b[CACHE] + ((size_t)where[2 * t] + where[2 * t + 1]) * row_words(p), kv + t * attention_qkv_words(p),
               row_words(p) * sizeof *kv);
}

struct slots_job {
    struct rt_device *dev;
    const struct attention_push *p;
    const float *qkv, *cache;
    const uint32_t *where;
    float *o;
};

static void slots_item(void *arg, int item, int worker)
{
    const struct slots_job *job = arg;
    struct attention_push one = *job->p;
    uint32_t t = (uint32_t)item / one.kv_heads, kv_head = (uint32_t)item % one.kv_heads;
    one.T = 1;
    one.pos0 = job->where[2 * t + 1];
    float *o = job->o + (size_t)t * one.heads * one.head_dim;
    float *room = rt_host_scratch(job->dev, worker, attention_cache_row_floats(&one) * sizeof *room);
    if (!room) { /* a few hundred KiB that are not there: values that show it, rather than a crash */
        memset(o, 0xff, one.heads * one.head_dim * sizeof *o);
        return;
    }
    attention_cache_row(&one, job->qkv + t * (size_t)attention_qkv_words(&one), job->cache + (size_t)job->where[2 * t] * row_words(&one),
                        kv_head, room, o);
}

static void attention_slots_host(struct rt_device *dev, void *const *b, const void *push)
{
    const struct attention_push *p = push;
    struct slots_job job = {dev, p, b[QKV], b[CACHE], b[WHERE], b[O]};
    rt_parallel(dev, (int)(p->T * p->kv_heads), slots_item, &job);
}

/* ---- the descriptors ---- */

static void grid_words(const void *push, uint32_t groups[3])
{
    const struct attention_push *p = push;
    groups[0] = op_groups(p->T * (uint64_t)row_words(p), 128);
    groups[0] = groups[0] > ATTENTION_MOST_GROUPS ? ATTENTION_MOST_GROUPS : groups[0];
}

static void grid_rows(const void *push, uint32_t groups[3])
{
    const struct attention_push *p = push;
    groups[0] = op_groups((uint64_t)p->T * p->heads, 1);
}

/* How far each token sees is in `where`, which a push block does not show: the new rows alone. */
static double slots_bytes(const void *push)
{
    const struct attention_push *p = push;
    return 4.0 * p->T * (attention_qkv_words(p) + (double)row_words(p) + p->heads * p->head_dim);
}

static const struct op_kernel append_kernel = {
    .kernel = {"kv_append_slots", sizeof(struct attention_push), 3, {{"qkv", RT_READ}, {"cache", RT_WRITE}, {"where", RT_READ}}},
    .map = {QKV, CACHE, WHERE},
    .grid = grid_words,
};
static const struct op_kernel row_kernel = {
    .kernel = {"attention_slots", sizeof(struct attention_push), 4, {{"qkv", RT_READ}, {"cache", RT_READ}, {"o", RT_WRITE}, {"where", RT_READ}}},
    .map = {QKV, CACHE, O, WHERE},
    .grid = grid_rows,
};

static const struct op_variant append_variants[] = {
    {.name = "host", .kind = RT_HOST, .host = kv_append_slots_host},
    {.name = "plain", .kind = RT_VULKAN, .kernels = {&append_kernel}},
};
const struct op op_kv_append_slots_desc = {
    .name = "kv_append_slots",
    .n_bindings = 3,
    .bindings = {{"qkv", RT_READ, OP_F32}, {"cache", RT_WRITE, OP_F32}, {"where", RT_READ, OP_U32}},
    .push_size = sizeof(struct attention_push),
    .ref = kv_append_slots_ref,
    .bytes = slots_bytes,
    .n_variants = OP_COUNT(append_variants),
    .variants = append_variants,
};

static const struct op_variant slots_variants[] = {
    {.name = "host", .kind = RT_HOST, .host = attention_slots_host},
    {.name = "rows", .kind = RT_VULKAN, .kernels = {&row_kernel}},
};
const struct op op_attention_slots_desc = {
    .name = "attention_slots",
    .n_bindings = 4,
    .bindings = {{"qkv", RT_READ, OP_F32}, {"cache", RT_READ, OP_F32}, {"where", RT_READ, OP_U32}, {"o", RT_WRITE, OP_F32}},
    .push_size = sizeof(struct attention_push),
    .ref = attention_slots_ref,
    .bytes = slots_bytes,
    .n_variants = OP_COUNT(slots_variants),
    .variants = slots_variants,
};

static enum rt_status check(const char *op, const struct op_attention_slots *a, struct attention_push *p, struct rt_error *err)
{
    enum rt_status st = attention_check(op, a->heads, a->kv_heads, a->head_dim, err);
    *p = (struct attention_push){.T = a->T, .heads = a->heads, .kv_heads = a->kv_heads, .head_dim = a->head_dim, .scale = a->scale};
    uint32_t wide = st ? 0 : attention_qkv_words(p);
    if (!st)
        st = op_check_rows(op, "qkv", a->qkv, a->T, wide, 0, wide, err);
    return st ? st : op_check_rows(op, "where", a->where, a->T, 2, 0, 2, err);
}

enum rt_status op_kv_append_slots(struct rt_device *dev, const struct op_attention_slots *a, struct rt_error *err)
{
    struct attention_push p;
    enum rt_status st = check("kv_append_slots", a, &p, err);
    return st || p.T == 0 ? st : op_launch(dev, &op_kv_append_slots_desc, (struct rt_span[]){a->qkv, a->cache, a->where}, &p, err);
}

enum rt_status op_attention_slots(struct rt_device *dev, const struct op_attention_slots *a, struct rt_error *err)
{
    struct attention_push p;
    enum rt_status st = check("attention_slots", a, &p, err);
    if (!st)
        st = op_check_rows("attention_slots", "o", a->o, p.T, p.heads * p.head_dim, 0, p.heads * p.head_dim, err);
    return st || p.T == 0 ? st : op_launch(dev, &op_attention_slots_desc, (struct rt_span[]){a->qkv, a->cache, a->where, a->o}, &p, err);
}
