/* shaders/gate.h - the parameters of gate, gate_bwd and router_stats, for C and GLSL. See mosld/ops/mixture.h. */
#ifndef MOSLD_SHADER_GATE_H
#define MOSLD_SHADER_GATE_H

#include "push.h"

PUSH_BLOCK(gate_push, uint rows; uint ul_stride; uint u_col; uint l_col; uint r; uint experts; uint top_k;
           uint stats_offset; float balance;)

#endif
