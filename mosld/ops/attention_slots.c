/* mosld/ops/attention_slots.c - attention in generation of several sequences at once: tokens of any of them over one cache, each at its place.
 *
 *     o[t, h, :] = softmax_j(scale <q[t, h], k_j>) v_j,   j = 0 .. pos, or the last `window` of them;   table, pos = where[t]
 *
 * On the host an item is a token and a key head, summed as attention_cache does for one token: so a sequence has the same bits alone and among
 * others. pos0 and table of the push block are unused. */
#include "mosld/ops/attention_common.h"
#include "mosld/ops/shape.h"

#include <string.h>

enum { QKV, CACHE, WHERE, O };

static void attention_slots_ref(void *const *b, const void *push)
{
    const struct attention_push *p = push;
    const uint32_t *where = b[WHERE];
    for (uint32_t t = 0; t < p->T; t++)
        attention_cache_ref_token(p, (const double *)b[QKV] + t * (size_t)attention_qkv_words(p), b[CACHE], where, where[2 * t], where[2 * t + 1],
                                  (double *)b[O] + (size_t)t * p->heads * p->head_dim);
}

/* ---- the host ---- */

struct slots_job {
    struct rt_device *dev;
    const struct attention_push *p;
    const float *qkv;
    const uint32_t *cache, *where;
    float *o;
};

static void slots_item(void *arg, int item, int worker)
{
    const struct slots_job *job = arg;
    struct attention_push one = *job->p;
    uint32_t t = (uint32_t)item / one.kv_heads, kv_head = (uint32_t)item % one.kv_heads, share = one.heads / one.kv_heads;
    one.T = 1;
    one.pos0 = job->where[2 * t + 1];
    float *o = job->o + (size_t)t * one.heads * one.head_dim;
    float *room = rt_host_scratch(job->dev, worker, attention_cache_row_floats(&one) * sizeof *room);
    if (!room) { /* a few hundred KiB that are not there: values that show it, rather than a crash */
        memset(o + (size_t)kv_head * share * one.head_dim, 0xff, share * one.head_dim * sizeof *o);
        return;
    }
    struct kv_source source = {.cache = job->cache, .where = job->where, .table = job->where[2 * t]};
    attention_cache_row(&one, job->qkv + t * (size_t)attention_qkv_words(&one), &source, kv_head, room, o);
}

static void attention_slots_host(struct rt_device *dev, void *const *b, const void *push)
{
    const struct attention_push *p = push;
    struct slots_job job = {dev, p, b[QKV], b[CACHE], b[WHERE], b[O]};
    rt_parallel(dev, (int)(p->T * p->kv_heads), slots_item, &job);
}

/* ---- the descriptor: the kernels are those of attention_cache ---- */

static void grid_rows(const void *push, uint32_t groups[3])
{
    const struct attention_push *p = push;
    groups[0] = op_groups((uint64_t)p->T * p->heads, 1);
}

/* How far each token sees is in `where`, which a push block does not show: the new rows alone. */
static double slots_bytes(const void *push)
{
    const struct attention_push *p = push;
    return 4.0 * p->T * (2.0 * p->heads * p->head_dim + (double)attention_kv_words(p));
}

#define KERNEL(type)                                                                                \
    {                                                                                               \
        .kernel = {"attention_row." type,                                                           \
                   sizeof(struct attention_push),                                                   \
                   4,                                                                               \
                   {{"qkv", RT_READ}, {"cache", RT_READ}, {"o", RT_WRITE_BY_GROUPS}, {"where", RT_READ}}}, \
        .map = {QKV, CACHE, O, WHERE}, .grid = grid_rows                                            \
    }
static const struct op_kernel row_f32 = KERNEL("f32"), row_f16 = KERNEL("f16"), row_q8_0 = KERNEL("q8_0");

static const struct op_variant variants[] = {
    {.name = "host", .kind = RT_HOST, .host = attention_slots_host},
    {.name = "rows_f16", .kind = RT_VULKAN, .applies = attention_kv_is_f16, .wtypes = 1u << OP_W_F16, .kernels = {&row_f16}},
    {.name = "rows_q8_0", .kind = RT_VULKAN, .applies = attention_kv_is_q8_0, .wtypes = 1u << OP_W_Q8_0, .kernels = {&row_q8_0}},
    {.name = "rows_f32", .kind = RT_VULKAN, .applies = attention_kv_is_f32, .wtypes = 1u << OP_W_F32, .kernels = {&row_f32}},
};
const struct op op_attention_slots_desc = {
    .name = "attention_slots",
    .n_bindings = 4,
    .bindings = {{"qkv", RT_READ, OP_F32}, {"cache", RT_READ, OP_U32}, {"where", RT_READ, OP_U32}, {"o", RT_WRITE, OP_F32}},
    .push_size = sizeof(struct attention_push),
    .ref = attention_slots_ref,
    .bytes = slots_bytes,
    .n_variants = OP_COUNT(variants),
    .variants = variants,
};

enum rt_status op_attention_slots(struct rt_device *dev, const struct op_attention_cache *a, struct rt_error *err)
{
    struct attention_push p;
    RT_TRY(attention_kv_check("attention_slots", a, &p, err));
    RT_TRY(op_check_rows("attention_slots", "o", a->o, p.T, p.heads * p.head_dim, 0, p.heads * p.head_dim, err));
    return p.T == 0 ? RT_OK : op_launch(dev, &op_attention_slots_desc, (struct rt_span[]){a->qkv, a->cache, a->where, a->o}, &p, err);
}
