#version 450
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : enable
#extension GL_EXT_shader_explicit_arithmetic_types_float16 : require
#extension GL_KHR_shader_subgroup_basic : require
#extension GL_KHR_memory_scope_semantics : require
#extension GL_KHR_cooperative_matrix : require
/* o = softmax(scale q k^T) v by cooperative matrices, f16 inputs and f32 sums, with an online softmax over tiles of keys: a group for each 32
 * queries and head; mosld/ops/attention.c.
 *
 * With SPLIT, q, k, v and the weights p are sums of two f16 each (cut by bits), and a product is three: high high, low high, high low.
 * What is left out is 2^-22 of it. A tile is multiplied by the power of two that puts its largest value at 2^14 before it is cut: softmax
 * wants scores to a given distance, not each to a share of itself, so one factor a tile is enough. Values of a group share one factor from tile
 * to tile, which only falls.
 *
 * Which invocation holds which sum is the device's secret. So scores go through shared memory to the softmax, and what was summed
 * before is shrunk by a matrix whose rows are the factors. */
#include "attention.h"

layout(local_size_x = 128) in;

layout(constant_id = 0) const uint FORM = 257; /* twice HEAD, the columns of a head rounded up: 64, 96 or 128; and 1 for SPLIT */
/* Given by the runtime: the shape of the device's matrices (A: M x K, B: K x N), and its subgroups. */
layout(constant_id = 100) const uint M = 16;
layout(constant_id = 101) const uint N = 16;
layout(constant_id = 102) const uint K = 16;
layout(constant_id = 103) const uint SUBGROUP = 32;

const uint HEAD = FORM / 2, SPLIT = FORM & 1u;
const uint CHUNK = HEAD == 64 ? 64 : 32; /* columns of k or v that are in shared memory at a time: all of it stays below 32 KiB */
const uint CHUNKS = HEAD / CHUNK;
const uint SUBGROUPS = 128 / SUBGROUP, DOWN = TILE / M;
const uint SCORES = DOWN * (TILE / N) / SUBGROUPS; /* matrices of a subgroup: of the scores, and of a chunk of the output */
const uint OUTPUTS = DOWN * (CHUNK / N) / SUBGROUPS;

#define MASKED -1e30
#include "common/attention_seen.glsl"

layout(set = 0, binding = 0, std430) readonly buffer qkv_buffer { vec4 qkv4[]; };
layout(set = 0, binding = 1, std430) readonly buffer seg_buffer { uint seg[]; };
layout(set = 0, binding = 2, std430) writeonly buffer o_buffer { float o[]; };
layout(set = 0, binding = 3, std430) writeonly buffer stats_buffer { uint stats[]; };

/* Rows in vectors of four, two of them more to spread rows over the banks; the low parts lie behind the high ones. */
const uint Q_ROW = HEAD / 4 + 2, KV_ROW = CHUNK / 4 + 2, P_ROW = TILE / 4, S_ROW = TILE + 4;
const uint Q_LOW = TILE * Q_ROW, KV_LOW = TILE * KV_ROW, P_LOW = TILE * P_ROW;
shared f16vec4 qs[2 * Q_LOW];  /* [query][column] */
shared f16vec4 kvs[2 * KV_LOW]; /* [key][column] */
shared f16vec4 ps[2 * P_LOW];  /* [query][key] */
shared float ss[TILE * S_ROW]; /* [query][key] scores; then, in columns 0 .. N - 1, what sums shrink by; then outputs. Parts of a row's maximum
                                * and sum behind them. */
shared float row_max[TILE], row_sum[TILE];
shared float most[8];

const float P_SCALE = 16384.0;

uint stride4, k_col, v_col;         /* in vectors of four */
float q_scale, k_scale, v_scale;    /* the same in all invocations */

/* ---- scales ---- */

float largest(vec4 v)
{
    vec4 a = abs(v);
    return max(max(a.x, a.y), max(a.z, a.w));
}

/* 2^14 over the largest value, as a power of two. */
float scale_of(float value) { return uintBitsToFloat(min(127 + 14 + 127 - (floatBitsToUint(value) >> 23), 200u) << 23); }

/* Beyond the end the last row and column are looked at once more: branches would cost more. */
float largest_of(uint row0, uint rows, uint col)
{
    float m = 0.0;
    [[dont_unroll]] for (uint i = 0; i < TILE * HEAD / 4; i += 128) {
        uint at = i + gl_LocalInvocationIndex, r = at / (HEAD / 4), c = at % (HEAD / 4);
        m = max(m, largest(qkv4[(row0 + min(r, rows - 1)) * stride4 + col + min(c, p.head_dim / 4 - 1)]));
    }
    return m;
}

