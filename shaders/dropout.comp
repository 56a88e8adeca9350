// y (+)= x * mask / (1 - p) on the first elements, x on the rest: see mosld/ops/dropout.c. An invocation takes the four
// elements that one Philox block serves. -DGIVEN: the mask is read, not drawn.
#version 450
#extension GL_GOOGLE_include_directive : require
#include "dropout.h"
#include "step.h"
#include "common/philox.glsl"
layout(local_size_x = 128) in;
layout(std430, binding = 0) readonly buffer X { float x[]; };
layout(std430, binding = 1) buffer Y { float y[]; };
layout(std430, binding = 2) readonly buffer Step { uint step_[]; };
#ifdef GIVEN
layout(std430, binding = 3) readonly buffer Mask { float mask[]; };
#endif

void store(uint i, float value)
{
    uint to = p.y_offset + i;
    y[to] = p.accumulate != 0u ? y[to] + value : value;
}

void main()
{
    uint drop = step_[STEP_DROPOUT];
    bool drops = uintBitsToFloat(drop) > 0.0;
    float scale = drops ? 1.0 / (1.0 - uintBitsToFloat(drop)) : 1.0;
#ifndef GIVEN
    uvec2 key = uvec2(step_[STEP_SEED_LO] ^ step_[STEP_MICRO], step_[STEP_SEED_HI]);
    uint threshold = philox_threshold(drop);
#endif
    uint blocks = p.dropped / 4u + (p.dropped % 4u != 0u ? 1u : 0u);
    for (uint b = gl_GlobalInvocationID.x; b < blocks; b += gl_NumWorkGroups.x * 128u) {
#ifndef GIVEN
        uvec4 words = philox(uvec4(b, p.module, p.layer, p.site), key);
#endif
        for (uint j = 0u; j < 4u && 4u * b + j < p.dropped; j++) {
            uint i = 4u * b + j;
            float value = x[p.x_offset + i];
#ifdef GIVEN
            store(i, value * mask[p.mask_offset + i] * scale);
#else
            store(i, !drops ? value : words[j] < threshold ? value * scale : 0.0);
#endif
        }
    }
    for (uint i = p.dropped + gl_GlobalInvocationID.x; i < p.n; i += gl_NumWorkGroups.x * 128u)
        store(i, x[p.x_offset + i]);
}
