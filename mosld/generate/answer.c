/* mosld/generate/answer.c - see answer.h. */
#include "mosld/generate/answer.h"

#include <stdlib.h>
#include <string.h>

static enum rt_status check(const struct mosld_answer_params *p, size_t n, struct rt_error *err)
{
    if (n == 0)
        return rt_fail(err, RT_USAGE, "the prompt is empty and the model has no beginning token: give it some text");
    if (n > p->context)
        return rt_fail(err, RT_USAGE, "the prompt has %zu tokens and %u fit the context: shorten it or raise --max-context", n, p->context);
    if (p->shift && (p->keep >= p->context || p->context < 4))
        return rt_fail(err, RT_USAGE, "a beginning of %u tokens cannot be kept in a context of %u that is shifted", p->keep, p->context);
    if (p->n_stops > MOSLD_MAX_STOPS)
        return rt_fail(err, RT_USAGE, "stop: %u texts are more than %d", p->n_stops, MOSLD_MAX_STOPS);
    for (uint32_t i = 0; i < p->n_stops; i++)
        if (!*p->stops[i])
            return rt_fail(err, RT_USAGE, "stop: a text is empty");
    if (p->top_logprobs > MOSLD_MAX_TOP_LOGPROBS)
        return rt_fail(err, RT_USAGE, "logprobs: %u are more than %d", p->top_logprobs, MOSLD_MAX_TOP_LOGPROBS);
    return mosld_sample_check(&p->sampling, err);
}

enum rt_status mosld_answer_create(const struct mosld_tokenizer *tokenizer, const int32_t *prompt, size_t n,
                                   const struct mosld_answer_params *params, struct mosld_answer **out, struct rt_error *err)
{
    *out = NULL;
    RT_TRY(check(params, n, err));
    struct mosld_answer *a = calloc(1, sizeof *a);
    if (!a)
        return rt_fail(err, RT_NO_MEMORY, "no memory for an answer");
    a->params = *params;
    a->n_prompt = a->n_ids = (uint32_t)n;
    a->cap_ids = a->n_ids + 256;
    a->ids = malloc(a->cap_ids * sizeof *a->ids);
    a->text = calloc(1, a->cap_text = 256);
    bool whole = a->ids && a->text;
    for (uint32_t i = 0; i < params->n_stops; i++)
        whole = (a->stops[i] = strdup(params->stops[i])) && whole;
    enum rt_status st = whole ? mosld_text_stream_create(tokenizer, true, params->continues, &a->stream, err)
                              : rt_fail(err, RT_NO_MEMORY, "no memory for an answer");
    if (st) {
        mosld_answer_destroy(&a);
        return st;
    }
    memcpy(a->ids, prompt, n * sizeof *prompt);
    a->seen = a->ids;
    a->n_seen = a->n_ids;
    *out = a;
    return RT_OK;
}

void mosld_answer_destroy(struct mosld_answer **answer)
{
    struct mosld_answer *a = *answer;
    if (!a)
        return;
    mosld_text_stream_destroy(a->stream);
    for (int i = 0; i < MOSLD_MAX_STOPS; i++)
        free(a->stops[i]);
    free(a->ids);
    free(a->shifted);
    free(a->text);
    free(a->logprobs);
    free(a->top);
    free(a->copy);
    free(a);
    *answer = NULL;
}

/* ---- text ---- */

/* How many bytes at the end of the text may be the beginning of a stop text. */
static size_t held_back(const struct mosld_answer *a)
{
    size_t most = 0;
    for (uint32_t i = 0; i < a->params.n_stops; i++) {
        size_t n = strlen(a->stops[i]) - 1;
        for (n = n < a->len ? n : a->len; n > most; n--)
            if (memcmp(a->text + a->len - n, a->stops[i], n) == 0)
                most = n;
    }
    return most;
}

/* The first stop text in what is not yet safe. */
static bool find_stop(struct mosld_answer *a)
{
    const char *first = NULL;
    for (uint32_t i = 0; i < a->params.n_stops; i++) {
        const char *at = memmem(a->text + a->safe, a->len - a->safe, a->stops[i], strlen(a->stops[i]));
        if (at && (!first || at < first)) {
            first = at;
            a->stop_text = a->stops[i];
        }
    }
    if (!first)
        return false;
    a->len = a->safe = (size_t)(first - a->text);
    a->text[a->len] = 0;
    return true;
}

static enum rt_status add_text(struct mosld_answer *a, const char *text, size_t n, struct rt_error *err)
{
    if (a->len + n + 1 > a->cap_text) {
        size_t cap = 2 * (a->len + n) + 256;
        char *grown = realloc(a->text, cap);
        if (!grown)
            return rt_fail(err, RT_NO_MEMORY, "no memory for an answer's text");
        a->text = grown;
        a->cap_text = cap;
    }
    memcpy(a->text + a->len, text, n);
    a->text[a->len += n] = 0;
    if (find_stop(a)) {
        a->done = true;
        a->stop = MOSLD_ANSWER_END;
    } else {
        a->safe = a->len - held_back(a);
    }
    return RT_OK;
}

