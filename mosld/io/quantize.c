/* mosld/io/quantize.c - f32 to the types that weights may have, by rounding to nearest: see dtype_from_f32.
 *
 * A block of 32 has the scale that puts its largest value at the end of the range: Q8_0 d = max|x| / 127; Q4_0 d = x_max / -8, x_max being the value of
 * largest magnitude with its sign, so that it is met exactly; Q4_1 d = (max - min) / 15, m = min. Quants are made with the f32 scale, which is then
 * stored as f16: as GGUF's own converter does. */
#include "mosld/io/dtype.h"

#include <math.h>
#include <string.h>

#define BLOCK 32

static void put_half(unsigned char *to, float value)
{
    uint16_t half = dtype_f32_to_f16(value);
    memcpy(to, &half, 2);
}

static void block_q8_0(const float *x, unsigned char *to)
{
    float largest = 0;
    for (int i = 0; i < BLOCK; i++)
        largest = fmaxf(largest, fabsf(x[i]));
    float d = largest / 127, inverse = d > 0 ? 1 / d : 0;
    put_half(to, d);
    for (int i = 0; i < BLOCK; i++)
        to[2 + i] = (unsigned char)(signed char)roundf(x[i] * inverse);
}

/* Byte j of the quants has element j low and element j + 16 high. */
static void put_nibbles(const float *x, float offset, float inverse, float rounding, unsigned char *to)
{
    for (int j = 0; j < BLOCK / 2; j++) {
        int low = (int)((x[j] - offset) * inverse + rounding), high = (int)((x[j + BLOCK / 2] - offset) * inverse + rounding);
        low = low > 15 ? 15 : low;
        high = high > 15 ? 15 : high;
        to[j] = (unsigned char)(low | high << 4);
    }
}

static void block_q4_0(const float *x, unsigned char *to)
{
    float extreme = 0;
    for (int i = 0; i < BLOCK; i++)
        if (fabsf(x[i]) > fabsf(extreme))
            extreme = x[i];
    float d = extreme / -8;
    put_half(to, d);
    put_nibbles(x, 0, d != 0 ? 1 / d : 0, 8.5f, to + 2);
}

static void block_q4_1(const float *x, unsigned char *to)
{
    float low = x[0], high = x[0];
    for (int i = 1; i < BLOCK; i++) {
        low = fminf(low, x[i]);
        high = fmaxf(high, x[i]);
    }
    float d = (high - low) / 15;
    put_half(to, d);
    put_half(to + 2, low);
    put_nibbles(x, low, d > 0 ? 1 / d : 0, 0.5f, to + 4);
}

bool dtype_from_f32(enum dtype type, const float *src, uint64_t n, void *dst)
{
    unsigned char *to = dst;
    const struct dtype_info *info = dtype_info(type);
    if (n % info->block)
        return false;
    for (uint64_t i = 0; i < n; i += info->block, to += info->bytes) {
        uint16_t half;
        switch (type) {
        case DTYPE_F32: memcpy(to, src + i, 4); break;
        case DTYPE_F16: half = dtype_f32_to_f16(src[i]); memcpy(to, &half, 2); break;
        case DTYPE_BF16: half = dtype_f32_to_bf16(src[i]); memcpy(to, &half, 2); break;
        case DTYPE_Q8_0: block_q8_0(src + i, to); break;
        case DTYPE_Q4_0: block_q4_0(src + i, to); break;
        case DTYPE_Q4_1: block_q4_1(src + i, to); break;
        default: return false;
        }
    }
    return true;
}
