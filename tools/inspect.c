/* tools/inspect.c - mosld inspect: what is in a model, an adapter, a checkpoint, a safetensors or a GGUF file.
 *
 * One JSON document is made of what was found; --json prints it, else inspect_text.h does. Also files that mosld cannot
 * run are shown, with the reason why it cannot. */
#include "mosld/adapter/adapter_file.h"
#include "mosld/io/file.h"
#include "mosld/io/gguf.h"
#include "mosld/io/json.h"
#include "mosld/io/safetensors.h"
#include "mosld/model/model_file.h"
#include "tools/commands.h"
#include "tools/inspect_text.h"
#include "tools/options.h"
#include "tools/session.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_SETTINGS_BYTES = 64 << 20 };

/* ---- text from files ---- */

/* Bytes of a file as a JSON string: those that are not ASCII or would be control characters become '?' unless they are
 * whole UTF-8, which json_parse can tell. */
static cJSON *string_value(struct gguf_string s)
{
    char *copy = malloc(s.size + 1);
    if (!copy)
        return NULL;
    bool plain = true;
    for (size_t i = 0; i < s.size; i++)
        plain = plain && (unsigned char)s.data[i] < 0x80 && s.data[i] != '\0';
    memcpy(copy, s.data, s.size);
    copy[s.size] = '\0';
    if (!plain) { /* would a JSON reader take it? */
        cJSON *quoted = cJSON_CreateString(copy), *parsed = NULL;
        char *text = memchr(copy, '\0', s.size) ? NULL : cJSON_PrintUnformatted(quoted);
        plain = text && json_parse(text, strlen(text), "", 1, &parsed, NULL) == RT_OK;
        cJSON_free(text);
        cJSON_Delete(parsed);
        cJSON_Delete(quoted);
    }
    for (size_t i = 0; i < s.size && !plain; i++)
        if ((unsigned char)copy[i] >= 0x80 || copy[i] == '\0')
            copy[i] = '?';
    cJSON *value = cJSON_CreateString(copy);
    free(copy);
    return value;
}

/* ---- tensors ---- */

struct tally {
    uint64_t tensors[DTYPES], parameters[DTYPES], bytes[DTYPES];
    cJSON *list; /* NULL: no table wanted */
};

static void tally_tensor(struct tally *t, const char *name, enum dtype dtype, const uint64_t *shape, uint32_t rank,
                         uint64_t elements, uint64_t bytes)
{
    t->tensors[dtype]++;
    t->parameters[dtype] += elements;
    t->bytes[dtype] += bytes;
    if (!t->list)
        return;
    cJSON *item = cJSON_CreateObject();
    cJSON_AddItemToObject(item, "name", string_value((struct gguf_string){name, strlen(name)}));
    cJSON_AddStringToObject(item, "dtype", dtype_name(dtype));
    cJSON *dims = cJSON_AddArrayToObject(item, "shape");
    for (uint32_t i = 0; i < rank; i++)
        cJSON_AddItemToArray(dims, cJSON_CreateNumber((double)shape[i]));
    cJSON_AddNumberToObject(item, "bytes", (double)bytes);
    cJSON_AddItemToArray(t->list, item);
}

static void add_tally(cJSON *to, const struct tally *t)
{
    uint64_t tensors = 0, parameters = 0, bytes = 0;
    cJSON *types = cJSON_CreateObject();
    for (int i = 0; i < DTYPES; i++) {
        tensors += t->tensors[i];
        parameters += t->parameters[i];
        bytes += t->bytes[i];
        if (t->tensors[i] == 0)
            continue;
        cJSON *type = cJSON_AddObjectToObject(types, dtype_name((enum dtype)i));
        cJSON_AddNumberToObject(type, "tensors", (double)t->tensors[i]);
        cJSON_AddNumberToObject(type, "parameters", (double)t->parameters[i]);
        cJSON_AddNumberToObject(type, "bytes", (double)t->bytes[i]);
    }
    cJSON_AddNumberToObject(to, "tensor_count", (double)tensors);
    cJSON_AddNumberToObject(to, "parameters", (double)parameters);
    cJSON_AddNumberToObject(to, "bytes", (double)bytes);
    cJSON_AddItemToObject(to, "types", types);
    if (t->list)
        cJSON_AddItemToObject(to, "tensors", t->list);
}

static void add_safetensors(cJSON *to, const struct safetensors *s, bool list)
{
    struct tally tally = {.list = list ? cJSON_CreateArray() : NULL};
    for (size_t i = 0; i < safetensors_count(s); i++) {
        const struct safetensor *t = safetensors_at(s, i);
        tally_tensor(&tally, t->name, t->dtype, t->shape, t->rank, t->elements, t->bytes);
    }
    if (safetensors_metadata_count(s) > 0) {
        cJSON *metadata = cJSON_AddObjectToObject(to, "metadata");
        for (size_t i = 0; i < safetensors_metadata_count(s); i++) {
            const char *key, *value;
            safetensors_metadata_at(s, i, &key, &value);
            cJSON_AddStringToObject(metadata, key, value);
        }
    }
    add_tally(to, &tally);
}

