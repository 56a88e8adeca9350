/* mosld/ops/matmul_tn.c - w = x^T y, the reduction over tokens that makes the adapter's gradients.
 *
 *     w[w_offset + a b_count + b] = (accumulate ? itself : 0) + scale * sum_t x[t, x_col + a] y[t, y_col + b]
 *
 * dB = s dy^T z and dA = du^T x: long sums, small results. Every output is summed over all tokens in one place, in
 * order; or, where that would leave most of a GPU idle, in parts of the tokens that a second kernel adds in order. */
#include "mosld/ops/matmul_split.h"

enum { TN_X, TN_Y, TN_W, TN_PARTS };

static void tn_ref(void *const *bindings, const void *push)
{
    const struct matmul_tn_push *p = push;
    const double *x = bindings[TN_X], *y = bindings[TN_Y];
    double *w = (double *)bindings[TN_W] + p->w_offset;
    for (uint64_t a = 0; a < p->a; a++)
        for (uint64_t b = 0; b < p->b; b++) {
            double sum = 0;
            for (uint64_t t = 0; t < p->rows; t++)
                sum += x[t * p->x_stride + p->x_col + a] * y[t * p->y_stride + p->y_col + b];
            w[a * p->b + b] = (p->accumulate ? w[a * p->b + b] : 0) + (double)p->scale * sum;
        }
}

static double tn_flops(const void *push)
{
    const struct matmul_tn_push *p = push;
    return 2.0 * p->rows * p->a * p->b;
}

/* A workgroup makes 32 x 32 outputs. */
static void tile_grid(const void *push, uint32_t groups[3])
{
    const struct matmul_tn_push *p = push;
    groups[0] = op_groups(p->b, 32);
    groups[1] = op_groups(p->a, 32);
}

static const struct op_kernel tile = {
    .kernel = {"matmul_tn", sizeof(struct matmul_tn_push), 3, {{"x", RT_READ}, {"y", RT_READ}, {"w", RT_READ_WRITE_BY_GROUPS}}},
    .map = {TN_X, TN_Y, TN_W},
    .grid = tile_grid,
};

/* 16 invocations of 4 columns, 16 rows each. */
static void lanes_grid(const void *push, uint32_t groups[3])
{
    const struct matmul_tn_push *p = push;
    groups[0] = op_groups(p->b, 64);
    groups[1] = op_groups(p->a, 16);
}

static const struct op_kernel lanes = {
    .kernel = {"matmul_tn_lanes",
               sizeof(struct matmul_tn_push),
               3,
               {{"x", RT_READ}, {"y", RT_READ}, {"w", RT_READ_WRITE_BY_GROUPS}}},
    .map = {TN_X, TN_Y, TN_W},
    .grid = lanes_grid,
};

/* Each of the workgroups makes one part of the tokens' sum. */
static void split_grid(const void *push, uint32_t groups[3])
{
    tile_grid(push, groups);
    groups[2] = op_groups(((const struct matmul_tn_push *)push)->splits, 1);
}

static void sum_grid(const void *push, uint32_t groups[3])
{
    const struct matmul_tn_push *p = push;
    groups[0] = op_groups((uint64_t)p->a * p->b, 64);
}

static const struct op_kernel split = {
    .kernel = {"matmul_tn_split", sizeof(struct matmul_tn_push), 3, {{"x", RT_READ}, {"y", RT_READ}, {"parts", RT_WRITE_BY_GROUPS}}},
    .map = {TN_X, TN_Y, TN_PARTS},
    .grid = split_grid,
    .share = 0.98f,
};

static const struct op_kernel sum = {
    .kernel = {"matmul_tn_sum", sizeof(struct matmul_tn_push), 2, {{"parts", RT_READ}, {"w", RT_READ_WRITE_BY_GROUPS}}},
    .map = {TN_PARTS, TN_W},
    .grid = sum_grid,
};

static bool is_split(const void *push) { return ((const struct matmul_tn_push *)push)->splits > 1; }
static bool suits_gpu(const struct rt_device_info *info) { return !matmul_suits_cpu(info); }

static uint32_t shape_of(const void *push) { return ((const struct matmul_tn_push *)push)->rows > 64; }

