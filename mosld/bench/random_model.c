/* mosld/bench/random_model.c - a model of random weights: see shapes.h. */
#include "mosld/bench/shapes.h"

#include "mosld/io/dtype.h"
#include "mosld/ops/rope.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Shapes of a layer's linear modules, [out, in]. */
static void linear_shape(const struct mosld_config *c, int linear, uint32_t *out, uint32_t *in)
{
    uint32_t q = c->num_heads * c->head_dim, kv = c->num_kv_heads * c->head_dim, d = c->hidden_size,
             F = c->intermediate_size;
    const uint32_t shapes[MOSLD_LINEARS][2] = {{q, d}, {kv, d}, {kv, d}, {d, q}, {F, d}, {F, d}, {d, F}};
    *out = shapes[linear][0];
    *in = shapes[linear][1];
}

/* ---- layout ---- */

static enum rt_status plan_matrix(struct mosld_model *m, enum op_wtype type, uint32_t rows, uint32_t cols,
                                  struct op_weight *w, struct rt_error *err)
{
    if (op_weight_bytes(type, rows, cols) == 0)
        return rt_fail(err, RT_USAGE, "weights: rows of %u values are no whole blocks of %s", cols,
                       op_wtype_name(type));
    m->parameters += (uint64_t)rows * cols;
    return op_weight_plan(m->dev, m->arena, type, rows, cols, "weights", w, err);
}

static enum rt_status plan_vector(struct mosld_model *m, uint32_t n, struct rt_span *out, struct rt_error *err)
{
    m->parameters += n;
    return rt_arena_add(m->arena, 4ull * n, "weights", out, err);
}

static enum rt_status plan_layer(struct mosld_model *m, enum op_wtype type, uint32_t l, struct rt_error *err)
{
    const struct mosld_config *c = &m->config;
    struct mosld_layer *layer = &m->layers[l];
    snprintf(layer->forward_label, sizeof layer->forward_label, "layer %u forward", l);
    snprintf(layer->backward_label, sizeof layer->backward_label, "layer %u backward", l);
    for (int i = 0; i < MOSLD_LINEARS; i++) {
        uint32_t out, in;
        linear_shape(c, i, &out, &in);
        RT_TRY(plan_matrix(m, type, out, in, &layer->linear[i], err));
        if (i <= MOSLD_V && c->qkv_bias)
            RT_TRY(plan_vector(m, out, &layer->bias[i], err));
    }
    RT_TRY(plan_vector(m, c->hidden_size, &layer->input_norm, err));
    RT_TRY(plan_vector(m, c->hidden_size, &layer->post_norm, err));
    if (!c->qk_norm)
        return RT_OK;
    RT_TRY(plan_vector(m, c->head_dim, &layer->q_norm, err));
    return plan_vector(m, c->head_dim, &layer->k_norm, err);
}

static enum rt_status plan(struct mosld_model *m, enum op_wtype type, struct rt_error *err)
{
    const struct mosld_config *c = &m->config;
    RT_TRY(rt_arena_create(m->dev, "weights", &m->arena, err));
    RT_TRY(plan_matrix(m, type, c->vocab_size, c->hidden_size, &m->embed, err));
    for (uint32_t l = 0; l < c->num_layers; l++)
        RT_TRY(plan_layer(m, type, l, err));
    RT_TRY(plan_vector(m, c->hidden_size, &m->norm, err));
    if (!c->tie_word_embeddings)
        RT_TRY(plan_matrix(m, type, c->vocab_size, c->hidden_size, &m->head, err));
    return rt_arena_add(m->arena, 4ull * m->positions * c->head_dim, "RoPE table", &m->rope_table, err);
}

/* ---- numbers ---- */

static uint64_t next(uint64_t *state) /* splitmix64 (public domain, S. Vigna): fast, and any seed will do */
{
    uint64_t z = *state += 0x9e3779b97f4a7c15ull;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ z >> 27) * 0x94d049bb133111ebull;
    return z ^ z >> 31;
}

/* About normal: the sum of four 16-bit numbers. */
static float draw(uint64_t *state, float deviation)
{
    uint64_t z = next(state);
    float sum = (float)((z & 65535) + (z >> 16 & 65535) + (z >> 32 & 65535) + (z >> 48));
    return (sum - 2 * 65535.0f) * deviation * (1.7320508f / 65535.0f);
}

static void put_half(uint8_t *at, float value)
{
    uint16_t half = dtype_f32_to_f16(value);
    memcpy(at, &half, 2);
}

/* Blocks of 32 values as GGUF has them: random quants under scales that give a deviation of about 0.02. */
static void draw_blocks(enum op_wtype type, uint64_t blocks, uint64_t *state, uint8_t *raw)
{
    uint32_t head = type == OP_W_Q4_1 ? 4 : 2, quants = type == OP_W_Q8_0 ? 32 : 16;
    for (uint64_t b = 0; b < blocks; b++, raw += head + quants) {
        put_half(raw, type == OP_W_Q8_0 ? 0.02f / 74 : 0.02f / 4.6f);
        if (type == OP_W_Q4_1)
            put_half(raw + 2, -7.5f * 0.02f / 4.6f);
        for (uint32_t i = 0; i < quants; i += 8) {
            uint64_t z = next(state);
            memcpy(raw + head + i, &z, 8);
        }
    }
}

