/* shaders/common/weight_8.glsl - eight neighbouring values of a frozen weight at once, with what they share read once: one scale, one
 * word of nibbles, whole vectors of words. For kernels that unpack a weight into shared memory. Include after common/weight.glsl.
 *
 * A type that has no case of its own here is read by two weight_4, which is always right. */

#if WTYPE <= 3
/* The same words as vectors. */
layout(std430, set = 0, binding = WEIGHT_BINDING) readonly buffer WeightBuffer2 { uvec2 words[]; } weight_buffer_2;
layout(std430, set = 0, binding = WEIGHT_BINDING) readonly buffer WeightBuffer4 { uvec4 words[]; } weight_buffer_4;
#endif

/* Whether weight_8 may be called: rows begin at addresses that its loads want. */
bool weight_8_aligned()
{
#if WTYPE == 0
    return ((p.k | p.w_offset) & 3u) == 0u;
#else
    return (p.k & 7u) == 0u;
#endif
}

vec4 weight_nibbles(uint word) { return vec4(uvec4(word, word >> 4, word >> 8, word >> 12) & 15u); }

/* Columns col .. col + 7 of a row; col is a multiple of 8, all eight exist, and weight_8_aligned(). */
void weight_8(uint row, uint col, out vec4 low, out vec4 high)
{
#if WTYPE == 0
    uint at = (p.w_offset + row * p.k + col) / 4;
    low = uintBitsToFloat(weight_buffer_4.words[at]);
    high = uintBitsToFloat(weight_buffer_4.words[at + 1]);
#elif WTYPE == 1
    uvec4 w = weight_buffer_4.words[(row * p.k + col) / 8];
    low = vec4(weight_half(w.x & 0xffffu), weight_half(w.x >> 16), weight_half(w.y & 0xffffu), weight_half(w.y >> 16));
    high = vec4(weight_half(w.z & 0xffffu), weight_half(w.z >> 16), weight_half(w.w & 0xffffu), weight_half(w.w >> 16));
#elif WTYPE == 2
    uvec4 w = weight_buffer_4.words[(row * p.k + col) / 8];
    low = uintBitsToFloat(uvec4(w.x << 16, w.x & 0xffff0000u, w.y << 16, w.y & 0xffff0000u));
    high = uintBitsToFloat(uvec4(w.z << 16, w.z & 0xffff0000u, w.w << 16, w.w & 0xffff0000u));
#elif WTYPE == 3
    uvec2 w = weight_buffer_2.words[(row * p.k + col) / 8];
    float d = weight_half(weight_scale_half(row * (p.k / 32) + col / 32));
    low = d * vec4(ivec4(uvec4(w.x << 24, w.x << 16, w.x << 8, w.x)) >> 24);
    high = d * vec4(ivec4(uvec4(w.y << 24, w.y << 16, w.y << 8, w.y)) >> 24);
#elif WTYPE == 4
    uint w = weight_buffer.words[(row * p.k + col) / 8];
    float d = weight_half(weight_scale_half(row * (p.k / 32) + col / 32));
    low = d * (weight_nibbles(w) - 8.0);
    high = d * (weight_nibbles(w >> 16) - 8.0);
#elif WTYPE == 5
    uint w = weight_buffer.words[(row * p.k + col) / 8], scale = weight_buffer.words[p.scales + row * (p.k / 32) + col / 32];
    float d = weight_half(scale & 0xffffu), m = weight_half(scale >> 16);
    low = d * weight_nibbles(w) + m;
    high = d * weight_nibbles(w >> 16) + m;
#else
    low = weight_4(row, col);
    high = weight_4(row, col + 4);
#endif
}
