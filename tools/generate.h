/* tools/generate.h - what mosld generate and mosld chat share: a model with its adapters, and one answer after another. */
#ifndef MOSLD_TOOLS_GENERATE_H
#define MOSLD_TOOLS_GENERATE_H

#include "tools/answer_options.h"
#include "tools/runner.h"
#include "tools/wrap.h"

struct generate_options {
    struct session_options session;
    struct answer_options answer;
    struct option_list adapter;
    char *prompt, *system;
    bool chat, verbose;
    int64_t logprobs;
};

struct generation {
    struct generate_options o;
    struct session s;
    struct runner *runner;
    struct mosld_answer_params params;
    float *logits;
    int adapter;               /* in use: a number, or RUNNER_NO_ADAPTER */
    struct mosld_answer *last; /* the answer that was made last */
    uint32_t reused;           /* tokens of its prompt that were in the cache */
    double prompt_seconds, seconds;
    volatile sig_atomic_t *stop; /* not 0: the answer ends where it is */
    struct wrap wrap;          /* where text is printed */
    bool colour;               /* standard error is a terminal: speeds stand there in grey */
};

/* Makes g->last of the prompt; prints its text while it comes, unless --json is on. */
enum rt_status generate_answer(struct generation *g, const int32_t *ids, size_t n, bool continues, struct rt_error *err);

/* With --verbose: speeds of the last answer, on standard error. */
void generate_tell_speeds(const struct generation *g);

/* tools/chat.c: the conversation, from standard input or with g->o.prompt as its one message. */
enum rt_status chat_run(struct generation *g, struct rt_error *err);
/* Prints g->last as one JSON document, or adds it to `list`. */
void generate_print_json(struct generation *g, struct cJSON *list);

#endif
