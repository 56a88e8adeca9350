/* mosld/ops/weight.h - frozen matrices in device memory, in the layout that kernels read.
 *
 * A weight is [rows, cols], rows being outputs, cut by rows into chunks so that no chunk exceeds a binding. A chunk of
 * n rows is 32-bit words, so that no 8-bit or 16-bit storage feature is needed:
 *
 *     F32        n x cols words
 *     F16, BF16  n x ceil(cols / 2) words, the even column in the low half
 *     Q8_0       n x cols / 4 words of four signed bytes, lowest column in the lowest byte; then scales
 *     Q4_0, Q4_1 n x cols / 8 words of eight nibbles, lowest column in the lowest nibble; then scales
 *
 * Scales stand behind all quants of the chunk, a 32-column block at a time, row by row: for Q8_0 and Q4_0 an f16 d
 * each, two a word, the even block in the low half; for Q4_1 a word each, f16 d low, f16 m high. Values: Q8_0 d q; Q4_0
 * d (q - 8); Q4_1 d q + m, each product and sum rounded to f32 as GGUF's own dequantisation does. cols is a multiple of
 * 32 for the quantised types. */
#ifndef MOSLD_WEIGHT_H
#define MOSLD_WEIGHT_H

#include "runtime/rt.h"

/* Weight types as shaders and push blocks number them. */
enum op_wtype { OP_W_F32, OP_W_F16, OP_W_BF16, OP_W_Q8_0, OP_W_Q4_0, OP_W_Q4_1, OP_W_TYPES };

const char *op_wtype_name(enum op_wtype type); /* "f32", "q4_1", ... */

struct op_weight_chunk {
    struct rt_span span;
    uint32_t row0, rows;
};

struct op_weight {
    enum op_wtype type;
    uint32_t rows, cols;
    uint32_t n_chunks;
    struct op_weight_chunk *chunks; /* NULL for a weight made by op_weight_f32: then `one` is the chunk */
    struct op_weight_chunk one;
    uint32_t
        offset; /* words into the chunk's span at which the matrix begins; F32 weights of one chunk alone, else 0 */
};

/* An f32 matrix that lies in `span` as it is (an adapter's). */
struct op_weight op_weight_f32(struct rt_span span, uint32_t rows, uint32_t cols);
/* Chunk i of the weight. */
const struct op_weight_chunk *op_weight_chunk(const struct op_weight *w, uint32_t i);

/* Bytes of `rows` rows in the layout above; 0 when they do not fit 64 bits or cols does not fit the type. */
uint64_t op_weight_bytes(enum op_wtype type, uint64_t rows, uint64_t cols);

/* Chooses the chunks under the device's binding range and asks `arena` for them. The spans are valid after the commit,
 * so *w must stay where it is until then. */
enum rt_status op_weight_plan(struct rt_device *dev, struct rt_arena *arena, enum op_wtype type, uint32_t rows,
                              uint32_t cols, const char *label, struct op_weight *w, struct rt_error *err);
void op_weight_finish(struct op_weight *w); /* frees the chunk list, not the memory */

/* Repacks `rows` rows from the file's format (raw blocks of w->type, Hugging Face row order) into `out`, a chunk of
 * exactly these rows. */
void op_weight_pack(enum op_wtype type, uint32_t rows, uint32_t cols, const void *raw, void *out);
/* Rows [row0, row0 + n) of a packed chunk of `rows` rows as f32 into out [n, cols]: what the host variants and the
 * tests read. */
void op_weight_unpack(enum op_wtype type, uint32_t rows, uint32_t cols, const void *packed, uint32_t row0, uint32_t n,
                      float *out);

#endif
