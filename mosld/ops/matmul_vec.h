/* mosld/ops/matmul_vec.h - what the host's products for a few tokens share among themselves (matmul_vec*.c). */
#ifndef MOSLD_MATMUL_VEC_H
#define MOSLD_MATMUL_VEC_H

#include "mosld/ops/matmul_common.h"

#define MATMUL_VEC_TOKENS 4

/* Neighbouring rows of W against a few tokens. */
struct row_read {
    const struct matmul_push *p;
    const void *row;       /* the first row's quants or values */
    const op_half *scales; /* its first block's */
    const float *x;        /* of the first token */
    uint32_t tokens;       /* 1 .. MATMUL_VEC_TOKENS */
};

/* Each: dots[i * MATMUL_VEC_TOKENS + t] = sum_k x[t, k] W[row + i, k]. */

/* f16 (matmul_vec_f16.c), over whole 32 columns; false, and nothing done, where the processor has no conversion. */
bool matmul_f16_rows(const struct row_read *r, uint32_t n, size_t row_bytes, float *dots);

/* 4-bit types (matmul_vec_q4.c): x of all rows in the order that it reads, into matmul_q4_x_floats floats; then rows row0 .. row0 + n - 1 for tokens from
 * token0 on, over all columns. */
bool matmul_q4_takes(uint32_t wtype);
size_t matmul_q4_x_floats(const struct matmul_push *p);
void matmul_q4_order_x(const struct matmul_push *p, const float *x, float *out);
void matmul_q4_rows(const struct matmul_push *p, const void *packed, uint32_t row0, uint32_t n, const float *ordered, uint32_t token0,
                    uint32_t tokens, float *dots);

/* Either of them for rows row0 .. row0 + n - 1 of W and tokens t0 .. t0 + tokens - 1. x: of the first token of all; ordered: x by matmul_q4_order_x, where matmul_q4_takes
 * the type, or NULL. */
void matmul_vec_dots(const struct matmul_push *p, const void *w, const float *x, const float *ordered, uint32_t row0, uint32_t n, uint32_t t0,
                     uint32_t tokens, float (*dots)[MATMUL_VEC_TOKENS]);
/* Puts them where p says, with what it adds. */
void matmul_vec_store(const struct matmul_push *p, const float *other, uint32_t row0, uint32_t n, uint32_t t0, uint32_t tokens,
                      float (*dots)[MATMUL_VEC_TOKENS], float *y);

#endif
