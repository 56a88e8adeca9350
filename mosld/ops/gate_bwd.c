/* mosld/ops/gate_bwd.c - backward of the gate (gate.c).
 *
 *     dg_e = <dz_e, u>;   du = sum_e g_e dz_e;   dl_e = g_e (dg_e - sum_j g_j dg_j) + b p_e (f_e - sum_j p_j f_j)
 *
 * ul as in gate.c; dz: [T, E r]; dul: like ul, the r + E columns of this module are overwritten and the others left
 * alone. g is made again from l, which costs less than to keep it. Experts that were not kept have g = 0, so their dz
 * is not read, and their logits move by the balance loss alone: f = stats[0 .. E] of router_stats is a constant of it,
 * b = `balance` its factor (mixture.h). */
#include "mosld/ops/gate_row.h"
#include "mosld/ops/op.h"
#include "shaders/gate.h"

enum { UL, DZ, DUL, STATS };

#define ROWS_AN_ITEM 32 /* tokens that a thread takes at a time */

static void gate_bwd_ref(void *const *bindings, const void *push)
{
    const struct gate_push *p = push;
    const double *ul = bindings[UL], *dz = bindings[DZ], *f = (const double *)bindings[STATS] + p->stats_offset;
    double *dul = bindings[DUL], g[MOSLD_MAX_EXPERTS], prob[MOSLD_MAX_EXPERTS], dg[MOSLD_MAX_EXPERTS];
    for (size_t t = 0; t < p->rows; t++, ul += p->ul_stride, dul += p->ul_stride, dz += p->experts * p->r) {
        const double *u = ul + p->u_col;
        double mean = 0, mean_f = 0;
        gate_row_ref(ul + p->l_col, p->experts, p->top_k, g, prob);
        for (uint32_t i = 0; i < p->r; i++)
            dul[p->u_col + i] = 0;
        for (uint32_t e = 0; e < p->experts; e++) {
            dg[e] = 0;
            for (uint32_t i = 0; i < p->r; i++) {
                dg[e] += dz[e * p->r + i] * u[i];
                dul[p->u_col + i] += g[e] * dz[e * p->r + i];
            }
            mean += g[e] * dg[e];
            mean_f += p->balance != 0 ? prob[e] * f[e] : 0;
        }
        for (uint32_t e = 0; e < p->experts; e++) {
            double balance = p->balance != 0 ? p->balance * prob[e] * (f[e] - mean_f) : 0;
            dul[p->l_col + e] = g[e] * (dg[e] - mean) + balance;
        }
    }
}

struct gate_bwd_job {
    const struct gate_push *p;
    const float *ul, *dz, *f;
    float *dul;
};

#define LANES 8 /* partial sums of a product, so that it vectorises and every version adds in the same order */

HOST_INLINE float dot(const float *dz, const float *u, uint32_t r)
{
    float s[LANES] = {0}, sum = 0;
    uint32_t i = 0;
    for (; i + LANES <= r; i += LANES)
        for (uint32_t j = 0; j < LANES; j++)
            s[j] += dz[i + j] * u[i + j];
    for (; i < r; i++)
        sum += dz[i] * u[i];
    for (uint32_t j = 0; j < LANES; j++)
        sum += s[j];
    return sum;
}

HOST_INLINE void add_scaled(float *restrict du, const float *restrict dz, float g, uint32_t r)
{
    for (uint32_t i = 0; i < r; i++)
        du[i] += g * dz[i];
}

MOSLD_CLONES static void gate_bwd_rows(const struct gate_bwd_job *job, size_t t0, size_t t1)
{
    const struct gate_push *p = job->p;
    float g[MOSLD_MAX_EXPERTS], prob[MOSLD_MAX_EXPERTS], dg[MOSLD_MAX_EXPERTS];
    for (size_t t = t0; t < t1; t++) {
        const float *row = job->ul + t * p->ul_stride, *dz = job->dz + t * p->experts * p->r;
        float *du = job->dul + t * p->ul_stride + p->u_col, *dl = job->dul + t * p->ul_stride + p->l_col;
        float mean = 0, mean_f = 0;
        gate_row(row + p->l_col, p->experts, p->top_k, g, prob);
        for (uint32_t i = 0; i < p->r; i++)
            du[i] = 0;
        for (uint32_t e = 0; e < p->experts; e++, dz += p->r) {
            dg[e] = 0;
            if (g[e] == 0)
                continue;
            dg[e] = dot(dz, row + p->u_col, p->r);
            add_scaled(du, dz, g[e], p->r);
            mean += g[e] * dg[e];
        }
        for (uint32_t e = 0; e < p->experts; e++)
            dl[e] = g[e] * (dg[e] - mean);
        if (p->balance == 0)
            continue;
        for (uint32_t e = 0; e < p->experts; e++)
            mean_f += prob[e] * job->f[e];
        for (uint32_t e = 0; e < p->experts; e++)
            dl[e] += p->balance * prob[e] * (job->f[e] - mean_f);
    }
}

