/* mosld/ops/attention_common.c - which keys a token sees, the reference of one row, the forward tile on the host. */
#include "mosld/ops/attention_common.h"

#include "mosld/ops/host_blas.h"
#include "mosld/ops/host_lanes.h"

#include <math.h>

#define NOTHING_SEEN -1e30f

static uint32_t least(uint32_t a, uint32_t b) { return a < b ? a : b; }
static uint32_t most(uint32_t a, uint32_t b) { return a > b ? a : b; }

enum rt_status attention_check(const char *op, uint32_t heads, uint32_t kv_heads, uint32_t head_dim,
                               struct rt_error *err)
{
    if (heads == 0 || kv_heads == 0 || heads % kv_heads || heads > 65535 || kv_heads > 65535)
        return rt_fail(err, RT_FAILED, "%s: %u query heads do not share %u key heads evenly", op, heads, kv_heads);
    if (head_dim == 0 || head_dim % 2 || head_dim > 256)
        return rt_fail(err, RT_FAILED, "%s: a head of %u values; it must be even, at least 2 and at most 256", op,
                       head_dim);
    return RT_OK;
}

void attention_grid(const struct attention_push *p, uint32_t heads, uint32_t out_chunks, uint32_t groups[3])
{
    uint64_t items = ((uint64_t)p->T + TILE - 1) / TILE * heads;
    groups[0] = items > ATTENTION_MOST_GROUPS ? ATTENTION_MOST_GROUPS : (uint32_t)items;
    groups[1] = (p->head_dim + out_chunks * TILE - 1) / (out_chunks * TILE);
}

bool attention_wide(const void *push) { return ((const struct attention_push *)push)->head_dim > 64; }

bool attention_has_lanes(const struct rt_device_info *info)
{
    uint32_t size = info->limits.subgroup_size; /* of which a group of 16 is made whole */
    return (info->caps & RT_CAP_SUBGROUP) && (size == 8 || size == 16);
}

bool attention_suits_cpu(const struct rt_device_info *info) { return info->class_ == RT_CLASS_CPU; }

bool attention_in_fours(const void *push) { return ((const struct attention_push *)push)->head_dim % 4 == 0; }

void attention_lanes_grid(const struct attention_push *p, uint32_t heads, uint32_t groups[3])
{
    const uint32_t tile = 16 * ATTENTION_LANES_OWN;
    groups[0] = op_groups(((uint64_t)p->T + tile - 1) / tile * heads, 1);
}

double attention_flops(const void *push)
{
    const struct attention_push *p = push;
    return 4.0 * p->heads * p->head_dim * p->T * (p->pos0 + p->T / 2.0);
}

/* ---- the reference ---- */

double attention_ref_row(const double *q, const double *k, size_t k_stride, uint32_t D, double scale,
                         const uint32_t *seg, uint32_t t, double *p)
{
    double top = -1e300, sum = 0;
    for (uint32_t j = 0; j <= t; j++) {
        bool sees = !seg || seg[0] <= j || (seg[1] <= j && j < seg[2]);
        p[j] = -1e300;
        if (!sees)
            continue;
        double s = 0;
        for (uint32_t d = 0; d < D; d++)
            s += q[d] * k[j * k_stride + d];
        p[j] = s * scale;
        top = p[j] > top ? p[j] : top;
    }
    for (uint32_t j = 0; j <= t; j++)
        sum += p[j] = p[j] == -1e300 ? 0 : exp(p[j] - top);
    for (uint32_t j = 0; j <= t; j++)
        p[j] /= sum;
    return top + log(sum);
}

/* ---- who sees what ---- */

struct key_ranges attention_key_ranges(const struct attend *a, uint32_t t0, uint32_t rows)
{
    struct key_ranges r = {{0, 0}, {0, a->p->pos0 + t0 + rows}};
    if (!a->seg) { /* whole blocks of the cache */
        r.begin[1] = attention_kv_first(a->p, a->p->pos0 + t0) / ATTENTION_KEYS * ATTENTION_KEYS;
        return r;
    }
    uint32_t own = UINT32_MAX, begin = UINT32_MAX, end = 0;
    for (uint32_t i = 0; i < rows; i++) {
        const uint32_t *seg = a->seg + (t0 + i) * a->seg_stride;
        own = least(own, seg[0]);
        if (seg[1] < seg[2]) {
            begin = least(begin, seg[1]);
            end = most(end, seg[2]);
        }
    }
    r.begin[1] = own;
    r.end[0] = least(end, own); /* what lies behind is in the second range in any case */
    r.begin[0] = least(begin, r.end[0]);
    return r;
}

bool attention_bounds(const struct attend *a, uint32_t t0, uint32_t rows, uint32_t j0, uint32_t keys,
                      struct row_bounds *bounds)
{
    bool any = false;
    for (uint32_t r = 0; r < rows; r++) {
        const uint32_t cached[3] = {attention_kv_first(a->p, a->p->pos0 + t0 + r), 0, 0};
        const uint32_t *seg = a->seg ? a->seg + (t0 + r) * a->seg_stride : cached;
        const uint32_t begin[2] = {seg[1], seg[0]}, end[2] = {seg[2], a->p->pos0 + t0 + r + 1};
        struct row_bounds *b = &bounds[r];
        for (int i = 0; i < 2; i++) {
            uint32_t before = i == 0 ? 0 : b->end[0];
            b->end[i] = end[i] <= j0 ? 0 : least(end[i] - j0, keys);
            b->begin[i] = begin[i] <= j0 ? 0 : least(begin[i] - j0, keys);
            b->begin[i] = most(b->begin[i], before);
            if (b->begin[i] >= b->end[i])
                b->begin[i] = b->end[i] = before;
            else
                any = true;
        }
    }
    return any;
}

