/* mosld/ops/swiglu.c - the gated activation of the MLP and its gradient.
 *
 *     h = g s u,   s = 1 / (1 + exp(-g))
 *     du = dh g s
 *     dg = dh u s (1 + g (1 - s))
 *
 * gu, dgu: [T, 2 F], gate then up. h, dh: [T, F]. Bound by memory on every device: one pass over the words, no
 * intermediate. Backward can leave h in the place of dh (`again`), which the adapter's gradient reads. */
#include "mosld/ops/swiglu.h"

#include "mosld/ops/host_lanes.h"
#include "mosld/ops/op.h"
#include "mosld/ops/shape.h"
#include "shaders/swiglu.h"

#include <math.h>

/* More groups than this only queue: the kernels stride over the rest. */
#define GROUP 128

enum { GU, OUT_H }; /* bindings of swiglu */
enum { BWD_GU, BWD_DH, BWD_DGU };

/* ---- the truth ---- */

static void swiglu_ref(void *const *b, const void *push)
{
    const struct swiglu_push *p = push;
    const double *gu = b[GU];
    double *h = b[OUT_H];
    for (size_t t = 0; t < p->T; t++)
        for (size_t f = 0; f < p->F; f++) {
            double g = gu[t * 2 * p->F + f], u = gu[t * 2 * p->F + p->F + f];
            h[t * p->F + f] = g / (1 + exp(-g)) * u;
        }
}

static void swiglu_bwd_ref(void *const *b, const void *push)
{
    const struct swiglu_push *p = push;
    const double *gu = b[BWD_GU];
    double *dgu = b[BWD_DGU], *dh = b[BWD_DH];
    for (size_t t = 0; t < p->T; t++)
        for (size_t f = 0; f < p->F; f++) {
            size_t at = t * 2 * p->F + f;
            double g = gu[at], u = gu[at + p->F], d = dh[t * p->F + f], s = 1 / (1 + exp(-g));
            dgu[at] = d * u * s * (1 + g * (1 - s));
            dgu[at + p->F] = d * g * s;
            if (p->again)
                dh[t * p->F + f] = g * s * u;
        }
}

/* ---- the host ---- */

struct swiglu_job {
    const struct swiglu_push *p;
    const float *gu;
    float *dh, *out;
    uint32_t rows_item;
};

/* Rows an item: about 64 KiB of one operand, by the shape alone. */
static uint32_t rows_item(uint32_t F) { return F >= 16384 ? 1 : F == 0 ? 1 : 16384 / F; }

static int items_of(uint32_t T, uint32_t per) { return (int)(((uint64_t)T + per - 1) / per); }

MOSLD_CLONES static void forward_row(const float *restrict g, const float *restrict u, float *restrict h, size_t n)
{
    for (size_t i = 0; i < n; i++)
        h[i] = g[i] / (1.0f + host_exp(-g[i])) * u[i];
}

MOSLD_CLONES static void backward_row(const float *restrict g, const float *restrict u, const float *restrict dh,
                                      float *restrict dg, float *restrict du, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        float s = 1.0f / (1.0f + host_exp(-g[i])), ds = dh[i] * s;
        dg[i] = ds * u[i] * (1.0f + g[i] * (1.0f - s));
        du[i] = ds * g[i];
    }
}

MOSLD_CLONES static void backward_row_again(const float *restrict g, const float *restrict u, float *restrict dh,
                                            float *restrict dg, float *restrict du, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        float s = 1.0f / (1.0f + host_exp(-g[i])), ds = dh[i] * s;
        dg[i] = ds * u[i] * (1.0f + g[i] * (1.0f - s));
        du[i] = ds * g[i];
        dh[i] = g[i] * s * u[i];
    }
}

static void swiglu_item(void *arg, int item, int worker)
{
    (void)worker;
    const struct swiglu_job *job = arg;
    size_t F = job->p->F, T = job->p->T, first = (size_t)item * job->rows_item;
    for (size_t t = first; t < T && t < first + job->rows_item; t++) {
        const float *g = job->gu + t * 2 * F;
        if (job->dh && job->p->again)
            backward_row_again(g, g + F, job->dh + t * F, job->out + t * 2 * F, job->out + t * 2 * F + F, F);
        else if (job->dh)
            backward_row(g, g + F, job->dh + t * F, job->out + t * 2 * F, job->out + t * 2 * F + F, F);
        else
            forward_row(g, g + F, job->out + t * F, F);
    }
}

static void swiglu_host(struct rt_device *dev, void *const *b, const void *push)
{
    const struct swiglu_push *p = push;
    struct swiglu_job job = {.p = p, .gu = b[GU], .out = b[OUT_H], .rows_item = rows_item(p->F)};
    rt_parallel(dev, items_of(p->T, job.rows_item), swiglu_item, &job);
}

static void swiglu_bwd_host(struct rt_device *dev, void *const *b, const void *push)
{
    const struct swiglu_push *p = push;
    struct swiglu_job job = {.p = p, .gu = b[BWD_GU], .dh = b[BWD_DH], .out = b[BWD_DGU], .rows_item = rows_item(p->F)};
    rt_parallel(dev, items_of(p->T, job.rows_item), swiglu_item, &job);
}

