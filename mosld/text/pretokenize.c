/* mosld/text/pretokenize.c - see pretokenize.h. */
#include "mosld/text/pretokenize.h"

#include "mosld/text/utf8.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum rt_status pretokenizer_add(struct pretokenizer *p, struct pretok_step step, struct rt_error *err)
{
    if (p->count == PRETOK_MAX_STEPS) {
        text_pattern_destroy(step.pattern);
        return rt_fail(err, RT_BAD_FILE, "pre_tokenizer has more than %d steps", PRETOK_MAX_STEPS);
    }
    p->steps[p->count++] = step;
    return RT_OK;
}

enum rt_status pretokenizer_add_regex(struct pretokenizer *p, const char *regex, enum split_behavior behavior,
                                      bool invert, struct rt_error *err)
{
    struct pretok_step step = {.kind = PRETOK_SPLIT, .behavior = behavior, .invert = invert};
    enum rt_status st = text_pattern_create(regex, strlen(regex), &step.pattern, err);
    return st == RT_OK ? pretokenizer_add(p, step, err) : st;
}

void pretokenizer_finish(struct pretokenizer *p)
{
    for (size_t i = 0; i < p->count; i++)
        text_pattern_destroy(p->steps[i].pattern);
    p->count = 0;
}

void text_words_finish(struct text_words *words)
{
    text_buf_finish(&words->text);
    free(words->spans);
    *words = (struct text_words){0};
}

static enum rt_status no_memory(struct rt_error *err)
{
    return rt_fail(err, RT_NO_MEMORY, "no memory to cut text into words");
}

/* Empty spans are dropped when a word is cut (drop_empty): until then they keep their neighbours apart. */
static bool push_span(struct text_words *out, size_t start, size_t len)
{
    if (!text_grow((void **)&out->spans, &out->cap, out->count, sizeof *out->spans))
        return false;
    out->spans[out->count++] = (struct text_span){start, len};
    return true;
}

/* Adds one stretch of a word, matched or not, to the list whose entries from `first` on belong to the same word.
 * `before`: whether the stretch before was a match. WITH_NEXT is not done here. */
static bool add_stretch(const struct pretok_step *step, struct text_words *out, size_t first, size_t start, size_t end,
                        bool match, bool before, bool any)
{
    struct text_span *last = out->count > first ? &out->spans[out->count - 1] : NULL;
    switch (step->behavior) {
    case SPLIT_REMOVED:
        return match || push_span(out, start, end - start);
    case SPLIT_CONTIGUOUS:
        if (any && match == before && last) {
            last->len += end - start;
            return true;
        }
        break;
    case SPLIT_WITH_PREVIOUS:
        if (match && any && !before && last) {
            last->len += end - start;
            return true;
        }
        break;
    default:
        break;
    }
    return push_span(out, start, end - start);
}

/* A match waits for what follows it; of several in a row only the last does. */
struct with_next {
    bool waiting;
    size_t start, end;
};

static bool add_with_next(struct with_next *w, struct text_words *out, size_t start, size_t end, bool match)
{
    bool ok = true;
    if (match) {
        if (w->waiting)
            ok = push_span(out, w->start, w->end - w->start);
        *w = (struct with_next){true, start, end};
        return ok;
    }
    ok = push_span(out, w->waiting ? w->start : start, end - (w->waiting ? w->start : start));
    w->waiting = false;
    return ok;
}

/* Takes the empty spans from `first` on away. */
static void drop_empty(struct text_words *out, size_t first)
{
    size_t kept = first;
    for (size_t i = first; i < out->count; i++) {
        if (out->spans[i].len > 0)
            out->spans[kept++] = out->spans[i];
    }
    out->count = kept;
}