/* ---- forward of a tile ---- */

HOST_INLINE float exp_and_sum(float *x, size_t n, float top)
{
    float sums[LANES16] = {0}, rest = 0;
    size_t i = 0;
    for (; i + LANES16 <= n; i += LANES16)
        for (int l = 0; l < LANES16; l++) {
            float e = host_exp(x[i + l] - top);
            x[i + l] = e;
            sums[l] += e;
        }
    for (; i < n; i++)
        rest += x[i] = host_exp(x[i] - top);
    lanes16 all;
    memcpy(&all, sums, sizeof all);
    return lanes16_sum(&all) + rest;
}

/* Scores [rows, keys] become weights relative to each row's new maximum; what the row summed before shrinks by
 * shrink[r]. */
MOSLD_CLONES static void softmax_rows(float *s, const struct row_bounds *bounds, uint32_t rows, uint32_t keys,
                                      float *top, float *sum, float *shrink)
{
    for (uint32_t r = 0; r < rows; r++, s += ATTENTION_KEYS) {
        const struct row_bounds *b = &bounds[r];
        uint32_t n0 = b->end[0] - b->begin[0], n1 = b->end[1] - b->begin[1];
        float m = host_max(s + b->begin[0], n0, top[r]);
        m = host_max(s + b->begin[1], n1, m);
        shrink[r] = host_exp(top[r] - m);
        top[r] = m;
        sum[r] = sum[r] * shrink[r] + exp_and_sum(s + b->begin[0], n0, m) + exp_and_sum(s + b->begin[1], n1, m);
        memset(s, 0, b->begin[0] * sizeof *s);
        memset(s + b->end[0], 0, (b->begin[1] - b->end[0]) * sizeof *s);
        memset(s + b->end[1], 0, (keys - b->end[1]) * sizeof *s);
    }
}

MOSLD_CLONES static void scale_rows(float *o, size_t stride, uint32_t rows, uint32_t cols, const float *factor)
{
    for (uint32_t r = 0; r < rows; r++, o += stride)
        for (uint32_t d = 0; d < cols; d++)
            o[d] *= factor[r];
}

struct forward_state {
    _Alignas(64) float s[ATTENTION_ROWS * ATTENTION_KEYS];
    float top[ATTENTION_ROWS], sum[ATTENTION_ROWS], factor[ATTENTION_ROWS];
    struct row_bounds bounds[ATTENTION_ROWS];
    bool begun; /* o holds sums */
};

static void forward_block(const struct attend *a, uint32_t head, uint32_t t0, uint32_t rows, uint32_t j0, uint32_t keys,
                          struct forward_state *f)
{
    const struct attention_push *p = a->p;
    uint32_t kv_head = head / (p->heads / p->kv_heads);
    float *o = a->o + t0 * a->o_stride + (size_t)head * p->head_dim;
    if (!attention_bounds(a, t0, rows, j0, keys, f->bounds))
        return;
    size_t at = j0 * a->kv_stride + (size_t)kv_head * p->head_dim;
    struct kv_block b = a->kv ? attention_kv_block(p, a->kv, kv_head, j0, keys) : (struct kv_block){a->k + at, a->v + at, a->kv_stride};
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (int)rows, (int)keys, (int)p->head_dim, p->scale,
                a->q + t0 * a->q_stride + (size_t)head * p->head_dim, (int)a->q_stride, b.k, (int)b.stride, 0,
                f->s, ATTENTION_KEYS);
    softmax_rows(f->s, f->bounds, rows, keys, f->top, f->sum, f->factor);
    if (f->begun)
        scale_rows(o, a->o_stride, rows, p->head_dim, f->factor);
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, (int)rows, (int)p->head_dim, (int)keys, 1, f->s,
                ATTENTION_KEYS, b.v, (int)b.stride, f->begun ? 1 : 0, o, (int)a->o_stride);
    f->begun = true;
}

void attention_forward_tile(const struct attend *a, uint32_t head, uint32_t t0, uint32_t rows, float *lse,
                            size_t lse_stride)
{
    struct forward_state f;
    f.begun = false;
    for (uint32_t r = 0; r < rows; r++) {
        f.top[r] = NOTHING_SEEN;
        f.sum[r] = 0;
    }
    struct key_ranges ranges = attention_key_ranges(a, t0, rows);
    for (int i = 0; i < 2; i++)
        for (uint32_t j = ranges.begin[i]; j < ranges.end[i]; j += ATTENTION_KEYS)
            forward_block(a, head, t0, rows, j, least(ATTENTION_KEYS, ranges.end[i] - j), &f);
    for (uint32_t r = 0; r < rows; r++) {
        f.factor[r] = 1 / f.sum[r];
        if (lse)
            lse[r * lse_stride] = f.top[r] + logf(f.sum[r]);
    }
    scale_rows(a->o + t0 * a->o_stride + (size_t)head * a->p->head_dim, a->o_stride, rows, a->p->head_dim, f.factor);
}
