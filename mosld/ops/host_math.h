/* mosld/ops/host_math.h - what the ops' host variants share: versions of a function by processor, and number formats.
 *
 * MOSLD_CLONES before a function compiles it for AVX-512, for AVX2 and for any processor of the target; the loader picks. Helpers that
 * it calls must be `static inline` here or in its file, so that they are compiled with it. The results are the same bits in every
 * version, since contraction into fused multiply-adds is off and sums are vectorised only where the source says so. */
#ifndef MOSLD_HOST_MATH_H
#define MOSLD_HOST_MATH_H

#include <stdint.h>

#ifndef __has_feature
#define __has_feature(x) 0
#endif

/* The loader's resolvers run before a sanitizer is ready, and only glibc on x86 has both. */
#if defined(__x86_64__) && defined(__GLIBC__) && !defined(__SANITIZE_ADDRESS__) && !__has_feature(address_sanitizer) && \
    !__has_feature(thread_sanitizer) && !defined(__SANITIZE_THREAD__)
#define MOSLD_CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define MOSLD_CLONES
#endif

#define HOST_INLINE static inline __attribute__((always_inline))

HOST_INLINE float host_float(uint32_t bits)
{
    union {
        uint32_t u;
        float f;
    } v = {bits};
    return v.f;
}

HOST_INLINE uint32_t host_bits(float value)
{
    union {
        float f;
        uint32_t u;
    } v = {value};
    return v.u;
}

/* IEEE half to float, exact, subnormals, infinities and NaN included; without branches, so that loops of it vectorise. */
HOST_INLINE float host_half(uint16_t half)
{
    const uint32_t magic = 113u << 23; /* 2^-14, the smallest normal half */
    uint32_t magnitude = (uint32_t)(half & 0x7fff) << 13;
    uint32_t normal = magnitude + (112u << 23);
    uint32_t special = magnitude + (224u << 23);
    uint32_t tiny = host_bits(host_float(magnitude + magic) - host_float(magic));
    uint32_t bits = magnitude < (1u << 23) ? tiny : magnitude >= (31u << 23) ? special : normal;
    return host_float(bits | (uint32_t)(half & 0x8000) << 16);
}

/* e^x within 2 ulp, without branches or calls, so that loops of it vectorise. e^x below 2^-125.5 is 0 (masked scores vanish, and no
 * subnormal slows the loop down); above 88.72 it stays at that value's, finite. NaN and infinities give NaN. */
HOST_INLINE float mosld_expf(float x)
{
    const float magic = 12582912.0f; /* 1.5 x 2^23: adding it rounds to an integer, which then stands in the low bits */
    const float no_number = x - x;   /* 0, but NaN where x is not finite: clamping hides that */
    /* Clamped to [-87, 88.72] as integers: a comparison of floats may trap, so gcc leaves it a branch and the loop scalar. */
    int32_t above = (int32_t)host_bits(x);
    above = above < 0x42b170a4 ? above : 0x42b170a4;
    uint32_t below = (uint32_t)above;
    below = below < 0xc2ae0000u ? below : 0xc2ae0000u;
    x = host_float(below);
    float t = x * 1.44269504088896341f + magic;
    float n = t - magic;
    float r = x - n * 0.693359375f; /* ln 2 in two parts, the first short enough for an exact product */
    r = r - n * -2.12194440e-4f;
    float p = 1.98756915e-4f; /* Cephes' minimax polynomial of (e^r - 1 - r) / r^2 */
    p = p * r + 1.39819995e-3f;
    p = p * r + 8.33345205e-3f;
    p = p * r + 4.16657962e-2f;
    p = p * r + 1.66666657e-1f;
    p = p * r + 0.5f;
    p = p * (r * r) + r;
    p = p + 1.0f;
    /* 2 p 2^(n - 1) and not p 2^n, since 2^128 is not a float. At n = -126 the exponent field is 0: the product is 0. */
    return 2.0f * p * host_float((host_bits(t) + 126u - host_bits(magic)) << 23) + no_number;
}

#endif
