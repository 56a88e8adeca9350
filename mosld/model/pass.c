/* mosld/model/pass.c - the memory of a pass: see pass.h. */
#include "mosld/model/pass.h"

#include "shaders/step.h"

#include <stdlib.h>

/* Collects requests to one arena and remembers the first failure, so that a layout reads as a list. */
struct asking {
    struct rt_arena *arena;
    enum rt_status status;
    struct rt_error *err;
};

static void ask(struct asking *a, const char *label, struct rt_span *out, uint64_t rows, uint64_t cols)
{
    uint64_t n = 0;
    if (a->status)
        return;
    if (__builtin_mul_overflow(rows, cols, &n) || __builtin_mul_overflow(n, 4, &n))
        a->status = rt_fail(a->err, RT_NO_MEMORY, "%s: %llu x %llu does not fit an address", label, (unsigned long long)rows,
                            (unsigned long long)cols);
    else
        a->status = rt_arena_add(a->arena, n, label, out, a->err);
}

static void ask_layer(struct asking *a, const struct mosld_pass *p, struct mosld_layer_state *s, uint32_t layer)
{
    const struct mosld_config *c = &p->model->config;
    uint64_t T = p->params.max_tokens, q = (uint64_t)c->num_heads * c->head_dim, kv = 2ull * c->num_kv_heads * c->head_dim;
    ask(a, "residual before attention", &s->h_in, T, c->hidden_size);
    ask(a, "residual before the MLP", &s->h_mid, T, c->hidden_size);
    ask(a, "queries, keys and values", &s->qkv, T, q + kv);
    if (c->qk_norm)
        ask(a, "queries and keys before their norm", &s->qkv_raw, T, q + kv);
    ask(a, "attention output", &s->o, T, q);
    if (!p->params.cache_tokens)
        ask(a, "attention statistics", &s->stats, T, 4 + 2ull * c->num_heads);
    ask(a, "gate and up", &s->gu, T, 2ull * c->intermediate_size);
    for (int g = 0; p->adapter && g < MOSLD_GROUPS; g++)
        if (p->adapter->groups[layer][g].rows)
            ask(a, "u and l", &s->ul[g], T, mosld_group_stride(&p->adapter->groups[layer][g]));
}

static void ask_layers(struct asking *a, struct mosld_pass *p)
{
    const struct mosld_config *c = &p->model->config;
    /* Layers that keep nothing share the buffers of the first; layers with adapters differ in ul alone when they do not train. */
    uint32_t keep_from = p->params.trains ? p->adapter->lowest_layer : c->num_layers;
    for (uint32_t l = 0; l < c->num_layers; l++) {
        if (l == 0 || l >= keep_from)
            ask_layer(a, p, &p->layers[l], l);
        if (l > 0 && l < keep_from)
            for (int g = 0; p->adapter && g < MOSLD_GROUPS; g++)
                if (p->adapter->groups[l][g].rows)
                    ask(a, "u and l", &p->layers[l].ul[g], p->params.max_tokens, mosld_group_stride(&p->adapter->groups[l][g]));
        if (p->params.cache_tokens)
            ask(a, "key and value cache", &p->layers[l].cache, p->params.cache_tokens, 2ull * c->num_kv_heads * c->head_dim);
    }
    ask(a, "residual behind the last layer", &p->h_out, p->params.max_tokens, c->hidden_size);
}

/* Once the spans are known, layers that share get those of layer 0. */
static void share_layers(struct mosld_pass *p)
{
    uint32_t keep_from = p->params.trains ? p->adapter->lowest_layer : p->model->config.num_layers;
    for (uint32_t l = 1; l < keep_from; l++) {
        struct mosld_layer_state *s = &p->layers[l], *first = &p->layers[0];
        s->h_in = first->h_in, s->h_mid = first->h_mid, s->qkv_raw = first->qkv_raw, s->qkv = first->qkv;
        s->o = first->o, s->stats = first->stats, s->gu = first->gu;
    }
}

static uint32_t slice_rows(const struct mosld_pass *p)
{
    const struct mosld_config *c = &p->model->config;
    const struct rt_device_info *info = rt_device_info(p->model->dev);
    /* The head is read once a slice: on the host a slice of 512 rows pays for expanding it, on a GPU memory is dearer. */
    uint64_t bytes = info->kind == RT_HOST ? 128ull << 20 : 32ull << 20;
    if (bytes > info->limits.max_range)
        bytes = info->limits.max_range;
    uint64_t rows = bytes / (4ull * c->vocab_size);
    rows = rows < 1 ? 1 : rows > 512 ? 512 : rows;
    if (p->params.max_slice && rows > p->params.max_slice)
        rows = p->params.max_slice;
    return rows < p->params.max_targets ? (uint32_t)rows : p->params.max_targets;
}

