/* mosld/ops/matmul_split.c - see matmul_split.h. The first kernel is `tile`, compiled to make parts (shaders/matmul_tile.comp). */
#include "mosld/ops/matmul_split.h"

#include "mosld/ops/choice.h"

#include <string.h>

static void nt_ref(void *const *b, const void *push) { op_matmul_nt_desc.ref(b, &((const struct matmul_split_push *)push)->m); }
static void nn_ref(void *const *b, const void *push) { op_matmul_nn_desc.ref(b, &((const struct matmul_split_push *)push)->m); }

/* The host has no idle workgroups to fill. */
static void nt_host(struct rt_device *dev, void *const *b, const void *push) { matmul_host_nt(dev, b, &((const struct matmul_split_push *)push)->m); }
static void nn_host(struct rt_device *dev, void *const *b, const void *push) { matmul_host_nn(dev, b, &((const struct matmul_split_push *)push)->m); }

/* A workgroup makes one part of 64 x 64 outputs. */
static void grid(const struct matmul_split_push *p, uint32_t cols, uint32_t groups[3])
{
    groups[0] = op_groups(cols, 64);
    groups[1] = op_groups(p->m.rows, 64);
    groups[2] = op_groups(p->splits, 1);
}

static void nt_grid(const void *push, uint32_t groups[3]) { grid(push, ((const struct matmul_split_push *)push)->m.n, groups); }
static void nn_grid(const void *push, uint32_t groups[3]) { grid(push, ((const struct matmul_split_push *)push)->m.k, groups); }

/* 64 invocations of four outputs. */
static void nt_sum_grid(const void *push, uint32_t groups[3])
{
    const struct matmul_push *p = push;
    groups[0] = op_groups((uint64_t)p->rows * (((uint64_t)p->n + 3) / 4), 64);
}

static void nn_sum_grid(const void *push, uint32_t groups[3])
{
    const struct matmul_push *p = push;
    groups[0] = op_groups((uint64_t)p->rows * (((uint64_t)p->k + 3) / 4), 64);
}

#define SPLIT_KERNEL(type, number, prefix, shader, grid_fn)                                                            \
    static const struct op_kernel prefix##_##type = {                                                                  \
        .kernel = {shader "." #type, sizeof(struct matmul_split_push), 3,                                              \
                   {{"x", RT_READ}, {"w", RT_READ}, {"parts", RT_WRITE_BY_GROUPS}}},                                   \
        .map = {MATMUL_X, MATMUL_W, MATMUL_PARTS}, .grid = grid_fn, .share = 0.98f,                                    \
    };
OP_W_EACH(SPLIT_KERNEL, OP_W_NOTHING, nt, "matmul_nt_split", nt_grid)
OP_W_EACH(SPLIT_KERNEL, OP_W_NOTHING, nn, "matmul_nn_split", nn_grid)

#define SUM_KERNEL(name, grid_fn)                                                                                      \
    {                                                                                                                  \
        .kernel = {name, sizeof(struct matmul_split_push), 3,                                                          \
                   {{"parts", RT_READ}, {"y", RT_READ_WRITE_BY_GROUPS}, {"other", RT_READ}}},                          \
        .map = {MATMUL_PARTS, MATMUL_Y, MATMUL_OTHER}, .grid = grid_fn,                                                \
    }
static const struct op_kernel nt_sum = SUM_KERNEL("matmul_nt_sum", nt_sum_grid);
static const struct op_kernel nn_sum = SUM_KERNEL("matmul_nn_sum", nn_sum_grid);

#define SPLIT_TEST(type, number, prefix)                                                                               \
    static bool prefix##_##type(const void *push) { return ((const struct matmul_push *)push)->wtype == (number); }
OP_W_EACH(SPLIT_TEST, OP_W_NOTHING, reads)

static bool suits_gpu(const struct rt_device_info *info) { return !matmul_suits_cpu(info); }

