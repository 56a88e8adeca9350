/* mosld/adapter/merge.c - a model with a LoRA in its weights, as a folder or a GGUF file: see mosld_export_merged.
 *
 * Tensors are written one row block after another, so memory does not grow with the model. */
#include "mosld/adapter/export.h"

#include "mosld/io/file.h"
#include "mosld/io/gguf_write.h"
#include "mosld/io/json.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* One tensor on its way. */
struct merged {
    const struct mosld_model_file *file;
    const struct mosld_weight *w;
    const struct mosld_lora_module *m; /* NULL: as it is */
    enum dtype to;
    bool file_order; /* rows as the GGUF file has them, for GGUF again */
};

/* Row of Hugging Face's order that stands at `row` of the file: the reverse of llama.cpp's permutation. */
static uint32_t hf_row(const struct merged *j, uint32_t row)
{
    if (!j->file_order || !j->w->permuted)
        return row;
    uint32_t D = mosld_model_file_config(j->file)->head_dim, within = row % D;
    return row - within + (within % 2 ? D / 2 : 0) + within / 2;
}

static enum rt_status write_merged(void *user, struct file_writer *to, struct rt_error *err)
{
    const struct merged *j = user;
    const struct mosld_weight *w = j->w;
    uint64_t bytes;
    if (!dtype_bytes(j->to, w->cols, &bytes))
        return rt_fail(err, RT_FAILED, "%s: rows of %u do not fill blocks of %s", w->name, w->cols, dtype_name(j->to));
    float *row = malloc((size_t)w->cols * sizeof *row), *ab = j->m ? mosld_lora_values(j->m) : NULL;
    void *out = malloc(bytes);
    enum rt_status st = row && out && (!j->m || ab) ? RT_OK : rt_fail(err, RT_NO_MEMORY, "no memory to write %s", w->name);
    for (uint32_t i = 0; i < w->rows && !st; i++) {
        uint32_t from = hf_row(j, i);
        st = mosld_weight_rows_f32(j->file, w, from, 1, row, err);
        if (!st && j->m)
            mosld_lora_add_row(j->m, ab, ab + j->m->a->elements, from, row);
        if (!st && (!dtype_from_f32(j->to, row, w->cols, out) || dtype_first_nonfinite(j->to, out, w->cols) != w->cols))
            st = rt_fail(err, RT_FAILED, "%s: row %u has a number that %s does not hold: take bf16 or f32", w->name, from, dtype_name(j->to));
        if (!st)
            st = file_writer_write(to, out, bytes, err);
    }
    free(row);
    free(ab);
    free(out);
    return st;
}

static const struct mosld_lora_module *module_of(const struct mosld_lora_file *lora, const struct mosld_weight *w)
{
    char name[96];
    for (uint32_t i = 0; i < lora->n_modules; i++) {
        const struct mosld_lora_module *m = &lora->modules[i];
        snprintf(name, sizeof name, "model.layers.%u.%s.weight", m->layer, mosld_linear_paths[m->linear]);
        if (strcmp(name, w->name) == 0)
            return m;
    }
    return NULL;
}

static bool can_write(enum dtype type) { return dtype_from_f32(type, NULL, 0, NULL); }

/* ---- Hugging Face ---- */

static enum rt_status copy_file(const char *from, const char *to, const char *name, struct rt_error *err)
{
    char *source = file_join(from, name), *target = file_join(to, name);
    struct file_map map;
    enum rt_status st = source && target ? RT_OK : rt_fail(err, RT_NO_MEMORY, "no memory for the name of a file");
    if (!st && file_is_regular(source)) {
        st = file_map_open(source, &map, err);
        if (!st) {
            st = file_write_atomic(target, map.data, map.size, err);
            file_map_close(&map);
        }
    }
    free(source);
    free(target);
    return st;
}