/* The largest a and the largest b of the group. ss is scratch; the barrier before is the caller's. */
vec2 largest_of_group(float a, float b)
{
    uint i = gl_LocalInvocationIndex;
    ss[2 * i] = a;
    ss[2 * i + 1] = b;
    barrier();
    if (i < 8) { /* four parts of either */
        float m = 0.0;
        for (uint j = 0; j < 32; j++)
            m = max(m, ss[2 * (i / 2 * 32 + j) + i % 2]);
        most[i] = m;
    }
    barrier();
    return max(max(vec2(most[0], most[1]), vec2(most[2], most[3])), max(vec2(most[4], most[5]), vec2(most[6], most[7])));
}

/* ---- tiles ---- */

vec4 high_part(vec4 v) { return SPLIT != 0 ? uintBitsToFloat(floatBitsToUint(v) & 0xffffe000u) : v; }

void load_q(uint row0, uint rows, uint col)
{
    for (uint i = gl_LocalInvocationIndex; i < TILE * HEAD / 4; i += 128) {
        uint r = i / (HEAD / 4), c = i % (HEAD / 4);
        vec4 v = r < rows && c < p.head_dim / 4 ? q_scale * qkv4[(row0 + r) * stride4 + col + c] : vec4(0.0), high = high_part(v);
        qs[r * Q_ROW + c] = f16vec4(high);
        if (SPLIT != 0)
            qs[Q_LOW + r * Q_ROW + c] = f16vec4(v - high);
    }
}

/* Columns first4 .. of k or v, which begins at col. */
void load_kv(uint row0, uint rows, uint col, uint first4, float scale)
{
    [[unroll]] for (uint i = 0; i < TILE * CHUNK / 4; i += 128) {
        uint at = i + gl_LocalInvocationIndex, r = at / (CHUNK / 4), c = at % (CHUNK / 4);
        vec4 v = scale * qkv4[(row0 + min(r, rows - 1)) * stride4 + col + min(first4 + c, p.head_dim / 4 - 1)];
        v = r < rows && first4 + c < p.head_dim / 4 ? v : vec4(0.0); /* a zero: whatever stands beyond would count */
        vec4 high = high_part(v);
        kvs[r * KV_ROW + c] = f16vec4(high);
        if (SPLIT != 0)
            kvs[KV_LOW + r * KV_ROW + c] = f16vec4(v - high);
    }
}

/* ---- products ---- */

coopmat<float, gl_ScopeSubgroup, M, N, gl_MatrixUseAccumulator> score[SCORES];
coopmat<float, gl_ScopeSubgroup, M, N, gl_MatrixUseAccumulator> sum[CHUNKS * OUTPUTS];

uint row_of(uint i) { return (gl_SubgroupID + i * SUBGROUPS) % DOWN * M; }
uint col_of(uint i) { return (gl_SubgroupID + i * SUBGROUPS) / DOWN * N; }

/* score += q k^T over a chunk of columns. */
void add_scores(uint first)
{
    [[unroll]] for (uint i = 0; i < SCORES; i++) {
        [[unroll]] for (uint k = 0; k < CHUNK; k += K) {
            coopmat<float16_t, gl_ScopeSubgroup, M, K, gl_MatrixUseA> a;
            coopmat<float16_t, gl_ScopeSubgroup, K, N, gl_MatrixUseB> b;
            uint a_at = row_of(i) * Q_ROW + (first + k) / 4, b_at = col_of(i) * KV_ROW + k / 4;
            coopMatLoad(a, qs, a_at, Q_ROW, gl_CooperativeMatrixLayoutRowMajor);
            if (SPLIT != 0) {
                coopMatLoad(b, kvs, KV_LOW + b_at, KV_ROW, gl_CooperativeMatrixLayoutColumnMajor);
                score[i] = coopMatMulAdd(a, b, score[i]);
            }
            coopMatLoad(b, kvs, b_at, KV_ROW, gl_CooperativeMatrixLayoutColumnMajor);
            score[i] = coopMatMulAdd(a, b, score[i]);
            if (SPLIT != 0) {
                coopMatLoad(a, qs, Q_LOW + a_at, Q_ROW, gl_CooperativeMatrixLayoutRowMajor);
                score[i] = coopMatMulAdd(a, b, score[i]);
            }
        }
    }
}

