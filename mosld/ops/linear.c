/* mosld/ops/linear.c - y = [x | s z] [W | B]^T and dx = [dy | dul] [W ; A, Wg]: see linear.h.
 *
 * The kernels are those of the frozen product, compiled with a tail that goes through the same tiles (shaders/matmul_tile.comp). On the
 * host, the thread that has summed a tile adds the tail while the tile is in its cache. */
#include "mosld/ops/linear.h"

#include "mosld/ops/choice.h"
#include "mosld/ops/linear_host.h"
#include "mosld/ops/matmul_split.h"

/* ---- the truth ---- */

static void nt_ref(void *const *b, const void *push)
{
    const struct linear_push *p = push;
    const double *z = b[LINEAR_Z], *B = (const double *)b[LINEAR_B] + p->b_offset;
    op_matmul_nt_desc.ref(b, &p->m);
    double *y = b[MATMUL_Y];
    for (uint64_t t = 0; t < p->m.rows; t++)
        for (uint64_t o = 0; o < p->m.n; o++)
            for (uint64_t i = 0; i < p->r; i++)
                y[t * p->m.y_stride + p->m.y_col + o] +=
                    (double)p->tail_scale * z[t * p->z_stride + p->z_col + i] * B[o * p->r + i];
}

static void nn_ref(void *const *b, const void *push)
{
    const struct linear_push *p = push;
    const double *z = b[LINEAR_Z], *B = (const double *)b[LINEAR_B] + p->b_offset;
    op_matmul_nn_desc.ref(b, &p->m);
    double *y = b[MATMUL_Y];
    for (uint64_t t = 0; t < p->m.rows; t++)
        for (uint64_t k = 0; k < p->m.k; k++)
            for (uint64_t i = 0; i < p->r; i++)
                y[t * p->m.y_stride + p->m.y_col + k] +=
                    (double)p->tail_scale * z[t * p->z_stride + p->z_col + i] * B[i * p->m.k + k];
}

/* ---- the variants: names and grids of their twins in matmul_nt.c and matmul_nn.c ---- */

static void tile_nt(const void *push, uint32_t groups[3])
{
    const struct linear_push *p = push;
    groups[0] = op_groups(p->m.n, 64);
    groups[1] = op_groups(p->m.rows, 64);
}

static void wide_nt(const void *push, uint32_t groups[3])
{
    const struct linear_push *p = push;
    groups[0] = op_groups(p->m.n, 64);
    groups[1] = op_groups(p->m.rows, 128);
}

static void tile_nn(const void *push, uint32_t groups[3])
{
    const struct linear_push *p = push;
    groups[0] = op_groups(p->m.k, 64);
    groups[1] = op_groups(p->m.rows, 64);
}

static void wide_nn(const void *push, uint32_t groups[3])
{
    const struct linear_push *p = push;
    groups[0] = op_groups(p->m.k, 64);
    groups[1] = op_groups(p->m.rows, 128);
}

#define LINEAR_KERNEL(type, number, prefix, shader, grid_fn)                                                           \
    static const struct op_kernel prefix##_##type = {                                                                  \
        .kernel = {shader "." #type,                                                                                   \
                   sizeof(struct linear_push),                                                                         \
                   6,                                                                                                  \
                   {{"x", RT_READ},                                                                                    \
                    {"w", RT_READ},                                                                                    \
                    {"y", RT_READ_WRITE_BY_GROUPS},                                                                              \
                    {"other", RT_READ},                                                                                \
                    {"z", RT_READ},                                                                                    \
                    {"b", RT_READ}}},                                                                                  \
        .map = {MATMUL_X, MATMUL_W, MATMUL_Y, MATMUL_OTHER, LINEAR_Z, LINEAR_B},                                       \
        .grid = grid_fn,                                                                                               \
    };
OP_W_EACH(LINEAR_KERNEL, OP_W_NOTHING, nt_tile, "linear_nt_tile", tile_nt)
OP_W_EACH(LINEAR_KERNEL, OP_W_NOTHING, nt_wide, "linear_nt_wide", wide_nt)
OP_W_EACH(LINEAR_KERNEL, OP_W_NOTHING, nn_tile, "linear_nn_tile", tile_nn)
OP_W_EACH(LINEAR_KERNEL, OP_W_NOTHING, nn_wide, "linear_nn_wide", wide_nn)

#define LINEAR_TEST(type, number, prefix)                                                                              \
    static bool prefix##_##type(const void *push) { return ((const struct linear_push *)push)->m.wtype == (number); }
OP_W_EACH(LINEAR_TEST, OP_W_NOTHING, reads)

