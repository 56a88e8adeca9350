/* mosld/text/tokenizer_open.c - a tokenizer from a model's path, or from an open GGUF file: fetches the arrays of
 * tokenizer.ggml.* for tokenizer_gguf.c. See tokenizer.h. */
#include "mosld/io/file.h"
#include "mosld/io/gguf.h"
#include "mosld/text/tokenizer_parts.h"

#include <stdlib.h>
#include <string.h>

/* The arrays of a file while a tokenizer is made of them. */
struct gguf_arrays {
    struct gguf_string *tokens, *merges;
    int64_t *types;
    int32_t *types32;
    float *scores;
    char *model, *pre, *chat_template;
    size_t type_count, score_count;
};

static const char *token_at(const void *context, size_t i, size_t *len)
{
    const struct gguf_string *s = &((const struct gguf_arrays *)context)->tokens[i];
    *len = s->size;
    return s->data;
}

static const char *merge_at(const void *context, size_t i, size_t *len)
{
    const struct gguf_string *s = &((const struct gguf_arrays *)context)->merges[i];
    *len = s->size;
    return s->data;
}

static void arrays_finish(struct gguf_arrays *a)
{
    free(a->tokens);
    free(a->merges);
    free(a->types);
    free(a->types32);
    free(a->scores);
    free(a->model);
    free(a->pre);
    free(a->chat_template);
}

/* An id that may be missing: -1 then. */
static enum rt_status get_id(const struct gguf *g, const char *key, int64_t *out, struct rt_error *err)
{
    return gguf_get_integer_or(g, key, 0, INT32_MAX, -1, out, err);
}

static enum rt_status get_ids(const struct gguf *g, struct tokenizer_gguf *out, struct rt_error *err)
{
    enum rt_status st = get_id(g, "tokenizer.ggml.bos_token_id", &out->bos, err);
    if (st == RT_OK)
        st = get_id(g, "tokenizer.ggml.eos_token_id", &out->eos, err);
    if (st == RT_OK)
        st = get_id(g, "tokenizer.ggml.unknown_token_id", &out->unknown, err);
    if (st == RT_OK)
        st = get_id(g, "tokenizer.ggml.padding_token_id", &out->pad, err);
    if (st == RT_OK)
        st = get_id(g, "tokenizer.ggml.eot_token_id", &out->eot, err);
    if (st == RT_OK)
        st = get_id(g, "tokenizer.ggml.eom_token_id", &out->eom, err);
    return st;
}

/* 0, 1, or -1 when the key is missing. */
static enum rt_status get_flag(const struct gguf *g, const char *key, int *out, struct rt_error *err)
{
    bool value = false;
    enum rt_status st = gguf_get_bool_or(g, key, false, &value, err);
    *out = !gguf_find_key(g, key) ? -1 : value;
    return st;
}

static enum rt_status get_strings(const struct gguf *g, struct gguf_arrays *a, struct tokenizer_gguf *out,
                                  struct rt_error *err)
{
    enum rt_status st = gguf_dup_string_or_null(g, "tokenizer.ggml.model", &a->model, err);
    if (st == RT_OK && !a->model)
        st = rt_fail(err, RT_BAD_FILE, "%s: tokenizer.ggml.model is missing, so the file has no tokenizer",
                     gguf_path(g));
    if (st == RT_OK)
        st = gguf_dup_string_or_null(g, "tokenizer.ggml.pre", &a->pre, err);
    if (st == RT_OK)
        st = gguf_dup_string_or_null(g, "tokenizer.chat_template", &a->chat_template, err);
    if (st == RT_OK)
        st = gguf_get_strings(g, "tokenizer.ggml.tokens", &a->tokens, &out->count, err);
    if (st == RT_OK)
        st = gguf_get_strings(g, "tokenizer.ggml.merges", &a->merges, &out->merge_count, err);
    out->model = a->model;
    out->pre = a->pre;
    out->chat_template = a->chat_template;
    return st;
}

