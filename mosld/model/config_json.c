/* mosld/model/config_json.c - reads config.json and generation_config.json, old and new key names. See config.h. */
#include "mosld/io/file.h"
#include "mosld/io/json.h"
#include "mosld/model/config_parts.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_CONFIG_BYTES = 4 << 20 };

struct reader {
    const cJSON *json;
    const char *path;
    struct mosld_config *c;
    struct rt_error *err;
};

/* ---- which architecture ---- */

static const struct {
    const char *class_name, *model_type;
} archs[MOSLD_ARCHS] = {
    [MOSLD_LLAMA] = {"LlamaForCausalLM", "llama"},
    [MOSLD_MISTRAL] = {"MistralForCausalLM", "mistral"},
    [MOSLD_QWEN2] = {"Qwen2ForCausalLM", "qwen2"},
    [MOSLD_QWEN3] = {"Qwen3ForCausalLM", "qwen3"},
};

static enum rt_status fail_arch(const struct reader *r, const char *name)
{
    return rt_fail(r->err, RT_BAD_FILE,
                   "%s: the architecture %.100s is not supported; mosld runs LlamaForCausalLM, MistralForCausalLM, "
                   "Qwen2ForCausalLM and Qwen3ForCausalLM",
                   r->path, name);
}

/* "architectures" says it; a config without that is taken by its model_type, and the two must not contradict each
 * other. */
static enum rt_status read_arch(struct reader *r)
{
    const char *type, *class_name = NULL;
    const cJSON *list;
    enum rt_status st = json_string_or(r->json, "model_type", r->path, NULL, &type, r->err);
    if (st == RT_OK)
        st = json_array_or(r->json, "architectures", r->path, &list, r->err);
    if (st != RT_OK)
        return st;
    if (list && cJSON_GetArraySize(list) > 0) {
        class_name = cJSON_GetStringValue(cJSON_GetArrayItem(list, 0));
        if (!class_name || cJSON_GetArraySize(list) > 1)
            return rt_fail(r->err, RT_BAD_FILE, "%s: \"architectures\" must hold one string", r->path);
    }
    if (!class_name && !type)
        return rt_fail(r->err, RT_BAD_FILE, "%s: has neither \"architectures\" nor \"model_type\"", r->path);
    for (int i = 0; i < MOSLD_ARCHS; i++) {
        if (strcmp(class_name ? class_name : type, class_name ? archs[i].class_name : archs[i].model_type) != 0)
            continue;
        if (type && strcmp(type, archs[i].model_type) != 0)
            return rt_fail(r->err, RT_BAD_FILE, "%s: \"architectures\" says %s, \"model_type\" says %.60s", r->path,
                           class_name, type);
        r->c->arch = (enum mosld_arch)i;
        return RT_OK;
    }
    return fail_arch(r, class_name ? class_name : type);
}

/* ---- what mosld does not run ---- */

/* Keys that change the computation, and the one number (besides null and false) at which they do not. */
static const struct {
    const char *key;
    double harmless;
} refused[] = {
    {"mlp_bias", 0},
    {"attention_bias", 0},
    {"num_local_experts", 0},
    {"num_experts", 0},
    {"n_routed_experts", 0},
    {"partial_rotary_factor", 1},
    {"attn_logit_softcapping", 0},
    {"final_logit_softcapping", 0},
    {"use_qk_norm", 0},
    {"embedding_multiplier", 1},
    {"residual_multiplier", 1},
    {"logits_scaling", 1},
    {"attention_multiplier", NAN},
    {"query_pre_attn_scalar", NAN},
    {"no_rope_layer_interval", 0},
    {"add_cross_attention", 0},
};

static enum rt_status check_refused(const struct reader *r, const cJSON *object, const char *path)
{
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        const cJSON *value = json_find(object, refused[i].key);
        if (!value || cJSON_IsFalse(value) || (cJSON_IsNumber(value) && value->valuedouble == refused[i].harmless))
            continue;
        char *text = cJSON_PrintUnformatted(value);
        enum rt_status st = rt_fail(r->err, RT_BAD_FILE, "%s: \"%s\" is %.40s: mosld does not run models with that",
                                    path, refused[i].key, text ? text : "set");
        cJSON_free(text);
        return st;
    }
    return RT_OK;
}

static enum rt_status check_quantization(const struct reader *r)
{
    const cJSON *q = json_find(r->json, "quantization_config");
    if (!q)
        return RT_OK;
    const char *method = cJSON_GetStringValue(json_find(q, "quant_method"));
    return rt_fail(r->err, RT_BAD_FILE,
                   "%s: \"quantization_config\": quantised weights (%.40s) are not read from Hugging Face folders; "
                   "take the unquantised model, or a GGUF file of type Q8_0, Q4_0 or Q4_1",
                   r->path, method ? method : "of an unnamed method");
}

