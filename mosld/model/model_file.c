/* mosld/model/model_file.c - opens a model and finds its weights; see model_file.h.
 *
 * One table says which tensors a layer has, under which names and with which shapes. The list of weights is made from
 * it and the config; each is then looked up in the file, and what the file has beyond the list is an error. */
#include "mosld/model/model_file.h"

#include "mosld/io/file.h"
#include "mosld/io/gguf.h"
#include "mosld/io/safetensors.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct mosld_model_file {
    char *path;
    struct mosld_config config;
    struct gguf *gguf;         /* one of these; neither: the config alone */
    struct safetensors *shards;
    struct mosld_weight *weights;
    uint32_t n_weights;
    uint32_t *by_name; /* indices of weights, sorted */
};

/* ---- which weights there are ---- */

enum size { SIZE_ONE, SIZE_HIDDEN, SIZE_Q, SIZE_KV, SIZE_FFN, SIZE_HEAD, SIZE_VOCAB };
enum when { ALWAYS, WITH_BIAS, WITH_QK_NORM, UNTIED };

struct slot {
    const char *hf, *gguf; /* behind "model.layers.N." and "blk.N." in a layer */
    enum size rows, cols;  /* SIZE_ONE: a vector */
    enum when when;
    bool rope;             /* rows that llama's GGUF permutes */
};

static const struct slot layer_slots[] = {
    {"input_layernorm.weight", "attn_norm.weight", SIZE_ONE, SIZE_HIDDEN, ALWAYS, false},
    {"self_attn.q_proj.weight", "attn_q.weight", SIZE_Q, SIZE_HIDDEN, ALWAYS, true},
    {"self_attn.k_proj.weight", "attn_k.weight", SIZE_KV, SIZE_HIDDEN, ALWAYS, true},
    {"self_attn.v_proj.weight", "attn_v.weight", SIZE_KV, SIZE_HIDDEN, ALWAYS, false},
    {"self_attn.o_proj.weight", "attn_output.weight", SIZE_HIDDEN, SIZE_Q, ALWAYS, false},
    {"self_attn.q_proj.bias", "attn_q.bias", SIZE_ONE, SIZE_Q, WITH_BIAS, false},
    {"self_attn.k_proj.bias", "attn_k.bias", SIZE_ONE, SIZE_KV, WITH_BIAS, false},
    {"self_attn.v_proj.bias", "attn_v.bias", SIZE_ONE, SIZE_KV, WITH_BIAS, false},
    {"self_attn.q_norm.weight", "attn_q_norm.weight", SIZE_ONE, SIZE_HEAD, WITH_QK_NORM, false},
    {"self_attn.k_norm.weight", "attn_k_norm.weight", SIZE_ONE, SIZE_HEAD, WITH_QK_NORM, false},
    {"post_attention_layernorm.weight", "ffn_norm.weight", SIZE_ONE, SIZE_HIDDEN, ALWAYS, false},
    {"mlp.gate_proj.weight", "ffn_gate.weight", SIZE_FFN, SIZE_HIDDEN, ALWAYS, false},
    {"mlp.up_proj.weight", "ffn_up.weight", SIZE_FFN, SIZE_HIDDEN, ALWAYS, false},
    {"mlp.down_proj.weight", "ffn_down.weight", SIZE_HIDDEN, SIZE_FFN, ALWAYS, false},
};
static const struct slot embed_slot = {
    "model.embed_tokens.weight", "token_embd.weight", SIZE_VOCAB, SIZE_HIDDEN, ALWAYS, false};
static const struct slot norm_slot = {"model.norm.weight", "output_norm.weight", SIZE_ONE, SIZE_HIDDEN, ALWAYS, false};
static const struct slot head_slot = {"lm_head.weight", "output.weight", SIZE_VOCAB, SIZE_HIDDEN, UNTIED, false};
enum { LAYER_SLOTS = sizeof layer_slots / sizeof *layer_slots };

