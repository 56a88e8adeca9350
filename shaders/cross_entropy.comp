// Loss, best index and, in place, the gradient of rows of logits: see mosld/ops/cross_entropy.c. A workgroup a row.
#version 450
#extension GL_GOOGLE_include_directive : require
#include "cross_entropy.h"
layout(local_size_x = 128) in;
layout(std430, binding = 0) buffer Logits { float logits[]; };
layout(std430, binding = 1) readonly buffer Targets { uint targets[]; };
layout(std430, binding = 2) writeonly buffer Loss { uint loss[]; };

const float LOWEST = -3.0e38; // below every logit, and finite

shared float maxima[128];
shared float sums[128]; // of e^(logit - max)
shared uint places[128]; // of the maximum, the lowest

// Adds what `b` saw to what `a` saw.
void merge(uint a, uint b)
{
    float ma = maxima[a], mb = maxima[b], m = max(ma, mb);
    sums[a] = sums[a] * exp(ma - m) + sums[b] * exp(mb - m);
    places[a] = mb > ma || (mb == ma && places[b] < places[a]) ? places[b] : places[a];
    maxima[a] = m;
}

// One pass over the row: maximum and sum together, the sum being scaled down whenever the maximum grows.
void scan(uint tid, uint row)
{
    float m = LOWEST, s = 0.0;
    uint place = p.V;
    for (uint v = tid; v < p.V; v += 128u) {
        float l = logits[row + v];
        float e = exp(-abs(l - m));
        bool grows = l > m;
        s = grows ? s * e + 1.0 : s + e;
        place = grows ? v : place;
        m = grows ? l : m;
    }
    maxima[tid] = m;
    sums[tid] = s;
    places[tid] = place;
    for (uint step_ = 64u; step_ > 0u; step_ /= 2u) {
        barrier();
        if (tid < step_)
            merge(tid, tid + step_);
    }
    barrier();
}

void main()
{
    uint tid = gl_LocalInvocationID.x;
    for (uint i = gl_WorkGroupID.x; i < p.n; i += gl_NumWorkGroups.x) {
        uint row = i * p.V, target = targets[p.row0 + i];
        scan(tid, row);
        float m = maxima[0], s = sums[0];
        if (tid == 0u) {
            loss[2u * (p.row0 + i)] = floatBitsToUint(log(s) + (m - (target < p.V ? logits[row + target] : m)));
            loss[2u * (p.row0 + i) + 1u] = places[0];
        }
        barrier(); // the target's logit has been read, and so have the results
        if (p.grad_scale != 0.0) {
            float factor = p.grad_scale / s;
            for (uint v = tid; v < p.V; v += 128u) {
                float gradient = factor * exp(logits[row + v] - m);
                logits[row + v] = v == target ? gradient - p.grad_scale : gradient;
            }
        }
    }
}
