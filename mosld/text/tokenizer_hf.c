/* mosld/text/tokenizer_hf.c - a tokenizer from a Hugging Face directory: tokenizer.json and the files beside it. */
#include "mosld/text/hf_json.h"
#include "mosld/text/tokenizer_parts.h"
#include "mosld/text/utf8.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* The largest tokenizer.json of today has some 35 MB. */
#define MAX_FILE ((size_t)512 << 20)

/* Reads dir/name into `out`. `required` false: a missing file is an empty buffer. */
static enum rt_status read_beside(const char *dir, const char *name, bool required, struct text_buf *out,
                                  struct rt_error *err)
{
    char path[PATH_MAX];
    struct stat info;
    out->len = 0;
    if (snprintf(path, sizeof path, "%s/%s", dir, name) >= (int)sizeof path)
        return rt_fail(err, RT_BAD_FILE, "%.200s...: the path is too long", dir);
    FILE *f = fopen(path, "rb");
    if (!f && errno == ENOENT && !required)
        return RT_OK;
    if (!f && errno == ENOENT)
        return rt_fail(err, RT_BAD_FILE,
                       "%s: there is no such file, and it is what a tokenizer is read from "
                       "(tokenizer.model alone does not do)",
                       path);
    if (!f)
        return rt_fail(err, RT_BAD_FILE, "%s: %s", path, strerror(errno));
    enum rt_status st = RT_OK;
    if (fstat(fileno(f), &info) != 0 || !S_ISREG(info.st_mode))
        st = rt_fail(err, RT_BAD_FILE, "%s: not a regular file", path);
    else if ((uint64_t)info.st_size > MAX_FILE)
        st = rt_fail(err, RT_BAD_FILE, "%s: %lld bytes are too many, %zu are allowed", path, (long long)info.st_size,
                     MAX_FILE);
    else if (!text_buf_reserve(out, (size_t)info.st_size + 1))
        st = rt_fail(err, RT_NO_MEMORY, "%s: no memory for %lld bytes", path, (long long)info.st_size);
    if (st == RT_OK) {
        out->len = fread(out->data, 1, (size_t)info.st_size, f);
        if (out->len != (size_t)info.st_size)
            st = rt_fail(err, RT_BAD_FILE, "%s: cannot be read to its end", path);
    }
    fclose(f);
    return st;
}

/* Reads and parses dir/name; *out is NULL when an optional file is missing. Messages have the path in front. */
static enum rt_status parse_beside(const char *dir, const char *name, cJSON **out, struct rt_error *err)
{
    struct text_buf text = {0};
    *out = NULL;
    enum rt_status st = read_beside(dir, name, false, &text, err);
    if (st == RT_OK && text.data) {
        st = hf_parse(text.data, text.len, out, err);
        if (st != RT_OK)
            rt_error_prefix(err, "%s/%s", dir, name);
    }
    text_buf_finish(&text);
    return st;
}

/* A token given as "text" or {"content": "text"}; sets *id when the vocabulary has it. One that it lacks stays out, as
 * configurations name tokens that their vocabulary never had. */
static enum rt_status read_named(const struct mosld_tokenizer *t, const cJSON *config, const char *key, uint32_t *id,
                                 struct rt_error *err)
{
    const cJSON *token = hf_get(config, key);
    if (cJSON_IsObject(token))
        token = hf_get(token, "content");
    if (!token)
        return RT_OK;
    if (!cJSON_IsString(token))
        return rt_fail(err, RT_BAD_FILE, "'%s' is neither a string nor an object with 'content'", key);
    uint32_t found = vocab_find(&t->vocab, token->valuestring, strlen(token->valuestring));
    if (found != VOCAB_NONE)
        *id = found;
    return RT_OK;
}

static enum rt_status read_names(struct mosld_tokenizer *t, const cJSON *config, struct rt_error *err)
{
    enum rt_status st = read_named(t, config, "bos_token", &t->bos, err);
    if (st == RT_OK)
        st = read_named(t, config, "eos_token", &t->eos, err);
    if (st == RT_OK)
        st = read_named(t, config, "pad_token", &t->pad, err);
    return st;
}

static enum rt_status set_template(struct mosld_tokenizer *t, const char *text, size_t len, struct rt_error *err)
{
    char *copy = strndup(text, len);
    if (!copy)
        return rt_fail(err, RT_NO_MEMORY, "no memory for the chat template");
    free(t->chat_template);
    t->chat_template = copy;
    return RT_OK;
}

/* A template is a string, or a list of {name, template} of which "default" counts. */
static enum rt_status read_template(struct mosld_tokenizer *t, const cJSON *config, struct rt_error *err)
{
    const cJSON *node = hf_get(config, "chat_template"), *entry;
    if (cJSON_IsArray(node)) {
        const cJSON *list = node;
        node = NULL;
        cJSON_ArrayForEach(entry, list)
        {
            const cJSON *name = hf_get(entry, "name");
            if (cJSON_IsString(name) && strcmp(name->valuestring, "default") == 0)
                node = hf_get(entry, "template");
        }
    }
    if (!node)
        return RT_OK;
    if (!cJSON_IsString(node))
        return rt_fail(err, RT_BAD_FILE, "'chat_template' is not a string");
    return set_template(t, node->valuestring, strlen(node->valuestring), err);
}

