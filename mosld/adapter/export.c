/* mosld/adapter/export.c - PEFT folders and llama.cpp's LoRA files: see export.h. */
#include "mosld/adapter/export.h"

#include "mosld/adapter/adapter_file.h"
#include "mosld/io/file.h"
#include "mosld/io/gguf_write.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static enum rt_status convert(const struct safetensor *t, const float *values, enum dtype dtype, void **out, struct rt_error *err)
{
    uint64_t bytes;
    *out = dtype_bytes(dtype, t->elements, &bytes) ? malloc(bytes) : NULL;
    if (!*out)
        return rt_fail(err, RT_NO_MEMORY, "no memory to convert %s", t->name);
    if (!dtype_from_f32(dtype, values, t->elements, *out))
        return rt_fail(err, RT_USAGE, "an adapter cannot be written as %s: F32, F16 and BF16 will do", dtype_name(dtype));
    if (dtype_first_nonfinite(dtype, *out, t->elements) != t->elements)
        return rt_fail(err, RT_FAILED, "%s: a number is too large for %s", t->name, dtype_name(dtype));
    return RT_OK;
}

/* ---- PEFT ---- */

enum rt_status mosld_export_peft(const struct mosld_lora_file *lora, enum dtype dtype, const char *base_model, const char *dir,
                                 struct rt_error *err)
{
    size_t n = 0, most = 2 * (size_t)lora->n_modules;
    struct safetensors_entry *entries = calloc(most, sizeof *entries);
    char *path = file_join(dir, "adapter_model.safetensors");
    enum rt_status st = entries && path ? file_make_folders(dir, err) : rt_fail(err, RT_NO_MEMORY, "no memory to write %s", dir);
    for (uint32_t i = 0; i < lora->n_modules && !st; i++) {
        const struct safetensor *both[] = {lora->modules[i].a, lora->modules[i].b};
        float *values = mosld_lora_values(&lora->modules[i]);
        if (!values)
            st = rt_fail(err, RT_NO_MEMORY, "no memory to write %s", dir);
        for (int t = 0; t < 2 && !st; t++, n++) {
            enum dtype to = dtype == MOSLD_EXPORT_AS_FILE ? both[t]->dtype : dtype;
            void *data = NULL;
            st = convert(both[t], t ? values + both[0]->elements : values, to, &data, err);
            entries[n] = (struct safetensors_entry){
                .name = both[t]->name, .dtype = to, .rank = 2, .shape = {both[t]->shape[0], both[t]->shape[1]}, .data = data};
        }
        free(values);
    }
    const struct safetensors_pair metadata = {"format", "pt"};
    if (!st)
        st = safetensors_write(path, entries, n, &metadata, 1, err);
    if (!st)
        st = mosld_adapter_write_params(&lora->params, lora->layers, base_model, dir, err);
    for (size_t i = 0; entries && i < most; i++)
        free((void *)entries[i].data);
    free(entries);
    free(path);
    return st;
}

/* ---- llama.cpp ---- */

/* What llama.cpp calls the architecture, "llama" also for Mistral's. *owned is to be freed. */
static enum rt_status architecture(const struct mosld_model_file *model, char **owned, struct rt_error *err)
{
    static const char *const names[MOSLD_ARCHS] = {"llama", "llama", "qwen2", "qwen3"};
    const struct gguf *g = mosld_model_file_gguf(model);
    if (g)
        return gguf_dup_string_or_null(g, "general.architecture", owned, err);
    *owned = strdup(names[mosld_model_file_config(model)->arch]);
    return *owned ? RT_OK : rt_fail(err, RT_NO_MEMORY, "no memory for a name");
}

/* llama.cpp computes with s = adapter.lora.alpha / r for all modules. What a module's own s differs by goes into B; and rows of q and k
 * stand in the order of interleaved RoPE: within a head of D rows, i of the first half at 2 i, of the second at 2 i + 1. */
