/* mosld/adapter/adapter.c - layout, memory and start values: see adapter.h. */
#include "mosld/adapter/adapter.h"

#include "mosld/ops/mixture.h"
#include "shaders/dropout_stacks.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const struct {
    int group;
    int n;
    enum mosld_linear linears[3];
} group_of[MOSLD_GROUPS] = {
    {MOSLD_GROUP_QKV, 3, {MOSLD_Q, MOSLD_K, MOSLD_V}},
    {MOSLD_GROUP_O, 1, {MOSLD_O}},
    {MOSLD_GROUP_GATE_UP, 2, {MOSLD_GATE, MOSLD_UP}},
    {MOSLD_GROUP_DOWN, 1, {MOSLD_DOWN}},
};

void mosld_linear_shape(const struct mosld_config *c, enum mosld_linear linear, uint32_t *d_in, uint32_t *d_out)
{
    uint32_t q = c->num_heads * c->head_dim, kv = c->num_kv_heads * c->head_dim;
    *d_in = linear == MOSLD_O ? q : linear == MOSLD_DOWN ? c->intermediate_size : c->hidden_size;
    switch (linear) {
    case MOSLD_Q: *d_out = q; break;
    case MOSLD_K: case MOSLD_V: *d_out = kv; break;
    case MOSLD_GATE: case MOSLD_UP: *d_out = c->intermediate_size; break;
    default: *d_out = c->hidden_size; break;
    }
}

static uint64_t align64(uint64_t words) { return (words + 63) & ~(uint64_t)63; }

/* One group of one layer: its modules, the stack, then their Bcat. */
static void lay_out_group(struct mosld_adapter *a, const struct mosld_config *c, uint32_t layer, int g)
{
    struct mosld_adapter_group *group = &a->groups[layer][g];
    uint32_t experts = mosld_experts_of_layer(&a->params, layer, a->layers);
    for (int i = 0; i < group_of[g].n; i++) {
        enum mosld_linear linear = group_of[g].linears[i];
        uint32_t r = mosld_module_rank(&a->params, layer, linear);
        if (!r)
            continue;
        struct mosld_adapter_module *m = &a->modules[a->n_modules];
        *m = (struct mosld_adapter_module){.group = group,
                                           .layer = layer,
                                           .linear = linear,
                                           .index = a->n_modules++,
                                           .r = r,
                                           .scale = mosld_module_scale(&a->params, layer, linear),
                                           .experts = experts,
                                           .row = group->rows};
        mosld_linear_shape(c, linear, &m->d_in, &m->d_out);
        group->d_in = m->d_in;
        group->rows += m->r + (experts > 1 ? experts : 0);
        group->modules[group->n_modules++] = m;
        a->parameters += (uint64_t)m->r * m->d_in + (experts > 1 ? (uint64_t)experts * m->d_in : 0) +
                         (uint64_t)m->d_out * experts * m->r;
        if (layer < a->lowest_layer)
            a->lowest_layer = layer;
    }
    if (group->rows > a->max_rows)
        a->max_rows = group->rows;
    group->offset = a->words;
    group->masked_offset = a->masked_words;
    a->words += align64((uint64_t)group->rows * group->d_in);
    a->masked_words += align64((uint64_t)group->rows * group->d_in);
    for (uint32_t i = 0; i < group->n_modules; i++) {
        struct mosld_adapter_module *m = group->modules[i];
        m->b_offset = a->words;
        a->words += align64((uint64_t)m->d_out * m->experts * m->r);
    }
}

static enum rt_status ask_for_memory(struct mosld_adapter *a, struct rt_error *err)
{
    bool masked = a->trains && a->params.dropout_on == MOSLD_DROPOUT_A && (a->params.dropout > 0 || a->given_mask);
    enum rt_status st = rt_arena_create(a->dev, "adapter", &a->arena, err);
    if (!st)
        st = rt_arena_add(a->arena, a->words * 4, "adapter values", &a->values, err);
    if (!st && a->trains)
        st = rt_arena_add(a->arena, a->words * 4, "adapter gradients", &a->gradient, err);
    if (!st && a->trains)
        st = rt_arena_add(a->arena, a->words * 8, "optimizer state", &a->moments, err);
    if (!st && masked)
        st = rt_arena_add(a->arena, a->masked_words * 4, "dropped A", &a->masked, err);
    if (!st && masked)
        st = rt_arena_add(a->arena, (uint64_t)a->n_modules * DROPOUT_ENTRY * 4, "places of dropped A", &a->masked_table, err);
    if (!st && a->given_mask)
        st = rt_arena_add(a->arena, a->masked_words * 4, "dropout masks", &a->mask, err);
    if (!st)
        st = rt_arena_add(a->arena, (uint64_t)a->n_modules * 2 * a->max_experts * 4, "router statistics", &a->stats,
                          err);
    return st;
}

