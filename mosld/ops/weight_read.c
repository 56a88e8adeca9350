/* mosld/ops/weight_read.c - packed weights to f32: what the host's products and the tests read.
 *
 * Plain loops that the compiler vectorises; memory is little-endian, so bytes and halves of a word stand in column order. */
#include "mosld/ops/host_math.h"
#include "mosld/ops/weight_layout.h"

#include <string.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "packed weights are read as little-endian memory"
#endif

MOSLD_CLONES
static void read_f16(const op_half *restrict in, size_t n, float *restrict out)
{
    for (size_t i = 0; i < n; i++)
        out[i] = host_half(in[i]);
}

MOSLD_CLONES
static void read_bf16(const op_half *restrict in, size_t n, float *restrict out)
{
    for (size_t i = 0; i < n; i++)
        out[i] = host_float((uint32_t)in[i] << 16);
}

/* `blocks` blocks of 32 columns each. */
MOSLD_CLONES
static void read_q8_0(const int8_t *restrict q, const op_half *restrict scales, size_t blocks, float *restrict out)
{
    for (size_t b = 0; b < blocks; b++) {
        float d = host_half(scales[b]);
        for (size_t j = 0; j < 32; j++)
            out[b * 32 + j] = d * (float)q[b * 32 + j];
    }
}

MOSLD_CLONES
static void read_q4_0(const uint8_t *restrict q, const op_half *restrict scales, size_t blocks, float *restrict out)
{
    for (size_t b = 0; b < blocks; b++) {
        float d = host_half(scales[b]);
        for (size_t j = 0; j < 16; j++) {
            out[b * 32 + 2 * j] = d * (float)((q[b * 16 + j] & 15) - 8);
            out[b * 32 + 2 * j + 1] = d * (float)((q[b * 16 + j] >> 4) - 8);
        }
    }
}

MOSLD_CLONES
static void read_q4_1(const uint8_t *restrict q, const op_half *restrict scales, size_t blocks, float *restrict out)
{
    for (size_t b = 0; b < blocks; b++) {
        float d = host_half(scales[2 * b]), m = host_half(scales[2 * b + 1]);
        for (size_t j = 0; j < 16; j++) {
            out[b * 32 + 2 * j] = d * (float)(q[b * 16 + j] & 15) + m;
            out[b * 32 + 2 * j + 1] = d * (float)(q[b * 16 + j] >> 4) + m;
        }
    }
}

void op_weight_unpack_part(enum op_wtype type, uint32_t rows, uint32_t cols, const void *packed, uint32_t row0, uint32_t n,
                           uint32_t col0, uint32_t m, float *out, size_t stride)
{
    struct op_weight_layout layout;
    if (!op_weight_layout(type, rows, cols, &layout))
        return;
    const uint32_t *words = packed;
    const op_half *scales = (const op_half *)(words + layout.scales);
    size_t row_blocks = cols / OP_W_BLOCK, blocks = m / OP_W_BLOCK;
    for (uint32_t r = row0; r < row0 + n; r++, out += stride) {
        const uint32_t *row = words + r * layout.row_words;
        size_t block = r * row_blocks + col0 / OP_W_BLOCK;
        switch (type) {
        case OP_W_F32: memcpy(out, row + col0, (size_t)m * sizeof *out); break;
        case OP_W_F16: read_f16((const op_half *)row + col0, m, out); break;
        case OP_W_BF16: read_bf16((const op_half *)row + col0, m, out); break;
        case OP_W_Q8_0: read_q8_0((const int8_t *)row + col0, scales + block, blocks, out); break;
        case OP_W_Q4_0: read_q4_0((const uint8_t *)row + col0 / 2, scales + block, blocks, out); break;
        default: read_q4_1((const uint8_t *)row + col0 / 2, scales + 2 * block, blocks, out); break;
        }
    }
}

void op_weight_unpack(enum op_wtype type, uint32_t rows, uint32_t cols, const void *packed, uint32_t row0, uint32_t n, float *out)
{
    op_weight_unpack_part(type, rows, cols, packed, row0, n, 0, cols, out, cols);
}
