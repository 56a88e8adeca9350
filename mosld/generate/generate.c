/* mosld/generate/generate.c - see generate.h. */
#include "mosld/generate/generate.h"
#include "runtime/trace.h"

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

/* What the prompt and each further token need. */
struct generating {
    struct mosld_pass *pass;
    const struct mosld_generate_params *params;
    bool (*on_token)(void *user, int32_t token);
    void *user;
    float *logits;  /* [V]: of the last token */
    int32_t *all;   /* the prompt and what followed */
    struct mosld_generated *out;
};

/* Samples a token from the logits, hands it on, and makes the logits that follow it. *stop: there is none to follow. */
static enum rt_status next_token(const struct generating *g, bool *stop, struct rt_error *err)
{
    struct mosld_generated *out = g->out;
    uint32_t token;
    uint64_t n = (uint64_t)out->prompt_tokens + out->new_tokens;
    RT_TRY(mosld_sample(&g->params->sampling, g->logits, g->pass->model->config.vocab_size, g->all, n, out->new_tokens, &token, err));
    *stop = true;
    if (ends_with(g->params, token)) {
        out->stop = MOSLD_STOP_END;
        return RT_OK;
    }
    g->all[n] = (int32_t)token;
    out->new_tokens++;
    if (!g->on_token(g->user, (int32_t)token)) {
        out->stop = MOSLD_STOP_ASKED;
        return RT_OK;
    }
    if (out->new_tokens == g->params->max_new_tokens)
        return RT_OK;
    if (g->pass->cached == g->pass->params.cache_tokens) {
        out->stop = MOSLD_STOP_CONTEXT;
        return RT_OK;
    }
    *stop = false;
    RT_TRY(mosld_forward_cached(g->pass, &token, 1, err));
    return mosld_logits(g->pass, &(uint32_t){0}, 1, g->logits, err);
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
    struct generating g = {pass, params, on_token, user, logits, all, out};
    double begin = now();
    unsigned scope = rt_scope_begin(pass->model->dev, "prompt", 0);
    st = run_prompt(pass, (const uint32_t *)all, n, logits, err);
    rt_scope_end(pass->model->dev, scope);
    out->prompt_seconds = now() - begin;
    begin = now();
    for (bool stop = params->max_new_tokens == 0; !st && !stop;) {
        scope = rt_scope_begin(pass->model->dev, "token", (int64_t)out->new_tokens + 1);
        st = next_token(&g, &stop, err);
        rt_scope_end(pass->model->dev, scope);
    }
    out->seconds = now() - begin;
done:
    free(logits);
    free(all);
    return st;
}
