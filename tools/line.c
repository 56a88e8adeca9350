/* tools/line.c - see line.h. */
#include "tools/line.h"

#include <errno.h>
#include <locale.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <wchar.h>

#ifdef HAVE_LIBEDIT
#include <histedit.h>
#include <poll.h>
#endif

enum { HISTORY_LINES = 1000 };

struct line_reader {
    const char *prompt;
    char *history_file, *line;
    size_t size;
    volatile sig_atomic_t *interrupt;
    bool terminal;
#ifdef HAVE_LIBEDIT
    EditLine *el;
    History *history;
#endif
};

#ifdef HAVE_LIBEDIT
static const char *prompt_of(EditLine *el)
{
    struct line_reader *r;
    el_get(el, EL_CLIENTDATA, &r);
    return r->prompt;
}

/* The next character; -1 when interrupted, 0 at the end. Reading here, and not in libedit, is what lets Ctrl-C give a line up. */
static int next_character(EditLine *el, wchar_t *out)
{
    struct line_reader *r;
    mbstate_t state = {0};
    el_get(el, EL_CLIENTDATA, &r);
    for (;;) {
        char byte;
        struct pollfd fd = {.fd = STDIN_FILENO, .events = POLLIN};
        if (*r->interrupt)
            return -1;
        if (poll(&fd, 1, 200) <= 0)
            continue; /* a signal may come between the look at the flag and the poll: it is seen within 0.2 s */
        ssize_t n = read(STDIN_FILENO, &byte, 1);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return (int)n;
        size_t used = mbrtowc(out, &byte, 1, &state);
        if (used == (size_t)-1) /* no character: it is left out */
            state = (mbstate_t){0};
        else if (used != (size_t)-2)
            return 1;
    }
}

static void open_editor(struct line_reader *r)
{
    HistEvent event;
    if (!setlocale(LC_CTYPE, "") || MB_CUR_MAX == 1)
        setlocale(LC_CTYPE, "C.UTF-8");
    r->el = el_init("mosld", stdin, stderr, stderr); /* answers go to standard output, what is typed does not */
    r->history = history_init();
    if (!r->el || !r->history)
        return;
    el_set(r->el, EL_CLIENTDATA, r);
    el_set(r->el, EL_PROMPT, prompt_of);
    el_set(r->el, EL_EDITOR, "emacs");
    el_set(r->el, EL_HIST, history, r->history);
    el_set(r->el, EL_GETCFN, next_character);
    el_set(r->el, EL_BIND, "^R", "em-inc-search-prev", NULL);
    history(r->history, &event, H_SETSIZE, HISTORY_LINES);
    history(r->history, &event, H_SETUNIQUE, 1);
    if (r->history_file)
        history(r->history, &event, H_LOAD, r->history_file);
}

static const char *edit_line(struct line_reader *r)
{
    HistEvent event;
    int n;
    const char *line = el_gets(r->el, &n);
    if (!line || n <= 0 || *r->interrupt)
        return NULL;
    free(r->line);
    r->line = strndup(line, strcspn(line, "\r\n"));
    if (r->line && *r->line)
        history(r->history, &event, H_ENTER, r->line);
    return r->line;
}

static void close_editor(struct line_reader *r)
{
    HistEvent event;
    if (r->history && r->history_file) {
        mode_t mask = umask(077); /* what was said is nobody else's */
        history(r->history, &event, H_SAVE, r->history_file);
        umask(mask);
    }
    if (r->el)
        el_end(r->el);
    if (r->history)
        history_end(r->history);
}
#else
static void open_editor(struct line_reader *r) { (void)r; }
static void close_editor(struct line_reader *r) { (void)r; }
#endif

struct line_reader *line_open(const char *prompt, const char *history, volatile sig_atomic_t *interrupt)
{
    struct line_reader *r = calloc(1, sizeof *r);
    if (!r)
        return NULL;
    r->prompt = prompt;
    r->interrupt = interrupt;
    r->terminal = isatty(STDIN_FILENO) && isatty(STDERR_FILENO);
    r->history_file = history ? strdup(history) : NULL;
    if (r->terminal)
        open_editor(r);
    return r;
}

const char *line_read(struct line_reader *r)
{
#ifdef HAVE_LIBEDIT
    if (r->el && r->history)
        return edit_line(r);
#endif
    if (r->terminal)
        fputs(r->prompt, stderr);
    ssize_t n = getline(&r->line, &r->size, stdin);
    if (n < 0)
        return NULL;
    r->line[strcspn(r->line, "\r\n")] = 0;
    return r->line;
}

void line_close(struct line_reader **reader)
{
    struct line_reader *r = *reader;
    if (!r)
        return;
    close_editor(r);
    free(r->history_file);
    free(r->line);
    free(r);
    *reader = NULL;
}
