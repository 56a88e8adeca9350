/* mosld/generate/engine.h - several sequences at once over one model: their caches of keys and values, and steps that run them together.
 *
 * An engine has a number of slots. A slot is a sequence's place: the tokens that its cache holds, and the adapter that made it. Who generates acquires a
 * slot for a prompt, which finds one whose cache begins like the prompt, so that a conversation's earlier turns need not run again; then hands the
 * rest of the prompt, and later one token after the other, to mosld_engine_step, together with those of other slots; and releases the slot, whose
 * cache stays for whoever comes next with the same beginning.
 *
 * The caches lie in blocks of KV_BLOCK tokens, which all slots share: a slot has as many as its tokens need, slots that begin alike have whole blocks in
 * common, and a model with a sliding window gives back what it has left. When no block is free, the released slot that has waited longest loses its cache. When that is not enough
 * either, the caller holds some of the slots back (mosld_engine_room), or takes a cache away (mosld_engine_truncate) and hands all of its tokens in again later. Sampling, texts, queues and threads are the caller's.
 *
 * In a step, slots that hand in one token go through the model together, so the weights are read once for all of them, whatever their adapters (where the device cannot add those
 * apart, once an adapter: mosld_pass_mixes); prompts run one after the other, in pieces. On the host device up to 8 sequences that run together get the bits that each would get alone.
 *
 * One thread at a time. Tokens are checked against the vocabulary. */
#ifndef MOSLD_ENGINE_H
#define MOSLD_ENGINE_H

#include "mosld/model/pass.h"

struct mosld_engine;

struct mosld_engine_params {
    struct mosld_model *model;              /* loaded; outlives the engine */
    struct mosld_adapter *const *adapters;  /* [n_adapters]: committed with values by the first step; outlive the engine. The list is copied. */
    uint32_t n_adapters;
    uint32_t slots;     /* sequences at once, 1 .. 1024; 0: 1 */
    uint32_t context;   /* tokens that a slot holds: prompt and answer; at most the model's positions; 0: those */
    uint32_t piece;     /* tokens of a prompt that run at a time; 0: 256 */
    uint32_t blocks;    /* of the cache, for all slots; at least as many as one slot needs; 0: as many as all need */
    enum op_wtype cache_type; /* f32 (the default), f16, or q8_0 where heads are whole 32s */
};

/* What fits `memory` bytes, beside model and adapters: a context of p->context tokens and as many blocks as all slots need; or fewer blocks, down to
 * those of one slot; or a shorter context, down to `least` tokens, and fewer than that never: whether it then fits is the caller's to see. p->blocks is not read. */
struct mosld_engine_fit {
    uint32_t context, blocks;
    uint64_t block_bytes, other_bytes; /* of a block of the cache in all layers; of all that is not cache */
};
enum rt_status mosld_engine_fit(const struct mosld_engine_params *p, uint32_t least, uint64_t memory, struct mosld_engine_fit *out, struct rt_error *err);

#define MOSLD_ENGINE_NO_ADAPTER UINT32_MAX

/* Lays the engine out and asks for its memory; commit allocates it. The caller destroys *out also after an error. */
enum rt_status mosld_engine_create(const struct mosld_engine_params *params, struct mosld_engine **out, struct rt_error *err);
uint64_t mosld_engine_planned(const struct mosld_engine *engine); /* bytes */
enum rt_status mosld_engine_commit(struct mosld_engine *engine, struct rt_error *err);
void mosld_engine_destroy(struct mosld_engine **engine); /* NULL is fine */

uint32_t mosld_engine_slots(const struct mosld_engine *engine);
uint32_t mosld_engine_context(const struct mosld_engine *engine);
uint32_t mosld_engine_free_slots(const struct mosld_engine *engine);

/* Finds a free slot for a prompt [n], n >= 1, under adapter number `adapter` (MOSLD_ENGINE_NO_ADAPTER: the model alone): the one whose cache begins with most
 * of it, else the one released longest ago. *slot is then taken, and its cache cut to the common beginning, *reused tokens, less than n: the caller steps
 * with tokens *reused .. n - 1. False: none is free, or there is no such adapter. */
bool mosld_engine_acquire(struct mosld_engine *engine, uint32_t adapter, const int32_t *prompt, uint32_t n, uint32_t *slot, uint32_t *reused);
/* Gives the slot back; its cache stays for a later prompt. */
void mosld_engine_release(struct mosld_engine *engine, uint32_t slot);

/* What the slot's cache holds. */
uint32_t mosld_engine_cached(const struct mosld_engine *engine, uint32_t slot);
const int32_t *mosld_engine_tokens(const struct mosld_engine *engine, uint32_t slot); /* [cached]; valid until the next step with the slot */
/* Forgets all but the first n tokens; some more, to the end of a block, where other slots have that block too or the sliding window has left what would be needed. */
void mosld_engine_truncate(struct mosld_engine *engine, uint32_t slot, uint32_t n);

struct mosld_engine_item {
    uint32_t slot;         /* acquired; in a step once */
    const int32_t *tokens; /* [n], n >= 1: what follows the slot's cache */
    uint32_t n;
    float *logits;         /* [V] of the last of them; NULL: not wanted (a part of a prompt) */
};

/* Blocks that can be had, free or of released slots; blocks that n more tokens of a slot need, at a time. A step's items may not need more than there is room for. */
uint32_t mosld_engine_room(const struct mosld_engine *engine);
uint32_t mosld_engine_needs(const struct mosld_engine *engine, uint32_t slot, uint32_t n);
/* Blocks that a slot needs at most; what mosld_engine_create takes for the whole cache where `blocks` is 0 is so many times the slots. */
uint32_t mosld_engine_slot_blocks(const struct mosld_config *config, uint32_t context, uint32_t piece);
uint32_t mosld_engine_blocks(const struct mosld_engine *engine);

/* Runs the items' tokens and adds them to their slots' caches. RT_USAGE, before anything has run: a token outside the vocabulary, or one that a cache has no
 * room for (mosld_engine_context); the message names slot and numbers. RT_NO_MEMORY, before anything has run too: the items need more blocks than there are. After another error the caches of the items' slots are empty. */
enum rt_status mosld_engine_step(struct mosld_engine *engine, const struct mosld_engine_item *items, uint32_t n, struct rt_error *err);

#endif
