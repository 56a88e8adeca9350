/* tools/wrap.c - see wrap.h. */
#include "tools/wrap.h"

#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum { NARROWEST = 20 };

unsigned wrap_width(FILE *to)
{
    struct winsize size;
    return isatty(fileno(to)) && ioctl(fileno(to), TIOCGWINSZ, &size) == 0 && size.ws_col >= NARROWEST ? size.ws_col : 0;
}

/* The spaces and the word that wait, on this line or the next. Spaces at a break vanish, those that open a line (code) stay. */
static void release(struct wrap *w)
{
    if (w->length && w->column && w->column + w->spaces + w->cells > w->width) {
        fputc('\n', w->to);
        w->column = w->spaces = 0;
    }
    for (unsigned i = 0; i < w->spaces; i++)
        fputc(' ', w->to);
    fwrite(w->word, 1, w->length, w->to);
    w->column += w->spaces + w->cells;
    w->spaces = w->cells = 0;
    w->length = 0;
}

/* Columns of the character that begins at p; continuation bytes take none. Eastern wide ones and emoji take two. */
static unsigned cells_of(const unsigned char *p, size_t n)
{
    uint32_t c = *p;
    if ((*p & 0xc0) == 0x80)
        return 0;
    if (*p >= 0xe0 && n >= 3)
        c = *p < 0xf0 ? (*p & 15) << 12 | (p[1] & 63) << 6 | (p[2] & 63) : n >= 4 ? (*p & 7) << 18 | (p[1] & 63) << 12 | (p[2] & 63) << 6 | (p[3] & 63) : 0;
    return (c >= 0x1100 && c <= 0x115f) || (c >= 0x2e80 && c <= 0xa4cf) || (c >= 0xac00 && c <= 0xd7a3) || (c >= 0xf900 && c <= 0xfaff) ||
                   (c >= 0xfe30 && c <= 0xfe6f) || (c >= 0xff00 && c <= 0xff60) || (c >= 0x1f300 && c <= 0x1faff) || (c >= 0x20000 && c <= 0x3fffd)
               ? 2
               : 1;
}

void wrap_text(struct wrap *w, const char *text, size_t n)
{
    if (!w->width) {
        fwrite(text, 1, n, w->to);
        return;
    }
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)text[i];
        if (c == '\n') {
            release(w);
            fputc('\n', w->to);
            w->column = 0;
        } else if (c == ' ') {
            if (w->length)
                release(w);
            w->spaces++;
        } else {
            unsigned cells = cells_of((const unsigned char *)text + i, n - i);
            if ((cells && w->length + 4 >= sizeof w->word) || (cells == 2 && w->length)) /* a very long word; between wide characters lines may end */
                release(w);
            w->word[w->length++] = (char)c;
            w->cells += cells;
        }
    }
}

void wrap_flush(struct wrap *w)
{
    release(w);
    w->column = 0;
}
