/* mosld/ops/linear_few_host.c - linear_few on the host: one parallel region a group.
 *
 * Its items are first the rows of the stack, then the rows of all W. Items are begun in order, so whoever comes to a W's rows finds the stack's taken:
 * its own sums over W take longer than what is left of those, and then it adds the experts' part to outputs that are still in the first cache. Who ends the
 * last item of the stack decides all gates, before anybody waits for them. */
#include "mosld/ops/linear_few_host.h"

#include "mosld/ops/matmul_vec.h"

#include <sched.h>

#define ROWS_ITEM 64
#define STACK_ITEM 16
#define LOOKS 1000

struct few_choice {
    struct mixture_choice choice;
    float *z;
};

struct few_group {
    const struct linear_few_push *p;
    const float *x, *other, *stacked_w, *b;
    const uint32_t *w;
    float *y, *ul;
    float *ordered; /* of x, for 4-bit weights; NULL: there are none, or no memory */
    struct matmul_push stack, part[LINEAR_FEW_PARTS];
    int stack_items, first[LINEAR_FEW_PARTS + 1]; /* items of each part, counted behind the stack's */
    int stacked;                                  /* items of the stack that are done; atomic */
    int decided;                                  /* 1: gates stand; atomic */
    struct few_choice (*choice)[LINEAR_FEW_ROWS]; /* [LINEAR_FEW_PARTS] */
};

/* ---- the stack ---- */

static void decide(struct few_group *f)
{
    const struct linear_few_push *p = f->p;
    for (uint32_t i = 0; i < LINEAR_FEW_PARTS; i++)
        for (uint32_t t = 0; t < p->rows && few_r(p, i); t++) {
            const float *u = f->ul + (size_t)t * p->ul_stride + p->u_col[i];
            mixture_choose(u, u + few_r(p, i), few_r(p, i), few_experts(p, i), few_top_k(p, i), &f->choice[i][t].choice, f->choice[i][t].z);
        }
    __atomic_store_n(&f->decided, 1, __ATOMIC_RELEASE);
}

static void rows_of(const struct matmul_push *p, const void *w, const float *x, const float *ordered, const float *other, uint32_t row0, uint32_t n,
                    float *y)
{
    for (uint32_t t0 = 0; t0 < p->rows; t0 += MATMUL_VEC_TOKENS) {
        float dots[ROWS_ITEM][MATMUL_VEC_TOKENS];
        uint32_t tokens = p->rows - t0 < MATMUL_VEC_TOKENS ? p->rows - t0 : MATMUL_VEC_TOKENS;
        matmul_vec_dots(p, w, x, ordered, row0, n, t0, tokens, dots);
        matmul_vec_store(p, other, row0, n, t0, tokens, dots, y);
    }
}

static void stack_item(struct few_group *f, uint32_t item)
{
    uint32_t row0 = item * STACK_ITEM, n = f->stack.n - row0 < STACK_ITEM ? f->stack.n - row0 : STACK_ITEM;
    rows_of(&f->stack, f->stacked_w, f->x, NULL, NULL, row0, n, f->ul);
    if (__atomic_add_fetch(&f->stacked, 1, __ATOMIC_ACQ_REL) == f->stack_items)
        decide(f);
}

/* ---- the modules ---- */

static void await_gates(const struct few_group *f)
{
    for (unsigned i = 0; !__atomic_load_n(&f->decided, __ATOMIC_ACQUIRE); i++)
        if (i >= LOOKS)
            sched_yield(); /* who has the stack may have lost its processor */
}

static void add_experts(const struct few_group *f, uint32_t i, uint32_t row0, uint32_t n)
{
    const struct linear_few_push *p = f->p;
    const bool transposed = p->how & LINEAR_FEW_TRANSPOSED;
    uint32_t r = few_r(p, i);
    size_t stride = transposed ? p->n[i] : (size_t)r * few_experts(p, i), expert = transposed ? (size_t)r * p->n[i] : r;
    const float *b = f->b + p->b[i] + (transposed ? row0 : row0 * stride);
    for (uint32_t t = 0; t < p->rows; t++) {
        const struct few_choice *c = &f->choice[i][t];
        size_t from[MOSLD_MAX_EXPERTS];
        for (uint32_t k = 0; k < c->choice.chosen; k++)
            from[k] = c->choice.experts[k] * expert;
        (transposed ? mixture_columns_t : mixture_columns)(b, stride, c->z, from, c->choice.chosen, r, n, p->scale[i],
                                                           f->y + (size_t)t * p->y_stride + p->y_col[i] + row0);
    }
}

