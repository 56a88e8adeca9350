/* mosld/ops/cross_entropy.c - the loss of a slice of target tokens and its gradient, in place of the logits.
 *
 *     m = max_v l_v;   s = sum_v e^(l_v - m);   loss = log s + m - l_target;
 *     l_v <- grad_scale (e^(l_v - m) / s - [v = target])
 *
 * logits: [n, V]; targets, loss: see loss.h. The sum is at least 1, so its logarithm is tame, and no difference of
 * logits is above 0, so nothing overflows. Vulkan makes maximum and sum in one pass; the host in two, since a row stays
 * in its cache. */
#include "mosld/ops/loss.h"
#include "mosld/ops/host_math.h"
#include "mosld/ops/op.h"
#include "shaders/cross_entropy.h"

#include <float.h>
#include <math.h>

enum { LOGITS, TARGETS, LOSS };

static void cross_entropy_ref(void *const *bindings, const void *push)
{
    const struct cross_entropy_push *p = push;
    double *l = bindings[LOGITS], scale = p->grad_scale;
    const uint32_t *targets = (const uint32_t *)bindings[TARGETS] + p->row0;
    uint32_t *loss = (uint32_t *)bindings[LOSS] + 2 * (size_t)p->row0;
    for (uint32_t i = 0; i < p->n; i++, l += p->V) {
        uint32_t best = 0;
        double sum = 0;
        for (uint32_t v = 1; v < p->V; v++)
            best = l[v] > l[best] ? v : best;
        double max = l[best];
        for (uint32_t v = 0; v < p->V; v++)
            sum += exp(l[v] - max);
        loss[2 * i] = host_bits((float)(log(sum) + max - l[targets[i]]));
        loss[2 * i + 1] = best;
        for (uint32_t v = 0; scale != 0 && v < p->V; v++)
            l[v] = scale * (exp(l[v] - max) / sum - (v == targets[i]));
    }
}

/* ---- host ---- */

#define LANES 16     /* partial sums: fixed, so that every version adds in the same order */
#define MAX_LANES 64 /* partial maxima: so many that gcc vectorises the loop before it unrolls it */
#define BLOCK 2048   /* logits whose maximum, or exponentials whose sum, is made at a time */

HOST_INLINE float block_max(const float *l, uint32_t n)
{
    float m[MAX_LANES], max = l[0];
    uint32_t v = 0;
    for (uint32_t j = 0; j < MAX_LANES; j++)
        m[j] = l[0];
    for (; v + MAX_LANES <= n; v += MAX_LANES)
        for (uint32_t j = 0; j < MAX_LANES; j++)
            m[j] = l[v + j] > m[j] ? l[v + j] : m[j];
    for (; v < n; v++)
        max = l[v] > max ? l[v] : max;
    for (uint32_t j = 0; j < MAX_LANES; j++)
        max = m[j] > max ? m[j] : max;
    return max;
}

/* The maximum, and its lowest index (n, which is none, in a row of NaN): only the block where it stands is searched. */
HOST_INLINE float row_max(const float *l, uint32_t n, uint32_t *index)
{
    float max = -FLT_MAX;
    uint32_t block = 0;
    for (uint32_t v = 0; v < n; v += BLOCK) {
        float m = block_max(l + v, n - v < BLOCK ? n - v : BLOCK);
        block = m > max ? v : block;
        max = m > max ? m : max;
    }
    while (block < n && l[block] != max)
        block++;
    *index = block;
    return max;
}

HOST_INLINE float block_sum(const float *e, uint32_t n)
{
    float s[LANES] = {0}, sum = 0;
    uint32_t v = 0;
    for (; v + LANES <= n; v += LANES)
        for (uint32_t j = 0; j < LANES; j++)
            s[j] += e[v + j];
    for (; v < n; v++)
        sum += e[v];
    for (uint32_t j = 0; j < LANES; j++)
        sum += s[j];
    return sum;
}

HOST_INLINE void exp_in_place(float *l, uint32_t n, float max)
{
    for (uint32_t j = 0; j < n; j++)
        l[j] = mosld_expf(l[j] - max);
}