static uint32_t size_of(const struct mosld_config *c, enum size size)
{
    switch (size) {
    case SIZE_HIDDEN: return c->hidden_size;
    case SIZE_Q: return c->num_heads * c->head_dim;
    case SIZE_KV: return c->num_kv_heads * c->head_dim;
    case SIZE_FFN: return c->intermediate_size;
    case SIZE_HEAD: return c->head_dim;
    case SIZE_VOCAB: return c->vocab_size;
    default: return 1;
    }
}

static bool is_there(const struct mosld_config *c, enum when when)
{
    return when == ALWAYS || (when == WITH_BIAS && c->qkv_bias) || (when == WITH_QK_NORM && c->qk_norm) ||
           (when == UNTIED && !c->tie_word_embeddings);
}

/* ---- finding one ---- */

/* A tensor of either format. */
struct found {
    const char *file; /* for messages */
    const char *name;
    enum dtype dtype;
    uint32_t rank;
    uint64_t shape[SAFETENSORS_MAX_RANK]; /* rows first */
    const uint8_t *data;
};

/* What a tensor would be, by the config alone. */
static struct found imagined(const struct mosld_model_file *f, const struct mosld_weight *w, const char *name, bool vector)
{
    const char *type = f->config.dtype;
    enum dtype dtype = strcmp(type, "float32") == 0 ? DTYPE_F32 : strcmp(type, "float16") == 0 ? DTYPE_F16 : DTYPE_BF16;
    struct found t = {f->path, name, dtype, vector ? 1 : 2, {w->rows, w->cols}, NULL};
    if (vector)
        t.shape[0] = w->cols;
    return t;
}

static bool find(const struct mosld_model_file *f, const char *name, struct found *out)
{
    if (f->gguf) {
        const struct gguf_tensor *t = gguf_find_tensor(f->gguf, name);
        if (!t)
            return false;
        *out = (struct found){gguf_path(f->gguf), t->name, t->dtype, t->n_dims, {0}, t->data};
        for (uint32_t i = 0; i < t->n_dims; i++)
            out->shape[i] = t->dims[t->n_dims - 1 - i];
        return true;
    }
    const struct safetensor *t = safetensors_find(f->shards, name);
    if (!t)
        return false;
    *out = (struct found){t->file, t->name, t->dtype, t->rank, {0}, t->data};
    memcpy(out->shape, t->shape, sizeof t->shape);
    return true;
}

static enum rt_status check_dtype(const struct mosld_model_file *f, const struct found *t, bool vector,
                                  struct rt_error *err)
{
    bool plain = t->dtype == DTYPE_F32 || t->dtype == DTYPE_F16 || t->dtype == DTYPE_BF16;
    bool quantised = !plain && t->dtype != DTYPE_F64 && dtype_converts(t->dtype);
    if (plain || (quantised && !vector))
        return RT_OK;
    const char *more = vector ? " here" : f->gguf ? ", Q4_0 to Q8_0, Q2_K to Q6_K and IQ4_NL: take or make a file of those" : "";
    return rt_fail(err, RT_BAD_FILE,
                   "%s: tensor %.100s has the type %s, which mosld does not run; it runs F32, F16, BF16%s", t->file,
                   t->name, dtype_name(t->dtype), more);
}

/* [cols] of a vector, [rows, cols] of a matrix. */
static bool has_shape(const struct found *t, const struct mosld_weight *w, bool vector)
{
    return vector ? t->rank == 1 && t->shape[0] == w->cols
                  : t->rank == 2 && t->shape[0] == w->rows && t->shape[1] == w->cols;
}

