// y[t, y_col + c] += scale sum_e g_e sum_i u_i B_e[c, i] over the experts that the router keeps: mosld/ops/mixture_few.c. A workgroup makes 64
// columns of a token.
#version 450
#extension GL_GOOGLE_include_directive : require
#include "mixture_few.h"
layout(local_size_x = 64) in;
layout(std430, binding = 0) readonly buffer Ul { float ul[]; };
layout(std430, binding = 1) readonly buffer BBuffer { float b[]; };
layout(std430, binding = 2) buffer Y { float y[]; };
#include "common/gate_row.glsl"

void main()
{
    uint tid = gl_LocalInvocationID.x;
    for (uint t = gl_WorkGroupID.y; t < p.rows; t += gl_NumWorkGroups.y) {
        uint row = t * p.ul_stride;
        gate_decide(tid, tid < p.experts ? ul[row + p.l_col + tid] : 0.0);
        for (uint c = gl_WorkGroupID.x * 64u + tid; c < p.cols; c += gl_NumWorkGroups.x * 64u) {
            float sum = 0.0;
            for (uint e = 0u; e < p.experts; e++)
                if (gate_g[e] > 0.0) {
                    float part = 0.0;
                    uint at = (c * p.experts + e) * p.r;
                    for (uint i = 0u; i < p.r; i++)
                        part += b[at + i] * ul[row + p.u_col + i];
                    sum += gate_g[e] * part;
                }
            y[t * p.y_stride + p.y_col + c] += p.scale * sum;
        }
        barrier(); // before the next token's decision overwrites the gate
    }
}