static enum rt_status check_no_rope(const struct reader *r)
{
    const cJSON *layers = json_find(r->json, "no_rope_layers"), *item;
    cJSON_ArrayForEach(item, layers)
        if (!cJSON_IsNumber(item) || item->valuedouble == 0)
            return rt_fail(r->err, RT_BAD_FILE,
                           "%s: \"no_rope_layers\": layers without rotary embedding are not supported", r->path);
    return RT_OK;
}

static enum rt_status check_activation(const struct reader *r)
{
    const char *act;
    enum rt_status st = json_string_or(r->json, "hidden_act", r->path, "silu", &act, r->err);
    if (st == RT_OK && strcmp(act, "silu") != 0 && strcmp(act, "swish") != 0)
        st = rt_fail(r->err, RT_BAD_FILE, "%s: \"hidden_act\" is %.40s; mosld runs silu", r->path, act);
    return st;
}

/* ---- sizes ---- */

enum when_missing { REQUIRED = -1 }; /* any other number is the default */

static enum rt_status read_u32(const struct reader *r, const char *key, int64_t max, int64_t fallback, uint32_t *out)
{
    int64_t value;
    enum rt_status st = fallback == REQUIRED ? json_integer(r->json, key, r->path, 1, max, &value, r->err)
                                             : json_integer_or(r->json, key, r->path, 1, max, fallback, &value, r->err);
    if (st == RT_OK)
        *out = (uint32_t)value;
    return st;
}

/* Defaults are those of the configuration classes of Transformers, where they are sure to be meant. */
static enum rt_status read_sizes(struct reader *r)
{
    struct mosld_config *c = r->c;
    bool llama = c->arch == MOSLD_LLAMA;
    enum rt_status st = read_u32(r, "vocab_size", CONFIG_MAX_VOCAB, REQUIRED, &c->vocab_size);
    if (st == RT_OK)
        st = read_u32(r, "hidden_size", CONFIG_MAX_HIDDEN, REQUIRED, &c->hidden_size);
    if (st == RT_OK)
        st = read_u32(r, "intermediate_size", CONFIG_MAX_INTERMEDIATE, REQUIRED, &c->intermediate_size);
    if (st == RT_OK)
        st = read_u32(r, "num_hidden_layers", CONFIG_MAX_LAYERS, REQUIRED, &c->num_layers);
    if (st == RT_OK)
        st = read_u32(r, "num_attention_heads", CONFIG_MAX_HEADS, REQUIRED, &c->num_heads);
    if (st == RT_OK)
        st = read_u32(r, "num_key_value_heads", CONFIG_MAX_HEADS, llama ? (int64_t)c->num_heads : REQUIRED,
                      &c->num_kv_heads);
    if (st == RT_OK)
        st = read_u32(r, "head_dim", MOSLD_MAX_HEAD_DIM, c->arch == MOSLD_QWEN3 ? 128 : 0, &c->head_dim);
    if (st == RT_OK)
        st = read_u32(r, "max_position_embeddings", CONFIG_MAX_POSITIONS, llama ? 2048 : REQUIRED,
                      &c->declared_positions);
    if (st == RT_OK)
        st = json_number_or(r->json, "rms_norm_eps", r->path, 1e-30, CONFIG_MAX_EPS, 1e-6, &c->rms_norm_eps, r->err);
    if (st == RT_OK)
        st = json_bool_or(r->json, "tie_word_embeddings", r->path, false, &c->tie_word_embeddings, r->err);
    return st;
}

static enum rt_status read_dtype(struct reader *r)
{
    const char *dtype;
    enum rt_status st = json_string_or(r->json, "torch_dtype", r->path, "", &dtype, r->err);
    if (st == RT_OK)
        st = json_string_or(r->json, "dtype", r->path, dtype, &dtype, r->err);
    if (st == RT_OK)
        snprintf(r->c->dtype, sizeof r->c->dtype, "%.15s", dtype);
    return st;
}

/* ---- rotary embedding ---- */

static enum rt_status rope_type(const struct reader *r, const cJSON *rope, const char *path, const char **type)
{
    enum rt_status st = json_string_or(rope, "type", path, "default", type, r->err);
    return st == RT_OK ? json_string_or(rope, "rope_type", path, *type, type, r->err) : st;
}

