#version 450
// Rotates pairs (i, i + D/2) of every head in place, a pair an invocation; mosld/ops/rope.c.
#extension GL_GOOGLE_include_directive : require
#include "rope.h"

layout(local_size_x = 128) in;
layout(set = 0, binding = 0, std430) buffer x_buffer { float x[]; };
layout(set = 0, binding = 1, std430) readonly buffer table_buffer { vec2 table[]; }; // cosine, sine
layout(set = 0, binding = 2, std430) readonly buffer pos_buffer { uint pos[]; };

void main()
{
    uint half_dim = p.head_dim / 2, row_pairs = p.heads * half_dim, n = p.rows * row_pairs;
    for (uint k = gl_GlobalInvocationID.x; k < n; k += gl_NumWorkGroups.x * gl_WorkGroupSize.x) {
        uint t = k / row_pairs, i = k % half_dim, head = k % row_pairs / half_dim;
        uint at = t * p.stride + p.col + head * p.head_dim + i;
        vec2 cs = table[pos[t] * half_dim + i];
        float a = x[at], b = x[at + half_dim], s = cs.y * p.sign;
        x[at] = a * cs.x - b * s;
        x[at + half_dim] = b * cs.x + a * s;
    }
}
