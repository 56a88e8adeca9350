/* mosld/generate/sample.h - the next token from logits. */
#ifndef MOSLD_SAMPLE_H
#define MOSLD_SAMPLE_H

#include "runtime/error.h"

#include <stdint.h>

struct mosld_sample_params {
    double temperature;        /* 0: greedy, the lowest id of the largest logit */
    uint32_t top_k;            /* keep the k likeliest; 0: all */
    double top_p;              /* keep the likeliest up to this mass; 1: all */
    double min_p;              /* drop what is below this share of the likeliest; 0: nothing */
    double repetition_penalty; /* divides positive and multiplies negative logits of tokens already there; 1: none */
    uint64_t seed;
};
#define MOSLD_SAMPLE_DEFAULTS .temperature = 0, .top_p = 1, .repetition_penalty = 1

/* RT_USAGE names the field that is out of range. */
enum rt_status mosld_sample_check(const struct mosld_sample_params *s, struct rt_error *err);

/* Chooses a token. `logits` [V] is changed; `before` are the tokens so far, prompt included. The random number is the
 * draw-th of the seed, so a continued generation draws what an unbroken one would. RT_NO_MEMORY; RT_FAILED when no
 * logit is finite. */
enum rt_status mosld_sample(const struct mosld_sample_params *s, float *logits, uint32_t V, const int32_t *before,
                            uint64_t n_before, uint64_t draw, uint32_t *token, struct rt_error *err);

#endif
