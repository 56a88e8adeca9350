/* mosld/generate/engine.c - see engine.h. */
#include "mosld/generate/engine.h"

#include "mosld/generate/blocks.h"

#include <stdlib.h>
#include <string.h>

#define DEFAULT_PIECE 256u
#define MOST_SLOTS 1024u

struct slot {
    int32_t *tokens; /* [context] */
    uint32_t n;      /* that the cache holds */
    uint32_t adapter;
    struct block_list blocks; /* of its cache; block[context / KV_BLOCK, rounded up] */
    bool taken;
    uint64_t released; /* when, as a count; 0: never used */
};

struct mosld_engine {
    struct mosld_model *model;
    struct mosld_adapter **adapters;
    uint32_t n_adapters, n_slots, context;
    struct mosld_pass *pass;
    struct slot *slots;
    struct block_pool pool;
    bool *used; /* [blocks]: for mosld_engine_room */
    bool mixes; /* rows of several adapters go through the model together */
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
    e->used = calloc(e->pass->params.cache_blocks + 1, sizeof *e->used);
    bool there = e->slots && e->batch && e->order && e->rows && e->logits && e->used;
    for (uint32_t i = 0; there && i < e->n_slots; i++) {
        struct slot *s = &e->slots[i];
        s->tokens = calloc(e->context, sizeof *s->tokens);
        s->blocks.block = calloc(mosld_pass_slot_blocks(e->pass), sizeof *s->blocks.block);
        there = s->tokens && s->blocks.block;
    }
    if (there)
        return block_pool_init(&e->pool, e->pass->params.cache_blocks, err);
    return rt_fail(err, RT_NO_MEMORY, "no memory for %u sequences of %u tokens", e->n_slots, e->context);
}

static uint32_t piece_of(uint32_t piece, uint32_t context)
{
    piece = piece ? piece : DEFAULT_PIECE;
    return piece > context ? context : piece;
}

uint32_t mosld_engine_slot_blocks(const struct mosld_config *config, uint32_t context, uint32_t piece)
{
    uint32_t all = op_kv_blocks(context), window = config->slides_everywhere ? config->sliding_window : 0;
    /* What the last token before a piece sees, the piece, and a block that both only touch at either end. */
    uint64_t few = window ? (uint64_t)op_kv_blocks(window) + op_kv_blocks(piece_of(piece, context)) + 2 : all;
    return few < all ? (uint32_t)few : all;
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
    uint32_t piece = piece_of(p->piece, e->context), least = mosld_engine_slot_blocks(&e->model->config, e->context, piece);
    uint64_t blocks = p->blocks ? p->blocks : (uint64_t)least * e->n_slots;
    if (blocks < least || blocks > UINT32_MAX / KV_BLOCK)
        return rt_fail(err, RT_USAGE, "a cache of %llu blocks of %d tokens: one sequence of %u tokens needs %u", (unsigned long long)blocks, KV_BLOCK,
                       e->context, least);
    piece = piece < e->n_slots ? e->n_slots : piece;
    RT_TRY(mosld_pass_create(e->model, NULL, &(struct mosld_pass_params){.max_tokens = piece, .max_targets = e->n_slots, .cache_tokens = e->context,
                                                                        .slots = e->n_slots, .cache_blocks = (uint32_t)blocks,
                                                                        .cache_type = p->cache_type, .adapters = e->adapters,
                                                                        .n_adapters = e->n_adapters}, &e->pass, err));
    return make_slots(e, err);
}

enum rt_status mosld_engine_fit(const struct mosld_engine_params *p, uint32_t least, uint64_t memory, struct mosld_engine_fit *out, struct rt_error *err)
{
    struct mosld_pass *pass = NULL;
    uint32_t slots = p->slots ? p->slots : 1, piece = piece_of(p->piece, p->context);
    uint64_t range = rt_device_info(p->model->dev)->limits.max_range, block = mosld_pass_block_bytes(p->model, p->cache_type);
    enum rt_status st = mosld_pass_create(p->model, NULL, &(struct mosld_pass_params){.max_tokens = piece < slots ? slots : piece, .max_targets = slots,
                                                                                     .cache_tokens = p->context, .slots = slots, .cache_blocks = 1,
                                                                                     .cache_type = p->cache_type, .adapters = p->adapters,
                                                                                     .n_adapters = p->n_adapters}, &pass, err);
    *out = (struct mosld_engine_fit){.context = p->context, .other_bytes = st ? 0 : mosld_pass_planned(pass) - block, .block_bytes = block};
    mosld_pass_destroy(&pass);
    if (st)
        return st;
    uint64_t room = (memory > out->other_bytes ? memory - out->other_bytes : 0) / block, bound = range / (block / p->model->config.num_layers);
    room = room < bound ? room : bound;
    while (out->context > least && mosld_engine_slot_blocks(&p->model->config, out->context, piece) > room)
        out->context = out->context - least > KV_BLOCK ? (out->context - 1) / KV_BLOCK * KV_BLOCK : least;
    uint64_t one = mosld_engine_slot_blocks(&p->model->config, out->context, piece), all = one * slots;
    out->blocks = (uint32_t)(all <= room ? all : room > one ? room : one);
    return RT_OK;
}

