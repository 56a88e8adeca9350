// du and dl from dz: see mosld/ops/gate_bwd.c. A workgroup a token; -DBALANCE adds the balance loss's gradient.
#version 450
#extension GL_GOOGLE_include_directive : require
#include "gate.h"
layout(local_size_x = 64) in;
layout(std430, binding = 0) readonly buffer Ul { float ul[]; };
layout(std430, binding = 1) readonly buffer Dz { float dz[]; };
layout(std430, binding = 2) writeonly buffer Dul { float dul[]; };
#ifdef BALANCE
layout(std430, binding = 3) readonly buffer Stats { float stats[]; };
#endif
#include "common/gate_row.glsl"

shared float part[64 * 33]; // products <dz_e, u> of up to 32 lanes an expert; rows of 33 keep lanes in different banks
shared float dg[64];

// <dz_e, u> by `lanes` invocations an expert, for the experts that were kept: the others' dz is not even read.
void dot_experts(uint tid, uint lanes, uint u, uint first)
{
    uint lane = tid % lanes;
    for (uint e = tid / lanes; e < p.experts; e += 64u / lanes) {
        float sum = 0.0;
        if (gate_g[e] != 0.0)
            for (uint i = lane; i < p.r; i += lanes)
                sum += dz[first + e * p.r + i] * ul[u + i];
        part[e * 33u + lane] = sum;
    }
    barrier();
    if (tid < p.experts) {
        float sum = 0.0;
        for (uint i = 0u; i < lanes; i++)
            sum += part[tid * 33u + i];
        dg[tid] = sum;
    }
    barrier();
}

float logit_gradient(uint e)
{
    float mean = 0.0;
    for (uint j = 0u; j < p.experts; j++)
        mean += gate_g[j] * dg[j];
    float dl = gate_g[e] * (dg[e] - mean);
#ifdef BALANCE
    float f = 0.0; // the mean of the shares under p
    for (uint j = 0u; j < p.experts; j++)
        f += gate_p[j] * stats[p.stats_offset + j];
    dl += p.balance * gate_p[e] * (stats[p.stats_offset + e] - f);
#endif
    return dl;
}

void main()
{
    uint tid = gl_LocalInvocationID.x, lanes = 1u;
    while (lanes < p.r && lanes < 32u)
        lanes *= 2u;
    for (uint t = gl_WorkGroupID.x; t < p.rows; t += gl_NumWorkGroups.x) {
        uint row = t * p.ul_stride, first = t * p.experts * p.r;
        gate_decide(tid, tid < p.experts ? ul[row + p.l_col + tid] : 0.0);
        dot_experts(tid, lanes, row + p.u_col, first);
        if (tid < p.experts)
            dul[row + p.l_col + tid] = logit_gradient(tid);
        for (uint i = tid; i < p.r; i += 64u) {
            float sum = 0.0;
            for (uint e = 0u; e < p.experts; e++)
                if (gate_g[e] != 0.0)
                    sum += gate_g[e] * dz[first + e * p.r + i];
            dul[row + p.u_col + i] = sum;
        }
        barrier(); // before the next token's decision overwrites the gate
    }
}
