/* mosld/text/tokenizer_gguf.c - a tokenizer from GGUF's tokenizer.ggml.* arrays. See tokenizer_parts.h. */
#include "mosld/text/tokenizer_parts.h"
#include "mosld/text/utf8.h"

#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum gguf_token_type { TOKEN_NORMAL = 1, TOKEN_UNKNOWN, TOKEN_CONTROL, TOKEN_USER, TOKEN_UNUSED, TOKEN_BYTE };

/* What a piece of this type is to us. Unused pieces are never produced, but decode. */
static uint8_t flags_of(enum gguf_token_type type)
{
    switch (type) {
    case TOKEN_NORMAL:
        return VOCAB_MODEL;
    case TOKEN_UNKNOWN:
        return VOCAB_UNKNOWN;
    case TOKEN_BYTE:
        return VOCAB_BYTE;
    default:
        return 0;
    }
}

static bool is_byte_name(const char *text, size_t len)
{
    return len == 6 && memcmp(text, "<0x", 3) == 0 && isxdigit((unsigned char)text[3]) &&
           isxdigit((unsigned char)text[4]) && text[5] == '>';
}

static enum rt_status add_piece(struct mosld_tokenizer *t, const struct tokenizer_gguf *g, size_t i,
                                struct rt_error *err)
{
    size_t len = 0;
    const char *text = g->token(g->context, i, &len);
    int32_t type = g->types ? g->types[i] : TOKEN_NORMAL;
    float score = g->scores ? g->scores[i] : 0;
    if (type < TOKEN_NORMAL || type > TOKEN_BYTE)
        return rt_fail(err, RT_BAD_FILE, "tokenizer.ggml.token_type[%zu] is %d, known are 1 to 6", i, type);
    if (!text || !utf8_valid(text, len))
        return rt_fail(err, RT_BAD_FILE, "tokenizer.ggml.tokens[%zu] is not valid UTF-8", i);
    if (type == TOKEN_BYTE && !is_byte_name(text, len))
        return rt_fail(err, RT_BAD_FILE, "tokenizer.ggml.tokens[%zu] is a byte token and is not written <0xNN>", i);
    if (!isfinite(score))
        return rt_fail(err, RT_BAD_FILE, "tokenizer.ggml.scores[%zu] is not a finite number", i);
    enum rt_status st = vocab_add(&t->vocab, (uint32_t)i, text, len, score, flags_of((enum gguf_token_type)type), err);
    if (st == RT_OK && (type == TOKEN_CONTROL || type == TOKEN_USER)) {
        struct added_token token = {
            .id = (uint32_t)i, .text = (char *)text, .len = len, .special = type == TOKEN_CONTROL};
        st = tokenizer_add_token(t, token, err);
    }
    return st == RT_OK ? st : rt_error_prefix(err, "tokenizer.ggml.tokens[%zu]", i);
}

static enum rt_status add_merge(struct mosld_tokenizer *t, const struct tokenizer_gguf *g, size_t i,
                                struct rt_error *err)
{
    size_t len = 0;
    const char *text = g->merge(g->context, i, &len);
    /* The space between the two; a piece may begin with one only in odd files, so the search starts behind it. */
    const char *space = text && len > 1 ? memchr(text + 1, ' ', len - 1) : NULL;
    if (!space || space + 1 == text + len)
        return rt_fail(err, RT_BAD_FILE, "tokenizer.ggml.merges[%zu] is not two pieces with a space between", i);
    size_t left_len = (size_t)(space - text), right_len = len - left_len - 1;
    enum rt_status st = tokenizer_add_merge(t, text, left_len, space + 1, right_len, err);
    return st == RT_OK ? st : rt_error_prefix(err, "tokenizer.ggml.merges[%zu]", i);
}

static enum rt_status set_id(const struct mosld_tokenizer *t, const char *key, int64_t id, uint32_t *out,
                             struct rt_error *err)
{
    if (id == -1)
        return RT_OK;
    if (id < 0 || (uint64_t)id >= t->vocab.size)
        return rt_fail(err, RT_BAD_FILE, "tokenizer.ggml.%s is %lld, the vocabulary has %zu tokens", key, (long long)id,
                       t->vocab.size);
    *out = (uint32_t)id;
    return RT_OK;
}

