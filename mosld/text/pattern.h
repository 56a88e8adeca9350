/* mosld/text/pattern.h - regular expressions of tokenizer files, by PCRE2.
 *
 * Hugging Face's tokenizers read patterns with Oniguruma (Ruby's syntax). Patterns are rewritten a little so that
 * PCRE2 means the same: \s, \w and their opposites by Unicode's properties, ^ and $ at every line. What PCRE2 would
 * silently read otherwise (set operations in brackets) is refused. A pattern from a file may be made to run for ever:
 * limits stop it with an error. */
#ifndef MOSLD_TEXT_PATTERN_H
#define MOSLD_TEXT_PATTERN_H

#include "runtime/error.h"

#include <stdbool.h>
#include <stddef.h>

struct text_pattern;
struct text_matcher;

/* Compiles `regex` (len bytes of UTF-8). RT_BAD_FILE with the pattern and what is wrong at which byte; the caller
 * puts the file's name in front. The pattern is only read afterwards, from any number of threads. */
enum rt_status text_pattern_create(const char *regex, size_t len, struct text_pattern **out, struct rt_error *err);

/* The same for a literal text. */
enum rt_status text_pattern_create_literal(const char *text, size_t len, struct text_pattern **out,
                                           struct rt_error *err);

/* NULL is fine. */
void text_pattern_destroy(struct text_pattern *pattern);

/* Work space of one thread for any patterns. */
enum rt_status text_matcher_create(struct text_matcher **out, struct rt_error *err);
void text_matcher_destroy(struct text_matcher *matcher);

/* Finds the first match at or behind byte `from` of text[0..len), valid UTF-8. Sets *found, and *start and *end when
 * there is one. RT_FAILED when a limit was hit. */
enum rt_status text_pattern_find(const struct text_pattern *pattern, struct text_matcher *matcher, const char *text,
                                 size_t len, size_t from, bool *found, size_t *start, size_t *end,
                                 struct rt_error *err);

#endif
