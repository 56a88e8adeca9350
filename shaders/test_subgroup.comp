// What a pipeline's subgroups are like: x[i] = their size, as a number. For tests/test_subgroups.c.
#version 450
#extension GL_GOOGLE_include_directive : require
#extension GL_KHR_shader_subgroup_basic : require
#include "test_push.h"
layout(local_size_x = 128) in;
layout(std430, binding = 0) buffer X { float x[]; };

void main()
{
    for (uint i = gl_GlobalInvocationID.x; i < p.n; i += gl_NumWorkGroups.x * gl_WorkGroupSize.x)
        x[i] = float(gl_SubgroupSize);
}
