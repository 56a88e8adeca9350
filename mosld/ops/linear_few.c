/* mosld/ops/linear_few.c - the linear modules of a group with their adapters, for a few tokens: see linear_few.h.
 *
 * On Vulkan all outputs are one launch, and the experts' part of all modules a second; weights, biases and the adapter's matrices of a group lie in one buffer each, so that
 * a binding from the first to the last covers them. */
#include "mosld/ops/linear_few.h"

#include "mosld/ops/gate_row.h"
#include "mosld/ops/linear_few_host.h"
#include "mosld/ops/op.h"
#include "mosld/ops/shape.h"

/* ---- the truth ---- */

/* The parts' W are the rows of one matrix here, one part behind the other. */
static void few_ref(void *const *b, const void *push)
{
    const struct linear_few_push *p = push;
    const double *x = b[FEW_X], *w = b[FEW_W], *other = b[FEW_OTHER], *a = b[FEW_STACK], *B = b[FEW_B];
    double *y = b[FEW_Y], *ul = b[FEW_UL], g[MOSLD_MAX_EXPERTS], prob[MOSLD_MAX_EXPERTS];
    for (size_t t = 0; t < p->rows; t++, w = b[FEW_W]) {
        const double *row = x + (p->first + t) * p->x_stride, *v = ul + t * p->ul_stride;
        for (uint32_t i = 0; i < p->stack_rows; i++) {
            double sum = 0;
            for (uint32_t k = 0; k < p->k; k++)
                sum += row[k] * a[(size_t)i * p->k + k];
            ul[t * p->ul_stride + i] = sum;
        }
        for (uint32_t i = 0; i < LINEAR_FEW_PARTS; i++) {
            uint32_t r = few_r(p, i), experts = few_experts(p, i);
            g[0] = 1;
            if (r && experts > 1)
                gate_row_ref(v + p->u_col[i] + r, experts, few_top_k(p, i), g, prob);
            for (uint32_t o = 0; o < p->n[i]; o++, w += p->k) {
                size_t at = (p->first + t) * p->y_stride + p->y_col[i] + o;
                double sum = few_alone(p) ? y[at] : few_add(p) == MATMUL_ADD_BIAS ? other[p->bias[i] + o] : few_add(p) == MATMUL_ADD_RESIDUAL ? other[at] : 0;
                for (uint32_t k = 0; k < p->k && !few_alone(p); k++)
                    sum += row[k] * w[k];
                for (uint32_t e = 0; e < experts; e++)
                    for (uint32_t j = 0; j < r; j++)
                        sum += p->scale[i] * g[e] * v[p->u_col[i] + j] *
                               B[p->b[i] + (p->how & LINEAR_FEW_TRANSPOSED ? (e * r + j) * (size_t)p->n[i] + o : ((size_t)o * experts + e) * r + j)];
                y[at] = sum;
            }
        }
    }
}

static double few_flops(const void *push)
{
    const struct linear_few_push *p = push;
    double outputs = p->stack_rows;
    for (uint32_t i = 0; i < LINEAR_FEW_PARTS; i++)
        outputs += few_alone(p) ? few_r(p, i) : p->n[i];
    return 2.0 * p->rows * p->k * outputs;
}

static double few_bytes(const void *push)
{
    const struct linear_few_push *p = push;
    double bytes = 4.0 * p->k * (p->rows + (double)p->stack_rows);
    for (uint32_t i = 0; i < LINEAR_FEW_PARTS; i++) {
        uint32_t experts = few_experts(p, i), top_k = few_top_k(p, i), chosen = experts > 1 && top_k < experts ? top_k : experts;
        bytes += (few_alone(p) ? 0 : (double)op_weight_bytes((enum op_wtype)few_type(p, i), p->n[i], p->k)) +
                 4.0 * p->rows * p->n[i] * (1 + (few_add(p) == MATMUL_ADD_RESIDUAL) + (double)few_r(p, i) * chosen);
    }
    return bytes;
}

/* ---- the variants ---- */