/* Cuts one word, bytes [base, base + len) of `text`, and appends what comes out. */
static enum rt_status split_word(const struct pretok_step *step, struct text_matcher *matcher, const char *text,
                                 size_t base, size_t len, struct text_words *out, struct rt_error *err)
{
    size_t first = out->count, done = 0, from = 0, last_end = SIZE_MAX;
    bool before = false, any = false;
    struct with_next next = {0};
    while (done < len || from <= len) {
        bool found = false;
        size_t start = len, end = len;
        if (from <= len) {
            enum rt_status st =
                text_pattern_find(step->pattern, matcher, text + base, len, from, &found, &start, &end, err);
            if (st != RT_OK)
                return st;
        }
        if (found && start == end && start == last_end) { /* nothing, right behind a match, is no match */
            from = end < len ? end + utf8_length(text[base + end]) : len + 1;
            continue;
        }
        last_end = end;
        /* The stretch before the match, then the match (perhaps empty: it still separates). */
        size_t cut[3] = {done, found ? start : len, found ? end : len};
        for (int i = 0; i < 2; i++) {
            bool match = (i == 1) != step->invert;
            if (i == 0 ? cut[0] == cut[1] : !found)
                continue;
            bool ok = step->behavior == SPLIT_WITH_NEXT
                          ? add_with_next(&next, out, base + cut[i], base + cut[i + 1], match)
                          : add_stretch(step, out, first, base + cut[i], base + cut[i + 1], match, before, any);
            if (!ok)
                return no_memory(err);
            before = match;
            any = true;
        }
        done = cut[2];
        if (!found)
            break;
        from = end > start ? end : end < len ? end + utf8_length(text[base + end]) : len + 1;
    }
    if (next.waiting && !push_span(out, next.start, next.end - next.start))
        return no_memory(err);
    drop_empty(out, first);
    return RT_OK;
}

/* Appends one word to a new text, rewritten as the step says, and its span. */
static bool rewrite_word(const struct pretok_step *step, const char *word, size_t len, bool at_start,
                         struct text_words *out)
{
    size_t start = out->text.len;
    const char *mark = step->kind == PRETOK_METASPACE ? step->replacement : " ";
    size_t mark_len = strlen(mark);
    bool has_mark = (len >= mark_len && memcmp(word, mark, mark_len) == 0) || (len > 0 && word[0] == ' ');
    bool wanted = step->prefix == PREFIX_ALWAYS || (step->prefix == PREFIX_FIRST && at_start);
    bool ok = !wanted || has_mark || text_buf_puts(&out->text, mark);
    for (size_t i = 0; ok && i < len; i++)
        ok = word[i] == ' ' ? text_buf_puts(&out->text, mark) : text_buf_append(&out->text, word + i, 1);
    return ok && push_span(out, start, out->text.len - start);
}

static enum rt_status rewrite_words(const struct pretok_step *step, const struct text_words *in, bool at_start,
                                    struct text_words *out, struct rt_error *err)
{
    for (size_t i = 0; i < in->count; i++) {
        bool first = at_start && in->spans[i].start == 0;
        if (!rewrite_word(step, in->text.data + in->spans[i].start, in->spans[i].len, first, out))
            return no_memory(err);
    }
    return RT_OK;
}

static enum rt_status split_words(const struct pretok_step *step, struct text_matcher *matcher,
                                  struct text_words *words, struct rt_error *err)
{
    struct text_words out = {0};
    enum rt_status st = RT_OK;
    for (size_t i = 0; st == RT_OK && i < words->count; i++)
        st = split_word(step, matcher, words->text.data, words->spans[i].start, words->spans[i].len, &out, err);
    if (st != RT_OK) {
        text_words_finish(&out);
        return st;
    }
    free(words->spans);
    words->spans = out.spans;
    words->count = out.count;
    words->cap = out.cap;
    return RT_OK;
}

enum rt_status pretokenize(const struct pretokenizer *p, struct text_matcher *matcher, const char *text, size_t len,
                           bool at_start, struct text_words *out, struct rt_error *err)
{
    out->text.len = out->count = 0;
    if (!text_buf_append(&out->text, text, len) || !push_span(out, 0, len))
        return no_memory(err);
    for (size_t i = 0; i < p->count; i++) {
        const struct pretok_step *step = &p->steps[i];
        enum rt_status st = RT_OK;
        if (step->kind != PRETOK_SPLIT) {
            struct text_words rewritten = {0};
            st = rewrite_words(step, out, at_start, &rewritten, err);
            text_words_finish(out);
            *out = rewritten;
        }
        if (st == RT_OK && step->pattern)
            st = split_words(step, matcher, out, err);
        if (st != RT_OK)
            return st;
    }
    return RT_OK;
}
