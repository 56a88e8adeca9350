/* shaders/mixture_few.h - the parameters of mixture_few, for C and GLSL. See mosld/ops/mixture_few.c. */
#ifndef MOSLD_SHADER_MIXTURE_FEW_H
#define MOSLD_SHADER_MIXTURE_FEW_H

#include "push.h"

#define MIXTURE_FEW_ROWS 8    /* tokens */
#define MIXTURE_FEW_MOST 1024 /* experts times rank */

PUSH_BLOCK(mixture_few_push, uint rows; uint ul_stride; uint u_col; uint l_col; uint r; uint experts; uint top_k; uint cols;
           uint y_stride; uint y_col; float scale;)

#endif