static enum rt_status set_ids(struct mosld_tokenizer *t, const struct tokenizer_gguf *g, struct rt_error *err)
{
    uint32_t eot = VOCAB_NONE, eom = VOCAB_NONE, unknown = VOCAB_NONE;
    enum rt_status st = set_id(t, "bos_token_id", g->bos, &t->bos, err);
    if (st == RT_OK)
        st = set_id(t, "eos_token_id", g->eos, &t->eos, err);
    if (st == RT_OK)
        st = set_id(t, "padding_token_id", g->pad, &t->pad, err);
    if (st == RT_OK)
        st = set_id(t, "unknown_token_id", g->unknown, &unknown, err);
    if (st == RT_OK)
        st = set_id(t, "eot_token_id", g->eot, &eot, err);
    if (st == RT_OK)
        st = set_id(t, "eom_token_id", g->eom, &eom, err);
    if (st != RT_OK)
        return st;
    /* Byte-level BPE drops what it cannot write, whatever id GGUF calls unknown: SmolLM2's is <|endoftext|>. */
    if (!t->byte_level)
        t->unknown = unknown;
    tokenizer_add_end(t, t->eos);
    tokenizer_add_end(t, eot);
    tokenizer_add_end(t, eom);
    if (g->add_bos >= 0)
        t->add_bos = g->add_bos;
    return RT_OK;
}

/* SentencePiece's preparation of text: a space in front, spaces made visible. */
static enum rt_status use_spaces(struct mosld_tokenizer *t, bool prefix, struct rt_error *err)
{
    static const char mark[] = "\xE2\x96\x81";
    struct text_pattern *space = NULL;
    enum rt_status st = RT_OK;
    if (prefix)
        st = normalizer_add(&t->normalizer, NORM_PREPEND, NULL, mark, err);
    if (st == RT_OK)
        st = text_pattern_create_literal(" ", 1, &space, err);
    if (st == RT_OK)
        st = normalizer_add(&t->normalizer, NORM_REPLACE, space, mark, err);
    t->strip_space = prefix;
    return st;
}

static enum rt_status use_model(struct mosld_tokenizer *t, const struct tokenizer_gguf *g, struct rt_error *err)
{
    if (strcmp(g->model, "llama") == 0) {
        if (!g->scores)
            return rt_fail(err, RT_BAD_FILE, "tokenizer.ggml.scores is missing");
        t->by_score = t->byte_fallback = t->fuse_unknown = true;
        t->add_bos = true;
        return use_spaces(t, g->add_space_prefix != 0, err);
    }
    if (strcmp(g->model, "gpt2") != 0)
        return rt_fail(err, RT_BAD_FILE, "tokenizer.ggml.model is '%.60s'; supported are gpt2 and llama", g->model);
    t->byte_level = true;
    if (!g->pre)
        return rt_fail(err, RT_BAD_FILE,
                       "tokenizer.ggml.pre is missing, so how to cut words is not known; "
                       "convert the model again with a converter of today");
    if (g->merge_count == 0)
        return rt_fail(err, RT_BAD_FILE, "tokenizer.ggml.merges is missing");
    enum rt_status st = tokenizer_use_pre(t, g->pre, err);
    if (st == RT_OK && g->add_space_prefix == 1)
        st = rt_fail(err, RT_BAD_FILE, "tokenizer.ggml.add_space_prefix true is not supported with model gpt2");
    return st;
}

enum rt_status tokenizer_read_gguf(struct mosld_tokenizer *t, const struct tokenizer_gguf *g, struct rt_error *err)
{
    if (g->count == 0 || g->count > VOCAB_MAX_ID)
        return rt_fail(err, RT_BAD_FILE, "tokenizer.ggml.tokens has %zu entries, 1 to %u are allowed", g->count,
                       VOCAB_MAX_ID);
    enum rt_status st = use_model(t, g, err);
    for (size_t i = 0; st == RT_OK && i < g->count; i++)
        st = add_piece(t, g, i, err);
    for (size_t i = 0; st == RT_OK && t->byte_level && i < g->merge_count; i++)
        st = add_merge(t, g, i, err);
    if (st == RT_OK)
        st = set_ids(t, g, err);
    if (st == RT_OK && g->chat_template && !(t->chat_template = strdup(g->chat_template)))
        st = rt_fail(err, RT_NO_MEMORY, "no memory for the chat template");
    return st == RT_OK ? tokenizer_complete(t, err) : st;
}
