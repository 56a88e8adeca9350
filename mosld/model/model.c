/* mosld/model/model.c - weights onto the device: see model.h. */
#include "mosld/model/model.h"

#include "mosld/model/model_file.h"
#include "mosld/ops/rope.h"

#include <stdio.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

/* ---- layout ---- */

/* The file's types that stay as they are, in the order of enum op_wtype. */
static const enum dtype file_types[OP_W_TYPES] = {
    DTYPE_F32,  DTYPE_F16,    DTYPE_BF16, DTYPE_Q8_0, DTYPE_Q4_0, DTYPE_Q4_1, DTYPE_Q5_0,
    DTYPE_Q5_1, DTYPE_IQ4_NL, DTYPE_Q2_K, DTYPE_Q3_K, DTYPE_Q4_K, DTYPE_Q5_K, DTYPE_Q6_K,
};

static enum dtype file_type_of(enum op_wtype type) { return file_types[type]; }

static enum op_wtype type_on_device(enum dtype dtype, int weights)
{
    if (weights != MOSLD_WEIGHTS_AS_FILE)
        return (enum op_wtype)weights;
    for (int i = 0; i < OP_W_TYPES; i++)
        if (file_types[i] == dtype)
            return (enum op_wtype)i;
    return OP_W_F32;
}

static enum rt_status plan_matrix(struct mosld_model *m, const struct mosld_model_file *file, const char *name, int weights,
                                  struct op_weight *out, struct rt_error *err)
{
    const struct mosld_weight *w = mosld_model_file_find(file, name);
    if (!w)
        return rt_fail(err, RT_BAD_FILE, "%s: tensor %s is missing", mosld_model_file_path(file), name);
    m->parameters += (uint64_t)w->rows * w->cols;
    enum op_wtype type = type_on_device(w->dtype, weights);
    if (w->cols % op_wtype_block(type))
        return rt_fail(err, RT_USAGE, "weights: %s has rows of %u numbers, which do not fill the blocks of %u of this type: choose f16, bf16 or f32",
                       name, w->cols, op_wtype_block(type));
    return op_weight_plan(m->dev, m->arena, type, w->rows, w->cols, name, out, err);
}

/* A bias or a norm, always f32; a null span where the model has none. */
static enum rt_status plan_vector(struct mosld_model *m, const struct mosld_model_file *file, const char *name, struct rt_span *out,
                                  struct rt_error *err)
{
    const struct mosld_weight *w = mosld_model_file_find(file, name);
    *out = (struct rt_span){0};
    if (!w)
        return RT_OK;
    m->parameters += w->cols;
    return rt_arena_add(m->arena, 4ull * w->cols, name, out, err);
}

/* Where each vector of a layer stands, and its name behind "model.layers.N.". */
static const struct {
    size_t offset;
    const char *name;
} vectors[] = {
    {offsetof(struct mosld_layer, input_norm), "input_layernorm.weight"},
    {offsetof(struct mosld_layer, post_norm), "post_attention_layernorm.weight"},
    {offsetof(struct mosld_layer, q_norm), "self_attn.q_norm.weight"},
    {offsetof(struct mosld_layer, k_norm), "self_attn.k_norm.weight"},
    {offsetof(struct mosld_layer, bias) + 0 * sizeof(struct rt_span), "self_attn.q_proj.bias"},
    {offsetof(struct mosld_layer, bias) + 1 * sizeof(struct rt_span), "self_attn.k_proj.bias"},
    {offsetof(struct mosld_layer, bias) + 2 * sizeof(struct rt_span), "self_attn.v_proj.bias"},
};
#define N_VECTORS (sizeof vectors / sizeof *vectors)

static struct rt_span *vector_of(struct mosld_layer *layer, size_t i) { return (struct rt_span *)((char *)layer + vectors[i].offset); }

static void layer_tensor(char name[96], uint32_t layer, const char *what) { snprintf(name, 96, "model.layers.%u.%s", layer, what); }

static void linear_tensor(char name[96], uint32_t layer, int linear)
{
    snprintf(name, 96, "model.layers.%u.%s.weight", layer, mosld_linear_paths[linear]);
}

static enum rt_status plan_layer(struct mosld_model *m, const struct mosld_model_file *file, uint32_t l, int weights, struct rt_error *err)
{
    struct mosld_layer *layer = &m->layers[l];
    char name[96];
    snprintf(layer->forward_label, sizeof layer->forward_label, "layer %u forward", l);
    snprintf(layer->backward_label, sizeof layer->backward_label, "layer %u backward", l);
    for (int i = 0; i < MOSLD_LINEARS; i++) {
        linear_tensor(name, l, i);
        RT_TRY(plan_matrix(m, file, name, weights, &layer->linear[i], err));
    }
    for (size_t i = 0; i < N_VECTORS; i++) {
        layer_tensor(name, l, vectors[i].name);
        RT_TRY(plan_vector(m, file, name, vector_of(layer, i), err));
    }
    return RT_OK;
}

