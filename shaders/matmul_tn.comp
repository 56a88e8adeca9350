#version 450
#extension GL_GOOGLE_include_directive : require
/* w = x^T y: a workgroup makes 32 x 32 outputs and sums all tokens, 16 at a time through shared memory; an invocation
 * makes 4 x 4. With SPLIT it sums one part of the tokens. */
#include "matmul_tn.h"

layout(local_size_x = 64) in;

layout(std430, set = 0, binding = 0) readonly buffer XBuffer { float x[]; };
layout(std430, set = 0, binding = 1) readonly buffer YBuffer { float y[]; };
layout(std430, set = 0, binding = 2) buffer WBuffer { float w[]; }; /* the parts, with SPLIT */

const uint TILE = 32, DEPTH = 16;

shared vec4 xs[DEPTH][TILE / 4];
shared vec4 ys[DEPTH][TILE / 4];

/* Neighbouring invocations read neighbouring columns. */
void load(uint t0, uint a0, uint b0, uint end)
{
    uint c = gl_LocalInvocationID.x % TILE;
    for (uint s = gl_LocalInvocationID.x / TILE; s < DEPTH; s += 2) {
        uint t = t0 + s;
        xs[s][c / 4][c % 4] = t < end && a0 + c < p.a ? x[t * p.x_stride + p.x_col + a0 + c] : 0.0;
        ys[s][c / 4][c % 4] = t < end && b0 + c < p.b ? y[t * p.y_stride + p.y_col + b0 + c] : 0.0;
    }
}

void store(uint a, uint b, float sum, uint part)
{
#ifdef SPLIT
    w[(part * p.a + a) * p.b + b] = sum;
#else
    uint at = p.w_offset + a * p.b + b;
    float v = p.scale * sum;
    w[at] = p.accumulate != 0 ? w[at] + v : v;
#endif
}

void make_tile(uint a0, uint b0, uint first, uint end, uint part)
{
    uint bx = gl_LocalInvocationID.x % 8, ax = gl_LocalInvocationID.x / 8;
    vec4 sum[4] = vec4[4](vec4(0.0), vec4(0.0), vec4(0.0), vec4(0.0));
    for (uint t0 = first; t0 < end; t0 += DEPTH) {
        load(t0, a0, b0, end);
        barrier();
        for (uint s = 0; s < DEPTH; s++) {
            vec4 a = xs[s][ax], b = ys[s][bx];
            for (uint i = 0; i < 4; i++)
                sum[i] += a[i] * b;
        }
        barrier();
    }
    for (uint i = 0; i < 4; i++)
        for (uint j = 0; j < 4; j++) {
            uint a = a0 + ax * 4 + i, b = b0 + bx * 4 + j;
            if (a < p.a && b < p.b)
                store(a, b, sum[i][j], part);
        }
}

void main()
{
    uint splits = 1, rows = p.rows;
#ifdef SPLIT
    splits = p.splits, rows = p.split_rows;
#endif
    for (uint part = gl_WorkGroupID.z; part < splits; part += gl_NumWorkGroups.z)
        for (uint a0 = gl_WorkGroupID.y * TILE; a0 < p.a; a0 += gl_NumWorkGroups.y * TILE)
            for (uint b0 = gl_WorkGroupID.x * TILE; b0 < p.b; b0 += gl_NumWorkGroups.x * TILE)
                make_tile(a0, b0, part * rows, min(p.rows, (part + 1) * rows), part);
}
