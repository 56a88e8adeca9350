/* mosld/profile/chrome.c - see chrome.h. */
#include "mosld/profile/chrome.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LANES = 8 };                /* rows for what may overlap: the device's kernels, submissions in flight */
enum { PROGRAM = 1, DEVICE = 2 };  /* pid */
enum { SCOPES = 1, ACTIONS = 2, SUBMISSIONS = 11, QUEUE = 21 }; /* tid, of both: readers order rows by it. From the last two on, LANES of them */

struct mosld_chrome {
    FILE *file;
    char *path;
    bool any, host;
    unsigned lanes, flights; /* of the device and of submissions, that are named already */
    double before;           /* seconds: mosld_chrome_before */
    double clear;            /* seconds up to which the device's first row is taken */
};

/* ---- JSON ---- */

static void put_text(FILE *f, const char *text)
{
    fputc('"', f);
    for (const unsigned char *s = (const unsigned char *)text; *s; s++)
        if (*s == '"' || *s == '\\')
            fprintf(f, "\\%c", *s);
        else if (*s < 0x20)
            fprintf(f, "\\u%04x", *s);
        else
            fputc(*s, f);
    fputc('"', f);
}

static void begin_event(struct mosld_chrome *c, char phase, int pid, int tid, const char *name, int64_t number)
{
    char text[160];
    snprintf(text, sizeof text, number < 0 ? "%.120s" : "%.120s %" PRId64, name, number);
    fprintf(c->file, "%s{\"ph\":\"%c\",\"pid\":%d,\"tid\":%d,\"name\":", c->any ? ",\n" : "", phase, pid, tid);
    put_text(c->file, text);
    c->any = true;
}

static void put_times(struct mosld_chrome *c, double begin, double end)
{
    fprintf(c->file, ",\"ts\":%.3f,\"dur\":%.3f", 1e6 * (begin + c->before), end > begin ? 1e6 * (end - begin) : 0.0);
}

static void name_row(struct mosld_chrome *c, const char *what, int pid, int tid, const char *name)
{
    begin_event(c, 'M', pid, tid, what, -1);
    fputs(",\"args\":{\"name\":", c->file);
    put_text(c->file, name);
    fputs("}}", c->file);
}

static void order(struct mosld_chrome *c, int pid, int index)
{
    begin_event(c, 'M', pid, 0, "process_sort_index", -1);
    fprintf(c->file, ",\"args\":{\"sort_index\":%d}}", index);
}

static void put_number(struct mosld_chrome *c, bool *first, const char *key, double value)
{
    fprintf(c->file, "%s\"%s\":%.9g", *first ? "" : ",", key, value);
    *first = false;
}

/* What is known of an op's call, when `seconds` of it are. */
static void put_work(struct mosld_chrome *c, const struct rt_scope *s, double seconds)
{
    bool first = true;
    fputs(",\"args\":{", c->file);
    if (s->variant) {
        fputs("\"variant\":", c->file);
        put_text(c->file, s->variant);
        first = false;
    }
    if (s->flops > 0) {
        put_number(c, &first, "flops", s->flops);
        if (seconds > 0)
            put_number(c, &first, "GFLOP/s", s->flops / seconds * 1e-9);
    }
    if (s->bytes > 0) {
        put_number(c, &first, "bytes", s->bytes);
        if (seconds > 0)
            put_number(c, &first, "GB/s", s->bytes / seconds * 1e-9);
    }
    fputs("}", c->file);
}

/* ---- the program's rows ---- */

static void add_scopes(struct mosld_chrome *c, const struct rt_window *w)
{
    for (uint32_t i = 0; i < w->n_scopes; i++) {
        const struct rt_scope *s = &w->scopes[i];
        if (s->end < s->begin)
            continue;
        begin_event(c, 'X', PROGRAM, SCOPES, s->name, s->number);
        put_times(c, s->begin, s->end);
        if (s->variant)
            put_work(c, s, c->host ? s->end - s->begin : 0);
        fputs("}", c->file);
    }
}

