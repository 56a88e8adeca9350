// z[i] = x[i] + y[i] + value, for i < n. For the runtime's tests.
#version 450
#extension GL_GOOGLE_include_directive : require
#include "test_push.h"
layout(local_size_x = 64) in;
layout(std430, binding = 0) readonly buffer X { float x[]; };
layout(std430, binding = 1) readonly buffer Y { float y[]; };
layout(std430, binding = 2) writeonly buffer Z { float z[]; };

void main()
{
    for (uint i = gl_GlobalInvocationID.x; i < p.n; i += gl_NumWorkGroups.x * gl_WorkGroupSize.x)
        z[i] = x[i] + y[i] + p.value;
}
