/* shaders/matmul_tn.h - the parameters of the reduction over tokens, for C and GLSL. See mosld/ops/matmul.h. */
#ifndef MOSLD_SHADER_MATMUL_TN_H
#define MOSLD_SHADER_MATMUL_TN_H

#include "push.h"

PUSH_BLOCK(matmul_tn_push, uint rows; uint a; uint b; uint x_stride; uint x_col; uint y_stride; uint y_col;
           uint w_offset; uint accumulate; float scale;)

#endif
