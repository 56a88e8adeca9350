/* shaders/matmul_tn.h - the parameters of the reduction over tokens, for C and GLSL. See mosld/ops/matmul.h.
 *
 * `splits` parts of the tokens, split_rows in each but the last, are summed apart and then added in order; 1: they are not split. The parts
 * lie as [splits, a, b]. */
#ifndef MOSLD_SHADER_MATMUL_TN_H
#define MOSLD_SHADER_MATMUL_TN_H

#include "push.h"

PUSH_BLOCK(matmul_tn_push, uint rows; uint a; uint b; uint x_stride; uint x_col; uint y_stride; uint y_col;
           uint w_offset; uint accumulate; float scale; uint splits; uint split_rows;)

#endif
