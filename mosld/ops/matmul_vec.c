/* mosld/ops/matmul_vec.c - y = x W^T for a few tokens on the host, as in generation: the weights' bytes are the cost.
 *
 * Packed weights go through the registers once, 16 columns at a time, for up to 4 tokens; nothing is unpacked to
 * memory. Scales multiply the 16 values, so sums are as exact as with unpacked weights. Each row of W is one thread's,
 * in one order. */
#include "mosld/ops/matmul_vec.h"
#include "mosld/ops/weight_lanes.h"

#define ROWS_ITEM 64

/* n rows of what `one_row` does with one. */
#define ROWS_OF(name, one_row)                                                                                         \
    MOSLD_CLONES static void name(const struct row_read *r, uint32_t n, size_t row_bytes, uint32_t row_scales,         \
                                  float *out)                                                                          \
    {                                                                                                                  \
        struct row_read one = *r;                                                                                      \
        for (uint32_t i = 0; i < n; i++, out += MATMUL_VEC_TOKENS) {                                                   \
            switch (r->tokens) {                                                                                       \
            case 1: one_row(&one, 1, out); break;                                                                      \
            case 2: one_row(&one, 2, out); break;                                                                      \
            case 3: one_row(&one, 3, out); break;                                                                      \
            default: one_row(&one, 4, out); break;                                                                     \
            }                                                                                                          \
            one.row = (const char *)one.row + row_bytes;                                                               \
            one.scales += row_scales;                                                                                  \
        }                                                                                                              \
    }

