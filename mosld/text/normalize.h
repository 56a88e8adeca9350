/* mosld/text/normalize.h - what happens to text before it is cut into words: Unicode normal forms, a text in front,
 * replacements. Text in and out is valid UTF-8. */
#ifndef MOSLD_TEXT_NORMALIZE_H
#define MOSLD_TEXT_NORMALIZE_H

#include "mosld/text/pattern.h"
#include "mosld/text/textbuf.h"

enum norm_kind { NORM_NFC, NORM_NFD, NORM_NFKC, NORM_NFKD, NORM_PREPEND, NORM_REPLACE };

struct norm_step {
    enum norm_kind kind;
    struct text_pattern *pattern; /* REPLACE; owned */
    char *content;                /* PREPEND, REPLACE: a C string; owned */
};

#define NORM_MAX_STEPS 16

struct normalizer {
    struct norm_step steps[NORM_MAX_STEPS];
    size_t count;
};

/* Appends a step and copies `content` (NULL is fine). Takes the pattern, also on failure. RT_BAD_FILE when there are
 * too many. */
enum rt_status normalizer_add(struct normalizer *n, enum norm_kind kind, struct text_pattern *pattern,
                              const char *content, struct rt_error *err);

void normalizer_finish(struct normalizer *n);

/* Sets `out` (empty, or used before) to the normalized text. RT_FAILED when a pattern hits its limit or thousands of
 * combining marks follow each other, RT_NO_MEMORY. */
enum rt_status normalize(const struct normalizer *n, struct text_matcher *matcher, const char *text, size_t len,
                         struct text_buf *out, struct rt_error *err);

#endif
