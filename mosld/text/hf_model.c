/* mosld/text/hf_model.c - tokenizer.json: the BPE model with vocabulary and merges, and the added tokens. */
#include "mosld/text/hf_json.h"
#include "mosld/text/tokenizer_parts.h"

#include <ctype.h>
#include <string.h>

/* True for <0xNN>. */
static bool is_byte_name(const char *text)
{
    return strlen(text) == 6 && strncmp(text, "<0x", 3) == 0 && isxdigit((unsigned char)text[3]) &&
           isxdigit((unsigned char)text[4]) && text[5] == '>';
}

static enum rt_status read_vocab(struct mosld_tokenizer *t, const cJSON *model, struct rt_error *err)
{
    const cJSON *vocab = hf_get(model, "vocab"), *entry;
    if (!cJSON_IsObject(vocab) || !vocab->child)
        return rt_fail(err, RT_BAD_FILE, "model.vocab is missing or not an object of tokens and ids");
    cJSON_ArrayForEach(entry, vocab)
    {
        uint32_t id = 0;
        bool byte = t->byte_fallback && is_byte_name(entry->string);
        enum rt_status st = hf_id(entry, "the id", VOCAB_MAX_ID - 1, &id, err);
        if (st == RT_OK)
            st =
                vocab_add(&t->vocab, id, entry->string, strlen(entry->string), 0, byte ? VOCAB_BYTE : VOCAB_MODEL, err);
        if (st != RT_OK)
            return rt_error_prefix(err, "model.vocab['%.60s']", entry->string);
    }
    return RT_OK;
}

/* A merge is "a b", or ["a", "b"] in newer files. */
static enum rt_status read_merge(struct mosld_tokenizer *t, const cJSON *merge, struct rt_error *err)
{
    if (cJSON_IsArray(merge)) {
        const cJSON *a = merge->child, *b = a ? a->next : NULL;
        if (!cJSON_IsString(a) || !cJSON_IsString(b) || b->next)
            return rt_fail(err, RT_BAD_FILE, "not a pair of strings");
        return tokenizer_add_merge(t, a->valuestring, strlen(a->valuestring), b->valuestring, strlen(b->valuestring),
                                   err);
    }
    if (!cJSON_IsString(merge))
        return rt_fail(err, RT_BAD_FILE, "neither a string nor a pair");
    const char *text = merge->valuestring, *space = strchr(text, ' ');
    if (!space || space == text || !space[1] || strchr(space + 1, ' '))
        return rt_fail(err, RT_BAD_FILE, "'%.60s' is not two pieces with a space between", text);
    return tokenizer_add_merge(t, text, (size_t)(space - text), space + 1, strlen(space + 1), err);
}

static enum rt_status read_merges(struct mosld_tokenizer *t, const cJSON *model, struct rt_error *err)
{
    const cJSON *merges, *merge;
    enum rt_status st = hf_array(model, "merges", true, &merges, err);
    size_t i = 0;
    if (st != RT_OK)
        return rt_error_prefix(err, "model");
    cJSON_ArrayForEach(merge, merges)
    {
        st = read_merge(t, merge, err);
        if (st != RT_OK)
            return rt_error_prefix(err, "model.merges[%zu]", i);
        i++;
    }
    return RT_OK;
}

/* Refuses what changes ids and is not here. */
static enum rt_status check_options(const cJSON *model, struct rt_error *err)
{
    const char *type = NULL, *prefix = NULL, *suffix = NULL;
    enum rt_status st = hf_string(model, "type", &type, err);
    if (st == RT_OK)
        st = hf_string(model, "continuing_subword_prefix", &prefix, err);
    if (st == RT_OK)
        st = hf_string(model, "end_of_word_suffix", &suffix, err);
    if (st != RT_OK)
        return st;
    if (type && strcmp(type, "BPE") != 0)
        return rt_fail(err, RT_BAD_FILE, "'type' is '%.60s', supported is BPE", type);
    if (prefix && *prefix)
        return rt_fail(err, RT_BAD_FILE, "'continuing_subword_prefix' is not supported");
    if (suffix && *suffix)
        return rt_fail(err, RT_BAD_FILE, "'end_of_word_suffix' is not supported");
    const cJSON *dropout = hf_get(model, "dropout");
    if (dropout && !(cJSON_IsNumber(dropout) && dropout->valuedouble == 0))
        return rt_fail(err, RT_BAD_FILE, "'dropout' is not supported");
    return RT_OK;
}

