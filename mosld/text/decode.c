/* mosld/text/decode.c - ids to text, all at once or as they come. See tokenizer.h. */
#include "mosld/text/tokenizer_parts.h"
#include "mosld/text/utf8.h"

#include <stdlib.h>
#include <string.h>

static const char replacement[] = "\xEF\xBF\xBD"; /* U+FFFD */

/* Appends a piece written in the byte alphabet. One with a character outside it stands for itself. */
static bool put_byte_piece(const char *piece, size_t len, struct text_buf *out)
{
    size_t before = out->len;
    for (size_t i = 0; i < len; i += utf8_length(piece[i])) {
        int byte = tokenizer_char_byte(utf8_decode(piece + i));
        char c = (char)byte;
        if (byte < 0) {
            out->len = before;
            return text_buf_append(out, piece, len);
        }
        if (!text_buf_append(out, &c, 1))
            return false;
    }
    return true;
}

/* Appends a piece of SentencePiece's: U+2581 is a space. */
static bool put_spaced_piece(const char *piece, size_t len, struct text_buf *out)
{
    static const char mark[] = "\xE2\x96\x81";
    for (size_t i = 0; i < len;) {
        bool space = len - i >= 3 && memcmp(piece + i, mark, 3) == 0;
        if (!text_buf_append(out, space ? " " : piece + i, 1))
            return false;
        i += space ? 3 : 1;
    }
    return true;
}

/* Appends the bytes of one token. */
static enum rt_status put_token(const struct mosld_tokenizer *t, int32_t id, bool skip_special, struct text_buf *out,
                                struct rt_error *err)
{
    if (id < 0 || (size_t)id >= t->vocab.size)
        return rt_fail(err, RT_USAGE, "token id %d is outside the vocabulary, which has %zu ids", id, t->vocab.size);
    size_t len = 0;
    const char *piece = vocab_text(&t->vocab, (uint32_t)id, &len);
    uint8_t flags = vocab_flags(&t->vocab, (uint32_t)id);
    bool ok;
    if (!piece || (skip_special && (flags & VOCAB_SPECIAL))) {
        return RT_OK;
    } else if (flags & (VOCAB_ADDED | VOCAB_UNKNOWN)) {
        ok = text_buf_append(out, piece, len);
    } else if (flags & VOCAB_BYTE) {
        char byte = (char)strtol((const char[]){piece[3], piece[4], '\0'}, NULL, 16); /* <0xNN> */
        ok = text_buf_append(out, &byte, 1);
    } else {
        ok = t->byte_level ? put_byte_piece(piece, len, out) : put_spaced_piece(piece, len, out);
    }
    return ok ? RT_OK : rt_fail(err, RT_NO_MEMORY, "no memory for decoded text");
}

/* Takes the space away that encoding put in front. Returns whether the beginning is past. */
static bool strip_first(const struct mosld_tokenizer *t, struct text_buf *out)
{
    if (out->len == 0)
        return false;
    if (t->strip_space && out->data[0] == ' ') {
        out->len--;
        memmove(out->data, out->data + 1, out->len);
    }
    return true;
}

enum rt_status mosld_tokenizer_decode(const struct mosld_tokenizer *t, const int32_t *ids, size_t count,
                                      bool skip_special, char **text, size_t *len, struct rt_error *err)
{
    struct text_buf out = {0};
    enum rt_status st = RT_OK;
    bool begun = false;
    *text = NULL;
    *len = 0;
    for (size_t i = 0; st == RT_OK && i < count; i++) {
        st = put_token(t, ids[i], skip_special, &out, err);
        begun = begun || strip_first(t, &out);
    }
    if (st == RT_OK && !text_buf_terminate(&out))
        st = rt_fail(err, RT_NO_MEMORY, "no memory for decoded text");
    if (st != RT_OK) {
        text_buf_finish(&out);
        return st;
    }
    *text = out.data;
    *len = out.len;
    return RT_OK;
}

struct mosld_text_stream {
    const struct mosld_tokenizer *t;
    bool skip_special, begun;
    struct text_buf pending; /* bytes that came and were not given out */
    struct text_buf out;     /* what the last call gave out */
};

enum rt_status mosld_text_stream_create(const struct mosld_tokenizer *t, bool skip_special, bool continues,
                                        struct mosld_text_stream **out, struct rt_error *err)
{
    *out = calloc(1, sizeof **out);
    if (!*out)
        return rt_fail(err, RT_NO_MEMORY, "no memory to decode text");
    (*out)->t = t;
    (*out)->skip_special = skip_special;
    (*out)->begun = continues;
    return RT_OK;
}

/* Moves the whole characters of `pending` to `out`. At the end of the text nothing completes a character any more. */
static enum rt_status give_out(struct mosld_text_stream *s, bool at_end, const char **text, size_t *len,
                               struct rt_error *err)
{
    size_t i = 0;
    bool ok = true;
    s->out.len = 0;
    while (ok && i < s->pending.len) {
        const char *at = s->pending.data + i;
        int n = utf8_check(at, s->pending.len - i);
        if (n == 0 && !at_end)
            break;
        ok = n > 0 ? text_buf_append(&s->out, at, (size_t)n) : text_buf_puts(&s->out, replacement);
        i += n > 0 ? (size_t)n : n < 0 ? (size_t)-n : s->pending.len - i;
    }
    if (!ok || !text_buf_terminate(&s->out))
        return rt_fail(err, RT_NO_MEMORY, "no memory for decoded text");
    s->pending.len -= i;
    if (i > 0)
        memmove(s->pending.data, s->pending.data + i, s->pending.len);
    *text = s->out.data;
    *len = s->out.len;
    return RT_OK;
}

enum rt_status mosld_text_stream_push(struct mosld_text_stream *s, int32_t id, const char **text, size_t *len,
                                      struct rt_error *err)
{
    enum rt_status st = put_token(s->t, id, s->skip_special, &s->pending, err);
    if (st != RT_OK)
        return st;
    s->begun = s->begun || strip_first(s->t, &s->pending);
    return give_out(s, false, text, len, err);
}

enum rt_status mosld_text_stream_finish(struct mosld_text_stream *s, const char **text, size_t *len,
                                        struct rt_error *err)
{
    return give_out(s, true, text, len, err);
}

void mosld_text_stream_destroy(struct mosld_text_stream *s)
{
    if (!s)
        return;
    text_buf_finish(&s->pending);
    text_buf_finish(&s->out);
    free(s);
}
