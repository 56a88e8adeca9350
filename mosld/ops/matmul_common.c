/* mosld/ops/matmul_common.c - checks and the launch that the products with a frozen weight share. */
#include "mosld/ops/matmul_common.h"

_Static_assert(OP_ADD_NONE == MATMUL_ADD_NONE && OP_ADD_SELF == MATMUL_ADD_SELF && OP_ADD_BIAS == MATMUL_ADD_BIAS &&
                   OP_ADD_RESIDUAL == MATMUL_ADD_RESIDUAL,
               "shaders/matmul.h numbers what is added as enum op_add does");

enum rt_status op_weight_check(const char *op, const struct op_weight *w, const struct op_weight_chunk *c,
                               struct op_weight_layout *layout, struct rt_error *err)
{
    bool fits = op_weight_layout(w->type, c->rows, w->cols, layout) && (w->offset == 0 || w->type == OP_W_F32);
    uint64_t words = layout->words + w->offset;
    if (fits && words <= UINT32_MAX && words * 4 <= c->span.size)
        return RT_OK;
    return rt_fail(err, RT_FAILED, "%s: %u rows of %u %s values do not fit their %llu bytes", op, c->rows, w->cols,
                   op_wtype_name(w->type), (unsigned long long)c->span.size);
}

static enum rt_status check(const struct op *op, const struct op_matmul *m, bool nn, struct rt_error *err)
{
    uint32_t x_cols = nn ? m->w->rows : m->w->cols, y_cols = nn ? m->w->cols : m->w->rows;
    enum rt_status st = op_check_rows(op->name, "x", m->x, m->rows, m->x_stride, m->x_col, x_cols, err);
    if (!st)
        st = op_check_rows(op->name, "y", m->y, m->rows, m->y_stride, m->y_col, y_cols, err);
    if (!st && m->add == OP_ADD_RESIDUAL)
        st = op_check_rows(op->name, "the residual", m->other, m->rows, m->y_stride, m->y_col, y_cols, err);
    if (!st && m->add == OP_ADD_BIAS && nn)
        st = rt_fail(err, RT_FAILED, "%s: a bias is added by the forward product alone", op->name);
    if (!st && m->add == OP_ADD_BIAS)
        st = op_check_rows(op->name, "the bias", m->other, 1, y_cols, 0, y_cols, err);
    return st;
}

enum rt_status op_matmul_launch(struct rt_device *dev, const struct op *op, const struct op_matmul *m, bool nn,
                                struct rt_error *err)
{
    enum rt_status st = check(op, m, nn, err);
    for (uint32_t i = 0; i < m->w->n_chunks && m->rows && !st; i++) {
        const struct op_weight_chunk *c = op_weight_chunk(m->w, i);
        struct op_weight_layout layout;
        st = op_weight_check(op->name, m->w, c, &layout, err);
        /* A sum over the rows of W goes on from chunk to chunk. */
        enum op_add add = nn && i > 0 ? OP_ADD_SELF : m->add;
        struct matmul_push p = {
            .rows = m->rows,
            .n = c->rows,
            .k = m->w->cols,
            .x_stride = m->x_stride,
            .x_col = m->x_col + (nn ? c->row0 : 0),
            .y_stride = m->y_stride,
            .y_col = m->y_col + (nn ? 0 : c->row0),
            .wtype = m->w->type,
            .w_offset = m->w->offset,
            .scales = (uint32_t)layout.scales,
            .add = add,
            .bias_col = c->row0,
            .scale = m->scale == 0 ? 1 : m->scale,
        };
        bool other = add == OP_ADD_BIAS || add == OP_ADD_RESIDUAL;
        if (!st)
            st = op_launch(dev, op, (struct rt_span[]){m->x, c->span, m->y, other ? m->other : m->x}, &p, err);
    }
    return st;
}

double matmul_ref_add(const struct matmul_push *p, const double *y, const double *other, uint64_t at, uint64_t c)
{
    switch (p->add) {
    case MATMUL_ADD_SELF: return y[at];
    case MATMUL_ADD_BIAS: return other[p->bias_col + c];
    case MATMUL_ADD_RESIDUAL: return other[at];
    default: return 0;
    }
}

double matmul_flops(const void *push)
{
    const struct matmul_push *p = push;
    return 2.0 * p->rows * p->n * p->k;
}

/* `out`: columns of y. */
static double bytes_with(const struct matmul_push *p, uint32_t out)
{
    double read_too = p->add == MATMUL_ADD_SELF || p->add == MATMUL_ADD_RESIDUAL ? out : 0;
    return 4.0 * p->rows * ((double)p->n + p->k + read_too) + (double)op_weight_bytes((enum op_wtype)p->wtype, p->n, p->k);
}

double matmul_nt_bytes(const void *push) { return bytes_with(push, ((const struct matmul_push *)push)->n); }
double matmul_nn_bytes(const void *push) { return bytes_with(push, ((const struct matmul_push *)push)->k); }

static uint32_t wtype_of(const void *push) { return ((const struct matmul_push *)push)->wtype; }

/* How many tokens, and whether the weight is an adapter's, which is narrow one way or the other. */
static uint32_t shape_of(const void *push)
{
    const struct matmul_push *p = push;
    uint32_t tokens = p->rows <= MATMUL_FEW ? 0 : p->rows <= 64 ? 1 : 2;
    return 3 * tokens + (p->n <= 128 ? 1 : p->k <= 128 ? 2 : 0);
}

static const char *const shape_names[] = {"few", "few, low W", "few, narrow W", "some", "some, low W", "some, narrow W",
                                          "many", "many, low W", "many, narrow W", NULL};
const struct op_classes matmul_classes = {wtype_of, shape_of, shape_names};

bool matmul_few_rows(const void *push) { return ((const struct matmul_push *)push)->rows <= MATMUL_FEW; }

bool matmul_fills_a_gpu(uint32_t rows, uint32_t cols)
{
    return rows > 64 && ((uint64_t)rows + 127) / 128 * (((uint64_t)cols + 63) / 64) >= 64;
}

bool matmul_has_matrices(const struct rt_device_info *info)
{
    const struct rt_limits *l = &info->limits;
    uint32_t subgroup = l->matrix_subgroup;
    if (!(info->caps & RT_CAP_COOPERATIVE_MATRIX) || subgroup < 8 || subgroup > 128 || (subgroup & (subgroup - 1)))
        return false;
    uint32_t blocks = 128 / subgroup, block_rows = subgroup >= 64 ? 64 : 32, block_columns = 64 * 128 / blocks / block_rows;
    return block_rows % l->matrix[0] == 0 && block_columns % l->matrix[1] == 0 && 32 % l->matrix[2] == 0 &&
           blocks * l->matrix[0] * l->matrix[1] <= 1024;
}

bool matmul_suits_high(const struct rt_device_info *info) { return info->precision == RT_PRECISION_HIGH; }

bool matmul_suits_medium(const struct rt_device_info *info) { return info->precision == RT_PRECISION_MEDIUM; }

bool matmul_suits_cpu(const struct rt_device_info *info) { return info->class_ == RT_CLASS_CPU; }

bool matmul_has_lanes(const struct rt_device_info *info)
{
    uint32_t size = info->limits.subgroup_size;
    return (info->caps & RT_CAP_SUBGROUP) && (size == 8 || size == 16);
}
