#version 450
// As attention_dq.comp, for drivers that run on the processor: a query a lane and turn; mosld/ops/attention_bwd.c.
#extension GL_GOOGLE_include_directive : require
#include "attention.h"
#include "common/attention_lanes.glsl"
#include "common/attention_lanes_gradient.glsl"

uint k_col, v_col;
uint q_at[OWN], d_o_at[OWN];
bool valid[OWN];
query q[OWN];

// Keys j0 .. below `end`, at most OTHER.
void key_block(uint j0, uint end, bool first)
{
    uint k_at[OTHER / LANES], v_at[OTHER / LANES];
    [[unroll]] for (uint h = 0; h < OTHER / LANES; h++) {
        uint row = min(lent_row(j0, h), end - 1) * stride;
        k_at[h] = row + k_col;
        v_at[h] = row + v_col;
    }
    float s[OWN * OTHER], dp[OWN * OTHER];
    [[unroll]] for (uint i = 0; i < OWN * OTHER; i++)
        s[i] = dp[i] = 0;
    ADD_DOTS(s, qkv, q_at, qkv, k_at)
    ADD_DOTS(dp, d_o, d_o_at, qkv, v_at)
    [[unroll]] for (uint i = 0; i < OWN; i++)
        [[unroll]] for (uint j = 0; j < OTHER; j++)
            make_slope(q[i], j0 + j, j0 + j < end, s[i * OTHER + j], dp[i * OTHER + j]);
    ADD_ROWS(dqkv, q_at, valid, first, KEPT, dp, qkv, k_at)
}

void main()
{
    set_strides();
    const uint tile = OWN * 16;
    uint items = (p.T + tile - 1) / tile * p.heads;
    for (uint item = gl_WorkGroupID.x; item < items; item += gl_NumWorkGroups.x) {
        uint head = item % p.heads, t0 = item / p.heads * tile;
        k_col = o_stride + head / (p.heads / p.kv_heads) * p.head_dim;
        v_col = k_col + p.kv_heads * p.head_dim;
        seen_keys seen[OWN];
        [[unroll]] for (uint i = 0; i < OWN; i++) {
            uint row = own_row(t0, i), t = min(row, p.T - 1);
            valid[i] = row < p.T;
            q_at[i] = t * stride + head * p.head_dim;
            d_o_at[i] = t * o_stride + head * p.head_dim;
            q[i] = query_of(t, head, valid[i]);
            seen[i] = q[i].seen;
        }
        uvec4 r = seen_ranges(seen);
        bool first = true;
        for (uint j = r.x < r.y ? r.x : r.z; j < r.w; first = false) { // both ranges: the block is compiled once
            bool prefix = j < r.y;
            key_block(j, prefix ? r.y : r.w, first);
            j += OTHER;
            if (prefix && j >= r.y)
                j = r.z;
        }
    }
}
