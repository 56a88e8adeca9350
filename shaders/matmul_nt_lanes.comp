#version 450
#extension GL_GOOGLE_include_directive : require
#extension GL_KHR_shader_subgroup_ballot : require
/* y = x W^T for drivers that run on the processor and have subgroups of at least 8: as matmul_nt_rows, but the x of 8
 * tokens is one load, a token a lane, and is handed round from register to register. There, a load costs as much as a
 * dozen multiply-adds. */
#include "common/matmul.glsl"

layout(local_size_x = 16) in; /* whole subgroups: the host side asks for a size that divides it */

const uint TOKENS = 16, COLUMNS = 4, LANES = 8;

void make_block(uint t0, uint c0)
{
    /* What lies outside is computed from the last row and not stored: no test in the loop, and no lane leaves it. */
    uint x_at[TOKENS / LANES], row[COLUMNS];
    vec4 sum[TOKENS];
    for (uint i = 0; i < TOKENS; i++)
        sum[i] = vec4(0.0);
    for (uint h = 0; h < TOKENS / LANES; h++)
        x_at[h] = min(t0 + h * LANES + gl_SubgroupInvocationID % LANES, p.rows - 1) * p.x_stride + p.x_col;
    for (uint j = 0; j < COLUMNS; j++)
        row[j] = min(c0 + j, p.n - 1);
    uint k = 0;
    for (; k + 4 <= p.k; k += 4) {
        vec4 w[COLUMNS], mine[TOKENS / LANES];
        for (uint j = 0; j < COLUMNS; j++)
            w[j] = weight_4(row[j], k);
        for (uint h = 0; h < TOKENS / LANES; h++)
            mine[h] = vec4(x[x_at[h] + k], x[x_at[h] + k + 1], x[x_at[h] + k + 2], x[x_at[h] + k + 3]);
        for (uint s = 0; s < 4; s++) {
            vec4 column = vec4(w[0][s], w[1][s], w[2][s], w[3][s]);
            for (uint i = 0; i < TOKENS; i++)
                sum[i] += subgroupBroadcast(mine[i / LANES][s], i % LANES) * column;
        }
    }
    for (; k < p.k; k++) {
        vec4 column = vec4(weight_1(row[0], k), weight_1(row[1], k), weight_1(row[2], k), weight_1(row[3], k));
        for (uint i = 0; i < TOKENS; i++)
            sum[i] += subgroupBroadcast(x[x_at[i / LANES] + k], i % LANES) * column;
    }
    for (uint i = 0; i < TOKENS; i++)
        for (uint j = 0; j < COLUMNS; j++)
            if (t0 + i < p.rows && c0 + j < p.n)
                store(t0 + i, c0 + j, sum[i][j]);
}

void main()
{
    uint wide = gl_WorkGroupSize.x * COLUMNS;
    for (uint t0 = gl_WorkGroupID.x * TOKENS; t0 < p.rows; t0 += gl_NumWorkGroups.x * TOKENS)
        for (uint c0 = gl_WorkGroupID.y * wide; c0 < p.n; c0 += gl_NumWorkGroups.y * wide)
            make_block(t0, c0 + gl_LocalInvocationID.x * COLUMNS);
}
