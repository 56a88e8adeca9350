/* mosld/text/tokenizer.c - putting a tokenizer together, and asking it about its tokens. See tokenizer.h. */
#include "mosld/text/tokenizer_parts.h"
#include "mosld/text/utf8.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct mosld_tokenizer *tokenizer_new(void)
{
    struct mosld_tokenizer *t = calloc(1, sizeof *t);
    if (!t)
        return NULL;
    t->unknown = t->bos = t->eos = t->pad = VOCAB_NONE;
    memset(t->byte_piece, 0xFF, sizeof t->byte_piece);
    return t;
}

void mosld_tokenizer_close(struct mosld_tokenizer *t)
{
    if (!t)
        return;
    vocab_finish(&t->vocab);
    bpe_merges_finish(&t->merges);
    added_tokens_finish(&t->added);
    normalizer_finish(&t->normalizer);
    pretokenizer_finish(&t->pretokenizer);
    free(t->chat_template);
    free(t);
}

enum rt_status tokenizer_add_token(struct mosld_tokenizer *t, struct added_token token, struct rt_error *err)
{
    uint8_t flags = VOCAB_ADDED | (token.special ? VOCAB_SPECIAL : 0);
    uint32_t found = vocab_find(&t->vocab, token.text, token.len);
    if (found == VOCAB_NONE) {
        enum rt_status st = vocab_add(&t->vocab, token.id, token.text, token.len, 0, flags, err);
        if (st != RT_OK)
            return st;
    } else if (found != token.id) {
        return rt_fail(err, RT_BAD_FILE, "token '%.*s' has the id %u, but %u in the vocabulary",
                       token.len > 60 ? 60 : (int)token.len, token.text, token.id, found);
    } else {
        t->vocab.pieces[found].flags |= flags;
    }
    if (token.special)
        token.normalized = false;
    return added_tokens_add(&t->added, token) ? RT_OK : rt_fail(err, RT_NO_MEMORY, "no memory for added tokens");
}

enum rt_status tokenizer_add_merge(struct mosld_tokenizer *t, const char *left, size_t left_len, const char *right,
                                   size_t right_len, struct rt_error *err)
{
    struct text_buf both = {0};
    uint32_t a = vocab_find(&t->vocab, left, left_len), b = vocab_find(&t->vocab, right, right_len);
    uint32_t merged = VOCAB_NONE;
    bool ok = text_buf_append(&both, left, left_len) && text_buf_append(&both, right, right_len);
    if (ok)
        merged = vocab_find(&t->vocab, both.data, both.len);
    text_buf_finish(&both);
    if (ok && (a == VOCAB_NONE || b == VOCAB_NONE || merged == VOCAB_NONE))
        return rt_fail(err, RT_BAD_FILE, "the vocabulary lacks the %s piece of the merge '%.*s' + '%.*s'",
                       a == VOCAB_NONE   ? "first"
                       : b == VOCAB_NONE ? "second"
                                         : "merged",
                       left_len > 60 ? 60 : (int)left_len, left, right_len > 60 ? 60 : (int)right_len, right);
    return ok && bpe_merges_add(&t->merges, a, b, merged) ? RT_OK : rt_fail(err, RT_NO_MEMORY, "no memory for merges");
}

uint32_t tokenizer_byte_char(uint8_t byte)
{
    static const struct {
        uint8_t low, high;
    } plain[] = {{0x21, 0x7E}, {0xA1, 0xAC}, {0xAE, 0xFF}};
    uint32_t skipped = 0; /* bytes below this one that stand for themselves */
    for (size_t i = 0; i < 3; i++) {
        if (byte >= plain[i].low && byte <= plain[i].high)
            return byte;
        if (byte > plain[i].high)
            skipped += plain[i].high - plain[i].low + 1u;
    }
    return 0x100 + byte - skipped;
}

int tokenizer_char_byte(uint32_t c)
{
    if (c >= 0x100 + 68)
        return -1;
    for (int b = 0; b < 256; b++) {
        if (tokenizer_byte_char((uint8_t)b) == c)
            return b;
    }
    return -1;
}

static uint32_t find_byte_piece(const struct mosld_tokenizer *t, uint8_t byte)
{
    char text[8];
    size_t len = t->byte_level ? utf8_encode(tokenizer_byte_char(byte), text)
                               : (size_t)snprintf(text, sizeof text, "<0x%02X>", byte);
    return vocab_find(&t->vocab, text, len);
}

