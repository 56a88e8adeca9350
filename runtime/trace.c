/* runtime/trace.c - the recorder: scopes, events and counters of one window, handed over when its outermost scope ends. See trace.h. */
#include "runtime/backend.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#define MOST        (1u << 20) /* events and scopes of a window: what a step has is a few thousands */

struct rt_trace {
    struct rt_trace_params params;
    struct rt_device *dev;
    double origin;
    struct rt_scope *scopes;
    struct rt_event *events;
    struct rt_counter *counters;
    uint32_t n_scopes, n_events, n_counters, cap_scopes, cap_events, cap_counters;
    uint32_t root;
    double process_begin, thread_begin;
    uint64_t dropped;
};

static double clock_of(clockid_t id)
{
    struct timespec t;
    clock_gettime(id, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

double rt_clock(void) { return clock_of(CLOCK_MONOTONIC); }
double rt_trace_origin(const struct rt_trace *t) { return t->origin; }
bool rt_trace_serial(const struct rt_trace *t) { return t && t->params.serial; }
bool rt_trace_running(const struct rt_device *dev) { return dev->trace != NULL; }
double rt_trace_now(const struct rt_device *dev) { return dev->trace ? rt_clock() - dev->trace->origin : 0; }
const char *rt_trace_clock(const struct rt_device *dev)
{
    return dev->backend->trace_clock ? dev->backend->trace_clock(dev) : "the program's own";
}

/* Room for one more element of `size` bytes; false when there is none. */
static bool grow(struct rt_trace *t, void **list, uint32_t n, uint32_t *cap, size_t size)
{
    if (n < *cap)
        return true;
    uint32_t wanted = *cap ? 2 * *cap : 1024;
    void *grown = wanted <= MOST ? realloc(*list, wanted * size) : NULL;
    if (!grown) {
        t->dropped++;
        return false;
    }
    *list = grown;
    *cap = wanted;
    return true;
}

/* ---- scopes ---- */

uint32_t rt_trace_open_scope(struct rt_trace *t, const char *name, int64_t number, uint32_t parent)
{
    if (!grow(t, (void **)&t->scopes, t->n_scopes, &t->cap_scopes, sizeof *t->scopes))
        return parent; /* what happens in it is the outer one's */
    uint32_t index = t->n_scopes++;
    t->scopes[index] = (struct rt_scope){.name = name, .number = number, .parent = parent, .begin = rt_clock() - t->origin, .end = -1};
    if (parent == RT_NO_SCOPE) {
        t->root = index;
        t->process_begin = clock_of(CLOCK_PROCESS_CPUTIME_ID);
        t->thread_begin = clock_of(CLOCK_THREAD_CPUTIME_ID);
    }
    return index;
}

void rt_trace_close_scope(struct rt_trace *t, uint32_t index)
{
    if (index >= t->n_scopes)
        return;
    struct rt_scope *scope = &t->scopes[index];
    scope->end = rt_clock() - t->origin;
    uint32_t event = scope->variant && t->dev->info.kind == RT_HOST ? rt_trace_add(t, RT_EVENT_WORK, scope->variant, scope->bytes) : RT_NO_EVENT;
    if (event == RT_NO_EVENT)
        return; /* a kernel of a Vulkan device is an event of its own; on the host the call was the work */
    t->events[event].scope = index;
    t->events[event].begin = scope->begin;
    t->events[event].end = scope->end;
}

void rt_scope_work(struct rt_device *dev, const char *variant, double flops, double bytes)
{
    struct rt_trace *t = dev->trace;
    uint32_t index = t && dev->scopes.depth ? dev->scopes.open[dev->scopes.depth - 1].index : RT_NO_SCOPE;
    if (index == RT_NO_SCOPE || index >= t->n_scopes)
        return;
    t->scopes[index].variant = variant;
    t->scopes[index].flops = flops;
    t->scopes[index].bytes = bytes;
}

/* ---- events ---- */

uint32_t rt_trace_add(struct rt_trace *t, enum rt_event_kind kind, const char *name, double bytes)
{
    if (!t || !grow(t, (void **)&t->events, t->n_events, &t->cap_events, sizeof *t->events))
        return RT_NO_EVENT;
    const struct rt_scopes *s = &t->dev->scopes;
    t->events[t->n_events] = (struct rt_event){.kind = kind, .name = name, .scope = s->depth ? s->open[s->depth - 1].index : RT_NO_SCOPE,
                                               .begin = rt_clock() - t->origin, .end = -1, .bytes = bytes};
    return t->n_events++;
}

void rt_trace_close(struct rt_trace *t, uint32_t event)
{
    if (event != RT_NO_EVENT)
        t->events[event].end = rt_clock() - t->origin;
}

struct rt_event *rt_trace_event(struct rt_trace *t, uint32_t event) { return &t->events[event]; }

void rt_trace_counter(struct rt_device *dev, const char *name, const char *unit, double value)
{
    struct rt_trace *t = dev->trace;
    if (t && grow(t, (void **)&t->counters, t->n_counters, &t->cap_counters, sizeof *t->counters))
        t->counters[t->n_counters++] = (struct rt_counter){name, unit, rt_clock() - t->origin, value};
}

void rt_trace_change_memory(struct rt_device *dev, const char *purpose, int64_t bytes)
{
    uint32_t i = 0;
    while (i < dev->n_memory && strcmp(dev->memory[i].purpose, purpose) != 0)
        i++;
    if (i == RT_MAX_PURPOSES)
        return;
    if (i == dev->n_memory)
        dev->memory[dev->n_memory++] = (struct rt_trace_memory){.purpose = purpose};
    struct rt_trace_memory *m = &dev->memory[i];
    m->bytes += (uint64_t)bytes;
    m->peak = m->bytes > m->peak ? m->bytes : m->peak;
    rt_trace_counter(dev, purpose, "MiB", (double)m->bytes / (1 << 20));
}

uint32_t rt_trace_memory(const struct rt_device *dev, const struct rt_trace_memory **list)
{
    *list = dev->memory;
    return dev->n_memory;
}

/* ---- windows ---- */

/* The device's own times come onto the program's clock now, since the longer it ran the better their distance is known. */
static void settle(struct rt_trace *t)
{
    double shift = t->dev->backend->trace_shift ? t->dev->backend->trace_shift(t->dev) - t->origin : 0;
    for (uint32_t i = 0; i < t->n_events && shift != 0; i++) {
        struct rt_event *e = &t->events[i];
        if (e->submission && (e->kind == RT_EVENT_WORK || e->kind == RT_EVENT_TRANSFER) && e->end >= 0) {
            e->begin += shift;
            e->end += shift;
        }
    }
}

static void hand_over(struct rt_trace *t, double process, double thread)
{
    settle(t);
    struct rt_window w = {t->scopes, t->events, t->counters, t->n_scopes, t->n_events, t->n_counters, t->root, process, thread, t->dropped};
    if (t->params.window && (w.n_scopes || w.n_events || w.n_counters))
        t->params.window(t->params.user, &w);
    t->n_scopes = t->n_events = t->n_counters = 0;
    t->root = RT_NO_SCOPE;
}

void rt_trace_close_root(struct rt_device *dev)
{
    struct rt_trace *t = dev->trace;
    if (t->root < t->n_scopes)
        t->scopes[t->root].end = rt_clock() - t->origin; /* once more: now the device is done too */
    hand_over(t, clock_of(CLOCK_PROCESS_CPUTIME_ID) - t->process_begin, clock_of(CLOCK_THREAD_CPUTIME_ID) - t->thread_begin);
}

/* ---- beginning and end ---- */

enum rt_status rt_trace_start(struct rt_device *dev, const struct rt_trace_params *params, struct rt_error *err)
{
    if (dev->trace)
        return rt_fail(err, RT_USAGE, "%s is being traced already", dev->info.name);
    enum rt_status st = rt_finish(dev, err);
    struct rt_trace *t = st ? NULL : calloc(1, sizeof *t);
    if (st)
        return st;
    if (!t)
        return rt_fail(err, RT_NO_MEMORY, "no memory to trace with");
    *t = (struct rt_trace){.params = *params, .dev = dev, .origin = rt_clock(), .root = RT_NO_SCOPE};
    dev->scopes.depth = 0;
    dev->trace = t;
    st = dev->backend->trace_begin ? dev->backend->trace_begin(dev, params->serial, err) : RT_OK;
    if (st) {
        dev->trace = NULL;
        free(t);
    }
    for (uint32_t i = 0; i < dev->n_memory && !st; i++) {
        dev->memory[i].peak = dev->memory[i].bytes;
        rt_trace_change_memory(dev, dev->memory[i].purpose, 0); /* curves begin with what is there */
    }
    return st;
}

void rt_trace_stop(struct rt_device *dev)
{
    struct rt_trace *t = dev->trace;
    if (!t)
        return;
    rt_finish(dev, NULL);
    if (dev->scopes.depth)
        rt_scope_end(dev, 0);
    hand_over(t, 0, 0);
    if (dev->backend->trace_end)
        dev->backend->trace_end(dev);
    dev->trace = NULL;
    free(t->scopes);
    free(t->events);
    free(t->counters);
    free(t);
}
