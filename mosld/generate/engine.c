/* mosld/generate/engine.c - see engine.h. */
#include "mosld/generate/engine.h"

#include <stdlib.h>
#include <string.h>

#define DEFAULT_PIECE 256u
#define MOST_SLOTS 1024u

struct slot {
    int32_t *tokens; /* [context] */
    uint32_t n;      /* that the cache holds */
    uint32_t adapter;
    bool taken;
    uint64_t released; /* when, as a count; 0: never used */
};

struct mosld_engine {
    struct mosld_model *model;
    struct mosld_adapter **adapters;
    uint32_t n_adapters, n_slots, context;
    struct mosld_pass *pass;
    struct slot *slots;
    uint64_t releases;
    struct mosld_slot_token *batch; /* [slots] */
    uint32_t *order, *rows;         /* [slots]: items of a batch; rows of logits */
    float *logits;                  /* [slice, V] */
};

/* ---- making one ---- */

static enum rt_status make_slots(struct mosld_engine *e, struct rt_error *err)
{
    e->slots = calloc(e->n_slots, sizeof *e->slots);
    e->batch = calloc(e->n_slots, sizeof *e->batch);
    e->order = calloc(e->n_slots, sizeof *e->order);
    e->rows = calloc(e->n_slots, sizeof *e->rows);
    e->logits = calloc((size_t)mosld_pass_slice(e->pass) * e->model->config.vocab_size, sizeof *e->logits);
    bool there = e->slots && e->batch && e->order && e->rows && e->logits;
    for (uint32_t i = 0; there && i < e->n_slots; i++)
        there = (e->slots[i].tokens = calloc(e->context, sizeof *e->slots[i].tokens)) != NULL;
    return there ? RT_OK : rt_fail(err, RT_NO_MEMORY, "no memory for %u sequences of %u tokens", e->n_slots, e->context);
}

enum rt_status mosld_engine_create(const struct mosld_engine_params *p, struct mosld_engine **out, struct rt_error *err)
{
    struct mosld_engine *e = *out = calloc(1, sizeof *e);
    if (!e)
        return rt_fail(err, RT_NO_MEMORY, "no memory for the engine");
    e->model = p->model;
    e->n_slots = p->slots ? p->slots : 1;
    e->context = p->context ? p->context : p->model->positions;
    if (e->n_slots > MOST_SLOTS)
        return rt_fail(err, RT_USAGE, "%u sequences at once: at most %u are possible", e->n_slots, MOST_SLOTS);
    if (e->context > p->model->positions)
        return rt_fail(err, RT_USAGE, "a context of %u tokens: the model was made for %u positions", e->context, p->model->positions);
    e->adapters = calloc((size_t)p->n_adapters + 1, sizeof *e->adapters);
    if (!e->adapters)
        return rt_fail(err, RT_NO_MEMORY, "no memory for the engine");
    e->n_adapters = p->n_adapters;
    for (uint32_t i = 0; i < p->n_adapters; i++)
        e->adapters[i] = p->adapters[i];
    uint32_t piece = p->piece ? p->piece : DEFAULT_PIECE;
    piece = piece > e->context ? e->context : piece;
    piece = piece < e->n_slots ? e->n_slots : piece;
    RT_TRY(mosld_pass_create(e->model, NULL, &(struct mosld_pass_params){.max_tokens = piece, .max_targets = e->n_slots, .cache_tokens = e->context,
                                                                        .slots = e->n_slots, .adapters = e->adapters,
                                                                        .n_adapters = e->n_adapters}, &e->pass, err));
    return make_slots(e, err);
}

uint64_t mosld_engine_planned(const struct mosld_engine *e) { return e ? mosld_pass_planned(e->pass) : 0; }

enum rt_status mosld_engine_commit(struct mosld_engine *e, struct rt_error *err) { return mosld_pass_commit(e->pass, err); }

