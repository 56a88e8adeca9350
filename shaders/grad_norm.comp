// The norm from its partial sums, and what the optimizer is to do with it: see mosld/ops/grad_norm.c. One workgroup.
#version 450
#extension GL_GOOGLE_include_directive : require
#include "optim.h"
#include "step.h"
layout(local_size_x = GRAD_NORM_THREADS) in;
layout(std430, binding = 0) readonly buffer Partial { uint partial[]; };
layout(std430, binding = 1) buffer Step { uint step_[]; };

shared float sums[GRAD_NORM_THREADS];
shared uint bad[GRAD_NORM_THREADS];

bool finite(uint bits)
{
    return (bits & 0x7f800000u) != 0x7f800000u;
}

void main()
{
    uint tid = gl_LocalInvocationID.x, count = (p.n + p.chunk - 1u) / p.chunk, wrong = 0u;
    float sum = 0.0;
    for (uint i = tid; i < count; i += GRAD_NORM_THREADS) {
        wrong |= finite(partial[i]) ? 0u : 1u;
        sum += uintBitsToFloat(partial[i]);
    }
    sums[tid] = sum;
    bad[tid] = wrong;
    for (uint half_ = GRAD_NORM_THREADS / 2u; half_ > 0u; half_ /= 2u) {
        barrier();
        if (tid < half_) {
            sums[tid] += sums[tid + half_];
            bad[tid] |= bad[tid + half_];
        }
    }
    if (tid != 0u)
        return;
    if (bad[0] != 0u || !finite(floatBitsToUint(sums[0]))) {
        step_[STEP_GRAD_NORM] = 0x7fc00000u;
        step_[STEP_CLIP] = 0u;
        step_[STEP_SKIP] = 1u;
        return;
    }
    float norm = sums[0] > 0.0 ? sqrt(sums[0]) : 0.0, max_norm = uintBitsToFloat(step_[STEP_MAX_NORM]);
    step_[STEP_GRAD_NORM] = floatBitsToUint(norm);
    step_[STEP_CLIP] = floatBitsToUint(max_norm > 0.0 ? min(1.0, max_norm / (norm + 1e-6)) : 1.0);
    step_[STEP_SKIP] = 0u;
}