static enum rt_status read_llama3(const struct reader *r, const cJSON *rope, const char *path)
{
    struct mosld_config *c = r->c;
    int64_t original = 0;
    enum rt_status st = json_number(rope, "factor", path, 1, CONFIG_MAX_ROPE_FACTOR, &c->rope_factor, r->err);
    if (st == RT_OK)
        st = json_number(rope, "low_freq_factor", path, 1e-6, 1e6, &c->rope_low_freq_factor, r->err);
    if (st == RT_OK)
        st = json_number(rope, "high_freq_factor", path, 1e-6, 1e6, &c->rope_high_freq_factor, r->err);
    if (st == RT_OK)
        st = json_integer(rope, "original_max_position_embeddings", path, 1, CONFIG_MAX_POSITIONS, &original, r->err);
    if (st == RT_OK && c->rope_high_freq_factor <= c->rope_low_freq_factor)
        st = rt_fail(r->err, RT_BAD_FILE, "%s: \"high_freq_factor\" %g must be above \"low_freq_factor\" %g", path,
                     c->rope_high_freq_factor, c->rope_low_freq_factor);
    c->rope_original_positions = (uint32_t)original;
    return st;
}

static enum rt_status read_scaling(const struct reader *r, const cJSON *rope, const char *path)
{
    const char *type;
    enum rt_status st = rope_type(r, rope, path, &type);
    if (st == RT_OK)
        st = json_number_or(rope, "rope_theta", path, 1, CONFIG_MAX_THETA, r->c->rope_theta, &r->c->rope_theta, r->err);
    if (st == RT_OK)
        st = check_refused(r, rope, path);
    if (st != RT_OK || strcmp(type, "default") == 0)
        return st;
    if (strcmp(type, "linear") == 0) {
        r->c->rope = MOSLD_ROPE_LINEAR;
        return json_number(rope, "factor", path, 1, CONFIG_MAX_ROPE_FACTOR, &r->c->rope_factor, r->err);
    }
    if (strcmp(type, "llama3") == 0) {
        r->c->rope = MOSLD_ROPE_LLAMA3;
        return read_llama3(r, rope, path);
    }
    return rt_fail(r->err, RT_BAD_FILE,
                   "%s: the rope scaling %.40s is not supported; mosld runs default, linear and llama3", path, type);
}

/* Transformers 5 writes "rope_parameters" with rope_theta inside, perhaps by layer type; earlier ones "rope_scaling"
 * beside "rope_theta". */
static enum rt_status read_rope(struct reader *r)
{
    const cJSON *old, *rope;
    enum rt_status st =
        json_number_or(r->json, "rope_theta", r->path, 1, CONFIG_MAX_THETA, 10000, &r->c->rope_theta, r->err);
    if (st == RT_OK)
        st = json_object_or(r->json, "rope_scaling", r->path, &old, r->err);
    if (st == RT_OK)
        st = json_object_or(r->json, "rope_parameters", r->path, &rope, r->err);
    if (st != RT_OK)
        return st;
    char where[600];
    snprintf(where, sizeof where, "%.500s: \"%s\"", r->path, rope ? "rope_parameters" : "rope_scaling");
    if (rope && json_find(rope, "full_attention"))
        st = json_object(rope, "full_attention", where, &rope, r->err);
    if (st == RT_OK && rope && old) {
        const char *a, *b;
        st = rope_type(r, rope, where, &a);
        if (st == RT_OK)
            st = rope_type(r, old, r->path, &b);
        if (st == RT_OK && strcmp(a, b) != 0)
            st = rt_fail(r->err, RT_BAD_FILE,
                         "%s: \"rope_parameters\" says %.40s, \"rope_scaling\" says %.40s: remove one", r->path, a, b);
    }
    if (st != RT_OK)
        return st;
    const cJSON *which = rope ? rope : old;
    return which ? read_scaling(r, which, where) : RT_OK;
}

/* ---- sliding window ---- */

/* Mistral slides where a window is given (and its class gives 4096 where the key is missing); Qwen where it is switched
 * on, from a layer on. */
static enum rt_status read_window(struct reader *r)
{
    struct mosld_config *c = r->c;
    bool use = c->arch == MOSLD_MISTRAL;
    uint32_t first = 0;
    enum rt_status st = RT_OK;
    if (c->arch == MOSLD_QWEN2 || c->arch == MOSLD_QWEN3) {
        int64_t from;
        st = json_bool_or(r->json, "use_sliding_window", r->path, false, &use, r->err);
        if (st == RT_OK)
            st = json_integer_or(r->json, "max_window_layers", r->path, 0, 1 << 20, 28, &from, r->err);
        if (st == RT_OK)
            first = (uint32_t)from;
    }
    const cJSON *given = cJSON_GetObjectItemCaseSensitive(r->json, "sliding_window");
    c->slides_everywhere = first == 0;
    bool switched_off = !use || first >= c->num_layers || cJSON_IsNull(given);
    return st != RT_OK || switched_off ? st
                                       : read_u32(r, "sliding_window", CONFIG_MAX_POSITIONS, 4096, &c->sliding_window);
}