uint64_t mosld_engine_planned(const struct mosld_engine *e) { return e ? mosld_pass_planned(e->pass) : 0; }

enum rt_status mosld_engine_commit(struct mosld_engine *e, struct rt_error *err)
{
    RT_TRY(mosld_pass_commit(e->pass, err));
    e->mixes = true;
    for (uint32_t i = 0; i < e->n_adapters && e->mixes; i++)
        e->mixes = mosld_pass_mixes(e->pass, e->adapters[i]);
    return RT_OK;
}

void mosld_engine_destroy(struct mosld_engine **engine)
{
    if (!engine || !*engine)
        return;
    struct mosld_engine *e = *engine;
    for (uint32_t i = 0; e->slots && i < e->n_slots; i++) {
        free(e->slots[i].tokens);
        free(e->slots[i].blocks.block);
    }
    block_pool_finish(&e->pool);
    free(e->used);
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

uint32_t mosld_engine_blocks(const struct mosld_engine *e) { return e->pool.n; }

/* ---- blocks ---- */

/* The first token that the one at position n sees. */
static uint32_t first_seen(const struct mosld_engine *e, uint32_t n)
{
    uint32_t window = mosld_pass_window(e->pass);
    return window && n >= window ? n - window + 1 : 0;
}

/* Forgets all but n tokens, or what fewer must be: the end of a block that others have too is not written over. */
static void cut_cache(struct mosld_engine *e, struct slot *s, uint32_t n)
{
    if (n >= s->n && n > 0)
        return;
    if (n % KV_BLOCK && block_list_shares(&e->pool, &s->blocks, n / KV_BLOCK))
        n -= n % KV_BLOCK;
    if (s->blocks.first * KV_BLOCK > first_seen(e, n))
        n = 0;
    block_list_cut(&e->pool, &s->blocks, op_kv_blocks(n));
    s->n = n;
}

/* What the next token no longer sees goes back. */
static void leave_blocks(struct mosld_engine *e, struct slot *s)
{
    if (mosld_pass_window(e->pass))
        block_list_leave(&e->pool, &s->blocks, first_seen(e, s->n) / KV_BLOCK);
}

/* Takes the cache of the released slot that has waited longest. */
static bool evict(struct mosld_engine *e)
{
    struct slot *oldest = NULL;
    for (uint32_t i = 0; i < e->n_slots; i++) {
        struct slot *s = &e->slots[i];
        if (!s->taken && s->blocks.n && (!oldest || s->released < oldest->released))
            oldest = s;
    }
    if (oldest)
        cut_cache(e, oldest, 0);
    return oldest != NULL;
}

/* Blocks for `more` tokens of a slot. */
static enum rt_status take_blocks(struct mosld_engine *e, uint32_t slot, uint32_t more, struct rt_error *err)
{
    struct slot *s = &e->slots[slot];
    while (s->blocks.n < op_kv_blocks(s->n + more)) {
        while (!e->pool.n_free && evict(e)) {
        }
        if (!block_list_add(&e->pool, &s->blocks))
            return rt_fail(err, RT_NO_MEMORY, "the cache's %u blocks of %d tokens are all in use", e->pool.n, KV_BLOCK);
        mosld_pass_place_block(e->pass, slot, s->blocks.n - 1, s->blocks.block[s->blocks.n - 1]);
    }
    return RT_OK;
}

uint32_t mosld_engine_room(const struct mosld_engine *e)
{
    uint32_t room = e->pool.n;
    memset(e->used, 0, e->pool.n * sizeof *e->used);
    for (uint32_t i = 0; i < e->n_slots; i++) {
        const struct block_list *list = &e->slots[i].blocks;
        for (uint32_t k = list->first; e->slots[i].taken && k < list->n; k++) {
            room -= !e->used[list->block[k]];
            e->used[list->block[k]] = true;
        }
    }
    return room;
}

uint32_t mosld_engine_needs(const struct mosld_engine *e, uint32_t slot, uint32_t n)
{
    const struct slot *s = &e->slots[slot];
    uint32_t piece = e->pass->params.max_tokens, blocks;
    if (mosld_pass_window(e->pass) && n > piece)
        n = piece; /* what the window leaves comes back between pieces */
    blocks = op_kv_blocks(s->n + n);
    return blocks > s->blocks.n ? blocks - s->blocks.n : 0;
}

/* ---- slots ---- */

static uint32_t common(const struct slot *s, const int32_t *prompt, uint32_t n)
{
    uint32_t i = 0;
    while (i < n && i < s->n && s->tokens[i] == prompt[i])
        i++;
    return i;
}

static bool older(const struct slot *a, const struct slot *b) { return !b || a->released < b->released; }

/* An empty slot gets the blocks with which another begins. */
static void share_blocks(struct mosld_engine *e, struct slot *to, const struct slot *from, uint32_t blocks)
{
    for (uint32_t i = 0; i < blocks; i++) {
        block_list_add_shared(&e->pool, &to->blocks, from->blocks.block[i]);
        mosld_pass_place_block(e->pass, (uint32_t)(to - e->slots), i, from->blocks.block[i]);
    }
    to->n = blocks * KV_BLOCK;
    memcpy(to->tokens, from->tokens, to->n * sizeof *to->tokens);
}

/* The slot whose own cache begins like most of the prompt goes on with it; but where it would lose more than a block, or where another slot, running or not,
 * begins like more of the prompt, the slot that has waited longest gets the blocks in common. */
bool mosld_engine_acquire(struct mosld_engine *e, uint32_t adapter, const int32_t *prompt, uint32_t n, uint32_t *slot, uint32_t *reused)
{
    if (n == 0 || (adapter >= e->n_adapters && adapter != MOSLD_ENGINE_NO_ADAPTER))
        return false;
    struct slot *best = NULL, *oldest = NULL, *donor = NULL;
    uint32_t most = 0, lent = 0;
    for (uint32_t i = 0; i < e->n_slots; i++) {
        struct slot *s = &e->slots[i];
        uint32_t same = s->adapter == adapter ? common(s, prompt, n - 1) : 0; /* the last token runs in any case: its logits are wanted */
        if (s->blocks.first == 0 && same / KV_BLOCK > lent) {
            donor = s;
            lent = same / KV_BLOCK;
        }
        if (s->taken)
            continue;
        oldest = older(s, oldest) ? s : oldest;
        if (!best || same > most || (same == most && older(s, best))) {
            best = s;
            most = same;
        }
    }
    if (!best)
        return false;
    bool loses = best->n > most + KV_BLOCK && oldest != best;
    if (donor && donor != oldest && (lent * KV_BLOCK > most || loses)) {
        best = oldest;
        cut_cache(e, best, 0);
        share_blocks(e, best, donor, lent);
    } else
        cut_cache(e, best, most);
    best->taken = true;
    best->adapter = adapter;
    *slot = (uint32_t)(best - e->slots);
    *reused = best->n;
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
    cut_cache(e, &e->slots[slot], n);
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
        RT_TRY(take_blocks(e, item->slot, m, err));
        RT_TRY(mosld_forward_cached(pass, (const uint32_t *)item->tokens + i, m, err));
        add_tokens(s, item->tokens + i, m);
        leave_blocks(e, s);
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

/* One token each of the n slots whose items e->order lists, those with the same adapter side by side; with several adapters only where the pass mixes them. */
static enum rt_status run_together(struct mosld_engine *e, const struct mosld_engine_item *items, uint32_t n, struct rt_error *err)
{
    if (n == 1)
        return run_alone(e, &items[e->order[0]], err);
    for (uint32_t i = 0; i < n; i++) {
        const struct mosld_engine_item *item = &items[e->order[i]];
        RT_TRY(take_blocks(e, item->slot, 1, err));
        e->batch[i] = (struct mosld_slot_token){item->slot, e->slots[item->slot].n, (uint32_t)item->tokens[0], adapter_of(e, e->slots[item->slot].adapter)};
    }
    RT_TRY(mosld_forward_slots(e->pass, e->batch, n, err));
    for (uint32_t i = 0; i < n; i++) {
        add_tokens(&e->slots[items[e->order[i]].slot], items[e->order[i]].tokens, 1);
        leave_blocks(e, &e->slots[items[e->order[i]].slot]);
    }
    return batch_logits(e, items, n, err);
}

static enum rt_status check_items(const struct mosld_engine *e, const struct mosld_engine_item *items, uint32_t n, struct rt_error *err)
{
    uint64_t needs = 0;
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
        needs += mosld_engine_needs(e, item->slot, item->n);
    }
    uint32_t room = mosld_engine_room(e);
    if (needs > room)
        return rt_fail(err, RT_NO_MEMORY, "the step needs %llu blocks of %d tokens and the cache has room for %u: hold some sequences back",
                       (unsigned long long)needs, KV_BLOCK, room);
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
    uint32_t m = 0;
    for (uint32_t a = 0; a <= e->n_adapters && !st; a++) {
        uint32_t adapter = a < e->n_adapters ? a : MOSLD_ENGINE_NO_ADAPTER;
        for (uint32_t i = 0; i < n; i++)
            if (items[i].n == 1 && e->slots[items[i].slot].adapter == adapter)
                e->order[m++] = i;
        if (m && (!e->mixes || a == e->n_adapters)) {
            st = run_together(e, items, m, err);
            m = 0;
        }
    }
    for (uint32_t i = 0; i < n && st; i++)
        cut_cache(e, &e->slots[items[i].slot], 0); /* what ran is not known */
    return st;
}