/* A workgroup makes 4 columns of all tokens. */
static void columns_grid(const void *push, uint32_t groups[3])
{
    const struct linear_few_push *p = push;
    uint64_t n = (p->stack_rows + 3ull) / 4;
    for (uint32_t i = 0; i < LINEAR_FEW_PARTS && !few_alone(p); i++)
        n += (p->n[i] + 3ull) / 4;
    groups[0] = op_groups(n, 1);
}

/* 64 columns of a token. */
static void mix_grid(const void *push, uint32_t groups[3])
{
    const struct linear_few_push *p = push;
    uint64_t n = 0;
    for (uint32_t i = 0; i < LINEAR_FEW_PARTS; i++)
        n += few_r(p, i) ? (p->n[i] + 63ull) / 64 : 0;
    groups[0] = op_groups(n, 1);
    groups[1] = op_groups(p->rows, 1);
}

static const struct op_kernel mix = {
    .kernel = {"linear_few_mix", sizeof(struct linear_few_push), 3, {{"ul", RT_READ}, {"b", RT_READ}, {"y", RT_READ_WRITE}}},
    .map = {FEW_UL, FEW_B, FEW_Y},
    .grid = mix_grid,
    .share = 0.05f,
};

#define FEW_KERNELS(type, number, unused)                                                                              \
    static const struct op_kernel columns_##type = {                                                                   \
        .kernel = {"linear_few." #type, sizeof(struct linear_few_push), 6,                                             \
                   {{"x", RT_READ}, {"w", RT_READ}, {"y", RT_READ_WRITE}, {"other", RT_READ}, {"stack", RT_READ}, {"ul", RT_READ_WRITE}}}, \
        .map = {FEW_X, FEW_W, FEW_Y, FEW_OTHER, FEW_STACK, FEW_UL},                                                    \
        .grid = columns_grid,                                                                                          \
    };                                                                                                                 \
    static const struct op_kernel plain_##type = {                                                                     \
        .kernel = {"linear_few_plain." #type, sizeof(struct linear_few_push), 4,                                       \
                   {{"x", RT_READ}, {"w", RT_READ}, {"y", RT_READ_WRITE_BY_GROUPS}, {"other", RT_READ}}},              \
        .map = {FEW_X, FEW_W, FEW_Y, FEW_OTHER},                                                                       \
        .grid = columns_grid,                                                                                          \
    };                                                                                                                 \
    static bool with_##type(const void *push) { return all_of(push, number) && ((const struct linear_few_push *)push)->stack_rows; } \
    static bool without_##type(const void *push) { return all_of(push, number) && !((const struct linear_few_push *)push)->stack_rows; }

/* Whether the parts that there are have weights of this type. */
static bool all_of(const void *push, uint32_t type)
{
    const struct linear_few_push *p = push;
    for (uint32_t i = 0; i < LINEAR_FEW_PARTS; i++)
        if (p->n[i] && few_type(p, i) != type)
            return false;
    return true;
}
OP_W_EACH(FEW_KERNELS, OP_W_NOTHING, unused)

/* Drivers on the processor take other kernels for few tokens, which are faster there: `rows` of matmul_nt. */
static bool suits_gpu(const struct rt_device_info *info) { return info->class_ != RT_CLASS_CPU; }

