/* shaders/common/weight.glsl - values of a frozen weight, in the layouts of mosld/ops/weight.h.
 *
 * Before including: WTYPE (a number of enum op_wtype), WEIGHT_BINDING, and the
 * parameter block p with p.n rows of p.k columns, p.w_offset, the first word (f32 alone), and p.scales, the word
 * where scales begin; and WEIGHT_WORD, where the matrix is not all of the binding. Reads 32-bit words only. */

layout(std430, set = 0, binding = WEIGHT_BINDING) readonly buffer WeightBuffer { uint words[]; } weight_buffer;
#ifndef WEIGHT_WORD /* a word of the matrix; others may stand before it in the binding */
#define WEIGHT_WORD(at) weight_buffer.words[at]
#endif

/* Half to float with integers, exact: unpackHalf2x16 may flush subnormals to zero, and a small scale is a whole block
 * of weights. */
float weight_half(uint half_bits)
{
    uint magnitude = (half_bits & 0x7fffu) << 13;
    uint bits = magnitude + (magnitude >= 0x0f800000u ? 0x70000000u : 0x38000000u);
    if (magnitude < 0x00800000u)
        bits = floatBitsToUint(float(half_bits & 0x7fffu) * 5.9604644775390625e-8); /* 2^-24 */
    return uintBitsToFloat(bits | (half_bits & 0x8000u) << 16);
}

uint weight_scale_half(uint block)
{
    uint word = WEIGHT_WORD(p.scales + block / 2);
    return (block & 1u) == 0u ? word & 0xffffu : word >> 16;
}

#if WTYPE > 3
/* Words of 32 columns, bits of a number in the first of them, and bits above those in the words from LOW_WORDS on; what is taken away. */
#if WTYPE == 4 || WTYPE == 5 || WTYPE == 8 || WTYPE == 11
const uint BLOCK_WORDS = 4;
#define LOW_BITS 4
#define HIGH_BITS 0
#elif WTYPE == 6 || WTYPE == 7 || WTYPE == 12
const uint BLOCK_WORDS = 5;
#define LOW_BITS 4
#define HIGH_BITS 1
#elif WTYPE == 9
const uint BLOCK_WORDS = 2;
#define LOW_BITS 2
#define HIGH_BITS 0
#elif WTYPE == 10
const uint BLOCK_WORDS = 3;
#define LOW_BITS 2
#define HIGH_BITS 1
#else
const uint BLOCK_WORDS = 6;
#define LOW_BITS 4
#define HIGH_BITS 2
#endif

/* The numbers of columns col .. col + 3 of a row. */
uvec4 weight_numbers(uint row, uint col)
{
    uint at = (row * (p.k / 32) + col / 32) * BLOCK_WORDS, c = col & 31u;
#if LOW_BITS == 4
    uint low = WEIGHT_WORD(at + c / 8) >> (c & 4u) * 4u;
    uvec4 q = uvec4(low, low >> 4, low >> 8, low >> 12) & 15u;
#else
    uint low = WEIGHT_WORD(at + c / 16) >> (c & 15u) * 2u;
    uvec4 q = uvec4(low, low >> 2, low >> 4, low >> 6) & 3u;
#endif
#if HIGH_BITS == 1
    uint high = WEIGHT_WORD(at + LOW_BITS) >> c;
    q |= (uvec4(high, high >> 1, high >> 2, high >> 3) & 1u) << LOW_BITS;
#elif HIGH_BITS == 2
    uint high = WEIGHT_WORD(at + LOW_BITS + c / 16) >> (c & 15u) * 2u;
    q |= (uvec4(high, high >> 2, high >> 4, high >> 6) & 3u) << LOW_BITS;
#endif
    return q;
}
#endif

#if WTYPE == 8
/* Value q of IQ4_NL's table: signed bytes, four a word. */
float weight_iq4_nl(uint q)
{
    uint word = q < 8u ? (q < 4u ? 0xbfad9881u : 0xf6eaddcfu) : (q < 12u ? 0x26190d01u : 0x71594535u);
    return float(int(word << (24u - (q & 3u) * 8u)) >> 24);
}
#endif

