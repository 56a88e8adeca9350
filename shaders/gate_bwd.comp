// du and dl from dz, and z in dz's place: see mosld/ops/gate_bwd.c. A workgroup a few pairs of token and module; -DBALANCE adds the
// balance loss's gradient.
#version 450
#extension GL_GOOGLE_include_directive : require
#include "gate.h"
layout(local_size_x = 64) in;
layout(std430, binding = 0) readonly buffer Ul { float ul[]; };
layout(std430, binding = 1) buffer Dz { float dz[]; }; // then z
layout(std430, binding = 2) writeonly buffer Dul { float dul[]; };
#ifdef BALANCE
layout(std430, binding = 3) readonly buffer Stats { float stats[]; };
#endif
#include "common/gate_pairs.glsl"

shared float dg[64];

// <dz_e, u> of a pair's expert e; 0, and dz not even read, where it was not kept.
float gate_gradient(uint tid, uint pair, uint e)
{
    uint from = (pair * p.experts + e) * p.r, u = gate_word(pair, p.u_col);
    float sum = 0.0;
    if (gate_g[tid] != 0.0)
        for (uint i = 0u; i < p.r; i++)
            sum += dz[from + i] * ul[u + i];
    return sum;
}

float logit_gradient(uint tid, uint pair, uint e)
{
    uint from = tid - e;
    float mean = 0.0;
    for (uint j = 0u; j < p.experts; j++)
        mean += gate_g[from + j] * dg[from + j];
    float dl = gate_g[tid] * (dg[tid] - mean);
#ifdef BALANCE
    uint shares = p.stats_offset + pair % p.modules * p.stats_stride;
    float f = 0.0; // the mean of the shares under p
    for (uint j = 0u; j < p.experts; j++)
        f += gate_p[from + j] * stats[shares + j];
    dl += p.balance * gate_p[tid] * (stats[shares + e] - f);
#endif
    return dl;
}

// du_i, and z[e r + i] in place of dz[e r + i] for all e: nobody else reads or writes these any more.
void turn_to_z(uint slot, uint lanes, uint pair, uint i)
{
    uint at = gate_word(pair, p.u_col) + i, first = pair * p.experts * p.r + i;
    float u = ul[at], sum = 0.0;
    for (uint e = 0u; e < p.experts; e++) {
        float g = gate_g[slot * lanes + e];
        if (g != 0.0)
            sum += g * dz[first + e * p.r];
        dz[first + e * p.r] = g * u;
    }
    dul[at] = sum;
}

void main()
{
    uint tid = gl_LocalInvocationID.x, lanes = gate_lanes(), slots = 64u / lanes, pairs = p.rows * p.modules;
    uint e = tid % lanes;
    for (uint first = gl_WorkGroupID.x * slots; first < pairs; first += gl_NumWorkGroups.x * slots) {
        uint pair = first + tid / lanes;
        bool mine = e < p.experts && pair < pairs;
        gate_decide(tid, lanes, first, pairs);
        dg[tid] = mine ? gate_gradient(tid, pair, e) : 0.0;
        memoryBarrierBuffer();
        barrier(); // dz has been read for dg
        if (mine)
            dul[gate_word(pair, p.l_col) + e] = logit_gradient(tid, pair, e);
        for (uint i = tid; i < min(slots, pairs - first) * p.r; i += 64u)
            turn_to_z(i / p.r, lanes, first + i / p.r, i % p.r);
        barrier(); // before the next decisions overwrite these
    }
}
