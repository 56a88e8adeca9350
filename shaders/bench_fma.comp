// Multiply-adds on registers alone: BENCH_CHAINS x 4 of them a round and invocation. What comes out is stored, so that no compiler
// may leave the work out; nothing is read in the loop.
#version 450
#extension GL_GOOGLE_include_directive : require
#include "bench.h"
layout(local_size_x = BENCH_GROUP) in;
layout(std430, binding = 0) writeonly buffer Y { vec4 y[]; };

void main()
{
    vec4 sum[BENCH_CHAINS];
    vec4 factor = vec4(1.0 - p.value), more = vec4(p.value) * float(gl_LocalInvocationID.x + 1);
    for (uint i = 0; i < BENCH_CHAINS; i++)
        sum[i] = vec4(float(i));
    for (uint k = 0; k < p.repeat; k++)
        for (uint i = 0; i < BENCH_CHAINS; i++)
            sum[i] = fma(sum[i], factor, more);
    vec4 all = vec4(0.0);
    for (uint i = 0; i < BENCH_CHAINS; i++)
        all += sum[i];
    y[gl_GlobalInvocationID.x] = all;
}
