/* mosld/profile/chrome.h - a trace as a file that Perfetto's page (ui.perfetto.dev) and chrome://tracing open.
 *
 * The format is the JSON array of Chrome's trace events. Process 1 is the program: its scopes, what it waited for, built and moved, and the
 * submissions as they were in flight. Process 2 is the device: scopes as far as its kernels reach, with the kernels nested in them; kernels that
 * overlap others have rows of their own. On the host the ops stand in process 1 alone. Counters: memory by arena, loss, and what else the
 * command tells. Times are microseconds from the start. Rows for what
 * overlaps are filled from the first. The array is only closed at the end, and readers accept one that was cut off. */
#ifndef MOSLD_CHROME_H
#define MOSLD_CHROME_H

#include "runtime/trace.h"

struct mosld_chrome;

/* Creates the file. RT_BAD_FILE: it cannot be written. */
enum rt_status mosld_chrome_open(const char *path, const struct rt_device *dev, struct mosld_chrome **out, struct rt_error *err);
/* What is shown begins so many seconds before the trace does; before anything is added. Readers refuse times below 0. */
void mosld_chrome_before(struct mosld_chrome *c, double seconds);
/* What the program did outside of scopes, in seconds from the start of the trace, at least minus what mosld_chrome_before was told. */
void mosld_chrome_span(struct mosld_chrome *c, const char *name, double begin, double end);
/* A window of rt_trace_start: appended. What cannot be written is told at the end. */
void mosld_chrome_add(struct mosld_chrome *c, const struct rt_window *window);
/* Ends the file and frees *c. RT_FAILED: not all could be written. NULL and *c == NULL are fine. */
enum rt_status mosld_chrome_close(struct mosld_chrome **c, struct rt_error *err);

#endif