static uint32_t widest_input(const struct mosld_config *c)
{
    uint32_t q = c->num_heads * c->head_dim, w = c->hidden_size > c->intermediate_size ? c->hidden_size : c->intermediate_size;
    return q > w ? q : w;
}

static void ask_scratch(struct asking *a, struct mosld_pass *p)
{
    const struct mosld_config *c = &p->model->config;
    const struct mosld_adapter *ad = p->adapter;
    uint64_t T = p->params.max_tokens, n = p->params.max_targets, q = (uint64_t)c->num_heads * c->head_dim;
    uint64_t kv = 2ull * c->num_kv_heads * c->head_dim, d = c->hidden_size, F = c->intermediate_size;
    ask(a, "tokens", &p->tokens, T, 1);
    ask(a, "positions", &p->pos, T, 1);
    ask(a, "segments", &p->seg, T, 4);
    ask(a, "target rows", &p->target_row, n, 1);
    ask(a, "targets", &p->target, n, 1);
    ask(a, "step", &p->step, STEP_WORDS, 1);
    ask(a, "norm output", &p->norm_out, T, d);
    ask(a, "SwiGLU output", &p->act, T, F);
    ask(a, "target rows' outputs", &p->picked, n, d);
    ask(a, "their norm", &p->picked_norm, n, d);
    ask(a, "logits", &p->logits, p->params.max_slice, c->vocab_size);
    ask(a, "losses", &p->loss, n, 2);
    if (ad && mosld_has_router(&ad->params))
        ask(a, "z", &p->z, T, (uint64_t)ad->max_experts * ad->params.r);
    if (!p->params.trains)
        return;
    ask(a, "gradient of the residual", &p->dh, T, d);
    ask(a, "gradient of norm outputs", &p->dnorm, T, d);
    ask(a, "gradient of SwiGLU outputs", &p->dact, T, F);
    ask(a, "gradient of gate and up", &p->dgu, T, 2 * F);
    ask(a, "gradient of attention outputs", &p->d_o, T, q);
    ask(a, "gradient of queries, keys and values", &p->dqkv, T, q + kv);
    ask(a, "gradient of target rows", &p->dpicked, n, d);
    ask(a, "gradient of u and l", &p->dul, T, (ad->max_rows + 3) & ~3u);
    if (mosld_has_router(&ad->params))
        ask(a, "gradient of z", &p->dz, T, (uint64_t)ad->max_experts * ad->params.r);
    if (ad->masked.buffer || ad->given_mask || ad->params.dropout_on == MOSLD_DROPOUT_A)
        ask(a, "gradient of dropped A", &p->dstack, ad->max_rows, widest_input(c));
    if (ad->params.dropout_on == MOSLD_DROPOUT_INPUT && ad->params.dropout > 0)
        ask(a, "dropped input", &p->dropped, T, widest_input(c));
}

enum rt_status mosld_pass_create(struct mosld_model *model, struct mosld_adapter *adapter, const struct mosld_pass_params *params,
                                 struct mosld_pass **out, struct rt_error *err)
{
    struct mosld_pass *p = *out = calloc(1, sizeof *p);
    if (!p)
        return rt_fail(err, RT_NO_MEMORY, "no memory for a pass");
    *p = (struct mosld_pass){.model = model, .adapter = adapter, .params = *params, .micro_steps = 1};
    p->params.max_slice = slice_rows(p);
    p->layers = calloc(model->config.num_layers, sizeof *p->layers);
    if (!p->layers)
        return rt_fail(err, RT_NO_MEMORY, "no memory for a pass");
    struct asking asking = {.err = err};
    asking.status = rt_arena_create(model->dev, "activations", &p->activations, err);
    asking.arena = p->activations;
    if (!asking.status)
        ask_layers(&asking, p);
    if (!asking.status)
        asking.status = rt_arena_create(model->dev, "scratch", &p->scratch, err);
    asking.arena = p->scratch;
    if (!asking.status)
        ask_scratch(&asking, p);
    return asking.status;
}

enum rt_status mosld_pass_commit(struct mosld_pass *p, struct rt_error *err)
{
    enum rt_status st = rt_arena_commit(p->activations, err);
    if (!st)
        st = rt_arena_commit(p->scratch, err);
    if (!st)
        share_layers(p);
    return st;
}

void mosld_pass_destroy(struct mosld_pass **pass)
{
    if (!pass || !*pass)
        return;
    rt_arena_destroy(&(*pass)->activations);
    rt_arena_destroy(&(*pass)->scratch);
    free((*pass)->layers);
    free(*pass);
    *pass = NULL;
}

uint32_t mosld_pass_slice(const struct mosld_pass *p) { return p->params.max_slice; }
