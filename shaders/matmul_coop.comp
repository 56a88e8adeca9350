#version 450
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : enable
#extension GL_EXT_shader_explicit_arithmetic_types_float16 : require
#extension GL_KHR_shader_subgroup_basic : require
#extension GL_KHR_memory_scope_semantics : require
#extension GL_KHR_cooperative_matrix : require
/* y = x W^T, or with NN y = x W, by cooperative matrices: f16 inputs, f32 sums. A workgroup makes 64 tokens x 128 columns, or 32 x 64 for
 * devices with few registers, from tiles of 32 sums deep in shared memory, cut into a block a subgroup.
 *
 * f16 reaches from 6e-8 to 65504, which gradients leave at one end and some activations at the other. So each row of x is multiplied
 * by the power of two that puts its largest value at 2^14, which a first pass over the row finds, and its outputs are divided by it. With SPLIT
 * x is the sum of two f16, which lose nothing of it that an f32 product would keep, for twice the matrix products. W is rounded to
 * f16 once: an f16 is exact, a bf16 too unless it is below 4e-6, and any other weight is off by at most 2^-11 of itself; forward and backward read the
 * same W. */
#include "common/matmul.glsl"
#include "common/weight_8.glsl"

layout(local_size_x = 128) in;

layout(constant_id = 0) const uint FORM = 1; /* 1: x in two f16; 2: the small tile */
/* Given by the runtime: the shape of the device's matrices (A: M x K, B: K x N), and its subgroups. */
layout(constant_id = 100) const uint M = 16;
layout(constant_id = 101) const uint N = 16;
layout(constant_id = 102) const uint K = 16;
layout(constant_id = 103) const uint SUBGROUP = 32;

const uint SPLIT = FORM & 1u;
const bool SMALL = (FORM & 2u) != 0u;
const uint TOKENS = SMALL ? 32 : 64, WIDTH = SMALL ? 64 : 128, DEPTH = 32;
const uint BLOCKS = 128 / SUBGROUP, BLOCK_ROWS = (SUBGROUP >= 64 ? 64 : 32) / (SMALL ? 2 : 1),
           BLOCK_COLUMNS = TOKENS * WIDTH / BLOCKS / BLOCK_ROWS;
const uint DOWN = BLOCK_ROWS / M, ACROSS = BLOCK_COLUMNS / N; /* matrices of a block */

/* Rows in vectors of four, with one or two of them more to spread rows over the banks. */
const uint X_ROW = DEPTH / 4 + 2, W_ROW = DEPTH / 4 + 2, W_ROW_NN = WIDTH / 4 + 2;
shared f16vec4 xs[2 * TOKENS * X_ROW]; /* [token][depth], and behind that what the first f16 left */
#ifdef NN
shared f16vec4 ws[DEPTH * W_ROW_NN]; /* [depth][column] */
#else
shared f16vec4 ws[WIDTH * W_ROW]; /* [column][depth] */
#endif
shared float stage[1024]; /* a matrix of sums for each subgroup; and before that, maxima */
shared float row_scale[TOKENS], row_unscale[TOKENS];

#ifdef NN
#define COLUMNS p.k
#define SUMS p.n
#else
#define COLUMNS p.n
#define SUMS p.k
#endif

const float W_SCALE = 16.0; /* keeps small weights out of f16's subnormals, which some devices flush; up to 4094 fits */

/* ---- the scales of the rows ---- */

float largest(vec4 v)
{
    vec4 a = abs(v);
    return max(max(a.x, a.y), max(a.z, a.w));
}

