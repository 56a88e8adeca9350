// One step of AdamW, element by element: see mosld/ops/adamw.c.
#version 450
#extension GL_GOOGLE_include_directive : require
#include "optim.h"
#include "step.h"
layout(local_size_x = 128) in;
layout(std430, binding = 0) buffer Param { float param[]; };
layout(std430, binding = 1) readonly buffer Grad { float grad[]; };
layout(std430, binding = 2) buffer Moments { float mv[]; };
layout(std430, binding = 3) readonly buffer Step { uint step_[]; };

void main()
{
    if (step_[STEP_SKIP] != 0u)
        return;
    float lr = uintBitsToFloat(step_[STEP_LR]), clip = uintBitsToFloat(step_[STEP_CLIP]);
    float bias1 = uintBitsToFloat(step_[STEP_BIAS1]), bias2 = uintBitsToFloat(step_[STEP_BIAS2]);
    for (uint i = gl_GlobalInvocationID.x; i < p.n; i += gl_NumWorkGroups.x * 128u) {
        float g = clip * grad[i];
        float m = p.beta1 * mv[i] + p.rest1 * g;
        float v = p.beta2 * mv[p.n + i] + p.rest2 * (g * g);
        float corrected = v / bias2;
        // a driver's root may be x times its inverse root, which is no number at 0
        float root = corrected > 0.0 ? sqrt(corrected) : 0.0;
        float w = param[i];
        w -= lr * p.weight_decay * w;
        param[i] = w - lr * (m / bias1) / (root + p.eps);
        mv[i] = m;
        mv[p.n + i] = v;
    }
}
