#version 450
// The new tokens' keys and values into the cache's rows from pos0 on, a word an invocation;
// mosld/ops/attention_cache.c.
#extension GL_GOOGLE_include_directive : require
#include "attention.h"

layout(local_size_x = 128) in;
layout(set = 0, binding = 0, std430) readonly buffer qkv_buffer { float qkv[]; };
layout(set = 0, binding = 1, std430) writeonly buffer cache_buffer { float cache[]; };

void main()
{
    uint q = p.heads * p.head_dim, kv = 2 * p.kv_heads * p.head_dim, n = p.T * kv;
    for (uint i = gl_GlobalInvocationID.x; i < n; i += gl_NumWorkGroups.x * gl_WorkGroupSize.x)
        cache[p.pos0 * kv + i] = qkv[i / kv * (q + kv) + q + i % kv];
}
