// x[i] = fraction(x[i] * 1.5 + value), `repeat` times over: work whose length a test can choose.
#version 450
#extension GL_GOOGLE_include_directive : require
#include "test_push.h"
layout(local_size_x = 64) in;
layout(std430, binding = 0) buffer X { float x[]; };

void main()
{
    for (uint i = gl_GlobalInvocationID.x; i < p.n; i += gl_NumWorkGroups.x * gl_WorkGroupSize.x) {
        float a = x[i];
        for (uint k = 0; k < p.repeat; k++)
            a = fract(a * 1.5 + p.value);
        x[i] = a;
    }
}
