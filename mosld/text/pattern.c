/* mosld/text/pattern.c - see pattern.h. */
#include "mosld/text/pattern.h"

#include "mosld/text/textbuf.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

/* Steps one search may take: a match of some characters needs a few a character, and a megabyte of spaces is tried
 * from its end once, so this is far above honest use and stops a catastrophic pattern in about a second. */
#define MATCH_LIMIT 20000000u
#define HEAP_LIMIT_KIB (64u * 1024u)
#define JIT_STACK_MAX (8u * 1024u * 1024u)

struct text_pattern {
    pcre2_code *code;
    char *source; /* as the file has it, for messages */
};

struct text_matcher {
    pcre2_match_data *data;
    pcre2_match_context *context;
    pcre2_jit_stack *stack;
};

/* Appends what PCRE2 should read for the escape \c, in or outside brackets. */
static bool rewrite_escape(char c, bool in_class, struct text_buf *out)
{
    static const char word[] = "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}";
    switch (c) {
    case 's':
        return text_buf_puts(out, "\\p{White_Space}");
    case 'S':
        return text_buf_puts(out, "\\P{White_Space}");
    case 'w':
        return (in_class || text_buf_puts(out, "[")) && text_buf_puts(out, word) &&
               (in_class || text_buf_puts(out, "]"));
    case 'W':
        if (!in_class)
            return text_buf_puts(out, "[^") && text_buf_puts(out, word) && text_buf_puts(out, "]");
        break;
    default:
        break;
    }
    return text_buf_puts(out, "\\") && text_buf_append(out, &c, 1);
}

/* Rewrites Ruby's syntax into PCRE2's. */
static enum rt_status rewrite(const char *regex, size_t len, struct text_buf *out, struct rt_error *err)
{
    bool in_class = false, ok = true;
    size_t class_at = 0; /* where the open bracket's content begins */
    for (size_t i = 0; ok && i < len; i++) {
        char c = regex[i];
        if (c == '\\' && i + 1 < len) {
            ok = rewrite_escape(regex[++i], in_class, out);
            continue;
        }
        if (!in_class && c == '[') {
            in_class = true;
            class_at = i + 1 < len && regex[i + 1] == '^' ? i + 2 : i + 1;
        } else if (in_class && c == ']' && i > class_at) {
            in_class = false;
        } else if (in_class && ((c == '[' && (i + 1 == len || regex[i + 1] != ':')) ||
                                (c == '&' && i + 1 < len && regex[i + 1] == '&'))) {
            return rt_fail(err, RT_BAD_FILE,
                           "regular expression '%.*s': byte %zu: brackets within brackets and && are not supported",
                           len > 200 ? 200 : (int)len, regex, i);
        } else if (in_class && c == '[') {
            const char *end = memmem(regex + i, len - i, ":]", 2);
            if (end) {
                size_t n = (size_t)(end - (regex + i)) + 2;
                ok = text_buf_append(out, regex + i, n);
                i += n - 1;
                continue;
            }
        }
        ok = text_buf_append(out, &c, 1);
    }
    return ok ? RT_OK : rt_fail(err, RT_NO_MEMORY, "no memory for a regular expression of %zu bytes", len);
}

static enum rt_status compile(const char *regex, size_t len, uint32_t options, struct text_pattern *p,
                              struct rt_error *err)
{
    int code = 0;
    size_t at = 0;
    p->code = pcre2_compile((PCRE2_SPTR)regex, len, PCRE2_UTF | options, &code, &at, NULL);
    if (!p->code) {
        char why[160] = "";
        pcre2_get_error_message(code, (PCRE2_UCHAR *)why, sizeof why);
        return rt_fail(err, RT_BAD_FILE, "regular expression '%.200s': %s (near byte %zu)", p->source, why, at);
    }
    pcre2_jit_compile(p->code, PCRE2_JIT_COMPLETE); /* where there is no JIT, the interpreter does the same */
    return RT_OK;
}

