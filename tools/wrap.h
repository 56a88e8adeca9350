/* tools/wrap.h - text that arrives in pieces, broken between words where a terminal's line ends. A word is held back until it is whole. */
#ifndef MOSLD_TOOLS_WRAP_H
#define MOSLD_TOOLS_WRAP_H

#include <stdio.h>

struct wrap {
    FILE *to;
    unsigned width;  /* columns; 0: nothing is broken, or held back */
    unsigned column, spaces, cells; /* what is printed of the line; what waits: spaces, and a word of so many columns */
    size_t length;
    char word[256];
};

/* The width of the terminal that `to` is, or 0. */
unsigned wrap_width(FILE *to);
void wrap_text(struct wrap *w, const char *text, size_t n);
void wrap_flush(struct wrap *w); /* the last word */

#endif
