/* tools/runner.c - see runner.h. */
#include "tools/runner.h"

#include "mosld/adapter/adapter_file.h"
#include "mosld/generate/engine.h"
#include "mosld/ops/op.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { PIECE = 256, DEFAULT_CONTEXT = 2048 }; /* tokens of a prompt that a step runs at most */

struct runner {
    struct session *s;
    struct runner_params params;
    struct mosld_adapter **adapters;
    uint32_t n_adapters;
    struct mosld_engine *engine;
};

uint32_t runner_context(const struct runner *r) { return r->params.context; }
uint32_t runner_slots(const struct runner *r) { return r->params.slots; }
uint32_t runner_vocab(const struct runner *r) { return r->s->model->config.vocab_size; }

/* ---- opening ---- */

static enum rt_status create_engine(struct runner *r, struct rt_error *err)
{
    return mosld_engine_create(&(struct mosld_engine_params){.model = r->s->model, .adapters = r->adapters, .n_adapters = r->n_adapters,
                                                             .slots = r->params.slots, .context = r->params.context, .piece = PIECE},
                               &r->engine, err);
}

/* Everything is planned before anything is allocated: what does not fit is said with numbers. */
static enum rt_status check_memory(const struct runner *r, struct rt_error *err)
{
    const double mib = 1 << 20;
    uint64_t has = rt_device_info(r->s->dev)->limits.memory, needs = rt_arena_planned(r->s->model->arena) + mosld_engine_planned(r->engine);
    for (uint32_t i = 0; i < r->n_adapters; i++)
        needs += rt_arena_planned(r->adapters[i]->arena);
    if (needs <= has)
        return RT_OK;
    return rt_fail(err, RT_NO_MEMORY,
                   "the model and %u sequences of %u tokens need %.0f MiB and may use %.0f MiB of the device: give a smaller --context, fewer "
                   "sequences at a time, or --weights q8_0",
                   r->params.slots, r->params.context, ceil((double)needs / mib), floor((double)has / mib));
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
    uint32_t most = mosld_model_file_config(s->file)->max_positions, usual = most < DEFAULT_CONTEXT ? most : DEFAULT_CONTEXT;
    if (r->params.context > most)
        return rt_fail(err, RT_USAGE, "--context: %u is more than the model's %u positions", r->params.context, most);
    if (!r->params.context)
        r->params.context = usual;
    RT_TRY(session_open_device(s, o, err));
    RT_TRY(mosld_model_create(s->dev, s->file, r->params.context, o->weights - 1, &s->model, err));
    for (uint32_t i = 0; i < r->params.n_adapters; i++)
        RT_TRY(plan_adapter(r, r->params.adapters[i], err));
    RT_TRY(create_engine(r, err));
    RT_TRY(check_memory(r, err));
    for (uint32_t i = 0; i < r->params.n_adapters; i++)
        RT_TRY(fill_adapter(r, i, r->params.adapters[i], err));
    RT_TRY(mosld_engine_commit(r->engine, err));
    RT_TRY(mosld_model_load(s->model, s->file, err));
    return op_prepare(s->dev, mosld_model_wtypes(s->model), err);
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
    mosld_engine_destroy(&r->engine);
    for (uint32_t i = 0; i < r->n_adapters; i++)
        mosld_adapter_destroy(&r->adapters[i]);
    free(r->adapters);
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
    return mosld_engine_acquire(r->engine, adapter < 0 ? MOSLD_ENGINE_NO_ADAPTER : (uint32_t)adapter, ids, n, slot, reused);
}

void runner_release(struct runner *r, uint32_t slot) { mosld_engine_release(r->engine, slot); }

enum rt_status runner_step(struct runner *r, struct runner_item *items, uint32_t n, struct rt_error *err)
{
    struct mosld_engine_item *steps = calloc(n + 1, sizeof *steps);
    if (!steps)
        return rt_fail(err, RT_NO_MEMORY, "no memory for a step");
    for (uint32_t i = 0; i < n; i++) {
        uint32_t have = mosld_engine_cached(r->engine, items[i].slot), more = items[i].n > have ? items[i].n - have : 0;
        items[i].ready = more <= PIECE;
        steps[i] = (struct mosld_engine_item){.slot = items[i].slot, .tokens = items[i].ids + have, .n = more <= PIECE ? more : PIECE,
                                              .logits = items[i].ready ? items[i].logits : NULL};
    }
    enum rt_status st = mosld_engine_step(r->engine, steps, n, err);
    free(steps);
    return st;
}