void mosld_engine_destroy(struct mosld_engine **engine)
{
    if (!engine || !*engine)
        return;
    struct mosld_engine *e = *engine;
    for (uint32_t i = 0; e->slots && i < e->n_slots; i++)
        free(e->slots[i].tokens);
    mosld_pass_destroy(&e->pass);
    free(e->slots);
    free(e->batch);
    free(e->order);
    free(e->rows);
    free(e->logits);
    free(e->adapters);
    free(e);
    *engine = NULL;
}

uint32_t mosld_engine_slots(const struct mosld_engine *e) { return e->n_slots; }
uint32_t mosld_engine_context(const struct mosld_engine *e) { return e->context; }

uint32_t mosld_engine_free_slots(const struct mosld_engine *e)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < e->n_slots; i++)
        n += !e->slots[i].taken;
    return n;
}

/* ---- slots ---- */

static uint32_t common(const struct slot *s, const int32_t *prompt, uint32_t n)
{
    uint32_t i = 0;
    while (i < n && i < s->n && s->tokens[i] == prompt[i])
        i++;
    return i;
}

bool mosld_engine_acquire(struct mosld_engine *e, uint32_t adapter, const int32_t *prompt, uint32_t n, uint32_t *slot, uint32_t *reused)
{
    if (n == 0 || (adapter >= e->n_adapters && adapter != MOSLD_ENGINE_NO_ADAPTER))
        return false;
    struct slot *best = NULL;
    uint32_t most = 0;
    for (uint32_t i = 0; i < e->n_slots; i++) {
        struct slot *s = &e->slots[i];
        if (s->taken)
            continue;
        uint32_t same = s->adapter == adapter ? common(s, prompt, n - 1) : 0; /* the last token runs in any case: its logits are wanted */
        if (!best || same > most || (same == most && s->released < best->released)) {
            best = s;
            most = same;
        }
    }
    if (!best)
        return false;
    best->taken = true;
    best->adapter = adapter;
    best->n = most;
    *slot = (uint32_t)(best - e->slots);
    *reused = most;
    return true;
}

void mosld_engine_release(struct mosld_engine *e, uint32_t slot)
{
    e->slots[slot].taken = false;
    e->slots[slot].released = ++e->releases;
}

uint32_t mosld_engine_cached(const struct mosld_engine *e, uint32_t slot) { return e->slots[slot].n; }
const int32_t *mosld_engine_tokens(const struct mosld_engine *e, uint32_t slot) { return e->slots[slot].tokens; }

void mosld_engine_truncate(struct mosld_engine *e, uint32_t slot, uint32_t n)
{
    if (n < e->slots[slot].n)
        e->slots[slot].n = n;
}

/* ---- a step ---- */

static struct mosld_adapter *adapter_of(const struct mosld_engine *e, uint32_t number)
{
    return number == MOSLD_ENGINE_NO_ADAPTER ? NULL : e->adapters[number];
}

static void add_tokens(struct slot *s, const int32_t *tokens, uint32_t n)
{
    memcpy(s->tokens + s->n, tokens, n * sizeof *tokens);
    s->n += n;
}

/* The tokens of one slot, in pieces. */
static enum rt_status run_alone(struct mosld_engine *e, const struct mosld_engine_item *item, struct rt_error *err)
{
    struct slot *s = &e->slots[item->slot];
    struct mosld_pass *pass = e->pass;
    uint32_t last = 0;
    pass->adapter = adapter_of(e, s->adapter);
    pass->slot = item->slot;
    pass->cached = s->n;
    for (uint32_t i = 0; i < item->n; i += pass->params.max_tokens) {
        uint32_t m = item->n - i < pass->params.max_tokens ? item->n - i : pass->params.max_tokens;
        RT_TRY(mosld_forward_cached(pass, (const uint32_t *)item->tokens + i, m, err));
        add_tokens(s, item->tokens + i, m);
        last = m - 1;
    }
    return item->logits ? mosld_logits(pass, &last, 1, item->logits, err) : RT_OK;
}

