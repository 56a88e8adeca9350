#version 450
// delta = <o, do> of each token and head, the first kernel of attention's backward; mosld/ops/attention_bwd.c. 16
// invocations share one.
#extension GL_GOOGLE_include_directive : require
#include "attention.h"

layout(local_size_x = 128) in;
layout(set = 0, binding = 0, std430) readonly buffer o_buffer { float o[]; };
layout(set = 0, binding = 1, std430) readonly buffer d_o_buffer { float d_o[]; };
layout(set = 0, binding = 2, std430) writeonly buffer stats_buffer { uint stats[]; };

shared float parts[128];

void main()
{
    uint lane = gl_LocalInvocationIndex % 16, slot = gl_LocalInvocationIndex / 16, n = p.T * p.heads;
    for (uint first = gl_WorkGroupID.x * 8; first < n; first += gl_NumWorkGroups.x * 8) {
        uint i = first + slot;
        float sum = 0;
        for (uint d = lane; i < n && d < p.head_dim; d += 16)
            sum += o[i * p.head_dim + d] * d_o[i * p.head_dim + d];
        parts[gl_LocalInvocationIndex] = sum;
        barrier();
        if (lane == 0 && i < n) {
            for (uint k = 1; k < 16; k++)
                sum += parts[gl_LocalInvocationIndex + k];
            stats[i / p.heads * (STATS_LSE + 2 * p.heads) + STATS_LSE + p.heads + i % p.heads] = floatBitsToUint(sum);
        }
        barrier();
    }
}
