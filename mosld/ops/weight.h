/* mosld/ops/weight.h - frozen matrices in device memory, in the layout that kernels read.
 *
 * A weight is [rows, cols], rows being outputs, cut by rows into chunks so that no chunk exceeds a binding. A chunk of
 * n rows is 32-bit words, so that no 8-bit or 16-bit storage feature is needed:
 *
 *     F32        n x cols words
 *     F16, BF16  n x ceil(cols / 2) words, the even column in the low half
 *     Q8_0       n x cols / 4 words of four signed bytes, lowest column in the lowest byte; then scales
 *     Q4_0, Q4_1, IQ4_NL, Q4_K
 *                n x cols / 8 words of eight nibbles, lowest column in the lowest nibble; then scales
 *     Q5_0, Q5_1, Q5_K
 *                for each 32 columns four words of nibbles, and one of the fifth bits, lowest column in the lowest bit; then scales
 *     Q2_K       n x cols / 16 words of sixteen 2-bit numbers, lowest column lowest; then scales
 *     Q3_K       for each 32 columns two words of 2-bit numbers and one of the third bits; then scales
 *     Q6_K       for each 32 columns four words of nibbles and two of the upper 2-bit numbers; then scales
 *
 * Scales stand behind all quants of the chunk, row by row. For the types in blocks of 32 columns: an f16 d each, two a word, the even
 * block in the low half; for Q4_1 and Q5_1 a word each, f16 d low, f16 m high. For the K types five words a block of 256 columns: f16 d
 * low and dmin high (0 for Q3_K and Q6_K), then 16 bytes: Q4_K and Q5_K scale and offset of each 32 columns in turn, Q2_K of each 16 columns the
 * scale in the low nibble and the offset in the high one, Q3_K and Q6_K a signed scale of each 16 columns.
 *
 * Values, each product and sum rounded to f32 as GGUF's own dequantisation does: d q (Q8_0), d (q - 8) (Q4_0), d (q - 16) (Q5_0), d q + m (Q4_1, Q5_1),
 * d v[q] with the table of IQ4_NL; (d s) q - dmin o (Q2_K, Q4_K, Q5_K); (d s) (q - 4) (Q3_K); (d s) (q - 32) (Q6_K). cols is a multiple of
 * op_wtype_block(type). */
#ifndef MOSLD_WEIGHT_H
#define MOSLD_WEIGHT_H

#include "runtime/rt.h"

/* Weight types as shaders and push blocks number them; cmake/shaders.cmake has them in the same order. */
enum op_wtype {
    OP_W_F32, OP_W_F16, OP_W_BF16, OP_W_Q8_0, OP_W_Q4_0, OP_W_Q4_1, OP_W_Q5_0, OP_W_Q5_1, OP_W_IQ4_NL,
    OP_W_Q2_K, OP_W_Q3_K, OP_W_Q4_K, OP_W_Q5_K, OP_W_Q6_K,
    OP_W_TYPES
};

/* Tables of one entry a type: M(f32, OP_W_F32, ...) SEP() M(f16, OP_W_F16, ...) SEP() ...; the rest of the arguments is handed on. */
#define OP_W_NOTHING()
#define OP_W_COMMA() ,
#define OP_W_EACH(M, SEP, ...)                                                                                         \
    M(f32, OP_W_F32, __VA_ARGS__) SEP() M(f16, OP_W_F16, __VA_ARGS__) SEP() M(bf16, OP_W_BF16, __VA_ARGS__) SEP()      \
    M(q8_0, OP_W_Q8_0, __VA_ARGS__) SEP() M(q4_0, OP_W_Q4_0, __VA_ARGS__) SEP() M(q4_1, OP_W_Q4_1, __VA_ARGS__) SEP()  \
    M(q5_0, OP_W_Q5_0, __VA_ARGS__) SEP() M(q5_1, OP_W_Q5_1, __VA_ARGS__) SEP()                                        \
    M(iq4_nl, OP_W_IQ4_NL, __VA_ARGS__) SEP() M(q2_k, OP_W_Q2_K, __VA_ARGS__) SEP()                                    \
    M(q3_k, OP_W_Q3_K, __VA_ARGS__) SEP() M(q4_k, OP_W_Q4_K, __VA_ARGS__) SEP()                                        \
    M(q5_k, OP_W_Q5_K, __VA_ARGS__) SEP() M(q6_k, OP_W_Q6_K, __VA_ARGS__)

const char *op_wtype_name(enum op_wtype type); /* "f32", "q4_1", ... */
uint32_t op_wtype_block(enum op_wtype type);   /* columns that share a scale: 1, 32 or 256 */

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
/* Where rows [row0, row0 + n) of a chunk of `rows` rows lie in it, in bytes: quants or values, and scales (0 bytes where the type has none).
 * So a chunk can be filled from smaller ones. row0 is even, and so is n but for the chunk's end, since scales are halves of words. */
struct op_weight_part {
    uint64_t quants, quant_bytes, scales, scale_bytes;
};
struct op_weight_part op_weight_part(enum op_wtype type, uint32_t rows, uint32_t cols, uint32_t row0, uint32_t n);
/* Rows [row0, row0 + n) of a packed chunk of `rows` rows as f32 into out [n, cols]: what the host variants and the
 * tests read. */
void op_weight_unpack(enum op_wtype type, uint32_t rows, uint32_t cols, const void *packed, uint32_t row0, uint32_t n,
                      float *out);

#endif