enum rt_status mosld_model_create(struct rt_device *dev, const struct mosld_model_file *file, uint32_t positions, int weights,
                                  struct mosld_model **out, struct rt_error *err)
{
    struct mosld_model *m = *out = calloc(1, sizeof *m);
    if (!m)
        return rt_fail(err, RT_NO_MEMORY, "no memory for the model");
    m->config = *mosld_model_file_config(file);
    m->dev = dev;
    m->positions = positions;
    if (positions > mosld_config_longest(&m->config))
        return rt_fail(err, RT_USAGE, "%u positions were asked for and %s has %u%s", positions, mosld_model_file_path(file),
                       mosld_config_longest(&m->config), m->config.sliding_window ? " (its sliding window, which not all layers have)" : "");
    m->layers = calloc(m->config.num_layers, sizeof *m->layers);
    if (!m->layers)
        return rt_fail(err, RT_NO_MEMORY, "no memory for the model");
    RT_TRY(rt_arena_create(dev, "weights", &m->arena, err));
    RT_TRY(plan_matrix(m, file, "model.embed_tokens.weight", weights, &m->embed, err));
    for (uint32_t l = 0; l < m->config.num_layers; l++)
        RT_TRY(plan_layer(m, file, l, weights, err));
    RT_TRY(plan_vector(m, file, "model.norm.weight", &m->norm, err));
    if (!m->config.tie_word_embeddings)
        RT_TRY(plan_matrix(m, file, "lm_head.weight", weights, &m->head, err));
    return rt_arena_add(m->arena, 4ull * positions * m->config.head_dim, "RoPE table", &m->rope_table, err);
}

uint32_t mosld_model_wtypes(const struct mosld_model *m)
{
    uint32_t types = 1u << OP_W_F32 | 1u << m->embed.type;
    if (!m->config.tie_word_embeddings)
        types |= 1u << m->head.type;
    for (uint32_t l = 0; l < m->config.num_layers; l++)
        for (int i = 0; i < MOSLD_LINEARS; i++)
            types |= 1u << m->layers[l].linear[i].type;
    return types;
}

void mosld_model_destroy(struct mosld_model **model)
{
    if (!model || !*model)
        return;
    struct mosld_model *m = *model;
    rt_arena_destroy(&m->arena);
    op_weight_finish(&m->embed);
    if (!m->config.tie_word_embeddings)
        op_weight_finish(&m->head);
    for (uint32_t l = 0; m->layers && l < m->config.num_layers; l++)
        for (int i = 0; i < MOSLD_LINEARS; i++)
            op_weight_finish(&m->layers[l].linear[i]);
    free(m->layers);
    free(m);
    *model = NULL;
}

/* ---- loading ---- */

/* Rows of a chunk as raw blocks of the device's type. */
static enum rt_status read_rows(const struct mosld_model_file *file, const struct mosld_weight *w, enum op_wtype type, uint32_t row0,
                                uint32_t rows, void *raw, struct rt_error *err)
{
    if (w->dtype == file_type_of(type))
        return mosld_weight_rows(file, w, row0, rows, raw, err);
    uint64_t n = (uint64_t)rows * w->cols;
    float *values = malloc(n * 4);
    if (!values)
        return rt_fail(err, RT_NO_MEMORY, "no memory to convert %s", w->name);
    enum rt_status st = mosld_weight_rows_f32(file, w, row0, rows, values, err);
    if (!st && !dtype_from_f32(file_type_of(type), values, n, raw)) /* the caller has seen that rows fill blocks */
        st = rt_fail(err, RT_BAD_FILE, "%s: cannot be converted to %s", w->name, dtype_name(file_type_of(type)));
    free(values);
    return st;
}

#define SLICE_BYTES (4u << 20) /* of the file that is read at a time: it stays in the caches until it is where it belongs */

/* A chunk on its way: read a slice of rows, packed, put into its place in the device's memory, or sent there while the next is read. */
struct loading {
    struct rt_device *dev;
    const struct mosld_model_file *file;
    const struct mosld_weight *w;
    const struct op_weight *to;
    const struct op_weight_chunk *chunk;
    unsigned char *in_place; /* NULL: by upload */
    unsigned char *raw, *packed;
};

static enum rt_status put(struct loading *l, uint64_t offset, const void *data, uint64_t bytes, struct rt_error *err)
{
    if (!l->in_place)
        return rt_upload(l->dev, l->chunk->span, offset, data, bytes, err);
    memcpy(l->in_place + offset, data, bytes);
    return RT_OK;
}

