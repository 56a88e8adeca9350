/* runtime/scope.c - scopes and captures: see trace.h. What records is in trace.c; what a debugger sees, in the backend. */
#include "runtime/backend.h"

#include <stdio.h>
#include <string.h>

bool rt_scope_seen(const struct rt_device *dev) { return dev->trace || dev->labels; }

const char *rt_scope_text(const struct rt_open_scope *scope, char *text, size_t size)
{
    if (scope->number < 0)
        snprintf(text, size, "%s", scope->name);
    else
        snprintf(text, size, "%s %lld", scope->name, (long long)scope->number);
    return text;
}

static bool is_captured(const struct rt_scopes *s, const char *name, int64_t number)
{
    return s->capture && (!*s->capture || strcmp(s->capture, name) == 0) && number >= s->capture_first && number <= s->capture_last;
}

/* A capture holds whole submissions, so what came before is sent off first. */
static void begin_capture(struct rt_device *dev, const struct rt_open_scope *scope)
{
    char text[64];
    if (!dev->backend->capture_begin || rt_finish(dev, NULL) != RT_OK)
        return;
    dev->scopes.captured_by = dev->backend->capture_begin(dev, rt_scope_text(scope, text, sizeof text));
    dev->scopes.capturing = true;
    dev->scopes.captures++;
}

unsigned rt_scope_begin(struct rt_device *dev, const char *name, int64_t number)
{
    struct rt_scopes *s = &dev->scopes;
    if (!rt_scope_seen(dev) || s->depth >= RT_MAX_SCOPES || (s->depth == 0 && number < 0))
        return RT_MAX_SCOPES;
    unsigned depth = s->depth;
    s->open[depth] = (struct rt_open_scope){name, number, RT_NO_SCOPE};
    if (depth == 0 && is_captured(s, name, number))
        begin_capture(dev, &s->open[0]);
    if (dev->trace)
        s->open[depth].index = rt_trace_open_scope(dev->trace, name, number, depth ? s->open[depth - 1].index : RT_NO_SCOPE);
    s->depth++;
    if (dev->labels && dev->backend->label_begin)
        dev->backend->label_begin(dev);
    return depth;
}

static void leave_outermost(struct rt_device *dev)
{
    struct rt_scopes *s = &dev->scopes;
    if (s->capturing || dev->trace)
        rt_finish(dev, NULL); /* what fails here fails again where it is reported */
    if (s->capturing)
        dev->backend->capture_end(dev);
    s->capturing = false;
    if (dev->trace)
        rt_trace_close_root(dev);
}

void rt_scope_end(struct rt_device *dev, unsigned depth)
{
    struct rt_scopes *s = &dev->scopes;
    while (s->depth > depth) {
        const struct rt_open_scope *scope = &s->open[--s->depth];
        if (dev->labels && dev->backend->label_end)
            dev->backend->label_end(dev);
        if (dev->trace)
            rt_trace_close_scope(dev->trace, scope->index);
        if (s->depth == 0)
            leave_outermost(dev);
    }
}

void rt_capture_scopes(struct rt_device *dev, const char *scope, int64_t first, int64_t last)
{
    dev->scopes.capture = scope;
    dev->scopes.capture_first = first;
    dev->scopes.capture_last = last;
}

uint64_t rt_captures(const struct rt_device *dev, const char **by)
{
    if (by)
        *by = dev->scopes.captured_by ? dev->scopes.captured_by : "";
    return dev->scopes.captures;
}