/* config.json, with the type of the weights as it is now; the rest unchanged. */
static enum rt_status copy_settings(const char *from, const char *to, enum dtype dtype, struct rt_error *err)
{
    static const char *const files[] = {"generation_config.json", "tokenizer.json",   "tokenizer_config.json", "special_tokens_map.json",
                                        "tokenizer.model",        "vocab.json",       "merges.txt",            "added_tokens.json",
                                        "chat_template.jinja",    "chat_template.json", "LICENSE"};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++)
        RT_TRY(copy_file(from, to, files[i], err));
    if (dtype == MOSLD_EXPORT_AS_FILE)
        return copy_file(from, to, "config.json", err);
    char *source = file_join(from, "config.json"), *target = file_join(to, "config.json");
    cJSON *json = NULL;
    enum rt_status st = source && target ? json_read_file(source, 1 << 24, &json, err) : rt_fail(err, RT_NO_MEMORY, "no memory for the name of a file");
    for (int i = 0; i < 2 && !st; i++) {
        const char *key = i ? "dtype" : "torch_dtype";
        if (json_find(json, key) || (i && !json_find(json, "torch_dtype"))) {
            cJSON_DeleteItemFromObjectCaseSensitive(json, key);
            cJSON_AddStringToObject(json, key, dtype == DTYPE_F32 ? "float32" : dtype == DTYPE_F16 ? "float16" : "bfloat16");
        }
    }
    if (!st)
        st = json_write_file(target, json, err);
    cJSON_Delete(json);
    free(source);
    free(target);
    return st;
}

static enum rt_status write_entry(void *jobs, size_t i, struct file_writer *to, struct rt_error *err)
{
    return write_merged((struct merged *)jobs + i, to, err);
}

static enum rt_status merge_folder(const struct mosld_lora_file *lora, const struct mosld_model_file *model, enum dtype dtype,
                                   const char *dir, struct rt_error *err)
{
    uint32_t n = mosld_model_file_count(model);
    if (dtype != MOSLD_EXPORT_AS_FILE && !dtype_info(dtype)->in_safetensors)
        return rt_fail(err, RT_USAGE, "a Hugging Face folder has no %s: f32, f16 or bf16 will do", dtype_name(dtype));
    RT_TRY(file_make_folders(dir, err));
    struct safetensors_entry *entries = calloc(n, sizeof *entries);
    struct merged *jobs = calloc(n, sizeof *jobs);
    char *path = file_join(dir, "model.safetensors");
    enum rt_status st = entries && jobs && path ? RT_OK : rt_fail(err, RT_NO_MEMORY, "no memory to write %s", dir);
    for (uint32_t i = 0; i < n && !st; i++) {
        const struct mosld_weight *w = mosld_model_file_at(model, i);
        size_t length = strlen(w->name);
        bool vector = w->rows == 1 && !(length > 11 && strcmp(w->name + length - 11, "proj.weight") == 0);
        jobs[i] = (struct merged){.file = model, .w = w, .m = module_of(lora, w), .to = dtype == MOSLD_EXPORT_AS_FILE ? w->dtype : dtype};
        entries[i] = (struct safetensors_entry){.name = w->name, .dtype = jobs[i].to, .rank = vector ? 1 : 2};
        entries[i].shape[0] = vector ? w->cols : w->rows;
        entries[i].shape[1] = vector ? 0 : w->cols;
    }
    const struct safetensors_pair metadata = {"format", "pt"};
    if (!st)
        st = safetensors_write_from(path, entries, n, &metadata, 1, write_entry, jobs, err);
    if (!st)
        st = copy_settings(mosld_model_file_path(model), dir, dtype, err);
    free(entries);
    free(jobs);
    free(path);
    return st;
}

/* ---- GGUF ---- */

static const struct mosld_weight *weight_at(const struct mosld_model_file *model, const uint8_t *data)
{
    for (uint32_t i = 0; i < mosld_model_file_count(model); i++)
        if (mosld_model_file_at(model, i)->data == data)
            return mosld_model_file_at(model, i);
    return NULL; /* rope_freqs */
}