enum rt_status mosld_adapter_create(struct rt_device *dev, const struct mosld_config *config,
                                    const struct mosld_adapter_params *params, bool trains, bool given_mask,
                                    struct mosld_adapter **out, struct rt_error *err)
{
    struct mosld_adapter *a = *out = calloc(1, sizeof *a);
    if (!a)
        return rt_fail(err, RT_NO_MEMORY, "no memory for the adapter");
    *a = (struct mosld_adapter){.params = *params,
                                .dev = dev,
                                .layers = config->num_layers,
                                .lowest_layer = config->num_layers,
                                .trains = trains,
                                .given_mask = given_mask};
    enum rt_status st = mosld_adapter_params_check(&a->params, err);
    if (st)
        return st;
    a->groups = calloc(a->layers, sizeof *a->groups);
    a->modules = calloc((size_t)a->layers * MOSLD_LINEARS, sizeof *a->modules);
    if (!a->groups || !a->modules)
        return rt_fail(err, RT_NO_MEMORY, "no memory for the adapter");
    for (uint32_t layer = 0; layer < a->layers; layer++)
        for (int g = 0; g < MOSLD_GROUPS; g++)
            lay_out_group(a, config, layer, g);
    if (!a->n_modules)
        return rt_fail(err, RT_BAD_FILE, "adapter_config.json: the adapter's target modules are in none of the model's %u layers", a->layers);
    for (uint32_t i = 0; i < a->n_modules; i++)
        if (a->modules[i].experts > a->max_experts)
            a->max_experts = a->modules[i].experts;
    if (a->words > UINT32_MAX / 2)
        return rt_fail(err, RT_USAGE,
                       "the adapter would have %.1f billion numbers: lower r, num_experts or target_modules",
                       (double)a->words / 1e9);
    return ask_for_memory(a, err);
}

/* For op_dropout_stacks. */
static enum rt_status write_table(struct mosld_adapter *a, struct rt_error *err)
{
    uint32_t(*table)[DROPOUT_ENTRY] = calloc(a->n_modules, sizeof *table);
    if (!table)
        return rt_fail(err, RT_NO_MEMORY, "no memory for the adapter");
    for (uint32_t i = 0; i < a->n_modules; i++) {
        const struct mosld_adapter_module *m = &a->modules[i];
        uint32_t rows = m->r + (m->experts > 1 ? m->experts : 0), skip = m->row * m->d_in; /* all below `words`, which 31 bits hold */
        table[i][DROPOUT_FLAT] = (uint32_t)m->group->offset + skip;
        table[i][DROPOUT_STACKED] = (uint32_t)m->group->masked_offset + skip;
        table[i][DROPOUT_N] = rows * m->d_in;
        table[i][DROPOUT_DROPPED] = m->r * m->d_in;
        table[i][DROPOUT_LAYER] = m->layer;
        table[i][DROPOUT_MODULE] = (uint32_t)m->linear;
        a->masked_longest = rows * m->d_in > a->masked_longest ? rows * m->d_in : a->masked_longest;
    }
    enum rt_status st = rt_upload(a->dev, a->masked_table, 0, table, a->n_modules * sizeof *table, err);
    free(table);
    return st;
}

enum rt_status mosld_adapter_commit(struct mosld_adapter *adapter, struct rt_error *err)
{
    RT_TRY(rt_arena_commit(adapter->arena, err));
    return adapter->masked.buffer ? write_table(adapter, err) : RT_OK;
}

void mosld_adapter_destroy(struct mosld_adapter **adapter)
{
    if (!adapter || !*adapter)
        return;
    rt_arena_destroy(&(*adapter)->arena);
    free((*adapter)->groups);
    free((*adapter)->modules);
    free(*adapter);
    *adapter = NULL;
}

/* ---- start values ---- */

enum { DRAW_A = 2, DRAW_ROUTER = 3 }; /* the counter's last word; 0 and 1 are the dropout masks */