static enum rt_status pattern_new(const char *source, size_t len, struct text_pattern **out, struct rt_error *err)
{
    *out = calloc(1, sizeof **out);
    if (*out)
        (*out)->source = strndup(source, len);
    if (*out && (*out)->source)
        return RT_OK;
    text_pattern_destroy(*out);
    *out = NULL;
    return rt_fail(err, RT_NO_MEMORY, "no memory for a regular expression of %zu bytes", len);
}

enum rt_status text_pattern_create(const char *regex, size_t len, struct text_pattern **out, struct rt_error *err)
{
    struct text_buf buf = {0};
    enum rt_status st = pattern_new(regex, len, out, err);
    if (st == RT_OK)
        st = rewrite(regex, len, &buf, err);
    /* PCRE2 allows no look at single bytes in UTF mode: \C would split characters. */
    if (st == RT_OK)
        st = compile(buf.data ? buf.data : "", buf.len, PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C, *out,
                     err);
    text_buf_finish(&buf);
    if (st != RT_OK) {
        text_pattern_destroy(*out);
        *out = NULL;
    }
    return st;
}

enum rt_status text_pattern_create_literal(const char *text, size_t len, struct text_pattern **out,
                                           struct rt_error *err)
{
    enum rt_status st = pattern_new(text, len, out, err);
    if (st == RT_OK)
        st = compile(text, len, PCRE2_LITERAL, *out, err);
    if (st != RT_OK) {
        text_pattern_destroy(*out);
        *out = NULL;
    }
    return st;
}

void text_pattern_destroy(struct text_pattern *pattern)
{
    if (!pattern)
        return;
    pcre2_code_free(pattern->code);
    free(pattern->source);
    free(pattern);
}

enum rt_status text_matcher_create(struct text_matcher **out, struct rt_error *err)
{
    struct text_matcher *m = calloc(1, sizeof *m);
    if (m) {
        m->data = pcre2_match_data_create(1, NULL);
        m->context = pcre2_match_context_create(NULL);
        m->stack = pcre2_jit_stack_create(32 * 1024, JIT_STACK_MAX, NULL); /* NULL where there is no JIT */
    }
    if (!m || !m->data || !m->context) {
        text_matcher_destroy(m);
        *out = NULL;
        return rt_fail(err, RT_NO_MEMORY, "no memory to match regular expressions");
    }
    pcre2_set_match_limit(m->context, MATCH_LIMIT);
    pcre2_set_heap_limit(m->context, HEAP_LIMIT_KIB);
    if (m->stack)
        pcre2_jit_stack_assign(m->context, NULL, m->stack);
    *out = m;
    return RT_OK;
}

void text_matcher_destroy(struct text_matcher *matcher)
{
    if (!matcher)
        return;
    pcre2_jit_stack_free(matcher->stack);
    pcre2_match_context_free(matcher->context);
    pcre2_match_data_free(matcher->data);
    free(matcher);
}

enum rt_status text_pattern_find(const struct text_pattern *pattern, struct text_matcher *matcher, const char *text,
                                 size_t len, size_t from, bool *found, size_t *start, size_t *end, struct rt_error *err)
{
    int n =
        pcre2_match(pattern->code, (PCRE2_SPTR)text, len, from, PCRE2_NO_UTF_CHECK, matcher->data, matcher->context);
    *found = n >= 0;
    if (n == PCRE2_ERROR_NOMATCH)
        return RT_OK;
    if (n < 0) {
        char why[160] = "";
        pcre2_get_error_message(n, (PCRE2_UCHAR *)why, sizeof why);
        return rt_fail(err, RT_FAILED,
                       "the tokenizer's regular expression '%.200s' gave up on a text of %zu bytes: %s; "
                       "is the tokenizer file what it should be?",
                       pattern->source, len, why);
    }
    const size_t *range = pcre2_get_ovector_pointer(matcher->data);
    *start = range[0];
    *end = range[1];
    if (*start > *end) { /* \K in a lookahead can do that */
        *start = *end;
    }
    return RT_OK;
}
