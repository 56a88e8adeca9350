#version 450
// The new tokens' keys and values into the cache's rows from pos0 on, or with SLOTS where each token's sequence has them; a word an
// invocation. mosld/ops/attention_cache.c, attention_slots.c.
#extension GL_GOOGLE_include_directive : require
#include "attention.h"

layout(local_size_x = 128) in;
layout(set = 0, binding = 0, std430) readonly buffer qkv_buffer { float qkv[]; };
layout(set = 0, binding = 1, std430) writeonly buffer cache_buffer { float cache[]; };
#ifdef SLOTS
layout(set = 0, binding = 2, std430) readonly buffer where_buffer { uvec2 where[]; };
uint cache_row(uint t) { return where[t].x + where[t].y; }
#else
uint cache_row(uint t) { return p.pos0 + t; }
#endif

void main()
{
    uint q = p.heads * p.head_dim, kv = 2 * p.kv_heads * p.head_dim, n = p.T * kv;
    for (uint i = gl_GlobalInvocationID.x; i < n; i += gl_NumWorkGroups.x * gl_WorkGroupSize.x)
        cache[cache_row(i / kv) * kv + i % kv] = qkv[i / kv * (q + kv) + q + i % kv];
}