/* sum = shrink sum + p v for the columns of chunk c. */
void add_outputs(uint c)
{
    [[unroll]] for (uint i = 0; i < OUTPUTS; i++) {
        coopmat<float, gl_ScopeSubgroup, M, N, gl_MatrixUseAccumulator> shrink;
        coopMatLoad(shrink, ss, row_of(i) * S_ROW, S_ROW, gl_CooperativeMatrixLayoutRowMajor);
        sum[c * OUTPUTS + i] *= shrink; /* value by value */
        [[unroll]] for (uint k = 0; k < TILE; k += K) {
            coopmat<float16_t, gl_ScopeSubgroup, M, K, gl_MatrixUseA> a;
            coopmat<float16_t, gl_ScopeSubgroup, K, N, gl_MatrixUseB> b;
            uint a_at = row_of(i) * P_ROW + k / 4, b_at = k * KV_ROW + col_of(i) / 4;
            coopMatLoad(a, ps, a_at, P_ROW, gl_CooperativeMatrixLayoutRowMajor);
            if (SPLIT != 0) {
                coopMatLoad(b, kvs, KV_LOW + b_at, KV_ROW, gl_CooperativeMatrixLayoutRowMajor);
                sum[c * OUTPUTS + i] = coopMatMulAdd(a, b, sum[c * OUTPUTS + i]);
            }
            coopMatLoad(b, kvs, b_at, KV_ROW, gl_CooperativeMatrixLayoutRowMajor);
            sum[c * OUTPUTS + i] = coopMatMulAdd(a, b, sum[c * OUTPUTS + i]);
            if (SPLIT != 0) {
                coopMatLoad(a, ps, P_LOW + a_at, P_ROW, gl_CooperativeMatrixLayoutRowMajor);
                sum[c * OUTPUTS + i] = coopMatMulAdd(a, b, sum[c * OUTPUTS + i]);
            }
        }
    }
}

/* ---- softmax ---- */

/* Four invocations a row, eight keys each: scores in ss become weights in ps, relative to the row's new maximum, and ss the factors of what was
 * summed before; `rescale` is what the scale of v changed by. */
void softmax_tile(uint t0, uint j0, uint keys, float rescale)
{
    uint r = gl_LocalInvocationIndex / 4, part = gl_LocalInvocationIndex % 4, at = r * S_ROW;
    float s[8], top = MASKED, total = 0.0, unscale = p.scale / q_scale / k_scale;
    [[unroll]] for (uint i = 0; i < 8; i++) {
        uint j = part * 8 + i;
        s[i] = j < keys && sees(r, t0 + r, j0 + j) ? ss[at + j] * unscale : MASKED;
        top = max(top, s[i]);
    }
    ss[at + TILE + part] = top;
    barrier();
    float before = row_max[r];
    top = max(max(max(ss[at + TILE], ss[at + TILE + 1]), max(ss[at + TILE + 2], ss[at + TILE + 3])), before);
    [[unroll]] for (uint i = 0; i < 8; i++) {
        s[i] = s[i] == MASKED ? 0.0 : exp(s[i] - top); /* by the mark: where a row sees no key yet, the maximum is the mark too */
        total += s[i];
    }
    [[unroll]] for (uint i = 0; i < 2; i++) {
        vec4 v = P_SCALE * vec4(s[4 * i], s[4 * i + 1], s[4 * i + 2], s[4 * i + 3]), high = high_part(v);
        ps[r * P_ROW + part * 2 + i] = f16vec4(high);
        if (SPLIT != 0)
            ps[P_LOW + r * P_ROW + part * 2 + i] = f16vec4(v - high);
    }
    float shrink = exp(max(before - top, -80.0));
    barrier();
    ss[at + TILE + part] = total;
    for (uint i = part; i < N; i += 4)
        ss[at + i] = shrink * rescale;
    barrier();
    if (part == 0) {
        row_sum[r] = row_sum[r] * shrink + (ss[at + TILE] + ss[at + TILE + 1] + ss[at + TILE + 2] + ss[at + TILE + 3]);
        row_max[r] = top;
    }
}

/* ---- a tile of keys, a tile of queries ---- */

