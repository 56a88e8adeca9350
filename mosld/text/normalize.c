/* mosld/text/normalize.c - see normalize.h. */
#include "mosld/text/normalize.h"

#include "mosld/text/utf8.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

enum rt_status normalizer_add(struct normalizer *n, enum norm_kind kind, struct text_pattern *pattern,
                              const char *content, struct rt_error *err)
{
    enum rt_status st = RT_OK;
    char *copy = NULL;
    if (n->count == NORM_MAX_STEPS)
        st = rt_fail(err, RT_BAD_FILE, "normalizer has more than %d steps", NORM_MAX_STEPS);
    else if (content && !(copy = strdup(content)))
        st = rt_fail(err, RT_NO_MEMORY, "no memory for a normalizer");
    if (st != RT_OK) {
        text_pattern_destroy(pattern);
        return st;
    }
    n->steps[n->count++] = (struct norm_step){kind, pattern, copy};
    return RT_OK;
}

void normalizer_finish(struct normalizer *n)
{
    for (size_t i = 0; i < n->count; i++) {
        text_pattern_destroy(n->steps[i].pattern);
        free(n->steps[i].content);
    }
    n->count = 0;
}

/* True when the text is ASCII, which every normal form leaves as it is. */
static bool is_ascii(const char *text, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        if ((unsigned char)text[i] >= 0x80)
            return false;
    }
    return true;
}

/* utf8proc sorts the combining marks behind a letter by moving them one place at a time. Text has a handful there; a
 * run that would take it hours is no text. */
#define MAX_MARKS 4096

static bool has_endless_marks(const char *text, size_t len)
{
    size_t run = 0;
    for (size_t i = 0; i < len && run <= MAX_MARKS; i += utf8_length(text[i])) {
        utf8proc_int32_t c = (utf8proc_int32_t)utf8_decode(text + i);
        run = utf8proc_get_property(c)->combining_class != 0 ? run + 1 : 0;
    }
    return run > MAX_MARKS;
}

static enum rt_status normal_form(enum norm_kind kind, const struct text_buf *in, struct text_buf *out,
                                  struct rt_error *err)
{
    static const utf8proc_option_t options[] = {
        [NORM_NFC] = UTF8PROC_STABLE | UTF8PROC_COMPOSE,
        [NORM_NFD] = UTF8PROC_STABLE | UTF8PROC_DECOMPOSE,
        [NORM_NFKC] = UTF8PROC_STABLE | UTF8PROC_COMPOSE | UTF8PROC_COMPAT,
        [NORM_NFKD] = UTF8PROC_STABLE | UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT,
    };
    if (is_ascii(in->data, in->len))
        return text_buf_append(out, in->data, in->len) ? RT_OK : rt_fail(err, RT_NO_MEMORY, "no memory for text");
    if (has_endless_marks(in->data, in->len))
        return rt_fail(err, RT_FAILED, "cannot normalize a text with more than %d combining marks in a row", MAX_MARKS);
    utf8proc_uint8_t *mapped = NULL;
    utf8proc_ssize_t n =
        utf8proc_map((const utf8proc_uint8_t *)in->data, (utf8proc_ssize_t)in->len, &mapped, options[kind]);
    if (n < 0)
        return rt_fail(err, n == UTF8PROC_ERROR_NOMEM ? RT_NO_MEMORY : RT_FAILED,
                       "cannot normalize a text of %zu bytes: %s", in->len, utf8proc_errmsg(n));
    bool ok = text_buf_append(out, (const char *)mapped, (size_t)n);
    free(mapped);
    return ok ? RT_OK : rt_fail(err, RT_NO_MEMORY, "no memory for text");
}

static enum rt_status replace(const struct norm_step *step, struct text_matcher *matcher, const struct text_buf *in,
                              struct text_buf *out, struct rt_error *err)
{
    size_t done = 0, from = 0, last_end = SIZE_MAX;
    while (from <= in->len) {
        bool found;
        size_t start, end;
        enum rt_status st =
            text_pattern_find(step->pattern, matcher, in->data, in->len, from, &found, &start, &end, err);
        if (st != RT_OK)
            return st;
        if (!found)
            break;
        bool empty_behind = start == end && start == last_end; /* nothing, right behind a match, is no match */
        if (!empty_behind &&
            (!text_buf_append(out, in->data + done, start - done) || !text_buf_puts(out, step->content)))
            return rt_fail(err, RT_NO_MEMORY, "no memory for text");
        if (!empty_behind)
            done = end;
        last_end = from = end;
        if (end == start) { /* an empty match: go on behind the next character */
            from++;
            while (from < in->len && ((unsigned char)in->data[from] & 0xC0) == 0x80)
                from++;
        }
    }
    return text_buf_append(out, in->data + done, in->len - done) ? RT_OK
                                                                 : rt_fail(err, RT_NO_MEMORY, "no memory for text");
}

static enum rt_status apply(const struct norm_step *step, struct text_matcher *matcher, const struct text_buf *in,
                            struct text_buf *out, struct rt_error *err)
{
    switch (step->kind) {
    case NORM_PREPEND:
        return text_buf_puts(out, step->content) && text_buf_append(out, in->data, in->len)
                   ? RT_OK
                   : rt_fail(err, RT_NO_MEMORY, "no memory for text");
    case NORM_REPLACE:
        return replace(step, matcher, in, out, err);
    default:
        return normal_form(step->kind, in, out, err);
    }
}

enum rt_status normalize(const struct normalizer *n, struct text_matcher *matcher, const char *text, size_t len,
                         struct text_buf *out, struct rt_error *err)
{
    out->len = 0;
    if (!text_buf_append(out, text, len))
        return rt_fail(err, RT_NO_MEMORY, "no memory for a text of %zu bytes", len);
    for (size_t i = 0; i < n->count && out->len > 0; i++) {
        struct text_buf next = {0};
        enum rt_status st = apply(&n->steps[i], matcher, out, &next, err);
        text_buf_finish(out);
        *out = next;
        if (st != RT_OK)
            return st;
    }
    return RT_OK;
}
