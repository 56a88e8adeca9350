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

HOST_INLINE void lanes_nibbles(const void *row, uint32_t col, floats *out)
{
    pairs pair = __builtin_convertvector(*(const eight *)((const uint8_t *)row + col / 2), pairs);
    pair = (pair & 15) | (pair >> 4) << 8; /* two nibbles in a byte become two bytes */
    shorts wide = __builtin_convertvector((bytes)pair, shorts);
    *out = __builtin_convertvector(__builtin_convertvector(wide, ints), floats);
}

/* What a block's scale does to its values; LANES_D and LANES_DM declare it from the scales of the row and a column. */
#define LANES_NONE(scales, col) (void)0
#define LANES_D(scales, col) float d = host_half((scales)[(col) / 32])
#define LANES_DM(scales, col) float d = host_half((scales)[(col) / 32 * 2]), m = host_half((scales)[(col) / 32 * 2 + 1])
#define LANES_AS_IS(w) (w)
#define LANES_TIMES_D(w) ((w)*d)
#define LANES_LESS_8(w) (((w)-8.0f) * d)
#define LANES_PLUS_M(w) ((w)*d + m)

#endif
