/* mosld/ops/matmul_vec_q4.c - matmul_vec for 4-bit weights, which are too cheap to read for lanes in the order of
 * columns.
 *
 * Eight words hold 64 columns, and one shift gives a nibble of each: columns j, j + 8, ..., j + 56. So x is put into
 * that order once a call, and a row of W costs a shift, a mask and a conversion for eight columns. With q - 8 or d q +
 * m the constant goes to the sum of x, which is the same for every row:  sum (d q + m) x = d sum q x + m sum x. */
#include "mosld/ops/host_math.h"
#include "mosld/ops/matmul_common.h"

#include <string.h>

#define WORDS 8
#define GROUP (8 * WORDS)        /* columns */
#define GROUP_FLOATS (9 * WORDS) /* of x in order: eight nibbles' worth and their sum */

typedef float floats8 __attribute__((vector_size(4 * WORDS)));
typedef float floats8_any __attribute__((vector_size(4 * WORDS), aligned(4), may_alias));
typedef int32_t ints8 __attribute__((vector_size(4 * WORDS)));
typedef uint32_t words8 __attribute__((vector_size(4 * WORDS)));
typedef uint32_t words8_any __attribute__((vector_size(4 * WORDS), aligned(4), may_alias));

size_t matmul_q4_x_floats(const struct matmul_push *p) { return (size_t)p->rows * (p->k / GROUP) * GROUP_FLOATS; }

void matmul_q4_order_x(const struct matmul_push *p, const float *x, float *out)
{
    for (size_t t = 0; t < p->rows; t++)
        for (size_t g = 0; g < p->k / GROUP; g++, out += GROUP_FLOATS) {
            const float *from = x + t * p->x_stride + p->x_col + g * GROUP;
            float *sum = out + 8 * WORDS;
            memset(sum, 0, WORDS * sizeof *sum);
            for (size_t j = 0; j < 8; j++)
                for (size_t i = 0; i < WORDS; i++) {
                    out[j * WORDS + i] = from[i * 8 + j];
                    sum[i] += from[i * 8 + j];
                }
        }
}

struct q4_row {
    const uint32_t *quants;
    const op_half *scales;
    const float *x; /* of the first token, in order */
    size_t x_token; /* floats from token to token */
    uint32_t groups;
};

/* The scales of a group's two blocks, each over the four words of its block. */
HOST_INLINE void spread(float a, float b, floats8 *out)
{
    const floats8 first = {1, 1, 1, 1, 0, 0, 0, 0}, second = {0, 0, 0, 0, 1, 1, 1, 1};
    *out = a * first + b * second;
}

HOST_INLINE void group_scales(const struct q4_row *r, uint32_t g, const bool offset, floats8 *d, floats8 *m)
{
    const op_half *s = r->scales + (size_t)g * (offset ? 4 : 2);
    if (offset) {
        spread(host_half(s[0]), host_half(s[2]), d);
        spread(host_half(s[1]), host_half(s[3]), m);
    } else {
        spread(host_half(s[0]), host_half(s[1]), d);
        *m = *d * -8.0f;
    }
}

HOST_INLINE void row_for(const struct q4_row *r, const bool offset, const uint32_t tokens, float *dot)
{
    floats8 sum[MATMUL_VEC_TOKENS] = {{0}};
    for (uint32_t g = 0; g < r->groups; g++) {
        words8 word = *(const words8_any *)(r->quants + (size_t)g * WORDS);
        floats8 d, m, part[MATMUL_VEC_TOKENS] = {{0}};
        group_scales(r, g, offset, &d, &m);
        const float *x = r->x + (size_t)g * GROUP_FLOATS;
        for (int j = 0; j < 8; j++, x += WORDS) {
            floats8 q = __builtin_convertvector((ints8)(word >> (4 * j) & 15), floats8);
            for (uint32_t t = 0; t < tokens; t++)
                part[t] += q * *(const floats8_any *)(x + t * r->x_token);
        }
        for (uint32_t t = 0; t < tokens; t++)
            sum[t] += part[t] * d + m * *(const floats8_any *)(x + t * r->x_token);
    }
    for (uint32_t t = 0; t < tokens; t++) {
        float s[WORDS];
        memcpy(s, &sum[t], sizeof s);
        dot[t] = ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7]));
    }
}

HOST_INLINE void rows_for(struct q4_row r, const bool offset, uint32_t n, size_t row_words, size_t row_scales,
                          uint32_t tokens, float *dots)
{
    for (uint32_t i = 0; i < n; i++, dots += MATMUL_VEC_TOKENS, r.quants += row_words, r.scales += row_scales)
        switch (tokens) {
        case 1: row_for(&r, offset, 1, dots); break;
        case 2: row_for(&r, offset, 2, dots); break;
        case 3: row_for(&r, offset, 3, dots); break;
        default: row_for(&r, offset, 4, dots); break;
        }
}

MOSLD_CLONES
static void q4_0_rows(const struct q4_row *r, uint32_t n, size_t row_words, size_t row_scales, uint32_t tokens,
                      float *dots)
{
    rows_for(*r, false, n, row_words, row_scales, tokens, dots);
}

MOSLD_CLONES
static void q4_1_rows(const struct q4_row *r, uint32_t n, size_t row_words, size_t row_scales, uint32_t tokens,
                      float *dots)
{
    rows_for(*r, true, n, row_words, row_scales, tokens, dots);
}

uint32_t matmul_q4_rows(const struct matmul_push *p, const void *packed, uint32_t row0, uint32_t n,
                        const float *ordered, uint32_t token0, uint32_t tokens, float *dots)
{
    size_t row_words = p->k / 8, row_scales = (size_t)p->k / OP_W_BLOCK * (p->wtype == OP_W_Q4_1 ? 2 : 1);
    const uint32_t *w = packed;
    struct q4_row r = {
        .quants = w + row0 * row_words,
        .scales = (const op_half *)(w + p->scales) + row0 * row_scales,
        .x_token = (size_t)(p->k / GROUP) * GROUP_FLOATS,
        .groups = p->k / GROUP,
    };
    r.x = ordered + token0 * r.x_token;
    (p->wtype == OP_W_Q4_1 ? q4_1_rows : q4_0_rows)(&r, n, row_words, row_scales, tokens, dots);
    return r.groups * GROUP;
}
