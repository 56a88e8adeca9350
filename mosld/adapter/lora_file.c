/* mosld/adapter/lora_file.c - see lora_file.h. */
#include "mosld/adapter/lora_file.h"

#include "mosld/adapter/adapter.h"
#include "mosld/adapter/adapter_file.h"
#include "mosld/io/file.h"
#include "mosld/io/json.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static enum rt_status read_base_model(struct mosld_lora_file *f, const char *path, struct rt_error *err)
{
    cJSON *json = NULL;
    const char *name;
    enum rt_status st = json_read_file(path, 1 << 20, &json, err);
    if (!st)
        st = json_string_or(json, "base_model_name_or_path", path, NULL, &name, err);
    if (!st && name && !(f->base_model = strdup(name)))
        st = rt_fail(err, RT_NO_MEMORY, "no memory to read %s", path);
    cJSON_Delete(json);
    return st;
}

static enum rt_status check_tensor(const struct safetensor *t, const char *what, const uint64_t shape[2], struct rt_error *err)
{
    char got[128];
    if (t->rank != 2 || (shape[0] && t->shape[0] != shape[0]) || (shape[1] && t->shape[1] != shape[1]) || t->elements == 0 ||
        t->shape[0] > UINT32_MAX || t->shape[1] > UINT32_MAX)
        return rt_fail(err, RT_BAD_FILE, "%s: tensor %s is %s, which is no %s of rank %llu", t->file, t->name,
                       shape_text(t->shape, t->rank, got, sizeof got), what, (unsigned long long)(shape[0] ? shape[0] : shape[1]));
    if (t->dtype != DTYPE_F32 && t->dtype != DTYPE_F16 && t->dtype != DTYPE_BF16)
        return rt_fail(err, RT_BAD_FILE, "%s: tensor %s is %s, an adapter is F32, F16 or BF16", t->file, t->name, dtype_name(t->dtype));
    if (dtype_first_nonfinite(t->dtype, t->data, t->elements) != t->elements)
        return rt_fail(err, RT_BAD_FILE, "%s: tensor %s has a number that is not finite", t->file, t->name);
    return RT_OK;
}

/* One of the two of a module; NULL in *out where it is not there. */
static enum rt_status take(const struct mosld_lora_file *f, const struct mosld_lora_module *m, const char *what,
                           const struct safetensor **out, struct rt_error *err)
{
    char name[160];
    bool is_a = what[5] == 'A';
    snprintf(name, sizeof name, "base_model.model.model.layers.%u.%s.%s.weight", m->layer, mosld_linear_paths[m->linear], what);
    *out = safetensors_find(f->tensors, name);
    return *out ? check_tensor(*out, what, (uint64_t[2]){is_a ? m->r : 0, is_a ? 0 : m->r}, err) : RT_OK;
}

static enum rt_status find_modules(struct mosld_lora_file *f, const char *path, struct rt_error *err)
{
    size_t n = safetensors_count(f->tensors);
    f->modules = calloc(n / 2 + 1, sizeof *f->modules);
    if (!f->modules)
        return rt_fail(err, RT_NO_MEMORY, "no memory to read %s", path);
    for (uint32_t layer = 0; layer < MOSLD_MAX_ADAPTER_LAYERS; layer++)
        for (int linear = 0; linear < MOSLD_LINEARS; linear++) {
            struct mosld_lora_module m = {.layer = layer, .linear = (enum mosld_linear)linear};
            m.r = mosld_module_rank(&f->params, layer, m.linear);
            if (!m.r)
                continue;
            RT_TRY(take(f, &m, "lora_A", &m.a, err));
            RT_TRY(take(f, &m, "lora_B", &m.b, err));
            if (!m.a != !m.b)
                return rt_fail(err, RT_BAD_FILE, "%s: %s stands there without its %s", path, m.a ? m.a->name : m.b->name, m.a ? "lora_B" : "lora_A");
            if (!m.a)
                continue;
            m.d_in = (uint32_t)m.a->shape[1];
            m.d_out = (uint32_t)m.b->shape[0];
            m.scale = mosld_module_scale(&f->params, layer, m.linear);
            f->modules[f->n_modules++] = m;
            f->layers = layer + 1;
        }
    if (2 * (size_t)f->n_modules != n || !n)
        return rt_fail(err, RT_BAD_FILE, "%s: has %zu tensors, and adapter_config.json names %u of them: this is another adapter's configuration",
                       path, n, 2 * f->n_modules);
    return RT_OK;
}

