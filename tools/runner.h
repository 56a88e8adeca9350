/* tools/runner.h - a loaded model that several conversations share: slots with a key/value cache each, adapters by number.
 *
 * A slot is told the whole of its sequence each time; what its cache has of it already (the same tokens from the beginning, with the same
 * adapter) is not run again. So a turn of a conversation costs its new tokens, and a token of an answer costs one. One thread. */
#ifndef MOSLD_TOOLS_RUNNER_H
#define MOSLD_TOOLS_RUNNER_H

#include "tools/session.h"

#define RUNNER_NO_ADAPTER (-1)

struct runner;

struct runner_params {
    uint32_t slots, context;     /* context: tokens of a slot; 0: 2048, or the model's where that is less */
    const char *const *adapters; /* folders */
    uint32_t n_adapters;
};

/* One sequence of a step. */
struct runner_item {
    uint32_t slot;
    int adapter;        /* a number, or RUNNER_NO_ADAPTER */
    const int32_t *ids;
    uint32_t n;         /* 1 .. context */
    float *logits;      /* [V], of what follows the last id, when ready */
    uint32_t reused;    /* set: ids that were in the cache before this step */
    bool ready;         /* set: all ids are in; otherwise a long prompt goes on with the next step */
};

/* session_open_file has been called; the rest of the session is opened here, and closed by session_close after runner_close. RT_USAGE:
 * the context is longer than the model's. */
enum rt_status runner_open(struct session *s, const struct session_options *o, const struct runner_params *params, struct runner **out,
                           struct rt_error *err);
void runner_close(struct runner **r); /* NULL is fine */

/* Runs each item's next piece. Slots are distinct. RT_USAGE: a token outside the vocabulary. */
enum rt_status runner_step(struct runner *r, struct runner_item *items, uint32_t n, struct rt_error *err);

/* A slot for a sequence, of those that `busy` [slots] does not mark: the one whose cache has most of it. */
uint32_t runner_choose(const struct runner *r, const bool *busy, int adapter, const int32_t *ids, uint32_t n);

uint32_t runner_context(const struct runner *r);
uint32_t runner_slots(const struct runner *r);
uint32_t runner_vocab(const struct runner *r);
/* Loads another adapter and gives its number. */
enum rt_status runner_add_adapter(struct runner *r, const char *dir, int *number, struct rt_error *err);

#endif
