/* tools/runner.c - see runner.h. */
#include "tools/runner.h"

#include "mosld/adapter/adapter_file.h"
#include "mosld/generate/engine.h"
#include "mosld/ops/op.h"
#include "tools/plan.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { PIECE = PLAN_PIECE, DEFAULT_CONTEXT = PLAN_USUAL_CONTEXT, LEAST_CONTEXT = PLAN_LEAST_CONTEXT }; /* PIECE: tokens of a prompt that a step runs at most */

struct runner {
    struct session *s;
    struct runner_params params;
    struct mosld_adapter **adapters;
    uint32_t n_adapters;
    struct mosld_engine *engine;
    struct mosld_engine_fit fit;
    uint64_t *acquired, acquisitions, waits; /* acquired: [slots], when, as a count */
};

uint32_t runner_context(const struct runner *r) { return r->params.context; }
uint64_t runner_waits(const struct runner *r) { return r->waits; }
uint32_t runner_slots(const struct runner *r) { return r->params.slots; }
uint32_t runner_vocab(const struct runner *r) { return r->s->model->config.vocab_size; }

/* ---- opening ---- */

static enum rt_status create_engine(struct runner *r, struct rt_error *err)
{
    return mosld_engine_create(&(struct mosld_engine_params){.model = r->s->model, .adapters = r->adapters, .n_adapters = r->n_adapters,
                                                             .slots = r->params.slots, .context = r->params.context, .piece = PIECE,
                                                             .blocks = r->fit.blocks, .cache_type = r->params.cache_type},
                               &r->engine, err);
}

static uint64_t weights_and_adapters(const struct runner *r)
{
    uint64_t bytes = rt_arena_planned(r->s->model->arena) + rt_reserve(r->s->dev);
    for (uint32_t i = 0; i < r->n_adapters; i++)
        bytes += rt_arena_planned(r->adapters[i]->arena);
    return bytes;
}

/* How long sequences may be and how much cache there is: as asked for, or what fits. Without a limit the context is the usual one and leaves the rest of the
 * device to others; with one it takes what there is. */
static enum rt_status fit_cache(struct runner *r, bool given, uint64_t memory, struct rt_error *err)
{
    uint64_t taken = weights_and_adapters(r);
    struct mosld_engine_params p = {.model = r->s->model, .adapters = r->adapters, .n_adapters = r->n_adapters, .slots = r->params.slots,
                                    .context = r->params.context, .piece = PIECE, .cache_type = r->params.cache_type};
    RT_TRY(mosld_engine_fit(&p, given || p.context < LEAST_CONTEXT ? p.context : LEAST_CONTEXT, memory > taken ? memory - taken : 0, &r->fit, err));
    r->params.context = r->fit.context;
    return RT_OK;
}

void runner_tell_context(const struct runner *r, FILE *to)
{
    fprintf(to, "context of %u tokens", r->params.context);
    if (r->params.slots > 1)
        fprintf(to, ", up to %u sequences; together %llu tokens", r->params.slots, (unsigned long long)r->fit.blocks * KV_BLOCK);
    fprintf(to, "; cache of %.0f MiB (%s)\n", (double)r->fit.blocks * (double)r->fit.block_bytes / (1 << 20), op_wtype_name(r->params.cache_type));
}