/* The type of a matrix in the new file: rows that do not fill blocks stay finer. */
static enum dtype gguf_type_of(const struct gguf_tensor *t, enum dtype wanted)
{
    enum dtype to = wanted == MOSLD_EXPORT_AS_FILE ? t->dtype : wanted;
    if (!can_write(to))
        to = DTYPE_Q8_0;
    return t->dims[0] % dtype_info(to)->block ? DTYPE_F16 : to;
}

static uint32_t gguf_file_type(enum dtype dtype)
{
    switch (dtype) { /* general.file_type: what most of the file is */
    case DTYPE_F32: return 0;
    case DTYPE_F16: return 1;
    case DTYPE_Q4_0: return 2;
    case DTYPE_Q4_1: return 3;
    case DTYPE_Q8_0: return 7;
    default: return 32;
    }
}

static enum rt_status merge_gguf(const struct mosld_lora_file *lora, const struct mosld_model_file *model, enum dtype dtype,
                                 const char *path, struct rt_error *err)
{
    const struct gguf *g = mosld_model_file_gguf(model);
    size_t n = gguf_tensor_count(g), n_keys = gguf_key_count(g);
    if (gguf_find_key(g, "split.count"))
        return rt_fail(err, RT_USAGE, "%s is one part of a split model: join the parts first (llama.cpp's gguf-split --merge)", gguf_path(g));
    struct gguf_write_tensor *tensors = calloc(n, sizeof *tensors);
    struct gguf_write_key *keys = calloc(n_keys + 1, sizeof *keys);
    struct merged *jobs = calloc(n, sizeof *jobs);
    enum rt_status st = tensors && keys && jobs ? RT_OK : rt_fail(err, RT_NO_MEMORY, "no memory to write %s", path);
    for (size_t i = 0; i < n_keys && !st; i++) {
        keys[i].from = gguf_key_at(g, i);
        if (dtype != MOSLD_EXPORT_AS_FILE && strcmp(keys[i].from->name, "general.file_type") == 0)
            keys[i] = (struct gguf_write_key){.name = "general.file_type", .type = GGUF_U32, .u32 = gguf_file_type(dtype)};
    }
    for (size_t i = 0; i < n && !st; i++) {
        const struct gguf_tensor *t = gguf_tensor_at(g, i);
        const struct mosld_weight *w = weight_at(model, t->data);
        const struct mosld_lora_module *m = w ? module_of(lora, w) : NULL;
        bool changes = w && t->n_dims == 2 && (m || (dtype != MOSLD_EXPORT_AS_FILE && gguf_type_of(t, dtype) != t->dtype));
        tensors[i] = (struct gguf_write_tensor){.name = t->name, .dtype = t->dtype, .n_dims = t->n_dims, .data = t->data};
        memcpy(tensors[i].dims, t->dims, sizeof t->dims);
        if (!changes)
            continue;
        jobs[i] = (struct merged){.file = model, .w = w, .m = m, .to = gguf_type_of(t, dtype), .file_order = true};
        tensors[i].dtype = jobs[i].to;
        tensors[i].data = NULL;
        tensors[i].write = write_merged;
        tensors[i].user = &jobs[i];
    }
    if (!st)
        st = gguf_write(path, keys, n_keys, tensors, n, err);
    free(tensors);
    free(keys);
    free(jobs);
    return st;
}

enum rt_status mosld_export_merged(const struct mosld_lora_file *lora, const struct mosld_model_file *model, enum dtype dtype,
                                   const char *path, struct rt_error *err)
{
    RT_TRY(mosld_lora_check_model(lora, mosld_model_file_path(model), mosld_model_file_config(model), err));
    return mosld_model_file_gguf(model) ? merge_gguf(lora, model, dtype, path, err) : merge_folder(lora, model, dtype, path, err);
}
