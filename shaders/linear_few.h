/* shaders/linear_few.h - the parameters of linear_few, for C and GLSL. See mosld/ops/linear_few.h.
 *
 * Rows `first` to first + rows - 1 of x, y and other; ul begins with the first of them. Up to three parts, each a module: W [n, k] from word `w` of the bound weights on, its type in bits 5 i to 5 i + 4 of `how`; its outputs from column y_col of y on; its
 * bias at word `bias` of other. Its adapter: r | experts << 16 | top_k << 24 in `mix` (0: none), u in the r columns of ul from u_col on, with a router l behind
 * it, B at word `b` of what is bound, in the order that `how` says. */
#ifndef MOSLD_SHADER_LINEAR_FEW_H
#define MOSLD_SHADER_LINEAR_FEW_H

#include "push.h"

#define LINEAR_FEW_PARTS 3
#define LINEAR_FEW_ROWS 8    /* tokens */
#define LINEAR_FEW_MOST 1024 /* experts times rank of a part */

/* how: types, then what is added (MATMUL_ADD_NONE, _BIAS or _RESIDUAL), then this bit: B lies transposed, [E r, n]; else as [n, E r]. */
#define LINEAR_FEW_TYPE_BITS 5
#define LINEAR_FEW_ADD_SHIFT 15
#define LINEAR_FEW_TRANSPOSED (1 << 20)
#define LINEAR_FEW_ALONE (1 << 21) /* no products with W: the adapters' part is added to y */

PUSH_BLOCK(linear_few_push, uint rows; uint first; uint k; uint x_stride; uint y_stride; uint ul_stride; uint stack_rows; uint how;
           uint n[LINEAR_FEW_PARTS]; uint w[LINEAR_FEW_PARTS]; uint y_col[LINEAR_FEW_PARTS]; uint bias[LINEAR_FEW_PARTS];
           uint mix[LINEAR_FEW_PARTS]; uint u_col[LINEAR_FEW_PARTS]; uint b[LINEAR_FEW_PARTS]; float scale[LINEAR_FEW_PARTS];)

#endif
