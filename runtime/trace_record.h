/* runtime/trace_record.h - how runtime/ itself records: for backends, arena.c and device.c. See trace.h for what is recorded. */
#ifndef RT_TRACE_RECORD_H
#define RT_TRACE_RECORD_H

#include "runtime/trace.h"

#define RT_NO_EVENT     UINT32_MAX
#define RT_MAX_PURPOSES 32 /* of arenas */

struct rt_trace;

/* An open scope, by which labels are opened again in the next command buffer. */
struct rt_open_scope {
    const char *name;
    int64_t number;
    uint32_t index; /* in the trace's window; RT_NO_SCOPE without a trace */
};

struct rt_scopes {
    struct rt_open_scope open[RT_MAX_SCOPES];
    unsigned depth;
    const char *capture; /* outermost scopes of this name are captured; NULL: none */
    int64_t capture_first, capture_last;
    bool capturing;
    uint64_t captures;
    const char *captured_by;
};

/* Seconds of the clock that all times of a trace come from (CLOCK_MONOTONIC). */
double rt_clock(void);

/* Appends an event that begins now, in the innermost scope; RT_NO_EVENT when there is no room. `t` may be NULL. */
uint32_t rt_trace_add(struct rt_trace *t, enum rt_event_kind kind, const char *name, double bytes);
/* Such an event ends now. RT_NO_EVENT is fine. */
void rt_trace_close(struct rt_trace *t, uint32_t event);
/* The event, to be completed; valid until the next one is added. */
struct rt_event *rt_trace_event(struct rt_trace *t, uint32_t event);
bool rt_trace_serial(const struct rt_trace *t);
double rt_trace_origin(const struct rt_trace *t); /* what rt_clock gave at the start */
void rt_trace_change_memory(struct rt_device *dev, const char *purpose, int64_t bytes); /* also without a trace */

/* For scope.c. */
uint32_t rt_trace_open_scope(struct rt_trace *t, const char *name, int64_t number, uint32_t parent);
void rt_trace_close_scope(struct rt_trace *t, uint32_t index);
void rt_trace_close_root(struct rt_device *dev); /* the device is idle: the window is handed over */

/* "step 37" */
const char *rt_scope_text(const struct rt_open_scope *scope, char *text, size_t size);

#endif
