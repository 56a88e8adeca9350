/* mosld/model/pass.c - the memory of a pass: see pass.h. */
#include "mosld/ops/matmul.h"
#include "mosld/model/pass.h"

#include "shaders/step.h"

#include <stdlib.h>

/* Collects requests to one arena and remembers the first failure, so that a layout reads as a list. */
struct asking {
    struct rt_arena *arena;
    uint64_t max_range; /* of a binding */
    enum rt_status status;
    struct rt_error *err;
};

/* Bytes of [rows, cols] words, 0 after a failure. What no kernel could bind is refused here, where it can be said what would do. */
static uint64_t bytes_of(struct asking *a, const char *label, uint64_t rows, uint64_t cols)
{
    uint64_t n = 0;
    if (a->status)
        return 0;
    if (__builtin_mul_overflow(rows, cols, &n) || __builtin_mul_overflow(n, 4, &n)) {
        a->status = rt_fail(a->err, RT_NO_MEMORY, "%s: %llu x %llu does not fit an address", label, (unsigned long long)rows,
                            (unsigned long long)cols);
        return 0;
    }
    if (n > a->max_range && cols) {
        a->status = rt_fail(a->err, RT_NO_MEMORY, "%s of %llu rows need %.1f MiB in one piece, and the device binds %.1f MiB: give at most %llu tokens at a time",
                            label, (unsigned long long)rows, (double)n / (1 << 20), (double)a->max_range / (1 << 20),
                            (unsigned long long)(a->max_range / (4 * cols)));
        return 0;
    }
    return n;
}

static void ask(struct asking *a, const char *label, struct rt_span *out, uint64_t rows, uint64_t cols)
{
    uint64_t n = bytes_of(a, label, rows, cols);
    if (!a->status)
        a->status = rt_arena_add(a->arena, n, label, out, a->err);
}

/* ---- scratch that is shared: see pass.h ---- */

enum slot { SLOT_INPUTS, SLOT_GRADIENTS, SLOT_WIDE, SLOTS };

struct mosld_slots {
    uint64_t size[SLOTS];
    struct rt_span span[SLOTS];
    struct {
        enum slot slot;
        struct rt_span *out;
        uint64_t offset, size;
    } part[12];
    unsigned n;
};

/* Lays [rows, cols] into a slot from byte `offset` on, and returns where it ends. */
static uint64_t put(struct asking *a, struct mosld_slots *s, enum slot slot, uint64_t offset, const char *label, struct rt_span *out,
                    uint64_t rows, uint64_t cols)
{
    uint64_t n = bytes_of(a, label, rows, cols), end = offset + ((n + 255) & ~255ull); /* ranges of bindings: the sum cannot wrap */
    s->part[s->n].slot = slot, s->part[s->n].out = out, s->part[s->n].offset = offset, s->part[s->n].size = n;
    s->n++;
    s->size[slot] = end > s->size[slot] ? end : s->size[slot];
    return end;
}

static void ask_slots(struct asking *a, struct mosld_slots *s)
{
    static const char *const labels[SLOTS] = {"inputs of products", "their gradients", "wide gradients and logits"};
    for (int i = 0; i < SLOTS && !a->status; i++)
        a->status = rt_arena_add(a->arena, s->size[i], labels[i], &s->span[i], a->err);
}

static void cut_slots(struct mosld_slots *s)
{
    for (unsigned i = 0; i < s->n; i++)
        *s->part[i].out = s->part[i].size ? rt_span_part(s->span[s->part[i].slot], s->part[i].offset, s->part[i].size) : (struct rt_span){0};
}

/* ---- activations ---- */

/* What backward needs of a layer beside h_in, u and l. */
static void ask_set(struct asking *a, const struct mosld_pass *p, struct mosld_layer_state *s)
{
    const struct mosld_config *c = &p->model->config;
    uint64_t T = p->params.max_tokens, q = (uint64_t)c->num_heads * c->head_dim, kv = 2ull * c->num_kv_heads * c->head_dim;
    ask(a, "residual before the MLP", &s->h_mid, T, c->hidden_size);
    ask(a, "queries, keys and values", &s->qkv, T, q + kv);
    if (c->qk_norm)
        ask(a, "queries and keys before their norm", &s->qkv_raw, T, q + kv);
    ask(a, "attention output", &s->o, T, q);
    if (!p->params.cache_tokens)
        ask(a, "attention statistics", &s->stats, T, 4 + 2ull * c->num_heads);
    ask(a, "gate and up", &s->gu, T, 2ull * c->intermediate_size);
}

