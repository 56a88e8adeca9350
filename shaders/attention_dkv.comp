#version 450
// dk and dv of a tile of keys and one key head, summed over its query heads and the queries that see it, in that order;
// one group does it all, so nothing is added by two. Of the queries, those of this launch (from, to). mosld/ops/attention_bwd.c.
#extension GL_GOOGLE_include_directive : require
#include "attention.h"
#include "common/attention_tile.glsl"
#define DQKV_ACCESS // read and written
#include "common/attention_gradient.glsl"

shared uint key_last[TILE];
float dk[OUT_CHUNKS][8], dv[OUT_CHUNKS][8];

// One past the last token that sees any of the keys.
uint queries_end(uint j0, uint keys)
{
    uint r = gl_LocalInvocationIndex;
    barrier();
    if (r < TILE)
        key_last[r] = r < keys ? stats[(j0 + r) * stats_stride + STATS_LAST] : 0;
    barrier();
    uint end = 0;
    for (uint i = 0; i < keys; i++)
        end = max(end, key_last[i]);
    return min(end, p.T);
}

void query_tile(uint head, uint kv_head, uint t0, uint rows, uint j0, uint keys, uint out0)
{
    float weight[8], slope[8];
    begin_rows(head, t0, rows);
    tile_gradient(head, kv_head, t0, rows, j0, keys, weight, slope);
    set_s_tile(weight);
    [[unroll]] for (uint c = 0; c < OUT_CHUNKS; c++) {
        uint col = out0 + c * TILE;
        if (col < p.head_dim) {
            barrier();
            LOAD_TILE(b_tile, d_o, t0 * o_stride + head * p.head_dim + col, o_stride, rows, p.head_dim - col)
            barrier();
            add_st_b(dv[c]);
        }
    }
    barrier();
    set_s_tile(slope);
    [[unroll]] for (uint c = 0; c < OUT_CHUNKS; c++) {
        uint col = out0 + c * TILE;
        if (col < p.head_dim) {
            barrier();
            LOAD_TILE(b_tile, qkv, t0 * stride + head * p.head_dim + col, stride, rows, p.head_dim - col)
            barrier();
            add_st_b(dk[c]);
        }
    }
}

// What launches before this one have summed: nothing, where this one has the first query that sees the tile's keys.
void read_keys(uint kv_head, uint j0, uint keys, uint out0)
{
    uint k_col = o_stride + kv_head * p.head_dim;
    [[unroll]] for (uint c = 0; c < OUT_CHUNKS; c++) {
        [[unroll]] for (uint i = 0; i < 8; i++) {
            uint j = row_of(i), d = out0 + c * TILE + col_of(i);
            if (j < keys && d < p.head_dim) {
                dk[c][i] = dqkv[(j0 + j) * stride + k_col + d];
                dv[c][i] = dqkv[(j0 + j) * stride + k_col + p.kv_heads * p.head_dim + d];
            }
        }
    }
}

void write_keys(uint kv_head, uint j0, uint keys, uint out0)
{
    uint k_col = o_stride + kv_head * p.head_dim;
    [[unroll]] for (uint c = 0; c < OUT_CHUNKS; c++) {
        [[unroll]] for (uint i = 0; i < 8; i++) {
            uint j = row_of(i), d = out0 + c * TILE + col_of(i);
            if (j < keys && d < p.head_dim) {
                dqkv[(j0 + j) * stride + k_col + d] = dk[c][i];
                dqkv[(j0 + j) * stride + k_col + p.kv_heads * p.head_dim + d] = dv[c][i];
            }
        }
    }
}

void main()
{
    set_strides();
    uint items = (p.T + TILE - 1) / TILE * p.kv_heads, share = p.heads / p.kv_heads;
    uint out0 = gl_WorkGroupID.y * OUT_CHUNKS * TILE;
    for (uint item = gl_WorkGroupID.x; item < items; item += gl_NumWorkGroups.x) {
        uint kv_head = item % p.kv_heads, j0 = item / p.kv_heads * TILE, keys = min(TILE, p.T - j0);
        uint end = min(queries_end(j0, keys), p.to == 0 ? p.T : p.to);
        [[unroll]] for (uint c = 0; c < OUT_CHUNKS; c++) {
            clear(dk[c]);
            clear(dv[c]);
        }
        if (p.from > j0)
            read_keys(kv_head, j0, keys, out0);
        for (uint head = kv_head * share; head < (kv_head + 1) * share; head++)
            for (uint t0 = max(j0, p.from); t0 < end; t0 += TILE)
                query_tile(head, kv_head, t0, min(TILE, p.T - t0), j0, keys, out0);
        write_keys(kv_head, j0, keys, out0);
    }
}
