#version 450
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : enable
/* y = x W for few tokens, or few columns with long sums, as matmul_nt_vec: a workgroup makes 16 columns of 8 tokens. Four invocations
 * read 16 columns of a row of W; sixteen such rows go on at a time, and their partial sums are added as a tree. */
#include "common/matmul.glsl"

layout(local_size_x = 64) in;

const uint LANES = 16, TOKENS = 8, COLUMNS = 16;

shared vec4 partial[TOKENS][LANES][COLUMNS / 4];

void make_columns(uint t0, uint c0)
{
    uint q = gl_LocalInvocationID.x % 4, lane = gl_LocalInvocationID.x / 4, x_at[TOKENS];
    vec4 sum[TOKENS];
    [[unroll]] for (uint t = 0; t < TOKENS; t++) {
        sum[t] = vec4(0.0);
        x_at[t] = min(t0 + t, p.rows - 1) * p.x_stride + p.x_col;
    }
    for (uint o = lane; o < p.n; o += LANES) {
        vec4 w = weight_4_or_0(o, c0 + q * 4);
        [[unroll]] for (uint t = 0; t < TOKENS; t++)
            sum[t] += x[x_at[t] + o] * w;
    }
    [[unroll]] for (uint t = 0; t < TOKENS; t++)
        partial[t][lane][q] = sum[t];
    barrier();
    for (uint width = LANES / 2; width > 0; width /= 2) {
        if (lane < width)
            [[unroll]] for (uint t = 0; t < TOKENS; t++)
                partial[t][lane][q] += partial[t][lane + width][q];
        barrier();
    }
    for (uint i = gl_LocalInvocationID.x; i < TOKENS * COLUMNS; i += 64) {
        uint t = i / COLUMNS, c = i % COLUMNS;
        if (t0 + t < p.rows && c0 + c < p.k)
            store(t0 + t, c0 + c, partial[t][0][c / 4][c % 4]);
    }
    barrier(); /* before the next columns overwrite it */
}

void main()
{
    for (uint t0 = gl_WorkGroupID.y * TOKENS; t0 < p.rows; t0 += gl_NumWorkGroups.y * TOKENS)
        for (uint c0 = gl_WorkGroupID.x * COLUMNS; c0 < p.k; c0 += gl_NumWorkGroups.x * COLUMNS)
            make_columns(t0, c0);
}