static void gate_bwd_item(void *arg, int item, int worker)
{
    const struct gate_bwd_job *job = arg;
    size_t t0 = (size_t)item * ROWS_AN_ITEM, t1 = t0 + ROWS_AN_ITEM;
    gate_bwd_rows(job, t0, t1 < job->p->rows ? t1 : job->p->rows);
    (void)worker;
}

static void gate_bwd_host(struct rt_device *dev, void *const *bindings, const void *push)
{
    const struct gate_push *p = push;
    struct gate_bwd_job job = {p, bindings[UL], bindings[DZ], (const float *)bindings[STATS] + p->stats_offset,
                               bindings[DUL]};
    rt_parallel(dev, (int)(((uint64_t)p->rows + ROWS_AN_ITEM - 1) / ROWS_AN_ITEM), gate_bwd_item, &job);
}

static void group_a_token(const void *push, uint32_t groups[3])
{
    groups[0] = op_groups(((const struct gate_push *)push)->rows, 1);
}

static bool balances(const void *push) { return ((const struct gate_push *)push)->balance != 0; }
static bool does_not_balance(const void *push) { return !balances(push); }

static const struct op_kernel plain = {
    .kernel = {"gate_bwd", sizeof(struct gate_push), 3, {{"ul", RT_READ}, {"dz", RT_READ}, {"dul", RT_WRITE_BY_GROUPS}}},
    .map = {UL, DZ, DUL},
    .grid = group_a_token,
};

static const struct op_kernel with_balance = {
    .kernel = {"gate_bwd.balance", sizeof(struct gate_push), 4,
               {{"ul", RT_READ}, {"dz", RT_READ}, {"dul", RT_WRITE_BY_GROUPS}, {"stats", RT_READ}}},
    .map = {UL, DZ, DUL, STATS},
    .grid = group_a_token,
};

static const struct op_variant variants[] = {
    {.name = "host", .kind = RT_HOST, .host = gate_bwd_host},
    {.name = "vulkan.balance", .kind = RT_VULKAN, .applies = balances, .kernels = {&with_balance}},
    {.name = "vulkan", .kind = RT_VULKAN, .applies = does_not_balance, .kernels = {&plain}},
};

static double gate_bwd_bytes(const void *push)
{
    const struct gate_push *p = push;
    return 4.0 * p->rows * (2.0 * (p->r + p->experts) + (double)p->experts * p->r);
}

const struct op op_gate_bwd_desc = {
    .name = "gate_bwd",
    .n_bindings = 4,
    .bindings = {{"ul", RT_READ, OP_F32},
                 {"dz", RT_READ, OP_F32},
                 {"dul", RT_READ_WRITE, OP_F32},
                 {"stats", RT_READ, OP_F32}},
    .push_size = sizeof(struct gate_push),
    .ref = gate_bwd_ref,
    .bytes = gate_bwd_bytes,
    .n_variants = OP_COUNT(variants),
    .variants = variants,
};

enum rt_status op_gate_bwd(struct rt_device *dev, const struct op_gate_bwd *b, struct rt_error *err)
{
    const struct op_gate *g = &b->g;
    enum rt_status st = gate_check("gate_bwd", g->experts, g->top_k, err);
    if (st)
        return st;
    struct gate_push push = {.rows = g->rows,
                             .ul_stride = g->ul_stride,
                             .u_col = g->u_col,
                             .l_col = g->l_col,
                             .r = g->r,
                             .experts = g->experts,
                             .top_k = g->top_k,
                             .stats_offset = b->stats_offset,
                             .balance = b->balance};
    struct rt_span stats = b->balance != 0 ? b->stats : b->dul; /* unread then: any span will do, and a null one too */
    return op_launch(dev, &op_gate_bwd_desc, (struct rt_span[]){g->ul, g->z, b->dul, stats}, &push, err);
}