#define SPLIT_VARIANT(type, number, prefix, sum)                                                                       \
    {                                                                                                                  \
        .name = "split." #type, .kind = RT_VULKAN, .applies = reads_##type, .wtypes = 1u << (number),                  \
        .suits = suits_gpu, .kernels = {&prefix##_##type, &sum},                                                       \
    }
static const struct op_variant nt_variants[] = {
    {.name = "host", .kind = RT_HOST, .host = nt_host},
    OP_W_EACH(SPLIT_VARIANT, OP_W_COMMA, nt, nt_sum),
};
static const struct op_variant nn_variants[] = {
    {.name = "host", .kind = RT_HOST, .host = nn_host},
    OP_W_EACH(SPLIT_VARIANT, OP_W_COMMA, nn, nn_sum),
};

/* The product's own functions read the beginning of the block. */
#define SPLIT_OP(op_name, ref_fn, bytes_fn, table)                                                                     \
    {                                                                                                                  \
        .name = op_name, .n_bindings = 5,                                                                              \
        .bindings = {{"x", RT_READ, OP_F32},                                                                           \
                     {"w", RT_READ, OP_WEIGHT},                                                                        \
                     {"y", RT_READ_WRITE, OP_F32},                                                                     \
                     {"other", RT_READ, OP_F32},                                                                       \
                     {"parts", RT_READ_WRITE, OP_F32}},                                                                \
        .push_size = sizeof(struct matmul_split_push), .ref = ref_fn, .flops = matmul_flops,                           \
        .classes = &matmul_classes, .bytes = bytes_fn, .optional = true,                                               \
        .n_variants = OP_COUNT(table), .variants = table,                                                              \
    }
const struct op op_matmul_nt_split_desc = SPLIT_OP("matmul_nt_split", nt_ref, matmul_nt_bytes, nt_variants);
const struct op op_matmul_nn_split_desc = SPLIT_OP("matmul_nn_split", nn_ref, matmul_nn_bytes, nn_variants);

/* ---- whether, and into how many ---- */

/* Workgroups of 128 that a GPU of the kind wants, at a guess: Vulkan does not say how many processors it has. */
static uint32_t wanted_groups(const struct rt_device_info *info)
{
    switch (info->class_) {
    case RT_CLASS_CPU: return 0;
    case RT_CLASS_DISCRETE: return 320; /* four for each of 80 */
    default: return 64;
    }
}

uint64_t op_matmul_parts_bytes(const struct rt_device *dev)
{
    const struct rt_device_info *info = rt_device_info(dev);
    if (info->kind != RT_VULKAN || info->class_ == RT_CLASS_CPU)
        return 0;
    uint64_t bytes = info->class_ == RT_CLASS_DISCRETE ? 16u << 20 : 4u << 20;
    return bytes < info->limits.max_range ? bytes : info->limits.max_range / 256 * 256;
}

uint32_t matmul_splits(const struct rt_device *dev, uint32_t rows, uint32_t cols, uint32_t sums, uint32_t tile, uint32_t least, uint64_t bytes)
{
    uint64_t groups = ((uint64_t)rows + tile - 1) / tile * (((uint64_t)cols + tile - 1) / tile);
    uint64_t part = (uint64_t)rows * (((uint64_t)cols + 3) / 4 * 16);
    if (groups == 0 || part > bytes)
        return 1;
    uint64_t splits = wanted_groups(rt_device_info(dev)) / groups;
    if (splits > sums / least)
        splits = sums / least;
    if (splits > bytes / part)
        splits = bytes / part;
    return splits < 2 ? 1 : (uint32_t)splits;
}

uint32_t matmul_split_terms(uint32_t sums, uint32_t *splits)
{
    uint64_t each = ((uint64_t)sums + *splits - 1) / *splits;
    each = each ? (each + 15) / 16 * 16 : 16;
    *splits = sums ? (uint32_t)((sums + each - 1) / each) : 1;
    return (uint32_t)each;
}

/* A kernel of matrices makes more of few workgroups, and `skinny` splits already. */
static uint32_t fewest_parts(const struct op_variant *plain)
{
    if (!plain || strncmp(plain->name, "coop", 4) == 0)
        return 8;
    return strncmp(plain->name, "tile", 4) == 0 || strncmp(plain->name, "wide", 4) == 0 ? 2 : UINT32_MAX;
}

void matmul_split_choose(struct rt_device *dev, const struct op_matmul *m, const struct matmul_push *p, bool nn, struct matmul_split_push *split,
                         const struct op_variant **v)
{
    enum { LEAST = 192 }; /* terms: fewer, and writing and reading the parts costs more than the products */
    uint32_t cols = nn ? p->k : p->n, sums = nn ? p->n : p->k;
    *v = NULL;
    *split = (struct matmul_split_push){.m = *p};
    split->splits = m->splits ? m->splits : matmul_splits(dev, p->rows, cols, sums, 64, LEAST, m->parts.size);
    if (split->splits < 2 || rt_device_kind(dev) != RT_VULKAN)
        return;
    split->split_sums = matmul_split_terms(sums, &split->splits);
    if (!m->splits && split->splits < fewest_parts(op_choose(dev, nn ? &op_matmul_nn_desc : &op_matmul_nt_desc, p)))
        return;
    uint64_t part = (uint64_t)p->rows * (((uint64_t)cols + 3) / 4 * 16);
    if (split->splits > 1 && part && m->parts.size / part >= split->splits)
        *v = op_choose(dev, nn ? &op_matmul_nn_split_desc : &op_matmul_nt_split_desc, split);
}
