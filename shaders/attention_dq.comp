#version 450
// dq = sum over keys of the slopes times k, a group for each tile of queries and head; mosld/ops/attention_bwd.c.
#extension GL_GOOGLE_include_directive : require
#include "attention.h"
#include "common/attention_tile.glsl"
#define DQKV_ACCESS writeonly
#include "common/attention_gradient.glsl"

float dq[OUT_CHUNKS][8];

void key_tile(uint head, uint t0, uint rows, uint j0, uint keys, uint out0)
{
    uint kv_head = head / (p.heads / p.kv_heads);
    float weight[8], slope[8];
    tile_gradient(head, kv_head, t0, rows, j0, keys, weight, slope);
    set_s_tile(slope);
    [[unroll]] for (uint c = 0; c < OUT_CHUNKS; c++) {
        uint col = out0 + c * TILE;
        if (col < p.head_dim) {
            barrier();
            LOAD_TILE(b_tile, qkv, j0 * stride + o_stride + kv_head * p.head_dim + col, stride, keys, p.head_dim - col)
            barrier();
            add_s_b(dq[c]);
        }
    }
}

void main()
{
    set_strides();
    uint items = (p.T + TILE - 1) / TILE * p.heads, out0 = gl_WorkGroupID.y * OUT_CHUNKS * TILE;
    for (uint item = gl_WorkGroupID.x; item < items; item += gl_NumWorkGroups.x) {
        uint head = item % p.heads, t0 = item / p.heads * TILE, rows = min(TILE, p.T - t0);
        begin_rows(head, t0, rows);
        [[unroll]] for (uint c = 0; c < OUT_CHUNKS; c++)
            clear(dq[c]);
        uvec3 seen = seen_ranges(rows);
        uint end = t0 + rows;
        for (uint j = seen.x; j < seen.y; j += TILE)
            key_tile(head, t0, rows, j, min(TILE, seen.y - j), out0);
        for (uint j = seen.z; j < end; j += TILE)
            key_tile(head, t0, rows, j, min(TILE, end - j), out0);
        [[unroll]] for (uint c = 0; c < OUT_CHUNKS; c++) {
            [[unroll]] for (uint i = 0; i < 8; i++) {
                uint r = row_of(i), d = out0 + c * TILE + col_of(i);
                if (r < rows && d < p.head_dim)
                    dqkv[(t0 + r) * stride + head * p.head_dim + d] = dq[c][i];
            }
        }
    }
}