/* Layers that share one residual stream: nothing of theirs is read once the next layer has run. */
static uint32_t streams_shared(const struct mosld_pass *p) { return p->trained ? p->adapter->lowest_layer + 1 : p->sharing; }

/* ---- the cache ---- */

uint32_t mosld_pass_slot_blocks(const struct mosld_pass *p) { return op_kv_blocks(p->params.cache_tokens); }

uint64_t mosld_pass_block_bytes(const struct mosld_model *m, enum op_wtype cache_type)
{
    return 4ull * KV_BLOCK * m->config.num_layers * op_kv_row_words(cache_type, m->config.num_kv_heads, m->config.head_dim);
}

void mosld_pass_place_block(struct mosld_pass *p, uint32_t slot, uint32_t index, uint32_t block)
{
    uint32_t *word = &p->tables[(size_t)slot * p->table_words + index];
    p->table_changed[slot] = p->table_changed[slot] || *word != block;
    *word = block;
}

uint32_t mosld_pass_window(const struct mosld_pass *p)
{
    return p->model->config.slides_everywhere ? p->model->config.sliding_window : 0; /* otherwise no sequence is longer than the window */
}

static void ask_cache(struct asking *a, const struct mosld_pass *p, struct mosld_layer_state *s)
{
    const struct mosld_config *c = &p->model->config;
    uint64_t bytes = (uint64_t)p->params.cache_blocks * KV_BLOCK * op_kv_row_words(p->params.cache_type, c->num_kv_heads, c->head_dim) * 4;
    if (!a->status && bytes > a->max_range)
        a->status = rt_fail(a->err, RT_NO_MEMORY, "a layer's keys and values of %llu positions are %.1f MiB in one piece, and the device binds %.1f MiB: give a smaller context, "
                            "fewer sequences at a time, or a cache of a smaller type", (unsigned long long)p->params.cache_blocks * KV_BLOCK,
                            (double)bytes / (1 << 20), (double)a->max_range / (1 << 20));
    if (!a->status)
        a->status = rt_arena_add(a->arena, bytes, "key and value cache", &s->cache, a->err);
}

/* Checks what the parameters say of the cache, and makes its tables. */
static enum rt_status plan_cache(struct mosld_pass *p, struct rt_error *err)
{
    const struct mosld_config *c = &p->model->config;
    uint64_t blocks = (uint64_t)mosld_pass_slot_blocks(p) * p->params.slots;
    if (p->params.cache_tokens == 0)
        return RT_OK;
    if (!op_kv_suits(p->params.cache_type, c->head_dim))
        return rt_fail(err, RT_USAGE, "a cache of %s: f32 and f16 go with any model, q8_0 with heads of whole 32s, and these have %u",
                       op_wtype_name(p->params.cache_type), c->head_dim);
    if (blocks > UINT32_MAX / KV_BLOCK)
        return rt_fail(err, RT_NO_MEMORY, "%u sequences of %u tokens: their positions do not count in 32 bits", p->params.slots, p->params.cache_tokens);
    bool shared = p->params.cache_blocks > 0;
    p->params.cache_blocks = shared ? p->params.cache_blocks : (uint32_t)blocks;
    p->table_words = mosld_pass_slot_blocks(p);
    p->first_table = 2 * (p->params.max_tokens > p->params.slots ? p->params.max_tokens : p->params.slots);
    p->tables = calloc(blocks + 1, sizeof *p->tables);
    p->table_changed = calloc(p->params.slots, sizeof *p->table_changed);
    if (!p->tables || !p->table_changed)
        return rt_fail(err, RT_NO_MEMORY, "no memory for the cache's tables");
    for (uint32_t i = 0; i < blocks; i++)
        p->tables[i] = shared ? 0 : i;
    for (uint32_t i = 0; i < p->params.slots; i++)
        p->table_changed[i] = true;
    return RT_OK;
}

/* ---- layers ---- */

