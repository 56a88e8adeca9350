/* mosld/text/utf8.h - UTF-8 as the tokenizers need it.
 *
 * "Valid" is Unicode's definition: no overlong forms, no surrogates, nothing above U+10FFFF. Lengths are bytes. */
#ifndef MOSLD_TEXT_UTF8_H
#define MOSLD_TEXT_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct text_buf;

/* Looks at the character that starts at bytes[0], len >= 1. Returns its length (1 to 4) when it is whole and valid.
 * Otherwise returns minus the number of bytes that belong to the broken character (1 to 3: the maximal subpart, as
 * Unicode and Python's errors="replace" count them), or 0 when the bytes are the valid beginning of a character that
 * `len` cuts off. */
int utf8_check(const char *bytes, size_t len);

/* True when every character is whole and valid. */
bool utf8_valid(const char *bytes, size_t len);

/* Appends the text to `out` with each broken character replaced by one U+FFFD. False when memory is out. */
bool utf8_repair(const char *bytes, size_t len, struct text_buf *out);

/* Length of the valid character that begins with this byte; 1 for a byte that begins none. */
size_t utf8_length(char first);

/* Code point of the whole valid character at `bytes`. */
uint32_t utf8_decode(const char *bytes);

/* Writes code point `c` (valid) to out[4], returns its length. */
size_t utf8_encode(uint32_t c, char out[4]);

/* Python's str.strip() on valid text: moves *text and *len past white space at both ends. */
void utf8_strip(const char **text, size_t *len);

/* Unicode's White_Space, as \s in regular expressions. */
bool utf8_is_space(uint32_t c);

#endif