static void few_item(void *arg, int item, int worker)
{
    (void)worker;
    struct few_group *f = arg;
    if (item < f->stack_items) {
        stack_item(f, (uint32_t)item);
        return;
    }
    item -= f->stack_items;
    uint32_t i = 0;
    while (item >= f->first[i + 1])
        i++;
    const struct matmul_push *m = &f->part[i];
    uint32_t row0 = (uint32_t)(item - f->first[i]) * ROWS_ITEM, n = m->n - row0 < ROWS_ITEM ? m->n - row0 : ROWS_ITEM;
    if (!few_alone(f->p))
        rows_of(m, f->w + f->p->w[i], f->x, matmul_q4_takes(m->wtype) ? f->ordered : NULL, f->other, row0, n, f->y);
    if (few_r(f->p, i)) {
        await_gates(f);
        add_experts(f, i, row0, n);
    }
}

/* ---- setting one up ---- */

static void lay_out(struct few_group *f)
{
    const struct linear_few_push *p = f->p;
    struct matmul_push all = {.rows = p->rows, .k = p->k, .x_stride = p->x_stride, .scale = 1};
    f->stack = all;
    f->stack.n = p->stack_rows, f->stack.y_stride = p->ul_stride, f->stack.wtype = OP_W_F32;
    f->stack_items = (int)((p->stack_rows + STACK_ITEM - 1) / STACK_ITEM);
    for (uint32_t i = 0; i < LINEAR_FEW_PARTS; i++) {
        struct matmul_push *m = &f->part[i];
        *m = all;
        m->n = p->n[i], m->y_stride = p->y_stride, m->y_col = p->y_col[i], m->wtype = few_type(p, i), m->add = few_add(p), m->bias_col = p->bias[i];
        f->first[i + 1] = f->first[i] + (int)((p->n[i] + ROWS_ITEM - 1) / ROWS_ITEM);
    }
}

/* x as the 4-bit types want it, in the caller's scratch, which no item touches. Without the memory for it they are read like others. */
static void order_x(struct rt_device *dev, struct few_group *f)
{
    const struct matmul_push *wants = NULL;
    for (uint32_t i = 0; i < LINEAR_FEW_PARTS && !few_alone(f->p); i++)
        wants = f->part[i].n && matmul_q4_takes(f->part[i].wtype) ? &f->part[i] : wants;
    if (wants)
        f->ordered = rt_host_scratch(dev, 0, matmul_q4_x_floats(wants) * sizeof *f->ordered + 1);
    if (f->ordered)
        matmul_q4_order_x(wants, f->x, f->ordered);
}

void linear_few_host(struct rt_device *dev, void *const *b, const void *push)
{
    const struct linear_few_push *p = push;
    if (p->rows == 0)
        return;
    size_t x0 = (size_t)p->first * p->x_stride, y0 = (size_t)p->first * p->y_stride;
    struct few_group f = {.p = p, .x = (const float *)b[FEW_X] + x0, .stacked_w = b[FEW_STACK], .b = b[FEW_B], .w = b[FEW_W], .y = (float *)b[FEW_Y] + y0,
                          .other = (const float *)b[FEW_OTHER] + (few_add(p) == MATMUL_ADD_RESIDUAL ? y0 : 0), .ul = b[FEW_UL]};
    struct few_choice choice[LINEAR_FEW_PARTS][LINEAR_FEW_ROWS];
    float z[LINEAR_FEW_PARTS][LINEAR_FEW_ROWS][LINEAR_FEW_MOST]; /* not cleared: most of it is not used */
    for (uint32_t i = 0; i < LINEAR_FEW_PARTS; i++)
        for (uint32_t t = 0; t < LINEAR_FEW_ROWS; t++)
            choice[i][t].z = z[i][t];
    f.choice = choice;
    lay_out(&f);
    order_x(dev, &f);
    rt_parallel(dev, f.stack_items + f.first[LINEAR_FEW_PARTS], few_item, &f);
}
