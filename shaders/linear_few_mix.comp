#version 450
#extension GL_GOOGLE_include_directive : require
/* What the experts add to the outputs of all modules of a group: mosld/ops/linear_few.c. A workgroup makes 64 columns of a token. */
#define p few
#include "linear_few.h"
#undef p
layout(local_size_x = 64) in;
layout(std430, binding = 0) readonly buffer Ul { float ul[]; };
layout(std430, binding = 1) readonly buffer BBuffer { float b[]; };
layout(std430, binding = 2) buffer Y { float y[]; };
struct Gate {
    uint experts, top_k;
} p;
#include "common/gate_row.glsl"

void columns(uint part, uint t, uint c)
{
    uint r = few.mix[part] & 0xffffu, n = few.n[part], u = t * few.ul_stride + few.u_col[part], lane = gl_LocalInvocationID.x;
    p.experts = few.mix[part] >> 16 & 255u, p.top_k = few.mix[part] >> 24;
    gate_decide(lane, lane < p.experts && p.experts > 1 ? ul[u + r + lane] : 0.0);
    bool transposed = (few.how & LINEAR_FEW_TRANSPOSED) != 0;
    uint step = transposed ? n : 1;
    float sum = 0.0;
    for (uint e = 0; e < p.experts && c < n; e++)
        if (gate_g[e] > 0.0) {
            float one = 0.0;
            uint at = few.b[part] + (transposed ? e * r * n + c : (c * p.experts + e) * r);
            for (uint i = 0; i < r; i++, at += step)
                one += b[at] * ul[u + i];
            sum += gate_g[e] * one;
        }
    if (c < n)
        y[(few.first + t) * few.y_stride + few.y_col[part] + c] += few.scale[part] * sum;
    barrier(); /* before the next columns' decision overwrites the gate */
}

void main()
{
    uint ends[LINEAR_FEW_PARTS], end = 0;
    for (uint i = 0; i < LINEAR_FEW_PARTS; i++) {
        end += (few.mix[i] & 0xffffu) != 0 ? (few.n[i] + 63) / 64 : 0;
        ends[i] = end;
    }
    for (uint t = gl_WorkGroupID.y; t < few.rows; t += gl_NumWorkGroups.y)
        for (uint g = gl_WorkGroupID.x; g < end; g += gl_NumWorkGroups.x) {
            uint i = 0, first = 0;
            while (g >= ends[i])
                first = ends[i++];
            columns(i, t, (g - first) * 64 + gl_LocalInvocationID.x);
        }
}
