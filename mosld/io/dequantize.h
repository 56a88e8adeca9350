/* mosld/io/dequantize.h - blocks of GGUF's quantised types to f32; for dtype.c, which says what the values are. */
#ifndef MOSLD_IO_DEQUANTIZE_H
#define MOSLD_IO_DEQUANTIZE_H

#include "mosld/io/dtype.h"

typedef void dequantize_block_fn(const uint8_t *block, float *dst);

/* Writes one block's values, as many as dtype_info's `block`. NULL for a type that is not quantised, or that mosld only knows by name. */
dequantize_block_fn *dequantize_of(enum dtype type);

/* Where the f16 scales of a block stand, in bytes; `second` is 0 where there is one. A block is finite where they are. */
void dequantize_scales_at(enum dtype type, uint32_t *first, uint32_t *second);

#endif
