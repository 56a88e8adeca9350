/* tools/runner.c - see runner.h. A slot is a pass with a cache of its own, so a step runs its sequences one after the other. */
#include "tools/runner.h"

#include "mosld/adapter/adapter_file.h"
#include "mosld/ops/op.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { PIECE = 256, DEFAULT_CONTEXT = 2048 }; /* tokens of a prompt that a step runs at most */

struct slot {
    struct mosld_pass *pass; /* made when it is first used: with the adapter that it then has */
    int adapter;
    int32_t *ids; /* what is in the cache: pass->cached of them */
};

struct runner {
    struct session *s;
    struct runner_params params;
    struct mosld_adapter **adapters;
    uint32_t n_adapters;
    struct slot *slots;
};

uint32_t runner_context(const struct runner *r) { return r->params.context; }
uint32_t runner_slots(const struct runner *r) { return r->params.slots; }
uint32_t runner_vocab(const struct runner *r) { return r->s->model->config.vocab_size; }

static enum rt_status make_pass(const struct runner *r, int adapter, struct mosld_pass **out, struct rt_error *err)
{
    uint32_t context = r->params.context;
    return mosld_pass_create(r->s->model, adapter >= 0 ? r->adapters[adapter] : NULL,
                             &(struct mosld_pass_params){.max_tokens = context < PIECE ? context : PIECE, .max_targets = 1, .cache_tokens = context},
                             out, err);
}

/* Everything is planned before anything is allocated: what does not fit is said with numbers. */
static enum rt_status check_memory(const struct runner *r, struct rt_error *err)
{
    const double mib = 1 << 20;
    struct mosld_pass *pass = NULL;
    enum rt_status st = make_pass(r, (int)r->n_adapters - 1, &pass, err);
    uint64_t has = rt_device_info(r->s->dev)->limits.memory, needs = rt_arena_planned(r->s->model->arena);
    if (!st)
        needs += r->params.slots * (rt_arena_planned(pass->activations) + rt_arena_planned(pass->scratch));
    for (uint32_t i = 0; i < r->n_adapters; i++)
        needs += rt_arena_planned(r->adapters[i]->arena);
    mosld_pass_destroy(&pass);
    if (!st && needs > has)
        st = rt_fail(err, RT_NO_MEMORY,
                     "the model and %u sequences of %u tokens need %.0f MiB and may use %.0f MiB of the device: give a smaller context, "
                     "fewer sequences at a time, or --weights q8_0",
                     r->params.slots, r->params.context, ceil((double)needs / mib), floor((double)has / mib));
    return st;
}

static enum rt_status plan_adapter(struct runner *r, const char *dir, struct rt_error *err)
{
    struct mosld_adapter_params params;
    struct mosld_adapter **grown = realloc(r->adapters, (r->n_adapters + 1) * sizeof *grown);
    if (!grown)
        return rt_fail(err, RT_NO_MEMORY, "no memory for an adapter");
    r->adapters = grown;
    r->adapters[r->n_adapters] = NULL;
    RT_TRY(mosld_adapter_read_params(dir, &params, err));
    enum rt_status st = mosld_adapter_create(r->s->dev, &r->s->model->config, &params, false, false, &r->adapters[r->n_adapters], err);
    if (st) {
        mosld_adapter_destroy(&r->adapters[r->n_adapters]);
        return st;
    }
    r->n_adapters++;
    return RT_OK;
}

static enum rt_status fill_adapter(struct runner *r, uint32_t i, const char *dir, struct rt_error *err)
{
    RT_TRY(mosld_adapter_commit(r->adapters[i], err));
    return mosld_adapter_read(r->adapters[i], dir, err);
}

enum rt_status runner_add_adapter(struct runner *r, const char *dir, int *number, struct rt_error *err)
{
    RT_TRY(plan_adapter(r, dir, err));
    enum rt_status st = fill_adapter(r, r->n_adapters - 1, dir, err);
    if (st)
        mosld_adapter_destroy(&r->adapters[--r->n_adapters]);
    else
        *number = (int)r->n_adapters - 1;
    return st;
}

static enum rt_status open_all(struct runner *r, const struct session_options *o, struct rt_error *err)
{
    struct session *s = r->s;
    uint32_t most = mosld_model_file_config(s->file)->max_positions, usual = most < DEFAULT_CONTEXT ? most : DEFAULT_CONTEXT;
    if (r->params.context > most)
        return rt_fail(err, RT_USAGE, "--context: %u is more than the model's %u positions", r->params.context, most);
    if (!r->params.context)
        r->params.context = usual;
    RT_TRY(session_open_device(s, o, err));
    RT_TRY(mosld_model_create(s->dev, s->file, r->params.context, o->weights - 1, &s->model, err));
    for (uint32_t i = 0; i < r->params.n_adapters; i++)
        RT_TRY(plan_adapter(r, r->params.adapters[i], err));
    RT_TRY(check_memory(r, err));
    for (uint32_t i = 0; i < r->params.n_adapters; i++)
        RT_TRY(fill_adapter(r, i, r->params.adapters[i], err));
    RT_TRY(mosld_model_load(s->model, s->file, err));
    RT_TRY(op_prepare(s->dev, mosld_model_wtypes(s->model), err));
    r->slots = calloc(r->params.slots, sizeof *r->slots);
    return r->slots ? RT_OK : rt_fail(err, RT_NO_MEMORY, "no memory for %u sequences", r->params.slots);
}

