/* mosld/text/encode.c - text to ids: added tokens, then normalizing, cutting into words, and merging what lies between
 * them. See tokenizer.h. */
#include "mosld/text/tokenizer_parts.h"
#include "mosld/text/utf8.h"

#include <stdlib.h>

#define MAX_TEXT ((size_t)1 << 30)

/* What one call of encode works with. */
struct encoder {
    const struct mosld_tokenizer *t;
    struct text_matcher *matcher;
    struct text_buf normalized;
    struct text_words words;
    struct text_buf mapped; /* a word in the byte alphabet */
    struct bpe_work work;
    int32_t *ids;
    size_t count, cap;
};

static bool put_id(struct encoder *e, uint32_t id)
{
    if (!text_grow((void **)&e->ids, &e->cap, e->count, sizeof *e->ids))
        return false;
    e->ids[e->count++] = (int32_t)id;
    return true;
}

/* The piece with this text that merging may produce, or VOCAB_NONE. */
static uint32_t model_piece(const struct mosld_tokenizer *t, const char *text, size_t len)
{
    uint32_t id = vocab_find(&t->vocab, text, len);
    return id != VOCAB_NONE && (vocab_flags(&t->vocab, id) & VOCAB_MODEL) ? id : VOCAB_NONE;
}

/* Adds an unknown symbol, or makes the one before longer. */
static bool push_unknown(struct encoder *e, size_t start, size_t len)
{
    const struct mosld_tokenizer *t = e->t;
    struct bpe_work *w = &e->work;
    if (t->unknown == VOCAB_NONE)
        return true; /* dropped, as Hugging Face's tokenizers do */
    if (t->fuse_unknown && w->count > 0 && w->symbols[w->count - 1].id == t->unknown) {
        w->symbols[w->count - 1].len += (uint32_t)len;
        return true;
    }
    return bpe_push(w, t->unknown, (uint32_t)start, (uint32_t)len);
}

/* True when each byte of a character has its <0xNN>. */
static bool has_bytes(const struct mosld_tokenizer *t, const char *text, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        if (t->byte_piece[(uint8_t)text[i]] == VOCAB_NONE)
            return false;
    }
    return t->byte_fallback;
}

static bool push_bytes(struct encoder *e, const char *text, size_t start, size_t len)
{
    for (size_t i = start; i < start + len; i++) {
        uint32_t id = e->t->byte_piece[(uint8_t)text[i]];
        if (!(id == VOCAB_NONE ? push_unknown(e, i, 1) : bpe_push(&e->work, id, (uint32_t)i, 1)))
            return false;
    }
    return true;
}

/* The symbols a word starts with: bytes, or characters. Merging by score looks at the text, so characters without a
 * piece may still become part of one; by pairs they are bytes or unknown from the start. */
static bool push_symbols(struct encoder *e, const char *word, size_t len)
{
    const struct mosld_tokenizer *t = e->t;
    e->work.count = 0;
    if (t->byte_level)
        return push_bytes(e, word, 0, len);
    for (size_t i = 0; i < len;) {
        size_t n = utf8_length(word[i]);
        uint32_t id = model_piece(t, word + i, n);
        bool ok = id != VOCAB_NONE || t->by_score ? bpe_push(&e->work, id, (uint32_t)i, (uint32_t)n)
                  : has_bytes(t, word + i, n)     ? push_bytes(e, word, i, n)
                                                  : push_unknown(e, i, n);
        if (!ok)
            return false;
        i += n;
    }
    return true;
}

/* Writes the ids of the merged symbols; what merging by score left without a piece becomes bytes or unknown. */
static bool put_symbols(struct encoder *e, const char *word)
{
    const struct mosld_tokenizer *t = e->t;
    bool unknown_before = false;
    if (e->work.count == 0)
        return true;
    for (uint32_t i = 0; i != VOCAB_NONE; i = e->work.symbols[i].next) {
        const struct bpe_symbol *s = &e->work.symbols[i];
        bool ok = true, unknown = false;
        if (s->id != VOCAB_NONE) {
            ok = put_id(e, s->id);
        } else if (has_bytes(t, word + s->start, s->len)) {
            for (uint32_t b = 0; ok && b < s->len; b++)
                ok = put_id(e, t->byte_piece[(uint8_t)word[s->start + b]]);
        } else {
            unknown = true;
            if (t->unknown != VOCAB_NONE && !(unknown_before && t->fuse_unknown))
                ok = put_id(e, t->unknown);
        }
        if (!ok)
            return false;
        unknown_before = unknown;
    }
    return true;
}

/* The id of a whole word, or VOCAB_NONE. Sets *ok to false when memory is out. */
static uint32_t whole_word(struct encoder *e, const char *word, size_t len, bool *ok)
{
    if (!e->t->byte_level)
        return model_piece(e->t, word, len);
    if (len > e->t->vocab.max_len) /* each byte is at least one in the alphabet */
        return VOCAB_NONE;
    e->mapped.len = 0;
    for (size_t i = 0; *ok && i < len; i++) {
        char c[4];
        *ok = text_buf_append(&e->mapped, c, utf8_encode(tokenizer_byte_char((uint8_t)word[i]), c));
    }
    return *ok ? model_piece(e->t, e->mapped.data, e->mapped.len) : VOCAB_NONE;
}

static bool encode_word(struct encoder *e, const char *word, size_t len)
{
    const struct bpe_model model = {&e->t->vocab, e->t->by_score ? NULL : &e->t->merges};
    if (e->t->ignore_merges) {
        bool ok = true;
        uint32_t id = whole_word(e, word, len, &ok);
        if (!ok || id != VOCAB_NONE)
            return ok && put_id(e, id);
    }
    return push_symbols(e, word, len) && bpe_merge(&model, word, &e->work) && put_symbols(e, word);
}

