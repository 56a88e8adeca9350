/* shaders/matmul_split.h - the parameters of a product whose sums are split over workgroups, for C and GLSL. See mosld/ops/matmul_split.h.
 *
 * First matmul_push; then how many parts a sum has, and how many of its terms are in each but the last: a multiple of 16. The parts
 * lie as [splits, rows, columns rounded up to fours]. */
#ifndef MOSLD_SHADER_MATMUL_SPLIT_H
#define MOSLD_SHADER_MATMUL_SPLIT_H

#ifdef VULKAN
#define TAIL /* for matmul.h: its block is the beginning of this one */
#endif
#include "matmul.h"
#undef TAIL

#define MATMUL_SPLIT_FIELDS uint splits; uint split_sums;
#ifdef VULKAN
PUSH_BLOCK(matmul_split_push, MATMUL_FIELDS MATMUL_SPLIT_FIELDS)
#else
struct matmul_split_push {
    struct matmul_push m;
    MATMUL_SPLIT_FIELDS
};
#endif

#endif
