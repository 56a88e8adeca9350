/* mosld/ops/weight_layout.h - where things stand inside a packed chunk (weight.h says the layout in words); for
 * mosld/ops alone. */
#ifndef MOSLD_WEIGHT_LAYOUT_H
#define MOSLD_WEIGHT_LAYOUT_H

#include "mosld/ops/weight.h"

#define OP_W_BLOCK 32 /* columns whose quants lie together */
#define OP_W_SUPER 256 /* columns of a block of the K types */

/* Halves inside of words: memory that others see as uint32_t. */
typedef uint16_t __attribute__((may_alias)) op_half;

struct op_weight_layout {
    uint64_t row_words; /* 32-bit words of quants, or values, a row */
    uint64_t scales;    /* word at which the scales begin */
    uint64_t row_scales; /* halves of scales a row */
    uint64_t words;     /* of the whole chunk */
};

/* Of a chunk of `rows` rows; false (and zeros) when cols does not fit the type or the size does not fit 64 bits. */
bool op_weight_layout(enum op_wtype type, uint64_t rows, uint64_t cols, struct op_weight_layout *out);

/* Rows [row0, row0 + n) and columns [col0, col0 + m) as f32 into out, whose rows are `stride` floats apart. col0 is a
 * multiple of 32 (and m too, for quantised types, but for the end of the row: there cols is one anyway). */
void op_weight_unpack_part(enum op_wtype type, uint32_t rows, uint32_t cols, const void *packed, uint32_t row0,
                           uint32_t n, uint32_t col0, uint32_t m, float *out, size_t stride);

#endif
