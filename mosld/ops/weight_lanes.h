/* mosld/ops/weight_lanes.h - 16 columns of a packed weight as a vector of floats; for the host code in mosld/ops.
 *
 * GNU vectors, which become whatever the function that these are inlined into (MOSLD_CLONES) is compiled for. Results
 * come through pointers, since a vector as a value of a function has another ABI on every processor. Widening goes in
 * steps of two, because compilers turn each into one instruction; widening by four at once gcc 12 does lane by lane. */
#ifndef MOSLD_WEIGHT_LANES_H
#define MOSLD_WEIGHT_LANES_H

#include "mosld/ops/host_math.h"
#include "mosld/ops/weight_layout.h"

#include <string.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "packed weights are read as little-endian memory"
#endif

#define LANES 16

typedef float floats __attribute__((vector_size(4 * LANES)));
typedef float floats_any __attribute__((vector_size(4 * LANES), aligned(4), may_alias)); /* wherever they lie */
typedef int32_t ints __attribute__((vector_size(4 * LANES)));
typedef uint32_t words __attribute__((vector_size(4 * LANES)));
typedef int16_t shorts __attribute__((vector_size(2 * LANES)));
typedef uint16_t halves __attribute__((vector_size(2 * LANES), aligned(2), may_alias));
typedef int8_t bytes __attribute__((vector_size(LANES), aligned(1), may_alias));
typedef uint8_t eight __attribute__((vector_size(LANES / 2), aligned(1), may_alias));
typedef uint16_t pairs __attribute__((vector_size(LANES)));

/* The sum of the lanes: halves are added as a tree. */
typedef float floats_half __attribute__((vector_size(2 * LANES)));
typedef float floats_quarter __attribute__((vector_size(LANES)));
HOST_INLINE float lanes_sum(const floats *v)
{
    floats_half h = __builtin_shufflevector(*v, *v, 0, 1, 2, 3, 4, 5, 6, 7) + __builtin_shufflevector(*v, *v, 8, 9, 10, 11, 12, 13, 14, 15);
    floats_quarter q = __builtin_shufflevector(h, h, 0, 1, 2, 3) + __builtin_shufflevector(h, h, 4, 5, 6, 7);
    return (q[0] + q[2]) + (q[1] + q[3]);
}

/* Each: columns col .. col + 15 of the row that begins at `row`, col a multiple of 16. Quantised: without scale and
 * offset. */

HOST_INLINE void lanes_f32(const void *row, uint32_t col, floats *out)
{
    *out = *(const floats_any *)((const float *)row + col);
}

/* As host_half, all lanes at once. */
HOST_INLINE void lanes_f16(const void *row, uint32_t col, floats *out)
{
    words half = __builtin_convertvector(*(const halves *)((const op_half *)row + col), words);
    words magnitude = (half & 0x7fff) << 13, magic = (words){0} + (113u << 23);
    floats shifted, base;
    memcpy(&base, &magic, sizeof base);
    magic += magnitude;
    memcpy(&shifted, &magic, sizeof shifted);
    shifted -= base;
    words tiny, is_tiny = (words)(magnitude < (1u << 23)), is_special = (words)(magnitude >= (31u << 23));
    memcpy(&tiny, &shifted, sizeof tiny);
    words bits = magnitude + (112u << 23) + (is_special & (112u << 23));
    bits = (is_tiny & tiny) | (~is_tiny & bits) | (half & 0x8000) << 16;
    memcpy(out, &bits, sizeof bits);
}

HOST_INLINE void lanes_bf16(const void *row, uint32_t col, floats *out)
{
    words bits = __builtin_convertvector(*(const halves *)((const op_half *)row + col), words) << 16;
    memcpy(out, &bits, sizeof bits);
}

HOST_INLINE void lanes_bytes(const void *row, uint32_t col, floats *out)
{
    shorts wide = __builtin_convertvector(*(const bytes *)((const int8_t *)row + col), shorts);
    *out = __builtin_convertvector(__builtin_convertvector(wide, ints), floats);
}

HOST_INLINE void halves_to_floats(const op_half *h, uint32_t n, float *out)
{
    uint32_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        floats f;
        lanes_f16(h, i, &f);
        *(floats_any *)(out + i) = f;
    }
    for (; i < n; i++)
        out[i] = host_half(h[i]);
}

HOST_INLINE void nibble_ints(const void *at, ints *out)
{
    pairs pair = __builtin_convertvector(*(const eight *)at, pairs);
    pair = (pair & 15) | (pair >> 4) << 8; /* two nibbles in a byte become two bytes */
    shorts wide = __builtin_convertvector((bytes)pair, shorts);
    *out = __builtin_convertvector(wide, ints);
}

HOST_INLINE void lanes_nibbles(const void *row, uint32_t col, floats *out)
{
    ints q;
    nibble_ints((const uint8_t *)row + col / 2, &q);
    *out = __builtin_convertvector(q, floats);
}

/* Sixteen 2-bit numbers of a word, or sixteen bits from bit `from` on. */
HOST_INLINE void spread_twos(uint32_t word, words *out)
{
    const words shift = {0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30};
    *out = ((words){0} + word) >> shift & 3;
}

HOST_INLINE void spread_bits(uint32_t word, words *out)
{
    const words shift = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    *out = ((words){0} + word) >> shift & 1;
}

