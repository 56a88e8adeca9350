/* shaders/linear.h - the parameters of a product with a frozen weight and a tail, for C and GLSL. See mosld/ops/linear.h.
 *
 * First matmul_push, of which `scale` is 1; then z, of which r columns from z_col on are used, and where in B the matrix
 * begins: [n, r] for nt, [r, k] for nn. r = 0: no tail. */
#ifndef MOSLD_SHADER_LINEAR_H
#define MOSLD_SHADER_LINEAR_H

#include "matmul.h"

#define LINEAR_FIELDS uint z_stride; uint z_col; uint b_offset; uint r; float tail_scale;
#ifdef VULKAN
PUSH_BLOCK(linear_push, MATMUL_FIELDS LINEAR_FIELDS)
#else
struct linear_push {
    struct matmul_push m;
    LINEAR_FIELDS
};
#endif

#endif