void key_tile(uint t0, uint j0, uint keys)
{
    float k_most = largest_of(j0, keys, k_col), v_most = largest_of(j0, keys, v_col);
    barrier(); /* the tile before is done with ss */
    vec2 top = largest_of_group(k_most, v_most);
    k_scale = scale_of(top.x);
    float fallen = min(v_scale, scale_of(top.y)), rescale = fallen / v_scale;
    v_scale = fallen;
    [[unroll]] for (uint i = 0; i < SCORES; i++)
        score[i] = coopmat<float, gl_ScopeSubgroup, M, N, gl_MatrixUseAccumulator>(0.0);
    [[dont_unroll]] for (uint c = 0; c < CHUNKS; c++) {
        if (c > 0)
            barrier();
        load_kv(j0, keys, k_col, c * CHUNK / 4, k_scale);
        barrier();
        add_scores(c * CHUNK);
    }
    [[unroll]] for (uint i = 0; i < SCORES; i++)
        coopMatStore(score[i], ss, row_of(i) * S_ROW + col_of(i), S_ROW, gl_CooperativeMatrixLayoutRowMajor);
    barrier();
    softmax_tile(t0, j0, keys, rescale);
    [[unroll]] for (uint c = 0; c < CHUNKS; c++) {
        if (c > 0)
            barrier();
        load_kv(j0, keys, v_col, c * CHUNK / 4, v_scale);
        barrier();
        add_outputs(c);
    }
}

void begin_rows(uint t0, uint rows, uint q_col)
{
    uint r = gl_LocalInvocationIndex;
    float q_most = largest_of(t0, rows, q_col);
    barrier(); /* the tile before is done with what is written here */
    if (r < TILE) {
        bool valid = r < rows;
        uint at = valid ? (t0 + r) * 4 : 0;
        set_seen(r, valid, seg[at], seg[at + 1], seg[at + 2]);
        row_max[r] = MASKED;
        row_sum[r] = 0;
    }
    q_scale = scale_of(largest_of_group(q_most, 0.0).x);
    v_scale = uintBitsToFloat(200u << 23);
    load_q(t0, rows, q_col);
    [[unroll]] for (uint i = 0; i < CHUNKS * OUTPUTS; i++)
        sum[i] = coopmat<float, gl_ScopeSubgroup, M, N, gl_MatrixUseAccumulator>(0.0);
    barrier();
}

/* 32 columns at a time through ss. */
void write_rows(uint head, uint t0, uint rows)
{
    for (uint first = 0; first < p.head_dim; first += TILE) {
        barrier();
        [[unroll]] for (uint c = 0; c < CHUNKS; c++)
            [[unroll]] for (uint i = 0; i < OUTPUTS; i++) {
                uint col = c * CHUNK + col_of(i);
                if (col / TILE * TILE == first)
                    coopMatStore(sum[c * OUTPUTS + i], ss, row_of(i) * S_ROW + col % TILE, S_ROW, gl_CooperativeMatrixLayoutRowMajor);
            }
        barrier();
        for (uint i = gl_LocalInvocationIndex; i < rows * TILE; i += 128) {
            uint r = i / TILE, d = i % TILE;
            if (first + d < p.head_dim)
                o[((t0 + r) * p.heads + head) * p.head_dim + first + d] = ss[r * S_ROW + d] / P_SCALE / v_scale / row_sum[r];
        }
    }
    uint r = gl_LocalInvocationIndex;
    if (r < rows) {
        uint at = (t0 + r) * (STATS_LSE + 2 * p.heads);
        stats[at + STATS_LSE + head] = floatBitsToUint(row_max[r] + log(row_sum[r]));
        for (uint i = 0; head == 0 && i < 4; i++)
            stats[at + i] = seg[(t0 + r) * 4 + i];
    }
}

void main()
{
    stride4 = (p.heads + 2 * p.kv_heads) * p.head_dim / 4;
    uint items = (p.T + TILE - 1) / TILE * p.heads;
    for (uint item = gl_WorkGroupID.x; item < items; item += gl_NumWorkGroups.x) {
        uint head = item % p.heads, t0 = item / p.heads * TILE, rows = min(TILE, p.T - t0);
        k_col = (p.heads + head / (p.heads / p.kv_heads)) * p.head_dim / 4;
        v_col = k_col + p.kv_heads * p.head_dim / 4;
        begin_rows(t0, rows, head * p.head_dim / 4);
        uvec3 seen = seen_ranges(rows);
        /* Both ranges in one loop: the code of a tile stands there once. */
        uint end = t0 + rows;
        for (uint j = seen.x < seen.y ? seen.x : seen.z; j < end;) {
            uint stop = j < seen.y ? seen.y : end;
            key_tile(t0, j, min(TILE, stop - j));
            j += TILE;
            if (stop == seen.y && j >= stop)
                j = seen.z;
        }
        write_rows(head, t0, rows);
    }
}
