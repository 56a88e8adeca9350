/* mosld/ops/matmul_vec_q4.c - matmul_vec for 4-bit weights, which are too cheap to read for lanes in the order of
 * columns.
 *
 * Sixteen words hold 128 columns, and one shift gives a nibble of each: columns j, j + 8, ..., j + 120. So x is put into that order once a
 * call, and a row of W costs a shift, a mask and a conversion for sixteen columns. The offset of a block (Q4_0's q - 8, the m of the others) goes to the
 * sum of x, which is the same for every row:  sum (d q + m) x = d sum q x + m sum x. Scales are converted a run of blocks at a time, since one by one they
 * would cost as much as the quants. A last group that is not whole has zeros for x. */
#include "mosld/ops/host_math.h"
#include "mosld/ops/matmul_vec.h"
#include "mosld/ops/weight_lanes.h"

#include <string.h>

#define WORDS 16
#define GROUP (8 * WORDS)        /* columns */
#define GROUP_BLOCKS (GROUP / OP_W_BLOCK)
#define GROUP_FLOATS (9 * WORDS) /* of x in order: eight nibbles' worth and their sum */
#define MOST_ROWS 32
#define RUN_BLOCKS 512           /* blocks of 32 columns whose scales are converted at a time */

typedef op_word words_any __attribute__((vector_size(4 * WORDS), aligned(4), may_alias));

static size_t groups_of(const struct matmul_push *p) { return ((size_t)p->k + GROUP - 1) / GROUP; }

size_t matmul_q4_x_floats(const struct matmul_push *p) { return (size_t)p->rows * groups_of(p) * GROUP_FLOATS; }

void matmul_q4_order_x(const struct matmul_push *p, const float *x, float *out)
{
    for (size_t t = 0; t < p->rows; t++)
        for (size_t g = 0; g < groups_of(p); g++, out += GROUP_FLOATS) {
            const float *from = x + t * p->x_stride + p->x_col + g * GROUP;
            size_t words = p->k / 8 - g * WORDS < WORDS ? p->k / 8 - g * WORDS : WORDS;
            float *sum = out + 8 * WORDS;
            memset(out, 0, GROUP_FLOATS * sizeof *out);
            for (size_t i = 0; i < words; i++)
                for (size_t j = 0; j < 8; j++) {
                    out[j * WORDS + i] = from[i * 8 + j];
                    sum[i] += from[i * 8 + j];
                }
        }
}

/* ---- scales: d and m of each block in turn, as floats ---- */

HOST_INLINE void scales_q4_1(const op_half *s, uint32_t blocks, float *out) { halves_to_floats(s, 2 * blocks, out); }

HOST_INLINE void scales_q4_0(const op_half *s, uint32_t blocks, float *out)
{
    float d[RUN_BLOCKS];
    halves_to_floats(s, blocks, d);
    for (uint32_t i = 0; i < blocks; i++) {
        out[2 * i] = d[i];
        out[2 * i + 1] = d[i] * -8.0f;
    }
}

HOST_INLINE void scales_q4_k(const op_half *s, uint32_t blocks, float *out)
{
    for (uint32_t i = 0; i < blocks; i += 8, s += 10) {
        floats part;
        lanes_bytes(s + 2, 0, &part);
        float d = host_half(s[0]), m = -host_half(s[1]);
        *(floats_any *)(out + 2 * i) = part * (floats){d, m, d, m, d, m, d, m, d, m, d, m, d, m, d, m};
    }
}

/* ---- rows ---- */

struct q4_row {
    const uint32_t *quants;
    const float *x; /* of the first token, in order */
    size_t x_token; /* floats from token to token */
    uint32_t columns;
};

typedef op_word words_half __attribute__((vector_size(2 * WORDS), aligned(4), may_alias));
typedef uint32_t plain_half __attribute__((vector_size(2 * WORDS)));

/* words of W, d and m of its four blocks */
HOST_INLINE void add_group(const words *packed, const float *scales, const float *x, size_t x_token, const uint32_t tokens, floats *sum)
{
    floats pairs = *(const floats_any *)scales, part[MATMUL_VEC_TOKENS] = {{0}};
    floats d = __builtin_shufflevector(pairs, pairs, 0, 0, 0, 0, 2, 2, 2, 2, 4, 4, 4, 4, 6, 6, 6, 6);
    floats m = __builtin_shufflevector(pairs, pairs, 1, 1, 1, 1, 3, 3, 3, 3, 5, 5, 5, 5, 7, 7, 7, 7);
    words word = *packed;
    for (int j = 0; j < 8; j++, x += WORDS) {
        floats q = __builtin_convertvector((ints)(word >> (4 * j) & 15), floats);
        for (uint32_t t = 0; t < tokens; t++)
            part[t] += q * *(const floats_any *)(x + t * x_token);
    }
    for (uint32_t t = 0; t < tokens; t++)
        sum[t] += part[t] * d + m * *(const floats_any *)(x + t * x_token);
}

