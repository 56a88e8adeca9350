/* mosld/text/pretokenize.h - cutting text into words before merging.
 *
 * A pipeline of steps; each takes a list of words and cuts them further. All of Hugging Face's steps that we know are
 * one of four: cut by a pattern, put a space in front (byte level), make spaces visible (Metaspace), and nothing. */
#ifndef MOSLD_TEXT_PRETOKENIZE_H
#define MOSLD_TEXT_PRETOKENIZE_H

#include "mosld/text/pattern.h"
#include "mosld/text/textbuf.h"

/* What happens to the matches of a cut. */
enum split_behavior {
    SPLIT_ISOLATED,   /* each match is a word */
    SPLIT_REMOVED,    /* matches vanish */
    SPLIT_CONTIGUOUS, /* neighbouring matches are one word */
    SPLIT_WITH_PREVIOUS,
    SPLIT_WITH_NEXT,
};

enum prefix_scheme { PREFIX_NEVER, PREFIX_FIRST, PREFIX_ALWAYS };

enum pretok_kind { PRETOK_SPLIT, PRETOK_SPACE_PREFIX, PRETOK_METASPACE };

struct pretok_step {
    enum pretok_kind kind;
    struct text_pattern *pattern; /* SPLIT; METASPACE: the replacement, or NULL when it does not cut */
    enum split_behavior behavior;
    bool invert;         /* SPLIT: what does not match counts as the match */
    char replacement[8]; /* METASPACE: what stands for a space, usually U+2581 */
    enum prefix_scheme prefix;
};

/* The most steps a tokenizer may have: a file's Sequence can be nested and long. */
#define PRETOK_MAX_STEPS 16

struct pretokenizer {
    struct pretok_step steps[PRETOK_MAX_STEPS];
    size_t count;
};

struct text_span {
    size_t start, len; /* bytes in words.text */
};

/* Words: ranges of one text. None is empty. */
struct text_words {
    struct text_buf text;
    struct text_span *spans;
    size_t count, cap;
};

/* Appends a step; takes the pattern. RT_BAD_FILE when there are too many (the pattern is destroyed then). */
enum rt_status pretokenizer_add(struct pretokenizer *p, struct pretok_step step, struct rt_error *err);

/* Appends the cut by a regular expression, a C string. */
enum rt_status pretokenizer_add_regex(struct pretokenizer *p, const char *regex, enum split_behavior behavior,
                                      bool invert, struct rt_error *err);

void pretokenizer_finish(struct pretokenizer *p);

/* Cuts text[0..len), valid UTF-8, into `out` (empty or used before; finish it with text_words_finish). `at_start`: the
 * text is the beginning of what was to be encoded. RT_FAILED when a pattern hits its limit, RT_NO_MEMORY. */
enum rt_status pretokenize(const struct pretokenizer *p, struct text_matcher *matcher, const char *text, size_t len,
                           bool at_start, struct text_words *out, struct rt_error *err);

void text_words_finish(struct text_words *words);

#endif