static void add_actions(struct mosld_chrome *c, const struct rt_window *w)
{
    for (uint32_t i = 0; i < w->n_events; i++) {
        const struct rt_event *e = &w->events[i];
        if (e->end < e->begin || e->kind == RT_EVENT_WORK || e->kind == RT_EVENT_TRANSFER || e->kind == RT_EVENT_SUBMISSION)
            continue;
        begin_event(c, 'X', PROGRAM, ACTIONS, e->name, -1);
        put_times(c, e->begin, e->end);
        fprintf(c->file, ",\"args\":{\"bytes\":%.0f}}", e->bytes);
    }
}

/* Several are in flight at a time, so they have rows of their own: asynchronous events, made for that, get one row a name in Perfetto. */
static void add_submissions(struct mosld_chrome *c, const struct rt_window *w)
{
    double free_at[LANES] = {0};
    for (uint32_t i = 0; i < w->n_events; i++) {
        const struct rt_event *e = &w->events[i];
        unsigned row = 0;
        if (e->kind != RT_EVENT_SUBMISSION || e->end < e->begin)
            continue;
        while (row + 1 < LANES && free_at[row] > e->begin)
            row++;
        free_at[row] = e->end;
        for (; c->flights <= row; c->flights++)
            name_row(c, "thread_name", PROGRAM, SUBMISSIONS + (int)c->flights, c->flights ? "submitted behind it" : "submitted");
        begin_event(c, 'X', PROGRAM, SUBMISSIONS + (int)row, e->name, -1);
        put_times(c, e->begin, e->end);
        fprintf(c->file, ",\"cat\":\"submission\",\"args\":{\"submission\":%" PRIu64 "}}", e->submission);
    }
}

static void add_counters(struct mosld_chrome *c, const struct rt_window *w)
{
    for (uint32_t i = 0; i < w->n_counters; i++) {
        if (!isfinite(w->counters[i].value))
            continue;
        begin_event(c, 'C', PROGRAM, 0, w->counters[i].name, -1);
        fprintf(c->file, ",\"ts\":%.3f,\"args\":{", 1e6 * (w->counters[i].at + c->before));
        put_text(c->file, w->counters[i].unit);
        fprintf(c->file, ":%.9g}}", w->counters[i].value);
    }
}

/* ---- the device's rows ---- */

struct reach { /* of a scope on the device: of its kernels on the first row */
    double begin, end;
};

/* Which row each kernel goes to: the first one that is free. Scopes span what their kernels have on row 0. */
static void lay_out(struct mosld_chrome *c, const struct rt_window *w, uint8_t *lane, struct reach *reach)
{
    double free_at[LANES];
    for (int i = 0; i < LANES; i++)
        free_at[i] = i ? -INFINITY : c->clear;
    for (uint32_t i = 0; i < w->n_scopes; i++)
        reach[i] = (struct reach){INFINITY, -INFINITY};
    for (uint32_t i = 0; i < w->n_events; i++) {
        const struct rt_event *e = &w->events[i];
        if ((e->kind != RT_EVENT_WORK && e->kind != RT_EVENT_TRANSFER) || e->end < e->begin)
            continue;
        unsigned row = 0;
        while (row + 1 < LANES && free_at[row] > e->begin + 1e-9) /* the two clocks' rounding is no overlap */
            row++;
        lane[i] = (uint8_t)row;
        free_at[row] = e->end > free_at[row] ? e->end : free_at[row];
        for (uint32_t s = row ? RT_NO_SCOPE : e->scope; s != RT_NO_SCOPE; s = w->scopes[s].parent) {
            reach[s].begin = e->begin < reach[s].begin ? e->begin : reach[s].begin;
            reach[s].end = e->end > reach[s].end ? e->end : reach[s].end;
        }
    }
    c->clear = free_at[0];
}

