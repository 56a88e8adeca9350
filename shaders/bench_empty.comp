// Nothing: what a launch costs.
#version 450
#extension GL_GOOGLE_include_directive : require
#include "bench.h"
layout(local_size_x = 1) in;
layout(std430, binding = 0) readonly buffer X { float x[]; };

void main()
{
    if (p.n != 0 && x[0] != x[0]) // never, but the binding stays
        return;
}
