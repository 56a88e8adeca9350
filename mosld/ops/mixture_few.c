/* mosld/ops/mixture_few.c - the mixture around one module for a few tokens, as in generation: router's decision, and the product with the experts that it chose.
 *
 *     g = the k largest of softmax(l), renormalised;   y[t, y_col + c] += scale sum_{e: g_e > 0} g_e sum_i u_i B_e[c, i]
 *
 * ul: [rows, ul_stride] with u in the r columns from u_col on and l in the E from l_col on; b: f32 [cols, E r] (Bcat) from word 0; y: [rows, y_stride].
 * Of B only what the chosen experts have is read, and gate and product are one launch: for a single token the launches are what an adapter costs. There is
 * no backward: training has many tokens and goes through op_gate and the products. */
#include "mosld/ops/gate_row.h"
#include "mosld/ops/linear_few_host.h"
#include "mosld/ops/op.h"
#include "mosld/ops/shape.h"
#include "shaders/mixture_few.h"

#include <stdlib.h>
#include <string.h>

enum { UL, B, Y };

static void mixture_few_ref(void *const *b, const void *push)
{
    const struct mixture_few_push *p = push;
    const double *ul = b[UL], *w = b[B];
    double *y = b[Y], g[MOSLD_MAX_EXPERTS], prob[MOSLD_MAX_EXPERTS];
    for (uint32_t t = 0; t < p->rows; t++) {
        const double *row = ul + (size_t)t * p->ul_stride;
        gate_row_ref(row + p->l_col, p->experts, p->top_k, g, prob);
        for (uint32_t c = 0; c < p->cols; c++) {
            double sum = 0;
            for (uint32_t e = 0; e < p->experts; e++)
                for (uint32_t i = 0; i < p->r; i++)
                    sum += g[e] * row[p->u_col + i] * w[((size_t)c * p->experts + e) * p->r + i];
            y[(size_t)t * p->y_stride + p->y_col + c] += p->scale * sum;
        }
    }
}

struct few_job {
    const struct mixture_few_push *p;
    const float *ul, *b;
    float *y;
    uint32_t cols_item;
};

typedef float eights __attribute__((vector_size(32), aligned(4), may_alias));

HOST_INLINE float dot_ranks(const float *w, const float *x, const uint32_t r)
{
    eights part = {0};
    float rest = 0;
    uint32_t i = 0;
    for (; i + 8 <= r; i += 8)
        part += *(const eights *)(w + i) * *(const eights *)(x + i);
    for (; i < r; i++)
        rest += w[i] * x[i];
    return (((part[0] + part[4]) + (part[2] + part[6])) + ((part[1] + part[5]) + (part[3] + part[7]))) + rest;
}

/* n columns of one token: z holds the chosen experts' g u, expert after expert, `from` where each stands in a row of B. What is read lies in pieces, one
 * or two cache lines of every row, which processors do not fetch ahead by themselves. */
HOST_INLINE void columns_of(const float *b, size_t stride, const float *z, const size_t *from, uint32_t chosen, const uint32_t r, uint32_t n,
                            float scale, float *y)
{
    for (uint32_t c = 0; c < n; c++, b += stride) {
        float sum = 0;
        for (uint32_t k = 0; k < chosen; k++) {
            __builtin_prefetch(b + 16 * stride + from[k]);
            sum += dot_ranks(b + from[k], z + (size_t)k * r, r);
        }
        y[c] += scale * sum;
    }
}

MOSLD_CLONES void mixture_columns(const float *b, size_t stride, const float *z, const size_t *from, uint32_t chosen, uint32_t r, uint32_t n, float scale,
                                  float *y)
{
    switch (r) { /* usual ranks as constants */
    case 8: columns_of(b, stride, z, from, chosen, 8, n, scale, y); break;
    case 16: columns_of(b, stride, z, from, chosen, 16, n, scale, y); break;
    default: columns_of(b, stride, z, from, chosen, r, n, scale, y); break;
    }
}

typedef float sixteens __attribute__((vector_size(64), aligned(4), may_alias));

MOSLD_CLONES void mixture_columns_t(const float *b, size_t stride, const float *z, const size_t *from, uint32_t chosen, uint32_t r, uint32_t n, float scale,
                                    float *y)
{
    uint32_t c = 0;
    for (; c + 32 <= n; c += 32) {
        sixteens low = {0}, high = {0};
        for (uint32_t k = 0; k < chosen; k++) {
            const float *row = b + from[k] + c;
            for (uint32_t i = 0; i < r; i++, row += stride) {
                low += z[k * r + i] * *(const sixteens *)row;
                high += z[k * r + i] * *(const sixteens *)(row + 16);
            }
        }
        *(sixteens *)(y + c) += scale * low;
        *(sixteens *)(y + c + 16) += scale * high;
    }
    for (; c < n; c++) {
        float sum = 0;
        for (uint32_t k = 0; k < chosen; k++)
            for (uint32_t i = 0; i < r; i++)
                sum += z[k * r + i] * b[from[k] + i * stride + c];
        y[c] += scale * sum;
    }
}

