#version 450
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : enable
/* y = x W without shared memory, as matmul_nt_rows: an invocation makes 8 tokens x 8 neighbouring columns. */
#include "common/matmul.glsl"

layout(local_size_x = 16) in;

const uint TOKENS = 8, COLUMNS = 8;

void make_block(uint t0, uint c0)
{
    uint x_at[TOKENS];
    vec4 low[TOKENS], high[TOKENS];
    for (uint i = 0; i < TOKENS; i++) {
        x_at[i] = min(t0 + i, p.rows - 1) * p.x_stride + p.x_col;
        low[i] = vec4(0.0);
        high[i] = vec4(0.0);
    }
    /* Four rows of W a turn: see MATMUL_TURNS in mosld/ops/matmul_common.h. Behind the last row W counts as 0. */
    for (uint o = 0; o < p.n; o += 4) {
        [[unroll]] for (uint s = 0; s < 4; s++) {
            vec4 a = weight_4_or_0(o + s, c0), b = weight_4_or_0(o + s, c0 + 4);
            for (uint i = 0; i < TOKENS; i++) {
                float v = x[x_at[i] + min(o + s, p.n - 1)];
                low[i] += v * a;
                high[i] += v * b;
            }
        }
    }
    for (uint i = 0; i < TOKENS; i++)
        for (uint j = 0; j < COLUMNS; j++)
            if (t0 + i < p.rows && c0 + j < p.k)
                store(t0 + i, c0 + j, j < 4 ? low[i][j] : high[i][j - 4]);
}

void main()
{
    uint wide = gl_WorkGroupSize.x * COLUMNS;
    for (uint t0 = gl_WorkGroupID.x * TOKENS; t0 < p.rows; t0 += gl_NumWorkGroups.x * TOKENS)
        for (uint c0 = gl_WorkGroupID.y * wide + gl_LocalInvocationID.x * COLUMNS; c0 < p.k; c0 += gl_NumWorkGroups.y * wide)
            make_block(t0, c0);
}
