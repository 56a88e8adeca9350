#version 450
#extension GL_GOOGLE_include_directive : require
#extension GL_KHR_shader_subgroup_ballot : require
#extension GL_EXT_control_flow_attributes : enable
/* y = x W for drivers that run on the processor and have subgroups of at least 8: as matmul_nn_rows, with x handed
 * round from lane to lane as in matmul_nt_lanes. */
#include "common/matmul.glsl"

layout(local_size_x = 16) in; /* whole subgroups: the host side asks for a size that divides it */

const uint TOKENS = 16, COLUMNS = 4, LANES = 8;

/* whole: the rows of W are whole fours, so that what lies outside is computed from the last columns instead of tested
 * for. */
void make_block(uint t0, uint c0, bool whole)
{
    uint x_at[TOKENS / LANES], c = whole ? min(c0, p.k - 4) : c0;
    vec4 sum[TOKENS];
    for (uint i = 0; i < TOKENS; i++)
        sum[i] = vec4(0.0);
    for (uint h = 0; h < TOKENS / LANES; h++)
        x_at[h] = min(t0 + h * LANES + gl_SubgroupInvocationID % LANES, p.rows - 1) * p.x_stride + p.x_col;
    uint o = 0;
    for (; o + 4 <= p.n; o += 4) { /* by fours: see MATMUL_TURNS in mosld/ops/matmul_common.h */
        vec4 mine[TOKENS / LANES];
        for (uint h = 0; h < TOKENS / LANES; h++)
            mine[h] = vec4(x[x_at[h] + o], x[x_at[h] + o + 1], x[x_at[h] + o + 2], x[x_at[h] + o + 3]);
        [[unroll]] for (uint s = 0; s < 4; s++) {
            vec4 w = whole ? weight_4(o + s, c) : weight_4_or_0(o + s, c);
            for (uint i = 0; i < TOKENS; i++)
                sum[i] += subgroupBroadcast(mine[i / LANES][s], i % LANES) * w;
        }
    }
    for (; o < p.n; o++) {
        vec4 w = whole ? weight_4(o, c) : weight_4_or_0(o, c);
        for (uint i = 0; i < TOKENS; i++)
            sum[i] += subgroupBroadcast(x[x_at[i / LANES] + o], i % LANES) * w;
    }
    for (uint i = 0; i < TOKENS; i++)
        for (uint j = 0; j < COLUMNS; j++)
            if (t0 + i < p.rows && c0 + j < p.k)
                store(t0 + i, c0 + j, sum[i][j]);
}

void main()
{
    uint wide = gl_WorkGroupSize.x * COLUMNS;
    for (uint t0 = gl_WorkGroupID.x * TOKENS; t0 < p.rows; t0 += gl_NumWorkGroups.x * TOKENS)
        for (uint c0 = gl_WorkGroupID.y * wide; c0 < p.k; c0 += gl_NumWorkGroups.y * wide)
            if (p.k % 4 == 0)
                make_block(t0, c0 + gl_LocalInvocationID.x * COLUMNS, true);
            else
                make_block(t0, c0 + gl_LocalInvocationID.x * COLUMNS, false);
}
