// Share of the places and mean probability of one expert over all tokens: see mosld/ops/router_stats.c. A workgroup an
// expert.
#version 450
#extension GL_GOOGLE_include_directive : require
#include "gate.h"
layout(local_size_x = 128) in;
layout(std430, binding = 0) readonly buffer Ul { float ul[]; };
layout(std430, binding = 1) writeonly buffer Stats { float stats[]; };

shared uint kept[128];
shared float mean[128];

void main()
{
    uint tid = gl_LocalInvocationID.x, e = gl_WorkGroupID.x, count = 0u;
    float sum = 0.0;
    for (uint t = tid; t < p.rows; t += 128u) {
        uint l = t * p.ul_stride + p.l_col, before = 0u;
        float mine = ul[l + e], top = mine, all = 0.0;
        for (uint j = 0u; j < p.experts; j++) {
            float other = ul[l + j];
            top = max(top, other);
            before += other > mine || (other == mine && j < e) ? 1u : 0u;
        }
        for (uint j = 0u; j < p.experts; j++)
            all += exp(ul[l + j] - top);
        sum += exp(mine - top) / all;
        count += before < p.top_k ? 1u : 0u;
    }
    kept[tid] = count;
    mean[tid] = sum;
    for (uint half_ = 64u; half_ > 0u; half_ /= 2u) {
        barrier();
        if (tid < half_) {
            kept[tid] += kept[tid + half_];
            mean[tid] += mean[tid + half_];
        }
    }
    if (tid == 0u) {
        stats[p.stats_offset + e] = float(kept[0]) / (float(p.rows) * float(min(p.top_k, p.experts)));
        stats[p.stats_offset + p.experts + e] = mean[0] / float(p.rows);
    }
}
