/* tools/profiling.c - the course of a profile, a trace or a capture; the table is in profile_report.c. */
#include "tools/profiling.h"

#include <cjson/cJSON.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

const char *const profiling_modes[] = {"off", "on", "serial", NULL};

static enum rt_status parse_range(const char *text, int64_t *first, int64_t *last, struct rt_error *err)
{
    unsigned long long a, b;
    char rest;
    int n = sscanf(text, "%llu-%llu%c", &a, &b, &rest);
    if (strpbrk(text, "+ ") || text[0] == '-' || (n != 1 && n != 2) || (n == 1 && strchr(text, '-')) || a > INT64_MAX ||
        (n == 2 && (b < a || b > INT64_MAX)) || (n == 1 && strspn(text, "0123456789") != strlen(text)))
        return rt_fail(err, RT_USAGE, "--capture: '%s' is no number and no range: give N or N-M, such as 3 or 3-5", text);
    *first = (int64_t)a;
    *last = n == 2 ? (int64_t)b : (int64_t)a;
    return RT_OK;
}

enum rt_status profiling_params(const struct profiling_options *o, struct rt_device_params *params, struct rt_error *err)
{
    int64_t first, last;
    params->labels = o->labels || o->capture;
    return o->capture ? parse_range(o->capture, &first, &last, err) : RT_OK;
}

static double seconds_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void end_phase(struct profiling *p, double at)
{
    if (p->n_phases && p->phase[p->n_phases - 1].end == 0)
        p->phase[p->n_phases - 1].end = at;
}

void profiling_phase(struct profiling *p, const char *name)
{
    double now = seconds_now();
    if (p->begun || (name && p->n_phases && strcmp(p->phase[p->n_phases - 1].name, name) == 0))
        return;
    end_phase(p, now);
    if (name && p->n_phases < PROFILING_PHASES)
        p->phase[p->n_phases++] = (struct profiling_phase){.name = name, .begin = now};
}

/* The first step: what came before it was the start. */
static void end_start(struct profiling *p, const struct rt_window *w)
{
    double root = w->scopes[w->root].begin, origin = p->origin;
    p->begun = true;
    end_phase(p, origin + root);
    for (uint32_t i = 0; i < w->n_events; i++)
        if (w->events[i].kind == RT_EVENT_BUILD && w->events[i].end > w->events[i].begin && w->events[i].end <= root)
            p->start_build += w->events[i].end - w->events[i].begin;
    for (uint32_t i = 0; p->chrome && i < p->n_phases; i++)
        mosld_chrome_span(p->chrome, p->phase[i].name, p->phase[i].begin - origin, p->phase[i].end - origin);
}

static void on_window(void *user, const struct rt_window *w)
{
    struct profiling *p = user;
    if (!p->begun && w->root != RT_NO_SCOPE)
        end_start(p, w);
    if (p->mode)
        mosld_profile_add(&p->profile, w);
    if (p->chrome)
        mosld_chrome_add(p->chrome, w);
}

enum rt_status profiling_start(struct profiling *p, const struct profiling_options *o, struct rt_device *dev, struct rt_error *err)
{
    p->dev = dev;
    p->mode = (enum profiling_mode)o->mode;
    if (o->capture) {
        int64_t first = 0, last = 0;
        RT_TRY(parse_range(o->capture, &first, &last, err));
        rt_capture_scopes(dev, p->scope ? p->scope : "", first, last);
    }
    mosld_profile_init(&p->profile, dev);
    if (o->trace)
        RT_TRY(mosld_chrome_open(o->trace, dev, &p->chrome, err));
    if (!o->trace && !p->mode)
        return RT_OK;
    RT_TRY(rt_trace_start(dev, &(struct rt_trace_params){.serial = p->mode == PROFILING_SERIAL, .window = on_window, .user = p}, err));
    p->origin = seconds_now() - rt_trace_now(dev);
    if (p->chrome && p->n_phases)
        mosld_chrome_before(p->chrome, p->origin - p->phase[0].begin);
    return RT_OK;
}

static void note_memory(struct profiling *p)
{
    const struct rt_trace_memory *list;
    uint32_t n = rt_trace_memory(p->dev, &list);
    for (uint32_t i = 0; i < n && p->n_memory < sizeof p->memory / sizeof *p->memory; i++) {
        if (list[i].peak == 0)
            continue; /* it was given back before */
        snprintf(p->memory[p->n_memory].purpose, sizeof p->memory->purpose, "%s", list[i].purpose);
        p->memory[p->n_memory++].peak = list[i].peak;
    }
}

/* Ends the recording, and what is written of it. */
static enum rt_status end_trace(struct profiling *p, struct rt_error *err)
{
    const char *by;
    if (p->ended || !p->dev)
        return RT_OK;
    p->ended = true;
    if (rt_trace_running(p->dev)) {
        note_memory(p);
        snprintf(p->clock, sizeof p->clock, "%s", rt_trace_clock(p->dev));
        rt_trace_stop(p->dev);
    }
    uint64_t captures = rt_captures(p->dev, &by);
    if (captures)
        fprintf(stderr, "%llu captures delimited by %s\n", (unsigned long long)captures, strcmp(by, "RenderDoc") ? "labels" : "RenderDoc's API");
    return mosld_chrome_close(&p->chrome, err);
}

enum rt_status profiling_end(struct profiling *p, struct rt_error *err)
{
    struct rt_error why;
    bool measure = p->mode && !p->ended && p->dev;
    RT_TRY(end_trace(p, err));
    if (!measure)
        return RT_OK;
    struct mosld_bench bench = {.dev = p->dev, .seconds = 0.3};
    /* On a processor a smaller product does, and takes less of the user's time. */
    uint32_t cube = rt_device_info(p->dev)->class_ == RT_CLASS_CPU ? 512 : 1024;
    p->has_peaks = mosld_bench_peaks(&bench, cube, &p->peaks, &why) == RT_OK;
    if (!p->has_peaks)
        fprintf(stderr, "the device's peaks could not be measured, so the profile has no shares of them: %s\n", why.text);
    return RT_OK;
}

enum rt_status profiling_report(struct profiling *p, struct cJSON *json, struct rt_error *err)
{
    RT_TRY(profiling_end(p, err));
    if (!p->mode || p->reported)
        return RT_OK;
    if (json)
        cJSON_AddItemToObject(json, "profile", profiling_json(p));
    else
        profiling_print(p);
    p->reported = true;
    return RT_OK;
}

void profiling_finish(struct profiling *p)
{
    struct rt_error err;
    if (end_trace(p, &err))
        fprintf(stderr, "%s\n", err.text);
    if (p->mode && !p->reported && p->profile.n_roots) /* it was interrupted, or failed: what is known is told */
        profiling_print(p);
    mosld_profile_finish(&p->profile);
    *p = (struct profiling){0};
}
