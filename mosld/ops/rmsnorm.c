/* mosld/ops/rmsnorm.c - RMSNorm of whole rows or of each head, and its gradient.
 *
 *     r  = 1 / sqrt(mean_c x^2 + eps)
 *     y  = x r w
 *     dx = r (dy w - x r^2 mean_c(dy w x)),   added to what dx holds, or set
 *
 * For each of rows x heads groups of `cols` neighbours; w: [cols], frozen. The backward pass makes r again from x
 * rather than keep it: x is read in any case, and so it binds four buffers. Having x, r and w, it can leave y in the place of dy (`again`),
 * which the adapter's gradient reads: a pass over x less than making y beforehand. */
#include "mosld/ops/norm.h"

#include "mosld/ops/host_lanes.h"
#include "mosld/ops/op.h"
#include "mosld/ops/shape.h"
#include "shaders/rmsnorm.h"

#include <math.h>


enum { X, W, Y, DX }; /* bindings; Y is dy in backward, DX backward's alone */

/* ---- the truth ---- */

static double ref_scale(const double *x, const struct rmsnorm_push *p)
{
    double squares = 0;
    for (size_t c = 0; c < p->cols; c++)
        squares += x[c] * x[c];
    return 1 / sqrt(squares / p->cols + p->eps);
}

static void rmsnorm_ref(void *const *b, const void *push)
{
    const struct rmsnorm_push *p = push;
    for (size_t i = 0; i < (size_t)p->rows * p->heads; i++) {
        size_t row = i / p->heads, col = i % p->heads * p->cols;
        const double *x = (double *)b[X] + row * p->x_stride + p->x_col + col, *w = b[W];
        double *y = (double *)b[Y] + row * p->y_stride + p->y_col + col, r = ref_scale(x, p);
        for (size_t c = 0; c < p->cols; c++)
            y[c] = x[c] * r * w[c];
    }
}

static void rmsnorm_bwd_ref(void *const *b, const void *push)
{
    const struct rmsnorm_push *p = push;
    for (size_t i = 0; i < (size_t)p->rows * p->heads; i++) {
        size_t row = i / p->heads, col = i % p->heads * p->cols;
        const double *x = (double *)b[X] + row * p->x_stride + p->x_col + col, *w = b[W];
        double *dy = (double *)b[Y] + row * p->y_stride + p->y_col + col;
        double *dx = (double *)b[DX] + row * p->dx_stride + p->dx_col + col, r = ref_scale(x, p), mean = 0;
        for (size_t c = 0; c < p->cols; c++)
            mean += dy[c] * w[c] * x[c] / p->cols;
        for (size_t c = 0; c < p->cols; c++)
            dx[c] = (p->accumulate ? dx[c] : 0) + r * (dy[c] * w[c] - x[c] * r * r * mean);
        for (size_t c = 0; p->again && c < p->cols; c++)
            dy[c] = x[c] * r * w[c];
    }
}

/* ---- the host: in lanes by hand, since x and y may be the same memory, which a compiler has to fear ---- */

struct norm_job {
    const struct rmsnorm_push *p;
    const float *x, *w;
    float *y, *dx; /* dx: NULL in forward */
    uint32_t rows_item;
};

MOSLD_CLONES static void forward_group(const float *x, const float *w, float *y, size_t n, float eps)
{
    float r = 1.0f / sqrtf(host_dot(x, x, n) / (float)n + eps);
    size_t c = 0;
    for (; c + LANES16 <= n; c += LANES16)
        *(lanes16 *)(y + c) = *(const lanes16 *)(x + c) * r * *(const lanes16 *)(w + c);
    for (; c < n; c++)
        y[c] = x[c] * r * w[c];
}