/* One row for 1 .. MATMUL_VEC_TOKENS tokens, and n rows of them; LOAD, SCALES and APPLY are of weight_lanes.h. */
#define DOT_ROW(name, LOAD, SCALES, APPLY)                                                                             \
    HOST_INLINE void name##_for(const struct row_read *r, const uint32_t tokens, float *dot)                           \
    {                                                                                                                  \
        floats sum[MATMUL_VEC_TOKENS][2] = {{{0}}};                                                                    \
        uint32_t whole = r->p->k / 32 * 32;                                                                            \
        for (uint32_t k = 0; k < whole; k += 32) {                                                                     \
            floats w0, w1;                                                                                             \
            {                                                                                                          \
                SCALES(r->scales, k);                                                                                  \
                LOAD(r->row, k, &w0);                                                                                  \
                w0 = APPLY(w0);                                                                                        \
            }                                                                                                          \
            {                                                                                                          \
                SCALES(r->scales, k + LANES);                                                                          \
                LOAD(r->row, k + LANES, &w1);                                                                          \
                w1 = APPLY(w1);                                                                                        \
            }                                                                                                          \
            for (uint32_t t = 0; t < tokens; t++) {                                                                    \
                const float *x = r->x + (size_t)t * r->p->x_stride + k;                                                \
                sum[t][0] += w0 * *(const floats_any *)x;                                                              \
                sum[t][1] += w1 * *(const floats_any *)(x + LANES);                                                    \
            }                                                                                                          \
        }                                                                                                              \
        for (uint32_t t = 0; t < tokens; t++) {                                                                        \
            floats both = sum[t][0] + sum[t][1];                                                                       \
            dot[t] = lanes_sum(&both);                                                                                 \
        }                                                                                                              \
    }                                                                                                                  \
    ROWS_OF(name, name##_for)

DOT_ROW(dot_f32, lanes_f32, LANES_NONE, LANES_AS_IS)
DOT_ROW(dot_f16, lanes_f16, LANES_NONE, LANES_AS_IS)
DOT_ROW(dot_bf16, lanes_bf16, LANES_NONE, LANES_AS_IS)
#define DOT_QUANTISED(type, load, scales, apply) DOT_ROW(dot_##type, load, scales, apply)
LANES_QUANTISED(DOT_QUANTISED)

/* Q8_0's only scale multiplies the sum of 32 products, and the scales of a few blocks are converted at once. */
HOST_INLINE void q8_0_for(const struct row_read *r, const uint32_t tokens, float *dot)
{
    enum { BLOCKS = 64 };
    floats sum[MATMUL_VEC_TOKENS] = {{0}};
    uint32_t blocks = r->p->k / 32;
    for (uint32_t b0 = 0; b0 < blocks; b0 += BLOCKS) {
        float d[BLOCKS];
        uint32_t n = blocks - b0 < BLOCKS ? blocks - b0 : BLOCKS;
        halves_to_floats(r->scales + b0, n, d);
        for (uint32_t b = 0, k = b0 * 32; b < n; b++, k += 32) {
            floats w0, w1;
            __builtin_prefetch((const int8_t *)r->row + k + 1024);
            lanes_bytes(r->row, k, &w0);
            lanes_bytes(r->row, k + LANES, &w1);
            for (uint32_t t = 0; t < tokens; t++) {
                const float *x = r->x + (size_t)t * r->p->x_stride + k;
                sum[t] += (w0 * *(const floats_any *)x + w1 * *(const floats_any *)(x + LANES)) * d[b];
            }
        }
    }
    for (uint32_t t = 0; t < tokens; t++)
        dot[t] = lanes_sum(&sum[t]);
}
ROWS_OF(dot_q8_0_blocks, q8_0_for)

/* The columns from k0 on, at most 32. */
static void add_tail(const struct matmul_push *p, const void *packed, uint32_t row, uint32_t k0, const float *x,
                     uint32_t tokens, float *dot)
{
    float w[32];
    op_weight_unpack_part(p->wtype, p->n, p->k, (const uint32_t *)packed + p->w_offset, row, 1, k0, p->k - k0, w, 32);
    for (uint32_t t = 0; t < tokens; t++)
        for (uint32_t k = k0; k < p->k; k++)
            dot[t] += w[k - k0] * x[(size_t)t * p->x_stride + k];
}

/* dots[i][t] of rows row0 .. row0 + n for up to MATMUL_VEC_TOKENS tokens from x on. */
static void dot_rows(const struct matmul_push *p, const void *packed, uint32_t row0, uint32_t n, const float *x,
                     uint32_t tokens, float (*dots)[MATMUL_VEC_TOKENS])
{
#define DOT_OF(type, number, unused) [number] = dot_##type
    static void (*const dot[OP_W_TYPES])(const struct row_read *, uint32_t, size_t, uint32_t, float *) = {
        OP_W_EACH(DOT_OF, OP_W_COMMA, unused), [OP_W_Q8_0] = dot_q8_0_blocks};
    struct op_weight_layout layout;
    if (!op_weight_layout(p->wtype, p->n, p->k, &layout))
        return;
    const uint32_t *w = (const uint32_t *)packed + p->w_offset;
    struct row_read r = {
        .p = p,
        .row = w + row0 * layout.row_words,
        .scales = (const op_half *)(w + layout.scales) + row0 * layout.row_scales,
        .x = x,
        .tokens = tokens,
    };
    if (p->wtype != OP_W_F16 || !matmul_f16_rows(&r, n, layout.row_words * 4, dots[0]))
        dot[p->wtype](&r, n, layout.row_words * 4, (uint32_t)layout.row_scales, dots[0]);
    for (uint32_t i = 0; i < n && p->k % 32; i++)
        add_tail(p, packed, row0 + i, p->k / 32 * 32, x, tokens, dots[i]);
}

struct few {
    const struct matmul_push *p;
    const float *x;
    const void *w;
    float *y;
    const float *other;
    float *ordered; /* x as matmul_vec_q4.c wants it; NULL: not such weights, or no memory */
};

void matmul_vec_store(const struct matmul_push *p, const float *other, uint32_t row0, uint32_t n, uint32_t t0, uint32_t tokens,
                      float (*dots)[MATMUL_VEC_TOKENS], float *y)
{
    for (uint32_t t = 0; t < tokens; t++)
        for (uint32_t i = 0; i < n; i++) {
            size_t at = (size_t)(t0 + t) * p->y_stride + p->y_col + row0 + i;
            float v = p->scale * dots[i][t];
            switch (p->add) {
            case MATMUL_ADD_SELF: v += y[at]; break;
            case MATMUL_ADD_BIAS: v += other[p->bias_col + row0 + i]; break;
            case MATMUL_ADD_RESIDUAL: v += other[at]; break;
            default: break;
            }
            y[at] = v;
        }
}

void matmul_vec_dots(const struct matmul_push *p, const void *w, const float *x, const float *ordered, uint32_t row0, uint32_t n, uint32_t t0,
                     uint32_t tokens, float (*dots)[MATMUL_VEC_TOKENS])
{
    if (ordered)
        matmul_q4_rows(p, w, row0, n, ordered, t0, tokens, dots[0]);
    else
        dot_rows(p, w, row0, n, x + (size_t)t0 * p->x_stride + p->x_col, tokens, dots);
}

static void vec_item(void *arg, int item, int worker)
{
    (void)worker;
    const struct few *f = arg;
    const struct matmul_push *p = f->p;
    uint32_t row0 = (uint32_t)item * ROWS_ITEM, n = p->n - row0 < ROWS_ITEM ? p->n - row0 : ROWS_ITEM;
    for (uint32_t t0 = 0; t0 < p->rows; t0 += MATMUL_VEC_TOKENS) {
        uint32_t tokens = p->rows - t0 < MATMUL_VEC_TOKENS ? p->rows - t0 : MATMUL_VEC_TOKENS;
        float dots[ROWS_ITEM][MATMUL_VEC_TOKENS];
        matmul_vec_dots(p, f->w, f->x, f->ordered, row0, n, t0, tokens, dots);
        matmul_vec_store(p, f->other, row0, n, t0, tokens, dots, f->y);
    }
}

void matmul_host_vec(struct rt_device *dev, void *const *b, const void *push)
{
    const struct matmul_push *p = push;
    if (p->rows == 0)
        return;
    struct few f = {p, b[MATMUL_X], b[MATMUL_W], b[MATMUL_Y], b[MATMUL_OTHER], NULL};
    if (matmul_q4_takes(p->wtype)) /* the caller's scratch, which no item touches */
        f.ordered = rt_host_scratch(dev, 0, matmul_q4_x_floats(p) * sizeof *f.ordered + 1);
    if (f.ordered)
        matmul_q4_order_x(p, f.x, f.ordered);
    rt_parallel(dev, (int)((p->n + ROWS_ITEM - 1) / ROWS_ITEM), vec_item, &f);
}