static void add_device(struct mosld_chrome *c, const struct rt_window *w)
{
    uint8_t *lane = calloc(w->n_events + 1, 1);
    struct reach *reach = malloc((w->n_scopes + 1) * sizeof *reach);
    if (lane && reach)
        lay_out(c, w, lane, reach);
    for (uint32_t i = 0; lane && reach && i < w->n_scopes; i++) { /* outer ones first: so equal times nest as they should */
        const struct rt_scope *s = &w->scopes[i];
        if (reach[i].end < reach[i].begin)
            continue;
        begin_event(c, 'X', DEVICE, QUEUE, s->name, s->number);
        put_times(c, reach[i].begin, reach[i].end);
        if (s->variant)
            put_work(c, s, reach[i].end - reach[i].begin);
        fputs("}", c->file);
    }
    for (uint32_t i = 0; lane && reach && i < w->n_events; i++) {
        const struct rt_event *e = &w->events[i];
        if ((e->kind != RT_EVENT_WORK && e->kind != RT_EVENT_TRANSFER) || e->end < e->begin)
            continue;
        for (; c->lanes <= lane[i]; c->lanes++)
            name_row(c, "thread_name", DEVICE, QUEUE + (int)c->lanes, c->lanes ? "overlapping" : "queue");
        begin_event(c, 'X', DEVICE, QUEUE + lane[i], e->name, -1);
        put_times(c, e->begin, e->end);
        fprintf(c->file, ",\"cat\":\"%s\",\"args\":{\"bytes bound\":%.0f,\"submission\":%" PRIu64 ",\"groups\":\"%ux%ux%u\"}}",
                e->kind == RT_EVENT_WORK ? "kernel" : "transfer", e->bytes, e->submission, e->groups[0], e->groups[1], e->groups[2]);
    }
    free(lane);
    free(reach);
}

void mosld_chrome_before(struct mosld_chrome *c, double seconds) { c->before = seconds; }

void mosld_chrome_span(struct mosld_chrome *c, const char *name, double begin, double end)
{
    begin_event(c, 'X', PROGRAM, SCOPES, name, -1);
    put_times(c, begin, end);
    fputs("}", c->file);
}

void mosld_chrome_add(struct mosld_chrome *c, const struct rt_window *w)
{
    add_scopes(c, w);
    add_actions(c, w);
    add_submissions(c, w);
    add_counters(c, w);
    if (!c->host)
        add_device(c, w);
}

/* ---- beginning and end ---- */

enum rt_status mosld_chrome_open(const char *path, const struct rt_device *dev, struct mosld_chrome **out, struct rt_error *err)
{
    struct mosld_chrome *c = *out = calloc(1, sizeof *c);
    if (!c || !(c->path = strdup(path)))
        return rt_fail(err, RT_NO_MEMORY, "no memory for the trace");
    c->file = fopen(path, "w");
    if (!c->file)
        return rt_fail(err, RT_BAD_FILE, "%s: the trace cannot be written: %s", path, strerror(errno));
    c->host = rt_device_kind(dev) == RT_HOST;
    c->clear = -INFINITY;
    fputs("[\n", c->file);
    name_row(c, "process_name", PROGRAM, 0, "mosld");
    order(c, PROGRAM, PROGRAM);
    name_row(c, "thread_name", PROGRAM, SCOPES, c->host ? "ops" : "recording");
    name_row(c, "thread_name", PROGRAM, ACTIONS, "waits, pipelines, moves");
    if (!c->host) {
        name_row(c, "process_name", DEVICE, 0, rt_device_info(dev)->name);
        order(c, DEVICE, DEVICE);
    }
    return RT_OK;
}

enum rt_status mosld_chrome_close(struct mosld_chrome **out, struct rt_error *err)
{
    struct mosld_chrome *c = out ? *out : NULL;
    enum rt_status st = RT_OK;
    if (!c)
        return RT_OK;
    if (c->file) {
        fputs("\n]\n", c->file);
        bool bad = ferror(c->file);
        if (fclose(c->file) != 0 || bad)
            st = rt_fail(err, RT_FAILED, "%s: the trace could not be written whole: %s", c->path, strerror(errno));
    }
    free(c->path);
    free(c);
    *out = NULL;
    return st;
}
