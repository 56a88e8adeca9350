#version 450
// y = x r w, a workgroup for each head of each row; mosld/ops/rmsnorm.c. y may be x: each invocation writes what it
// alone reads.
#extension GL_GOOGLE_include_directive : require
#define GROUP 128
#include "rmsnorm.h"
#include "common/group_sum.glsl"

layout(local_size_x = GROUP) in;
layout(set = 0, binding = 0, std430) readonly buffer x_buffer { float x[]; };
layout(set = 0, binding = 1, std430) readonly buffer w_buffer { float w[]; };
layout(set = 0, binding = 2, std430) writeonly buffer y_buffer { float y[]; };

void main()
{
    uint lane = gl_LocalInvocationIndex, n = p.rows * p.heads;
    for (uint i = gl_WorkGroupID.x; i < n; i += gl_NumWorkGroups.x) {
        uint row = i / p.heads, head = i % p.heads;
        uint from = row * p.x_stride + p.x_col + head * p.cols, to = row * p.y_stride + p.y_col + head * p.cols;
        float squares = 0;
        for (uint c = lane; c < p.cols; c += GROUP)
            squares += x[from + c] * x[from + c];
        float r = 1 / sqrt(group_sum(squares) / p.cols + p.eps);
        for (uint c = lane; c < p.cols; c += GROUP)
            y[to + c] = x[from + c] * r * w[c];
    }
}