#define FEW_VARIANTS(type, number, unused)                                                                             \
    {.name = "columns." #type, .kind = RT_VULKAN, .applies = with_##type, .wtypes = 1u << (number), .suits = suits_gpu, \
     .kernels = {&columns_##type, &mix}},                                                                              \
    {.name = "plain." #type, .kind = RT_VULKAN, .applies = without_##type, .wtypes = 1u << (number), .suits = suits_gpu, .kernels = {&plain_##type}}

static const struct op_variant variants[] = {
    {.name = "host", .kind = RT_HOST, .host = linear_few_host},
    OP_W_EACH(FEW_VARIANTS, OP_W_COMMA, unused),
};

static uint32_t wtype_of(const void *push) { return few_type(push, 0); }
static const struct op_classes classes = {.wtype_of = wtype_of};

const struct op op_linear_few_desc = {
    .name = "linear_few",
    .n_bindings = 7,
    .bindings = {{"x", RT_READ, OP_F32},
                 {"w", RT_READ, OP_WEIGHT},
                 {"y", RT_READ_WRITE, OP_F32},
                 {"other", RT_READ, OP_F32},
                 {"stack", RT_READ, OP_F32},
                 {"ul", RT_READ_WRITE, OP_F32},
                 {"b", RT_READ, OP_F32}},
    .push_size = sizeof(struct linear_few_push),
    .ref = few_ref,
    .flops = few_flops,
    .bytes = few_bytes,
    .classes = &classes,
    .optional = true,
    .n_variants = OP_COUNT(variants),
    .variants = variants,
};

/* ---- the launch ---- */

/* What holds both; false where they lie in different buffers. */
static bool cover(struct rt_span *all, struct rt_span s)
{
    if (!all->buffer) {
        *all = s;
        return s.buffer != NULL;
    }
    uint64_t end = all->offset + all->size, other = s.offset + s.size;
    if (s.buffer != all->buffer)
        return false;
    all->offset = s.offset < all->offset ? s.offset : all->offset;
    all->size = (other > end ? other : end) - all->offset;
    return true;
}

/* The bindings of W and of what is added, and how the parts lie in them. */
static bool bind(const struct op_linear_few *l, struct rt_span *w, struct rt_span *other, struct linear_few_push *p)
{
    *w = *other = l->alone ? l->x : (struct rt_span){0};
    if (l->alone)
        return true;
    for (uint32_t i = 0; i < l->n_parts; i++)
        if (l->part[i].w->n_chunks != 1 || l->part[i].w->offset || !cover(w, op_weight_chunk(l->part[i].w, 0)->span) ||
            (l->add == OP_ADD_BIAS && !cover(other, l->part[i].bias)))
            return false;
    for (uint32_t i = 0; i < l->n_parts; i++) {
        uint64_t at = (op_weight_chunk(l->part[i].w, 0)->span.offset - w->offset) / 4, bias = l->add == OP_ADD_BIAS ? (l->part[i].bias.offset - other->offset) / 4 : 0;
        if (at + op_weight_chunk(l->part[i].w, 0)->span.size / 4 > UINT32_MAX || bias > UINT32_MAX / 2)
            return false;
        p->w[i] = (uint32_t)at, p->bias[i] = (uint32_t)bias;
    }
    if (l->add != OP_ADD_BIAS)
        *other = l->add == OP_ADD_RESIDUAL ? l->other : l->x;
    return true;
}

static bool describe(const struct op_linear_few *l, struct linear_few_push *p, struct rt_span spans[FEW_BINDINGS])
{
    bool fits = l->rows <= LINEAR_FEW_ROWS && l->first <= UINT32_MAX - LINEAR_FEW_ROWS && l->n_parts > 0 && l->n_parts <= LINEAR_FEW_PARTS && l->add != OP_ADD_SELF;
    *p = (struct linear_few_push){.rows = l->rows, .first = l->first, .x_stride = l->x_stride, .y_stride = l->y_stride, .ul_stride = l->ul_stride,
                                  .stack_rows = l->stack_rows, .how = (uint32_t)l->add << LINEAR_FEW_ADD_SHIFT | (l->transposed ? LINEAR_FEW_TRANSPOSED : 0) |
                                         (l->alone ? LINEAR_FEW_ALONE : 0)};
    for (uint32_t i = 0; i < l->n_parts && fits; i++) {
        const struct op_linear_few_part *part = &l->part[i];
        p->k = l->part[0].w->cols;
        p->n[i] = part->w->rows, p->y_col[i] = part->y_col, p->u_col[i] = part->u_col, p->b[i] = (uint32_t)part->b_offset, p->scale[i] = part->scale;
        p->how |= (l->alone ? OP_W_F32 : (uint32_t)part->w->type) << LINEAR_FEW_TYPE_BITS * i;
        fits = part->w->cols == p->k && part->b_offset <= UINT32_MAX && (uint64_t)part->r * part->experts <= LINEAR_FEW_MOST;
        if (part->r)
            p->mix[i] = part->r | part->experts << 16 | (l->top_k < part->experts ? l->top_k : part->experts) << 24;
        fits = fits && (part->r == 0 || (part->experts >= 1 && part->experts <= MOSLD_MAX_EXPERTS && (part->experts == 1 || l->top_k >= 1)));
    }
    if (!fits || !bind(l, &spans[FEW_W], &spans[FEW_OTHER], p))
        return false;
    spans[FEW_X] = l->x, spans[FEW_Y] = l->y;
    spans[FEW_STACK] = l->stack_rows ? l->stack : l->x, spans[FEW_B] = l->stack_rows ? l->b : l->x;
    spans[FEW_UL] = l->stack_rows ? l->ul : l->y;
    return true;
}

static bool binds(struct rt_device *dev, const struct rt_span spans[FEW_BINDINGS])
{
    for (int i = 0; i < FEW_BINDINGS; i++)
        if (spans[i].size > rt_device_info(dev)->limits.max_range)
            return false;
    return true;
}

bool op_linear_few_takes(struct rt_device *dev, const struct op_linear_few *l)
{
    struct linear_few_push p;
    struct rt_span spans[FEW_BINDINGS];
    if (!describe(l, &p, spans) || !binds(dev, spans))
        return false;
    const struct op_variant *v = op_choose(dev, &op_linear_few_desc, &p);
    return v && (l->alone || op_would_take(dev, v)); /* alone: what else there is takes a pass of its own for each adapter */
}

static enum rt_status check_part(const struct op_linear_few *l, const struct op_linear_few_part *part, struct rt_error *err)
{
    const char *name = op_linear_few_desc.name;
    struct op_weight_layout layout;
    if (!l->alone)
        RT_TRY(op_weight_check(name, part->w, op_weight_chunk(part->w, 0), &layout, err));
    RT_TRY(op_check_rows(name, "y", l->y, l->first + l->rows, l->y_stride, part->y_col, part->w->rows, err));
    if (l->add == OP_ADD_RESIDUAL)
        RT_TRY(op_check_rows(name, "the residual", l->other, l->first + l->rows, l->y_stride, part->y_col, part->w->rows, err));
    if (l->add == OP_ADD_BIAS)
        RT_TRY(op_check_rows(name, "the bias", part->bias, 1, part->w->rows, 0, part->w->rows, err));
    if (part->r == 0)
        return RT_OK;
    uint64_t u = (uint64_t)part->u_col + part->r + (part->experts > 1 ? part->experts : 0), b = part->b_offset + (uint64_t)part->w->rows * part->r * part->experts;
    if (u > l->stack_rows || b > UINT32_MAX || b > l->b.size / 4)
        return rt_fail(err, RT_FAILED, "%s: an adapter's columns to %llu of %u, and B to word %llu of %llu", name, (unsigned long long)u, l->stack_rows,
                       (unsigned long long)b, (unsigned long long)(l->b.size / 4));
    return part->experts == 1 ? RT_OK : gate_check(name, part->experts, l->top_k, err);
}

enum rt_status op_linear_few(struct rt_device *dev, const struct op_linear_few *l, struct rt_error *err)
{
    const char *name = op_linear_few_desc.name;
    struct linear_few_push p;
    struct rt_span spans[FEW_BINDINGS];
    if (!describe(l, &p, spans))
        return rt_fail(err, RT_FAILED, "%s: %u rows and %u modules of this kind do not go together: ask op_linear_few_takes", name, l->rows, l->n_parts);
    RT_TRY(op_check_rows(name, "x", l->x, l->first + l->rows, l->x_stride, 0, p.k, err));
    for (uint32_t i = 0; i < l->n_parts; i++)
        RT_TRY(check_part(l, &l->part[i], err));
    if (l->stack_rows) {
        RT_TRY(op_check_rows(name, "u and l", l->ul, l->rows, l->ul_stride, 0, l->stack_rows, err));
        RT_TRY(op_check_rows(name, "the stack", l->stack, l->stack_rows, p.k, 0, p.k, err));
    }
    return p.rows == 0 ? RT_OK : op_launch(dev, &op_linear_few_desc, spans, &p, err);
}
