/* mosld/ops/attention.c - causal grouped-query attention over packed sequences, forward.
 *
 *     o[t, h, :] = sum_j p_j v_j,   p = softmax over the keys j that t sees of scale <q, k_j>
 *
 * qkv: [T, (H + 2 Hk) D]   seg: u32 [T, 4]   o: [T, H D]   stats: words [T, 4 + 2 H]; what t sees: attention.h.
 *
 * In the manner of FlashAttention: a tile of queries meets the keys block by block and keeps, a row, the maximum so far
 * and the sum of exponentials relative to it; what was summed before shrinks when the maximum grows. stats keeps max +
 * log sum for backward. */
#include "mosld/ops/attention_common.h"
#include "mosld/ops/attention_coop.h"
#include "mosld/ops/host_blas.h"
#include "mosld/ops/shape.h"

#include <stdlib.h>
#include <string.h>

enum { QKV, SEG, O, STATS };

static void attention_ref(void *const *b, const void *push)
{
    const struct attention_push *p = push;
    const double *qkv = b[QKV];
    const uint32_t *seg = b[SEG];
    uint32_t *stats = b[STATS], D = p->head_dim, H = p->heads, share = H / p->kv_heads;
    size_t stride = attention_qkv_words(p);
    double *o = b[O], *w = malloc((p->T + 1) * sizeof *w);
    for (uint32_t t = 0; w && t < p->T; t++) {
        uint32_t *s = stats + (size_t)t * attention_stats_words(p);
        memcpy(s, seg + 4 * (size_t)t, 4 * sizeof *s);
        for (uint32_t h = 0; h < H; h++) {
            const double *k = qkv + (H + h / share) * D, *v = k + p->kv_heads * D;
            float lse =
                (float)attention_ref_row(qkv + t * stride + h * D, k, stride, D, p->scale, seg + 4 * (size_t)t, t, w);
            memcpy(s + STATS_LSE + h, &lse, sizeof lse);
            double *out = o + ((size_t)t * H + h) * D;
            memset(out, 0, D * sizeof *out);
            for (uint32_t j = 0; j <= t; j++)
                for (uint32_t d = 0; d < D; d++)
                    out[d] += w[j] * v[j * stride + d];
        }
    }
    free(w);
}

struct forward_job {
    struct attend a;
    uint32_t *stats;
    uint32_t tiles;
};

static void forward_item(void *arg, int item, int worker)
{
    (void)worker;
    const struct forward_job *job = arg;
    const struct attention_push *p = job->a.p;
    /* The last tiles see the most keys: they go first, so that no thread is left alone with one. */
    uint32_t head = (uint32_t)item % p->heads, t0 = (job->tiles - 1 - (uint32_t)item / p->heads) * ATTENTION_ROWS;
    uint32_t rows = p->T - t0 < ATTENTION_ROWS ? p->T - t0 : ATTENTION_ROWS;
    size_t words = attention_stats_words(p);
    uint32_t *stats = job->stats + t0 * words;
    attention_forward_tile(&job->a, head, t0, rows, (float *)stats + STATS_LSE + head, words);
    for (uint32_t r = 0; head == 0 && r < rows; r++)
        memcpy(stats + r * words, job->a.seg + 4 * (size_t)(t0 + r), 4 * sizeof *stats);
}

static void attention_host(struct rt_device *dev, void *const *b, const void *push)
{
    const struct attention_push *p = push;
    size_t stride = attention_qkv_words(p);
    const float *q = b[QKV], *k = q + (size_t)p->heads * p->head_dim;
    struct forward_job job = {
        .a = {.p = p,
              .q = q,
              .k = k,
              .v = k + (size_t)p->kv_heads * p->head_dim,
              .o = b[O],
              .q_stride = stride,
              .kv_stride = stride,
              .o_stride = (size_t)p->heads * p->head_dim,
              .seg = b[SEG],
              .seg_stride = 4},
        .stats = b[STATS],
        .tiles = (uint32_t)(((uint64_t)p->T + ATTENTION_ROWS - 1) / ATTENTION_ROWS),
    };
    host_blas_alone();
    rt_parallel(dev, (int)(job.tiles * p->heads), forward_item, &job);
}

static void grid2(const void *push, uint32_t groups[3])
{
    attention_grid(push, ((const struct attention_push *)push)->heads, 2, groups);
}
static void grid4(const void *push, uint32_t groups[3])
{
    attention_grid(push, ((const struct attention_push *)push)->heads, 4, groups);
}

