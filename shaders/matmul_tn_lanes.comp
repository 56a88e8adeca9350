#version 450
#extension GL_GOOGLE_include_directive : require
#extension GL_KHR_shader_subgroup_ballot : require
/* w = x^T y for drivers that run on the processor and have subgroups of at least 8, without shared memory: an invocation
 * makes 16 rows x 4 neighbouring columns, and the x of 8 rows is one load, a row a lane, as in matmul_nt_lanes. */
#include "matmul_tn.h"

layout(local_size_x = 16) in; /* whole subgroups: the host side asks for a size that divides it */

layout(std430, set = 0, binding = 0) readonly buffer XBuffer { float x[]; };
layout(std430, set = 0, binding = 1) readonly buffer YBuffer { float y[]; };
layout(std430, set = 0, binding = 2) buffer WBuffer { float w[]; };

const uint ROWS = 16, COLUMNS = 4, LANES = 8;

void make_block(uint a0, uint b0)
{
    /* What lies outside is computed from the last row or column and not stored: no test in the loop, no lane leaves it. */
    uint x_at[ROWS / LANES], y_at[COLUMNS];
    vec4 sum[ROWS];
    for (uint i = 0; i < ROWS; i++)
        sum[i] = vec4(0.0);
    for (uint h = 0; h < ROWS / LANES; h++)
        x_at[h] = p.x_col + min(a0 + h * LANES + gl_SubgroupInvocationID % LANES, p.a - 1);
    for (uint j = 0; j < COLUMNS; j++)
        y_at[j] = p.y_col + min(b0 + j, p.b - 1);
    for (uint t = 0; t < p.rows; t++) {
        uint x_row = t * p.x_stride, y_row = t * p.y_stride;
        vec4 v = vec4(y[y_row + y_at[0]], y[y_row + y_at[1]], y[y_row + y_at[2]], y[y_row + y_at[3]]);
        float mine[ROWS / LANES];
        for (uint h = 0; h < ROWS / LANES; h++)
            mine[h] = x[x_row + x_at[h]];
        for (uint i = 0; i < ROWS; i++)
            sum[i] += subgroupBroadcast(mine[i / LANES], i % LANES) * v;
    }
    for (uint i = 0; i < ROWS; i++)
        for (uint j = 0; j < COLUMNS; j++)
            if (a0 + i < p.a && b0 + j < p.b) {
                uint at = p.w_offset + (a0 + i) * p.b + b0 + j;
                float v = p.scale * sum[i][j];
                w[at] = p.accumulate != 0 ? w[at] + v : v;
            }
}

void main()
{
    uint wide = gl_WorkGroupSize.x * COLUMNS;
    for (uint a0 = gl_WorkGroupID.y * ROWS; a0 < p.a; a0 += gl_NumWorkGroups.y * ROWS)
        for (uint b0 = gl_WorkGroupID.x * wide; b0 < p.b; b0 += gl_NumWorkGroups.x * wide)
            make_block(a0, b0 + gl_LocalInvocationID.x * COLUMNS);
}
