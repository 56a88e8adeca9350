/* mosld/generate/generate.h - text from a model, token by token, with a cache of keys and values. */
#ifndef MOSLD_GENERATE_H
#define MOSLD_GENERATE_H

#include "mosld/generate/sample.h"
#include "mosld/model/pass.h"

struct mosld_generate_params {
    uint32_t max_new_tokens;
    struct mosld_sample_params sampling;
    const int32_t *ends; /* tokens that end it; not passed to on_token */
    uint64_t n_ends;
};

enum mosld_stop { MOSLD_STOP_END, MOSLD_STOP_LENGTH, MOSLD_STOP_CONTEXT, MOSLD_STOP_ASKED };

struct mosld_generated {
    uint32_t prompt_tokens, new_tokens;
    double prompt_seconds, seconds; /* of the prompt's pass; of the rest */
    enum mosld_stop stop;
};

/* Runs the prompt through `pass` (made with cache_tokens; what is in its cache already comes before) and then samples,
 * handing each token to on_token, which returns false to stop. The cache then holds everything but the last token.
 * RT_USAGE: an empty prompt, a token outside the vocabulary, or a prompt that does not fit the cache. */
enum rt_status mosld_generate(struct mosld_pass *pass, const int32_t *prompt, uint32_t n,
                              const struct mosld_generate_params *params, bool (*on_token)(void *user, int32_t token),
                              void *user, struct mosld_generated *out, struct rt_error *err);

#endif
