#version 450
#extension GL_GOOGLE_include_directive : require
/* y = add + scale * the sum of the parts, in their order: the second kernel of a product whose sums were split. An invocation makes four
 * neighbouring outputs of a token. */
#include "matmul_split.h"

layout(local_size_x = 64) in;

layout(std430, set = 0, binding = 0) readonly buffer PartsBuffer { vec4 parts[]; };
layout(std430, set = 0, binding = 1) buffer YBuffer { float y[]; };
layout(std430, set = 0, binding = 2) readonly buffer OtherBuffer { float other[]; };

#ifdef NN
#define COLUMNS p.k
#else
#define COLUMNS p.n
#endif

void main()
{
    uint columns = (COLUMNS + 3) / 4, n = p.rows * columns;
    for (uint i = gl_GlobalInvocationID.x; i < n; i += gl_NumWorkGroups.x * 64) {
        vec4 sum = parts[i];
        for (uint part = 1; part < p.splits; part++)
            sum += parts[part * n + i];
        uint c = i % columns * 4, at = i / columns * p.y_stride + p.y_col + c;
        for (uint j = 0; j < 4 && c + j < COLUMNS; j++) {
            float v = p.scale * sum[j];
            if (p.add == MATMUL_ADD_SELF)
                v += y[at + j];
            else if (p.add != MATMUL_ADD_NONE)
                v += other[p.add == MATMUL_ADD_BIAS ? p.bias_col + c + j : at + j];
            y[at + j] = v;
        }
    }
}
