/* mosld/ops/gate.c - the routers' gates on a shared projection, for all modules of a group at once.
 *
 *     p_t = softmax(l_t);   g_t = the k largest of p_t over their sum, the others 0;   z[t, m, e r + i] = g_te u_ti
 *     counts: stats[e] = f_e = (tokens that keep e) / (k T);   stats[E + e] = P_e = mean_t p_te
 *
 * ul: [T, ul_stride], u in columns u_col .. u_col + r, l in columns l_col .. l_col + E, those of module m m module_cols further on. z: [T, M, E r].
 * Renormalising the softmax's k largest is the softmax of the k largest logits, which is how it is computed: the sum is never below 1. T = 0
 * leaves stats as they are. Vulkan: a workgroup an expert of a module makes the statistics, beside those that make z: it makes every token's softmax
 * again, since E^2 T exponentials are few and no partial sums need a place. Gradient: gate_bwd.c. */
#include "mosld/ops/gate_row.h"
#include "mosld/ops/op.h"
#include "shaders/gate.h"

#include <math.h>
#include <string.h>

enum { UL, Z, STATS };

#define ROWS_AN_ITEM 32 /* tokens that a thread takes at a time, where nothing is counted */
#define CHUNKS 32       /* partial sums of statistics: fixed, so that the result does not depend on the number of threads */

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

enum rt_status gate_check_group(const char *op, const struct op_gate *g, struct rt_error *err)
{
    RT_TRY(gate_check(op, g->experts, g->top_k, err));
    if (g->modules > GATE_MAX_MODULES)
        return rt_fail(err, RT_USAGE, "%s: %u modules at once; at most %d read the same x", op, g->modules, GATE_MAX_MODULES);
    return RT_OK;
}

/* Statistics of one module, from word 0 of `stats` on. */
static void count_ref(const struct gate_push *p, const double *l, double *stats)
{
    double g[MOSLD_MAX_EXPERTS], prob[MOSLD_MAX_EXPERTS];
    uint32_t E = p->experts, k = p->top_k < E ? p->top_k : E;
    for (uint32_t e = 0; p->rows && e < 2 * E; e++)
        stats[e] = 0;
    for (size_t t = 0; t < p->rows; t++, l += p->ul_stride) {
        gate_row_ref(l, E, k, g, prob);
        for (uint32_t e = 0; e < E; e++) {
            stats[e] += gate_keeps_ref(l, E, k, e) / ((double)k * p->rows);
            stats[E + e] += prob[e] / p->rows;
        }
    }
}

static void gate_ref(void *const *bindings, const void *push)
{
    const struct gate_push *p = push;
    const double *ul = bindings[UL];
    double *z = bindings[Z], g[MOSLD_MAX_EXPERTS], prob[MOSLD_MAX_EXPERTS];
    for (uint32_t m = 0; p->counts && m < p->modules; m++)
        count_ref(p, ul + p->l_col + m * p->module_cols, (double *)bindings[STATS] + p->stats_offset + m * p->stats_stride);
    for (size_t t = 0; t < p->rows; t++, ul += p->ul_stride)
        for (uint32_t m = 0; m < p->modules; m++) {
            const double *row = ul + m * p->module_cols;
            gate_row_ref(row + p->l_col, p->experts, p->top_k, g, prob);
            for (uint32_t e = 0; e < p->experts; e++)
                for (uint32_t i = 0; i < p->r; i++)
                    *z++ = g[e] * row[p->u_col + i];
        }
}

/* ---- host ---- */

struct gate_job {
    const struct gate_push *p;
    const float *ul;
    float *z;
    size_t rows_item;
    struct gate_count {
        float mean[MOSLD_MAX_EXPERTS];
        uint32_t kept[MOSLD_MAX_EXPERTS];
    } *count; /* [items, modules]; NULL: nothing is counted */
};

MOSLD_CLONES static void gate_rows(const struct gate_job *job, size_t t0, size_t t1, struct gate_count *count)
{
    const struct gate_push *p = job->p;
    float g[MOSLD_MAX_EXPERTS], prob[MOSLD_MAX_EXPERTS];
    for (size_t i = t0 * p->modules; i < t1 * p->modules; i++) {
        size_t m = i % p->modules;
        const float *row = job->ul + i / p->modules * p->ul_stride + m * p->module_cols, *u = row + p->u_col;
        gate_row(row + p->l_col, p->experts, p->top_k, g, prob);
        float *restrict out = job->z + i * p->experts * p->r;
        for (uint32_t e = 0; e < p->experts; e++, out += p->r)
            for (uint32_t j = 0; j < p->r; j++)
                out[j] = g[e] * u[j];
        for (uint32_t e = 0; count && e < p->experts; e++) {
            count[m].mean[e] += prob[e];
            count[m].kept[e] += gate_keeps(row + p->l_col, p->experts, p->top_k, e);
        }
    }
}

static void gate_item(void *arg, int item, int worker)
{
    const struct gate_job *job = arg;
    size_t T = job->p->rows, t0 = (size_t)item * job->rows_item, t1 = t0 + job->rows_item;
    gate_rows(job, t0 < T ? t0 : T, t1 < T ? t1 : T, job->count ? job->count + (size_t)item * job->p->modules : NULL);
    (void)worker;
}