/* Eight invocations a token. */
void scale_rows(uint t0, bool vectors)
{
    uint t = gl_LocalInvocationID.x / 8, lane = gl_LocalInvocationID.x % 8;
    for (uint i = 0; i < TOKENS; i += 16) {
        uint at = min(t0 + t + i, p.rows - 1) * p.x_stride + p.x_col;
        float most = 0.0;
        uint s = lane * 4;
        if (vectors)
            for (; s + 4 <= SUMS; s += 32)
                most = max(most, largest(x4[(at + s) / 4]));
        for (; s < SUMS; s += 32)
            for (uint j = s; j < min(s + 4, SUMS); j++)
                most = max(most, abs(x[at + j]));
        stage[(t + i) * 8 + lane] = most;
    }
    barrier();
    if (gl_LocalInvocationID.x < TOKENS) {
        float most = 0.0;
        for (uint i = 0; i < 8; i++)
            most = max(most, stage[gl_LocalInvocationID.x * 8 + i]);
        uint exponent = min(127 + 14 + 127 - (floatBitsToUint(most) >> 23), 253u);
        row_scale[gl_LocalInvocationID.x] = uintBitsToFloat(exponent << 23);
        row_unscale[gl_LocalInvocationID.x] = uintBitsToFloat((254u - exponent) << 23) / W_SCALE;
    }
    barrier();
}

/* ---- tiles ---- */

void put_x(uint t, uint s, vec4 v)
{
    v *= row_scale[t];
    if (SPLIT != 0) { /* cut by bits: compilers take a float that went through f16 for the same float */
        vec4 first = uintBitsToFloat(floatBitsToUint(v) & 0xffffe000u);
        xs[t * X_ROW + s / 4] = f16vec4(first);
        xs[(TOKENS + t) * X_ROW + s / 4] = f16vec4(v - first);
    } else {
        xs[t * X_ROW + s / 4] = f16vec4(v);
    }
}

/* 8 invocations a token, 4 sums each. */
void load_x(uint t0, uint s0, bool vectors)
{
    uint t = gl_LocalInvocationID.x / 8, s = gl_LocalInvocationID.x % 8 * 4;
    [[unroll]] for (uint i = 0; i < TOKENS; i += 16) {
        uint at = min(t0 + t + i, p.rows - 1) * p.x_stride + p.x_col + s0 + s;
        vec4 v;
        if (vectors)
            v = x4[at / 4];
        else
            [[unroll]] for (uint j = 0; j < 4; j++)
                v[j] = s0 + s + j < SUMS ? x[at + j] : 0.0;
        put_x(t + i, s, v);
    }
}

/* nt: 4 invocations a column, 8 sums each; nn: an invocation has 8 columns of a row of W. */
void load_w(uint c0, uint s0, bool vectors)
{
    [[unroll]] for (uint i = 0; i < WIDTH / 32; i++) {
        vec4 low, high;
#ifdef NN
        const uint ACROSS_ROW = WIDTH / 8;
        uint s = gl_LocalInvocationID.x / ACROSS_ROW + i * (128 / ACROSS_ROW), c = gl_LocalInvocationID.x % ACROSS_ROW * 8,
             at = s * W_ROW_NN + c / 4;
        if (vectors)
            weight_8(s0 + s, min(c0 + c, p.k - 8), low, high);
        else {
            low = weight_4_or_0(s0 + s, c0 + c);
            high = weight_4_or_0(s0 + s, c0 + c + 4);
        }
#else
        uint c = gl_LocalInvocationID.x / 4 + i * 32, s = gl_LocalInvocationID.x % 4 * 8, at = c * W_ROW + s / 4;
        if (vectors)
            weight_8(min(c0 + c, p.n - 1), s0 + s, low, high);
        else {
            low = weight_4_or_0(c0 + c, s0 + s);
            high = weight_4_or_0(c0 + c, s0 + s + 4);
        }
#endif
        ws[at] = f16vec4(W_SCALE * low);
        ws[at + 1] = f16vec4(W_SCALE * high);
    }
}

/* ---- the product ---- */

coopmat<float, gl_ScopeSubgroup, M, N, gl_MatrixUseAccumulator> sum[DOWN * ACROSS];

