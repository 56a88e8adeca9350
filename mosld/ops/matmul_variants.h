/* mosld/ops/matmul_variants.h - the kernels of a product with a frozen weight, one a weight type; for matmul_nt.c and
 * matmul_nn.c.
 *
 * A shader is compiled once a type, so that no kernel branches on it where it counts; MATMUL_KERNELS(prefix, shader,
 * grid) makes prefix_f32 .. prefix_q4_1 and MATMUL_VARIANTS(prefix, label, test, needs, suits) their lines in a table. */
#ifndef MOSLD_MATMUL_VARIANTS_H
#define MOSLD_MATMUL_VARIANTS_H

#include "mosld/ops/matmul_common.h"

#define MATMUL_KERNEL(prefix, type, shader, grid_fn)                                                                   \
    static const struct op_kernel prefix##_##type = {                                                                  \
        .kernel = {shader "." #type,                                                                                   \
                   sizeof(struct matmul_push),                                                                         \
                   4,                                                                                                  \
                   {{"x", RT_READ}, {"w", RT_READ}, {"y", RT_READ_WRITE}, {"other", RT_READ}}},                        \
        .map = {MATMUL_X, MATMUL_W, MATMUL_Y, MATMUL_OTHER},                                                           \
        .grid = grid_fn,                                                                                               \
    };
#define MATMUL_KERNELS(prefix, shader, grid)                                                                           \
    MATMUL_KERNEL(prefix, f32, shader, grid)                                                                           \
    MATMUL_KERNEL(prefix, f16, shader, grid)                                                                           \
    MATMUL_KERNEL(prefix, bf16, shader, grid)                                                                          \
    MATMUL_KERNEL(prefix, q8_0, shader, grid)                                                                          \
    MATMUL_KERNEL(prefix, q4_0, shader, grid)                                                                          \
    MATMUL_KERNEL(prefix, q4_1, shader, grid)

/* Tests of the push block: PREFIX_f32 .. PREFIX_q4_1 are true for their type where `also(push)` is. */
#define MATMUL_TEST(prefix, type, number, also)                                                                        \
    static bool prefix##_##type(const void *push)                                                                      \
    {                                                                                                                  \
        return ((const struct matmul_push *)push)->wtype == (number) && also(push);                                    \
    }
#define MATMUL_TESTS(prefix, also)                                                                                     \
    MATMUL_TEST(prefix, f32, OP_W_F32, also)                                                                           \
    MATMUL_TEST(prefix, f16, OP_W_F16, also)                                                                           \
    MATMUL_TEST(prefix, bf16, OP_W_BF16, also)                                                                         \
    MATMUL_TEST(prefix, q8_0, OP_W_Q8_0, also)                                                                         \
    MATMUL_TEST(prefix, q4_0, OP_W_Q4_0, also)                                                                         \
    MATMUL_TEST(prefix, q4_1, OP_W_Q4_1, also)

#define MATMUL_VARIANT(prefix, type, number, label, test, needs_fn, suits_fn)                                          \
    {                                                                                                                  \
        .name = label "." #type, .kind = RT_VULKAN, .applies = test##_##type, .wtypes = 1u << (number),                \
        .needs = needs_fn, .suits = suits_fn,                                                                          \
        .kernels = {&prefix##_##type},                                                                                 \
    }
#define MATMUL_VARIANTS(prefix, label, test, needs, suits)                                                             \
    MATMUL_VARIANT(prefix, f32, OP_W_F32, label, test, needs, suits),                                                  \
        MATMUL_VARIANT(prefix, f16, OP_W_F16, label, test, needs, suits),                                              \
        MATMUL_VARIANT(prefix, bf16, OP_W_BF16, label, test, needs, suits),                                            \
        MATMUL_VARIANT(prefix, q8_0, OP_W_Q8_0, label, test, needs, suits),                                            \
        MATMUL_VARIANT(prefix, q4_0, OP_W_Q4_0, label, test, needs, suits),                                            \
        MATMUL_VARIANT(prefix, q4_1, OP_W_Q4_1, label, test, needs, suits)

#endif
