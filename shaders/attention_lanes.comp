#version 450
// As attention.comp, for drivers that run on the processor and have subgroups of at least 8: a query a lane and turn, so that a
// row's softmax needs no other lane. See common/attention_lanes.glsl and mosld/ops/attention.c.
#extension GL_GOOGLE_include_directive : require
#include "attention.h"
#ifdef CACHE
#define LENT(col, row, d) kv_four(row, (col) + (d)) // what is lent is said by its row and the head's first column
#endif
#include "common/attention_lanes.glsl"

layout(set = 0, binding = 0, std430) readonly buffer qkv_buffer { float qkv[]; };
#ifdef CACHE
layout(set = 0, binding = 2, std430) buffer o_buffer { float o[]; };
layout(set = 0, binding = 3, std430) readonly buffer where_buffer { uint where[]; };
#define KV_TABLE(i) where[p.table + (i)]
#include "common/kv_cache.glsl"
#else
layout(set = 0, binding = 1, std430) readonly buffer seg_buffer { uint seg[]; };
layout(set = 0, binding = 2, std430) buffer o_buffer { float o[]; };
layout(set = 0, binding = 3, std430) writeonly buffer stats_buffer { uint stats[]; };
#endif

#define SHRINK(i) shrink[i] // what a sum shrinks by

uint k_col, v_col;
uint q_at[OWN], o_at[OWN];
bool valid[OWN];
seen_keys seen[OWN];
float row_max[OWN], row_sum[OWN];

// Scores become weights relative to each row's new maximum; shrink is what earlier sums shrink by.
void softmax(inout float s[OWN * OTHER], uint j0, uint end, out float shrink[OWN])
{
    [[unroll]] for (uint i = 0; i < OWN; i++) {
        float most = row_max[i], sum = 0;
        [[unroll]] for (uint j = 0; j < OTHER; j++) {
            float score = sees(seen[i], j0 + j) && j0 + j < end ? s[i * OTHER + j] * p.scale : MASKED;
            s[i * OTHER + j] = score;
            most = max(most, score);
        }
        [[unroll]] for (uint j = 0; j < OTHER; j++) {
            float score = s[i * OTHER + j];
            float w = score == MASKED ? 0 : exp(score - most); // by the mark: where a row sees no key yet, it is the maximum
            s[i * OTHER + j] = w;
            sum += w;
        }
        shrink[i] = exp(max(row_max[i] - most, -80));
        row_sum[i] = row_sum[i] * shrink[i] + sum;
        row_max[i] = most;
    }
}

// Keys j0 .. below `end`, at most OTHER.
void key_block(uint j0, uint end, bool first)
{
    uint k_at[OTHER / LANES], v_at[OTHER / LANES];
    [[unroll]] for (uint h = 0; h < OTHER / LANES; h++) {
        uint j = min(lent_row(j0, h), end - 1);
#ifdef CACHE
        k_at[h] = v_at[h] = kv_row(j);
#else
        k_at[h] = j * (p.heads + 2 * p.kv_heads) * p.head_dim + k_col;
        v_at[h] = k_at[h] + p.kv_heads * p.head_dim;
#endif
    }
    float s[OWN * OTHER], shrink[OWN];
    [[unroll]] for (uint i = 0; i < OWN * OTHER; i++)
        s[i] = 0;
#ifdef CACHE
    ADD_DOTS(s, qkv, q_at, k_col, k_at)
    softmax(s, j0, end, shrink);
    ADD_ROWS(o, o_at, valid, first, SHRINK, s, v_col, v_at)
#else
    ADD_DOTS(s, qkv, q_at, qkv, k_at)
    softmax(s, j0, end, shrink);
    ADD_ROWS(o, o_at, valid, first, SHRINK, s, qkv, v_at)
#endif
}

void begin_rows(uint head, uint t0)
{
    uint q_stride = (p.heads + 2 * p.kv_heads) * p.head_dim;
    [[unroll]] for (uint i = 0; i < OWN; i++) {
        uint row = own_row(t0, i), t = min(row, p.T - 1);
        valid[i] = row < p.T;
        q_at[i] = t * q_stride + head * p.head_dim;
        o_at[i] = (t * p.heads + head) * p.head_dim;
#ifdef CACHE
        seen[i] = seen_keys(p.pos0 + t, kv_first(p.pos0 + t), 0, 0);
#else
        seen[i] = seen_keys(t, seg[t * 4], seg[t * 4 + 1], seg[t * 4 + 2]);
#endif
        if (!valid[i])
            seen[i] = sees_nothing();
        row_max[i] = MASKED;
        row_sum[i] = 0;
    }
}

void write_rows(uint head)
{
    [[unroll]] for (uint i = 0; i < OWN; i++) {
        if (!valid[i])
            continue;
        float share = 1 / row_sum[i];
        for (uint d = 0; d < p.head_dim; d += 4)
            [[unroll]] for (uint s = 0; s < 4; s++)
                o[o_at[i] + d + s] *= share;
#ifndef CACHE
        uint t = seen[i].token, at = t * (STATS_LSE + 2 * p.heads);
        stats[at + STATS_LSE + head] = floatBitsToUint(row_max[i] + log(row_sum[i]));
        if (head == 0)
            [[unroll]] for (uint k = 0; k < 4; k++)
                stats[at + k] = seg[t * 4 + k];
#endif
    }
}

void main()
{
    const uint tile = OWN * 16;
    uint items = (p.T + tile - 1) / tile * p.heads;
    for (uint item = gl_WorkGroupID.x; item < items; item += gl_NumWorkGroups.x) {
        uint head = item % p.heads, t0 = item / p.heads * tile;
        k_col = head / (p.heads / p.kv_heads) * p.head_dim;
#ifndef CACHE
        k_col += p.heads * p.head_dim;
#endif
        v_col = k_col + p.kv_heads * p.head_dim;
        begin_rows(head, t0);
        uvec4 r = seen_ranges(seen);
        bool first = true;
        for (uint j = r.x < r.y ? r.x : r.z; j < r.w; first = false) { // both ranges: the block is compiled once
            bool prefix = j < r.y;
            key_block(j, prefix ? r.y : r.w, first);
            j += OTHER;
            if (prefix && j >= r.y)
                j = r.z;
        }
        write_rows(head);
    }
}