enum rt_status runner_open(struct session *s, const struct session_options *o, const struct runner_params *params, struct runner **out,
                           struct rt_error *err)
{
    struct runner *r = *out = calloc(1, sizeof *r);
    if (!r)
        return rt_fail(err, RT_NO_MEMORY, "no memory to run a model");
    *r = (struct runner){.s = s, .params = *params};
    enum rt_status st = open_all(r, o, err);
    if (st)
        runner_close(out);
    return st;
}

void runner_close(struct runner **runner)
{
    struct runner *r = *runner;
    if (!r)
        return;
    for (uint32_t i = 0; r->slots && i < r->params.slots; i++) {
        mosld_pass_destroy(&r->slots[i].pass);
        free(r->slots[i].ids);
    }
    for (uint32_t i = 0; i < r->n_adapters; i++)
        mosld_adapter_destroy(&r->adapters[i]);
    free(r->slots);
    free(r->adapters);
    free(r);
    *runner = NULL;
}

/* ---- a step ---- */

static uint32_t common(const struct slot *slot, int adapter, const int32_t *ids, uint32_t n)
{
    uint32_t i = 0, most = slot->pass && slot->adapter == adapter ? slot->pass->cached : 0;
    while (i < most && i < n && slot->ids[i] == ids[i])
        i++;
    return i;
}

uint32_t runner_choose(const struct runner *r, const bool *busy, int adapter, const int32_t *ids, uint32_t n)
{
    uint32_t best = UINT32_MAX, score = 0;
    for (uint32_t i = 0; i < r->params.slots; i++) {
        const struct slot *slot = &r->slots[i];
        if (busy[i])
            continue;
        /* The longest common beginning; then one that needs no new pass; then one whose cache nobody will miss. */
        uint32_t it = 4 * common(slot, adapter, ids, n) + (!slot->pass || slot->adapter == adapter ? 2 : 0) + (slot->pass && !slot->pass->cached);
        if (best == UINT32_MAX || it > score) {
            best = i;
            score = it;
        }
    }
    return best;
}

static enum rt_status ready_slot(struct runner *r, struct slot *slot, int adapter, struct rt_error *err)
{
    if (slot->pass && slot->adapter == adapter)
        return RT_OK;
    mosld_pass_destroy(&slot->pass);
    slot->adapter = adapter;
    if (!slot->ids && !(slot->ids = malloc(r->params.context * sizeof *slot->ids)))
        return rt_fail(err, RT_NO_MEMORY, "no memory for a sequence");
    enum rt_status st = make_pass(r, adapter, &slot->pass, err);
    if (!st)
        st = mosld_pass_commit(slot->pass, err);
    if (st)
        mosld_pass_destroy(&slot->pass);
    return st;
}

static enum rt_status run_item(struct runner *r, struct runner_item *item, struct rt_error *err)
{
    struct slot *slot = &r->slots[item->slot];
    RT_TRY(ready_slot(r, slot, item->adapter, err));
    struct mosld_pass *pass = slot->pass;
    uint32_t have = common(slot, item->adapter, item->ids, item->n);
    if (have == item->n)
        have--; /* the last one's logits are wanted */
    item->reused = have;
    pass->cached = have;
    uint32_t most = pass->params.max_tokens, m = item->n - have < most ? item->n - have : most;
    for (uint32_t i = 0; i < m; i++)
        if (item->ids[have + i] < 0 || (uint32_t)item->ids[have + i] >= runner_vocab(r))
            return rt_fail(err, RT_USAGE, "token %d is outside the model's vocabulary of %u", item->ids[have + i], runner_vocab(r));
    RT_TRY(mosld_forward_cached(pass, (const uint32_t *)item->ids + have, m, err));
    memcpy(slot->ids + have, item->ids + have, m * sizeof *slot->ids);
    item->ready = have + m == item->n;
    uint32_t last = m - 1;
    return item->ready ? mosld_logits(pass, &last, 1, item->logits, err) : RT_OK;
}

enum rt_status runner_step(struct runner *r, struct runner_item *items, uint32_t n, struct rt_error *err)
{
    for (uint32_t i = 0; i < n; i++) {
        if (items[i].n > r->params.context)
            return rt_fail(err, RT_FAILED, "a sequence of %u tokens does not fit the context of %u", items[i].n, r->params.context);
        RT_TRY(run_item(r, &items[i], err));
    }
    return RT_OK;
}