static enum rt_status add_weight(struct mosld_model_file *f, const struct slot *slot, const char *hf_prefix,
                                 const char *gguf_prefix, struct rt_error *err)
{
    const struct mosld_config *c = &f->config;
    if (!is_there(c, slot->when))
        return RT_OK;
    struct mosld_weight *w = &f->weights[f->n_weights];
    *w = (struct mosld_weight){.rows = size_of(c, slot->rows), .cols = size_of(c, slot->cols)};
    snprintf(w->name, sizeof w->name, "%s%s", hf_prefix, slot->hf);
    char file_name[80];
    snprintf(file_name, sizeof file_name, "%s%s", f->gguf ? gguf_prefix : hf_prefix, f->gguf ? slot->gguf : slot->hf);
    bool vector = slot->rows == SIZE_ONE;
    struct found t = imagined(f, w, file_name, vector);
    if ((f->gguf || f->shards) && !find(f, file_name, &t))
        return rt_fail(err, RT_BAD_FILE, "%s: the tensor %s is missing", f->path, file_name);
    if (!has_shape(&t, w, vector)) {
        char got[160], want[64];
        uint64_t wanted[2] = {w->rows, w->cols};
        return rt_fail(err, RT_BAD_FILE, "%s: tensor %s has the shape %s, the config asks for %s", t.file, file_name,
                       shape_text(t.shape, t.rank, got, sizeof got),
                       shape_text(wanted + vector, 2 - vector, want, sizeof want));
    }
    enum rt_status st = check_dtype(f, &t, vector, err);
    if (st != RT_OK)
        return st;
    w->dtype = t.dtype;
    w->data = t.data;
    w->permuted = slot->rope && f->gguf && c->arch == MOSLD_LLAMA;
    if (!dtype_bytes(t.dtype, w->cols, &w->row_bytes))
        return rt_fail(err, RT_BAD_FILE, "%s: tensor %s: rows of %u are no whole blocks of %s", t.file, file_name,
                       w->cols, dtype_name(t.dtype));
    f->n_weights++;
    return RT_OK;
}

static enum rt_status add_weights(struct mosld_model_file *f, struct rt_error *err)
{
    size_t most = 3 + (size_t)f->config.num_layers * LAYER_SLOTS;
    f->weights = calloc(most, sizeof *f->weights);
    f->by_name = calloc(most, sizeof *f->by_name);
    if (!f->weights || !f->by_name)
        return rt_fail(err, RT_NO_MEMORY, "%s: no memory for the list of its weights", f->path);
    enum rt_status st = add_weight(f, &embed_slot, "", "", err);
    for (uint32_t layer = 0; layer < f->config.num_layers; layer++) {
        char hf_prefix[32], gguf_prefix[24];
        snprintf(hf_prefix, sizeof hf_prefix, "model.layers.%u.", layer);
        snprintf(gguf_prefix, sizeof gguf_prefix, "blk.%u.", layer);
        for (int i = 0; i < LAYER_SLOTS && st == RT_OK; i++)
            st = add_weight(f, &layer_slots[i], hf_prefix, gguf_prefix, err);
    }
    if (st == RT_OK)
        st = add_weight(f, &norm_slot, "", "", err);
    return st == RT_OK ? add_weight(f, &head_slot, "", "", err) : st;
}

/* ---- what else the file has ---- */

/* Tensors that mosld need not read: inverse frequencies, which the config gives (old Llama checkpoints have them, and
 * GGUF's were read with the config), and a head saved beside an embedding to which it is tied. */
static bool is_ignored(const struct mosld_model_file *f, const char *name)
{
    static const char suffix[] = ".rotary_emb.inv_freq";
    size_t n = strlen(name);
    if (f->gguf)
        return strcmp(name, "rope_freqs.weight") == 0;
    return (n > sizeof suffix && strcmp(name + n - (sizeof suffix - 1), suffix) == 0) ||
           (f->config.tie_word_embeddings && strcmp(name, "lm_head.weight") == 0);
}

static int by_data(const void *a, const void *b)
{
    const uint8_t *x = *(const uint8_t *const *)a, *y = *(const uint8_t *const *)b;
    return x < y ? -1 : x > y;
}

/* Every tensor of the file is one of the weights (its data says which: no two share an address, and no weight is
 * empty), or ignored. */
