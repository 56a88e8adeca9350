#version 450
// Attention over the cache for a few new tokens, each at its place in a sequence, a group for each token and head: 128 keys at a time, a key an
// invocation for the scores, then two columns of the values an invocation, the keys dealt out among as many sets of invocations as there is room for;
// mosld/ops/attention_cache.c, attention_slots.c.
#extension GL_GOOGLE_include_directive : require
#define GROUP 128
#include "attention.h"
#include "common/group_sum.glsl"

layout(local_size_x = GROUP) in;
layout(set = 0, binding = 0, std430) readonly buffer qkv_buffer { float qkv[]; };
layout(set = 0, binding = 2, std430) writeonly buffer o_buffer { float o[]; };
layout(set = 0, binding = 3, std430) readonly buffer where_buffer { uint where[]; };

uint table; // the first word of the sequence's
#define KV_TABLE(i) where[table + (i)]
#include "common/kv_cache.glsl"

shared vec2 q[128];
shared float weight[GROUP];
shared float most_of[GROUP];
shared uint row_of[GROUP];
shared vec2 part[GROUP];

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

float score(uint row, uint k_col)
{
    float s = 0;
#if KV_TYPE == 3
    for (uint d = 0; d < p.head_dim; d += 32) { // a scale at a time
        vec4 sums = vec4(0);
        for (uint e = d; e < d + 32; e += 4)
            sums += vec4(q[e / 2], q[e / 2 + 1]) * kv_quants(cache[row + (k_col + e) / 4]);
        s += (sums.x + sums.y + sums.z + sums.w) * kv_scale(row, k_col + d);
    }
#else
    for (uint d = 0; d < p.head_dim; d += 2)
        s += dot(q[d / 2], kv_pair(row, k_col + d));
#endif
    return s;
}

void attend(uint t, uint head)
{
    uint i = gl_LocalInvocationIndex, D = p.head_dim, pos = where[2 * t + 1], first = kv_first(pos), keys = pos + 1;
    uint k_col = head / (p.heads / p.kv_heads) * D, v_col = k_col + p.kv_heads * D;
    uint pairs = D / 2, sets = GROUP / pairs, set = i / pairs, col = i % pairs * 2;
    table = where[2 * t];
    barrier(); // the item before is done with q
    if (i < pairs) {
        uint at = (t * (p.heads + 2 * p.kv_heads) + head) * D + 2 * i;
        q[i] = vec2(qkv[at], qkv[at + 1]) * p.scale;
    }
    barrier();
    float most = -1e30, sum = 0;
    vec2 sums = vec2(0);
    for (uint j0 = first; j0 < keys; j0 += GROUP) {
        uint n = min(GROUP, keys - j0);
        float s = -1e30;
        if (i < n) {
            uint row = kv_row(j0 + i);
            row_of[i] = row;
            s = score(row, k_col);
        }
        float now = max(most, group_max(s)), w = i < n ? exp(s - now) : 0, shrink = exp(max(most - now, -80));
        weight[i] = w;
        sum = sum * shrink + group_sum(w); // its barriers also publish the weights
        sums *= shrink;
        for (uint j = set; set < sets && j < n; j += sets)
            sums += weight[j] * kv_pair(row_of[j], v_col + col);
        most = now;
        barrier(); // before the next keys' rows
    }
    part[i] = sums;
    barrier();
    if (i < pairs) {
        for (uint k = 1; k < sets; k++)
            sums += part[k * pairs + i];
        uint to = (t * p.heads + head) * D + 2 * i;
        o[to] = sums.x / sum;
        o[to + 1] = sums.y / sum;
    }
}

void main()
{
    uint items = p.T * p.heads;
    for (uint item = gl_WorkGroupID.x; item < items; item += gl_NumWorkGroups.x)
        attend(item / p.heads, item % p.heads);
}
