/* mosld/generate/sample.h - the next token from logits.
 *
 * In this order: logit bias; repetition, presence and frequency penalties; the likeliest token where temperature is 0; else
 * temperature, top k, top p, min p and typical p, each on what the one before left, renormalised (Transformers' order and meaning); then
 * a draw. Random numbers come from Philox, counted by token: a seed gives the same answer on the same logits. */
#ifndef MOSLD_SAMPLE_H
#define MOSLD_SAMPLE_H

#include "runtime/error.h"

#include <stdint.h>

#define MOSLD_MAX_LOGIT_BIAS 100.0

struct mosld_logit_bias {
    int32_t token;
    float bias; /* added to its logit, within +-MOSLD_MAX_LOGIT_BIAS */
};

struct mosld_sample_params {
    double temperature;        /* 0: greedy, the lowest id of the largest logit */
    uint32_t top_k;            /* keep the k likeliest; 0: all */
    double top_p;              /* keep the likeliest up to this mass; 1: all */
    double min_p;              /* drop what is below this share of the likeliest; 0: nothing */
    double typical_p;          /* keep those whose surprise is nearest to the entropy, up to this mass; 0 or 1: all */
    double repetition_penalty; /* divides positive and multiplies negative logits of tokens already there; 1: none */
    double presence_penalty;   /* taken from the logit of each token that the answer has already; 0: nothing */
    double frequency_penalty;  /* the same times how often it has it */
    uint64_t seed;
    const struct mosld_logit_bias *logit_bias; /* n_logit_bias of them; must outlive the use */
    uint32_t n_logit_bias;
};
#define MOSLD_SAMPLE_DEFAULTS .temperature = 0, .top_p = 1, .repetition_penalty = 1

/* RT_USAGE names the field that is out of range. */
enum rt_status mosld_sample_check(const struct mosld_sample_params *s, struct rt_error *err);

/* Chooses a token. `logits` [V] is changed; `before` are the tokens so far, prompt included, of which the last `draw` are the answer's
 * own. The random number is the draw-th of the seed, so a continued generation draws what an unbroken one would. RT_NO_MEMORY; RT_FAILED
 * when no logit is finite. */
enum rt_status mosld_sample(const struct mosld_sample_params *s, float *logits, uint32_t V, const int32_t *before,
                            uint64_t n_before, uint64_t draw, uint32_t *token, struct rt_error *err);

/* Natural logarithms of the model's own probabilities (no penalty, temperature or bias): the n likeliest tokens, likeliest first (n is
 * cut at V), and of `token`. top may be NULL where n is 0. */
struct mosld_logprob {
    int32_t token;
    float logprob;
};
float mosld_logprobs(const float *logits, uint32_t V, uint32_t token, struct mosld_logprob *top, uint32_t n);

#endif
