// x[i] = 2 x[i] + value in place, for i < n. For the runtime's tests.
#version 450
#extension GL_GOOGLE_include_directive : require
#include "test_push.h"
layout(local_size_x = 64) in;
layout(std430, binding = 0) buffer X { float x[]; };

void main()
{
    for (uint i = gl_GlobalInvocationID.x; i < p.n; i += gl_NumWorkGroups.x * gl_WorkGroupSize.x)
        x[i] = 2.0 * x[i] + p.value;
}