static void arrange_b(const struct mosld_lora_module *m, double alpha, uint32_t head_dim, bool permute, const float *b, float *out)
{
    float factor = (float)(m->scale * m->r / alpha);
    for (uint32_t row = 0; row < m->d_out; row++) {
        uint32_t within = row % head_dim, half = head_dim / 2, to = row;
        if (permute)
            to = row - within + (within < half ? 2 * within : 2 * (within - half) + 1);
        for (uint32_t k = 0; k < m->r; k++)
            out[(size_t)to * m->r + k] = factor * b[(size_t)row * m->r + k];
    }
}

struct lora_gguf {
    struct gguf_write_tensor *tensors;
    char (*names)[64];
    size_t n;
};

static enum rt_status add_module(struct lora_gguf *g, const struct mosld_lora_module *m, const struct mosld_config *c, double alpha,
                                 bool llama, enum dtype dtype, struct rt_error *err)
{
    static const char *const names[MOSLD_LINEARS] = {"attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"};
    float *values = mosld_lora_values(m), *b = malloc((size_t)m->d_out * m->r * sizeof *b);
    enum rt_status st = values && b ? RT_OK : rt_fail(err, RT_NO_MEMORY, "no memory to convert an adapter");
    for (int t = 0; t < 2 && !st; t++) {
        void *data = NULL;
        if (t)
            arrange_b(m, alpha, c->head_dim, llama && (m->linear == MOSLD_Q || m->linear == MOSLD_K), values + m->a->elements, b);
        st = convert(t ? m->b : m->a, t ? b : values, dtype, &data, err);
        snprintf(g->names[g->n], sizeof *g->names, "blk.%u.%s.weight.lora_%c", m->layer, names[m->linear], t ? 'b' : 'a');
        g->tensors[g->n] = (struct gguf_write_tensor){
            .name = g->names[g->n], .dtype = dtype, .n_dims = 2, .dims = {t ? m->r : m->d_in, t ? m->d_out : m->r}, .data = data};
        g->n++;
    }
    free(values);
    free(b);
    return st;
}

enum rt_status mosld_export_gguf(const struct mosld_lora_file *lora, const struct mosld_model_file *model, enum dtype dtype,
                                 const char *path, struct rt_error *err)
{
    const struct mosld_config *c = mosld_model_file_config(model);
    size_t most = 2 * (size_t)lora->n_modules;
    double alpha = lora->params.use_rslora ? lora->params.lora_alpha * sqrt((double)lora->params.r) : lora->params.lora_alpha;
    struct lora_gguf g = {.tensors = calloc(most, sizeof *g.tensors), .names = calloc(most, sizeof *g.names)};
    char *arch = NULL;
    if (dtype == MOSLD_EXPORT_AS_FILE)
        dtype = DTYPE_F32;
    enum rt_status st = g.tensors && g.names ? RT_OK : rt_fail(err, RT_NO_MEMORY, "no memory to write %s", path);
    if (!st)
        st = mosld_lora_check_model(lora, path, c, err);
    if (!st)
        st = architecture(model, &arch, err);
    for (uint32_t i = 0; i < lora->n_modules && !st; i++)
        st = add_module(&g, &lora->modules[i], c, alpha, strcmp(arch, "llama") == 0, dtype, err);
    const struct gguf_write_key keys[] = {
        {.name = "general.architecture", .type = GGUF_STRING, .string = arch},
        {.name = "general.type", .type = GGUF_STRING, .string = "adapter"},
        {.name = "adapter.type", .type = GGUF_STRING, .string = "lora"},
        {.name = "adapter.lora.alpha", .type = GGUF_F32, .f32 = (float)alpha},
        {.name = "general.file_type", .type = GGUF_U32, .u32 = dtype == DTYPE_F32 ? 0 : dtype == DTYPE_F16 ? 1 : 32},
    };
    if (!st)
        st = gguf_write(path, keys, sizeof keys / sizeof *keys, g.tensors, g.n, err);
    for (size_t i = 0; g.tensors && i < g.n; i++)
        free((void *)g.tensors[i].data);
    free(g.tensors);
    free(g.names);
    free(arch);
    return st;
}