static enum rt_status check_unexpected(const struct mosld_model_file *f, struct rt_error *err)
{
    size_t n = f->gguf ? gguf_tensor_count(f->gguf) : safetensors_count(f->shards);
    const uint8_t **used = calloc(f->n_weights, sizeof *used);
    if (!used)
        return rt_fail(err, RT_NO_MEMORY, "%s: no memory for the list of its weights", f->path);
    for (uint32_t i = 0; i < f->n_weights; i++)
        used[i] = f->weights[i].data;
    qsort(used, f->n_weights, sizeof *used, by_data);
    enum rt_status st = RT_OK;
    for (size_t i = 0; i < n && st == RT_OK; i++) {
        const struct safetensor *t = f->gguf ? NULL : safetensors_at(f->shards, i);
        const char *name = t ? t->name : gguf_tensor_at(f->gguf, i)->name;
        const uint8_t *data = t ? t->data : gguf_tensor_at(f->gguf, i)->data;
        bool empty = t && t->bytes == 0;
        if ((empty || !bsearch(&data, used, f->n_weights, sizeof *used, by_data)) && !is_ignored(f, name))
            st = rt_fail(err, RT_BAD_FILE,
                         "%s: has the tensor %.200s, which a %s model as its config describes it has not: it would not "
                         "be run as it was trained",
                         t ? t->file : f->path, name, mosld_arch_name(f->config.arch));
    }
    free(used);
    return st;
}

/* ---- opening and lookups ---- */

static int compare_names(const void *a, const void *b, void *file)
{
    const struct mosld_model_file *f = file;
    return strcmp(f->weights[*(const uint32_t *)a].name, f->weights[*(const uint32_t *)b].name);
}

static bool has_weights(const char *folder)
{
    static const char *const names[] = {"model.safetensors", "model.safetensors.index.json"};
    bool found = false;
    for (int i = 0; i < 2 && !found; i++) {
        char *path = file_join(folder, names[i]);
        found = !path || file_is_regular(path); /* no memory: said when it is opened */
        free(path);
    }
    return found;
}

static bool is_json(const char *path)
{
    size_t n = strlen(path);
    return n > 5 && strcmp(path + n - 5, ".json") == 0;
}

static enum rt_status open_source(struct mosld_model_file *f, bool shapes, struct rt_error *err)
{
    enum rt_status st;
    if (shapes && is_json(f->path) && file_is_regular(f->path))
        return mosld_config_from_json(f->path, &f->config, err);
    if (file_is_folder(f->path)) {
        st = mosld_config_from_folder(f->path, &f->config, err);
        return st == RT_OK && !(shapes && !has_weights(f->path)) ? safetensors_open_folder(f->path, &f->shards, err) : st;
    }
    st = gguf_open(f->path, &f->gguf, err);
    return st == RT_OK ? mosld_config_from_gguf(f->gguf, &f->config, err) : st;
}

static enum rt_status open_file(const char *path, bool shapes, struct mosld_model_file **out, struct rt_error *err)
{
    *out = NULL;
    struct mosld_model_file *f = calloc(1, sizeof *f);
    if (!f)
        return rt_fail(err, RT_NO_MEMORY, "%s: no memory to open it", path);
    f->path = strdup(path);
    enum rt_status st = f->path ? open_source(f, shapes, err) : rt_fail(err, RT_NO_MEMORY, "%s: no memory to open it", path);
    if (st == RT_OK)
        st = add_weights(f, err);
    if (st == RT_OK && (f->gguf || f->shards))
        st = check_unexpected(f, err);
    if (st != RT_OK) {
        mosld_model_file_close(&f);
        return st;
    }
    for (uint32_t i = 0; i < f->n_weights; i++)
        f->by_name[i] = i;
    qsort_r(f->by_name, f->n_weights, sizeof *f->by_name, compare_names, f);
    *out = f;
    return RT_OK;
}

enum rt_status mosld_model_file_open(const char *path, struct mosld_model_file **out, struct rt_error *err)
{
    return open_file(path, false, out, err);
}

enum rt_status mosld_model_file_open_shapes(const char *path, struct mosld_model_file **out, struct rt_error *err)
{
    return open_file(path, true, out, err);
}

void mosld_model_file_close(struct mosld_model_file **file)
{
    struct mosld_model_file *f = *file;
    if (!f)
        return;
    gguf_close(&f->gguf);
    safetensors_close(&f->shards);
    free(f->weights);
    free(f->by_name);
    free(f->path);
    free(f);
    *file = NULL;
}

