/* mosld/ops/router_stats.c - what a router did over the tokens of a micro-step: for the balance loss and for the log.
 *
 *     stats[e] = f_e = (tokens that keep e) / (k T);   stats[E + e] = P_e = mean_t p_te
 *
 * ul: [T, ul_stride], the logits in columns l_col .. l_col + E; stats: [2 E] from word stats_offset on. T = 0 leaves
 * stats as they are. The gradient of E sum f_e P_e is in gate_bwd.c. Vulkan: a workgroup an expert, which makes every
 * token's softmax again: E^2 T exponentials are few, and no partial sums need a place. */
#include "mosld/ops/gate_row.h"
#include "mosld/ops/op.h"
#include "shaders/gate.h"

enum { UL, STATS };

#define CHUNKS 32 /* partial sums: fixed, so that the result does not depend on the number of threads */

static void router_stats_ref(void *const *bindings, const void *push)
{
    const struct gate_push *p = push;
    const double *ul = bindings[UL];
    double *stats = (double *)bindings[STATS] + p->stats_offset, g[MOSLD_MAX_EXPERTS], prob[MOSLD_MAX_EXPERTS];
    uint32_t E = p->experts, k = p->top_k < E ? p->top_k : E;
    for (uint32_t e = 0; p->rows && e < 2 * E; e++)
        stats[e] = 0;
    for (size_t t = 0; t < p->rows; t++, ul += p->ul_stride) {
        gate_row_ref(ul + p->l_col, E, k, g, prob);
        for (uint32_t e = 0; e < E; e++) {
            stats[e] += gate_keeps_ref(ul + p->l_col, E, k, e) / ((double)k * p->rows);
            stats[E + e] += prob[e] / p->rows;
        }
    }
}

struct stats_job {
    const struct gate_push *p;
    const float *ul;
    float mean[CHUNKS][MOSLD_MAX_EXPERTS];
    uint32_t kept[CHUNKS][MOSLD_MAX_EXPERTS];
};

MOSLD_CLONES static void stats_rows(const struct gate_push *p, const float *ul, size_t t0, size_t t1, float *mean,
                                    uint32_t *kept)
{
    float g[MOSLD_MAX_EXPERTS], prob[MOSLD_MAX_EXPERTS];
    for (size_t t = t0; t < t1; t++) {
        const float *l = ul + t * p->ul_stride + p->l_col;
        gate_row(l, p->experts, p->top_k, g, prob);
        for (uint32_t e = 0; e < p->experts; e++) {
            mean[e] += prob[e];
            kept[e] += gate_keeps(l, p->experts, p->top_k, e);
        }
    }
}

static void stats_item(void *arg, int item, int worker)
{
    struct stats_job *job = arg;
    size_t rows = job->p->rows, chunk = (rows + CHUNKS - 1) / CHUNKS, t0 = (size_t)item * chunk, t1 = t0 + chunk;
    stats_rows(job->p, job->ul, t0 < rows ? t0 : rows, t1 < rows ? t1 : rows, job->mean[item], job->kept[item]);
    (void)worker;
}

static void router_stats_host(struct rt_device *dev, void *const *bindings, const void *push)
{
    const struct gate_push *p = push;
    struct stats_job job = {.p = p, .ul = bindings[UL]};
    float *stats = (float *)bindings[STATS] + p->stats_offset;
    uint32_t E = p->experts, k = p->top_k < E ? p->top_k : E;
    if (p->rows == 0)
        return;
    rt_parallel(dev, CHUNKS, stats_item, &job);
    for (uint32_t e = 0; e < E; e++) {
        uint64_t kept = 0;
        float mean = 0;
        for (int c = 0; c < CHUNKS; c++) {
            kept += job.kept[c][e];
            mean += job.mean[c][e];
        }
        stats[e] = (float)((double)kept / ((double)k * p->rows));
        stats[E + e] = mean / (float)p->rows;
    }
}

static void group_an_expert(const void *push, uint32_t groups[3])
{
    const struct gate_push *p = push;
    groups[0] = p->rows ? p->experts : 0;
}

static const struct op_kernel kernel = {
    .kernel = {"router_stats", sizeof(struct gate_push), 2, {{"ul", RT_READ}, {"stats", RT_WRITE}}},
    .map = {UL, STATS},
    .grid = group_an_expert,
};

static const struct op_variant variants[] = {
    {.name = "host", .kind = RT_HOST, .host = router_stats_host},
    {.name = "vulkan", .kind = RT_VULKAN, .kernels = {&kernel}},
};

static double router_stats_bytes(const void *push)
{
    const struct gate_push *p = push;
    return 4.0 * p->rows * p->experts;
}

const struct op op_router_stats_desc = {
    .name = "router_stats",
    .n_bindings = 2,
    .bindings = {{"ul", RT_READ, OP_F32}, {"stats", RT_READ_WRITE, OP_F32}},
    .push_size = sizeof(struct gate_push),
    .ref = router_stats_ref,
    .bytes = router_stats_bytes,
    .n_variants = OP_COUNT(variants),
    .variants = variants,
};

enum rt_status op_router_stats(struct rt_device *dev, const struct op_router_stats *s, struct rt_error *err)
{
    enum rt_status st = gate_check("router_stats", s->experts, s->top_k, err);
    if (st)
        return st;
    struct gate_push push = {.rows = s->rows,
                             .ul_stride = s->ul_stride,
                             .l_col = s->l_col,
                             .experts = s->experts,
                             .top_k = s->top_k,
                             .stats_offset = s->stats_offset};
    return op_launch(dev, &op_router_stats_desc, (struct rt_span[]){s->ul, s->stats}, &push, err);
}