static void add_gguf_tensors(cJSON *to, const struct gguf *g, bool list)
{
    struct tally tally = {.list = list ? cJSON_CreateArray() : NULL};
    for (size_t i = 0; i < gguf_tensor_count(g); i++) {
        const struct gguf_tensor *t = gguf_tensor_at(g, i);
        uint64_t shape[GGUF_MAX_DIMS];
        for (uint32_t d = 0; d < t->n_dims; d++)
            shape[d] = t->dims[t->n_dims - 1 - d];
        tally_tensor(&tally, t->name, t->dtype, shape, t->n_dims, t->elements, t->bytes);
    }
    add_tally(to, &tally);
}

/* ---- GGUF keys ---- */

static cJSON *key_value(const struct gguf *g, const struct gguf_key *key)
{
    struct gguf_string text;
    double number;
    bool flag;
    if (key->type == GGUF_ARRAY) {
        char summary[80];
        snprintf(summary, sizeof summary, "%llu x %s", (unsigned long long)key->count, gguf_type_name(key->element));
        return cJSON_CreateString(summary);
    }
    if (key->type == GGUF_STRING && gguf_get_string(g, key->name, &text, NULL) == RT_OK)
        return string_value(text);
    if (key->type == GGUF_BOOL && gguf_get_bool_or(g, key->name, false, &flag, NULL) == RT_OK)
        return cJSON_CreateBool(flag);
    if (gguf_get_number(g, key->name, -1e300, 1e300, &number, NULL) == RT_OK)
        return cJSON_CreateNumber(number);
    return cJSON_CreateString("not a finite number");
}

/* Names of keys are of the file, too. */
static void add_key(cJSON *to, const struct gguf *g, const struct gguf_key *key)
{
    cJSON *name = string_value((struct gguf_string){key->name, strlen(key->name)});
    if (name)
        cJSON_AddItemToObject(to, name->valuestring, key_value(g, key));
    cJSON_Delete(name);
}

/* ---- models ---- */

static void add_rope(cJSON *to, const struct mosld_config *c)
{
    cJSON_AddNumberToObject(to, "rope_theta", c->rope_theta);
    cJSON_AddStringToObject(to, "rope_type", mosld_rope_name(c->rope));
    if (c->rope == MOSLD_ROPE_LINEAR || c->rope == MOSLD_ROPE_LLAMA3)
        cJSON_AddNumberToObject(to, "rope_factor", c->rope_factor);
    if (c->rope == MOSLD_ROPE_LLAMA3) {
        cJSON_AddNumberToObject(to, "rope_low_freq_factor", c->rope_low_freq_factor);
        cJSON_AddNumberToObject(to, "rope_high_freq_factor", c->rope_high_freq_factor);
        cJSON_AddNumberToObject(to, "rope_original_positions", c->rope_original_positions);
    }
}

static void add_config(cJSON *document, const struct mosld_config *c)
{
    cJSON *to = cJSON_AddObjectToObject(document, "config");
    cJSON_AddStringToObject(to, "architecture", mosld_arch_name(c->arch));
    cJSON_AddNumberToObject(to, "vocab_size", c->vocab_size);
    cJSON_AddNumberToObject(to, "hidden_size", c->hidden_size);
    cJSON_AddNumberToObject(to, "intermediate_size", c->intermediate_size);
    cJSON_AddNumberToObject(to, "num_layers", c->num_layers);
    cJSON_AddNumberToObject(to, "num_heads", c->num_heads);
    cJSON_AddNumberToObject(to, "num_kv_heads", c->num_kv_heads);
    cJSON_AddNumberToObject(to, "head_dim", c->head_dim);
    cJSON_AddNumberToObject(to, "max_positions", c->max_positions);
    if (c->sliding_window)
        cJSON_AddNumberToObject(to, "sliding_window", c->sliding_window);
    cJSON_AddNumberToObject(to, "rms_norm_eps", c->rms_norm_eps);
    add_rope(to, c);
    cJSON_AddBoolToObject(to, "tie_word_embeddings", c->tie_word_embeddings);
    cJSON_AddBoolToObject(to, "qkv_bias", c->qkv_bias);
    cJSON_AddBoolToObject(to, "qk_norm", c->qk_norm);
    if (c->bos_id >= 0)
        cJSON_AddNumberToObject(to, "bos_id", (double)c->bos_id);
    cJSON *eos = cJSON_AddArrayToObject(to, "eos_ids");
    for (uint32_t i = 0; i < c->n_eos; i++)
        cJSON_AddItemToArray(eos, cJSON_CreateNumber((double)c->eos_id[i]));
}

