/* tools/answer_options.c - see answer_options.h. */
#include "tools/answer_options.h"

#include <stdlib.h>
#include <string.h>

const char *const answer_cache_types[] = {"f16", "f32", "q8_0", NULL};

enum op_wtype answer_cache_wtype(int index)
{
    static const enum op_wtype types[] = {OP_W_F16, OP_W_F32, OP_W_Q8_0};
    return types[index];
}

static enum rt_status read_bias(struct answer_options *o, struct rt_error *err)
{
    o->bias = calloc(o->logit_bias.n + 1, sizeof *o->bias);
    if (!o->bias)
        return rt_fail(err, RT_NO_MEMORY, "no memory for the options");
    for (size_t i = 0; i < o->logit_bias.n; i++) {
        char *end, *rest;
        const char *text = o->logit_bias.item[i];
        long id = strtol(text, &end, 10);
        double value = *end == '=' ? strtod(end + 1, &rest) : 0;
        if (end == text || *end != '=' || rest == end + 1 || *rest || id < 0 || id > INT32_MAX)
            return rt_fail(err, RT_USAGE, "--logit-bias: '%.40s' is not ID=VALUE", text);
        o->bias[i] = (struct mosld_logit_bias){(int32_t)id, (float)value};
    }
    return RT_OK;
}

enum rt_status answer_options_params(struct answer_options *o, struct mosld_answer_params *params, struct rt_error *err)
{
    RT_TRY(read_bias(o, err));
    *params = (struct mosld_answer_params){
        .sampling = {.temperature = o->temperature, .top_k = (uint32_t)o->top_k, .top_p = o->top_p, .min_p = o->min_p,
                     .typical_p = o->typical_p, .repetition_penalty = o->repetition_penalty,
                     .presence_penalty = o->presence_penalty, .frequency_penalty = o->frequency_penalty,
                     .seed = (uint64_t)o->seed, .logit_bias = o->bias, .n_logit_bias = (uint32_t)o->logit_bias.n},
        .max_new_tokens = (uint32_t)o->max_new_tokens,
        .shift = o->context_shift,
        .keep = ANSWER_KEEP,
        .stops = (const char *const *)o->stop.item,
        .n_stops = (uint32_t)o->stop.n};
    if (o->stop.n > MOSLD_MAX_STOPS)
        return rt_fail(err, RT_USAGE, "--stop: %zu texts are more than %d", o->stop.n, MOSLD_MAX_STOPS);
    for (size_t i = 0; i < o->stop.n; i++)
        if (!*o->stop.item[i])
            return rt_fail(err, RT_USAGE, "--stop: a text is empty");
    return mosld_sample_check(&params->sampling, err);
}

void answer_options_finish(struct answer_options *o)
{
    free(o->bias);
    o->bias = NULL;
}

const char *answer_stop_name(enum mosld_answer_stop stop)
{
    static const char *const names[] = {"end", "length", "context", "interrupted"};
    return names[stop];
}
