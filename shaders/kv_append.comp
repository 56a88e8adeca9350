#version 450
// The new tokens' keys and values into their rows of the cache, in its type (KV_TYPE); a word an invocation, which looks at as many numbers
// as it takes: so none waits for another. Rounding is on integers, and what is rounded in floats is put right by exact comparisons: every device
// stores the same words. mosld/ops/kv_cache.c.
#extension GL_GOOGLE_include_directive : require
#include "attention.h"

layout(local_size_x = 128) in;
layout(set = 0, binding = 0, std430) readonly buffer qkv_buffer { float qkv[]; };
layout(set = 0, binding = 1, std430) writeonly buffer cache_buffer { uint cache[]; };
layout(set = 0, binding = 2, std430) readonly buffer where_buffer { uint where[]; };

// To the nearest, ties to even; what would be infinite becomes the largest half.
uint half_of(float x)
{
    uint bits = floatBitsToUint(x), m = bits & 0x7fffffffu;
    uint shift = min(126 - (m >> 23), 25), whole = (m & 0x7fffffu) | 0x800000u; // subnormal: in units of 2^-24
    uint tiny = whole >> shift, rest = whole & ((1u << shift) - 1u), tie = 1u << (shift - 1u);
    tiny += uint(rest > tie || (rest == tie && (tiny & 1u) == 1u));
    uint h = (m + 0xfffu + (m >> 13 & 1u) - 0x38000000u) >> 13;
    if (m < 0x38800000u)
        h = tiny;
    if (m >= 0x477ff000u)
        h = m > 0x7f800000u ? 0x7e00u : 0x7bffu;
    return h | (bits >> 16 & 0x8000u);
}

#if KV_TYPE == 3
// Of the 32 numbers from qkv[at] on, at a multiple of 32 from a row's first key.
uint scale_of(uint at)
{
    uint most = 0;
    for (uint i = 0; i < 32; i++)
        most = max(most, floatBitsToUint(qkv[at + i]) & 0x7fffffffu);
    return half_of(uintBitsToFloat(most) * (1.0 / 127));
}

uint quant(float x, float d, float inverse)
{
    float a = abs(x), r = floor(a * inverse + 0.5);
    if (a < (r - 0.5) * d) // the division may be a little off; these products are exact
        r -= 1;
    if (a >= (r + 0.5) * d)
        r += 1;
    int q = int(min(r, 127.0));
    return uint(x < 0 ? -q : q) & 0xffu;
}

uint word_of(uint first, uint i)
{
    uint quants = p.kv_heads * p.head_dim / 2;
    if (i >= quants) {
        uint at = first + (i - quants) * 64;
        return scale_of(at) | scale_of(at + 32) << 16;
    }
    uint half_bits = scale_of(first + i / 8 * 32);
    if (half_bits == 0)
        return 0;
    float d = half_bits < 0x400u ? float(half_bits) * 5.9604644775390625e-8 : uintBitsToFloat((half_bits << 13) + 0x38000000u), inverse = 1 / d;
    uint at = first + 4 * i;
    return quant(qkv[at], d, inverse) | quant(qkv[at + 1], d, inverse) << 8 | quant(qkv[at + 2], d, inverse) << 16 | quant(qkv[at + 3], d, inverse) << 24;
}
#elif KV_TYPE == 1
uint word_of(uint first, uint i) { return half_of(qkv[first + 2 * i]) | half_of(qkv[first + 2 * i + 1]) << 16; }
#else
uint word_of(uint first, uint i) { return floatBitsToUint(qkv[first + i]); }
#endif

void main()
{
    uint q = p.heads * p.head_dim, kv = p.kv_heads * p.head_dim;
#if KV_TYPE == 0
    uint words = 2 * kv;
#elif KV_TYPE == 1
    uint words = kv;
#else
    uint words = kv / 2 + kv / 32;
#endif
    for (uint i = gl_GlobalInvocationID.x; i < p.T * words; i += gl_NumWorkGroups.x * gl_WorkGroupSize.x) {
        uint t = i / words, table = where[2 * t], pos = where[2 * t + 1];
        cache[(where[table + pos / KV_BLOCK] * KV_BLOCK + pos % KV_BLOCK) * words + i % words] = word_of(t * (q + 2 * kv) + q, i % words);
    }
}