/* Words of u and l of a group for any of the adapters that the pass may run with; 0: none has modules there. */
static uint64_t group_words(const struct mosld_pass *p, uint32_t layer, int group)
{
    uint64_t most = 0;
    for (uint32_t i = 0; i <= p->params.n_adapters; i++) {
        const struct mosld_adapter *a = i < p->params.n_adapters ? p->params.adapters[i] : p->adapter;
        uint64_t n = a && a->groups[layer][group].rows ? mosld_group_stride(&a->groups[layer][group]) : 0;
        most = n > most ? n : most;
    }
    return most;
}

/* Words of z of the group that needs most. */
static uint64_t z_words(const struct mosld_pass *p)
{
    uint64_t most = 0;
    for (uint32_t i = 0; i <= p->params.n_adapters; i++) {
        const struct mosld_adapter *a = i < p->params.n_adapters ? p->params.adapters[i] : p->adapter;
        for (uint32_t l = 0; a && l < a->layers; l++)
            for (int g = 0; g < MOSLD_GROUPS; g++) {
                const struct mosld_adapter_group *group = &a->groups[l][g];
                const struct mosld_adapter_module *m = group->n_modules ? group->modules[0] : NULL;
                uint64_t n = m && m->experts > 1 ? (uint64_t)group->n_modules * m->experts * m->r : 0;
                most = n > most ? n : most;
            }
    }
    return most;
}

static void ask_layers(struct asking *a, struct mosld_pass *p)
{
    const struct mosld_config *c = &p->model->config;
    for (uint32_t l = 0; l < c->num_layers; l++) {
        struct mosld_layer_state *s = &p->layers[l];
        if (l == 0 || l >= streams_shared(p))
            ask(a, "residual before attention", &s->h_in, p->params.max_tokens, c->hidden_size);
        if (l == 0 || l >= p->sharing)
            ask_set(a, p, s);
        for (int g = 0; g < MOSLD_GROUPS; g++)
            ask(a, "u and l", &s->ul[g], p->params.max_tokens, group_words(p, l, g));
        if (p->params.cache_tokens)
            ask_cache(a, p, s);
    }
    ask(a, "residual behind the last layer", &p->h_out, p->params.max_tokens, c->hidden_size);
}

/* Once the spans are known, layers that share get those of layer 0. */
static void share_layers(struct mosld_pass *p)
{
    const struct mosld_layer_state *first = &p->layers[0];
    for (uint32_t l = 1; l < p->sharing; l++) {
        struct mosld_layer_state *s = &p->layers[l];
        if (l < streams_shared(p))
            s->h_in = first->h_in;
        s->h_mid = first->h_mid, s->qkv_raw = first->qkv_raw, s->qkv = first->qkv;
        s->o = first->o, s->stats = first->stats, s->gu = first->gu;
    }
}

/* ---- scratch ---- */

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

static void lay_out_slots(struct asking *a, struct mosld_pass *p)
{
    const struct mosld_config *c = &p->model->config;
    struct mosld_slots *s = p->slots;
    uint64_t T = p->params.max_tokens, n = p->params.max_targets, q = (uint64_t)c->num_heads * c->head_dim;
    uint64_t kv = 2ull * c->num_kv_heads * c->head_dim, d = c->hidden_size, F = c->intermediate_size, at;
    put(a, s, SLOT_INPUTS, 0, "norm output", &p->norm_out, T, d);
    put(a, s, SLOT_INPUTS, 0, "SwiGLU output", &p->act, T, F);
    at = put(a, s, SLOT_INPUTS, 0, "target rows' outputs", &p->picked, n, d);
    put(a, s, SLOT_INPUTS, at, "their norm", &p->picked_norm, n, d);
    put(a, s, SLOT_WIDE, 0, "logits", &p->logits, p->params.max_slice, c->vocab_size);
    if (p->trained) {
        put(a, s, SLOT_GRADIENTS, 0, "gradient of norm outputs", &p->dnorm, T, d);
        put(a, s, SLOT_GRADIENTS, 0, "gradient of SwiGLU outputs", &p->dact, T, F);
        put(a, s, SLOT_GRADIENTS, 0, "gradient of target rows", &p->dpicked, n, d);
        put(a, s, SLOT_WIDE, 0, "gradient of gate and up", &p->dgu, T, 2 * F);
        at = put(a, s, SLOT_WIDE, 0, "gradient of attention outputs", &p->d_o, T, q);
        put(a, s, SLOT_WIDE, at, "gradient of queries, keys and values", &p->dqkv, T, q + kv);
    }
    ask_slots(a, s);
}