void add_tile(uint row, uint column)
{
    [[unroll]] for (uint k = 0; k < DEPTH; k += K) {
        coopmat<float16_t, gl_ScopeSubgroup, K, N, gl_MatrixUseB> b[ACROSS];
        [[unroll]] for (uint j = 0; j < ACROSS; j++)
#ifdef NN
            coopMatLoad(b[j], ws, k * W_ROW_NN + (column + j * N) / 4, W_ROW_NN, gl_CooperativeMatrixLayoutRowMajor);
#else
            coopMatLoad(b[j], ws, (column + j * N) * W_ROW + k / 4, W_ROW, gl_CooperativeMatrixLayoutColumnMajor);
#endif
        [[unroll]] for (uint i = 0; i < DOWN; i++) {
            coopmat<float16_t, gl_ScopeSubgroup, M, K, gl_MatrixUseA> a;
            coopMatLoad(a, xs, (row + i * M) * X_ROW + k / 4, X_ROW, gl_CooperativeMatrixLayoutRowMajor);
            [[unroll]] for (uint j = 0; j < ACROSS; j++)
                sum[i * ACROSS + j] = coopMatMulAdd(a, b[j], sum[i * ACROSS + j]);
            if (SPLIT != 0) {
                coopMatLoad(a, xs, (TOKENS + row + i * M) * X_ROW + k / 4, X_ROW, gl_CooperativeMatrixLayoutRowMajor);
                [[unroll]] for (uint j = 0; j < ACROSS; j++)
                    sum[i * ACROSS + j] = coopMatMulAdd(a, b[j], sum[i * ACROSS + j]);
            }
        }
    }
}

/* Through shared memory, since which invocation holds which sum is the device's secret. */
void store_block(uint t0, uint c0, uint row, uint column)
{
    uint mine = gl_SubgroupID * M * N;
    [[unroll]] for (uint i = 0; i < DOWN; i++)
        [[unroll]] for (uint j = 0; j < ACROSS; j++) {
            coopMatStore(sum[i * ACROSS + j], stage, mine, N, gl_CooperativeMatrixLayoutRowMajor);
            subgroupBarrier();
            for (uint e = gl_SubgroupInvocationID; e < M * N; e += gl_SubgroupSize) {
                uint t = row + i * M + e / N, c = c0 + column + j * N + e % N;
                if (t0 + t < p.rows && c < COLUMNS)
                    store(t0 + t, c, stage[mine + e] * row_unscale[t]);
            }
            subgroupBarrier();
        }
}

void make_tile(uint t0, uint c0)
{
    bool vectors = ((p.x_stride | p.x_col) & 3u) == 0u;
    barrier(); /* the tile before may still read the scales */
    scale_rows(t0, vectors);
    vectors = vectors && weight_8_aligned();
#ifdef NN
    vectors = vectors && p.k >= 8 && (p.k & 7u) == 0u;
#endif
    /* One turn, unless the device made its subgroups larger than it said. */
    for (uint first = 0; first < BLOCKS; first += gl_NumSubgroups) {
        uint block = first + gl_SubgroupID, row = block % (TOKENS / BLOCK_ROWS) * BLOCK_ROWS,
             column = block / (TOKENS / BLOCK_ROWS) * BLOCK_COLUMNS;
        [[unroll]] for (uint i = 0; i < DOWN * ACROSS; i++)
            sum[i] = coopmat<float, gl_ScopeSubgroup, M, N, gl_MatrixUseAccumulator>(0.0);
        for (uint s0 = 0; s0 < SUMS; s0 += DEPTH) {
            bool whole = vectors && s0 + DEPTH <= SUMS;
            if (whole) {
                load_x(t0, s0, true);
                load_w(c0, s0, true);
            } else {
                load_x(t0, s0, false);
                load_w(c0, s0, false);
            }
            barrier();
            if (block < BLOCKS)
                add_tile(row, column);
            barrier();
        }
        if (block < BLOCKS)
            store_block(t0, c0, row, column);
    }
}

void main()
{
    for (uint t0 = gl_WorkGroupID.y * TOKENS; t0 < p.rows; t0 += gl_NumWorkGroups.y * TOKENS)
        for (uint c0 = gl_WorkGroupID.x * WIDTH; c0 < COLUMNS; c0 += gl_NumWorkGroups.x * WIDTH)
            make_tile(t0, c0);
}
