#version 450
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : enable
/* y = x W^T, or with NN y = x W: a workgroup makes TOKENS x 64 outputs from tiles of 16 sums deep in shared memory, W
 * unpacked on the way in; an invocation makes 8 tokens x ACROSS columns in registers.
 *
 * Where strides allow, a whole tile is read in vectors and without a test: what lies outside of the output is computed from the last
 * row or column and not stored. Only the end of the sums, and odd strides, are read value by value.
 *
 * With TAIL the sums go on over z and B (mosld/ops/linear.h). With SPLIT a workgroup makes one part of the sums (mosld/ops/matmul_split.h). */
#ifdef SPLIT
#include "common/matmul_parts.glsl"
#else
#include "common/matmul.glsl"
#endif
#include "common/weight_8.glsl"

layout(local_size_x = 128) in;

#ifdef WIDE
const uint TOKENS = 128, ACROSS = 8;
#else
const uint TOKENS = 64, ACROSS = 4;
#endif
const uint WIDTH = 64, DEPTH = 16;
const uint LANES = WIDTH / ACROSS; /* invocations side by side */

/* [depth][token or column], four to a vector; a vector more a row spreads the transposing writes over the banks. */
shared vec4 xs[DEPTH][TOKENS / 4 + 1];
shared vec4 ws[DEPTH][WIDTH / 4 + 1];

#ifdef NN
#define COLUMNS p.k
#define SUMS p.n
#else
#define COLUMNS p.n
#define SUMS p.k
#endif

/* ---- whole tiles ---- */

bool can_read_vectors()
{
    bool x_aligned = ((p.x_stride | p.x_col) & 3u) == 0u;
#ifdef NN
    return x_aligned && weight_8_aligned() && p.k >= 8 && (p.k & 7u) == 0u;
#else
    return x_aligned && weight_8_aligned();
#endif
}

/* Four invocations read the 16 sums of a token, 32 tokens at a time; x_at: where each of them begins, in vectors. */
void load_x(uint x_at[TOKENS / 32], uint s0)
{
    uint t = gl_LocalInvocationID.x / 4, s = gl_LocalInvocationID.x % 4 * 4;
    [[unroll]] for (uint i = 0; i < TOKENS / 32; i++) {
        vec4 v = x4[x_at[i] + s0 / 4];
        [[unroll]] for (uint j = 0; j < 4; j++)
            xs[s + j][t / 4 + i * 8][t % 4] = v[j];
    }
}

void load_w(uint c0, uint s0)
{
    vec4 low, high;
#ifdef NN
    uint s = gl_LocalInvocationID.x / 8, c = gl_LocalInvocationID.x % 8 * 2;
    weight_8(s0 + s, min(c0 + c * 4, p.k - 8), low, high);
    ws[s][c] = low;
    ws[s][c + 1] = high;
#else
    uint c = gl_LocalInvocationID.x / 2, s = gl_LocalInvocationID.x % 2 * 8;
    weight_8(min(c0 + c, p.n - 1), s0 + s, low, high);
    [[unroll]] for (uint j = 0; j < 4; j++) {
        ws[s + j][c / 4][c % 4] = low[j];
        ws[s + 4 + j][c / 4][c % 4] = high[j];
    }
#endif
}

/* ---- tiles that end inside, or odd strides; no loops, which count: see MATMUL_TURNS in mosld/ops/matmul_common.h ---- */

void load_x_or_0(uint t0, uint s0)
{
    uint t = gl_LocalInvocationID.x / 4, s = gl_LocalInvocationID.x % 4 * 4;
    [[unroll]] for (uint i = 0; i < TOKENS; i += 32) {
        uint at = min(t0 + t + i, p.rows - 1) * p.x_stride + p.x_col + s0;
        [[unroll]] for (uint j = 0; j < 4; j++)
            xs[s + j][(t + i) / 4][t % 4] = s0 + s + j < SUMS ? x[at + s + j] : 0.0;
    }
}

void load_w_or_0(uint c0, uint s0)
{
#ifdef NN
    uint s = gl_LocalInvocationID.x / 8, c = gl_LocalInvocationID.x % 8 * 2;
    [[unroll]] for (uint i = 0; i < 2; i++)
        ws[s][c + i] = weight_4_or_0(s0 + s, c0 + (c + i) * 4);
#else
    uint c = gl_LocalInvocationID.x / 2, s = gl_LocalInvocationID.x % 2 * 8;
    [[unroll]] for (uint i = 0; i < 8; i += 4) {
        vec4 v = weight_4_or_0(c0 + c, s0 + s + i);
        [[unroll]] for (uint j = 0; j < 4; j++)
            ws[s + i + j][c / 4][c % 4] = v[j];
    }
#endif
}

