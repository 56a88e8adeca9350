#version 450
// Gradient of y = x r w with respect to x, a workgroup for each head of each row; mosld/ops/rmsnorm.c. r is made again
// from x: x is read anyway, so that costs no memory traffic. dx may be dy: each invocation writes what it alone reads. `again`:
// y is left in the place of dy.
#extension GL_GOOGLE_include_directive : require
#define GROUP 128
#include "rmsnorm.h"
#include "common/group_sum.glsl"

layout(local_size_x = GROUP) in;
layout(set = 0, binding = 0, std430) readonly buffer x_buffer { float x[]; };
layout(set = 0, binding = 1, std430) readonly buffer w_buffer { float w[]; };
layout(set = 0, binding = 2, std430) buffer dy_buffer { float dy[]; };
layout(set = 0, binding = 3, std430) buffer dx_buffer { float dx[]; };

void main()
{
    uint lane = gl_LocalInvocationIndex, n = p.rows * p.heads;
    for (uint i = gl_WorkGroupID.x; i < n; i += gl_NumWorkGroups.x) {
        uint row = i / p.heads, col = i % p.heads * p.cols;
        uint xs = row * p.x_stride + p.x_col + col, ys = row * p.y_stride + p.y_col + col;
        uint ds = row * p.dx_stride + p.dx_col + col;
        float squares = 0, products = 0;
        for (uint c = lane; c < p.cols; c += GROUP) {
            float v = x[xs + c];
            squares += v * v;
            products += dy[ys + c] * w[c] * v;
        }
        float r = 1 / sqrt(group_sum(squares) / p.cols + p.eps);
        float k = r * r * (group_sum(products) / p.cols);
        for (uint c = lane; c < p.cols; c += GROUP) {
            float v = x[xs + c], d = r * (dy[ys + c] * w[c] - v * k);
            if (p.again != 0)
                dy[ys + c] = v * r * w[c];
            dx[ds + c] = p.accumulate != 0 ? dx[ds + c] + d : d;
        }
    }
}
