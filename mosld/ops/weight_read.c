/* mosld/ops/weight_read.c - packed weights to f32: what the host's products and the tests read. */
#include "mosld/ops/weight_lanes.h"

/* name: `n` columns from `col` on of one row. The columns behind the last whole 16 go one by one through ONE. */
#define READ_ROW(name, LOAD, SCALES, APPLY, ONE)                                                                       \
    MOSLD_CLONES static void name(const void *row, const op_half *scales, uint32_t col, uint32_t n,                    \
                                  float *restrict out)                                                                 \
    {                                                                                                                  \
        uint32_t i = 0;                                                                                                \
        for (; i + LANES <= n; i += LANES) {                                                                           \
            SCALES(scales, col + i);                                                                                   \
            floats w;                                                                                                  \
            LOAD(row, col + i, &w);                                                                                    \
            w = APPLY(w);                                                                                              \
            *(floats_any *)(out + i) = w;                                                                              \
        }                                                                                                              \
        for (; i < n; i++)                                                                                             \
            out[i] = ONE(((const op_half *)row)[col + i]);                                                             \
        (void)scales;                                                                                                  \
    }

HOST_INLINE float one_bf16(uint16_t half) { return host_float((uint32_t)half << 16); }

/* Quantised rows are whole blocks: they have no such rest. */
#define NEVER(half) (half)

READ_ROW(read_f16, lanes_f16, LANES_NONE, LANES_AS_IS, host_half)
READ_ROW(read_bf16, lanes_bf16, LANES_NONE, LANES_AS_IS, one_bf16)
#define READ_QUANTISED(type, load, scales, apply) READ_ROW(read_##type, load, scales, apply, NEVER)
LANES_QUANTISED(READ_QUANTISED)

static void read_f32(const void *row, const op_half *scales, uint32_t col, uint32_t n, float *restrict out)
{
    (void)scales;
    memcpy(out, (const float *)row + col, (size_t)n * sizeof *out);
}

void op_weight_unpack_part(enum op_wtype type, uint32_t rows, uint32_t cols, const void *packed, uint32_t row0,
                           uint32_t n, uint32_t col0, uint32_t m, float *out, size_t stride)
{
#define READ_OF(type, number, unused) [number] = read_##type
    static void (*const read[OP_W_TYPES])(const void *, const op_half *, uint32_t, uint32_t, float *restrict) = {
        OP_W_EACH(READ_OF, OP_W_COMMA, unused)};
    struct op_weight_layout layout;
    if (!op_weight_layout(type, rows, cols, &layout))
        return;
    const uint32_t *w = packed;
    const op_half *scales = (const op_half *)(w + layout.scales);
    for (uint32_t r = row0; r < row0 + n; r++, out += stride)
        read[type](w + r * layout.row_words, scales + r * layout.row_scales, col0, m, out);
}

void op_weight_unpack(enum op_wtype type, uint32_t rows, uint32_t cols, const void *packed, uint32_t row0, uint32_t n,
                      float *out)
{
    op_weight_unpack_part(type, rows, cols, packed, row0, n, 0, cols, out, cols);
}
