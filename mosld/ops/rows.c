/* mosld/ops/rows.c - rows moved by index; the one is the other's backward.
 *
 *     gather   y[i, :] = x[index[i], :]
 *     scatter  y[index[i], :] = x[i, :]      indices are distinct; other rows of y stay
 *
 * index: u32 [rows]; the indexed matrix has `limit` rows of cols, the other one `rows`. */
#include "mosld/ops/matmul_common.h"
#include "mosld/ops/rows_common.h"

#include <string.h>

enum { X, INDEX, Y };

/* The rows that i moves between; false when its index is out of range. */
static bool ends(const struct rows_push *p, const uint32_t *index, size_t i, bool scatter, size_t *from, size_t *to)
{
    *from = (scatter ? i : index[i]) * (size_t)p->cols;
    *to = (scatter ? index[i] : i) * (size_t)p->cols;
    return index[i] < p->limit;
}

static void ref(void *const *b, const struct rows_push *p, bool scatter)
{
    size_t from, to;
    for (size_t i = 0; i < p->rows; i++)
        if (ends(p, b[INDEX], i, scatter, &from, &to))
            memcpy((double *)b[Y] + to, (double *)b[X] + from, p->cols * sizeof(double));
}

static void host(void *const *b, const struct rows_push *p, bool scatter)
{
    size_t from, to;
    for (size_t i = 0; i < p->rows; i++)
        if (ends(p, b[INDEX], i, scatter, &from, &to))
            memcpy((float *)b[Y] + to, (float *)b[X] + from, p->cols * sizeof(float));
}

static void gather_ref(void *const *b, const void *push) { ref(b, push, false); }

static void scatter_ref(void *const *b, const void *push) { ref(b, push, true); }

/* Copies run at the speed of memory on one thread: not worth waking more. */
static void gather_host(struct rt_device *dev, void *const *b, const void *push)
{
    (void)dev;
    host(b, push, false);
}

static void scatter_host(struct rt_device *dev, void *const *b, const void *push)
{
    (void)dev;
    host(b, push, true);
}

static void group_a_row(const void *push, uint32_t groups[3])
{
    groups[0] = op_groups(((const struct rows_push *)push)->rows, 1);
}

static double rows_bytes(const void *push)
{
    const struct rows_push *p = push;
    return 8.0 * p->rows * p->cols;
}

#define ROWS_OP(move, label)                                                                                           \
    static const struct op_kernel move##_kernel = {                                                                    \
        .kernel = {label, sizeof(struct rows_push), 3, {{"x", RT_READ}, {"index", RT_READ}, {"y", RT_WRITE_BY_GROUPS}}},         \
        .map = {X, INDEX, Y},                                                                                          \
        .grid = group_a_row,                                                                                           \
    };                                                                                                                 \
    static const struct op_variant move##_variants[] = {                                                               \
        {.name = "host", .kind = RT_HOST, .host = move##_host},                                                        \
        {.name = "rows", .kind = RT_VULKAN, .kernels = {&move##_kernel}},                                              \
    };                                                                                                                 \
    const struct op op_##move##_rows_desc = {                                                                          \
        .name = label,                                                                                                 \
        .n_bindings = 3,                                                                                               \
        .bindings = {{"x", RT_READ, OP_F32}, {"index", RT_READ, OP_U32}, {"y", RT_WRITE, OP_F32}},                     \
        .push_size = sizeof(struct rows_push),                                                                         \
        .ref = move##_ref,                                                                                             \
        .bytes = rows_bytes,                                                                                   \
        .n_variants = 2,                                                                                               \
        .variants = move##_variants,                                                                                   \
    };
ROWS_OP(gather, "gather_rows")
ROWS_OP(scatter, "scatter_rows")

/* `indexed` is the matrix that indices go into: its rows are as many as its span holds. */
static enum rt_status launch(struct rt_device *dev, const struct op *op, struct rt_span x, struct rt_span index,
                             struct rt_span y, struct rt_span dense, struct rt_span indexed, uint32_t n, uint32_t cols,
                             struct rt_error *err)
{
    enum rt_status st = op_check_rows(op->name, "index", index, n, 1, 0, 1, err);
    if (!st)
        st = op_check_rows(op->name, "the dense matrix", dense, n, cols, 0, cols, err);
    if (st || n == 0 || cols == 0)
        return st;
    uint64_t words = indexed.size / 4 < UINT32_MAX ? indexed.size / 4 : UINT32_MAX;
    struct rows_push p = {.rows = n, .cols = cols, .limit = (uint32_t)(words / cols)};
    return op_launch(dev, op, (struct rt_span[]){x, index, y}, &p, err);
}

enum rt_status op_gather_rows(struct rt_device *dev, struct rt_span x, struct rt_span index, struct rt_span y,
                              uint32_t n, uint32_t cols, struct rt_error *err)
{
    return launch(dev, &op_gather_rows_desc, x, index, y, y, x, n, cols, err);
}

enum rt_status op_scatter_rows(struct rt_device *dev, struct rt_span x, struct rt_span index, struct rt_span y,
                               uint32_t n, uint32_t cols, struct rt_error *err)
{
    return launch(dev, &op_scatter_rows_desc, x, index, y, x, y, n, cols, err);
}
