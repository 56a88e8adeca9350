/* shaders/gate.h - the parameters of gate and gate_bwd, for C and GLSL. See mosld/ops/mixture.h. Module m of `modules` has its u and l
 * m module_cols columns, and its statistics m stats_stride words, behind those of module 0. */
#ifndef MOSLD_SHADER_GATE_H
#define MOSLD_SHADER_GATE_H

#include "push.h"

PUSH_BLOCK(gate_push, uint rows; uint ul_stride; uint u_col; uint l_col; uint r; uint experts; uint top_k; uint modules;
           uint module_cols; uint stats_offset; uint stats_stride; uint counts; float balance;)

#endif
