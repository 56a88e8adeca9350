/* mosld/text/added.h - added tokens: texts that are found before anything else is done, such as <|im_start|>.
 *
 * Found as Hugging Face's tokenizers find them: leftmost first, of those that begin together the longest; `lstrip` and
 * `rstrip` take the white space beside it in, `single_word` wants no word character beside it. Tokens with
 * `normalized` are looked for in the normalized text, the others in the text as it came. */
#ifndef MOSLD_TEXT_ADDED_H
#define MOSLD_TEXT_ADDED_H

#include "mosld/text/textbuf.h"
#include "mosld/text/tokenizer.h"
#include "runtime/error.h"

#include <stdint.h>

struct added_token {
    uint32_t id;
    char *text; /* what is looked for; owned */
    size_t len;
    bool special, lstrip, rstrip, single_word, normalized;
};

struct added_tokens {
    struct added_token *items; /* after added_tokens_sort: by first byte, then longest first */
    size_t count, cap;
    uint32_t first[257]; /* items that begin with byte b: first[b] .. first[b + 1] - 1 */
};

/* Appends a token; copies text (len > 0). False when memory is out. */
bool added_tokens_add(struct added_tokens *a, struct added_token token);

/* To be called once, after the last one was added. */
void added_tokens_sort(struct added_tokens *a);

void added_tokens_finish(struct added_tokens *a);

/* Where special tokens may be found: everywhere (`all`), or inside these ranges (sorted, not overlapping). */
struct added_scope {
    bool all;
    const struct mosld_text_range *ranges;
    size_t count;
};

struct added_match {
    uint32_t id;
    size_t start, end; /* bytes, with the white space that lstrip and rstrip take */
};

/* Finds the first token with this `normalized` flag in text[0..len), looking from *at on. Bytes before `limit` belong
 * to the match before and are not taken by lstrip. Sets *at to where to look next. False when there is none. */
bool added_tokens_find(const struct added_tokens *a, bool normalized, const struct added_scope *scope, const char *text,
                       size_t len, size_t limit, size_t *at, struct added_match *match);

#endif
