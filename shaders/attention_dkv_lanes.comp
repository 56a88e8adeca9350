#version 450
// As attention_dkv.comp, for drivers that run on the processor: a key a lane and turn; mosld/ops/attention_bwd.c.
#extension GL_GOOGLE_include_directive : require
#include "attention.h"
#include "common/attention_lanes.glsl"
#include "common/attention_lanes_gradient.glsl"

uint token[OWN], k_at[OWN], v_at[OWN];
bool valid[OWN];

query handed(query lent[OTHER / LANES], uint j)
{
    query q = lent[j / LANES], out_;
    uint lane = j % LANES;
    out_.seen.own = subgroupBroadcast(q.seen.own, lane);
    out_.seen.begin = subgroupBroadcast(q.seen.begin, lane);
    out_.seen.end = subgroupBroadcast(q.seen.end, lane);
    out_.lse = subgroupBroadcast(q.lse, lane);
    out_.delta = subgroupBroadcast(q.delta, lane);
    return out_;
}

// Query tokens t0 .. below `end`, at most OTHER.
void query_block(uint head, uint t0, uint end, bool first)
{
    uint q_at[OTHER / LANES], d_o_at[OTHER / LANES];
    query lent[OTHER / LANES];
    [[unroll]] for (uint h = 0; h < OTHER / LANES; h++) {
        uint t = min(lent_row(t0, h), end - 1);
        q_at[h] = t * stride + head * p.head_dim;
        d_o_at[h] = t * o_stride + head * p.head_dim;
        lent[h] = query_of(t, head, true);
    }
    float s[OWN * OTHER], dp[OWN * OTHER];
    [[unroll]] for (uint i = 0; i < OWN * OTHER; i++)
        s[i] = dp[i] = 0;
    ADD_DOTS(s, qkv, k_at, qkv, q_at)
    ADD_DOTS(dp, qkv, v_at, d_o, d_o_at)
    [[unroll]] for (uint j = 0; j < OTHER; j++) {
        query q = handed(lent, j);
        q.seen.token = t0 + j;
        [[unroll]] for (uint i = 0; i < OWN; i++)
            make_slope(q, token[i], t0 + j < end, s[i * OTHER + j], dp[i * OTHER + j]);
    }
    ADD_ROWS(dqkv, v_at, valid, first, KEPT, s, d_o, d_o_at)
    ADD_ROWS(dqkv, k_at, valid, first, KEPT, dp, qkv, q_at)
}

void main()
{
    set_strides();
    const uint tile = OWN * 16;
    uint items = (p.T + tile - 1) / tile * p.kv_heads, share = p.heads / p.kv_heads;
    for (uint item = gl_WorkGroupID.x; item < items; item += gl_NumWorkGroups.x) {
        uint kv_head = item % p.kv_heads, j0 = item / p.kv_heads * tile, begin = 0xffffffffu, end = 0;
        [[unroll]] for (uint i = 0; i < OWN; i++) {
            uint row = own_row(j0, i), j = min(row, p.T - 1);
            valid[i] = row < p.T;
            token[i] = j;
            k_at[i] = j * stride + o_stride + kv_head * p.head_dim;
            v_at[i] = k_at[i] + p.kv_heads * p.head_dim;
            begin = valid[i] ? min(begin, j) : begin;
            end = valid[i] ? max(end, stats[j * stats_stride + STATS_LAST]) : end;
        }
        begin = subgroupMin(begin);
        end = min(subgroupMax(end), p.to == 0 ? p.T : p.to);
        bool first = p.from <= begin; // launches before this one have not summed anything
        for (uint head = kv_head * share; head < (kv_head + 1) * share; head++)
            for (uint t = max(begin, p.from); t < end; t += OTHER, first = false)
                query_block(head, t, end, first);
    }
}