/* sum[t] += the row's columns; scales: its d and m. */
HOST_INLINE void row_for(const struct q4_row *r, const float *scales, const uint32_t tokens, floats *sum)
{
    const uint32_t *quants = r->quants;
    const float *x = r->x;
    uint32_t k = 0;
    words word;
    for (; k + GROUP <= r->columns; k += GROUP, quants += WORDS, x += GROUP_FLOATS, scales += 2 * GROUP_BLOCKS) {
        __builtin_prefetch(quants + 20 * WORDS);
        word = *(const words_any *)quants;
        add_group(&word, scales, x, r->x_token, tokens, sum);
    }
    if (k == r->columns)
        return;
    if (r->columns - k == GROUP / 2) {
        plain_half half = (plain_half) * (const words_half *)quants;
        word = __builtin_shufflevector(half, (plain_half){0}, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    } else {
        word = (words){0};
        memcpy(&word, quants, (r->columns - k) / 2);
    }
    add_group(&word, scales, x, r->x_token, tokens, sum);
}

struct q4_rows {
    struct q4_row row; /* the first */
    const op_half *scales;
    uint32_t k, n;
    size_t row_scales; /* halves */
};

typedef void scales_fn(const op_half *, uint32_t, float *);

/* Scales of neighbouring rows are neighbours: as many rows as fit have theirs converted together. A row of more blocks than that goes in runs. */
HOST_INLINE void rows_for(const struct q4_rows *q, scales_fn *convert, const uint32_t tokens, float *dots)
{
    uint32_t blocks = q->k / OP_W_BLOCK, run = blocks < RUN_BLOCKS ? blocks : RUN_BLOCKS, together = RUN_BLOCKS / run;
    together = together < MOST_ROWS ? together : MOST_ROWS;
    float scales[2 * RUN_BLOCKS + LANES];
    for (uint32_t i = 0; i < q->n; i += together) {
        uint32_t rows = q->n - i < together ? q->n - i : together;
        floats sum[MOST_ROWS][MATMUL_VEC_TOKENS];
        for (uint32_t j = 0; j < rows; j++)
            for (uint32_t t = 0; t < tokens; t++)
                sum[j][t] = (floats){0};
        for (uint32_t b = 0; b < blocks; b += run) {
            uint32_t m = blocks - b < run ? blocks - b : run;
            convert(q->scales + i * q->row_scales + q->row_scales * b / blocks, rows * m, scales);
            memset(scales + 2 * (size_t)rows * m, 0, LANES * sizeof *scales);
            struct q4_row r = q->row;
            r.columns = m * OP_W_BLOCK;
            r.x += (size_t)(b / GROUP_BLOCKS) * GROUP_FLOATS;
            r.quants += (size_t)i * (q->k / 8) + (size_t)b * (OP_W_BLOCK / 8);
            for (uint32_t j = 0; j < rows; j++, r.quants += q->k / 8)
                row_for(&r, scales + 2 * (size_t)j * m, tokens, sum[j]);
        }
        for (uint32_t j = 0; j < rows; j++, dots += MATMUL_VEC_TOKENS)
            for (uint32_t t = 0; t < tokens; t++)
                dots[t] = lanes_sum(&sum[j][t]);
    }
}

#define Q4_ROWS(type)                                                                                                  \
    MOSLD_CLONES static void type##_rows(const struct q4_rows *q, uint32_t tokens, float *dots)                        \
    {                                                                                                                  \
        switch (tokens) {                                                                                              \
        case 1: rows_for(q, scales_##type, 1, dots); break;                                                            \
        case 2: rows_for(q, scales_##type, 2, dots); break;                                                            \
        case 3: rows_for(q, scales_##type, 3, dots); break;                                                            \
        default: rows_for(q, scales_##type, 4, dots); break;                                                           \
        }                                                                                                              \
    }
Q4_ROWS(q4_0)
Q4_ROWS(q4_1)
Q4_ROWS(q4_k)

bool matmul_q4_takes(uint32_t wtype) { return wtype == OP_W_Q4_0 || wtype == OP_W_Q4_1 || wtype == OP_W_Q4_K; }

void matmul_q4_rows(const struct matmul_push *p, const void *packed, uint32_t row0, uint32_t n, const float *ordered, uint32_t token0,
                    uint32_t tokens, float *dots)
{
    struct op_weight_layout layout;
    if (!op_weight_layout(p->wtype, p->n, p->k, &layout))
        return;
    const uint32_t *w = packed;
    struct q4_rows q = {
        .row = {.quants = w + row0 * layout.row_words, .x_token = groups_of(p) * GROUP_FLOATS},
        .scales = (const op_half *)(w + layout.scales) + row0 * layout.row_scales,
        .k = p->k,
        .n = n,
        .row_scales = layout.row_scales,
    };
    q.row.x = ordered + token0 * q.row.x_token;
    (p->wtype == OP_W_Q4_0 ? q4_0_rows : p->wtype == OP_W_Q4_1 ? q4_1_rows : q4_k_rows)(&q, tokens, dots);
}
