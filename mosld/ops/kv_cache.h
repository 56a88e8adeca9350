/* mosld/ops/kv_cache.h - how keys and values of generation lie in memory.
 *
 * A row is a position: the keys of all key heads, then their values, 2 Hk D numbers as 32-bit words, so that no 8-bit or 16-bit storage is needed:
 *
 *     f32     2 Hk D words
 *     f16     two numbers a word, the first in the low half; rounded to the nearest, and to 65504 at most
 *     q8_0    four numbers a word (signed bytes), then a scale each 32 numbers, two halves a word; as GGUF's type: scale = largest / 127 in
 *             f16, number = the nearest multiple. For heads of whole 32s, so that a head has scales of its own
 *
 * The stored words are the same on every device. Positions come in blocks of KV_BLOCK (shaders/attention.h). */
#ifndef MOSLD_KV_CACHE_H
#define MOSLD_KV_CACHE_H

#include "mosld/ops/weight.h"
#include "runtime/rt.h"
#include "shaders/attention.h"

#define OP_KV_TYPES ((1u << OP_W_F32) | (1u << OP_W_F16) | (1u << OP_W_Q8_0))

/* Whether a cache can have the type at all, and for heads of that size. */
bool op_kv_suits(enum op_wtype type, uint32_t head_dim);

/* Words of a row. */
static inline uint64_t op_kv_row_words(enum op_wtype type, uint64_t kv_heads, uint64_t head_dim)
{
    uint64_t n = kv_heads * head_dim;
    return type == OP_W_F32 ? 2 * n : type == OP_W_F16 ? n : n / 2 + n / 32;
}

static inline uint32_t op_kv_blocks(uint32_t positions) { return positions / KV_BLOCK + (positions % KV_BLOCK != 0); }

/* Host: numbers [n] of a row into it, and numbers `col` .. `col + n` out of `rows` rows that follow each other, as out [rows, n]. n is even, for q8_0
 * n and col are whole 32s. */
void op_kv_store(enum op_wtype type, const float *numbers, uint32_t n, uint32_t *row);
void op_kv_load(enum op_wtype type, const uint32_t *row, uint64_t row_words, uint32_t row_numbers, uint32_t rows, uint32_t col, uint32_t n, float *out);

#endif