enum rt_status mosld_lora_open(const char *dir, struct mosld_lora_file **out, struct rt_error *err)
{
    struct mosld_lora_file *f = calloc(1, sizeof *f);
    char *config = file_join(dir, "adapter_config.json"), *path = file_join(dir, "adapter_model.safetensors");
    enum rt_status st = f && config && path ? RT_OK : rt_fail(err, RT_NO_MEMORY, "no memory to read %s", dir);
    *out = NULL;
    if (!st)
        st = mosld_adapter_read_params(dir, &f->params, err);
    if (!st && mosld_has_router(&f->params))
        st = rt_fail(err, RT_USAGE,
                     "%s: a mixture (%s) is no LoRA: what its router adds differs from token to token, so no fixed weights stand for "
                     "it. Run it with mosld generate, chat or serve, load it into Transformers with tools/mosld_transformers.py, or "
                     "train with --method lora",
                     dir, mosld_method_names[f->params.method]);
    if (!st)
        st = read_base_model(f, config, err);
    if (!st)
        st = safetensors_open(path, &f->tensors, err);
    if (!st)
        st = find_modules(f, path, err);
    free(config);
    free(path);
    if (st)
        mosld_lora_close(&f);
    *out = f;
    return st;
}

void mosld_lora_close(struct mosld_lora_file **lora)
{
    if (!*lora)
        return;
    safetensors_close(&(*lora)->tensors);
    free((*lora)->base_model);
    free((*lora)->modules);
    free(*lora);
    *lora = NULL;
}

const struct mosld_lora_module *mosld_lora_find(const struct mosld_lora_file *f, uint32_t layer, enum mosld_linear linear)
{
    for (uint32_t i = 0; i < f->n_modules; i++)
        if (f->modules[i].layer == layer && f->modules[i].linear == linear)
            return &f->modules[i];
    return NULL;
}

enum rt_status mosld_lora_check_model(const struct mosld_lora_file *f, const char *dir, const struct mosld_config *c, struct rt_error *err)
{
    uint32_t found = 0;
    for (uint32_t layer = 0; layer < c->num_layers; layer++)
        for (int i = 0; i < MOSLD_LINEARS; i++) {
            enum mosld_linear linear = (enum mosld_linear)i;
            uint32_t d_in, d_out;
            const struct mosld_lora_module *m = mosld_lora_find(f, layer, linear);
            mosld_linear_shape(c, linear, &d_in, &d_out);
            if (!m != !mosld_module_rank(&f->params, layer, linear))
                return rt_fail(err, RT_BAD_FILE, "%s: adapter_config.json names %s of layer %u, and its tensors are missing: is it another model's?",
                               dir, mosld_linear_names[i], layer);
            if (m && (m->d_in != d_in || m->d_out != d_out))
                return rt_fail(err, RT_BAD_FILE, "%s: %s of layer %u is %u x %u in the adapter and %u x %u in the model: it is another model's",
                               dir, mosld_linear_names[i], layer, m->d_out, m->d_in, d_out, d_in);
            found += m != NULL;
        }
    if (found != f->n_modules)
        return rt_fail(err, RT_BAD_FILE, "%s: has layers up to %u, the model has %u: it is another model's", dir, f->layers - 1, c->num_layers);
    return RT_OK;
}

float *mosld_lora_values(const struct mosld_lora_module *m)
{
    float *values = malloc(((size_t)m->r * m->d_in + (size_t)m->d_out * m->r) * sizeof *values);
    if (values) {
        dtype_to_f32(m->a->dtype, m->a->data, m->a->elements, values);
        dtype_to_f32(m->b->dtype, m->b->data, m->b->elements, values + m->a->elements);
    }
    return values;
}

void mosld_lora_add_row(const struct mosld_lora_module *m, const float *a, const float *b, uint32_t row, float *w)
{
    for (uint32_t k = 0; k < m->r; k++) {
        const float f = (float)(m->scale * b[(size_t)row * m->r + k]), *from = a + (size_t)k * m->d_in;
        for (uint32_t j = 0; j < m->d_in; j++)
            w[j] += f * from[j];
    }
}