static enum rt_status get_numbers(const struct gguf *g, struct gguf_arrays *a, struct tokenizer_gguf *out,
                                  struct rt_error *err)
{
    enum rt_status st = gguf_get_integers(g, "tokenizer.ggml.token_type", &a->types, &a->type_count, err);
    if (st == RT_OK)
        st = gguf_get_floats(g, "tokenizer.ggml.scores", &a->scores, &a->score_count, err);
    if (st != RT_OK)
        return st;
    if (a->types && a->type_count != out->count)
        return rt_fail(err, RT_BAD_FILE, "%s: tokenizer.ggml.token_type has %zu entries, tokenizer.ggml.tokens %zu",
                       gguf_path(g), a->type_count, out->count);
    if (a->scores && a->score_count != out->count)
        return rt_fail(err, RT_BAD_FILE, "%s: tokenizer.ggml.scores has %zu entries, tokenizer.ggml.tokens %zu",
                       gguf_path(g), a->score_count, out->count);
    if (a->types) {
        a->types32 = calloc(a->type_count, sizeof *a->types32);
        if (!a->types32)
            return rt_fail(err, RT_NO_MEMORY, "%s: no memory for %zu token types", gguf_path(g), a->type_count);
        for (size_t i = 0; i < a->type_count; i++) /* 0 is no type: refused with its index later */
            a->types32[i] = a->types[i] >= 1 && a->types[i] <= 6 ? (int32_t)a->types[i] : 0;
    }
    out->types = a->types32;
    out->scores = a->scores;
    return RT_OK;
}

/* SentencePiece options that change ids and that no model we run has. */
static enum rt_status refuse_options(const struct gguf *g, struct rt_error *err)
{
    bool remove = false;
    enum rt_status st = gguf_get_bool_or(g, "tokenizer.ggml.remove_extra_whitespaces", false, &remove, err);
    if (st == RT_OK && remove)
        st = rt_fail(err, RT_BAD_FILE, "%s: tokenizer.ggml.remove_extra_whitespaces true is not supported",
                     gguf_path(g));
    if (st == RT_OK && gguf_find_key(g, "tokenizer.ggml.precompiled_charsmap"))
        st = rt_fail(err, RT_BAD_FILE, "%s: tokenizer.ggml.precompiled_charsmap is not supported", gguf_path(g));
    return st;
}

enum rt_status mosld_tokenizer_open_gguf(const struct gguf *file, struct mosld_tokenizer **out, struct rt_error *err)
{
    struct gguf_arrays arrays = {0};
    struct tokenizer_gguf g = {.token = token_at, .merge = merge_at, .context = &arrays};
    struct mosld_tokenizer *t = tokenizer_new();
    *out = NULL;
    if (!t)
        return rt_fail(err, RT_NO_MEMORY, "no memory for a tokenizer");
    enum rt_status st = refuse_options(file, err);
    if (st == RT_OK)
        st = get_strings(file, &arrays, &g, err);
    if (st == RT_OK)
        st = get_numbers(file, &arrays, &g, err);
    if (st == RT_OK)
        st = get_ids(file, &g, err);
    if (st == RT_OK)
        st = get_flag(file, "tokenizer.ggml.add_bos_token", &g.add_bos, err);
    if (st == RT_OK)
        st = get_flag(file, "tokenizer.ggml.add_space_prefix", &g.add_space_prefix, err);
    if (st == RT_OK && (st = tokenizer_read_gguf(t, &g, err)) != RT_OK)
        rt_error_prefix(err, "%s", gguf_path(file));
    arrays_finish(&arrays);
    if (st != RT_OK) {
        mosld_tokenizer_close(t);
        return st;
    }
    *out = t;
    return RT_OK;
}

enum rt_status mosld_tokenizer_open(const char *path, struct mosld_tokenizer **out, struct rt_error *err)
{
    struct gguf *file = NULL;
    *out = NULL;
    if (file_is_folder(path))
        return mosld_tokenizer_open_dir(path, out, err);
    enum rt_status st = gguf_open(path, &file, err);
    if (st == RT_OK)
        st = mosld_tokenizer_open_gguf(file, out, err);
    gguf_close(&file);
    return st;
}
