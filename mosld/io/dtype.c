/* mosld/io/dtype.c - see dtype.h. */
#include "mosld/io/dtype.h"

#include "mosld/io/dequantize.h"

#include <string.h>

static const struct dtype_info infos[DTYPES] = {
    [DTYPE_F32] = {"F32", 1, 4, 0, true},
    [DTYPE_F16] = {"F16", 1, 2, 1, true},
    [DTYPE_BF16] = {"BF16", 1, 2, 30, true},
    [DTYPE_Q8_0] = {"Q8_0", 32, 34, 8, false},
    [DTYPE_Q4_0] = {"Q4_0", 32, 18, 2, false},
    [DTYPE_Q4_1] = {"Q4_1", 32, 20, 3, false},
    [DTYPE_F64] = {"F64", 1, 8, 28, true},
    [DTYPE_U8] = {"U8", 1, 1, -1, true},
    [DTYPE_I8] = {"I8", 1, 1, 24, true},
    [DTYPE_BOOL] = {"BOOL", 1, 1, -1, true},
    [DTYPE_I16] = {"I16", 1, 2, 25, true},
    [DTYPE_U16] = {"U16", 1, 2, -1, true},
    [DTYPE_I32] = {"I32", 1, 4, 26, true},
    [DTYPE_U32] = {"U32", 1, 4, -1, true},
    [DTYPE_I64] = {"I64", 1, 8, 27, true},
    [DTYPE_U64] = {"U64", 1, 8, -1, true},
    [DTYPE_F8_E4M3] = {"F8_E4M3", 1, 1, -1, true},
    [DTYPE_F8_E5M2] = {"F8_E5M2", 1, 1, -1, true},
    [DTYPE_Q5_0] = {"Q5_0", 32, 22, 6, false},
    [DTYPE_Q5_1] = {"Q5_1", 32, 24, 7, false},
    [DTYPE_Q2_K] = {"Q2_K", 256, 84, 10, false},
    [DTYPE_Q3_K] = {"Q3_K", 256, 110, 11, false},
    [DTYPE_Q4_K] = {"Q4_K", 256, 144, 12, false},
    [DTYPE_Q5_K] = {"Q5_K", 256, 176, 13, false},
    [DTYPE_Q6_K] = {"Q6_K", 256, 210, 14, false},
    [DTYPE_Q8_K] = {"Q8_K", 256, 292, 15, false},
    [DTYPE_IQ2_XXS] = {"IQ2_XXS", 256, 66, 16, false},
    [DTYPE_IQ2_XS] = {"IQ2_XS", 256, 74, 17, false},
    [DTYPE_IQ3_XXS] = {"IQ3_XXS", 256, 98, 18, false},
    [DTYPE_IQ1_S] = {"IQ1_S", 256, 50, 19, false},
    [DTYPE_IQ4_NL] = {"IQ4_NL", 32, 18, 20, false},
    [DTYPE_IQ3_S] = {"IQ3_S", 256, 110, 21, false},
    [DTYPE_IQ2_S] = {"IQ2_S", 256, 82, 22, false},
    [DTYPE_IQ4_XS] = {"IQ4_XS", 256, 136, 23, false},
    [DTYPE_IQ1_M] = {"IQ1_M", 256, 56, 29, false},
    [DTYPE_TQ1_0] = {"TQ1_0", 256, 54, 34, false},
    [DTYPE_TQ2_0] = {"TQ2_0", 256, 66, 35, false},
    [DTYPE_MXFP4] = {"MXFP4", 32, 17, 39, false},
};

const struct dtype_info *dtype_info(enum dtype type)
{
    static const struct dtype_info unknown = {"unknown", 1, 0, -1, false};
    return (unsigned)type < DTYPES ? &infos[type] : &unknown;
}

enum dtype dtype_from_safetensors(const char *name)
{
    for (int i = 0; i < DTYPES; i++)
        if (infos[i].in_safetensors && strcmp(infos[i].name, name) == 0)
            return (enum dtype)i;
    return DTYPES;
}

enum dtype dtype_from_gguf(uint32_t id)
{
    for (int i = 0; i < DTYPES; i++)
        if (infos[i].gguf_id >= 0 && (uint32_t)infos[i].gguf_id == id)
            return (enum dtype)i;
    return DTYPES;
}

bool dtype_bytes(enum dtype type, uint64_t elements, uint64_t *bytes)
{
    const struct dtype_info *info = dtype_info(type);
    return elements % info->block == 0 && !__builtin_mul_overflow(elements / info->block, (uint64_t)info->bytes, bytes);
}

bool dtype_converts(enum dtype type)
{
    return type == DTYPE_F32 || type == DTYPE_F16 || type == DTYPE_BF16 || type == DTYPE_F64 || dequantize_of(type);
}

/* ---- scalars ---- */