/* Whether mosld runs it: the whole check that opening it for a run makes. */
static void add_runs(cJSON *document, const char *path)
{
    struct rt_error err = {0};
    struct mosld_model_file *file;
    struct mosld_config config;
    bool runs = mosld_model_file_open(path, &file, &err) == RT_OK;
    cJSON_AddBoolToObject(document, "runs", runs);
    if (!runs)
        cJSON_AddStringToObject(document, "reason", err.text);
    if (mosld_config_load(path, &config, NULL) == RT_OK)
        add_config(document, &config);
    mosld_model_file_close(&file);
}

static enum rt_status inspect_gguf(const char *path, bool tensors, cJSON *document, struct rt_error *err)
{
    struct gguf *g;
    enum rt_status st = gguf_open(path, &g, err);
    if (st != RT_OK)
        return st;
    cJSON_AddStringToObject(document, "kind", "model");
    cJSON_AddStringToObject(document, "format", "GGUF");
    cJSON_AddNumberToObject(document, "version", gguf_version(g));
    add_runs(document, path);
    cJSON *metadata = cJSON_AddObjectToObject(document, "metadata");
    for (size_t i = 0; i < gguf_key_count(g); i++)
        add_key(metadata, g, gguf_key_at(g, i));
    add_gguf_tensors(document, g, tensors);
    gguf_close(&g);
    return RT_OK;
}

static enum rt_status inspect_model_folder(const char *path, bool tensors, cJSON *document, struct rt_error *err)
{
    struct safetensors *s;
    enum rt_status st = safetensors_open_folder(path, &s, err);
    if (st != RT_OK)
        return st;
    cJSON_AddStringToObject(document, "kind", "model");
    cJSON_AddStringToObject(document, "format", "Hugging Face");
    add_runs(document, path);
    add_safetensors(document, s, tensors);
    safetensors_close(&s);
    return RT_OK;
}

/* ---- adapters, checkpoints, files ---- */

static enum rt_status inspect_safetensors(const char *path, bool tensors, cJSON *to, struct rt_error *err)
{
    struct safetensors *s;
    enum rt_status st = safetensors_open(path, &s, err);
    if (st == RT_OK)
        add_safetensors(to, s, tensors);
    safetensors_close(&s);
    return st;
}

/* Puts the JSON object in folder/name into the document under `as`. */
static enum rt_status add_settings(const char *folder, const char *name, const char *as, cJSON *document,
                                   struct rt_error *err)
{
    char *path = file_join(folder, name);
    if (!path)
        return rt_fail(err, RT_NO_MEMORY, "%s: no memory", folder);
    cJSON *json = NULL;
    enum rt_status st = json_read_file(path, MAX_SETTINGS_BYTES, &json, err);
    if (st == RT_OK && !cJSON_IsObject(json)) {
        st = rt_fail(err, RT_BAD_FILE, "%s: must be a JSON object", path);
        cJSON_Delete(json);
    }
    if (st == RT_OK)
        cJSON_AddItemToObject(document, as, json);
    free(path);
    return st;
}

static enum rt_status add_tensor_file(const char *folder, const char *name, const char *as, bool tensors,
                                      cJSON *document, struct rt_error *err)
{
    char *path = file_join(folder, name);
    if (!path)
        return rt_fail(err, RT_NO_MEMORY, "%s: no memory", folder);
    enum rt_status st = inspect_safetensors(path, tensors, as ? cJSON_AddObjectToObject(document, as) : document, err);
    free(path);
    return st;
}

/* Why mosld cannot run a LoRA or MoSLD adapter is shown; an adapter of another family is an error that names it. */
static enum rt_status add_adapter_runs(const char *path, cJSON *document, struct rt_error *err)
{
    struct mosld_adapter_params params;
    struct rt_error why;
    const cJSON *type = json_find(cJSON_GetObjectItem(document, "config"), "peft_type");
    if (mosld_adapter_read_params(path, &params, &why) == RT_OK)
        return RT_OK;
    if (!cJSON_IsString(type) || (strcmp(type->valuestring, "LORA") != 0 && strcmp(type->valuestring, "MOSLD") != 0))
        return rt_fail(err, why.status, "%s", why.text);
    cJSON_AddFalseToObject(document, "runs");
    cJSON_AddStringToObject(document, "reason", why.text);
    return RT_OK;
}

