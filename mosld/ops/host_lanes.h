/* mosld/ops/host_lanes.h - sums over rows of floats and the exponential, for host variants under MOSLD_CLONES.
 *
 * A sum goes into 16 lanes, element i into lane i mod 16, and the lanes are added as a tree: one order for every
 * processor and number of threads, and a shorter chain of roundings than a plain loop. */
#ifndef MOSLD_HOST_LANES_H
#define MOSLD_HOST_LANES_H

#include "mosld/ops/host_math.h"

#include <stddef.h>
#include <string.h>

#define LANES16 16
typedef float lanes16 __attribute__((vector_size(4 * LANES16), aligned(4), may_alias)); /* wherever they lie */

/* In halves, not through memory: a dot product of 64 takes less time than a loop over 16 floats. */
typedef float lanes8 __attribute__((vector_size(32)));
typedef float lanes4 __attribute__((vector_size(16)));
HOST_INLINE float lanes16_sum(const lanes16 *v)
{
    lanes8 h = __builtin_shufflevector(*v, *v, 0, 1, 2, 3, 4, 5, 6, 7) + __builtin_shufflevector(*v, *v, 8, 9, 10, 11, 12, 13, 14, 15);
    lanes4 q = __builtin_shufflevector(h, h, 0, 1, 2, 3) + __builtin_shufflevector(h, h, 4, 5, 6, 7);
    return (q[0] + q[2]) + (q[1] + q[3]);
}

HOST_INLINE float host_dot(const float *a, const float *b, size_t n)
{
    lanes16 sum = {0};
    size_t i = 0;
    for (; i + LANES16 <= n; i += LANES16)
        sum += *(const lanes16 *)(a + i) * *(const lanes16 *)(b + i);
    float rest = 0;
    for (; i < n; i++)
        rest += a[i] * b[i];
    return lanes16_sum(&sum) + rest;
}

/* y += a x */
HOST_INLINE void host_add_scaled(float *y, float a, const float *x, size_t n)
{
    size_t i = 0;
    for (; i + LANES16 <= n; i += LANES16)
        *(lanes16 *)(y + i) += a * *(const lanes16 *)(x + i);
    for (; i < n; i++)
        y[i] += a * x[i];
}

HOST_INLINE float host_max(const float *x, size_t n, float least)
{
    float m[LANES16];
    size_t i = 0;
    for (int l = 0; l < LANES16; l++)
        m[l] = least;
    for (; i + LANES16 <= n; i += LANES16)
        for (int l = 0; l < LANES16; l++)
            m[l] = x[i + l] > m[l] ? x[i + l] : m[l];
    for (; i < n; i++)
        m[0] = x[i] > m[0] ? x[i] : m[0];
    for (int l = 1; l < LANES16; l++)
        m[0] = m[l] > m[0] ? m[l] : m[0];
    return m[0];
}

/* exp(x) within 2 units in the last place for -87 <= x <= 88; x beyond is taken as that bound (1.6e-38, 1.7e38), NaN
 * stays NaN. Without branches or calls, so that loops of it vectorise. x = n ln 2 + r, with ln 2 in two parts so that r
 * is exact. */
HOST_INLINE float host_exp(float x)
{
    x = x < -87.0f ? -87.0f : x;
    x = x > 88.0f ? 88.0f : x;
    const float round = 12582912.0f; /* 1.5 * 2^23: adding it leaves the nearest integer in the low bits */
    float shifted = x * 1.44269504f + round;
    float n = shifted - round;
    float r = (x - n * 0.693359375f) - n * -2.12194440e-4f;
    float e = 1.9875691500e-4f;
    e = e * r + 1.3981999507e-3f;
    e = e * r + 8.3334519073e-3f;
    e = e * r + 4.1665795894e-2f;
    e = e * r + 1.6666665459e-1f;
    e = e * r + 5.0000001201e-1f;
    e = e * r * r + r + 1.0f;
    return e * host_float((host_bits(shifted) + 127u) << 23);
}

#endif