/* The chunks' sums become the statistics of one module. */
static void conclude(const struct gate_job *job, uint32_t module, float *stats)
{
    const struct gate_push *p = job->p;
    uint32_t E = p->experts, k = p->top_k < E ? p->top_k : E;
    for (uint32_t e = 0; e < E; e++) {
        uint64_t kept = 0;
        float mean = 0;
        for (int c = 0; c < CHUNKS; c++) {
            kept += job->count[c * p->modules + module].kept[e];
            mean += job->count[c * p->modules + module].mean[e];
        }
        stats[e] = (float)((double)kept / ((double)k * p->rows));
        stats[E + e] = mean / (float)p->rows;
    }
}

static void gate_host(struct rt_device *dev, void *const *bindings, const void *push)
{
    const struct gate_push *p = push;
    struct gate_count count[CHUNKS * GATE_MAX_MODULES];
    struct gate_job job = {.p = p, .ul = bindings[UL], .z = bindings[Z], .rows_item = ROWS_AN_ITEM};
    if (!p->rows)
        return;
    if (p->counts) {
        job.rows_item = ((size_t)p->rows + CHUNKS - 1) / CHUNKS;
        job.count = memset(count, 0, sizeof *count * CHUNKS * p->modules);
    }
    rt_parallel(dev, (int)((p->rows + job.rows_item - 1) / job.rows_item), gate_item, &job);
    for (uint32_t m = 0; p->counts && m < p->modules; m++)
        conclude(&job, m, (float *)bindings[STATS] + p->stats_offset + m * p->stats_stride);
}

/* ---- Vulkan ---- */

void gate_grid(const void *push, uint32_t groups[3])
{
    const struct gate_push *p = push;
    uint32_t lanes = 1;
    while (lanes < p->experts)
        lanes *= 2;
    groups[0] = op_groups((uint64_t)p->rows * p->modules, 64 / lanes);
}

static void counting_grid(const void *push, uint32_t groups[3])
{
    const struct gate_push *p = push;
    gate_grid(push, groups);
    groups[0] = p->rows ? op_groups((uint64_t)groups[0] + p->modules * p->experts, 1) : 0;
}

static bool counts(const void *push) { return ((const struct gate_push *)push)->counts != 0; }
static bool does_not_count(const void *push) { return !counts(push); }

static const struct op_kernel plain = {
    .kernel = {"gate", sizeof(struct gate_push), 2, {{"ul", RT_READ}, {"z", RT_WRITE_BY_GROUPS}}},
    .map = {UL, Z},
    .grid = gate_grid,
};

static const struct op_kernel with_counts = {
    .kernel = {"gate.counts", sizeof(struct gate_push), 3, {{"ul", RT_READ}, {"z", RT_WRITE_BY_GROUPS}, {"stats", RT_WRITE_BY_GROUPS}}},
    .map = {UL, Z, STATS},
    .grid = counting_grid,
};

static const struct op_variant variants[] = {
    {.name = "host", .kind = RT_HOST, .host = gate_host},
    {.name = "vulkan.counts", .kind = RT_VULKAN, .applies = counts, .kernels = {&with_counts}},
    {.name = "vulkan", .kind = RT_VULKAN, .applies = does_not_count, .kernels = {&plain}},
};

static double gate_bytes(const void *push)
{
    const struct gate_push *p = push;
    return 4.0 * p->rows * p->modules * (p->r + p->experts + (double)p->experts * p->r);
}

const struct op op_gate_desc = {
    .name = "gate",
    .n_bindings = 3,
    .bindings = {{"ul", RT_READ, OP_F32}, {"z", RT_WRITE, OP_F32}, {"stats", RT_READ_WRITE, OP_F32}},
    .push_size = sizeof(struct gate_push),
    .ref = gate_ref,
    .bytes = gate_bytes,
    .n_variants = OP_COUNT(variants),
    .variants = variants,
};

struct gate_push gate_push_of(const struct op_gate *g)
{
    return (struct gate_push){.rows = g->rows,
                              .ul_stride = g->ul_stride,
                              .u_col = g->u_col,
                              .l_col = g->l_col,
                              .r = g->r,
                              .experts = g->experts,
                              .top_k = g->top_k,
                              .modules = g->modules ? g->modules : 1,
                              .module_cols = g->module_cols,
                              .stats_offset = g->stats_offset,
                              .stats_stride = g->stats_stride,
                              .counts = g->counts};
}

enum rt_status op_gate(struct rt_device *dev, const struct op_gate *g, struct rt_error *err)
{
    enum rt_status st = gate_check_group("gate", g, err);
    if (st)
        return st;
    struct gate_push push = gate_push_of(g);
    struct rt_span stats = g->counts ? g->stats : g->ul; /* unread then: any span will do */
    return op_launch(dev, &op_gate_desc, (struct rt_span[]){g->ul, g->z, stats}, &push, err);
}