static enum rt_status check_layer_types(const struct reader *r)
{
    const cJSON *list, *item;
    enum rt_status st = json_array_or(r->json, "layer_types", r->path, &list, r->err);
    if (st != RT_OK)
        return st;
    cJSON_ArrayForEach(item, list) {
        const char *type = cJSON_GetStringValue(item);
        r->c->slides_everywhere = r->c->slides_everywhere && type && strcmp(type, "sliding_attention") == 0;
        bool slides = type && strcmp(type, "sliding_attention") == 0 && r->c->sliding_window > 0;
        if (!slides && (!type || strcmp(type, "full_attention") != 0))
            return rt_fail(r->err, RT_BAD_FILE, "%s: \"layer_types\" has %.60s; mosld runs full_attention", r->path,
                           type ? type : "no string");
    }
    return RT_OK;
}

/* ---- special tokens ---- */

static enum rt_status add_eos(const struct reader *r, const cJSON *value)
{
    int64_t id;
    enum rt_status st = json_to_integer(value, "eos_token_id", r->path, 0, (int64_t)r->c->vocab_size - 1, &id, r->err);
    if (st == RT_OK && !config_add_eos(r->c, id))
        st = rt_fail(r->err, RT_BAD_FILE, "%s: more than %d end tokens are named", r->path, MOSLD_MAX_EOS);
    return st;
}

static enum rt_status read_eos(const struct reader *r)
{
    const cJSON *value = json_find(r->json, "eos_token_id"), *item;
    if (!value)
        return RT_OK;
    if (!cJSON_IsArray(value))
        return add_eos(r, value);
    enum rt_status st = RT_OK;
    cJSON_ArrayForEach(item, value)
        if (st == RT_OK)
            st = add_eos(r, item);
    return st;
}

static enum rt_status read_generation_config(const char *folder, struct mosld_config *c, struct rt_error *err)
{
    char *path = file_join(folder, "generation_config.json");
    if (!path)
        return rt_fail(err, RT_NO_MEMORY, "%s: no memory", folder);
    cJSON *json = NULL;
    enum rt_status st = RT_OK;
    if (file_is_regular(path)) {
        st = json_read_file(path, MAX_CONFIG_BYTES, &json, err);
        if (st == RT_OK)
            st = read_eos(&(struct reader){.json = json, .path = path, .c = c, .err = err});
    }
    cJSON_Delete(json);
    free(path);
    return st;
}

/* ---- all of it ---- */

static enum rt_status read_config(struct reader *r)
{
    if (!cJSON_IsObject(r->json))
        return rt_fail(r->err, RT_BAD_FILE, "%s: must be a JSON object", r->path);
    enum rt_status (*const steps[])(struct reader *) = {read_arch, read_sizes, read_dtype, read_rope, read_window};
    enum rt_status (*const checks[])(const struct reader *) = {check_quantization, check_no_rope, check_activation,
                                                               check_layer_types, read_eos};
    r->c->bos_id = -1;
    enum rt_status st = RT_OK;
    for (size_t i = 0; i < sizeof steps / sizeof *steps && st == RT_OK; i++)
        st = steps[i](r);
    if (st == RT_OK)
        st = check_refused(r, r->json, r->path);
    for (size_t i = 0; i < sizeof checks / sizeof *checks && st == RT_OK; i++)
        st = checks[i](r);
    if (st == RT_OK)
        st = json_integer_or(r->json, "bos_token_id", r->path, 0, (int64_t)r->c->vocab_size - 1, -1, &r->c->bos_id,
                             r->err);
    return st == RT_OK ? config_finish(r->c, r->path, r->err) : st;
}

enum rt_status mosld_config_from_json(const char *path, struct mosld_config *out, struct rt_error *err)
{
    *out = (struct mosld_config){0};
    cJSON *json = NULL;
    enum rt_status st = json_read_file(path, MAX_CONFIG_BYTES, &json, err);
    if (st == RT_OK)
        st = read_config(&(struct reader){.json = json, .path = path, .c = out, .err = err});
    cJSON_Delete(json);
    return st;
}

enum rt_status mosld_config_from_folder(const char *folder, struct mosld_config *out, struct rt_error *err)
{
    char *path = file_join(folder, "config.json");
    if (!path)
        return rt_fail(err, RT_NO_MEMORY, "%s: no memory", folder);
    enum rt_status st = mosld_config_from_json(path, out, err);
    if (st == RT_OK)
        st = read_generation_config(folder, out, err);
    free(path);
    return st;
}
