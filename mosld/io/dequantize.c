/* mosld/io/dequantize.c - see dequantize.h.
 *
 * Every type is small integers q times a scale, some with an offset: value = (d s) q, or (d s) q - (dmin m), where d and dmin are f16 of the block
 * and s and m small integers of a part of it (the "k-quants": blocks of 256 in parts of 16 or 32). Each product and sum is rounded to f32 in this
 * order, as in the gguf Python package. */
#include "mosld/io/dequantize.h"

#include <string.h>

static float half_at(const uint8_t *p) { return dtype_f16_to_f32((uint16_t)(p[0] | p[1] << 8)); }

/* ---- blocks of 32: element i of the first half is a low nibble, of the second half a high one ---- */

static unsigned nibble(const uint8_t *q, int i) { return q[i % 16] >> (i / 16 * 4) & 15u; }

static unsigned bit(const uint8_t *bits, int i) { return bits[i / 8] >> (i % 8) & 1u; }

static void q8_0(const uint8_t *block, float *dst)
{
    float d = half_at(block);
    for (int i = 0; i < 32; i++)
        dst[i] = d * (float)(int8_t)block[2 + i];
}

static void q4_0(const uint8_t *block, float *dst)
{
    float d = half_at(block);
    for (int i = 0; i < 32; i++)
        dst[i] = d * (float)((int)nibble(block + 2, i) - 8);
}

static void q4_1(const uint8_t *block, float *dst)
{
    float d = half_at(block), m = half_at(block + 2);
    for (int i = 0; i < 32; i++)
        dst[i] = d * (float)nibble(block + 4, i) + m;
}

static void q5_0(const uint8_t *block, float *dst)
{
    float d = half_at(block);
    for (int i = 0; i < 32; i++)
        dst[i] = d * (float)((int)(nibble(block + 6, i) | bit(block + 2, i) << 4) - 16);
}

static void q5_1(const uint8_t *block, float *dst)
{
    float d = half_at(block), m = half_at(block + 2);
    for (int i = 0; i < 32; i++)
        dst[i] = d * (float)(nibble(block + 8, i) | bit(block + 4, i) << 4) + m;
}

static void iq4_nl(const uint8_t *block, float *dst)
{
    static const int8_t values[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};
    float d = half_at(block);
    for (int i = 0; i < 32; i++)
        dst[i] = d * (float)values[nibble(block + 2, i)];
}

/* ---- blocks of 256; groups of 32 neighbours lie in 32 neighbouring bytes, a group a shift ---- */

static void q2_k(const uint8_t *block, float *dst)
{
    const uint8_t *q = block + 16;
    float d = half_at(block + 80), dmin = half_at(block + 82);
    for (int i = 0; i < 256; i++) {
        uint8_t scale = block[i / 16];
        int quant = q[i / 128 * 32 + i % 32] >> (i % 128 / 32 * 2) & 3;
        dst[i] = d * (float)(scale & 15) * (float)quant - dmin * (float)(scale >> 4);
    }
}

static void q3_k(const uint8_t *block, float *dst)
{
    const uint8_t *high = block, *q = block + 32, *s = block + 96;
    float d = half_at(block + 108);
    for (int i = 0; i < 256; i++) {
        int part = i / 16, low4 = s[part % 8] >> (part / 8 * 4) & 15, high2 = s[8 + part % 4] >> (part / 4 * 2) & 3;
        int quant = q[i / 128 * 32 + i % 32] >> (i % 128 / 32 * 2) & 3;
        int below = (high[i % 32] >> (i / 32) & 1) ? 0 : 4; /* the bit says that 4 is not taken away */
        dst[i] = d * (float)((low4 | high2 << 4) - 32) * (float)(quant - below);
    }
}

/* Scale and offset of part 0 .. 7 of 12 bytes of 6-bit numbers: the last four lend their top bits from the first eight bytes. */
static void six_bits(const uint8_t *s, int part, int *scale, int *offset)
{
    if (part < 4) {
        *scale = s[part] & 63;
        *offset = s[part + 4] & 63;
    } else {
        *scale = (s[part + 4] & 15) | (s[part - 4] >> 6) << 4;
        *offset = (s[part + 4] >> 4) | (s[part] >> 6) << 4;
    }
}

/* `high`: the fifth bits; NULL for Q4_K. */
static void q45_k(const uint8_t *block, const uint8_t *high, const uint8_t *q, float *dst)
{
    float d = half_at(block), dmin = half_at(block + 2);
    for (int part = 0; part < 8; part++) {
        int scale, offset;
        six_bits(block + 4, part, &scale, &offset);
        float step = d * (float)scale, least = dmin * (float)offset;
        for (int l = 0; l < 32; l++) {
            int quant = q[part / 2 * 32 + l] >> (part % 2 * 4) & 15;
            if (high)
                quant |= (high[l] >> part & 1) << 4;
            *dst++ = step * (float)quant - least;
        }
    }
}

static void q4_k(const uint8_t *block, float *dst) { q45_k(block, NULL, block + 16, dst); }
static void q5_k(const uint8_t *block, float *dst) { q45_k(block, block + 16, block + 48, dst); }

static void q6_k(const uint8_t *block, float *dst)
{
    const uint8_t *low = block, *high = block + 128, *s = block + 192;
    float d = half_at(block + 208);
    for (int i = 0; i < 256; i++) {
        int group = i % 128 / 32, l = i % 32;
        int quant = low[i / 128 * 64 + group % 2 * 32 + l] >> (group / 2 * 4) & 15;
        quant |= (high[i / 128 * 32 + l] >> (group * 2) & 3) << 4;
        dst[i] = d * (float)(int8_t)s[i / 16] * (float)(quant - 32);
    }
}

/* ---- the table ---- */

static const struct {
    dequantize_block_fn *block;
    uint32_t first, second;
} kinds[DTYPES] = {
    [DTYPE_Q8_0] = {q8_0, 0, 0},     [DTYPE_Q4_0] = {q4_0, 0, 0},   [DTYPE_Q4_1] = {q4_1, 0, 2}, [DTYPE_Q5_0] = {q5_0, 0, 0},
    [DTYPE_Q5_1] = {q5_1, 0, 2},     [DTYPE_IQ4_NL] = {iq4_nl, 0, 0}, [DTYPE_Q2_K] = {q2_k, 80, 82}, [DTYPE_Q3_K] = {q3_k, 108, 0},
    [DTYPE_Q4_K] = {q4_k, 0, 2},     [DTYPE_Q5_K] = {q5_k, 0, 2},   [DTYPE_Q6_K] = {q6_k, 208, 0},
};

dequantize_block_fn *dequantize_of(enum dtype type) { return (unsigned)type < DTYPES ? kinds[type].block : NULL; }

void dequantize_scales_at(enum dtype type, uint32_t *first, uint32_t *second)
{
    *first = kinds[type].first;
    *second = kinds[type].second;
}
