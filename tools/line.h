/* tools/line.h - a line of text from whoever sits at the terminal, with editing and history (libedit) where the build has it; from a pipe
 * plainly. */
#ifndef MOSLD_TOOLS_LINE_H
#define MOSLD_TOOLS_LINE_H

#include <signal.h>

struct line_reader;

/* history: a file to read and keep it in, or NULL. `interrupt`: set by a signal handler; a line under way is then given up. NULL: out of
 * memory. */
struct line_reader *line_open(const char *prompt, const char *history, volatile sig_atomic_t *interrupt);
/* The next line without its end, which stays until the next call; NULL at the end of the input or when interrupted. */
const char *line_read(struct line_reader *r);
void line_close(struct line_reader **r); /* NULL is fine; writes the history */

#endif
