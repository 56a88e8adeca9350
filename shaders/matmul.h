/* shaders/matmul.h - the parameters of the products with a frozen weight, for C and GLSL. See mosld/ops/matmul.h.
 *
 * W is one chunk [n, k]; `w_offset` is its first word (f32 alone), `scales` the word where its
 * scales begin. nt: x has k columns and y has n; nn: the other way round. */
#ifndef MOSLD_SHADER_MATMUL_H
#define MOSLD_SHADER_MATMUL_H

#include "push.h"

/* what `add` says: enum op_add */
#define MATMUL_ADD_NONE 0
#define MATMUL_ADD_SELF 1
#define MATMUL_ADD_BIAS 2
#define MATMUL_ADD_RESIDUAL 3

#define MATMUL_FIELDS                                                                                           \
    uint rows; uint n; uint k; uint x_stride; uint x_col; uint y_stride; uint y_col; uint wtype; uint w_offset; \
    uint scales; uint add; uint bias_col; float scale;
#ifndef TAIL /* a kernel of linear.h has this block as the beginning of its own */
PUSH_BLOCK(matmul_push, MATMUL_FIELDS)
#endif

#endif