static void ask_scratch(struct asking *a, struct mosld_pass *p)
{
    const struct mosld_config *c = &p->model->config;
    const struct mosld_adapter *ad = p->adapter;
    uint64_t T = p->params.max_tokens, n = p->params.max_targets;
    ask(a, "tokens", &p->tokens, T, 1);
    ask(a, "positions", &p->pos, T, 1);
    ask(a, "segments", &p->seg, T, 4);
    ask(a, "target rows", &p->target_row, n, 1);
    ask(a, "targets", &p->target, n, 1);
    ask(a, "step", &p->step, STEP_WORDS, 1);
    ask(a, "losses", &p->loss, n, 2);
    lay_out_slots(a, p);
    ask(a, "z and its gradient", &p->z, T, z_words(p));
    if (p->params.cache_tokens)
        ask(a, "places in the cache", &p->where, p->first_table + (uint64_t)p->table_words * p->params.slots, 1);
    if (!p->trained)
        return;
    ask(a, "gradient of the residual", &p->dh, T, c->hidden_size);
    ask(a, "parts of sums", &p->parts, op_matmul_parts_bytes(p->model->dev) / 4, 1);
    ask(a, "gradient of u and l", &p->dul, T, (ad->max_rows + 3) & ~3u);
    if (ad->params.dropout_on == MOSLD_DROPOUT_INPUT && ad->params.dropout > 0)
        ask(a, "dropped input", &p->dropped, T, widest_input(c));
}

/* Which layers share buffers. */
static void choose_sharing(struct mosld_pass *p)
{
    uint32_t layers = p->model->config.num_layers;
    if (!p->params.trains || p->adapter->lowest_layer >= layers) {
        p->sharing = layers;
        return;
    }
    p->trained = layers - p->adapter->lowest_layer;
    if (p->params.recomputed >= p->trained)
        p->params.recomputed = p->trained - 1;
    p->sharing = p->adapter->lowest_layer + p->params.recomputed + 1;
}

/* Those that may run in generation get room for what it reads. */
static enum rt_status prepare_adapters(const struct mosld_pass *p, struct rt_error *err)
{
    for (uint32_t i = 0; i < p->params.n_adapters && p->params.cache_tokens; i++)
        RT_TRY(mosld_adapter_for_generation(p->params.adapters[i], err));
    return p->adapter && p->params.cache_tokens ? mosld_adapter_for_generation(p->adapter, err) : RT_OK;
}

enum rt_status mosld_pass_create(struct mosld_model *model, struct mosld_adapter *adapter, const struct mosld_pass_params *params,
                                 struct mosld_pass **out, struct rt_error *err)
{
    struct mosld_pass *p = *out = calloc(1, sizeof *p);
    if (!p)
        return rt_fail(err, RT_NO_MEMORY, "no memory for a pass");
    *p = (struct mosld_pass){.model = model, .adapter = adapter, .params = *params, .micro_steps = 1};
    p->params.slots = p->params.slots ? p->params.slots : 1;
    p->params.max_slice = slice_rows(p);
    p->layers = calloc(model->config.num_layers, sizeof *p->layers);
    p->slots = calloc(1, sizeof *p->slots);
    if (!p->layers || !p->slots)
        return rt_fail(err, RT_NO_MEMORY, "no memory for a pass");
    choose_sharing(p);
    RT_TRY(plan_cache(p, err));
    RT_TRY(prepare_adapters(p, err));
    struct asking asking = {.max_range = rt_device_info(model->dev)->limits.max_range, .err = err};
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
    if (st)
        return st;
    share_layers(p);
    cut_slots(p->slots);
    return RT_OK;
}

uint64_t mosld_pass_planned(const struct mosld_pass *p)
{
    return p ? rt_arena_planned(p->activations) + rt_arena_planned(p->scratch) : 0;
}

void mosld_pass_destroy(struct mosld_pass **pass)
{
    if (!pass || !*pass)
        return;
    rt_arena_destroy(&(*pass)->activations);
    rt_arena_destroy(&(*pass)->scratch);
    free((*pass)->layers);
    free((*pass)->slots);
    free((*pass)->tables);
    free((*pass)->table_changed);
    free(*pass);
    *pass = NULL;
}

uint32_t mosld_pass_slice(const struct mosld_pass *p) { return p->params.max_slice; }
