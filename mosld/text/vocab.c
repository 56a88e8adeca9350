/* mosld/text/vocab.c - see vocab.h. */
#include "mosld/text/vocab.h"

#include "mosld/text/textbuf.h"

#include <stdlib.h>
#include <string.h>

/* FNV-1a with a final mix: pieces are short, and the table is asked once or twice a merge. */
static uint64_t hash_text(const char *text, size_t len)
{
    uint64_t h = 14695981039346656037u;
    for (size_t i = 0; i < len; i++)
        h = (h ^ (uint8_t)text[i]) * 1099511628211u;
    return h ^ h >> 32;
}

static size_t slot_of(const struct vocab *v, const char *text, size_t len)
{
    size_t mask = v->table_cap - 1, slot = (size_t)hash_text(text, len) & mask;
    while (v->table[slot] != VOCAB_NONE) {
        const struct vocab_piece *p = &v->pieces[v->table[slot]];
        if (p->len == len && memcmp(v->text + p->offset, text, len) == 0)
            break;
        slot = (slot + 1) & mask;
    }
    return slot;
}

static bool grow_table(struct vocab *v)
{
    if (v->table && (v->count + 1) * 2 <= v->table_cap)
        return true;
    size_t cap = v->table_cap ? v->table_cap * 2 : 1024;
    uint32_t *table = malloc(cap * sizeof *table);
    if (!table)
        return false;
    memset(table, 0xFF, cap * sizeof *table);
    free(v->table);
    v->table = table;
    v->table_cap = cap;
    for (size_t id = 0; id < v->size; id++) {
        const struct vocab_piece *p = &v->pieces[id];
        if (p->used)
            v->table[slot_of(v, v->text + p->offset, p->len)] = (uint32_t)id;
    }
    return true;
}

static bool grow_pieces(struct vocab *v, size_t size)
{
    if (size <= v->size)
        return true;
    if (size > v->cap) {
        size_t cap = v->cap ? v->cap : 1024;
        while (cap < size)
            cap *= 2;
        struct vocab_piece *pieces = realloc(v->pieces, cap * sizeof *pieces);
        if (!pieces)
            return false;
        v->pieces = pieces;
        v->cap = cap;
    }
    memset(v->pieces + v->size, 0, (size - v->size) * sizeof *v->pieces);
    v->size = size;
    return true;
}

static bool store_text(struct vocab *v, const char *text, size_t len, size_t *offset)
{
    struct text_buf buf = {.data = v->text, .len = v->text_len, .cap = v->text_cap};
    *offset = v->text_len;
    bool ok = text_buf_append(&buf, text, len);
    v->text = buf.data;
    v->text_len = buf.len;
    v->text_cap = buf.cap;
    return ok;
}

enum rt_status vocab_add(struct vocab *v, uint32_t id, const char *text, size_t len, float score, uint8_t flags,
                         struct rt_error *err)
{
    int shown = len > 60 ? 60 : (int)len;
    if (id >= VOCAB_MAX_ID)
        return rt_fail(err, RT_BAD_FILE, "token '%.*s' has id %u, ids end at %u", shown, text, id, VOCAB_MAX_ID - 1);
    if (len == 0 || len > 1u << 20)
        return rt_fail(err, RT_BAD_FILE, "token %u has a text of %zu bytes, 1 to 1048576 are allowed", id, len);
    if (id < v->size && v->pieces[id].used)
        return rt_fail(err, RT_BAD_FILE, "id %u belongs to two tokens, '%.*s' and '%.*s'", id, shown, text,
                       v->pieces[id].len > 60 ? 60 : (int)v->pieces[id].len, v->text + v->pieces[id].offset);
    if (!grow_pieces(v, (size_t)id + 1) || !grow_table(v))
        return rt_fail(err, RT_NO_MEMORY, "no memory for a vocabulary of %u tokens", id + 1);
    size_t slot = slot_of(v, text, len), offset;
    if (v->table[slot] != VOCAB_NONE)
        return rt_fail(err, RT_BAD_FILE, "token '%.*s' stands twice, with the ids %u and %u", shown, text,
                       v->table[slot], id);
    if (!store_text(v, text, len, &offset))
        return rt_fail(err, RT_NO_MEMORY, "no memory for the texts of a vocabulary of %u tokens", id + 1);
    v->pieces[id] = (struct vocab_piece){offset, (uint32_t)len, score, flags, true};
    v->table[slot] = id;
    v->count++;
    if ((flags & VOCAB_MODEL) && len > v->max_len)
        v->max_len = (uint32_t)len;
    return RT_OK;
}

uint32_t vocab_find(const struct vocab *v, const char *text, size_t len)
{
    return v->table_cap == 0 ? VOCAB_NONE : v->table[slot_of(v, text, len)];
}

const char *vocab_text(const struct vocab *v, uint32_t id, size_t *len)
{
    if (id >= v->size || !v->pieces[id].used)
        return NULL;
    *len = v->pieces[id].len;
    return v->text + v->pieces[id].offset;
}

uint8_t vocab_flags(const struct vocab *v, uint32_t id)
{
    return id < v->size && v->pieces[id].used ? v->pieces[id].flags : 0;
}

void vocab_finish(struct vocab *v)
{
    free(v->pieces);
    free(v->text);
    free(v->table);
    *v = (struct vocab){0};
}
