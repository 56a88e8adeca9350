/* tests/support/tiny_tokenizer.h - a byte-level tokenizer small enough to check ids by hand, and a folder to put files
 * in.
 *
 * The id of a byte is its value, so 'a' is 97; then there are three merges, and the special tokens. */
#ifndef TESTS_TINY_TOKENIZER_H
#define TESTS_TINY_TOKENIZER_H

#include "mosld/text/tokenizer.h"

enum {
    TINY_SPACE_A = 256,       /* " A" */
    TINY_XY = 257,            /* "xy" */
    TINY_COLON_SPACE_A = 258, /* ": A": only without words, which keep it apart */
    TINY_END = 259,           /* <|endoftext|>, the end token */
    TINY_IM_START = 260,
    TINY_IM_END = 261,
    TINY_BEGIN = 262, /* <s>, the beginning token; put in front if asked for */
    TINY_VOCAB = 263,
};

enum {
    TINY_WITH_BEGIN = 1,    /* <s> goes in front of every text */
    TINY_WITHOUT_WORDS = 2, /* text is not cut into words first, so merges reach across them */
};

/* Makes an empty folder below TMPDIR or /tmp, the process's own; aborts when it cannot. The string stays. */
const char *tiny_folder(void);

/* Removes the folder and the files in it. */
void tiny_folder_remove(void);

/* Writes a file into the folder and returns its path, which stays until the next but seven calls. */
const char *tiny_file(const char *name, const char *text);

/* Opens the tokenizer, from files that it writes into the folder. */
struct mosld_tokenizer *tiny_tokenizer(int flags);

#endif