typedef uint32_t __attribute__((may_alias)) op_word;

HOST_INLINE void lanes_fives(const void *row, uint32_t col, floats *out)
{
    const op_word *block = (const op_word *)row + col / 32 * 5;
    ints q;
    words high;
    nibble_ints((const uint8_t *)block + col % 32 / 2, &q);
    spread_bits(block[4] >> col % 32, &high);
    *out = __builtin_convertvector(q | (ints)(high << 4), floats);
}

HOST_INLINE void lanes_twos(const void *row, uint32_t col, floats *out)
{
    words q;
    spread_twos(((const op_word *)row)[col / 16], &q);
    *out = __builtin_convertvector((ints)q, floats);
}

HOST_INLINE void lanes_threes(const void *row, uint32_t col, floats *out)
{
    const op_word *block = (const op_word *)row + col / 32 * 3;
    words q, high;
    spread_twos(block[col % 32 / 16], &q);
    spread_bits(block[2] >> col % 32, &high);
    *out = __builtin_convertvector((ints)(q | high << 2), floats);
}

HOST_INLINE void lanes_sixes(const void *row, uint32_t col, floats *out)
{
    const op_word *block = (const op_word *)row + col / 32 * 6;
    ints q;
    words high;
    nibble_ints((const uint8_t *)block + col % 32 / 2, &q);
    spread_twos(block[4 + col % 32 / 16], &high);
    *out = __builtin_convertvector(q | (ints)(high << 4), floats);
}

HOST_INLINE void lanes_iq4_nl(const void *row, uint32_t col, floats *out)
{
    static const int8_t values[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};
    pairs pair = __builtin_convertvector(*(const eight *)((const uint8_t *)row + col / 2), pairs);
    pair = (pair & 15) | (pair >> 4) << 8;
    bytes value;
#ifdef __clang__
    for (int i = 0; i < LANES; i++)
        value[i] = values[((bytes)pair)[i]];
#else
    value = __builtin_shuffle(*(const bytes *)values, (bytes)pair);
#endif
    shorts wide = __builtin_convertvector(value, shorts);
    *out = __builtin_convertvector(__builtin_convertvector(wide, ints), floats);
}

/* What a block's scale does to its values: declared for 16 columns from the scales of the row and the first column, then applied. */
#define LANES_NONE(scales, col) (void)0
#define LANES_D(scales, col) float d = host_half((scales)[(col) / 32])
#define LANES_DM(scales, col) float d = host_half((scales)[(col) / 32 * 2]), m = host_half((scales)[(col) / 32 * 2 + 1])
/* The K types: the scales of a block of 256 are ten halves, d, dmin, and 16 bytes. */
#define LANES_K(scales, col)                                                                                           \
    const op_half *block = (scales) + (col) / 256 * 10;                                                                \
    const int8_t *part = (const int8_t *)(block + 2)
#define LANES_K16(scales, col)                                                                                         \
    LANES_K(scales, col);                                                                                              \
    float d = host_half(block[0]) * (float)part[(col) % 256 / 16]
#define LANES_K16_MIN(scales, col)                                                                                     \
    LANES_K(scales, col);                                                                                              \
    uint8_t both = (uint8_t)part[(col) % 256 / 16];                                                                    \
    float d = host_half(block[0]) * (float)(both & 15), m = host_half(block[1]) * -(float)(both >> 4)
#define LANES_K32_MIN(scales, col)                                                                                     \
    LANES_K(scales, col);                                                                                              \
    float d = host_half(block[0]) * (float)part[(col) % 256 / 32 * 2],                                                 \
          m = host_half(block[1]) * -(float)part[(col) % 256 / 32 * 2 + 1]
#define LANES_AS_IS(w) (w)
#define LANES_TIMES_D(w) ((w)*d)
#define LANES_LESS_4(w) (((w)-4.0f) * d)
#define LANES_LESS_8(w) (((w)-8.0f) * d)
#define LANES_LESS_16(w) (((w)-16.0f) * d)
#define LANES_LESS_32(w) (((w)-32.0f) * d)
#define LANES_PLUS_M(w) ((w)*d + m)

/* The quantised types: M(type, load, scales, apply). */
#define LANES_QUANTISED(M)                                                                                             \
    M(q8_0, lanes_bytes, LANES_D, LANES_TIMES_D)                                                                       \
    M(q4_0, lanes_nibbles, LANES_D, LANES_LESS_8)                                                                      \
    M(q4_1, lanes_nibbles, LANES_DM, LANES_PLUS_M)                                                                     \
    M(q5_0, lanes_fives, LANES_D, LANES_LESS_16)                                                                       \
    M(q5_1, lanes_fives, LANES_DM, LANES_PLUS_M)                                                                       \
    M(iq4_nl, lanes_iq4_nl, LANES_D, LANES_TIMES_D)                                                                    \
    M(q2_k, lanes_twos, LANES_K16_MIN, LANES_PLUS_M)                                                                   \
    M(q3_k, lanes_threes, LANES_K16, LANES_LESS_4)                                                                     \
    M(q4_k, lanes_nibbles, LANES_K32_MIN, LANES_PLUS_M)                                                                \
    M(q5_k, lanes_fives, LANES_K32_MIN, LANES_PLUS_M)                                                                  \
    M(q6_k, lanes_sixes, LANES_K16, LANES_LESS_32)

#endif
