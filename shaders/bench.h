/* shaders/bench.h - parameters of the shaders that find what a device can do at most (mosld/bench/peaks.c). */
#ifndef MOSLD_BENCH_SHADERS_H
#define MOSLD_BENCH_SHADERS_H

#include "push.h"

#define BENCH_GROUP 64  /* invocations a workgroup */
#define BENCH_CHAINS 16 /* vec4 sums that each invocation of bench_fma keeps, so that no multiply-add waits for the one before */

/* n: vec4 that bench_copy copies. repeat: rounds of bench_fma. value: small, so that nothing overflows. */
PUSH_BLOCK(bench_push, uint n; uint repeat; float value;)

#endif
