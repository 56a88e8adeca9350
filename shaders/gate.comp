// z[t, m, e r + i] = g_tme u_tmi, the gates g from the routers' logits: see mosld/ops/gate.c. A workgroup a few pairs of token and
// module. -DCOUNTS: some of the workgroups make the statistics meanwhile, one an expert of a module, over all tokens.
#version 450
#extension GL_GOOGLE_include_directive : require
#include "gate.h"
layout(local_size_x = 64) in;
layout(std430, binding = 0) readonly buffer Ul { float ul[]; };
layout(std430, binding = 1) writeonly buffer Z { float z[]; };
#ifdef COUNTS
layout(std430, binding = 2) writeonly buffer Stats { float stats[]; };
#endif
#include "common/gate_pairs.glsl"

void make_z(uint tid, uint lanes, uint first, uint pairs)
{
    uint width = p.experts * p.r, n = min(64u / lanes, pairs - first) * width;
    gate_decide(tid, lanes, first, pairs);
    for (uint i = tid; i < n; i += 64u) {
        uint slot = i / width, in_pair = i - slot * width, e = in_pair / p.r;
        z[first * width + i] = gate_g[slot * lanes + e] * ul[gate_word(first + slot, p.u_col) + in_pair - e * p.r];
    }
    barrier(); // before the next decisions overwrite these
}

#ifdef COUNTS
shared uint kept[64];
shared float mean[64];

// Each invocation makes the softmax of every 64th token again, so nothing is passed from workgroup to workgroup, and the order of the
// sums is fixed.
void count(uint tid, uint module, uint e)
{
    uint times = 0u;
    float sum = 0.0;
    for (uint t = tid; t < p.rows; t += 64u) {
        uint l = gate_word(t * p.modules + module, p.l_col), before = 0u;
        float mine = ul[l + e], top = mine, all = 0.0;
        for (uint j = 0u; j < p.experts; j++) {
            float other = ul[l + j];
            top = max(top, other);
            before += other > mine || (other == mine && j < e) ? 1u : 0u;
        }
        for (uint j = 0u; j < p.experts; j++)
            all += exp(ul[l + j] - top);
        sum += exp(mine - top) / all;
        times += before < p.top_k ? 1u : 0u;
    }
    kept[tid] = times;
    mean[tid] = sum;
    for (uint half_ = 32u; half_ > 0u; half_ /= 2u) {
        barrier();
        if (tid < half_) {
            kept[tid] += kept[tid + half_];
            mean[tid] += mean[tid + half_];
        }
    }
    if (tid == 0u) {
        uint to = p.stats_offset + module * p.stats_stride;
        stats[to + e] = float(kept[0]) / (float(p.rows) * float(min(p.top_k, p.experts)));
        stats[to + p.experts + e] = mean[0] / float(p.rows);
    }
    barrier();
}
#endif

void main()
{
    uint tid = gl_LocalInvocationID.x, lanes = gate_lanes(), slots = 64u / lanes, pairs = p.rows * p.modules;
    uint blocks = (pairs + slots - 1u) / slots, counted = 0u;
#ifdef COUNTS
    counted = p.modules * p.experts;
#endif
    for (uint i = gl_WorkGroupID.x; i < counted + blocks; i += gl_NumWorkGroups.x) {
#ifdef COUNTS
        if (i < counted) {
            count(tid, i / p.experts, i % p.experts);
            continue;
        }
#endif
        make_z(tid, lanes, (i - counted) * slots, pairs);
    }
}