HOST_INLINE void exp_to(float *restrict e, const float *restrict l, uint32_t n, float max)
{
    for (uint32_t j = 0; j < n; j++)
        e[j] = mosld_expf(l[j] - max);
}

/* The sum of e^(l - max), block by block in double; the exponentials replace the logits where `keep`. Two loops and not
 * one with a pointer to either place: the compiler would take the slow way where source and destination are the same. */
HOST_INLINE double row_exp(float *l, uint32_t n, float max, bool keep)
{
    float buffer[BLOCK];
    double sum = 0;
    for (uint32_t v = 0; v < n; v += BLOCK) {
        uint32_t m = n - v < BLOCK ? n - v : BLOCK;
        if (keep)
            exp_in_place(l + v, m, max);
        else
            exp_to(buffer, l + v, m, max);
        sum += block_sum(keep ? l + v : buffer, m);
    }
    return sum;
}

struct loss_job {
    const struct cross_entropy_push *p;
    float *logits;
    const uint32_t *targets;
    uint32_t *loss;
};

MOSLD_CLONES static void loss_row(const struct loss_job *job, size_t i)
{
    const struct cross_entropy_push *p = job->p;
    uint32_t V = p->V, target = job->targets[p->row0 + i], *out = job->loss + 2 * (p->row0 + i);
    float *l = job->logits + i * V, max = row_max(l, V, &out[1]), at = target < V ? l[target] : max;
    double sum = row_exp(l, V, max, p->grad_scale != 0);
    out[0] = host_bits((float)(log(sum) + ((double)max - at)));
    if (p->grad_scale == 0)
        return;
    float factor = (float)(p->grad_scale / sum);
    for (uint32_t v = 0; v < V; v++)
        l[v] *= factor;
    if (target < V)
        l[target] -= p->grad_scale;
}

static void loss_item(void *arg, int item, int worker)
{
    loss_row(arg, (size_t)item);
    (void)worker;
}

static void cross_entropy_host(struct rt_device *dev, void *const *bindings, const void *push)
{
    struct loss_job job = {push, bindings[LOGITS], bindings[TARGETS], bindings[LOSS]};
    rt_parallel(dev, (int)job.p->n, loss_item, &job);
}

/* ---- Vulkan ---- */

static void group_a_row(const void *push, uint32_t groups[3])
{
    groups[0] = op_groups(((const struct cross_entropy_push *)push)->n, 1);
}

static const struct op_kernel kernel = {
    .kernel = {"cross_entropy", sizeof(struct cross_entropy_push), 3,
               {{"logits", RT_READ_WRITE_BY_GROUPS}, {"targets", RT_READ}, {"loss", RT_WRITE_BY_GROUPS}}},
    .map = {LOGITS, TARGETS, LOSS},
    .grid = group_a_row,
};

static const struct op_variant variants[] = {
    {.name = "host", .kind = RT_HOST, .host = cross_entropy_host},
    {.name = "vulkan", .kind = RT_VULKAN, .kernels = {&kernel}},
};

static double cross_entropy_bytes(const void *push)
{
    const struct cross_entropy_push *p = push;
    return (p->grad_scale != 0 ? 8.0 : 4.0) * p->n * p->V;
}

const struct op op_cross_entropy_desc = {
    .name = "cross_entropy",
    .n_bindings = 3,
    .bindings = {{"logits", RT_READ_WRITE, OP_F32}, {"targets", RT_READ, OP_U32}, {"loss", RT_READ_WRITE, OP_U32}},
    .push_size = sizeof(struct cross_entropy_push),
    .ref = cross_entropy_ref,
    .bytes = cross_entropy_bytes,
    .n_variants = OP_COUNT(variants),
    .variants = variants,
};

enum rt_status op_cross_entropy(struct rt_device *dev, const struct op_cross_entropy *c, struct rt_error *err)
{
    if (c->V == 0)
        return rt_fail(err, RT_USAGE, "cross_entropy: a vocabulary of no tokens");
    struct cross_entropy_push push = {.n = c->n, .V = c->V, .row0 = c->row0, .grad_scale = c->grad_scale};
    return op_launch(dev, &op_cross_entropy_desc, (struct rt_span[]){c->logits, c->targets, c->loss}, &push, err);
}
