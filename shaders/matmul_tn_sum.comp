#version 450
#extension GL_GOOGLE_include_directive : require
/* w = the sum of the parts, in their order: the second kernel of a reduction whose tokens were split. */
#include "matmul_tn.h"

layout(local_size_x = 64) in;

layout(std430, set = 0, binding = 0) readonly buffer PartsBuffer { float parts[]; };
layout(std430, set = 0, binding = 1) buffer WBuffer { float w[]; };

void main()
{
    uint n = p.a * p.b;
    for (uint i = gl_GlobalInvocationID.x; i < n; i += gl_NumWorkGroups.x * 64) {
        float sum = parts[i];
        for (uint part = 1; part < p.splits; part++)
            sum += parts[part * n + i];
        float v = p.scale * sum;
        w[p.w_offset + i] = p.accumulate != 0 ? w[p.w_offset + i] + v : v;
    }
}
