#version 450
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : enable
/* y = x W^T, or with NN y = x W: a workgroup makes 64 x 64 outputs from tiles of 16 sums deep in shared memory, W
 * unpacked on the way in; an invocation makes 8 tokens x 4 columns in registers. */
#include "common/matmul.glsl"

layout(local_size_x = 128) in;

const uint TILE = 64, DEPTH = 16;

/* [depth][token or column], four to a vector; a vector more a row spreads the transposing writes over the banks. */
shared vec4 xs[DEPTH][TILE / 4 + 1];
shared vec4 ws[DEPTH][TILE / 4 + 1];

#ifdef NN
#define COLUMNS p.k
#define SUMS p.n
#else
#define COLUMNS p.n
#define SUMS p.k
#endif

float x_or_0(uint t, uint s) { return t < p.rows && s < SUMS ? x[t * p.x_stride + p.x_col + s] : 0.0; }

/* 64 tokens x 16 sums: an invocation reads 8 sums of one token. */
void load_x(uint t0, uint s0)
{
    uint t = gl_LocalInvocationID.x / 2, s = gl_LocalInvocationID.x % 2 * 8;
    [[unroll]] for (uint i = 0; i < 8; i++)
        xs[s + i][t / 4][t % 4] = x_or_0(t0 + t, s0 + s + i);
}

void load_w(uint c0, uint s0)
{
#ifdef NN
    uint s = gl_LocalInvocationID.x / 8, c = gl_LocalInvocationID.x % 8 * 2;
    ws[s][c] = weight_4_or_0(s0 + s, c0 + c * 4);
    ws[s][c + 1] = weight_4_or_0(s0 + s, c0 + c * 4 + 4);
#else
    uint c = gl_LocalInvocationID.x / 2, s = gl_LocalInvocationID.x % 2 * 8;
    [[unroll]] for (uint i = 0; i < 8; i += 4) {
        vec4 v = weight_4_or_0(c0 + c, s0 + s + i);
        for (uint j = 0; j < 4; j++)
            ws[s + i + j][c / 4][c % 4] = v[j];
    }
#endif
}

void make_tile(uint t0, uint c0)
{
    uint cx = gl_LocalInvocationID.x % 16, tx = gl_LocalInvocationID.x / 16;
    vec4 sum[8];
    for (uint i = 0; i < 8; i++)
        sum[i] = vec4(0.0);
    for (uint s0 = 0; s0 < SUMS; s0 += DEPTH) {
        load_x(t0, s0);
        load_w(c0, s0);
        barrier();
        for (uint q = 0; q < DEPTH; q += 4) /* by fours: see MATMUL_TURNS in mosld/ops/matmul_common.h */
            [[unroll]] for (uint u = 0; u < 4; u++) {
                vec4 w = ws[q + u][cx], a = xs[q + u][tx * 2], b = xs[q + u][tx * 2 + 1];
                for (uint i = 0; i < 4; i++) {
                    sum[i] += a[i] * w;
                    sum[i + 4] += b[i] * w;
                }
            }
        barrier();
    }
    for (uint i = 0; i < 8; i++)
        for (uint j = 0; j < 4; j++) {
            uint t = t0 + tx * 8 + i, c = c0 + cx * 4 + j;
            if (t < p.rows && c < COLUMNS)
                store(t, c, sum[i][j]);
        }
}

void main()
{
    for (uint t0 = gl_WorkGroupID.y * TILE; t0 < p.rows; t0 += gl_NumWorkGroups.y * TILE)
        for (uint c0 = gl_WorkGroupID.x * TILE; c0 < COLUMNS; c0 += gl_NumWorkGroups.x * TILE)
            make_tile(t0, c0);
}