MOSLD_CLONES static void backward_group(const struct rmsnorm_push *p, const float *x, const float *w, float *dy, float *dx)
{
    size_t n = p->cols;
    lanes16 squares = {0}, products = {0};
    float s = 0, q = 0;
    size_t c = 0;
    for (; c + LANES16 <= n; c += LANES16) {
        lanes16 v = *(const lanes16 *)(x + c);
        squares += v * v;
        products += *(const lanes16 *)(dy + c) * *(const lanes16 *)(w + c) * v;
    }
    for (; c < n; c++) {
        s += x[c] * x[c];
        q += dy[c] * w[c] * x[c];
    }
    float r = 1.0f / sqrtf((lanes16_sum(&squares) + s) / (float)n + p->eps);
    float k = r * r * ((lanes16_sum(&products) + q) / (float)n);
    for (c = 0; c + LANES16 <= n; c += LANES16) {
        lanes16 d = r * (*(const lanes16 *)(dy + c) * *(const lanes16 *)(w + c) - *(const lanes16 *)(x + c) * k);
        if (p->accumulate)
            d += *(const lanes16 *)(dx + c);
        if (p->again)
            *(lanes16 *)(dy + c) = *(const lanes16 *)(x + c) * r * *(const lanes16 *)(w + c);
        *(lanes16 *)(dx + c) = d;
    }
    for (; c < n; c++) {
        float d = r * (dy[c] * w[c] - x[c] * k);
        if (p->again)
            dy[c] = x[c] * r * w[c];
        dx[c] = p->accumulate ? dx[c] + d : d;
    }
}

static void norm_item(void *arg, int item, int worker)
{
    (void)worker;
    const struct norm_job *job = arg;
    const struct rmsnorm_push *p = job->p;
    size_t first = (size_t)item * job->rows_item;
    for (size_t row = first; row < p->rows && row < first + job->rows_item; row++)
        for (size_t col = 0; col < (size_t)p->heads * p->cols; col += p->cols) {
            const float *x = job->x + row * p->x_stride + p->x_col + col;
            float *y = job->y + row * p->y_stride + p->y_col + col;
            if (job->dx)
                backward_group(p, x, job->w, y, job->dx + row * p->dx_stride + p->dx_col + col);
            else
                forward_group(x, job->w, y, p->cols, p->eps);
        }
}

static void run_host(struct rt_device *dev, const struct rmsnorm_push *p, void *const *b, float *dx)
{
    uint64_t words = (uint64_t)p->heads * p->cols;
    if (words == 0)
        return;
    /* Rows an item: about 64 KiB, by the shape alone. */
    struct norm_job job = {p, b[X], b[W], b[Y], dx, words >= 16384 ? 1 : (uint32_t)(16384 / words)};
    rt_parallel(dev, (int)(((uint64_t)p->rows + job.rows_item - 1) / job.rows_item), norm_item, &job);
}

static void rmsnorm_host(struct rt_device *dev, void *const *b, const void *push) { run_host(dev, push, b, NULL); }
static void rmsnorm_bwd_host(struct rt_device *dev, void *const *b, const void *push) { run_host(dev, push, b, b[DX]); }

/* ---- the descriptors ---- */

static void group_a_head(const void *push, uint32_t groups[3])
{
    const struct rmsnorm_push *p = push;
    groups[0] = op_groups((uint64_t)p->rows * p->heads, 1);
}

static const struct op_kernel forward_kernel = {
    .kernel = {"rmsnorm", sizeof(struct rmsnorm_push), 3, {{"x", RT_READ}, {"w", RT_READ}, {"y", RT_WRITE_BY_GROUPS}}},
    .map = {X, W, Y},
    .grid = group_a_head,
};
static const struct op_kernel backward_kernel = {
    .kernel = {"rmsnorm_bwd",
               sizeof(struct rmsnorm_push),
               4,
               {{"x", RT_READ}, {"w", RT_READ}, {"dy", RT_READ_WRITE_BY_GROUPS}, {"dx", RT_READ_WRITE_BY_GROUPS}}},
    .map = {X, W, Y, DX},
    .grid = group_a_head,
};

static const struct op_variant rmsnorm_variants[] = {
    {.name = "host", .kind = RT_HOST, .host = rmsnorm_host},
    {.name = "plain", .kind = RT_VULKAN, .kernels = {&forward_kernel}},
};
static double rmsnorm_bytes(const void *push)
{
    const struct rmsnorm_push *p = push;
    return 8.0 * p->rows * p->heads * p->cols;
}