void mixture_choose(const float *u, const float *l, uint32_t r, uint32_t experts, uint32_t top_k, struct mixture_choice *choice, float *z)
{
    float g[MOSLD_MAX_EXPERTS] = {1}, prob[MOSLD_MAX_EXPERTS];
    choice->chosen = 0;
    if (experts > 1)
        gate_row(l, experts, top_k, g, prob);
    for (uint32_t e = 0; e < experts; e++)
        if (g[e] > 0) {
            for (uint32_t i = 0; i < r; i++)
                z[choice->chosen * r + i] = g[e] * u[i];
            choice->experts[choice->chosen++] = e;
        }
}

static void few_item(void *arg, int item, int worker)
{
    (void)worker;
    const struct few_job *job = arg;
    const struct mixture_few_push *p = job->p;
    uint32_t c0 = (uint32_t)item * job->cols_item, n = p->cols - c0 < job->cols_item ? p->cols - c0 : job->cols_item;
    size_t stride = (size_t)p->experts * p->r;
    for (uint32_t t = 0; t < p->rows; t++) {
        const float *row = job->ul + (size_t)t * p->ul_stride;
        float z[MIXTURE_FEW_MOST];
        size_t from[MOSLD_MAX_EXPERTS];
        struct mixture_choice choice;
        mixture_choose(row + p->u_col, row + p->l_col, p->r, p->experts, p->top_k, &choice, z);
        for (uint32_t i = 0; i < choice.chosen; i++)
            from[i] = (size_t)choice.experts[i] * p->r;
        mixture_columns(job->b + c0 * stride, stride, z, from, choice.chosen, p->r, n, p->scale, job->y + (size_t)t * p->y_stride + p->y_col + c0);
    }
}

#define COLS_ITEM 96 /* about what takes as long as to begin it */

static void mixture_few_host(struct rt_device *dev, void *const *b, const void *push)
{
    const struct mixture_few_push *p = push;
    struct few_job job = {p, b[UL], b[B], b[Y], COLS_ITEM};
    rt_parallel(dev, (int)(p->rows && p->cols ? (p->cols + job.cols_item - 1) / job.cols_item : 0), few_item, &job);
}

static void grid(const void *push, uint32_t groups[3])
{
    const struct mixture_few_push *p = push;
    groups[0] = op_groups(p->cols, 64);
    groups[1] = op_groups(p->rows, 1);
}

static double mixture_few_bytes(const void *push)
{
    const struct mixture_few_push *p = push;
    uint32_t chosen = p->top_k < p->experts ? p->top_k : p->experts;
    return 4.0 * p->rows * (p->r + p->experts + (double)p->cols * (2 + (double)chosen * p->r));
}

static const struct op_kernel kernel = {
    .kernel = {"mixture_few", sizeof(struct mixture_few_push), 3, {{"ul", RT_READ}, {"b", RT_READ}, {"y", RT_READ_WRITE_BY_GROUPS}}},
    .map = {UL, B, Y},
    .grid = grid,
};
static const struct op_variant variants[] = {
    {.name = "host", .kind = RT_HOST, .host = mixture_few_host},
    {.name = "columns", .kind = RT_VULKAN, .kernels = {&kernel}},
};
const struct op op_mixture_few_desc = {
    .name = "mixture_few",
    .n_bindings = 3,
    .bindings = {{"ul", RT_READ, OP_F32}, {"b", RT_READ, OP_F32}, {"y", RT_READ_WRITE, OP_F32}},
    .push_size = sizeof(struct mixture_few_push),
    .ref = mixture_few_ref,
    .bytes = mixture_few_bytes,
    .n_variants = OP_COUNT(variants),
    .variants = variants,
};

bool op_mixture_few_takes(uint32_t rows, uint32_t r, uint32_t experts)
{
    return rows <= MIXTURE_FEW_ROWS && experts > 1 && experts <= MOSLD_MAX_EXPERTS && (uint64_t)r * experts <= MIXTURE_FEW_MOST;
}

enum rt_status op_mixture_few(struct rt_device *dev, const struct op_mixture_few *m, struct rt_error *err)
{
    const char *name = "mixture_few";
    const struct op_gate *g = &m->gate;
    RT_TRY(gate_check(name, g->experts, g->top_k, err));
    if (!op_mixture_few_takes(g->rows, g->r, g->experts))
        return rt_fail(err, RT_FAILED, "%s: %u rows, %u experts of rank %u: it is for %u rows and %u in all", name, g->rows, g->experts, g->r,
                       MIXTURE_FEW_ROWS, MIXTURE_FEW_MOST);
    RT_TRY(op_check_rows(name, "u", g->ul, g->rows, g->ul_stride, g->u_col, g->r, err));
    RT_TRY(op_check_rows(name, "l", g->ul, g->rows, g->ul_stride, g->l_col, g->experts, err));
    RT_TRY(op_check_rows(name, "B", m->b, m->cols, g->experts * g->r, 0, g->experts * g->r, err));
    RT_TRY(op_check_rows(name, "y", m->y, g->rows, m->y_stride, m->y_col, m->cols, err));
    struct mixture_few_push p = {.rows = g->rows, .ul_stride = g->ul_stride, .u_col = g->u_col, .l_col = g->l_col, .r = g->r,
                                 .experts = g->experts, .top_k = g->top_k, .cols = m->cols, .y_stride = m->y_stride, .y_col = m->y_col,
                                 .scale = m->scale};
    return p.rows == 0 ? RT_OK : op_launch(dev, &op_mixture_few_desc, (struct rt_span[]){g->ul, m->b, m->y}, &p, err);
}