/* Bytes 0xC0, 0xC1 and from 0xF5 on occur in no UTF-8, and some vocabularies (SmolLM2's) lack rare control characters,
 * which Hugging Face's tokenizers then drop. One that lacks a printable character is no byte-level vocabulary. */
static enum rt_status check_bytes(const struct mosld_tokenizer *t, struct rt_error *err)
{
    for (int b = 0; b < 256; b++) {
        if (t->byte_piece[b] != VOCAB_NONE)
            continue;
        if (t->byte_level && b >= 0x20 && b < 0x7F && t->unknown == VOCAB_NONE)
            return rt_fail(err, RT_BAD_FILE,
                           "the vocabulary has no token for the character '%c', as byte-level BPE needs it", b);
        if (!t->byte_level && t->byte_fallback && b < 0xF5 && b != 0xC0 && b != 0xC1 && t->unknown == VOCAB_NONE)
            return rt_fail(err, RT_BAD_FILE,
                           "the vocabulary has neither a token <0x%02X>, as byte_fallback needs it, "
                           "nor an unknown token",
                           b);
    }
    return RT_OK;
}

void tokenizer_add_end(struct mosld_tokenizer *t, uint32_t id)
{
    if (id == VOCAB_NONE || mosld_tokenizer_is_end(t, (int32_t)id) || t->end_count == TOKENIZER_MAX_ENDS)
        return;
    t->ends[t->end_count++] = (int32_t)id;
}

enum rt_status tokenizer_complete(struct mosld_tokenizer *t, struct rt_error *err)
{
    static const char *const end_names[] = {"<|im_end|>",    "<|eot_id|>", "<|eom_id|>",   "<|end_of_text|>",
                                            "<|endoftext|>", "<|end|>",    "<end_of_turn>"};
    if (t->byte_level || t->byte_fallback) {
        for (int b = 0; b < 256; b++)
            t->byte_piece[b] = find_byte_piece(t, (uint8_t)b);
    }
    added_tokens_sort(&t->added);
    tokenizer_add_end(t, t->eos);
    for (size_t i = 0; i < sizeof end_names / sizeof *end_names; i++) {
        uint32_t id = vocab_find(&t->vocab, end_names[i], strlen(end_names[i]));
        if (id != VOCAB_NONE && (vocab_flags(&t->vocab, id) & VOCAB_SPECIAL))
            tokenizer_add_end(t, id);
    }
    return check_bytes(t, err);
}

int32_t mosld_tokenizer_vocab_size(const struct mosld_tokenizer *t)
{
    return (int32_t)t->vocab.size;
}

const char *mosld_tokenizer_piece(const struct mosld_tokenizer *t, int32_t id, size_t *len)
{
    return id < 0 ? NULL : vocab_text(&t->vocab, (uint32_t)id, len);
}

/* VOCAB_NONE becomes MOSLD_NO_TOKEN; ids stay below VOCAB_MAX_ID. */
static int32_t id_or_none(uint32_t id)
{
    return id == VOCAB_NONE ? MOSLD_NO_TOKEN : (int32_t)id;
}

int32_t mosld_tokenizer_find(const struct mosld_tokenizer *t, const char *piece, size_t len)
{
    return id_or_none(vocab_find(&t->vocab, piece, len));
}

bool mosld_tokenizer_is_special(const struct mosld_tokenizer *t, int32_t id)
{
    return id >= 0 && (vocab_flags(&t->vocab, (uint32_t)id) & VOCAB_SPECIAL);
}

int32_t mosld_tokenizer_bos(const struct mosld_tokenizer *t)
{
    return id_or_none(t->bos);
}

int32_t mosld_tokenizer_eos(const struct mosld_tokenizer *t)
{
    return id_or_none(t->eos);
}

int32_t mosld_tokenizer_pad(const struct mosld_tokenizer *t)
{
    return id_or_none(t->pad);
}

bool mosld_tokenizer_adds_bos(const struct mosld_tokenizer *t)
{
    return t->add_bos && t->bos != VOCAB_NONE;
}

const int32_t *mosld_tokenizer_ends(const struct mosld_tokenizer *t, size_t *count)
{
    *count = t->end_count;
    return t->ends;
}

bool mosld_tokenizer_is_end(const struct mosld_tokenizer *t, int32_t id)
{
    for (size_t i = 0; i < t->end_count; i++) {
        if (t->ends[i] == id)
            return true;
    }
    return false;
}

const char *mosld_tokenizer_chat_template(const struct mosld_tokenizer *t)
{
    return t->chat_template;
}
