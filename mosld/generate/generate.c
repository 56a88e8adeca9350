/* mosld/generate/generate.c - see generate.h. */
#include "mosld/generate/generate.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static bool ends_with(const struct mosld_generate_params *p, uint32_t token)
{
    for (uint64_t i = 0; i < p->n_ends; i++)
        if ((uint32_t)p->ends[i] == token)
            return true;
    return false;
}

static enum rt_status check_prompt(const struct mosld_pass *pass, const int32_t *prompt, uint32_t n,
                                   struct rt_error *err)
{
    if (n == 0)
        return rt_fail(err, RT_USAGE, "the prompt is empty and the model has no beginning token: give it some text");
    if (n > pass->params.cache_tokens - pass->cached)
        return rt_fail(err, RT_USAGE, "the prompt has %u tokens and %u fit the context: shorten it or raise --context",
                       n, pass->params.cache_tokens - pass->cached);
    for (uint32_t i = 0; i < n; i++)
        if (prompt[i] < 0 || (uint32_t)prompt[i] >= pass->model->config.vocab_size)
            return rt_fail(err, RT_USAGE, "token %d is outside the model's vocabulary of %u", prompt[i],
                           pass->model->config.vocab_size);
    return RT_OK;
}

/* The prompt in pieces that fit the pass; leaves the logits of its last token. */
static enum rt_status run_prompt(struct mosld_pass *pass, const uint32_t *tokens, uint32_t n, float *logits,
                                 struct rt_error *err)
{
    enum rt_status st = RT_OK;
    uint32_t last = 0;
    for (uint32_t i = 0; i < n && !st; i += pass->params.max_tokens) {
        uint32_t m = n - i < pass->params.max_tokens ? n - i : pass->params.max_tokens;
        st = mosld_forward_cached(pass, tokens + i, m, err);
        last = m - 1;
    }
    return st ? st : mosld_logits(pass, &last, 1, logits, err);
}

enum rt_status mosld_generate(struct mosld_pass *pass, const int32_t *prompt, uint32_t n,
                              const struct mosld_generate_params *params, bool (*on_token)(void *user, int32_t token),
                              void *user, struct mosld_generated *out, struct rt_error *err)
{
    *out = (struct mosld_generated){.prompt_tokens = n, .stop = MOSLD_STOP_LENGTH};
    enum rt_status st = check_prompt(pass, prompt, n, err);
    if (!st)
        st = mosld_sample_check(&params->sampling, err);
    if (st)
        return st;
    uint32_t V = pass->model->config.vocab_size;
    float *logits = malloc(V * sizeof *logits);
    int32_t *all = malloc(((uint64_t)n + params->max_new_tokens + 1) * sizeof *all);
    if (!logits || !all) {
        st = rt_fail(err, RT_NO_MEMORY, "no memory to generate %u tokens", params->max_new_tokens);
        goto done;
    }
    memcpy(all, prompt, n * sizeof *all);
    double begin = now();
    st = run_prompt(pass, (const uint32_t *)all, n, logits, err);
    out->prompt_seconds = now() - begin;
    begin = now();
    while (!st && out->new_tokens < params->max_new_tokens) {
        uint32_t token;
        st = mosld_sample(&params->sampling, logits, V, all, (uint64_t)n + out->new_tokens, out->new_tokens, &token,
                          err);
        if (st)
            break;
        if (ends_with(params, token)) {
            out->stop = MOSLD_STOP_END;
            break;
        }
        all[n + out->new_tokens++] = (int32_t)token;
        if (!on_token(user, (int32_t)token)) {
            out->stop = MOSLD_STOP_ASKED;
            break;
        }
        if (out->new_tokens == params->max_new_tokens)
            break;
        if (pass->cached == pass->params.cache_tokens) {
            out->stop = MOSLD_STOP_CONTEXT;
            break;
        }
        st = mosld_forward_cached(pass, &token, 1, err);
        if (!st)
            st = mosld_logits(pass, &(uint32_t){0}, 1, logits, err);
    }
    out->seconds = now() - begin;
done:
    free(logits);
    free(all);
    return st;
}