/* Drivers on the processor take other kernels for the product, which have no tail: there what it saves is next to nothing
 * (docs/speed.md). */
static bool suits_gpu(const struct rt_device_info *info) { return info->class_ != RT_CLASS_CPU; }
static bool suits_wide(const struct rt_device_info *info) { return suits_gpu(info) && matmul_suits_wide(info); }

#define LINEAR_VARIANT(type, number, prefix, label, suits_fn)                                                          \
    {                                                                                                                  \
        .name = label "." #type, .kind = RT_VULKAN, .applies = reads_##type, .wtypes = 1u << (number),                 \
        .suits = suits_fn, .kernels = {&prefix##_##type},                                                              \
    }

static const struct op_variant nt_variants[] = {
    {.name = "host", .kind = RT_HOST, .host = linear_host_nt},
    OP_W_EACH(LINEAR_VARIANT, OP_W_COMMA, nt_wide, "wide", suits_wide),
    OP_W_EACH(LINEAR_VARIANT, OP_W_COMMA, nt_tile, "tile", suits_gpu),
};
static const struct op_variant nn_variants[] = {
    {.name = "host", .kind = RT_HOST, .host = linear_host_nn},
    OP_W_EACH(LINEAR_VARIANT, OP_W_COMMA, nn_wide, "wide", suits_wide),
    OP_W_EACH(LINEAR_VARIANT, OP_W_COMMA, nn_tile, "tile", suits_gpu),
};

static double linear_flops(const void *push)
{
    const struct linear_push *p = push;
    return matmul_flops(&p->m) + 2.0 * p->m.rows * p->r * p->m.n; /* nn: of the width of the other side; near enough to cut submissions by */
}

static double tail_bytes(const struct linear_push *p, uint32_t out) { return 4.0 * p->r * ((double)p->m.rows + out); }

static double nt_bytes(const void *push)
{
    const struct linear_push *p = push;
    return matmul_nt_bytes(&p->m) + tail_bytes(p, p->m.n);
}

static double nn_bytes(const void *push)
{
    const struct linear_push *p = push;
    return matmul_nn_bytes(&p->m) + tail_bytes(p, p->m.k);
}

#define LINEAR_OP(op_name, ref_fn, bytes_fn, table)                                                                    \
    {                                                                                                                  \
        .name = op_name, .n_bindings = 6,                                                                              \
        .bindings = {{"x", RT_READ, OP_F32},                                                                           \
                     {"w", RT_READ, OP_WEIGHT},                                                                        \
                     {"y", RT_READ_WRITE, OP_F32},                                                                     \
                     {"other", RT_READ, OP_F32},                                                                       \
                     {"z", RT_READ, OP_F32},                                                                           \
                     {"b", RT_READ, OP_F32}},                                                                          \
        .push_size = sizeof(struct linear_push), .ref = ref_fn, .flops = linear_flops, .classes = &matmul_classes,     \
        .bytes = bytes_fn, .optional = true,                                                                           \
        .n_variants = OP_COUNT(table), .variants = table,                                                              \
    }
const struct op op_linear_nt_desc = LINEAR_OP("linear_nt", nt_ref, nt_bytes, nt_variants);
const struct op op_linear_nn_desc = LINEAR_OP("linear_nn", nn_ref, nn_bytes, nn_variants);

/* ---- which of the two ways, and the launches ---- */

struct way {
    const struct op *op, *plain;
    bool nn;
};

/* The variant with a tail that is otherwise the one that the product without it would take; NULL: there is none, it cannot run, or it
 * was found to be wrong here. */
static const struct op_variant *twin(struct rt_device *dev, const struct way *way, const struct linear_push *p)
{
    const struct op_variant *plain = op_choose(dev, way->plain, &p->m), *order[OP_MAX_VARIANTS];
    const struct op_variant *v = plain ? op_variant_find(way->op, plain->name) : NULL;
    uint32_t n = v ? op_choice_order(dev, way->op, op_class_of(way->op, p), order) : 0;
    while (n > 0 && order[n - 1] != v)
        n--;
    return n > 0 ? v : NULL;
}

static enum rt_status check_tail(const struct op_linear *l, const struct way *way, struct rt_error *err)
{
    const char *op = way->op->name;
    uint32_t rows = way->nn ? l->b->cols : l->b->rows, r = way->nn ? l->b->rows : l->b->cols;
    if (rows != (way->nn ? l->m.w->cols : l->m.w->rows) || l->b->type != OP_W_F32 || l->b->n_chunks != 1)
        return rt_fail(err, RT_FAILED, "%s: B of %u x %u does not go with W of %u x %u, or is not f32 in one piece", op, l->b->rows,
                       l->b->cols, l->m.w->rows, l->m.w->cols);
    if (l->m.scale != 0 && l->m.scale != 1)
        return rt_fail(err, RT_FAILED, "%s: the product itself is not scaled", op);
    struct op_weight_layout layout;
    enum rt_status st = op_weight_check(op, l->b, op_weight_chunk(l->b, 0), &layout, err);
    return st ? st : op_check_rows(op, "z", l->z, l->m.rows, l->z_stride, l->z_col, r, err);
}

/* Chunk i of W: its parameters and what it binds. A sum over the rows of W (nn) goes on from chunk to chunk; its tail comes last. */
static enum rt_status chunk(const struct op_linear *l, const struct way *way, uint32_t i, struct linear_push *p, struct rt_span spans[6],
                            struct rt_error *err)
{
    uint32_t r = way->nn ? l->b->rows : l->b->cols;
    *p = (struct linear_push){.z_stride = l->z_stride, .z_col = l->z_col, .tail_scale = l->scale == 0 ? 1 : l->scale};
    p->r = way->nn && i + 1 < l->m.w->n_chunks ? 0 : r;
    p->b_offset = l->b->offset + (way->nn ? 0 : op_weight_chunk(l->m.w, i)->row0 * r);
    spans[LINEAR_Z] = l->z;
    spans[LINEAR_B] = op_weight_chunk(l->b, 0)->span;
    return op_matmul_chunk(way->plain, &l->m, i, way->nn, &p->m, spans, err);
}

static enum rt_status run_apart(struct rt_device *dev, const struct op_linear *l, bool nn, struct rt_error *err)
{
    enum rt_status (*product)(struct rt_device *, const struct op_matmul *, struct rt_error *) = nn ? op_matmul_nn : op_matmul_nt;
    struct op_matmul tail = {.x = l->z, .x_stride = l->z_stride, .x_col = l->z_col, .w = l->b, .y = l->m.y, .y_stride = l->m.y_stride,
                             .y_col = l->m.y_col, .rows = l->m.rows, .scale = l->scale, .add = OP_ADD_SELF};
    enum rt_status st = product(dev, &l->m, err);
    return st ? st : product(dev, &tail, err);
}

/* Matrices beyond the binding range go in windows of rows, which op_matmul knows about. */
static bool binds_whole(const struct rt_device *dev, const struct op_linear *l)
{
    uint64_t range = rt_device_info(dev)->limits.max_range;
    const struct op_matmul *m = &l->m;
    return m->x.size <= range && m->y.size <= range && l->z.size <= range && op_weight_chunk(l->b, 0)->span.size <= range &&
           (m->add != OP_ADD_RESIDUAL || m->other.size <= range);
}

/* Whether the frozen product's sums would rather be split over workgroups, which is worth more than what the tail saves. */
static bool splits(struct rt_device *dev, const struct op_linear *l, const struct way *way, const struct matmul_push *p)
{
    struct matmul_split_push split;
    const struct op_variant *v;
    matmul_split_choose(dev, &l->m, p, way->nn, &split, &v);
    return v != NULL;
}

static enum rt_status run(struct rt_device *dev, const struct op_linear *l, const struct way *way, struct rt_error *err)
{
    struct linear_push p;
    struct rt_span spans[6];
    enum rt_status st = op_matmul_check(way->op, &l->m, way->nn, err);
    if (!st)
        st = check_tail(l, way, err);
    if (st || l->m.rows == 0)
        return st;
    bool together = !l->apart && binds_whole(dev, l);
    for (uint32_t i = 0; i < l->m.w->n_chunks && together && !st; i++) {
        st = chunk(l, way, i, &p, spans, err);
        together = twin(dev, way, &p) != NULL && !splits(dev, l, way, &p.m);
    }
    if (!st && !together)
        return run_apart(dev, l, way->nn, err);
    for (uint32_t i = 0; i < l->m.w->n_chunks && !st; i++) {
        st = chunk(l, way, i, &p, spans, err);
        if (!st)
            st = op_launch_variant(dev, way->op, twin(dev, way, &p), spans, &p, err);
    }
    return st;
}

enum rt_status op_linear_nt(struct rt_device *dev, const struct op_linear *l, struct rt_error *err)
{
    return run(dev, l, &(struct way){&op_linear_nt_desc, &op_matmul_nt_desc, false}, err);
}

enum rt_status op_linear_nn(struct rt_device *dev, const struct op_linear *l, struct rt_error *err)
{
    return run(dev, l, &(struct way){&op_linear_nn_desc, &op_matmul_nn_desc, true}, err);
}