static void draw_rows(enum op_wtype type, uint64_t n, uint64_t *state, void *raw)
{
    float *floats = raw;
    uint16_t *halves = raw;
    if (type == OP_W_F32)
        for (uint64_t i = 0; i < n; i++)
            floats[i] = draw(state, 0.02f);
    else if (type == OP_W_F16 || type == OP_W_BF16)
        for (uint64_t i = 0; i < n; i++)
            halves[i] = type == OP_W_F16 ? dtype_f32_to_f16(draw(state, 0.02f)) : dtype_f32_to_bf16(draw(state, 0.02f));
    else
        draw_blocks(type, n / 32, state, raw);
}

static uint64_t raw_bytes(enum op_wtype type, uint64_t n)
{
    static const uint32_t block[OP_W_TYPES] = {128, 64, 64, 34, 18, 20}; /* of 32 values */
    return (n + 31) / 32 * block[type];
}

static enum rt_status fill_matrix(struct mosld_model *m, const struct op_weight *w, uint64_t *state,
                                  struct rt_error *err)
{
    enum rt_status st = RT_OK;
    for (uint32_t i = 0; i < w->n_chunks && !st; i++) {
        const struct op_weight_chunk *c = op_weight_chunk(w, i);
        uint64_t n = (uint64_t)c->rows * w->cols, bytes = op_weight_bytes(w->type, c->rows, w->cols);
        void *raw = malloc(raw_bytes(w->type, n)), *packed = malloc(bytes);
        if (raw && packed) {
            draw_rows(w->type, n, state, raw);
            op_weight_pack(w->type, c->rows, w->cols, raw, packed);
            st = rt_upload(m->dev, c->span, 0, packed, bytes, err);
        } else
            st = rt_fail(err, RT_NO_MEMORY, "no memory for random weights");
        free(raw);
        free(packed);
    }
    return st;
}

static enum rt_status fill_ones(struct mosld_model *m, struct rt_span span, struct rt_error *err)
{
    return span.buffer ? rt_fill(m->dev, span, 0x3f800000, err) : RT_OK; /* the bits of 1.0f */
}

static enum rt_status fill_rope(struct mosld_model *m, struct rt_error *err)
{
    uint32_t half = m->config.head_dim / 2;
    float *table = malloc(8ull * m->positions * half);
    double inv_freq[MOSLD_MAX_HEAD_DIM / 2];
    if (!table)
        return rt_fail(err, RT_NO_MEMORY, "no memory for the RoPE table");
    mosld_config_inv_freq(&m->config, inv_freq);
    op_rope_table(inv_freq, m->positions, m->config.head_dim, table);
    enum rt_status st = rt_upload(m->dev, m->rope_table, 0, table, 8ull * m->positions * half, err);
    free(table);
    return st;
}

static enum rt_status fill(struct mosld_model *m, struct rt_error *err)
{
    uint64_t state = 1;
    RT_TRY(fill_matrix(m, &m->embed, &state, err));
    for (uint32_t l = 0; l < m->config.num_layers; l++) {
        struct mosld_layer *layer = &m->layers[l];
        for (int i = 0; i < MOSLD_LINEARS; i++)
            RT_TRY(fill_matrix(m, &layer->linear[i], &state, err));
        RT_TRY(fill_ones(m, layer->input_norm, err));
        RT_TRY(fill_ones(m, layer->post_norm, err));
        RT_TRY(fill_ones(m, layer->q_norm, err));
        RT_TRY(fill_ones(m, layer->k_norm, err));
    }
    RT_TRY(fill_ones(m, m->norm, err));
    if (m->config.tie_word_embeddings)
        m->head = m->embed;
    else
        RT_TRY(fill_matrix(m, &m->head, &state, err));
    return fill_rope(m, err);
}

enum rt_status mosld_random_model(struct rt_device *dev, const struct mosld_config *config, enum op_wtype type,
                                  uint32_t positions, struct mosld_model **out, struct rt_error *err)
{
    struct mosld_model *m = *out = calloc(1, sizeof *m);
    if (!m)
        return rt_fail(err, RT_NO_MEMORY, "no memory for the model");
    *m = (struct mosld_model){.config = *config, .dev = dev, .positions = positions};
    m->layers = calloc(config->num_layers, sizeof *m->layers);
    if (!m->layers)
        return rt_fail(err, RT_NO_MEMORY, "no memory for the model");
    if (positions > config->max_positions)
        return rt_fail(err, RT_USAGE, "tokens: a row of %u tokens is more than the model's %u positions", positions,
                       config->max_positions);
    RT_TRY(plan(m, type, err));
    RT_TRY(rt_arena_commit(m->arena, err));
    return fill(m, err);
}
