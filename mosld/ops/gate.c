/* mosld/ops/gate.c - the router's gate on the shared projection.
 *
 *     p_t = softmax(l_t);   g_t = the k largest of p_t over their sum, the others 0;   z[t, e r + i] = g_te u_ti
 *
 * ul: [T, ul_stride], u in columns u_col .. u_col + r, l in columns l_col .. l_col + E. z: [T, E r]. Renormalising the
 * softmax's k largest is the softmax of the k largest logits, which is how it is computed: the sum is never below 1.
 * Gradient: gate_bwd.c. */
#include "mosld/ops/gate_row.h"
#include "mosld/ops/op.h"
#include "shaders/gate.h"

#include <math.h>

enum { UL, Z };

#define ROWS_AN_ITEM 32 /* tokens that a thread takes at a time */

void gate_row_ref(const double *l, uint32_t E, uint32_t k, double *g, double *p)
{
    double max = l[0], all = 0, kept = 0;
    for (uint32_t e = 1; e < E; e++)
        max = fmax(max, l[e]);
    for (uint32_t e = 0; e < E; e++) {
        p[e] = exp(l[e] - max);
        g[e] = gate_keeps_ref(l, E, k, e) ? p[e] : 0;
        all += p[e];
        kept += g[e];
    }
    for (uint32_t e = 0; e < E; e++) {
        p[e] /= all;
        g[e] /= kept;
    }
}

enum rt_status gate_check(const char *op, uint32_t experts, uint32_t top_k, struct rt_error *err)
{
    if (experts < 1 || experts > MOSLD_MAX_EXPERTS)
        return rt_fail(err, RT_USAGE, "%s: %u experts; there must be 1 to %d", op, experts, MOSLD_MAX_EXPERTS);
    if (top_k < 1)
        return rt_fail(err, RT_USAGE, "%s: top_k is 0; at least one expert must be kept", op);
    return RT_OK;
}

static void gate_ref(void *const *bindings, const void *push)
{
    const struct gate_push *p = push;
    const double *ul = bindings[UL];
    double *z = bindings[Z], g[MOSLD_MAX_EXPERTS], prob[MOSLD_MAX_EXPERTS];
    for (size_t t = 0; t < p->rows; t++, ul += p->ul_stride) {
        gate_row_ref(ul + p->l_col, p->experts, p->top_k, g, prob);
        for (uint32_t e = 0; e < p->experts; e++)
            for (uint32_t i = 0; i < p->r; i++)
                *z++ = g[e] * ul[p->u_col + i];
    }
}

struct gate_job {
    const struct gate_push *p;
    const float *ul;
    float *z;
};

MOSLD_CLONES static void gate_rows(const struct gate_push *p, const float *ul, float *z, size_t t0, size_t t1)
{
    float g[MOSLD_MAX_EXPERTS], prob[MOSLD_MAX_EXPERTS];
    for (size_t t = t0; t < t1; t++) {
        const float *row = ul + t * p->ul_stride;
        const float *u = row + p->u_col;
        gate_row(row + p->l_col, p->experts, p->top_k, g, prob);
        float *restrict out = z + t * p->experts * p->r;
        for (uint32_t e = 0; e < p->experts; e++, out += p->r)
            for (uint32_t i = 0; i < p->r; i++)
                out[i] = g[e] * u[i];
    }
}

static void gate_item(void *arg, int item, int worker)
{
    const struct gate_job *job = arg;
    size_t t0 = (size_t)item * ROWS_AN_ITEM, t1 = t0 + ROWS_AN_ITEM;
    gate_rows(job->p, job->ul, job->z, t0, t1 < job->p->rows ? t1 : job->p->rows);
    (void)worker;
}

static void gate_host(struct rt_device *dev, void *const *bindings, const void *push)
{
    struct gate_job job = {push, bindings[UL], bindings[Z]};
    rt_parallel(dev, (int)(((uint64_t)job.p->rows + ROWS_AN_ITEM - 1) / ROWS_AN_ITEM), gate_item, &job);
}

static void group_a_token(const void *push, uint32_t groups[3])
{
    groups[0] = op_groups(((const struct gate_push *)push)->rows, 1);
}

static const struct op_kernel gate_kernel = {
    .kernel = {"gate", sizeof(struct gate_push), 2, {{"ul", RT_READ}, {"z", RT_WRITE_BY_GROUPS}}},
    .map = {UL, Z},
    .grid = group_a_token,
};

static const struct op_variant variants[] = {
    {.name = "host", .kind = RT_HOST, .host = gate_host},
    {.name = "vulkan", .kind = RT_VULKAN, .kernels = {&gate_kernel}},
};

static double gate_bytes(const void *push)
{
    const struct gate_push *p = push;
    return 4.0 * p->rows * (p->r + p->experts + (double)p->experts * p->r);
}

const struct op op_gate_desc = {
    .name = "gate",
    .n_bindings = 2,
    .bindings = {{"ul", RT_READ, OP_F32}, {"z", RT_WRITE, OP_F32}},
    .push_size = sizeof(struct gate_push),
    .ref = gate_ref,
    .bytes = gate_bytes,
    .n_variants = OP_COUNT(variants),
    .variants = variants,
};

enum rt_status op_gate(struct rt_device *dev, const struct op_gate *g, struct rt_error *err)
{
    enum rt_status st = gate_check("gate", g->experts, g->top_k, err);
    if (st)
        return st;
    struct gate_push push = {.rows = g->rows,
                             .ul_stride = g->ul_stride,
                             .u_col = g->u_col,
                             .l_col = g->l_col,
                             .r = g->r,
                             .experts = g->experts,
                             .top_k = g->top_k};
    return op_launch(dev, &op_gate_desc, (struct rt_span[]){g->ul, g->z}, &push, err);
}