/* ---- the descriptors ---- */

static bool whole_vec4(const void *push) { return ((const struct swiglu_push *)push)->F % 4 == 0; }

static void grid_of(const struct swiglu_push *p, uint32_t width, uint32_t groups[3])
{
    groups[0] = op_groups((uint64_t)p->T * (p->F / width), GROUP);
}

static void grid1(const void *push, uint32_t groups[3]) { grid_of(push, 1, groups); }
static void grid4(const void *push, uint32_t groups[3]) { grid_of(push, 4, groups); }

#define FORWARD(variant, grid_fn)                                                                                      \
    {                                                                                                                  \
        .kernel = {variant, sizeof(struct swiglu_push), 2, {{"gu", RT_READ}, {"h", RT_WRITE_BY_GROUPS}}}, .map = {GU, OUT_H},    \
        .grid = grid_fn                                                                                                \
    }
#define BACKWARD(variant, grid_fn)                                                                                     \
    {                                                                                                                  \
        .kernel = {variant, sizeof(struct swiglu_push), 3, {{"gu", RT_READ}, {"dh", RT_READ_WRITE_BY_GROUPS}, {"dgu", RT_WRITE_BY_GROUPS}}},     \
        .map = {BWD_GU, BWD_DH, BWD_DGU}, .grid = grid_fn                                                              \
    }
static const struct op_kernel forward4 = FORWARD("swiglu.vec4", grid4), forward1 = FORWARD("swiglu", grid1);
static const struct op_kernel backward4 = BACKWARD("swiglu_bwd.vec4", grid4), backward1 = BACKWARD("swiglu_bwd", grid1);

static const struct op_variant swiglu_variants[] = {
    {.name = "host", .kind = RT_HOST, .host = swiglu_host},
    {.name = "vec4", .kind = RT_VULKAN, .applies = whole_vec4, .kernels = {&forward4}},
    {.name = "plain", .kind = RT_VULKAN, .kernels = {&forward1}},
};
static double swiglu_bytes(const void *push)
{
    const struct swiglu_push *p = push;
    return 12.0 * p->T * p->F;
}

const struct op op_swiglu_desc = {
    .name = "swiglu",
    .n_bindings = 2,
    .bindings = {{"gu", RT_READ, OP_F32}, {"h", RT_WRITE, OP_F32}},
    .push_size = sizeof(struct swiglu_push),
    .ref = swiglu_ref,
    .bytes = swiglu_bytes,
    .n_variants = OP_COUNT(swiglu_variants),
    .variants = swiglu_variants,
};

static const struct op_variant swiglu_bwd_variants[] = {
    {.name = "host", .kind = RT_HOST, .host = swiglu_bwd_host},
    {.name = "vec4", .kind = RT_VULKAN, .applies = whole_vec4, .kernels = {&backward4}},
    {.name = "plain", .kind = RT_VULKAN, .kernels = {&backward1}},
};
static double swiglu_bwd_bytes(const void *push)
{
    const struct swiglu_push *p = push;
    return (p->again ? 24.0 : 20.0) * p->T * p->F;
}

const struct op op_swiglu_bwd_desc = {
    .name = "swiglu_bwd",
    .n_bindings = 3,
    .bindings = {{"gu", RT_READ, OP_F32}, {"dh", RT_READ_WRITE, OP_F32}, {"dgu", RT_WRITE, OP_F32}},
    .push_size = sizeof(struct swiglu_push),
    .ref = swiglu_bwd_ref,
    .bytes = swiglu_bwd_bytes,
    .n_variants = OP_COUNT(swiglu_bwd_variants),
    .variants = swiglu_bwd_variants,
};

enum rt_status op_swiglu(struct rt_device *dev, struct rt_span gu, struct rt_span h, uint32_t T, uint32_t F,
                         struct rt_error *err)
{
    uint32_t wide = op_row_words(2ull * F);
    enum rt_status st = op_check_rows("swiglu", "gu", gu, T, wide, 0, wide, err);
    if (!st)
        st = op_check_rows("swiglu", "h", h, T, F, 0, F, err);
    return st || T == 0 || F == 0
               ? st
               : op_launch(dev, &op_swiglu_desc, (struct rt_span[]){gu, h}, &(struct swiglu_push){.T = T, .F = F}, err);
}

enum rt_status op_swiglu_bwd(struct rt_device *dev, struct rt_span gu, struct rt_span dh, struct rt_span dgu,
                             uint32_t T, uint32_t F, bool again, struct rt_error *err)
{
    uint32_t wide = op_row_words(2ull * F);
    enum rt_status st = op_check_rows("swiglu_bwd", "gu", gu, T, wide, 0, wide, err);
    if (!st)
        st = op_check_rows("swiglu_bwd", "dh", dh, T, F, 0, F, err);
    if (!st)
        st = op_check_rows("swiglu_bwd", "dgu", dgu, T, wide, 0, wide, err);
    return st || T == 0 || F == 0
               ? st
               : op_launch(dev, &op_swiglu_bwd_desc, (struct rt_span[]){gu, dh, dgu}, &(struct swiglu_push){T, F, again}, err);
}