static enum rt_status load_slice(struct loading *l, uint32_t row0, uint32_t n, struct rt_error *err)
{
    enum op_wtype type = l->to->type;
    uint32_t cols = l->to->cols;
    struct op_weight_part at = op_weight_part(type, l->chunk->rows, cols, row0, n), from = op_weight_part(type, n, cols, 0, n);
    RT_TRY(read_rows(l->file, l->w, type, l->chunk->row0 + row0, n, l->raw, err));
    op_weight_pack(type, n, cols, l->raw, l->packed);
    RT_TRY(put(l, at.quants, l->packed, at.quant_bytes, err));
    return at.scale_bytes ? put(l, at.scales, l->packed + from.scales, at.scale_bytes, err) : RT_OK;
}

static enum rt_status load_chunk(struct loading *l, uint32_t slice, struct rt_error *err)
{
    void *at;
    RT_TRY(rt_write_begin(l->dev, l->chunk->span, &at, err));
    l->in_place = at;
    for (uint32_t row0 = 0; row0 < l->chunk->rows; row0 += slice)
        RT_TRY(load_slice(l, row0, l->chunk->rows - row0 < slice ? l->chunk->rows - row0 : slice, err));
    return at ? rt_write_end(l->dev, l->chunk->span, err) : RT_OK;
}

static enum rt_status load_matrix(struct mosld_model *m, const struct mosld_model_file *file, const char *name, const struct op_weight *to,
                                  struct rt_error *err)
{
    struct loading l = {.dev = m->dev, .file = file, .w = mosld_model_file_find(file, name), .to = to};
    uint64_t row_bytes;
    if (!dtype_bytes(file_type_of(to->type), to->cols, &row_bytes))
        return rt_fail(err, RT_BAD_FILE, "%s: tensor %s: %u columns do not fill blocks of %s", l.w->name, name, to->cols,
                       dtype_name(file_type_of(to->type)));
    uint64_t rows = SLICE_BYTES / row_bytes & ~1ull; /* even: see op_weight_part */
    uint32_t slice = rows < 2 ? 2 : rows < to->rows ? (uint32_t)rows : to->rows + to->rows % 2;
    l.raw = malloc(slice * row_bytes);
    l.packed = malloc(op_weight_bytes(to->type, slice, to->cols));
    enum rt_status st = l.raw && l.packed ? RT_OK : rt_fail(err, RT_NO_MEMORY, "no memory to load %s", name);
    for (uint32_t i = 0; i < to->n_chunks && !st; i++) {
        l.chunk = op_weight_chunk(to, i);
        st = load_chunk(&l, slice, err);
    }
    free(l.raw);
    free(l.packed);
    mosld_weight_forget(l.w);
    return st;
}

static enum rt_status load_vector(struct mosld_model *m, const struct mosld_model_file *file, const char *name, struct rt_span to,
                                  struct rt_error *err)
{
    const struct mosld_weight *w = mosld_model_file_find(file, name);
    if (!w)
        return RT_OK;
    float *values = malloc(4ull * w->cols);
    if (!values)
        return rt_fail(err, RT_NO_MEMORY, "no memory to load %s", name);
    enum rt_status st = mosld_weight_rows_f32(file, w, 0, 1, values, err);
    if (!st)
        st = rt_upload(m->dev, to, 0, values, 4ull * w->cols, err);
    free(values);
    return st;
}

/* Cosines and sines in double: a device's own may be off by 2^-11. */
static enum rt_status make_rope_table(struct mosld_model *m, struct rt_error *err)
{
    uint32_t half = m->config.head_dim / 2;
    float *table = malloc(8ull * m->positions * half);
    double *inv_freq = malloc(half * sizeof *inv_freq);
    enum rt_status st = table && inv_freq ? RT_OK : rt_fail(err, RT_NO_MEMORY, "no memory for the RoPE table");
    if (!st) {
        mosld_config_inv_freq(&m->config, inv_freq);
        op_rope_table(inv_freq, m->positions, m->config.head_dim, table);
        st = rt_upload(m->dev, m->rope_table, 0, table, 8ull * m->positions * half, err);
    }
    free(table);
    free(inv_freq);
    return st;
}

enum rt_status mosld_model_load(struct mosld_model *m, const struct mosld_model_file *file, struct rt_error *err)
{
    char name[96];
    RT_TRY(rt_arena_commit(m->arena, err));
    RT_TRY(load_matrix(m, file, "model.embed_tokens.weight", &m->embed, err));
    for (uint32_t l = 0; l < m->config.num_layers; l++) {
        for (int i = 0; i < MOSLD_LINEARS; i++) {
            linear_tensor(name, l, i);
            RT_TRY(load_matrix(m, file, name, &m->layers[l].linear[i], err));
        }
        for (size_t i = 0; i < N_VECTORS; i++) {
            layer_tensor(name, l, vectors[i].name);
            RT_TRY(load_vector(m, file, name, *vector_of(&m->layers[l], i), err));
        }
    }
    RT_TRY(load_vector(m, file, "model.norm.weight", m->norm, err));
    if (m->config.tie_word_embeddings)
        m->head = m->embed;
    else
        RT_TRY(load_matrix(m, file, "lm_head.weight", &m->head, err));
    return make_rope_table(m, err);
}
