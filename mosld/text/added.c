/* mosld/text/added.c - see added.h. */
#include "mosld/text/added.h"

#include "mosld/text/utf8.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

bool added_tokens_add(struct added_tokens *a, struct added_token token)
{
    char *copy = malloc(token.len + 1);
    if (!copy || !text_grow((void **)&a->items, &a->cap, a->count, sizeof *a->items)) {
        free(copy);
        return false;
    }
    memcpy(copy, token.text, token.len);
    copy[token.len] = '\0';
    token.text = copy;
    a->items[a->count++] = token;
    return true;
}

static int compare(const void *left, const void *right)
{
    const struct added_token *a = left, *b = right;
    uint8_t first_a = (uint8_t)a->text[0], first_b = (uint8_t)b->text[0];
    if (first_a != first_b)
        return first_a < first_b ? -1 : 1;
    if (a->len != b->len)
        return a->len > b->len ? -1 : 1;
    return a->id < b->id ? -1 : a->id > b->id;
}

void added_tokens_sort(struct added_tokens *a)
{
    if (a->count > 0)
        qsort(a->items, a->count, sizeof *a->items, compare);
    size_t i = 0;
    for (unsigned byte = 0; byte < 256; byte++) {
        a->first[byte] = (uint32_t)i;
        while (i < a->count && (uint8_t)a->items[i].text[0] == byte)
            i++;
    }
    a->first[256] = (uint32_t)i;
}

void added_tokens_finish(struct added_tokens *a)
{
    for (size_t i = 0; i < a->count; i++)
        free(a->items[i].text);
    free(a->items);
    *a = (struct added_tokens){0};
}

/* \w of Unicode: alphabetic, marks, decimal digits, connector punctuation, joiners. The circled letters are symbols
 * that count as alphabetic. */
static bool is_word(uint32_t c)
{
    if (c == 0x200C || c == 0x200D || (c >= 0x24B6 && c <= 0x24E9) || (c >= 0x1F130 && c <= 0x1F149) ||
        (c >= 0x1F150 && c <= 0x1F169) || (c >= 0x1F170 && c <= 0x1F189))
        return true;
    switch (utf8proc_category((utf8proc_int32_t)c)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_PC:
        return true;
    default:
        return false;
    }
}

/* Start of the character that ends before byte `at` > 0. */
static size_t char_before(const char *text, size_t at)
{
    do
        at--;
    while (at > 0 && ((uint8_t)text[at] & 0xC0) == 0x80);
    return at;
}

static bool stands_alone(const char *text, size_t len, size_t start, size_t end)
{
    return (start == 0 || !is_word(utf8_decode(text + char_before(text, start)))) &&
           (end == len || !is_word(utf8_decode(text + end)));
}

static bool in_scope(const struct added_scope *scope, size_t start, size_t end)
{
    if (scope->all)
        return true;
    size_t low = 0, high = scope->count;
    while (low < high) { /* the last range that begins at or before start */
        size_t mid = (low + high) / 2;
        if (scope->ranges[mid].start <= start)
            low = mid + 1;
        else
            high = mid;
    }
    return low > 0 && end <= scope->ranges[low - 1].end;
}

static const struct added_token *longest_at(const struct added_tokens *a, bool normalized, const char *text, size_t len)
{
    uint8_t byte = (uint8_t)text[0];
    for (uint32_t i = a->first[byte]; i < a->first[byte + 1]; i++) {
        const struct added_token *t = &a->items[i];
        if (t->normalized == normalized && t->len <= len && memcmp(t->text, text, t->len) == 0)
            return t;
    }
    return NULL;
}

bool added_tokens_find(const struct added_tokens *a, bool normalized, const struct added_scope *scope, const char *text,
                       size_t len, size_t limit, size_t *at, struct added_match *match)
{
    if (a->count == 0)
        return false;
    for (size_t i = *at; i < len;) {
        const struct added_token *t = longest_at(a, normalized, text + i, len - i);
        if (!t) {
            i++;
            continue;
        }
        size_t start = i, end = i + t->len;
        i = end; /* also when it is refused below: as Hugging Face's, which looks for the next one behind it */
        if ((t->special && !in_scope(scope, start, end)) || (t->single_word && !stands_alone(text, len, start, end)))
            continue;
        while (t->lstrip && start > limit && utf8_is_space(utf8_decode(text + char_before(text, start))))
            start = char_before(text, start);
        while (t->rstrip && end < len && utf8_is_space(utf8_decode(text + end)))
            end += utf8_length(text[end]);
        *at = end > i ? end : i;
        *match = (struct added_match){t->id, start, end};
        return true;
    }
    return false;
}
