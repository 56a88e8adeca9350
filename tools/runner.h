/* tools/runner.h - a loaded model that several conversations share, with adapters by number: the engine (mosld/generate/engine.h) as the
 * commands use it.
 *
 * Who wants an answer acquires a slot for its prompt, runs steps with the whole of the sequence so far, and releases the slot, whose cache
 * stays for the next prompt that begins alike: a turn of a conversation costs its new tokens, and a token of an answer costs one. Long
 * prompts run a piece a step, so that others go on between. One thread. */
#ifndef MOSLD_TOOLS_RUNNER_H
#define MOSLD_TOOLS_RUNNER_H

#include "mosld/generate/engine.h"
#include "tools/session.h"

#define RUNNER_NO_ADAPTER (-1)

struct runner;

struct runner_params {
    uint32_t slots, context;     /* context: tokens of a slot; 0: 4096, or with a memory limit what fits it, or the model's where that is less */
    enum op_wtype cache_type;
    const char *const *adapters; /* folders */
    uint32_t n_adapters;
};

/* One sequence of a step. */
struct runner_item {
    uint32_t slot;
    const int32_t *ids; /* all of the sequence: where it no longer begins with what the slot's cache has, the rest runs again */
    uint32_t n;         /* 1 .. context */
    float *logits;      /* [V], of what follows the last id, when ready */
    bool ready;         /* set: all ids are in; otherwise a long prompt goes on with the next step, or the sequence waits for room in the cache */
};

/* session_open_file has been called; the rest of the session is opened here, and closed by session_close after runner_close. RT_USAGE:
 * the context is longer than the model's. */
enum rt_status runner_open(struct session *s, const struct session_options *o, const struct runner_params *params, struct runner **out,
                           struct rt_error *err);
void runner_close(struct runner **r); /* NULL is fine */
/* Prints what runner_open would lay out (plan.h); the session's file and device are open. */
enum rt_status runner_print_plan(struct session *s, const struct session_options *o, const struct runner_params *params, FILE *to, struct rt_error *err);

/* A free slot for a prompt; *reused of its tokens are in the cache already. False: none is free. */
bool runner_acquire(struct runner *r, int adapter, const int32_t *ids, uint32_t n, uint32_t *slot, uint32_t *reused);
void runner_release(struct runner *r, uint32_t slot);
/* Runs each item's next piece. Where the cache has no room for all, those that were acquired last wait: their caches are taken, and
 * all of their ids run again when there is room. Slots are distinct and acquired. RT_USAGE: a token outside the vocabulary. */
enum rt_status runner_step(struct runner *r, struct runner_item *items, uint32_t n, struct rt_error *err);

uint32_t runner_context(const struct runner *r);
void runner_tell_context(const struct runner *r, FILE *to); /* a line: how long, in what memory */
uint64_t runner_waits(const struct runner *r);              /* how often a sequence lost its cache to others */
uint32_t runner_slots(const struct runner *r);
uint32_t runner_vocab(const struct runner *r);
/* Loads another adapter and gives its number. No slot may be in use; their caches are lost. */
enum rt_status runner_add_adapter(struct runner *r, const char *dir, int *number, struct rt_error *err);

#endif
