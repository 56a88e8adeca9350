/* mosld/io/dtype.h - the element types of tensors in files: names, sizes, and conversion to f32.
 *
 * A type comes in blocks: `block` elements in `bytes` bytes, 1 element a block for plain types; rows of a quantised
 * tensor are a multiple of the block. Data is little-endian, as both formats have it, and may stand at any address.
 * Types that mosld only knows the size of (the IQ2 family, say) are here so that a file which has them can be listed and
 * refused by name. */
#ifndef MOSLD_IO_DTYPE_H
#define MOSLD_IO_DTYPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum dtype {
    DTYPE_F32, DTYPE_F16, DTYPE_BF16, DTYPE_Q8_0, DTYPE_Q4_0, DTYPE_Q4_1, DTYPE_F64,
    DTYPE_U8, DTYPE_I8, DTYPE_BOOL, DTYPE_I16, DTYPE_U16, DTYPE_I32, DTYPE_U32, DTYPE_I64, DTYPE_U64,
    DTYPE_F8_E4M3, DTYPE_F8_E5M2,
    DTYPE_Q5_0, DTYPE_Q5_1, /* of what follows, dtype_to_f32 takes these, Q2_K to Q6_K and IQ4_NL */
    DTYPE_Q2_K, DTYPE_Q3_K, DTYPE_Q4_K, DTYPE_Q5_K, DTYPE_Q6_K, DTYPE_Q8_K,
    DTYPE_IQ2_XXS, DTYPE_IQ2_XS, DTYPE_IQ3_XXS, DTYPE_IQ1_S, DTYPE_IQ4_NL, DTYPE_IQ3_S, DTYPE_IQ2_S, DTYPE_IQ4_XS,
    DTYPE_IQ1_M, DTYPE_TQ1_0, DTYPE_TQ2_0, DTYPE_MXFP4,
    DTYPES
};

struct dtype_info {
    const char *name;        /* "F32", "Q4_1": as safetensors and GGUF write it */
    uint32_t block, bytes;
    int32_t gguf_id;         /* -1: GGUF has no such type */
    bool in_safetensors;
};
const struct dtype_info *dtype_info(enum dtype type);
static inline const char *dtype_name(enum dtype type) { return dtype_info(type)->name; }

/* DTYPES where there is no such type. */
enum dtype dtype_from_safetensors(const char *name);
enum dtype dtype_from_gguf(uint32_t id);

/* Bytes of `elements` elements; false where they do not fill whole blocks or the size does not fit 64 bits. */
bool dtype_bytes(enum dtype type, uint64_t elements, uint64_t *bytes);

/* Whether dtype_to_f32 takes the type. */
bool dtype_converts(enum dtype type);
/* dst[i] = the value of element i, for n elements (whole blocks). Bits are those of the gguf Python package's
 * dequantize (see dequantize.c), each step rounded to f32. F64 is rounded to f32. Only types that
 * dtype_converts. */
void dtype_to_f32(enum dtype type, const void *src, uint64_t n, float *dst);
/* Index of the first element (quantised: of the first block's first element) that is NaN or infinite; n where all are
 * finite. */
uint64_t dtype_first_nonfinite(enum dtype type, const void *src, uint64_t n);

/* The reverse, rounded to nearest, for F32, F16, BF16, Q8_0, Q4_0 and Q4_1: n finite values into whole blocks. false, and nothing written, for
 * another type or where n does not fill blocks. Bits of the quantised types are those of GGUF's own converter. */
bool dtype_from_f32(enum dtype type, const float *src, uint64_t n, void *dst);

/* Scalar conversions; to 16 bits rounds to nearest even, too large for f16 becomes infinite, a NaN stays one. */
float dtype_f16_to_f32(uint16_t half);
float dtype_bf16_to_f32(uint16_t bf16);
uint16_t dtype_f32_to_f16(float value);
uint16_t dtype_f32_to_bf16(float value);

#endif