static enum rt_status inspect_adapter(const char *path, bool tensors, cJSON *document, struct rt_error *err)
{
    cJSON_AddStringToObject(document, "kind", "adapter");
    enum rt_status st = add_settings(path, "adapter_config.json", "config", document, err);
    if (st == RT_OK)
        st = add_adapter_runs(path, document, err);
    return st == RT_OK ? add_tensor_file(path, "adapter_model.safetensors", NULL, tensors, document, err) : st;
}

static enum rt_status inspect_checkpoint(const char *path, bool tensors, cJSON *document, struct rt_error *err)
{
    cJSON_AddStringToObject(document, "kind", "checkpoint");
    enum rt_status st = add_settings(path, "trainer_state.json", "state", document, err);
    if (st == RT_OK)
        st = add_settings(path, "adapter_config.json", "config", document, err);
    if (st == RT_OK)
        st = add_tensor_file(path, "optimizer.safetensors", "optimizer", tensors, document, err);
    return st == RT_OK ? add_tensor_file(path, "adapter_model.safetensors", NULL, tensors, document, err) : st;
}

static bool folder_has(const char *folder, const char *name)
{
    char *path = file_join(folder, name);
    bool has = path && file_is_regular(path);
    free(path);
    return has;
}

static bool begins_with_gguf(const char *path)
{
    char magic[4] = "";
    FILE *file = file_is_regular(path) ? fopen(path, "rb") : NULL;
    size_t n = file ? fread(magic, 1, sizeof magic, file) : 0;
    if (file)
        fclose(file);
    return n == sizeof magic && memcmp(magic, "GGUF", 4) == 0;
}

static enum rt_status inspect(const char *path, bool tensors, cJSON *document, struct rt_error *err)
{
    cJSON_AddStringToObject(document, "path", path);
    if (!file_is_folder(path)) {
        size_t n = strlen(path);
        if (begins_with_gguf(path) || (n > 5 && strcmp(path + n - 5, ".gguf") == 0))
            return inspect_gguf(path, tensors, document, err);
        cJSON_AddStringToObject(document, "kind", "safetensors");
        return inspect_safetensors(path, tensors, document, err);
    }
    if (folder_has(path, "trainer_state.json"))
        return inspect_checkpoint(path, tensors, document, err);
    if (folder_has(path, "adapter_config.json"))
        return inspect_adapter(path, tensors, document, err);
    if (folder_has(path, "config.json"))
        return inspect_model_folder(path, tensors, document, err);
    return rt_fail(err, RT_BAD_FILE,
                   "%s: has no config.json, adapter_config.json or trainer_state.json: it is no model, adapter or "
                   "checkpoint",
                   path);
}

/* ---- the command ---- */

static enum rt_status print_document(const cJSON *document, bool json, struct rt_error *err)
{
    if (json) {
        char *text = cJSON_Print(document);
        if (!text)
            return rt_fail(err, RT_NO_MEMORY, "no memory for the document");
        puts(text);
        cJSON_free(text);
    } else {
        inspect_print_text(document, stdout);
    }
    return fflush(stdout) == 0 ? RT_OK : rt_fail(err, RT_FAILED, "standard output cannot be written");
}

struct inspect_values {
    bool json, tensors;
};

static const struct option table[] = {
    {.name = "tensors",
     OPTION_BOOL(struct inspect_values, tensors),
     .help = "also list every tensor: name, type, shape"},
    {.name = "json", OPTION_BOOL(struct inspect_values, json), .help = "one JSON document on standard output"},
};

static const char usage[] = "mosld inspect PATH [--tensors] [--json]\n"
                            "PATH: a model (a Hugging Face folder or a GGUF file), an adapter, a checkpoint,\n"
                            "or a safetensors file. Of a model it says whether mosld runs it.";

static enum rt_status run(const struct options *o, const struct inspect_values *v, struct rt_error *err)
{
    if (o->help) {
        options_print_help(o, stdout);
        return RT_OK;
    }
    if (o->arguments.n != 1)
        return rt_fail(err, RT_USAGE, "name the file or folder to look at: mosld inspect PATH");
    cJSON *document = cJSON_CreateObject();
    enum rt_status st =
        document ? inspect(o->arguments.item[0], v->tensors, document, err) : rt_fail(err, RT_NO_MEMORY, "no memory");
    if (st == RT_OK)
        st = print_document(document, v->json, err);
    cJSON_Delete(document);
    return st;
}

int cmd_inspect(int argc, char **argv)
{
    struct inspect_values values = {0};
    struct rt_error err = {0};
    struct options o = {0};
    enum rt_status st = options_init(&o, usage, table, sizeof table / sizeof *table, &values, &err);
    o.max_arguments = 1;
    if (st == RT_OK)
        st = options_parse(&o, argc, argv, &err);
    if (st == RT_OK)
        st = run(&o, &values, &err);
    options_finish(&o);
    return st == RT_OK ? 0 : session_exit("inspect", st, &err);
}
