/* mosld/ops/matmul_variants.h - the kernels of a product with a frozen weight, one a weight type; for matmul_nt.c and
 * matmul_nn.c.
 *
 * A shader is compiled once a type, so that no kernel branches on it where it counts; MATMUL_KERNELS(prefix, shader,
 * grid) makes prefix_f32 .. prefix_q6_k and MATMUL_VARIANTS(prefix, label, test, needs, suits) their lines in a table. */
#ifndef MOSLD_MATMUL_VARIANTS_H
#define MOSLD_MATMUL_VARIANTS_H

#include "mosld/ops/matmul_common.h"

#define MATMUL_KERNEL(prefix, type, shader, grid_fn)                                                                   \
    static const struct op_kernel prefix##_##type = {                                                                  \
        .kernel = {shader "." #type,                                                                                   \
                   sizeof(struct matmul_push),                                                                         \
                   4,                                                                                                  \
                   {{"x", RT_READ}, {"w", RT_READ}, {"y", RT_READ_WRITE_BY_GROUPS}, {"other", RT_READ}}},               \
        .map = {MATMUL_X, MATMUL_W, MATMUL_Y, MATMUL_OTHER},                                                           \
        .grid = grid_fn,                                                                                               \
    };
#define MATMUL_KERNEL_OF(type, number, prefix, shader, grid) MATMUL_KERNEL(prefix, type, shader, grid)
#define MATMUL_KERNELS(prefix, shader, grid) OP_W_EACH(MATMUL_KERNEL_OF, OP_W_NOTHING, prefix, shader, grid)

/* Tests of the push block: PREFIX_f32 .. PREFIX_q6_k are true for their type where `also(push)` is. */
#define MATMUL_TEST(prefix, type, number, also)                                                                        \
    static bool prefix##_##type(const void *push)                                                                      \
    {                                                                                                                  \
        return ((const struct matmul_push *)push)->wtype == (number) && also(push);                                    \
    }
#define MATMUL_TEST_OF(type, number, prefix, also) MATMUL_TEST(prefix, type, number, also)
#define MATMUL_TESTS(prefix, also) OP_W_EACH(MATMUL_TEST_OF, OP_W_NOTHING, prefix, also)

/* By cooperative matrices: the shader once with x split in two f16 and once rounded to one ("#1", "#0"; "#3", "#2" with the small tile); `rounding`: of inputs that are
 * rounded. An f16 holds an f16, and a bf16 that is not tiny. */
#define MATMUL_COOP_KERNEL_OF(type, number, prefix, shader, grid_fn, split)                                            \
    static const struct op_kernel prefix##_##type = {                                                                  \
        .kernel = {shader "." #type split, sizeof(struct matmul_push), 4,                                              \
                   {{"x", RT_READ}, {"w", RT_READ}, {"y", RT_READ_WRITE}, {"other", RT_READ}}},                        \
        .map = {MATMUL_X, MATMUL_W, MATMUL_Y, MATMUL_OTHER},                                                           \
        .grid = grid_fn,                                                                                               \
    };
#define MATMUL_COOP_KERNELS(prefix, shader, grid, split)                                                               \
    OP_W_EACH(MATMUL_COOP_KERNEL_OF, OP_W_NOTHING, prefix, shader, grid, split)
#define MATMUL_COOP_VARIANT_OF(type, number, prefix, label, test, needs_fn, suits_fn, exact)                                  \
    {                                                                                                                  \
        .name = label "." #type, .kind = RT_VULKAN, .applies = test##_##type, .wtypes = 1u << (number),                \
        .needs = needs_fn, .suits = suits_fn, .kernels = {&prefix##_##type},                                \
        .rounding = exact && ((number) == OP_W_F16 || (number) == OP_W_BF16) ? 0 : exact ? 0x1p-11 : 0x1p-10,          \
    }
#define MATMUL_COOP_VARIANTS(prefix, label, test, needs, suits, exact)                                                    \
    OP_W_EACH(MATMUL_COOP_VARIANT_OF, OP_W_COMMA, prefix, label, test, needs, suits, exact)

#define MATMUL_VARIANT(prefix, type, number, label, test, needs_fn, suits_fn)                                          \
    {                                                                                                                  \
        .name = label "." #type, .kind = RT_VULKAN, .applies = test##_##type, .wtypes = 1u << (number),                \
        .needs = needs_fn, .suits = suits_fn,                                                                          \
        .kernels = {&prefix##_##type},                                                                                 \
    }
#define MATMUL_VARIANT_OF(type, number, prefix, label, test, needs, suits)                                             \
    MATMUL_VARIANT(prefix, type, number, label, test, needs, suits)
#define MATMUL_VARIANTS(prefix, label, test, needs, suits)                                                             \
    OP_W_EACH(MATMUL_VARIANT_OF, OP_W_COMMA, prefix, label, test, needs, suits)

#endif
