// Squares of one chunk of the gradient summed up, or the mark of a value that is not finite: see mosld/ops/grad_norm.c.
#version 450
#extension GL_GOOGLE_include_directive : require
#include "optim.h"
layout(local_size_x = GRAD_NORM_THREADS) in;
layout(std430, binding = 0) readonly buffer Grad { uint grad[]; };
layout(std430, binding = 1) writeonly buffer Partial { uint partial[]; };

shared float sums[GRAD_NORM_THREADS];
shared uint bad[GRAD_NORM_THREADS];

void main()
{
    uint tid = gl_LocalInvocationID.x, begin = gl_WorkGroupID.x * p.chunk, end = min(p.n, begin + p.chunk), wrong = 0u;
    float sum = 0.0;
    for (uint i = begin + tid; i < end; i += GRAD_NORM_THREADS) {
        uint bits = grad[i];
        float g = uintBitsToFloat(bits);
        // by its bits: a driver may assume that there is no infinity or NaN
        wrong |= (bits & 0x7f800000u) == 0x7f800000u ? 1u : 0u;
        sum += g * g;
    }
    sums[tid] = sum;
    bad[tid] = wrong;
    for (uint step_ = GRAD_NORM_THREADS / 2u; step_ > 0u; step_ /= 2u) {
        barrier();
        if (tid < step_) {
            sums[tid] += sums[tid + step_];
            bad[tid] |= bad[tid + step_];
        }
    }
    if (tid == 0u)
        partial[gl_WorkGroupID.x] = bad[0] != 0u ? 0x7fc00000u : floatBitsToUint(sums[0]);
}
