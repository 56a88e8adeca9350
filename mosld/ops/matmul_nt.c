/* mosld/ops/matmul_nt.c - y = x W^T, the forward product with a frozen weight.
 *
 *     y[t, y_col + o] = add + scale * sum_k x[t, x_col + k] W[o, k]
 *
 * x: [rows, x_stride], W: [n, k] of any weight type, y: [rows, y_stride]; add: nothing, y itself, bias[bias_col + o] or
 * other[t, y_col + o]. W is frozen, so there is no dW; dx is matmul_nn with dy. */
#include "mosld/ops/matmul_variants.h"

static void nt_ref(void *const *b, const void *push)
{
    const struct matmul_push *p = push;
    const double *x = b[MATMUL_X], *w = (const double *)b[MATMUL_W] + p->w_offset, *other = b[MATMUL_OTHER];
    double *y = b[MATMUL_Y];
    for (uint64_t t = 0; t < p->rows; t++)
        for (uint64_t o = 0; o < p->n; o++) {
            uint64_t at = t * p->y_stride + p->y_col + o;
            double sum = 0;
            for (uint64_t k = 0; k < p->k; k++)
                sum += x[t * p->x_stride + p->x_col + k] * w[o * p->k + k];
            y[at] = matmul_ref_add(p, y, other, at, o) + (double)p->scale * sum;
        }
}

/* A workgroup makes a tile of 64 x 64 outputs, of 128 rows x 64, of 64 rows x 128, or of 32 rows x 64. */
static void tile_grid(const void *push, uint32_t groups[3])
{
    const struct matmul_push *p = push;
    groups[0] = op_groups(p->n, 64);
    groups[1] = op_groups(p->rows, 64);
}

static void coop_grid(const void *push, uint32_t groups[3])
{
    const struct matmul_push *p = push;
    groups[0] = op_groups(p->n, 128);
    groups[1] = op_groups(p->rows, 64);
}

static void coop_small_grid(const void *push, uint32_t groups[3])
{
    const struct matmul_push *p = push;
    groups[0] = op_groups(p->n, 64);
    groups[1] = op_groups(p->rows, 32);
}

static void wide_grid(const void *push, uint32_t groups[3])
{
    const struct matmul_push *p = push;
    groups[0] = op_groups(p->n, 64);
    groups[1] = op_groups(p->rows, 128);
}

/* 16 invocations of 4 columns, 8 rows each. */
static void rows_grid(const void *push, uint32_t groups[3])
{
    const struct matmul_push *p = push;
    groups[0] = op_groups(p->rows, 8);
    groups[1] = op_groups(p->n, 64);
}

/* 16 invocations of 4 columns, 16 rows each. Neighbouring groups read the same rows of W, which then are in a cache. */
static void lanes_grid(const void *push, uint32_t groups[3])
{
    const struct matmul_push *p = push;
    groups[0] = op_groups(p->rows, 16);
    groups[1] = op_groups(p->n, 64);
}

/* A workgroup makes 4 columns of 8 rows. */
static void vec_grid(const void *push, uint32_t groups[3])
{
    const struct matmul_push *p = push;
    groups[0] = op_groups(p->n, 4);
    groups[1] = op_groups(p->rows, 8);
}

static bool any(const void *push)
{
    (void)push;
    return true;
}

static bool many_rows(const void *push) { return !matmul_few_rows(push); }

/* A weight of f32 may be one that learns: with less than f32 only where that was asked for. */
static bool not_f32(const void *push) { return ((const struct matmul_push *)push)->wtype != OP_W_F32; }

static bool many_tiles(const void *push)
{
    const struct matmul_push *p = push;
    return matmul_fills_a_gpu(p->rows, p->n);
}

MATMUL_TESTS(many, many_rows)
MATMUL_TESTS(few, matmul_few_rows)
static bool few_outputs(const void *push)
{
    const struct matmul_push *p = push;
    return matmul_is_skinny(p->rows, p->n, p->k);
}

MATMUL_TESTS(skinny, few_outputs)
MATMUL_TESTS(all, any)
MATMUL_TESTS(large, many_tiles)
MATMUL_TESTS(frozen, not_f32)
MATMUL_KERNELS(vec, "matmul_nt_vec", vec_grid)
MATMUL_KERNELS(lanes, "matmul_nt_lanes", lanes_grid)
MATMUL_KERNELS(rows, "matmul_nt_rows", rows_grid)
MATMUL_COOP_KERNELS(coop_split, "matmul_nt_coop", coop_grid, "#1")
MATMUL_COOP_KERNELS(coop, "matmul_nt_coop", coop_grid, "#0")
MATMUL_COOP_KERNELS(coop_small_split, "matmul_nt_coop", coop_small_grid, "#3")
MATMUL_COOP_KERNELS(coop_small, "matmul_nt_coop", coop_small_grid, "#2")
MATMUL_KERNELS(wide, "matmul_nt_wide", wide_grid)
MATMUL_KERNELS(tile, "matmul_nt_tile", tile_grid)

static const struct op_variant variants[] = {
    {.name = "host_vec", .kind = RT_HOST, .applies = matmul_few_rows, .host = matmul_host_vec},
    {.name = "host", .kind = RT_HOST, .host = matmul_host_nt},
    MATMUL_VARIANTS(lanes, "lanes", many, matmul_has_lanes, matmul_suits_cpu),
    MATMUL_VARIANTS(rows, "rows", all, NULL, matmul_suits_cpu), /* there, also the fastest for few rows */
    MATMUL_VARIANTS(vec, "vec", few, NULL, NULL),
    MATMUL_VARIANTS(vec, "skinny", skinny, NULL, NULL),
    MATMUL_COOP_VARIANTS(coop_split, "coop_split", frozen, matmul_has_matrices, matmul_suits_matrices_high, true),
    MATMUL_COOP_VARIANTS(coop, "coop", all, matmul_has_matrices_medium, matmul_suits_matrices, false),
    MATMUL_COOP_VARIANTS(coop_small_split, "coop_small_split", frozen, matmul_has_matrices, matmul_suits_small_high, true),
    MATMUL_COOP_VARIANTS(coop_small, "coop_small", all, matmul_has_matrices_medium, matmul_suits_small, false),
    MATMUL_VARIANTS(wide, "wide", large, NULL, matmul_suits_wide),
    MATMUL_VARIANTS(tile, "tile", all, NULL, NULL),
};

const struct op op_matmul_nt_desc = {
    .name = "matmul_nt",
    .n_bindings = 4,
    .bindings = {{"x", RT_READ, OP_F32},
                 {"w", RT_READ, OP_WEIGHT},
                 {"y", RT_READ_WRITE, OP_F32},
                 {"other", RT_READ, OP_F32}},
    .push_size = sizeof(struct matmul_push),
    .ref = nt_ref,
    .flops = matmul_flops,
    .bytes = matmul_nt_bytes,
    .classes = &matmul_classes,
    .n_variants = OP_COUNT(variants),
    .variants = variants,
};

enum rt_status op_matmul_nt(struct rt_device *dev, const struct op_matmul *m, struct rt_error *err)
{
    return op_matmul_launch(dev, &op_matmul_nt_desc, m, false, err);
}
