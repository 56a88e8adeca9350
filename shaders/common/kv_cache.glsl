// Numbers of a cache of keys and values in the layouts of mosld/ops/kv_cache.h, as 32-bit words. Before including: KV_TYPE (0 f32, 1 f16, 3 q8_0:
// enum op_wtype), KV_TABLE (an expression: the table's word i), and the parameter block p.
#ifndef KV_CACHE_GLSL
#define KV_CACHE_GLSL

layout(set = 0, binding = 1, std430) readonly buffer cache_buffer { uint cache[]; };

uint kv_row_words()
{
    uint n = p.kv_heads * p.head_dim;
#if KV_TYPE == 0
    return 2 * n;
#elif KV_TYPE == 1
    return n;
#else
    return n / 2 + n / 32;
#endif
}

// The first word of a position's row.
uint kv_row(uint pos) { return (KV_TABLE(pos / KV_BLOCK) * KV_BLOCK + pos % KV_BLOCK) * kv_row_words(); }

// The first position that a token at `pos` sees.
uint kv_first(uint pos) { return p.window > 0 && pos >= p.window ? pos - p.window + 1 : 0; }

// Exact also where unpackHalf2x16 flushes subnormals: a small scale is a whole block of numbers. Halves that are numbers of their own are read with it,
// and may lose what is below 6.2e-5.
float kv_scale(uint row, uint col)
{
    uint half_bits = cache[row + p.kv_heads * p.head_dim / 2 + col / 64] >> (col / 32 % 2 * 16) & 0x7fffu;
    uint bits = (half_bits << 13) + 0x38000000u;
    return half_bits < 0x400u ? float(half_bits) * 5.9604644775390625e-8 : uintBitsToFloat(bits);
}

vec4 kv_quants(uint word)
{
    return vec4(bitfieldExtract(int(word), 0, 8), bitfieldExtract(int(word), 8, 8), bitfieldExtract(int(word), 16, 8), bitfieldExtract(int(word), 24, 8));
}

// Numbers col and col + 1 of a row, col even.
vec2 kv_pair(uint row, uint col)
{
#if KV_TYPE == 0
    return vec2(uintBitsToFloat(cache[row + col]), uintBitsToFloat(cache[row + col + 1]));
#elif KV_TYPE == 1
    return unpackHalf2x16(cache[row + col / 2]);
#else
    uint word = cache[row + col / 4] >> (col & 2u) * 8;
    return vec2(bitfieldExtract(int(word), 0, 8), bitfieldExtract(int(word), 8, 8)) * kv_scale(row, col);
#endif
}

// Numbers col .. col + 3, col a multiple of 4 and the head's size too.
vec4 kv_four(uint row, uint col)
{
#if KV_TYPE == 2 || KV_TYPE > 3
#error "no such cache"
#elif KV_TYPE == 3
    return kv_quants(cache[row + col / 4]) * kv_scale(row, col);
#else
    return vec4(kv_pair(row, col), kv_pair(row, col + 2));
#endif
}

#endif
