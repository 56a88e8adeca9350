#version 450
// Gradient of h = silu(g) u; `again`: and h in the place of dh; mosld/ops/swiglu.c. WIDTH neighbours an invocation: with 4, F is a multiple of 4.
#extension GL_GOOGLE_include_directive : require
#include "swiglu.h"

#if WIDTH == 4
#define VALUE vec4
#else
#define VALUE float
#endif

layout(local_size_x = 128) in;
layout(set = 0, binding = 0, std430) readonly buffer gu_buffer { VALUE gu[]; };
layout(set = 0, binding = 1, std430) buffer dh_buffer { VALUE dh[]; };
layout(set = 0, binding = 2, std430) writeonly buffer dgu_buffer { VALUE dgu[]; };

void main()
{
    uint F = p.F / WIDTH, n = p.T * F, step = gl_NumWorkGroups.x * gl_WorkGroupSize.x;
    for (uint i = gl_GlobalInvocationID.x; i < n; i += step) {
        uint at = i / F * 2 * F + i % F;
        VALUE g = gu[at], u = gu[at + F], d = dh[i];
        VALUE s = 1 / (1 + exp(clamp(-g, -80, 80)));
        dgu[at] = d * u * s * (1 + g * (1 - s));
        dgu[at + F] = d * g * s;
        if (p.again != 0)
            dh[i] = g * s * u;
    }
}