/* Everything is planned before anything is allocated: what does not fit is said with numbers. */
static enum rt_status check_memory(const struct runner *r, struct rt_error *err)
{
    const double mib = 1 << 20;
    uint64_t has = rt_device_info(r->s->dev)->limits.memory, needs = weights_and_adapters(r) + mosld_engine_planned(r->engine);
    if (needs <= has)
        return RT_OK;
    return rt_fail(err, RT_NO_MEMORY,
                   "the model and a cache of %llu tokens need %.0f MiB and may use %.0f MiB of the device: give a smaller --max-context, "
                   "--cache-type q8_0, or --weights q8_0",
                   (unsigned long long)r->fit.blocks * KV_BLOCK, ceil((double)needs / mib), floor((double)has / mib));
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

static enum rt_status open_all(struct runner *r, const struct session_options *o, struct rt_error *err)
{
    struct session *s = r->s;
    uint32_t most = mosld_config_longest(mosld_model_file_config(s->file)), usual = o->memory_limit > 0 || most < DEFAULT_CONTEXT ? most : DEFAULT_CONTEXT;
    bool given = r->params.context > 0;
    if (r->params.context > most)
        return rt_fail(err, RT_USAGE, "--max-context: %u is more than the model's %u positions", r->params.context, most);
    if (!given)
        r->params.context = usual;
    RT_TRY(session_open_device(s, o, err));
    RT_TRY(mosld_model_create(s->dev, s->file, r->params.context, o->weights - 1, &s->model, err));
    for (uint32_t i = 0; i < r->params.n_adapters; i++)
        RT_TRY(plan_adapter(r, r->params.adapters[i], err));
    RT_TRY(fit_cache(r, given, rt_device_info(s->dev)->limits.memory, err));
    RT_TRY(create_engine(r, err));
    RT_TRY(check_memory(r, err));
    for (uint32_t i = 0; i < r->params.n_adapters; i++)
        RT_TRY(fill_adapter(r, i, r->params.adapters[i], err));
    RT_TRY(mosld_engine_commit(r->engine, err));
    RT_TRY(mosld_model_load(s->model, s->file, err));
    r->acquired = calloc(r->params.slots, sizeof *r->acquired);
    if (!r->acquired)
        return rt_fail(err, RT_NO_MEMORY, "no memory to run a model");
    return op_prepare(s->dev, mosld_model_wtypes(s->model) | 1u << r->params.cache_type, err);
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

enum rt_status runner_print_plan(struct session *s, const struct session_options *o, const struct runner_params *params, FILE *to, struct rt_error *err)
{
    struct mosld_adapter_params *adapters = calloc(params->n_adapters + 1, sizeof *adapters);
    enum rt_status st = adapters ? RT_OK : rt_fail(err, RT_NO_MEMORY, "no memory for the adapters");
    for (uint32_t i = 0; !st && i < params->n_adapters; i++)
        st = mosld_adapter_read_params(params->adapters[i], &adapters[i], err);
    struct plan plan = {.dev = s->dev, .model = o->model,
                        .request = {.file = s->file, .weights = o->weights - 1, .more = adapters, .n_more = params->n_adapters,
                                    .pass = {.slots = params->slots, .cache_type = params->cache_type}}};
    if (!st)
        st = plan_generation(&plan, params->context, o->memory_limit > 0, err);
    if (!st)
        st = plan_print(&plan, o->json && o->plan, to, err);
    free(adapters);
    return st;
}

void runner_close(struct runner **runner)
{
    struct runner *r = *runner;
    if (!r)
        return;
    mosld_engine_destroy(&r->engine);
    for (uint32_t i = 0; i < r->n_adapters; i++)
        mosld_adapter_destroy(&r->adapters[i]);
    free(r->adapters);
    free(r->acquired);
    free(r);
    *runner = NULL;
}

/* An engine's adapters are fixed, so another takes its place. */
static enum rt_status renew_engine(struct runner *r, struct rt_error *err)
{
    mosld_engine_destroy(&r->engine);
    RT_TRY(create_engine(r, err));
    return mosld_engine_commit(r->engine, err);
}

enum rt_status runner_add_adapter(struct runner *r, const char *dir, int *number, struct rt_error *err)
{
    RT_TRY(plan_adapter(r, dir, err));
    enum rt_status st = fill_adapter(r, r->n_adapters - 1, dir, err);
    if (!st)
        st = renew_engine(r, err);
    if (!st) {
        *number = (int)r->n_adapters - 1;
        return RT_OK;
    }
    mosld_adapter_destroy(&r->adapters[--r->n_adapters]);
    struct rt_error again;
    if (renew_engine(r, &again)) /* without the one that failed */
        return rt_fail(err, again.status, "%s", again.text);
    return st;
}

/* ---- steps ---- */

bool runner_acquire(struct runner *r, int adapter, const int32_t *ids, uint32_t n, uint32_t *slot, uint32_t *reused)
{
    if (!mosld_engine_acquire(r->engine, adapter < 0 ? MOSLD_ENGINE_NO_ADAPTER : (uint32_t)adapter, ids, n, slot, reused))
        return false;
    r->acquired[*slot] = ++r->acquisitions;
    return true;
}

void runner_release(struct runner *r, uint32_t slot) { mosld_engine_release(r->engine, slot); }

/* The item's next piece. A sequence without a cache begins only where there is room for all of it. */
static uint32_t next_piece(const struct runner *r, const struct runner_item *item, uint32_t *blocks)
{
    uint32_t have = mosld_engine_cached(r->engine, item->slot), more = item->n > have ? item->n - have : 0;
    *blocks = mosld_engine_needs(r->engine, item->slot, have ? more < PIECE ? more : PIECE : more);
    return more;
}

/* What of the cache is not the sequence any more goes: a shift took tokens out of its middle. */
static void cut_to_common(struct runner *r, const struct runner_item *item)
{
    uint32_t have = mosld_engine_cached(r->engine, item->slot), same = 0;
    const int32_t *tokens = mosld_engine_tokens(r->engine, item->slot);
    while (same < have && same + 1 < item->n && tokens[same] == item->ids[same])
        same++;
    mosld_engine_truncate(r->engine, item->slot, same);
}

/* Takes the caches of those that were acquired last until the others' pieces fit: waits[i] says which. The first acquired always fits. */
static void hold_back(struct runner *r, const struct runner_item *items, uint32_t n, bool *waits)
{
    for (;;) {
        uint64_t needs = 0;
        uint32_t last = n;
        for (uint32_t i = 0; i < n; i++) {
            uint32_t blocks;
            if (waits[i])
                continue;
            next_piece(r, &items[i], &blocks);
            needs += blocks;
            if (last == n || r->acquired[items[i].slot] > r->acquired[items[last].slot])
                last = i;
        }
        if (last == n || needs <= mosld_engine_room(r->engine))
            return;
        waits[last] = true;
        r->waits += mosld_engine_cached(r->engine, items[last].slot) > 0;
        mosld_engine_truncate(r->engine, items[last].slot, 0);
    }
}

enum rt_status runner_step(struct runner *r, struct runner_item *items, uint32_t n, struct rt_error *err)
{
    struct mosld_engine_item *steps = calloc(n + 1, sizeof *steps);
    bool *waits = calloc(n + 1, sizeof *waits);
    uint32_t m = 0, blocks;
    enum rt_status st = steps && waits ? RT_OK : rt_fail(err, RT_NO_MEMORY, "no memory for a step");
    for (uint32_t i = 0; i < n && !st; i++)
        cut_to_common(r, &items[i]);
    if (!st)
        hold_back(r, items, n, waits);
    for (uint32_t i = 0; i < n && !st; i++) {
        uint32_t more = next_piece(r, &items[i], &blocks);
        items[i].ready = more <= PIECE && !waits[i];
        if (!waits[i])
            steps[m++] = (struct mosld_engine_item){.slot = items[i].slot, .tokens = items[i].ids + (items[i].n - more), .n = more <= PIECE ? more : PIECE,
                                                    .logits = items[i].ready ? items[i].logits : NULL};
    }
    if (!st)
        st = mosld_engine_step(r->engine, steps, m, err);
    free(steps);
    free(waits);
    return st;
}
