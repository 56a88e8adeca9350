#version 450
// Attention over the cache for a few new tokens, a group for each token and head: 128 keys at a time, a key an
// invocation for the scores, then a column an invocation for the values; mosld/ops/attention_cache.c. SLOTS: each token of
// a sequence of its own; mosld/ops/attention_slots.c.
#extension GL_GOOGLE_include_directive : require
#define GROUP 128
#include "attention.h"
#include "common/group_sum.glsl"

layout(local_size_x = GROUP) in;
layout(set = 0, binding = 0, std430) readonly buffer qkv_buffer { float qkv[]; };
layout(set = 0, binding = 1, std430) readonly buffer cache_buffer { float cache[]; };
layout(set = 0, binding = 2, std430) writeonly buffer o_buffer { float o[]; };
#ifdef SLOTS
layout(set = 0, binding = 3, std430) readonly buffer where_buffer { uvec2 where[]; }; // first row in the cache, position
uint first_row(uint t) { return where[t].x; }
uint position(uint t) { return where[t].y; }
#else
uint first_row(uint t) { return 0; }
uint position(uint t) { return p.pos0 + t; }
#endif

shared float q[256];
shared float weight[GROUP];
shared float most_of[GROUP];

float group_max(float value)
{
    uint i = gl_LocalInvocationIndex;
    most_of[i] = value;
    barrier();
    for (uint width = GROUP / 2; width > 0; width /= 2) {
        if (i < width)
            most_of[i] = max(most_of[i], most_of[i + width]);
        barrier();
    }
    float most = most_of[0];
    barrier();
    return most;
}

void attend(uint t, uint head)
{
    uint i = gl_LocalInvocationIndex, D = p.head_dim, keys = position(t) + 1;
    uint stride = 2 * p.kv_heads * D, k_col = first_row(t) * stride + head / (p.heads / p.kv_heads) * D, v_col = k_col + p.kv_heads * D;
    barrier(); // the item before is done with q
    for (uint d = i; d < D; d += GROUP)
        q[d] = qkv[(t * (p.heads + 2 * p.kv_heads) + head) * D + d] * p.scale;
    barrier();
    float most = -1e30, sum = 0, out0 = 0, out1 = 0; // columns i and i + 128
    for (uint j0 = 0; j0 < keys; j0 += GROUP) {
        uint n = min(GROUP, keys - j0);
        float s = -1e30;
        if (i < n) {
            s = 0;
            for (uint d = 0; d < D; d++)
                s += q[d] * cache[(j0 + i) * stride + k_col + d];
        }
        float now = max(most, group_max(s)), w = i < n ? exp(s - now) : 0, shrink = exp(max(most - now, -80));
        weight[i] = w;
        sum = sum * shrink + group_sum(w); // its barriers also publish the weights
        out0 *= shrink;
        out1 *= shrink;
        for (uint j = 0; j < n; j++) {
            uint at = (j0 + j) * stride + v_col + i;
            if (i < D)
                out0 += weight[j] * cache[at];
            if (i + GROUP < D)
                out1 += weight[j] * cache[at + GROUP];
        }
        most = now;
    }
    uint to = (t * p.heads + head) * D + i;
    if (i < D)
        o[to] = out0 / sum;
    if (i + GROUP < D)
        o[to + GROUP] = out1 / sum;
}

void main()
{
    uint items = p.T * p.heads;
    for (uint item = gl_WorkGroupID.x; item < items; item += gl_NumWorkGroups.x)
        attend(item / p.heads, item % p.heads);
}