static void grid_lanes(const void *push, uint32_t groups[3])
{
    attention_lanes_grid(push, ((const struct attention_push *)push)->heads, groups);
}

#define KERNEL(variant, o_access, grid_fn)                                                                             \
    {                                                                                                                  \
        .kernel = {variant,                                                                                            \
                   sizeof(struct attention_push),                                                                      \
                   4,                                                                                                  \
                   {{"qkv", RT_READ}, {"seg", RT_READ}, {"o", o_access}, {"stats", RT_WRITE_BY_GROUPS}}},                         \
        .map = {QKV, SEG, O, STATS}, .grid = grid_fn                                                                   \
    }
static const struct op_kernel narrow = KERNEL("attention.64", RT_WRITE_BY_GROUPS, grid2), wide = KERNEL("attention.128", RT_WRITE_BY_GROUPS, grid4),
                              lanes = KERNEL("attention_lanes", RT_READ_WRITE_BY_GROUPS, grid_lanes);

/* `rounding`: of q, k, v and the weights. Two f16 keep 22 bits of them, and stand first where the precision is not medium. */
#define COOP_VARIANT(label, head, kernel, needs_fn, suits_fn, rounded)                                                  \
    {                                                                                                                  \
        .name = label "." #head, .kind = RT_VULKAN, .applies = attention_head_to_##head, .needs = needs_fn,            \
        .suits = suits_fn, .kernels = {kernel}, .rounding = rounded,                                                   \
    }
#define COOP_VARIANTS(head, i, suits)                                                                                  \
    COOP_VARIANT("coop", head, &attention_coop_rounded[i], attention_has_matrices_medium, suits, 0x1p-10),             \
        COOP_VARIANT("coop_split", head, &attention_coop_split[i], attention_has_matrices, suits, 0)

static const struct op_variant variants[] = {
    {.name = "host", .kind = RT_HOST, .host = attention_host},
    {.name = "lanes",
     .kind = RT_VULKAN,
     .applies = attention_in_fours,
     .needs = attention_has_lanes,
     .suits = attention_suits_cpu,
     .kernels = {&lanes}},
    COOP_VARIANTS(64, 0, attention_suits_matrices),
    COOP_VARIANTS(96, 1, attention_suits_matrices),
    COOP_VARIANTS(128, 2, attention_suits_matrices),
    {.name = "128", .kind = RT_VULKAN, .applies = attention_wide, .kernels = {&wide}},
    {.name = "64", .kind = RT_VULKAN, .kernels = {&narrow}},
};
static double attention_bytes(const void *push)
{
    const struct attention_push *p = push;
    return 4.0 * p->T * ((2.0 * p->heads + 2.0 * p->kv_heads) * p->head_dim + p->heads + 8);
}

const struct op op_attention_desc = {
    .name = "attention",
    .n_bindings = 4,
    .bindings = {{"qkv", RT_READ, OP_F32},
                 {"seg", RT_READ, OP_U32},
                 {"o", RT_WRITE, OP_F32},
                 {"stats", RT_WRITE, OP_U32}},
    .push_size = sizeof(struct attention_push),
    .ref = attention_ref,
    .flops = attention_flops,
    .bytes = attention_bytes,
    .n_variants = OP_COUNT(variants),
    .variants = variants,
};

enum rt_status op_attention(struct rt_device *dev, const struct op_attention *a, struct rt_error *err)
{
    enum rt_status st = attention_check("attention", a->heads, a->kv_heads, a->head_dim, err);
    if (st)
        return st;
    struct attention_push p = {.T = a->T,
                               .heads = a->heads,
                               .kv_heads = a->kv_heads,
                               .head_dim = a->head_dim,
                               .scale = a->scale};
    uint32_t wide_row = attention_qkv_words(&p), o_row = p.heads * p.head_dim, stats_row = attention_stats_words(&p);
    st = op_check_rows("attention", "qkv", a->qkv, p.T, wide_row, 0, wide_row, err);
    if (!st)
        st = op_check_rows("attention", "seg", a->seg, p.T, 4, 0, 4, err);
    if (!st)
        st = op_check_rows("attention", "o", a->o, p.T, o_row, 0, o_row, err);
    if (!st)
        st = op_check_rows("attention", "stats", a->stats, p.T, stats_row, 0, stats_row, err);
    if (st || p.T == 0)
        return st;
    return op_launch(dev, &op_attention_desc, (struct rt_span[]){a->qkv, a->seg, a->o, a->stats}, &p, err);
}