/* Tokens that only tokenizer_config.json knows. Those of tokenizer.json stand in both. */
static enum rt_status read_added_decoder(struct mosld_tokenizer *t, const cJSON *config, struct rt_error *err)
{
    const cJSON *node;
    cJSON_ArrayForEach(node, hf_get(config, "added_tokens_decoder"))
    {
        char *end = NULL;
        unsigned long id = strtoul(node->string ? node->string : "", &end, 10);
        if (!end || end == node->string || *end || id >= VOCAB_MAX_ID)
            return rt_fail(err, RT_BAD_FILE, "added_tokens_decoder: '%.60s' is not a token id",
                           node->string ? node->string : "");
        if (vocab_flags(&t->vocab, (uint32_t)id) != 0)
            continue;
        enum rt_status st = tokenizer_read_added(t, node, (uint32_t)id, err);
        if (st != RT_OK)
            return rt_error_prefix(err, "added_tokens_decoder['%s']", node->string);
    }
    return RT_OK;
}

static enum rt_status read_config(struct mosld_tokenizer *t, const char *dir, struct rt_error *err)
{
    cJSON *map = NULL, *config = NULL;
    const char *name = "special_tokens_map.json";
    enum rt_status st = parse_beside(dir, name, &map, err);
    if (st == RT_OK)
        st = parse_beside(dir, "tokenizer_config.json", &config, err);
    if (st != RT_OK) {
        cJSON_Delete(map);
        return st;
    }
    st = map ? read_names(t, map, err) : RT_OK;
    if (st == RT_OK && config) {
        name = "tokenizer_config.json";
        st = read_added_decoder(t, config, err);
        if (st == RT_OK)
            st = read_names(t, config, err);
        if (st == RT_OK)
            st = hf_bool(config, "add_bos_token", t->add_bos, &t->add_bos, err);
        if (st == RT_OK)
            st = read_template(t, config, err);
    }
    if (st != RT_OK)
        rt_error_prefix(err, "%s/%s", dir, name);
    cJSON_Delete(map);
    cJSON_Delete(config);
    return st;
}

/* eos_token_id is one id or a list. */
static enum rt_status read_ends(struct mosld_tokenizer *t, const char *dir, struct rt_error *err)
{
    cJSON *config = NULL;
    enum rt_status st = parse_beside(dir, "generation_config.json", &config, err);
    const cJSON *node = hf_get(config, "eos_token_id");
    tokenizer_add_end(t, t->eos);
    for (const cJSON *e = cJSON_IsArray(node) ? node->child : node; st == RT_OK && e; e = node == e ? NULL : e->next) {
        uint32_t id = 0;
        st = hf_id(e, "'eos_token_id'", VOCAB_MAX_ID - 1, &id, err);
        if (st != RT_OK)
            rt_error_prefix(err, "%s/generation_config.json", dir);
        else if (vocab_flags(&t->vocab, id) != 0)
            tokenizer_add_end(t, id);
    }
    cJSON_Delete(config);
    return st;
}

/* The template may have a file of its own, which wins over the configuration's. */
static enum rt_status read_template_files(struct mosld_tokenizer *t, const char *dir, struct rt_error *err)
{
    struct text_buf text = {0};
    cJSON *doc = NULL;
    enum rt_status st = parse_beside(dir, "chat_template.json", &doc, err);
    if (st == RT_OK && doc && (st = read_template(t, doc, err)) != RT_OK)
        rt_error_prefix(err, "%s/chat_template.json", dir);
    if (st == RT_OK)
        st = read_beside(dir, "chat_template.jinja", false, &text, err);
    if (st == RT_OK && text.data && !utf8_valid(text.data, text.len))
        st = rt_fail(err, RT_BAD_FILE, "%s/chat_template.jinja: not valid UTF-8", dir);
    if (st == RT_OK && text.data)
        st = set_template(t, text.data, text.len, err);
    text_buf_finish(&text);
    cJSON_Delete(doc);
    return st;
}

static enum rt_status read_tokenizer(struct mosld_tokenizer *t, const char *dir, struct rt_error *err)
{
    struct text_buf text = {0};
    enum rt_status st = read_beside(dir, "tokenizer.json", true, &text, err);
    if (st == RT_OK && (st = tokenizer_read_json(t, text.data, text.len, err)) != RT_OK)
        rt_error_prefix(err, "%s/tokenizer.json", dir);
    text_buf_finish(&text);
    return st;
}

enum rt_status mosld_tokenizer_open_dir(const char *dir, struct mosld_tokenizer **out, struct rt_error *err)
{
    struct mosld_tokenizer *t = tokenizer_new();
    *out = NULL;
    if (!t)
        return rt_fail(err, RT_NO_MEMORY, "no memory for a tokenizer");
    enum rt_status st = read_tokenizer(t, dir, err);
    if (st == RT_OK)
        st = read_config(t, dir, err);
    if (st == RT_OK)
        st = read_ends(t, dir, err);
    if (st == RT_OK)
        st = read_template_files(t, dir, err);
    if (st == RT_OK && (st = tokenizer_complete(t, err)) != RT_OK)
        rt_error_prefix(err, "%s/tokenizer.json", dir);
    if (st != RT_OK) {
        mosld_tokenizer_close(t);
        return st;
    }
    *out = t;
    return RT_OK;
}