/* The logits of the items that want them, a slice at a time. */
static enum rt_status batch_logits(struct mosld_engine *e, const struct mosld_engine_item *items, uint32_t n, struct rt_error *err)
{
    uint32_t V = e->model->config.vocab_size, slice = mosld_pass_slice(e->pass);
    for (uint32_t i = 0; i < n;) {
        uint32_t m = 0, first = i;
        for (; i < n && m < slice; i++)
            if (items[e->order[i]].logits)
                e->rows[m++] = i;
        if (m)
            RT_TRY(mosld_logits(e->pass, e->rows, m, e->logits, err));
        for (uint32_t k = 0, j = first; j < i; j++)
            if (items[e->order[j]].logits)
                memcpy(items[e->order[j]].logits, e->logits + (size_t)k++ * V, V * sizeof *e->logits);
    }
    return RT_OK;
}

/* One token each of the n slots whose items e->order lists; they have one adapter. */
static enum rt_status run_together(struct mosld_engine *e, const struct mosld_engine_item *items, uint32_t n, struct rt_error *err)
{
    if (n == 1)
        return run_alone(e, &items[e->order[0]], err);
    e->pass->adapter = adapter_of(e, e->slots[items[e->order[0]].slot].adapter);
    for (uint32_t i = 0; i < n; i++) {
        const struct mosld_engine_item *item = &items[e->order[i]];
        e->batch[i] = (struct mosld_slot_token){item->slot, e->slots[item->slot].n, (uint32_t)item->tokens[0]};
    }
    RT_TRY(mosld_forward_slots(e->pass, e->batch, n, err));
    for (uint32_t i = 0; i < n; i++)
        add_tokens(&e->slots[items[e->order[i]].slot], items[e->order[i]].tokens, 1);
    return batch_logits(e, items, n, err);
}

static enum rt_status check_items(const struct mosld_engine *e, const struct mosld_engine_item *items, uint32_t n, struct rt_error *err)
{
    for (uint32_t i = 0; i < n; i++) {
        const struct mosld_engine_item *item = &items[i];
        if (item->slot >= e->n_slots || !e->slots[item->slot].taken || item->n == 0)
            return rt_fail(err, RT_USAGE, "slot %u: there are %u, it must be acquired and be given a token", item->slot, e->n_slots);
        if (item->n > e->context - e->slots[item->slot].n)
            return rt_fail(err, RT_USAGE, "slot %u: %u more tokens do not fit the context of %u, which holds %u: shorten the prompt or raise the context",
                           item->slot, item->n, e->context, e->slots[item->slot].n);
        for (uint32_t j = 0; j < item->n; j++)
            if (item->tokens[j] < 0 || (uint32_t)item->tokens[j] >= e->model->config.vocab_size)
                return rt_fail(err, RT_USAGE, "token %d is outside the model's vocabulary of %u", item->tokens[j], e->model->config.vocab_size);
        for (uint32_t j = 0; j < i; j++)
            if (items[j].slot == item->slot)
                return rt_fail(err, RT_USAGE, "slot %u is in a step twice", item->slot);
    }
    return RT_OK;
}

enum rt_status mosld_engine_step(struct mosld_engine *e, const struct mosld_engine_item *items, uint32_t n, struct rt_error *err)
{
    enum rt_status st = check_items(e, items, n, err);
    if (st)
        return st;
    for (uint32_t i = 0; i < n && !st; i++)
        if (items[i].n > 1)
            st = run_alone(e, &items[i], err);
    for (uint32_t a = 0; a <= e->n_adapters && !st; a++) {
        uint32_t adapter = a < e->n_adapters ? a : MOSLD_ENGINE_NO_ADAPTER, m = 0;
        for (uint32_t i = 0; i < n; i++)
            if (items[i].n == 1 && e->slots[items[i].slot].adapter == adapter)
                e->order[m++] = i;
        if (m)
            st = run_together(e, items, m, err);
    }
    for (uint32_t i = 0; i < n && st; i++)
        e->slots[items[i].slot].n = 0; /* what ran is not known */
    return st;
}
