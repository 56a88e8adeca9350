/* mosld/ops/gate_bwd.c - backward of the gates (gate.c).
 *
 *     dg_e = <dz_e, u>;   du = sum_e g_e dz_e;   dl_e = g_e (dg_e - sum_j g_j dg_j) + b p_e (f_e - sum_j p_j f_j);   then dz_e <- z_e = g_e u
 *
 * ul as in gate.c; dz: [T, M, E r]; dul: like ul, the r + E columns of each module are overwritten and the others left
 * alone. g is made again from l, which costs less than to keep it. Experts that were not kept have g = 0, so their dz
 * is not read, and their logits move by the balance loss alone: f = stats[0 .. E] of the gate is a constant of it,
 * b = `balance` its factor (mixture.h). dB = s dy^T z comes after dz = s dy B and needs z again, for which every number is at hand here. */
#include "mosld/ops/gate_row.h"
#include "mosld/ops/op.h"
#include "shaders/gate.h"

enum { UL, DZ, DUL, STATS };

#define ROWS_AN_ITEM 32 /* tokens that a thread takes at a time */

static void gate_bwd_ref(void *const *bindings, const void *push)
{
    const struct gate_push *p = push;
    double g[MOSLD_MAX_EXPERTS], prob[MOSLD_MAX_EXPERTS], dg[MOSLD_MAX_EXPERTS];
    for (size_t i = 0; i < (size_t)p->rows * p->modules; i++) {
        size_t m = i % p->modules, at = i / p->modules * p->ul_stride + m * p->module_cols;
        const double *ul = (double *)bindings[UL] + at, *u = ul + p->u_col, *f = (double *)bindings[STATS] + p->stats_offset + m * p->stats_stride;
        double *dul = (double *)bindings[DUL] + at, *dz = (double *)bindings[DZ] + i * p->experts * p->r;
        double mean = 0, mean_f = 0;
        gate_row_ref(ul + p->l_col, p->experts, p->top_k, g, prob);
        for (uint32_t j = 0; j < p->r; j++)
            dul[p->u_col + j] = 0;
        for (uint32_t e = 0; e < p->experts; e++) {
            dg[e] = 0;
            for (uint32_t j = 0; j < p->r; j++) {
                dg[e] += dz[e * p->r + j] * u[j];
                dul[p->u_col + j] += g[e] * dz[e * p->r + j];
                dz[e * p->r + j] = g[e] * u[j];
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
    const float *ul, *stats;
    float *dz, *dul;
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

/* dz_e gives dg_e and its part of du, and becomes z_e. */
HOST_INLINE float turn_expert(const float *u, float *dz, float *du, float g, uint32_t r)
{
    float dg = 0;
    if (g != 0) {
        dg = dot(dz, u, r);
        add_scaled(du, dz, g, r);
    }
    for (uint32_t i = 0; i < r; i++)
        dz[i] = g * u[i];
    return dg;
}

MOSLD_CLONES static void gate_bwd_pairs(const struct gate_bwd_job *job, size_t from, size_t to)
{
    const struct gate_push *p = job->p;
    float g[MOSLD_MAX_EXPERTS], prob[MOSLD_MAX_EXPERTS], dg[MOSLD_MAX_EXPERTS];
    for (size_t pair = from; pair < to; pair++) {
        size_t m = pair % p->modules, at = pair / p->modules * p->ul_stride + m * p->module_cols;
        const float *row = job->ul + at, *f = job->stats + m * p->stats_stride;
        float *dz = job->dz + pair * p->experts * p->r, *du = job->dul + at + p->u_col, *dl = job->dul + at + p->l_col;
        float mean = 0, mean_f = 0;
        gate_row(row + p->l_col, p->experts, p->top_k, g, prob);
        for (uint32_t i = 0; i < p->r; i++)
            du[i] = 0;
        for (uint32_t e = 0; e < p->experts; e++, dz += p->r) {
            dg[e] = turn_expert(row + p->u_col, dz, du, g[e], p->r);
            mean += g[e] * dg[e];
        }
        for (uint32_t e = 0; e < p->experts; e++)
            dl[e] = g[e] * (dg[e] - mean);
        if (p->balance == 0)
            continue;
        for (uint32_t e = 0; e < p->experts; e++)
            mean_f += prob[e] * f[e];
        for (uint32_t e = 0; e < p->experts; e++)
            dl[e] += p->balance * prob[e] * (f[e] - mean_f);
    }
}

static void gate_bwd_item(void *arg, int item, int worker)
{
    const struct gate_bwd_job *job = arg;
    size_t M = job->p->modules, n = job->p->rows * M, from = (size_t)item * ROWS_AN_ITEM * M, to = from + ROWS_AN_ITEM * M;
    gate_bwd_pairs(job, from, to < n ? to : n);
    (void)worker;
}

static void gate_bwd_host(struct rt_device *dev, void *const *bindings, const void *push)
{
    const struct gate_push *p = push;
    struct gate_bwd_job job = {p, bindings[UL], (const float *)bindings[STATS] + p->stats_offset, bindings[DZ], bindings[DUL]};
    rt_parallel(dev, (int)(((uint64_t)p->rows + ROWS_AN_ITEM - 1) / ROWS_AN_ITEM), gate_bwd_item, &job);
}

static bool balances(const void *push) { return ((const struct gate_push *)push)->balance != 0; }
static bool does_not_balance(const void *push) { return !balances(push); }

static const struct op_kernel plain = {
    .kernel = {"gate_bwd", sizeof(struct gate_push), 3, {{"ul", RT_READ}, {"dz", RT_READ_WRITE_BY_GROUPS}, {"dul", RT_WRITE_BY_GROUPS}}},
    .map = {UL, DZ, DUL},
    .grid = gate_grid,
};

static const struct op_kernel with_balance = {
    .kernel = {"gate_bwd.balance", sizeof(struct gate_push), 4,
               {{"ul", RT_READ}, {"dz", RT_READ_WRITE_BY_GROUPS}, {"dul", RT_WRITE_BY_GROUPS}, {"stats", RT_READ}}},
    .map = {UL, DZ, DUL, STATS},
    .grid = gate_grid,
};

static const struct op_variant variants[] = {
    {.name = "host", .kind = RT_HOST, .host = gate_bwd_host},
    {.name = "vulkan.balance", .kind = RT_VULKAN, .applies = balances, .kernels = {&with_balance}},
    {.name = "vulkan", .kind = RT_VULKAN, .applies = does_not_balance, .kernels = {&plain}},
};

static double gate_bwd_bytes(const void *push)
{
    const struct gate_push *p = push;
    return 4.0 * p->rows * p->modules * (2.0 * (p->r + p->experts) + 2.0 * p->experts * p->r);
}

const struct op op_gate_bwd_desc = {
    .name = "gate_bwd",
    .n_bindings = 4,
    .bindings = {{"ul", RT_READ, OP_F32},
                 {"dz", RT_READ_WRITE, OP_F32},
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
    enum rt_status st = gate_check_group("gate_bwd", &b->g, err);
    if (st)
        return st;
    struct gate_push push = gate_push_of(&b->g);
    push.balance = b->balance;
    struct rt_span stats = b->balance != 0 ? b->g.stats : b->dul; /* unread then: any span will do, and a null one too */
    return op_launch(dev, &op_gate_bwd_desc, (struct rt_span[]){b->g.ul, b->g.z, b->dul, stats}, &push, err);
}
