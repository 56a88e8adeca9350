// y = x, n vec4: what memory gives and takes.
#version 450
#extension GL_GOOGLE_include_directive : require
#include "bench.h"
layout(local_size_x = BENCH_GROUP) in;
layout(std430, binding = 0) readonly buffer X { vec4 x[]; };
layout(std430, binding = 1) writeonly buffer Y { vec4 y[]; };

void main()
{
    for (uint i = gl_GlobalInvocationID.x; i < p.n; i += gl_NumWorkGroups.x * gl_WorkGroupSize.x)
        y[i] = x[i];
}
