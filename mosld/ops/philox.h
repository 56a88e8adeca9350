/* mosld/ops/philox.h - Philox 4x32-10 for many counters at once, and the mask that is drawn from it; for mosld/ops
 * alone.
 *
 * shaders/common/philox.glsl draws the same bits. Users outside of ops call mosld_philox (mixture.h). */
#ifndef MOSLD_PHILOX_H
#define MOSLD_PHILOX_H

#include "mosld/ops/host_math.h"

#include <stdint.h>

#define PHILOX_LANES 64 /* blocks that philox_lanes makes; a multiple of what one register holds */

/* Blocks of the counters (first + i, c1, c2, c3) for i < PHILOX_LANES: word w of block i is out[w][i]. */
HOST_INLINE void philox_lanes(uint32_t first, uint32_t c1, uint32_t c2, uint32_t c3, const uint32_t key[2],
                              uint32_t out[4][PHILOX_LANES])
{
    uint32_t k0 = key[0], k1 = key[1];
    for (uint32_t i = 0; i < PHILOX_LANES; i++) {
        out[0][i] = first + i;
        out[1][i] = c1;
        out[2][i] = c2;
        out[3][i] = c3;
    }
    for (int round = 0; round < 10; round++, k0 += 0x9e3779b9u, k1 += 0xbb67ae85u)
        for (uint32_t i = 0; i < PHILOX_LANES; i++) {
            uint64_t a = (uint64_t)out[0][i] * 0xd2511f53u, b = (uint64_t)out[2][i] * 0xcd9e8d57u;
            out[0][i] = (uint32_t)(b >> 32) ^ out[1][i] ^ k0;
            out[1][i] = (uint32_t)b;
            out[2][i] = (uint32_t)(a >> 32) ^ out[3][i] ^ k1;
            out[3][i] = (uint32_t)a;
        }
}

/* (1 - p) 2^32 cut to an integer, without double (a shader has none): what a word must be below for its element to be
 * kept. Call it with 0 < p < 1; at p = 0 the value would not fit. */
HOST_INLINE uint32_t philox_threshold(float p)
{
    uint32_t bits = host_bits(p), exponent = bits >> 23;
    uint32_t mantissa = (bits & 0x7fffffu) | 0x800000u; /* p = mantissa 2^(exponent - 150) */
    if (exponent >= 118)
        return 0u - (mantissa << (exponent - 118));
    uint32_t shift = 118 - exponent;
    return 0u - (shift < 24 ? (mantissa + (1u << shift) - 1u) >> shift : 1u);
}

#endif
