// z[t, e r + i] = g_te u_ti, the gate g from the router's logits: see mosld/ops/gate.c. A workgroup a token.
#version 450
#extension GL_GOOGLE_include_directive : require
#include "gate.h"
layout(local_size_x = 64) in;
layout(std430, binding = 0) readonly buffer Ul { float ul[]; };
layout(std430, binding = 1) writeonly buffer Z { float z[]; };
#include "common/gate_row.glsl"

void main()
{
    uint tid = gl_LocalInvocationID.x, width = p.experts * p.r;
    for (uint t = gl_WorkGroupID.x; t < p.rows; t += gl_NumWorkGroups.x) {
        uint row = t * p.ul_stride;
        gate_decide(tid, tid < p.experts ? ul[row + p.l_col + tid] : 0.0);
        for (uint i = tid; i < width; i += 64u) {
            uint e = i / p.r;
            z[t * width + i] = gate_g[e] * ul[row + p.u_col + (i - e * p.r)];
        }
        barrier(); // before the next token's decision overwrites the gate
    }
}