/* Text that holds no added token any more, already normalized. */
static enum rt_status encode_plain(struct encoder *e, const char *text, size_t len, bool at_start, struct rt_error *err)
{
    if (len == 0)
        return RT_OK;
    enum rt_status st = pretokenize(&e->t->pretokenizer, e->matcher, text, len, at_start, &e->words, err);
    for (size_t i = 0; st == RT_OK && i < e->words.count; i++) {
        const struct text_span *span = &e->words.spans[i];
        if (span->len >= UINT32_MAX)
            st = rt_fail(err, RT_USAGE, "a word of %zu bytes is too long to encode", span->len);
        else if (!encode_word(e, e->words.text.data + span->start, span->len))
            st = rt_fail(err, RT_NO_MEMORY, "no memory to encode a word of %zu bytes", span->len);
    }
    return st;
}

/* Text between raw added tokens: normalize, then look for those that live in normalized text. */
static enum rt_status encode_section(struct encoder *e, const struct added_scope *scope, const char *text, size_t len,
                                     bool at_start, struct rt_error *err)
{
    if (len == 0)
        return RT_OK;
    enum rt_status st = normalize(&e->t->normalizer, e->matcher, text, len, &e->normalized, err);
    const char *norm = e->normalized.data;
    size_t norm_len = e->normalized.len, done = 0, at = 0;
    struct added_match m;
    while (st == RT_OK && added_tokens_find(&e->t->added, true, scope, norm, norm_len, done, &at, &m)) {
        st = encode_plain(e, norm + done, m.start - done, at_start && done == 0, err);
        if (st == RT_OK && !put_id(e, m.id))
            st = rt_fail(err, RT_NO_MEMORY, "no memory to encode text");
        done = m.end;
    }
    return st == RT_OK ? encode_plain(e, norm + done, norm_len - done, at_start && done == 0, err) : st;
}

static enum rt_status encode_text(struct encoder *e, const struct added_scope *scope, const char *text, size_t len,
                                  struct rt_error *err)
{
    enum rt_status st = RT_OK;
    size_t done = 0, at = 0;
    struct added_match m;
    while (st == RT_OK && added_tokens_find(&e->t->added, false, scope, text, len, done, &at, &m)) {
        st = encode_section(e, scope, text + done, m.start - done, done == 0, err);
        if (st == RT_OK && !put_id(e, m.id))
            st = rt_fail(err, RT_NO_MEMORY, "no memory to encode text");
        done = m.end;
    }
    return st == RT_OK ? encode_section(e, scope, text + done, len - done, done == 0, err) : st;
}

static enum rt_status put_bos(struct encoder *e, enum mosld_bos bos, struct rt_error *err)
{
    const struct mosld_tokenizer *t = e->t;
    if (bos == MOSLD_BOS_ALWAYS && t->bos == VOCAB_NONE)
        return rt_fail(err, RT_USAGE, "this model has no beginning token to add");
    if (bos == MOSLD_BOS_NEVER || t->bos == VOCAB_NONE || (bos == MOSLD_BOS_AUTO && !t->add_bos))
        return RT_OK;
    return put_id(e, t->bos) ? RT_OK : rt_fail(err, RT_NO_MEMORY, "no memory to encode text");
}

static void encoder_finish(struct encoder *e)
{
    text_matcher_destroy(e->matcher);
    text_buf_finish(&e->normalized);
    text_words_finish(&e->words);
    text_buf_finish(&e->mapped);
    bpe_work_finish(&e->work);
    free(e->ids);
}

enum rt_status mosld_tokenizer_encode(const struct mosld_tokenizer *t, const char *text, size_t len,
                                      const struct mosld_encode_params *params, int32_t **ids, size_t *count,
                                      struct rt_error *err)
{
    static const struct mosld_encode_params defaults = {.parse_special = true};
    struct encoder e = {.t = t};
    struct text_buf repaired = {0};
    enum rt_status st;
    if (!params)
        params = &defaults;
    *ids = NULL;
    *count = 0;
    if (len > MAX_TEXT)
        return rt_fail(err, RT_USAGE, "a text of %zu bytes is too long to encode at once, %zu are allowed", len,
                       MAX_TEXT);
    const struct added_scope scope = {
        .all = params->parse_special, .ranges = params->special_ranges, .count = params->special_range_count};
    if (!utf8_valid(text, len)) {
        if (!scope.all && scope.count > 0)
            return rt_fail(err, RT_USAGE, "special_ranges need valid UTF-8");
        if (!utf8_repair(text, len, &repaired))
            return rt_fail(err, RT_NO_MEMORY, "no memory for a text of %zu bytes", len);
        text = repaired.data;
        len = repaired.len;
    }
    /* Room for one at least, so that *ids is never NULL. */
    if (!text_grow((void **)&e.ids, &e.cap, 0, sizeof *e.ids))
        st = rt_fail(err, RT_NO_MEMORY, "no memory to encode text");
    else
        st = text_matcher_create(&e.matcher, err);
    if (st == RT_OK)
        st = put_bos(&e, params->bos, err);
    if (st == RT_OK)
        st = encode_text(&e, &scope, text, len, err);
    if (st == RT_OK) {
        *ids = e.ids;
        *count = e.count;
        e.ids = NULL;
    }
    encoder_finish(&e);
    text_buf_finish(&repaired);
    return st;
}
