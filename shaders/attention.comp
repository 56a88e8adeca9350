#version 450
// o = softmax(scale q k^T) v with an online softmax over tiles of keys, a group for each tile of queries and head;
// mosld/ops/attention.c. CACHE: keys and values lie in the cache in the type KV_TYPE, and query token i sees the first pos0 + i + 1 of them, or the last
// p.window of those; mosld/ops/attention_cache.c.
#extension GL_GOOGLE_include_directive : require
#include "attention.h"
#include "common/attention_tile.glsl"

layout(set = 0, binding = 0, std430) readonly buffer qkv_buffer { float qkv[]; };
#ifdef CACHE
layout(set = 0, binding = 2, std430) writeonly buffer o_buffer { float o[]; };
layout(set = 0, binding = 3, std430) readonly buffer where_buffer { uint where[]; };
#define KV_TABLE(i) where[p.table + (i)]
#include "common/kv_cache.glsl"

// b_tile[r, c] = number col + c of position j0 + r for r < keys and c < cols, which is even, else 0.
#define LOAD_KV(j0, col, keys, cols)                                                                          \
    for (uint k_ = gl_LocalInvocationIndex; k_ < TILE * TILE / 2; k_ += GROUP) {                              \
        uint r_ = k_ / (TILE / 2), c_ = k_ % (TILE / 2) * 2;                                                  \
        vec2 two_ = r_ < (keys) && c_ < (cols) ? kv_pair(kv_row((j0) + r_), (col) + c_) : vec2(0);            \
        b_tile[r_ * PITCH + c_] = two_.x;                                                                     \
        b_tile[r_ * PITCH + c_ + 1] = two_.y;                                                                 \
    }
#else
layout(set = 0, binding = 1, std430) readonly buffer seg_buffer { uint seg[]; };
layout(set = 0, binding = 2, std430) writeonly buffer o_buffer { float o[]; };
layout(set = 0, binding = 3, std430) writeonly buffer stats_buffer { uint stats[]; };
#define LOAD_KV(j0, col, keys, cols) LOAD_TILE(b_tile, qkv, (j0) * q_stride + (col), q_stride, keys, cols)
#endif

shared float row_max[TILE], row_sum[TILE], row_scale[TILE];
shared float part_max[GROUP], part_sum[GROUP];

uint q_stride, k_col, v_col;
float out_sum[OUT_CHUNKS][8];

// s_tile becomes the keys' weights, relative to each row's new maximum; row_scale is what earlier sums shrink by. Four
// invocations share a row.
void softmax_tile()
{
    uint i = gl_LocalInvocationIndex, r = i / 4, at = r * PITCH + i % 4 * 8;
    float most = MASKED, sum = 0;
    for (uint j = 0; j < 8; j++)
        most = max(most, s_tile[at + j]);
    part_max[i] = most;
    barrier();
    most = row_max[r];
    for (uint j = 0; j < 4; j++)
        most = max(most, part_max[r * 4 + j]);
    for (uint j = 0; j < 8; j++) {
        float s = s_tile[at + j];
        s = s == MASKED ? 0 : exp(s - most); // by the mark: where a row sees no key yet, the maximum is the mark too
        s_tile[at + j] = s;
        sum += s;
    }
    part_sum[i] = sum;
    float shrink = exp(max(row_max[r] - most, -80));
    barrier();
    if (i % 4 == 0) {
        row_sum[r] = row_sum[r] * shrink + (part_sum[i] + part_sum[i + 1] + part_sum[i + 2] + part_sum[i + 3]);
        row_max[r] = most;
        row_scale[r] = shrink;
    }
    barrier();
}

void key_tile(uint head, uint t0, uint rows, uint j0, uint keys, uint out0)
{
    float acc[8];
    clear(acc);
    for (uint c = 0; c < p.head_dim; c += TILE) {
        barrier();
        LOAD_TILE(a_tile, qkv, t0 * q_stride + head * p.head_dim + c, q_stride, rows, p.head_dim - c)
        LOAD_KV(j0, k_col + c, keys, p.head_dim - c)
        barrier();
        add_a_bt(acc);
    }
    [[unroll]] for (uint i = 0; i < 8; i++) {
        uint r = row_of(i), j = col_of(i);
        s_tile[r * PITCH + j] = j < keys && sees(r, p.pos0 + t0 + r, j0 + j) ? acc[i] * p.scale : MASKED;
    }
    barrier();
    softmax_tile();
    [[unroll]] for (uint c = 0; c < OUT_CHUNKS; c++) {
        [[unroll]] for (uint i = 0; i < 8; i++)
            out_sum[c][i] *= row_scale[row_of(i)];
        uint col = out0 + c * TILE;
        if (col < p.head_dim) {
            barrier();
            LOAD_KV(j0, v_col + col, keys, p.head_dim - col)
            barrier();
            add_s_b(out_sum[c]);
        }
    }
}

void begin_rows(uint t0, uint rows)
{
    uint r = gl_LocalInvocationIndex;
    barrier(); // the tile before is done with what is written here
    if (r < TILE) {
        bool valid = r < rows;
#ifdef CACHE
        set_seen(r, valid, kv_first(p.pos0 + t0 + r), 0, 0);
#else
        uint at = valid ? (t0 + r) * 4 : 0;
        set_seen(r, valid, seg[at], seg[at + 1], seg[at + 2]);
#endif
        row_max[r] = MASKED;
        row_sum[r] = 0;
    }
    [[unroll]] for (uint c = 0; c < OUT_CHUNKS; c++)
        clear(out_sum[c]);
    barrier();
}

void write_rows(uint head, uint t0, uint rows, uint out0)
{
    [[unroll]] for (uint c = 0; c < OUT_CHUNKS; c++) {
        [[unroll]] for (uint i = 0; i < 8; i++) {
            uint r = row_of(i), d = out0 + c * TILE + col_of(i);
            if (r < rows && d < p.head_dim)
                o[((t0 + r) * p.heads + head) * p.head_dim + d] = out_sum[c][i] / row_sum[r];
        }
    }
#ifndef CACHE
    uint r = gl_LocalInvocationIndex;
    if (out0 == 0 && r < rows) {
        uint at = (t0 + r) * (STATS_LSE + 2 * p.heads);
        stats[at + STATS_LSE + head] = floatBitsToUint(row_max[r] + log(row_sum[r]));
        for (uint i = 0; head == 0 && i < 4; i++)
            stats[at + i] = seg[(t0 + r) * 4 + i];
    }
#endif
}

void main()
{
    q_stride = (p.heads + 2 * p.kv_heads) * p.head_dim;
    uint items = (p.T + TILE - 1) / TILE * p.heads, out0 = gl_WorkGroupID.y * OUT_CHUNKS * TILE;
    for (uint item = gl_WorkGroupID.x; item < items; item += gl_NumWorkGroups.x) {
        uint head = item % p.heads, t0 = item / p.heads * TILE, rows = min(TILE, p.T - t0);
        k_col = head / (p.heads / p.kv_heads) * p.head_dim;
#ifndef CACHE
        k_col += p.heads * p.head_dim;
#endif
        v_col = k_col + p.kv_heads * p.head_dim;
        begin_rows(t0, rows);
        uvec3 seen = seen_ranges(rows);
        uint end = p.pos0 + t0 + rows;
        for (uint j = seen.x; j < seen.y; j += TILE)
            key_tile(head, t0, rows, j, min(TILE, seen.y - j), out0);
        for (uint j = seen.z; j < end; j += TILE)
            key_tile(head, t0, rows, j, min(TILE, end - j), out0);
        write_rows(head, t0, rows, out0);
    }
}