static const char *const shape_names[] = {"some", "many", NULL};
static const struct op_classes classes = {NULL, shape_of, shape_names};

static const struct op_variant variants[] = {
    {.name = "host", .kind = RT_HOST, .host = matmul_host_tn},
    {.name = "lanes", .kind = RT_VULKAN, .needs = matmul_has_lanes, .suits = matmul_suits_cpu, .kernels = {&lanes}},
    {.name = "split", .kind = RT_VULKAN, .applies = is_split, .suits = suits_gpu, .kernels = {&split, &sum}},
    {.name = "tile", .kind = RT_VULKAN, .kernels = {&tile}},
};

static double matmul_tn_bytes(const void *push)
{
    const struct matmul_tn_push *p = push;
    return 4.0 * (p->rows * ((double)p->a + p->b) + (p->accumulate ? 2.0 : 1.0) * p->a * p->b);
}

const struct op op_matmul_tn_desc = {
    .name = "matmul_tn",
    .n_bindings = 4,
    .bindings = {{"x", RT_READ, OP_F32}, {"y", RT_READ, OP_F32}, {"w", RT_READ_WRITE, OP_F32}, {"parts", RT_READ_WRITE, OP_F32}},
    .push_size = sizeof(struct matmul_tn_push),
    .ref = tn_ref,
    .flops = tn_flops,
    .classes = &classes,
    .bytes = matmul_tn_bytes,
    .n_variants = OP_COUNT(variants),
    .variants = variants,
};

/* How the tokens are split: not at all without scratch. */
static void choose_splits(const struct rt_device *dev, const struct op_matmul_tn *m, struct matmul_tn_push *p)
{
    enum { LEAST = 64, TILE = 32 }; /* tokens a part: fewer, and the parts cost more than the products */
    uint64_t part = 4ull * p->a * p->b;
    p->splits = m->splits ? m->splits : matmul_splits(dev, p->a, p->b, p->rows, TILE, LEAST, m->parts.size);
    p->split_rows = matmul_split_terms(p->rows, &p->splits);
    if (part && m->parts.size / part < p->splits)
        p->splits = 1;
}

enum rt_status op_matmul_tn(struct rt_device *dev, const struct op_matmul_tn *m, struct rt_error *err)
{
    const char *name = op_matmul_tn_desc.name;
    enum rt_status st = op_check_rows(name, "x", m->x, m->rows, m->x_stride, m->x_col, m->a, err);
    if (!st)
        st = op_check_rows(name, "y", m->y, m->rows, m->y_stride, m->y_col, m->b, err);
    if (st)
        return st;
    uint64_t words = m->w_offset + (uint64_t)m->a * m->b;
    if (words > UINT32_MAX || words * 4 > m->w.size)
        return rt_fail(err, RT_FAILED, "%s: [%u, %u] from word %u on exceeds the %llu words of its memory", name, m->a,
                       m->b, m->w_offset, (unsigned long long)m->w.size / 4);
    uint32_t window = matmul_window(dev, m->rows, m->x, m->x_stride, m->y, m->y_stride), t = 0;
    if (m->rows && !window)
        return rt_fail(err, RT_NO_DEVICE, "%s: 64 rows of %u or %u words exceed what %s binds", name, m->x_stride, m->y_stride,
                       rt_device_info(dev)->name);
    do { /* no tokens: the sum is 0, which still has to be written unless it is added */
        struct matmul_tn_push p = {
            .rows = m->rows - t < window ? m->rows - t : window,
            .a = m->a,
            .b = m->b,
            .x_stride = m->x_stride,
            .x_col = m->x_col,
            .y_stride = m->y_stride,
            .y_col = m->y_col,
            .w_offset = m->w_offset,
            .accumulate = m->accumulate || t > 0,
            .scale = m->scale == 0 ? 1 : m->scale,
        };
        choose_splits(dev, m, &p);
        st = op_launch(dev, &op_matmul_tn_desc,
                       (struct rt_span[]){matmul_rows_of(m->x, m->x_stride, t, p.rows), matmul_rows_of(m->y, m->y_stride, t, p.rows), m->w,
                                          m->parts.size ? m->parts : m->w},
                       &p, err);
        t += window;
    } while (t < m->rows && !st);
    return st;
}
