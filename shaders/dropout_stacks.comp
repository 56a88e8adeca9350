// Dropout of the A of all modules, or of their gradients on the way back: see mosld/ops/dropout_stacks.c. A workgroup strides over one
// module's elements, four an invocation, which one Philox block serves.
#version 450
#extension GL_GOOGLE_include_directive : require
#include "dropout_stacks.h"
#include "step.h"
#include "common/philox.glsl"
layout(local_size_x = 128) in;
layout(std430, binding = 0) readonly buffer X { float x[]; };
layout(std430, binding = 1) buffer Y { float y[]; };
layout(std430, binding = 2) readonly buffer Step { uint step_[]; };
layout(std430, binding = 3) readonly buffer Table { uint table[]; };

void one_module(uint entry, uvec2 key, uint drop)
{
    uint n = table[entry + DROPOUT_N], dropped = table[entry + DROPOUT_DROPPED];
    uint from = table[entry + (p.back != 0u ? DROPOUT_STACKED : DROPOUT_FLAT)], to = table[entry + (p.back != 0u ? DROPOUT_FLAT : DROPOUT_STACKED)];
    bool drops = uintBitsToFloat(drop) > 0.0;
    float scale = drops ? 1.0 / (1.0 - uintBitsToFloat(drop)) : 1.0;
    uint threshold = philox_threshold(drop), blocks = n / 4u + (n % 4u != 0u ? 1u : 0u);
    for (uint b = gl_GlobalInvocationID.x; b < blocks; b += gl_NumWorkGroups.x * 128u) {
        uvec4 words = uvec4(0u);
        if (drops && 4u * b < dropped)
            words = philox(uvec4(b, table[entry + DROPOUT_MODULE], table[entry + DROPOUT_LAYER], 0u), key); // 0: DROPOUT_SITE_WEIGHTS
        for (uint j = 0u; j < 4u && 4u * b + j < n; j++) {
            uint i = 4u * b + j;
            float value = x[from + i];
            if (i < dropped && drops)
                value = words[j] < threshold ? value * scale : 0.0;
            y[to + i] = p.back != 0u ? y[to + i] + value : value;
        }
    }
}

void main()
{
    uvec2 key = uvec2(step_[STEP_SEED_LO] ^ step_[STEP_MICRO], step_[STEP_SEED_HI]);
    for (uint m = gl_WorkGroupID.y; m < p.modules; m += gl_NumWorkGroups.y)
        one_module(m * DROPOUT_ENTRY, key, step_[STEP_DROPOUT]);
}
