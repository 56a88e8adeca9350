/* mosld/text/textbuf.h - a growing byte string, for text that is rewritten piece by piece.
 *
 * Owns its bytes; text_buf_finish frees them. Bytes may hold NULs; `data` is not terminated unless
 * text_buf_terminate was called. A zeroed struct is an empty buffer. Functions that grow return false when memory
 * is out, and leave the buffer as it was. */
#ifndef MOSLD_TEXT_TEXTBUF_H
#define MOSLD_TEXT_TEXTBUF_H

#include <stdbool.h>
#include <stddef.h>

struct text_buf {
    char *data;
    size_t len; /* bytes in use */
    size_t cap; /* bytes allocated */
};

/* Makes room for `more` bytes behind `len`. */
bool text_buf_reserve(struct text_buf *buf, size_t more);

bool text_buf_append(struct text_buf *buf, const char *bytes, size_t len);

/* Appends a C string. */
bool text_buf_puts(struct text_buf *buf, const char *string);

/* Puts a NUL behind the last byte, which `len` does not count. */
bool text_buf_terminate(struct text_buf *buf);

/* NULL is fine. Leaves an empty buffer. */
void text_buf_finish(struct text_buf *buf);

/* Makes room for one more element in a growing array of `size`-byte elements: `*array` may move, `*cap` (elements)
 * grows by doubling. */
bool text_grow(void **array, size_t *cap, size_t count, size_t size);

#endif
