/* mosld/ops/shape.h - what an op checks before it launches: that each matrix lies in its memory and counts in 32 bits.
 */
#ifndef MOSLD_SHAPE_H
#define MOSLD_SHAPE_H

#include "mosld/ops/op.h"

/* RT_FAILED, naming op and matrix, unless rows of `stride` words with `cols` columns from `col` on lie in the span.
 * Shaders count words in 32 bits, so more than 2^32 - 1 are refused; 0 rows or columns always fit. */
static inline enum rt_status op_check_rows(const char *op, const char *name, struct rt_span span, uint32_t rows,
                                           uint32_t stride, uint32_t col, uint64_t cols, struct rt_error *err)
{
    if (rows == 0 || cols == 0)
        return RT_OK;
    if (col + cols > stride)
        return rt_fail(err, RT_FAILED, "%s: %s has rows of %u words, which do not hold columns %u to %llu", op, name,
                       stride, col, (unsigned long long)(col + cols));
    uint64_t words = (uint64_t)(rows - 1) * stride + col + cols;
    if (words > UINT32_MAX || words > span.size / 4)
        return rt_fail(err, RT_FAILED, "%s: %s [%u, %u] needs %llu words and its memory has %llu", op, name, rows,
                       stride, (unsigned long long)words, (unsigned long long)(span.size / 4));
    return RT_OK;
}

/* Words of a row that is a sum or product of shapes; UINT32_MAX when it does not count in 32 bits, which no memory
 * holds. */
static inline uint32_t op_row_words(uint64_t words) { return words < UINT32_MAX ? (uint32_t)words : UINT32_MAX; }

#endif
