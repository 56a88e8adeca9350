/* mosld/bench/peaks.h - what a device can do at most: arithmetic, memory, launches. What ops are measured against. */
#ifndef MOSLD_BENCH_PEAKS_H
#define MOSLD_BENCH_PEAKS_H

#include "mosld/bench/measure.h"

struct mosld_peaks {
    double registers; /* multiply-adds on registers alone, FLOP/s in f32 (a multiply-add is two); 0: not measured (the
                         host) */
    double blas;      /* a BLAS on a cube of its own on each thread, FLOP/s; 0: not measured (Vulkan) */
    double product;   /* the engine's product with an f32 weight at a cube of `cube`, FLOP/s */
    uint32_t cube;
    double flops;          /* the highest of these: the peak */
    double copy_bytes;     /* bytes read and written a second, memory to memory, by a kernel or memcpy on all threads */
    uint64_t copy_size;    /* bytes of each of the two */
    double launch_seconds; /* of a launch among many that do nothing */
    double submit_seconds; /* of one launch that is waited for */
};

/* `cube`: rows, columns and depth of the product; 0: 1024. */
enum rt_status mosld_bench_peaks(const struct mosld_bench *bench, uint32_t cube, struct mosld_peaks *out,
                                 struct rt_error *err);

#endif