const char *mosld_model_file_path(const struct mosld_model_file *f) { return f->path; }
const struct mosld_config *mosld_model_file_config(const struct mosld_model_file *f) { return &f->config; }
const struct gguf *mosld_model_file_gguf(const struct mosld_model_file *f) { return f->gguf; }
uint32_t mosld_model_file_count(const struct mosld_model_file *f) { return f->n_weights; }
const struct mosld_weight *mosld_model_file_at(const struct mosld_model_file *f, uint32_t i) { return &f->weights[i]; }

const struct mosld_weight *mosld_model_file_find(const struct mosld_model_file *f, const char *name)
{
    uint32_t low = 0, high = f->n_weights;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        const struct mosld_weight *w = &f->weights[f->by_name[middle]];
        int order = strcmp(name, w->name);
        if (order == 0)
            return w;
        if (order < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return NULL;
}

uint64_t mosld_model_file_bytes(const struct mosld_model_file *f)
{
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < f->n_weights; i++)
        bytes += f->weights[i].rows * f->weights[i].row_bytes;
    return bytes;
}

/* ---- rows ---- */

/* Where row `row` of Hugging Face's order stands in the file. llama.cpp's converter turns the half-split order of RoPE
 * into the interleaved one: within a head of D rows, row i of the first half goes to 2i, row i of the second half to 2i
 * + 1. */
static uint32_t file_row(const struct mosld_model_file *f, const struct mosld_weight *w, uint32_t row)
{
    if (!w->permuted)
        return row;
    uint32_t D = f->config.head_dim, within = row % D, half = D / 2;
    return row - within + (within < half ? 2 * within : 2 * (within - half) + 1);
}

/* The checked bytes of a row. */
static enum rt_status take_row(const struct mosld_model_file *f, const struct mosld_weight *w, uint32_t row,
                               const uint8_t **data, struct rt_error *err)
{
    *data = w->data + file_row(f, w, row) * w->row_bytes;
    uint64_t bad = dtype_first_nonfinite(w->dtype, *data, w->cols);
    if (bad < w->cols)
        return rt_fail(err, RT_BAD_FILE, "%s: tensor %s has a value that is not finite, in row %u near column %llu",
                       f->path, w->name, row, (unsigned long long)bad);
    return RT_OK;
}

static enum rt_status check_range(const struct mosld_model_file *f, const struct mosld_weight *w, uint32_t row0,
                                  uint32_t n, struct rt_error *err)
{
    if (!w->data)
        return rt_fail(err, RT_FAILED, "%s: there are no weights to read: it is a config alone", f->path);
    if (row0 <= w->rows && n <= w->rows - row0)
        return RT_OK;
    return rt_fail(err, RT_FAILED, "%s: rows %u to %llu of tensor %s were asked for, it has %u", f->path, row0,
                   (unsigned long long)row0 + n, w->name, w->rows);
}

enum rt_status mosld_weight_rows(const struct mosld_model_file *f, const struct mosld_weight *w, uint32_t row0,
                                 uint32_t n, void *out, struct rt_error *err)
{
    enum rt_status st = check_range(f, w, row0, n, err);
    const uint8_t *data;
    for (uint32_t i = 0; i < n && st == RT_OK; i++) {
        st = take_row(f, w, row0 + i, &data, err);
        if (st == RT_OK)
            memcpy((uint8_t *)out + i * w->row_bytes, data, (size_t)w->row_bytes);
    }
    return st;
}

enum rt_status mosld_weight_rows_f32(const struct mosld_model_file *f, const struct mosld_weight *w, uint32_t row0,
                                     uint32_t n, float *out, struct rt_error *err)
{
    enum rt_status st = check_range(f, w, row0, n, err);
    const uint8_t *data;
    for (uint32_t i = 0; i < n && st == RT_OK; i++) {
        st = take_row(f, w, row0 + i, &data, err);
        if (st == RT_OK)
            dtype_to_f32(w->dtype, data, w->cols, out + (size_t)i * w->cols);
    }
    return st;
}

void mosld_weight_forget(const struct mosld_weight *w) { file_map_forget(w->data, (size_t)(w->rows * w->row_bytes)); }
