#version 450
#extension GL_GOOGLE_include_directive : require
/* y = x W^T without shared memory, for drivers that run on the processor and GPUs that keep shared memory in ordinary
 * memory: an invocation makes 8 tokens x 4 neighbouring columns; x stands at addresses that all invocations share. */
#include "common/matmul.glsl"

layout(local_size_x = 16) in;

const uint TOKENS = 8, COLUMNS = 4;

void make_block(uint t0, uint c0)
{
    /* What lies outside is computed from the last row and not stored: no test in the loop. */
    uint x_at[TOKENS], row[COLUMNS];
    vec4 sum[TOKENS];
    for (uint i = 0; i < TOKENS; i++) {
        x_at[i] = min(t0 + i, p.rows - 1) * p.x_stride + p.x_col;
        sum[i] = vec4(0.0);
    }
    for (uint j = 0; j < COLUMNS; j++)
        row[j] = min(c0 + j, p.n - 1);
    uint k = 0;
    for (; k + 4 <= p.k; k += 4) {
        vec4 w[COLUMNS];
        for (uint j = 0; j < COLUMNS; j++)
            w[j] = weight_4(row[j], k);
        for (uint s = 0; s < 4; s++) {
            vec4 column = vec4(w[0][s], w[1][s], w[2][s], w[3][s]);
            for (uint i = 0; i < TOKENS; i++)
                sum[i] += x[x_at[i] + k + s] * column;
        }
    }
    for (; k < p.k; k++) {
        vec4 column = vec4(weight_1(row[0], k), weight_1(row[1], k), weight_1(row[2], k), weight_1(row[3], k));
        for (uint i = 0; i < TOKENS; i++)
            sum[i] += x[x_at[i] + k] * column;
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
        for (uint c0 = gl_WorkGroupID.y * wide + gl_LocalInvocationID.x * COLUMNS; c0 < p.n; c0 += gl_NumWorkGroups.y * wide)
            make_block(t0, c0);
}
