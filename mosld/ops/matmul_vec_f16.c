/* mosld/ops/matmul_vec_f16.c - matmul_vec for f16 weights with the processor's own conversion, where it has one.
 *
 * Written with intrinsics, since gcc turns neither integers nor _Float16 into that instruction. Each version adds the same products to the same 32 sums
 * in the same order as the plain one in matmul_vec.c: the bits are those. */
#include "mosld/ops/matmul_vec.h"

#if defined(__x86_64__)
#include <immintrin.h>

struct sums {
    _Alignas(64) float lane[2][16];
};

__attribute__((target("avx512f"))) static void row_512(const op_half *w, const float *x, size_t x_stride, uint32_t whole, const uint32_t tokens,
                                                       struct sums *out)
{
    __m512 sum[MATMUL_VEC_TOKENS][2];
    for (uint32_t t = 0; t < tokens; t++)
        sum[t][0] = sum[t][1] = _mm512_setzero_ps();
    for (uint32_t k = 0; k < whole; k += 32) {
        __m512 w0 = _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(w + k)));
        __m512 w1 = _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(w + k + 16)));
        for (uint32_t t = 0; t < tokens; t++) {
            sum[t][0] = _mm512_add_ps(sum[t][0], _mm512_mul_ps(w0, _mm512_loadu_ps(x + t * x_stride + k)));
            sum[t][1] = _mm512_add_ps(sum[t][1], _mm512_mul_ps(w1, _mm512_loadu_ps(x + t * x_stride + k + 16)));
        }
    }
    for (uint32_t t = 0; t < tokens; t++) {
        _mm512_store_ps(out[t].lane[0], sum[t][0]);
        _mm512_store_ps(out[t].lane[1], sum[t][1]);
    }
}

__attribute__((target("avx2,f16c"))) static void row_256(const op_half *w, const float *x, size_t x_stride, uint32_t whole, const uint32_t tokens,
                                                         struct sums *out)
{
    for (uint32_t t = 0; t < tokens; t++, x += x_stride) {
        __m256 sum[4];
        for (int i = 0; i < 4; i++)
            sum[i] = _mm256_setzero_ps();
        for (uint32_t k = 0; k < whole; k += 32)
            for (int i = 0; i < 4; i++)
                sum[i] = _mm256_add_ps(sum[i], _mm256_mul_ps(_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(w + k + 8 * i))),
                                                             _mm256_loadu_ps(x + k + 8 * i)));
        for (int i = 0; i < 4; i++)
            _mm256_store_ps(out[t].lane[i / 2] + i % 2 * 8, sum[i]);
    }
}

static void join(const struct sums *sums, uint32_t tokens, float *dot)
{
    for (uint32_t t = 0; t < tokens; t++) {
        float s[16];
        for (int i = 0; i < 16; i++)
            s[i] = sums[t].lane[0][i] + sums[t].lane[1][i];
        for (int width = 8; width > 0; width /= 2)
            for (int i = 0; i < width; i++)
                s[i] += s[i + width];
        dot[t] = s[0];
    }
}

__attribute__((target("avx512f"))) static void rows_512(const struct row_read *r, uint32_t n, size_t row_bytes, float *out)
{
    struct sums sums[MATMUL_VEC_TOKENS];
    uint32_t whole = r->p->k / 32 * 32;
    const char *row = r->row;
    for (uint32_t i = 0; i < n; i++, out += MATMUL_VEC_TOKENS, row += row_bytes) {
        switch (r->tokens) { /* constants, so that sums stay in registers */
        case 1: row_512((const op_half *)row, r->x, r->p->x_stride, whole, 1, sums); break;
        case 2: row_512((const op_half *)row, r->x, r->p->x_stride, whole, 2, sums); break;
        case 3: row_512((const op_half *)row, r->x, r->p->x_stride, whole, 3, sums); break;
        default: row_512((const op_half *)row, r->x, r->p->x_stride, whole, 4, sums); break;
        }
        join(sums, r->tokens, out);
    }
}

__attribute__((target("avx2,f16c"))) static void rows_256(const struct row_read *r, uint32_t n, size_t row_bytes, float *out)
{
    struct sums sums[MATMUL_VEC_TOKENS];
    const char *row = r->row;
    for (uint32_t i = 0; i < n; i++, out += MATMUL_VEC_TOKENS, row += row_bytes) {
        row_256((const op_half *)row, r->x, r->p->x_stride, r->p->k / 32 * 32, r->tokens, sums);
        join(sums, r->tokens, out);
    }
}

bool matmul_f16_rows(const struct row_read *r, uint32_t n, size_t row_bytes, float *out)
{
    if (__builtin_cpu_supports("avx512f"))
        rows_512(r, n, row_bytes, out);
    else if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("f16c"))
        rows_256(r, n, row_bytes, out);
    else
        return false;
    return true;
}

#else

bool matmul_f16_rows(const struct row_read *r, uint32_t n, size_t row_bytes, float *out)
{
    (void)r, (void)n, (void)row_bytes, (void)out;
    return false;
}

#endif
