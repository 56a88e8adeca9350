/* runtime/trace.h - what a device was asked to do, for whom, and how long it took.
 *
 * Scopes say for whom: the program opens them around what it asks for (step 37 / layer 12 / backward / matmul_nn), and they nest. The
 * outermost one is the unit that everything is counted by: a training step, a decoded token. Debuggers see scopes as labels; rt_capture_scopes
 * delimits one of them for capture tools; a trace records them with every kernel, transfer and wait inside. While nothing of that is on, a
 * scope costs a test of a pointer.
 *
 * All times are seconds on one clock, that of the program, from the start of the trace. On Vulkan a kernel's time is taken by timestamps and
 * put on that clock by VK_EXT_calibrated_timestamps where it is there; else by the bounds that submitting and waiting give, which are some
 * tens of microseconds apart. A queue without timestamps runs one kernel a submission, timed by the program.
 *
 * Names are kept as pointers: they must outlive the device. A device is used by one thread at a time, also here. */
#ifndef RT_TRACE_H
#define RT_TRACE_H

#include "runtime/rt.h"

#define RT_MAX_SCOPES 16 /* that are open at a time; deeper ones are not seen */
#define RT_NO_SCOPE   UINT32_MAX

/* ---- scopes ---- */

/* Opens a scope inside the one that is open. `number`: shown behind the name and told apart by it (step 37); negative: none. What is counted by
 * has a number, so an outermost scope without one is not seen. Returns the depth to close it with. */
unsigned rt_scope_begin(struct rt_device *dev, const char *name, int64_t number);
/* Closes the scope that rt_scope_begin gave `depth` for, and any that a failure has left open inside it. Closing the outermost one waits for
 * the device while a trace records or a capture runs. */
void rt_scope_end(struct rt_device *dev, unsigned depth);
/* The innermost scope is one call of an operation: which variant of it, and its work by the mathematics. bytes: what has to be read and
 * written once; 0: not known. */
void rt_scope_work(struct rt_device *dev, const char *variant, double flops, double bytes);
/* Whether scopes are seen by anyone. What is only needed for them, such as counting FLOPs, can be left out otherwise. */
bool rt_scope_seen(const struct rt_device *dev);

/* ---- what is recorded ---- */

enum rt_event_kind {
    RT_EVENT_WORK,       /* the device runs a kernel; on the host, an op's function */
    RT_EVENT_TRANSFER,   /* the device copies, fills, or takes an upload */
    RT_EVENT_SUBMISSION, /* from its submission until the program saw that it was done; contains the two above */
    RT_EVENT_WAIT,       /* the program waits for the device */
    RT_EVENT_BUILD,      /* the program builds pipelines */
    RT_EVENT_MOVE,       /* the program moves bytes to or from the device's memory */
};

struct rt_event {
    enum rt_event_kind kind;
    const char *name;      /* of the kernel, or what it is */
    uint32_t scope;        /* index in the window: the innermost that was open; RT_NO_SCOPE */
    double begin, end;     /* end < begin: it was never timed (the device was lost) */
    double bytes;          /* transfers and moves: their size. Kernels: what is bound, more than what they read at times */
    uint32_t groups[3];    /* kernels */
    uint64_t submission;   /* number; 0: not the device's */
};

struct rt_scope {
    const char *name;
    int64_t number;
    uint32_t parent;       /* index; RT_NO_SCOPE for the outermost */
    double begin, end;     /* of the program's own time in it: on Vulkan it only records there */
    const char *variant;   /* not NULL: one call of an op */
    double flops, bytes;
};

struct rt_counter {
    const char *name, *unit;
    double at, value;
};

/* What happened from the end of the last outermost scope to the end of this one. Scopes stand in the order of opening, the outermost one
 * last closed; there is at most one outermost scope. Events stand in the order in which they were asked for. Valid for the call. */
struct rt_window {
    const struct rt_scope *scopes;
    const struct rt_event *events;
    const struct rt_counter *counters;
    uint32_t n_scopes, n_events, n_counters;
    uint32_t root;          /* index of the outermost scope; RT_NO_SCOPE: what was done outside of any */
    double process_seconds; /* processor time of all threads in the outermost scope */
    double thread_seconds;  /* and of the calling thread alone, waiting not counted */
    uint64_t dropped;       /* events and scopes that there was no memory for */
};

struct rt_trace_params {
    bool serial; /* every kernel alone: none overlaps, and the times of a step add up to more than the step */
    void (*window)(void *user, const struct rt_window *window);
    void *user;
};

/* Starts to record. RT_NO_MEMORY, or what the device says. RT_USAGE: it records already. */
enum rt_status rt_trace_start(struct rt_device *dev, const struct rt_trace_params *params, struct rt_error *err);
/* Waits for the device, hands over what is left, ends the recording. Without a trace it does nothing. rt_device_close does it too. */
void rt_trace_stop(struct rt_device *dev);
bool rt_trace_running(const struct rt_device *dev);
double rt_trace_now(const struct rt_device *dev); /* seconds since the start; 0 without a trace */

/* A value at this moment, drawn as a curve. `unit`: shown with it ("MiB"). */
void rt_trace_counter(struct rt_device *dev, const char *name, const char *unit, double value);

/* What arenas of one purpose hold, and held at most since the trace began, in bytes; those that were there before it too. The array is the device's. */
struct rt_trace_memory {
    const char *purpose;
    uint64_t bytes, peak;
};
uint32_t rt_trace_memory(const struct rt_device *dev, const struct rt_trace_memory **list);

/* How device times came onto the program's clock: "the program's own", "calibrated", "bounds of 12 us", "one kernel a submission". */
const char *rt_trace_clock(const struct rt_device *dev);

/* ---- captures ---- */

/* Outermost scopes of this name ("": of any) and with a number in [first, last] are delimited for whatever tool is attached: see docs/profiling.md. The
 * device must have been opened with `labels`; on the host it does nothing. */
void rt_capture_scopes(struct rt_device *dev, const char *scope, int64_t first, int64_t last);
/* Who was told of captures so far ("RenderDoc", "labels"), and how many there were. */
uint64_t rt_captures(const struct rt_device *dev, const char **by);

#endif