#ifdef TAIL
#include "common/matmul_tail.glsl"
#define TAIL_SUMS p.r
const bool TAILED = true;
#else
#define TAIL_SUMS 0
const bool TAILED = false;
void load_tail(uint t0, uint c0, uint s0) {}
#endif

/* ---- the product ---- */

/* The sums over terms [first, end); first is a multiple of DEPTH, and end too, or it is SUMS. */
void make_tile(uint t0, uint c0, uint first, uint end, uint part)
{
    uint cx = gl_LocalInvocationID.x % LANES, tx = gl_LocalInvocationID.x / LANES;
    bool vectors = can_read_vectors();
    uint x_at[TOKENS / 32];
    [[unroll]] for (uint i = 0; i < TOKENS / 32; i++)
        x_at[i] = (min(t0 + gl_LocalInvocationID.x / 4 + i * 32, p.rows - 1) * p.x_stride + p.x_col) / 4 + gl_LocalInvocationID.x % 4;
    vec4 sum[8][ACROSS / 4];
    [[unroll]] for (uint i = 0; i < 8; i++)
        [[unroll]] for (uint h = 0; h < ACROSS / 4; h++)
            sum[i][h] = vec4(0.0);
    uint sums = (end + DEPTH - 1) / DEPTH * DEPTH;
    for (uint s0 = first; s0 < sums + TAIL_SUMS; s0 += DEPTH) {
        if (TAILED && s0 >= sums) {
            load_tail(t0, c0, s0 - sums);
        } else if (vectors && s0 + DEPTH <= SUMS) {
            load_x(x_at, s0);
            load_w(c0, s0);
        } else {
            load_x_or_0(t0, s0);
            load_w_or_0(c0, s0);
        }
        barrier();
        for (uint q = 0; q < DEPTH; q += 4) /* by fours: see MATMUL_TURNS in mosld/ops/matmul_common.h */
            [[unroll]] for (uint u = 0; u < 4; u++) {
                vec4 a = xs[q + u][tx], b = xs[q + u][tx + TOKENS / 8];
                [[unroll]] for (uint h = 0; h < ACROSS / 4; h++) {
                    vec4 w = ws[q + u][cx + h * LANES];
                    [[unroll]] for (uint i = 0; i < 4; i++) {
                        sum[i][h] += a[i] * w;
                        sum[i + 4][h] += b[i] * w;
                    }
                }
            }
        barrier();
    }
#ifdef SPLIT
    uint columns = (COLUMNS + 3) / 4;
    [[unroll]] for (uint i = 0; i < 8; i++)
        [[unroll]] for (uint h = 0; h < ACROSS / 4; h++) {
            uint t = t0 + (i / 4 * (TOKENS / 8) + tx) * 4 + i % 4, c = c0 / 4 + cx + h * LANES;
            if (t < p.rows && c < columns)
                parts[(part * p.rows + t) * columns + c] = sum[i][h];
        }
#else
    bool whole = t0 + TOKENS <= p.rows && c0 + WIDTH <= COLUMNS && can_store_vectors();
    [[unroll]] for (uint i = 0; i < 8; i++)
        [[unroll]] for (uint h = 0; h < ACROSS / 4; h++) {
            uint t = t0 + (i / 4 * (TOKENS / 8) + tx) * 4 + i % 4, c = c0 + (cx + h * LANES) * 4;
            if (whole)
                store_4(t, c, sum[i][h]);
            else if (t < p.rows)
                [[unroll]] for (uint j = 0; j < 4; j++) /* a loop in here would keep NVIDIA's compilers from unrolling i, and all sums in memory */
                    if (c + j < COLUMNS)
                        store(t, c + j, sum[i][h][j]);
        }
#endif
}

void main()
{
#ifdef SPLIT
    for (uint part = gl_WorkGroupID.z; part < p.splits; part += gl_NumWorkGroups.z)
        for (uint t0 = gl_WorkGroupID.y * TOKENS; t0 < p.rows; t0 += gl_NumWorkGroups.y * TOKENS)
            for (uint c0 = gl_WorkGroupID.x * WIDTH; c0 < COLUMNS; c0 += gl_NumWorkGroups.x * WIDTH)
                make_tile(t0, c0, part * p.split_sums, min(SUMS, (part + 1) * p.split_sums), part);
#else
    for (uint t0 = gl_WorkGroupID.y * TOKENS; t0 < p.rows; t0 += gl_NumWorkGroups.y * TOKENS)
        for (uint c0 = gl_WorkGroupID.x * WIDTH; c0 < COLUMNS; c0 += gl_NumWorkGroups.x * WIDTH)
            make_tile(t0, c0, 0, SUMS, 0);
#endif
}
