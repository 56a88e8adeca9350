/* shaders/common/weight.glsl - values of a frozen weight, in the layouts of mosld/ops/weight.h.
 *
 * Before including: WTYPE (0 f32, 1 f16, 2 bf16, 3 q8_0, 4 q4_0, 5 q4_1, as enum op_wtype), WEIGHT_BINDING, and the
 * parameter block p with p.n rows of p.k columns, p.w_offset, the first word (f32 alone), and p.scales, the word
 * where scales begin. Reads 32-bit words only. */

layout(std430, set = 0, binding = WEIGHT_BINDING) readonly buffer WeightBuffer { uint words[]; } weight_buffer;

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
    uint word = weight_buffer.words[p.scales + block / 2];
    return (block & 1u) == 0u ? word & 0xffffu : word >> 16;
}

/* Columns col .. col + 3 of a row; col is a multiple of 4 and all four exist. */
vec4 weight_4(uint row, uint col)
{
#if WTYPE == 0
    uint at = p.w_offset + row * p.k + col;
    return uintBitsToFloat(uvec4(weight_buffer.words[at], weight_buffer.words[at + 1], weight_buffer.words[at + 2],
                                 weight_buffer.words[at + 3]));
#elif WTYPE == 1
    uint at = row * ((p.k + 1) / 2) + col / 2;
    uint a = weight_buffer.words[at], b = weight_buffer.words[at + 1];
    return vec4(weight_half(a & 0xffffu), weight_half(a >> 16), weight_half(b & 0xffffu), weight_half(b >> 16));
#elif WTYPE == 2
    uint at = row * ((p.k + 1) / 2) + col / 2;
    uint a = weight_buffer.words[at], b = weight_buffer.words[at + 1];
    return uintBitsToFloat(uvec4(a << 16, a & 0xffff0000u, b << 16, b & 0xffff0000u));
#elif WTYPE == 3
    uint word = weight_buffer.words[row * (p.k / 4) + col / 4];
    ivec4 q = ivec4(uvec4(word << 24, word << 16, word << 8, word)) >> 24;
    return weight_half(weight_scale_half(row * (p.k / 32) + col / 32)) * vec4(q);
#else
    uint word = weight_buffer.words[row * (p.k / 8) + col / 8] >> (col & 4u) * 4u;
    vec4 q = vec4(uvec4(word, word >> 4, word >> 8, word >> 12) & 15u);
    uint block = row * (p.k / 32) + col / 32;
#if WTYPE == 4
    return weight_half(weight_scale_half(block)) * (q - 8.0);
#else
    uint scale = weight_buffer.words[p.scales + block];
    return weight_half(scale & 0xffffu) * q + weight_half(scale >> 16);
#endif
#endif
}

/* One value of a type whose rows may end anywhere. */
float weight_1(uint row, uint col)
{
#if WTYPE == 0
    return uintBitsToFloat(weight_buffer.words[p.w_offset + row * p.k + col]);
#elif WTYPE == 1 || WTYPE == 2
    uint word = weight_buffer.words[row * ((p.k + 1) / 2) + col / 2];
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