static enum rt_status end(struct mosld_answer *a, enum mosld_answer_stop why, struct rt_error *err)
{
    const char *text;
    size_t n;
    if (a->done)
        return RT_OK;
    RT_TRY(mosld_text_stream_finish(a->stream, &text, &n, err));
    a->stop = why;
    RT_TRY(add_text(a, text, n, err));
    a->safe = a->len;
    a->done = true;
    return RT_OK;
}

enum rt_status mosld_answer_stop(struct mosld_answer *a, struct rt_error *err) { return end(a, MOSLD_ANSWER_ASKED, err); }

/* ---- tokens ---- */

static bool is_end(const struct mosld_answer *a, uint32_t token)
{
    for (size_t i = 0; i < a->params.n_ends; i++)
        if ((uint32_t)a->params.ends[i] == token)
            return true;
    return false;
}

static enum rt_status grow(struct mosld_answer *a, uint32_t V, struct rt_error *err)
{
    if (!a->n_top && a->params.logprobs)
        a->n_top = a->params.top_logprobs < V ? a->params.top_logprobs : V;
    if (a->n_ids < a->cap_ids && (!a->params.logprobs || a->logprobs))
        return RT_OK;
    uint32_t cap = a->n_ids < a->cap_ids ? a->cap_ids : 2 * a->cap_ids;
    int32_t *ids = realloc(a->ids, cap * sizeof *ids);
    a->ids = ids ? ids : a->ids;
    a->seen = a->shifted ? a->shifted : a->ids;
    bool whole = ids != NULL;
    if (a->params.logprobs) {
        float *logprobs = realloc(a->logprobs, cap * sizeof *logprobs);
        struct mosld_logprob *top = realloc(a->top, ((size_t)cap * a->n_top + 1) * sizeof *top);
        a->logprobs = logprobs ? logprobs : a->logprobs;
        a->top = top ? top : a->top;
        whole = whole && logprobs && top;
    }
    if (a->params.logprobs && !a->copy)
        whole = (a->copy = malloc(V * sizeof *a->copy)) && whole;
    if (!whole)
        return rt_fail(err, RT_NO_MEMORY, "no memory for an answer's tokens");
    a->cap_ids = cap;
    return RT_OK;
}

/* Drops the older half of what stands behind the tokens that are kept. The model runs what is left again: keys turned back by RoPE would be rounded
 * once more, and what later layers know of the dropped tokens would stay in them. */
static enum rt_status shift(struct mosld_answer *a, struct rt_error *err)
{
    if (!a->shifted) {
        a->cap_shifted = a->params.context + 1;
        a->shifted = malloc(a->cap_shifted * sizeof *a->shifted);
        if (!a->shifted)
            return rt_fail(err, RT_NO_MEMORY, "no memory to shift the context");
        memcpy(a->shifted, a->ids, a->n_seen * sizeof *a->ids);
        a->seen = a->shifted;
    }
    uint32_t keep = a->params.keep, drop = (a->n_seen - keep + 1) / 2;
    memmove(a->shifted + keep, a->shifted + keep + drop, (a->n_seen - keep - drop) * sizeof *a->shifted);
    a->n_seen -= drop;
    a->dropped += drop;
    return RT_OK;
}

enum rt_status mosld_answer_next(struct mosld_answer *a, float *logits, uint32_t V, struct rt_error *err)
{
    uint32_t token, n = mosld_answer_tokens(a);
    const char *text;
    size_t length;
    RT_TRY(grow(a, V, err));
    if (a->params.logprobs)
        memcpy(a->copy, logits, V * sizeof *logits);
    RT_TRY(mosld_sample(&a->params.sampling, logits, V, a->ids, a->n_ids, n, &token, err));
    if (is_end(a, token))
        return end(a, MOSLD_ANSWER_END, err);
    if (a->params.logprobs)
        a->logprobs[n] = mosld_logprobs(a->copy, V, token, a->top + (size_t)n * a->n_top, a->n_top);
    a->ids[a->n_ids++] = (int32_t)token;
    if (a->shifted)
        a->shifted[a->n_seen] = (int32_t)token; /* room for one behind the context */
    a->n_seen++;
    RT_TRY(mosld_text_stream_push(a->stream, (int32_t)token, &text, &length, err));
    RT_TRY(add_text(a, text, length, err));
    if (a->params.max_new_tokens && n + 1 >= a->params.max_new_tokens)
        return end(a, MOSLD_ANSWER_LENGTH, err);
    if (a->n_seen <= a->params.context)
        return RT_OK;
    return a->params.shift ? shift(a, err) : end(a, MOSLD_ANSWER_CONTEXT, err);
}