#if WTYPE >= 9
/* Scale and offset of a column of the K types. */
vec2 weight_k_scale(uint row, uint col)
{
    uint at = p.scales + (row * (p.k / 256) + col / 256) * 5, c = col & 255u;
    uint both = WEIGHT_WORD(at);
    float d = weight_half(both & 0xffffu);
#if WTYPE == 11 || WTYPE == 12
    uint part = WEIGHT_WORD(at + 1 + c / 64) >> (c & 32u) / 2u;
    return vec2(d * float(part & 255u), weight_half(both >> 16) * float(part >> 8 & 255u));
#else
    uint part = WEIGHT_WORD(at + 1 + c / 64) >> (c / 16 & 3u) * 8u;
#if WTYPE == 9
    return vec2(d * float(part & 15u), weight_half(both >> 16) * float(part >> 4 & 15u));
#else
    return vec2(d * float(int(part << 24) >> 24), 0.0);
#endif
#endif
}
#endif

/* Columns col .. col + 3 of a row; col is a multiple of 4 and all four exist. */
vec4 weight_4(uint row, uint col)
{
#if WTYPE == 0
    uint at = p.w_offset + row * p.k + col;
    return uintBitsToFloat(uvec4(WEIGHT_WORD(at), WEIGHT_WORD(at + 1), WEIGHT_WORD(at + 2),
                                 WEIGHT_WORD(at + 3)));
#elif WTYPE == 1
    uint at = row * ((p.k + 1) / 2) + col / 2;
    uint a = WEIGHT_WORD(at), b = WEIGHT_WORD(at + 1);
    return vec4(weight_half(a & 0xffffu), weight_half(a >> 16), weight_half(b & 0xffffu), weight_half(b >> 16));
#elif WTYPE == 2
    uint at = row * ((p.k + 1) / 2) + col / 2;
    uint a = WEIGHT_WORD(at), b = WEIGHT_WORD(at + 1);
    return uintBitsToFloat(uvec4(a << 16, a & 0xffff0000u, b << 16, b & 0xffff0000u));
#elif WTYPE == 3
    uint word = WEIGHT_WORD(row * (p.k / 4) + col / 4);
    ivec4 q = ivec4(uvec4(word << 24, word << 16, word << 8, word)) >> 24;
    return weight_half(weight_scale_half(row * (p.k / 32) + col / 32)) * vec4(q);
#elif WTYPE >= 9
    vec2 scale = weight_k_scale(row, col);
    vec4 q = vec4(weight_numbers(row, col));
#if WTYPE == 10
    return scale.x * (q - 4.0);
#elif WTYPE == 13
    return scale.x * (q - 32.0);
#else
    return scale.x * q - scale.y;
#endif
#else
    uvec4 q = weight_numbers(row, col);
    uint block = row * (p.k / 32) + col / 32;
#if WTYPE == 4
    return weight_half(weight_scale_half(block)) * (vec4(q) - 8.0);
#elif WTYPE == 6
    return weight_half(weight_scale_half(block)) * (vec4(q) - 16.0);
#elif WTYPE == 8
    return weight_half(weight_scale_half(block)) *
           vec4(weight_iq4_nl(q.x), weight_iq4_nl(q.y), weight_iq4_nl(q.z), weight_iq4_nl(q.w));
#else
    uint scale = WEIGHT_WORD(p.scales + block);
    return weight_half(scale & 0xffffu) * vec4(q) + weight_half(scale >> 16);
#endif
#endif
}

/* One value of a type whose rows may end anywhere. */
float weight_1(uint row, uint col)
{
#if WTYPE == 0
    return uintBitsToFloat(WEIGHT_WORD(p.w_offset + row * p.k + col));
#elif WTYPE == 1 || WTYPE == 2
    uint word = WEIGHT_WORD(row * ((p.k + 1) / 2) + col / 2);
    uint bits = (col & 1u) == 0u ? word & 0xffffu : word >> 16;
#if WTYPE == 1
    return weight_half(bits);
#else
    return uintBitsToFloat(bits << 16);
#endif
#else
    return weight_4(row, col & ~3u)[col & 3u];
#endif
}

/* Columns col .. col + 3, zero outside of the chunk; col is a multiple of 4. */
vec4 weight_4_or_0(uint row, uint col)
{
    if (row >= p.n || col >= p.k)
        return vec4(0.0);
    if (col + 4 <= p.k)
        return weight_4(row, col);
    vec4 v = vec4(weight_1(row, col), 0.0, 0.0, 0.0);
    if (col + 1 < p.k)
        v.y = weight_1(row, col + 1);
    if (col + 2 < p.k)
        v.z = weight_1(row, col + 2);
    return v;
}
