/* mosld/bench/decode.h - generation: how fast a prompt is read and how fast tokens follow, with and without adapters, in turns.
 *
 * A round gives each variant its turn: the prompt runs into an empty cache, in one piece as long as the pass allows, and then tokens follow one at a time, with the
 * logits of each; tokens are given, so that sampling is not measured. */
#ifndef MOSLD_BENCH_DECODE_H
#define MOSLD_BENCH_DECODE_H

#include "mosld/bench/measure.h"
#include "mosld/model/pass.h"

struct mosld_bench_decode {
    char name[48];
    bool none; /* the model alone */
    struct mosld_adapter_params adapter;
    /* measured; medians over the rounds */
    double prefill_seconds, decode_seconds; /* of the whole prompt; of a token */
    double processor_seconds; /* of all threads, a token: what is left of a measurement on a machine that others use too */
    double ratio, processor_ratio; /* of decode, against variant 0 in the same round */
    double dispatches;        /* a token; 0 on the host */
    uint64_t bytes;           /* of weights that a token reads: the model's and the adapter's */
};

struct mosld_bench_decode_params {
    uint32_t prompt, tokens, rounds; /* 0: 512, 32, 5 */
    enum op_wtype cache_type;        /* f32 (the default), f16, q8_0 */
};

/* Adapters have random values. *read_rate: bytes a second that all threads read from memory together; 0: not measured (Vulkan). RT_USAGE: prompt and tokens
 * exceed the model's positions. */
enum rt_status mosld_bench_decode(const struct mosld_bench *bench, struct mosld_model *model, const struct mosld_bench_decode_params *params,
                                  struct mosld_bench_decode *variants, uint32_t n, double *read_rate, struct rt_error *err);

#endif
