/* mosld/model/memory.c - see memory.h. */
#include "mosld/model/memory.h"

#include "mosld/ops/optim.h"

#include <stdlib.h>

const char *const mosld_checkpointing_names[] = {"auto", "true", "false", NULL};

uint64_t mosld_memory_total(const struct mosld_memory *m) { return m->weights + m->adapter + m->activations + m->cache + m->scratch + m->staging; }

/* Multiply-adds a token: forward is one product a weight, backward another one (dx), layers below the lowest adapter have no backward, and
 * recomputing leaves out the product of down. Of the adapter and attention nothing is counted. */
static double products_again(const struct mosld_pass *p)
{
    const struct mosld_config *c = &p->model->config;
    double d = c->hidden_size, F = c->intermediate_size, q = (double)c->num_heads * c->head_dim, kv = (double)c->num_kv_heads * c->head_dim;
    double layer = d * (2 * q + 2 * kv + 3 * F), targets = (double)p->params.max_targets / p->params.max_tokens;
    double step = layer * (c->num_layers + p->trained) + 2 * d * c->vocab_size * targets;
    return p->params.recomputed * (layer - d * F) / step;
}

void mosld_memory_of(const struct mosld_model *model, const struct mosld_adapter *adapter, const struct mosld_pass *pass, struct mosld_memory *out)
{
    uint64_t cache = pass->params.cache_tokens ? pass->params.cache_blocks * mosld_pass_block_bytes(model, pass->params.cache_type) : 0;
    *out = (struct mosld_memory){
        .weights = rt_arena_planned(model->arena), .adapter = adapter ? rt_arena_planned(adapter->arena) : 0,
        .activations = rt_arena_planned(pass->activations) - cache, .cache = cache, .scratch = rt_arena_planned(pass->scratch), .staging = rt_reserve(model->dev),
        .parameters = adapter ? adapter->parameters : 0, .model_parameters = model->parameters};
    if (!pass->trained)
        return;
    out->scratch += (OP_NORM_PARTIALS * 4 + 255) & ~255u; /* the optimizer's, which the step allocates */
    out->trained = pass->trained;
    out->recomputed = pass->params.recomputed;
    out->again = products_again(pass);
}

static bool fits(const struct mosld_model *model, const struct mosld_adapter *adapter, const struct mosld_pass *pass)
{
    struct mosld_memory m;
    mosld_memory_of(model, adapter, pass, &m);
    return mosld_memory_total(&m) <= rt_device_info(model->dev)->limits.memory;
}

enum rt_status mosld_pass_create_fitting(struct mosld_model *model, struct mosld_adapter *adapter, const struct mosld_pass_params *params,
                                         enum mosld_checkpointing checkpointing, struct mosld_pass **out, struct rt_error *err)
{
    struct mosld_pass_params p = *params;
    p.recomputed = checkpointing == MOSLD_CHECKPOINT_TRUE ? MOSLD_RECOMPUTE_ALL : 0;
    RT_TRY(mosld_pass_create(model, adapter, &p, out, err));
    if (checkpointing != MOSLD_CHECKPOINT_AUTO || (*out)->trained == 0 || fits(model, adapter, *out))
        return RT_OK;
    /* Each more takes less: the fewest that fit lie in (low, high]. */
    uint32_t low = 0, high = (*out)->trained - 1;
    while (low + 1 < high) {
        p.recomputed = low + (high - low) / 2;
        mosld_pass_destroy(out);
        RT_TRY(mosld_pass_create(model, adapter, &p, out, err));
        if (fits(model, adapter, *out))
            high = p.recomputed;
        else
            low = p.recomputed;
    }
    p.recomputed = high;
    mosld_pass_destroy(out);
    return mosld_pass_create(model, adapter, &p, out, err);
}

enum rt_status mosld_memory_plan(struct rt_device *dev, const struct mosld_memory_request *r, struct mosld_memory *out, struct rt_error *err)
{
    struct mosld_model *model = NULL;
    struct mosld_adapter *adapter = NULL;
    struct mosld_pass *pass = NULL;
    struct mosld_adapter **more = calloc(r->n_more + 1, sizeof *more);
    struct mosld_pass_params params = r->pass;
    if (!more)
        return rt_fail(err, RT_NO_MEMORY, "no memory for the plan");
    params.adapters = more;
    params.n_adapters = r->n_more;
    enum rt_status st = mosld_model_create(dev, r->file, r->positions, r->weights, &model, err);
    if (!st && r->adapter)
        st = mosld_adapter_create(dev, &model->config, r->adapter, r->pass.trains, r->given_mask, &adapter, err);
    for (uint32_t i = 0; !st && i < r->n_more; i++)
        st = mosld_adapter_create(dev, &model->config, &r->more[i], false, false, &more[i], err);
    if (!st && r->pass.trains)
        st = mosld_pass_create_fitting(model, adapter, &r->pass, r->checkpointing, &pass, err);
    else if (!st)
        st = mosld_pass_create(model, adapter, &params, &pass, err);
    if (!st)
        mosld_memory_of(model, adapter, pass, out);
    for (uint32_t i = 0; i < r->n_more; i++) {
        out->adapter += !st ? rt_arena_planned(more[i]->arena) : 0;
        out->parameters += !st ? more[i]->parameters : 0;
        mosld_adapter_destroy(&more[i]);
    }
    free(more);
    mosld_pass_destroy(&pass);
    mosld_adapter_destroy(&adapter);
    mosld_model_destroy(&model);
    return st;
}