static float float_of(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static uint32_t bits_of(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

float dtype_f16_to_f32(uint16_t half)
{
    uint32_t sign = (uint32_t)(half & 0x8000) << 16, exponent = half >> 10 & 0x1f, mantissa = half & 0x3ff;
    if (exponent == 31)
        return float_of(sign | 0x7f800000 | mantissa << 13);
    if (exponent > 0)
        return float_of(sign | (exponent + 112) << 23 | mantissa << 13);
    float value = (float)mantissa * 0x1p-24f; /* a subnormal, or zero: exact */
    return float_of(bits_of(value) | sign);
}

float dtype_bf16_to_f32(uint16_t bf16) { return float_of((uint32_t)bf16 << 16); }

uint16_t dtype_f32_to_f16(float value)
{
    uint32_t bits = bits_of(value);
    uint16_t sign = (uint16_t)(bits >> 16 & 0x8000);
    uint32_t magnitude = bits & 0x7fffffff;
    if (magnitude > 0x7f800000) /* NaN: the top bits of its payload, and quiet */
        return (uint16_t)(sign | 0x7e00 | (magnitude >> 13 & 0x3ff));
    if (magnitude >= 0x477ff000) /* 65520 and above round beyond the largest half, 65504 */
        return sign | 0x7c00;
    if (magnitude < 0x38800000) { /* below 2^-14: adding 2^-1 leaves the half's bits, rounded, at the bottom */
        float shifted = float_of(magnitude) + 0.5f;
        return (uint16_t)(sign | (bits_of(shifted) - bits_of(0.5f)));
    }
    uint32_t rounded = magnitude + 0xfff + (magnitude >> 13 & 1);
    return (uint16_t)(sign | ((rounded - (112u << 23)) >> 13));
}

uint16_t dtype_f32_to_bf16(float value)
{
    uint32_t bits = bits_of(value);
    if ((bits & 0x7fffffff) > 0x7f800000)
        return (uint16_t)(bits >> 16 | 0x40);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

/* ---- rows ---- */

static uint16_t load_u16(const uint8_t *p) { return (uint16_t)(p[0] | p[1] << 8); }

static void f64_to_f32(const uint8_t *src, uint64_t n, float *dst)
{
    for (uint64_t i = 0; i < n; i++) {
        double value;
        memcpy(&value, src + 8 * i, sizeof value);
        dst[i] = (float)value;
    }
}

void dtype_to_f32(enum dtype type, const void *source, uint64_t n, float *dst)
{
    const uint8_t *src = source;
    if (type == DTYPE_F32) {
        memcpy(dst, src, (size_t)n * 4);
    } else if (type == DTYPE_F16) {
        for (uint64_t i = 0; i < n; i++)
            dst[i] = dtype_f16_to_f32(load_u16(src + 2 * i));
    } else if (type == DTYPE_BF16) {
        for (uint64_t i = 0; i < n; i++)
            dst[i] = dtype_bf16_to_f32(load_u16(src + 2 * i));
    } else if (type == DTYPE_F64) {
        f64_to_f32(src, n, dst);
    } else {
        dequantize_block_fn *convert = dequantize_of(type);
        const struct dtype_info *info = &infos[type];
        for (uint64_t b = 0; convert && b < n / info->block; b++)
            convert(src + b * info->bytes, dst + b * info->block);
    }
}

/* A 16-bit float at the front (and one at `second`, where that is not 0) of each of n strides: the index of the first
 * that is not finite. Inlined, so that strides are constants, and without a way out of the inner loop, so that it
 * vectorises: every weight of a model passes through here. */
static inline __attribute__((always_inline)) uint64_t scan_halves(const uint8_t *p, uint64_t n, size_t stride,
                                                                  uint16_t exponent, size_t second)
{
    enum { CHUNK = 256 };
    for (uint64_t i = 0; i < n; i += CHUNK) {
        uint64_t end = n - i < CHUNK ? n : i + CHUNK;
        unsigned bad = 0;
        for (uint64_t k = i; k < end; k++)
            bad |= (load_u16(p + k * stride) & exponent) == exponent ||
                   (second && (load_u16(p + k * stride + second) & exponent) == exponent);
        for (uint64_t k = i; k < end && bad; k++)
            if ((load_u16(p + k * stride) & exponent) == exponent ||
                (second && (load_u16(p + k * stride + second) & exponent) == exponent))
                return k;
    }
    return n;
}

/* Quantised types: blocks whose f16 scales are not finite. */
static uint64_t first_bad_block(enum dtype type, const uint8_t *p, uint64_t n)
{
    enum { F16_EXPONENT = 0x7c00 };
    const struct dtype_info *info = dtype_info(type);
    if (!dequantize_of(type))
        return n;
    uint32_t first, second;
    dequantize_scales_at(type, &first, &second);
    return info->block * scan_halves(p + first, n / info->block, info->bytes, F16_EXPONENT, second ? second - first : 0);
}

uint64_t dtype_first_nonfinite(enum dtype type, const void *source, uint64_t n)
{
    enum { F16_EXPONENT = 0x7c00, TOP_EXPONENT = 0x7f80, F64_EXPONENT = 0x7ff0 };
    const uint8_t *p = source;
    switch (type) {
    case DTYPE_F32: /* the exponent lies in the top half of the word */
        return n ? scan_halves(p + 2, n, 4, TOP_EXPONENT, 0) : 0;
    case DTYPE_BF16:
        return scan_halves(p, n, 2, TOP_EXPONENT, 0);
    case DTYPE_F16:
        return scan_halves(p, n, 2, F16_EXPONENT, 0);
    case DTYPE_F64:
        return n ? scan_halves(p + 6, n, 8, F64_EXPONENT, 0) : 0;
    default:
        return first_bad_block(type, p, n);
    }
}