const struct op op_rmsnorm_desc = {
    .name = "rmsnorm",
    .n_bindings = 3,
    .bindings = {{"x", RT_READ, OP_F32}, {"w", RT_READ, OP_F32}, {"y", RT_WRITE, OP_F32}},
    .push_size = sizeof(struct rmsnorm_push),
    .ref = rmsnorm_ref,
    .bytes = rmsnorm_bytes,
    .n_variants = OP_COUNT(rmsnorm_variants),
    .variants = rmsnorm_variants,
};

static const struct op_variant rmsnorm_bwd_variants[] = {
    {.name = "host", .kind = RT_HOST, .host = rmsnorm_bwd_host},
    {.name = "plain", .kind = RT_VULKAN, .kernels = {&backward_kernel}},
};
static double rmsnorm_bwd_bytes(const void *push)
{
    const struct rmsnorm_push *p = push;
    return 4.0 * (3 + (p->accumulate != 0) + (p->again != 0)) * p->rows * p->heads * p->cols;
}

const struct op op_rmsnorm_bwd_desc = {
    .name = "rmsnorm_bwd",
    .n_bindings = 4,
    .bindings = {{"x", RT_READ, OP_F32},
                 {"w", RT_READ, OP_F32},
                 {"dy", RT_READ_WRITE, OP_F32},
                 {"dx", RT_READ_WRITE, OP_F32}},
    .push_size = sizeof(struct rmsnorm_push),
    .ref = rmsnorm_bwd_ref,
    .bytes = rmsnorm_bwd_bytes,
    .n_variants = OP_COUNT(rmsnorm_bwd_variants),
    .variants = rmsnorm_bwd_variants,
};

static enum rt_status check(const char *op, const struct op_rmsnorm *n, struct rt_error *err)
{
    uint64_t words = (uint64_t)n->heads * n->cols;
    if ((uint64_t)n->rows * n->heads > UINT32_MAX)
        return rt_fail(err, RT_FAILED, "%s: %u rows of %u heads are more than 32 bits count", op, n->rows, n->heads);
    enum rt_status st = op_check_rows(op, "x", n->x, n->rows, n->x_stride, n->x_col, words, err);
    if (!st)
        st = op_check_rows(op, "w", n->w, 1, n->cols, 0, n->cols, err);
    if (!st)
        st = op_check_rows(op, "y", n->y, n->rows, n->y_stride, n->y_col, words, err);
    return st;
}

static struct rmsnorm_push push_of(const struct op_rmsnorm *n)
{
    return (struct rmsnorm_push){.x_stride = n->x_stride,
                                 .x_col = n->x_col,
                                 .y_stride = n->y_stride,
                                 .y_col = n->y_col,
                                 .rows = n->rows,
                                 .heads = n->heads,
                                 .cols = n->cols,
                                 .eps = n->eps};
}

enum rt_status op_rmsnorm(struct rt_device *dev, const struct op_rmsnorm *n, struct rt_error *err)
{
    enum rt_status st = check("rmsnorm", n, err);
    if (st || n->rows == 0 || n->heads == 0 || n->cols == 0)
        return st;
    struct rmsnorm_push p = push_of(n);
    return op_launch(dev, &op_rmsnorm_desc, (struct rt_span[]){n->x, n->w, n->y}, &p, err);
}

enum rt_status op_rmsnorm_bwd(struct rt_device *dev, const struct op_rmsnorm_bwd *b, struct rt_error *err)
{
    const struct op_rmsnorm *n = &b->n;
    enum rt_status st = check("rmsnorm_bwd", n, err);
    if (!st)
        st = op_check_rows("rmsnorm_bwd", "dx", b->dx, n->rows, b->dx_stride, b->dx_col, (uint64_t)n->heads * n->cols,
                           err);
    if (st || n->rows == 0 || n->heads == 0 || n->cols == 0)
        return st;
    struct rmsnorm_push p = push_of(n);
    p.dx_stride = b->dx_stride, p.dx_col = b->dx_col, p.accumulate = b->accumulate, p.again = b->again;
    return op_launch(dev, &op_rmsnorm_bwd_desc, (struct rt_span[]){n->x, n->w, n->y, b->dx}, &p, err);
}