/* A uniform in [0, 1) for each element, from its own place in the Philox stream. */
static double draw(const struct mosld_adapter *a, const struct mosld_adapter_module *m, uint32_t what, uint64_t element)
{
    const uint32_t key[2] = {(uint32_t)a->params.seed, (uint32_t)(a->params.seed >> 32)};
    const uint32_t counter[4] = {(uint32_t)(element / 4), (uint32_t)m->linear, m->layer, what};
    uint32_t out[4];
    mosld_philox(counter, key, out);
    return out[element % 4] / 4294967296.0;
}

static double draw_normal(const struct mosld_adapter *a, const struct mosld_adapter_module *m, uint32_t what,
                          uint64_t element)
{
    double u = 1 - draw(a, m, what, 2 * element), v = draw(a, m, what, 2 * element + 1); /* u in (0, 1] */
    return sqrt(-2 * log(u)) * cos(6.283185307179586 * v);
}

enum rt_status mosld_adapter_init(struct mosld_adapter *a, struct rt_error *err)
{
    float *values = calloc(a->words ? a->words : 1, sizeof *values);
    if (!values)
        return rt_fail(err, RT_NO_MEMORY, "no memory for the adapter's start values");
    for (uint32_t i = 0; i < a->n_modules; i++) {
        const struct mosld_adapter_module *m = &a->modules[i];
        float *A = values + m->group->offset + (uint64_t)m->row * m->d_in;
        uint64_t n = (uint64_t)m->r * m->d_in;
        double bound = 1 / sqrt((double)m->d_in); /* sqrt(6 / ((1 + 5) d_in)) */
        for (uint64_t e = 0; e < n; e++)
            A[e] =
                (float)(a->params.init_lora_weights == MOSLD_INIT_GAUSSIAN ? draw_normal(a, m, DRAW_A, e) / m->r
                                                                           : bound * (2 * draw(a, m, DRAW_A, e) - 1));
        for (uint64_t e = 0; m->experts > 1 && e < (uint64_t)m->experts * m->d_in; e++)
            A[n + e] = (float)(0.02 * draw_normal(a, m, DRAW_ROUTER, e));
    }
    enum rt_status st = rt_upload(a->dev, a->values, 0, values, a->words * 4, err);
    a->is_transposed = false;
    free(values);
    return st;
}

/* ---- views ---- */

struct rt_span mosld_adapter_part(struct rt_span vector, uint64_t offset, uint64_t count)
{
    return rt_span_part(vector, offset * 4, count * 4);
}

struct op_weight mosld_adapter_stack(const struct mosld_adapter *a, const struct mosld_adapter_group *g, bool masked)
{
    uint64_t n = (uint64_t)g->rows * g->d_in;
    return op_weight_f32(masked ? mosld_adapter_part(a->masked, g->masked_offset, n)
                                : mosld_adapter_part(a->values, g->offset, n),
                         g->rows, g->d_in);
}

struct op_weight mosld_adapter_b(const struct mosld_adapter *a, const struct mosld_adapter_module *m)
{
    return op_weight_f32(mosld_adapter_part(a->values, m->b_offset, (uint64_t)m->d_out * m->experts * m->r), m->d_out,
                         m->experts * m->r);
}

static struct op_weight stack_rows(const struct mosld_adapter *a, const struct mosld_adapter_module *m, uint32_t row,
                                   uint32_t rows)
{
    const struct mosld_adapter_group *g = m->group;
    struct op_weight w =
        op_weight_f32(mosld_adapter_part(a->values, g->offset, (uint64_t)g->rows * g->d_in), rows, g->d_in);
    w.offset = row * g->d_in;
    return w;
}

struct op_weight mosld_adapter_a(const struct mosld_adapter *a, const struct mosld_adapter_module *m)
{
    return stack_rows(a, m, m->row, m->r);
}

struct op_weight mosld_adapter_router(const struct mosld_adapter *a, const struct mosld_adapter_module *m)
{
    return stack_rows(a, m, m->row + m->r, m->experts);
}

bool mosld_module_balances(const struct mosld_adapter *a, const struct mosld_adapter_module *m)
{
    return m->experts > 1 && a->params.top_k < m->experts && a->params.router_aux_loss_coef > 0;
}

uint32_t mosld_adapter_routers(const struct mosld_adapter *a)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < a->n_modules; i++)
        n += mosld_module_balances(a, &a->modules[i]);
    return n;
}

uint32_t mosld_group_stride(const struct mosld_adapter_group *g) { return (g->rows + 3) & ~3u; }
