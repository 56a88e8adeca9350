/* tools/answer_options.h - the options of an answer that generate, chat and serve share. */
#ifndef MOSLD_TOOLS_ANSWER_OPTIONS_H
#define MOSLD_TOOLS_ANSWER_OPTIONS_H

#include "mosld/generate/answer.h"
#include "mosld/ops/weight.h"
#include "tools/options.h"

struct answer_options {
    int64_t max_new_tokens, context, top_k, seed;
    int cache_type; /* index into answer_cache_types */
    bool context_shift;
    double temperature, top_p, min_p, typical_p, repetition_penalty, presence_penalty, frequency_penalty;
    struct option_list stop, logit_bias;
    struct mosld_logit_bias *bias; /* made of logit_bias by answer_options_params */
};
#define ANSWER_KEEP 4 /* tokens that a shift keeps at least: attention leans on the first few, whatever they are */
#define ANSWER_DEFAULTS .max_new_tokens = 256, .top_p = 1, .typical_p = 1, .repetition_penalty = 1

#define ANSWER_REAL(type, field, min, max, text) {.name = #field, OPTION_REAL(type, answer.field, min, max), .help = text}
#define ANSWER_OPTIONS(type) \
    {.name = "max_new_tokens", \
     OPTION_INT(type, answer.max_new_tokens, 1, 1 << 20), \
     .section = "Generation", \
     .help = "most tokens of an answer"}, \
        {.name = "max_context", \
         OPTION_INT(type, answer.context, 0, 1 << 22), \
         .alias = "context", \
         .help = "tokens of prompt and answers together; 0: at most 4096, or what fits --memory-limit"}, \
        {.name = "cache_type", \
         OPTION_CHOICE(type, answer.cache_type, answer_cache_types), \
         .help = "of the keys and values that are kept; q8_0 takes half of f16"}, \
        {.name = "context_shift", \
         OPTION_BOOL(type, answer.context_shift), \
         .help = "when the context is full, drop the older half of what follows the beginning and go on, instead of ending the answer"}, \
        ANSWER_REAL(type, temperature, 0, 100, "0: always the likeliest token"), \
        {.name = "top_k", OPTION_INT(type, answer.top_k, 0, 1 << 20), .help = "only the k likeliest; 0: all"}, \
        ANSWER_REAL(type, top_p, 0, 1, "only the likeliest up to this probability"), \
        ANSWER_REAL(type, min_p, 0, 1, "only what has this share of the likeliest"), \
        ANSWER_REAL(type, typical_p, 0, 1, "only what surprises about as much as expected, up to this probability"), \
        ANSWER_REAL(type, repetition_penalty, 0, 10, "above 1: tokens already there are less likely"), \
        ANSWER_REAL(type, presence_penalty, -100, 100, "taken from the logits of tokens that the answer has"), \
        ANSWER_REAL(type, frequency_penalty, -100, 100, "the same, times how often it has them"), \
        {.name = "logit_bias", \
         OPTION_STRINGS(type, answer.logit_bias), \
         .value = "ID=VALUE", \
         .commas = true, \
         .help = "added to the logit of a token id; may be given again"}, \
        {.name = "stop", \
         OPTION_STRINGS(type, answer.stop), \
         .value = "TEXT", \
         .help = "ends the answer and is not printed; may be given again"}, \
    { \
        .name = "seed", OPTION_INT(type, answer.seed, 0, OPTION_INT_MAX), .help = "of the sampling" \
    }

extern const char *const answer_cache_types[]; /* ended by NULL */
enum op_wtype answer_cache_wtype(int index); /* into that */

/* RT_USAGE names the option. What *params points to belongs to `o`. The context, end tokens and log-probabilities are the caller's. */
enum rt_status answer_options_params(struct answer_options *o, struct mosld_answer_params *params, struct rt_error *err);
void answer_options_finish(struct answer_options *o);

/* "end", "length", "context" or "interrupted". */
const char *answer_stop_name(enum mosld_answer_stop stop);

#endif