static enum rt_status read_unknown(struct mosld_tokenizer *t, const cJSON *model, struct rt_error *err)
{
    const char *name = NULL;
    enum rt_status st = hf_string(model, "unk_token", &name, err);
    if (st != RT_OK || !name)
        return st;
    t->unknown = vocab_find(&t->vocab, name, strlen(name));
    if (t->unknown == VOCAB_NONE)
        return rt_fail(err, RT_BAD_FILE, "'unk_token' '%.60s' is not in the vocabulary", name);
    t->vocab.pieces[t->unknown].flags |= VOCAB_UNKNOWN;
    return RT_OK;
}

static enum rt_status read_model(struct mosld_tokenizer *t, const cJSON *model, struct rt_error *err)
{
    if (!cJSON_IsObject(model))
        return rt_fail(err, RT_BAD_FILE, "'model' is missing or not an object");
    enum rt_status st = check_options(model, err);
    if (st == RT_OK)
        st = hf_bool(model, "byte_fallback", false, &t->byte_fallback, err);
    if (st == RT_OK)
        st = hf_bool(model, "ignore_merges", false, &t->ignore_merges, err);
    if (st == RT_OK)
        st = hf_bool(model, "fuse_unk", false, &t->fuse_unknown, err);
    if (st != RT_OK)
        return rt_error_prefix(err, "model");
    if (t->byte_level && t->byte_fallback)
        return rt_fail(err, RT_BAD_FILE, "model.byte_fallback with the pre_tokenizer ByteLevel is not supported");
    st = read_vocab(t, model, err);
    if (st == RT_OK)
        st = read_merges(t, model, err);
    if (st == RT_OK && (st = read_unknown(t, model, err)) != RT_OK)
        rt_error_prefix(err, "model");
    return st;
}

enum rt_status tokenizer_read_added(struct mosld_tokenizer *t, const cJSON *node, uint32_t id, struct rt_error *err)
{
    struct added_token token = {.id = id};
    const char *content = NULL;
    enum rt_status st = hf_string(node, "content", &content, err);
    if (st == RT_OK && (!content || !*content))
        st = rt_fail(err, RT_BAD_FILE, "'content' is missing or empty");
    if (st == RT_OK)
        st = hf_bool(node, "special", false, &token.special, err);
    if (st == RT_OK)
        st = hf_bool(node, "lstrip", false, &token.lstrip, err);
    if (st == RT_OK)
        st = hf_bool(node, "rstrip", false, &token.rstrip, err);
    if (st == RT_OK)
        st = hf_bool(node, "single_word", false, &token.single_word, err);
    if (st == RT_OK)
        st = hf_bool(node, "normalized", !token.special, &token.normalized, err);
    if (st != RT_OK)
        return st;
    token.text = (char *)content;
    token.len = strlen(content);
    return tokenizer_add_token(t, token, err);
}

static enum rt_status read_added_list(struct mosld_tokenizer *t, const cJSON *doc, struct rt_error *err)
{
    const cJSON *list, *node;
    enum rt_status st = hf_array(doc, "added_tokens", false, &list, err);
    size_t i = 0;
    if (st != RT_OK)
        return st;
    cJSON_ArrayForEach(node, list)
    {
        uint32_t id = 0;
        st = hf_id(hf_get(node, "id"), "'id'", VOCAB_MAX_ID - 1, &id, err);
        if (st == RT_OK)
            st = tokenizer_read_added(t, node, id, err);
        if (st != RT_OK)
            return rt_error_prefix(err, "added_tokens[%zu]", i);
        i++;
    }
    return RT_OK;
}

enum rt_status tokenizer_read_json(struct mosld_tokenizer *t, const char *text, size_t len, struct rt_error *err)
{
    cJSON *doc = NULL;
    enum rt_status st = hf_parse(text, len, &doc, err);
    if (st == RT_OK)
        st = tokenizer_read_normalizer(t, hf_get(doc, "normalizer"), err);
    if (st == RT_OK)
        st = tokenizer_read_pretokenizer(t, hf_get(doc, "pre_tokenizer"), err);
    if (st == RT_OK)
        st = read_model(t, hf_get(doc, "model"), err);
    if (st == RT_OK)
        st = read_added_list(t, doc, err);
    if (st == RT_OK)
        st = tokenizer_read_decoder(t, hf_get(doc, "decoder"), err);
    if (st == RT_OK)
        st = tokenizer_read_post(t, hf_get(doc, "post_processor"), err);
    if (st == RT_OK && t->bos != VOCAB_NONE && vocab_flags(&t->vocab, t->bos) == 0)
        st = rt_fail(err, RT_BAD_FILE, "post_processor: there is no token with the id %u", t->bos);
    cJSON_Delete(doc);
    return st;
}
