/* mosld/ops/matmul_common.c - checks and the launch that the products with a frozen weight share. */
#include "mosld/ops/matmul_split.h"

#include <string.h>

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

enum rt_status op_matmul_check(const struct op *op, const struct op_matmul *m, bool nn, struct rt_error *err)
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

/* ---- windows: a matrix larger than a binding is bound some rows at a time ---- */

uint32_t matmul_window(const struct rt_device *dev, uint32_t rows, struct rt_span a, uint32_t a_stride, struct rt_span b, uint32_t b_stride)
{
    uint64_t range = rt_device_info(dev)->limits.max_range;
    if (a.size <= range && b.size <= range)
        return rows;
    uint64_t fit = range / 4 / (a_stride > b_stride ? a_stride : b_stride);
    return fit >= rows ? rows : (uint32_t)fit / 64 * 64; /* 64 rows end where a span may begin: at a multiple of 256 bytes */
}

struct rt_span matmul_rows_of(struct rt_span span, uint32_t stride, uint32_t row0, uint32_t rows)
{
    if (rows == 0)
        return span;
    uint64_t offset = 4ull * row0 * stride, size = span.size - offset, wanted = 4ull * rows * stride;
    return rt_span_part(span, offset, size < wanted ? size : wanted);
}

enum rt_status op_matmul_chunk(const struct op *op, const struct op_matmul *m, uint32_t i, bool nn, struct matmul_push *p,
                               struct rt_span spans[4], struct rt_error *err)
{
    const struct op_weight_chunk *c = op_weight_chunk(m->w, i);
    struct op_weight_layout layout;
    enum rt_status st = op_weight_check(op->name, m->w, c, &layout, err);
    /* A sum over the rows of W goes on from chunk to chunk. */
    enum op_add add = nn && i > 0 ? OP_ADD_SELF : m->add;
    *p = (struct matmul_push){
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
    spans[MATMUL_X] = m->x, spans[MATMUL_W] = c->span, spans[MATMUL_Y] = m->y;
    spans[MATMUL_OTHER] = add == OP_ADD_BIAS || add == OP_ADD_RESIDUAL ? m->other : m->x;
    return st;
}

/* ---- long sums on processors ---- */

uint32_t matmul_nn_cut(const struct rt_device *dev, const struct op_weight *w, uint32_t rows)
{
    enum { STRIP = 64, TOKENS = 16, CACHE = 256 << 10 };
    if (rt_device_kind(dev) != RT_VULKAN || !matmul_suits_cpu(rt_device_info(dev)))
        return UINT32_MAX;
    uint64_t strip = op_weight_bytes(w->type, STRIP, w->cols) / w->cols; /* bytes of a row in it */
    uint32_t cut = rows > TOKENS ? CACHE / (uint32_t)(strip ? strip : 1) / 64 * 64 : 2 * MATMUL_TURNS / 64 * 64;
    return cut ? cut : 64;
}

/* Rows [row0, row0 + n) of the chunk that p and spans are for; row0 is a multiple of 64, so that they begin where a span may. */
static void rows_of_chunk(const struct op_matmul *m, uint32_t row0, uint32_t n, struct matmul_push *p, struct rt_span spans[4])
{
    struct op_weight_layout layout;
    op_weight_layout(m->w->type, p->n, m->w->cols, &layout);
    uint64_t at = row0 * layout.row_words;
    spans[MATMUL_W] = rt_span_part(spans[MATMUL_W], at * 4, spans[MATMUL_W].size - at * 4);
    p->n = n;
    p->x_col += row0;
    p->scales = (uint32_t)(layout.scales - at + row0 * layout.row_scales / 2);
    if (row0) {
        p->add = MATMUL_ADD_SELF;
        spans[MATMUL_OTHER] = m->x;
    }
}

static enum rt_status launch_chunk(struct rt_device *dev, const struct op *op, const struct op_matmul *m, uint32_t i, bool nn, struct rt_error *err)
{
    struct matmul_push whole, p;
    struct rt_span all[4], spans[4];
    enum rt_status st = op_matmul_chunk(op, m, i, nn, &whole, all, err);
    uint32_t cut = nn ? matmul_nn_cut(dev, m->w, m->rows) : UINT32_MAX;
    struct matmul_split_push split;
    const struct op_variant *v = NULL;
    if (!st)
        matmul_split_choose(dev, m, &whole, nn, &split, &v);
    if (v)
        return op_launch_variant(dev, nn ? &op_matmul_nn_split_desc : &op_matmul_nt_split_desc, v,
                                 (struct rt_span[]){all[0], all[1], all[2], all[3], m->parts}, &split, err);
    if (st || whole.n <= cut)
        return st ? st : op_launch(dev, op, all, &whole, err);
    for (uint32_t row0 = 0; row0 < whole.n && !st; row0 += cut) {
        memcpy(spans, all, sizeof spans);
        p = whole;
        rows_of_chunk(m, row0, whole.n - row0 < cut ? whole.n - row0 : cut, &p, spans);
        st = op_launch(dev, op, spans, &p, err);
    }
    return st;
}

/* All chunks of W for rows [row0, row0 + rows). */
static enum rt_status launch_rows(struct rt_device *dev, const struct op *op, const struct op_matmul *m, bool nn, uint32_t row0,
                                  uint32_t rows, struct rt_error *err)
{
    enum rt_status st = RT_OK;
    struct op_matmul part = *m;
    part.rows = rows;
    part.x = matmul_rows_of(m->x, m->x_stride, row0, rows);
    part.y = matmul_rows_of(m->y, m->y_stride, row0, rows);
    if (m->add == OP_ADD_RESIDUAL)
        part.other = matmul_rows_of(m->other, m->y_stride, row0, rows);
    for (uint32_t i = 0; i < m->w->n_chunks && !st; i++)
        st = launch_chunk(dev, op, &part, i, nn, err);
    return st;
}

enum rt_status op_matmul_launch(struct rt_device *dev, const struct op *op, const struct op_matmul *m, bool nn,
                                struct rt_error *err)
{
    enum rt_status st = op_matmul_check(op, m, nn, err);
    uint32_t window = matmul_window(dev, m->rows, m->x, m->x_stride, m->y, m->y_stride);
    if (!st && m->rows && !window)
        return rt_fail(err, RT_NO_DEVICE, "%s: 64 rows of %u or %u words exceed the %llu bytes that %s binds", op->name, m->x_stride,
                       m->y_stride, (unsigned long long)rt_device_info(dev)->limits.max_range, rt_device_info(dev)->name);
    for (uint32_t t = 0; t < m->rows && !st; t += window)
        st = launch_rows(dev, op, m, nn, t, m->rows - t < window ? m->rows - t : window, err);
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

bool matmul_is_skinny(uint32_t rows, uint32_t cols, uint32_t sums)
{
    return sums >= 256 && ((uint64_t)rows + 63) / 64 * (((uint64_t)cols + 63) / 64) < 24;
}

bool matmul_has_matrices(const struct rt_device_info *info)
{
    const struct rt_limits *l = &info->limits;
    uint32_t subgroup = l->matrix_subgroup;
    if (info->precision == RT_PRECISION_HIGHEST || !(info->caps & RT_CAP_COOPERATIVE_MATRIX) || subgroup < 8 || subgroup > 128 || (subgroup & (subgroup - 1)))
        return false;
    uint32_t blocks = 128 / subgroup, block_rows = subgroup >= 64 ? 64 : 32, block_columns = 64 * 128 / blocks / block_rows;
    /* The small tile's blocks are half as high and half as wide. */
    return block_rows / 2 % l->matrix[0] == 0 && block_columns / 2 % l->matrix[1] == 0 && 32 % l->matrix[2] == 0 &&
           blocks * l->matrix[0] * l->matrix[1] <= 1024;
}

bool matmul_has_matrices_medium(const struct rt_device_info *info)
{
    return info->precision == RT_PRECISION_MEDIUM && matmul_has_matrices(info);
}

static bool matrix_is_8_by(const struct rt_device_info *info, uint32_t n)
{
    const uint32_t *m = info->limits.matrix;
    return m[0] == 8 && m[1] == n && m[2] == 16;
}

bool matmul_suits_matrices(const struct rt_device_info *info) { return !matrix_is_8_by(info, 8) && !matrix_is_8_by(info, 16); }

bool matmul_suits_small(const struct rt_device_info *info) { return matrix_is_8_by(info, 16); }

bool matmul_suits_matrices_high(const struct rt_device_info *info)
{
    return info->precision == RT_PRECISION_HIGH && matmul_suits_matrices(info);
}

bool matmul_suits_small_high(const struct rt_device_info *info)
{
    return info->precision == RT_PRECISION_HIGH && matmul_suits_small(info);
}

bool matmul_suits_cpu(const struct rt_device_info *info) { return info->class_ == RT_CLASS_CPU; }

bool matmul_suits_wide(const struct rt_device_info *info)
{
    enum { INTEL = 0x8086, QUALCOMM = 0x5143 };
    return info->vendor_id != INTEL && info->vendor_id != QUALCOMM;
}

bool matmul_has_lanes(const struct rt_device_info *info)
{
    uint32_t size = info->limits.subgroup_size;
    return (info->caps & RT_CAP_SUBGROUP) && (size == 8 || size == 16);
}
