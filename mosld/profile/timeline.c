/* mosld/profile/timeline.c - see timeline.h. Intervals of all kinds are cut at each other's ends, and of those that cover a piece the first
 * kind counts. */
#include "mosld/profile/timeline.h"

#include <stdlib.h>

/* First come, first counted. EXTENT: from the first timed command of a submission to the end of its last. */
enum kind { WORK, TRANSFER, EXTENT, SUBMITTED, BUILD, MOVE, KINDS };

struct edge {
    double at;
    int kind, step; /* +1: one more of it from here on; -1: one less */
};

struct edges {
    struct edge *edge;
    uint32_t n;
};

static void span(struct edges *e, enum kind kind, double begin, double end)
{
    if (end <= begin)
        return;
    e->edge[e->n++] = (struct edge){begin, kind, 1};
    e->edge[e->n++] = (struct edge){end, kind, -1};
}

static int by_time(const void *a, const void *b)
{
    double x = ((const struct edge *)a)->at, y = ((const struct edge *)b)->at;
    return (x > y) - (x < y);
}

static bool on_device(const struct rt_event *e) { return e->kind == RT_EVENT_WORK || e->kind == RT_EVENT_TRANSFER; }

/* Events of one submission stand in a row, since they are recorded one after the other. */
static uint32_t extent(struct edges *edges, const struct rt_window *w, uint32_t i)
{
    uint64_t submission = w->events[i].submission;
    double begin = w->events[i].begin, end = w->events[i].end;
    uint32_t j = i + 1;
    for (; j < w->n_events && (!on_device(&w->events[j]) || w->events[j].submission == submission); j++) {
        const struct rt_event *e = &w->events[j];
        if (!on_device(e) || e->end < e->begin)
            continue;
        begin = e->begin < begin ? e->begin : begin;
        end = e->end > end ? e->end : end;
    }
    span(edges, EXTENT, begin, end);
    return j;
}

static void collect(struct edges *edges, const struct rt_window *w)
{
    for (uint32_t i = 0; i < w->n_events;) { /* host ops have no submission: between them nothing is in flight */
        const struct rt_event *e = &w->events[i];
        if (on_device(e) && e->submission && e->end >= e->begin)
            i = extent(edges, w, i);
        else
            i++;
    }
    for (uint32_t i = 0; i < w->n_events; i++) {
        const struct rt_event *e = &w->events[i];
        switch (e->kind) {
        case RT_EVENT_WORK: span(edges, WORK, e->begin, e->end); break;
        case RT_EVENT_TRANSFER: span(edges, TRANSFER, e->begin, e->end); break;
        case RT_EVENT_SUBMISSION: span(edges, SUBMITTED, e->begin, e->end); break;
        case RT_EVENT_BUILD: span(edges, BUILD, e->begin, e->end); break;
        case RT_EVENT_MOVE: span(edges, MOVE, e->begin, e->end); break;
        case RT_EVENT_WAIT: break; /* what the device does meanwhile counts */
        }
    }
}

/* Gives the piece from `begin` to `end` away. Device time counts wholly by its own clock, and clipped to the scope by the program's. */
static void give(struct mosld_profile_part *part, const struct rt_scope *root, const int count[KINDS], double begin, double end)
{
    struct mosld_profile_time *t = &part->time;
    double *const field[] = {&t->work, &t->transfer, &t->between, &t->latency, &t->build, &t->move};
    int kind = 0;
    while (kind < KINDS && !count[kind])
        kind++;
    double from = begin > root->begin ? begin : root->begin, to = end < root->end ? end : root->end;
    if (to > from)
        *(kind < KINDS ? field[kind] : &t->program) += to - from;
    if (kind == WORK || kind == TRANSFER) {
        bool outside = begin >= root->end || end <= root->begin;
        part->device_clock += outside ? 0 : end - begin;
    }
}

bool mosld_timeline_add(struct mosld_profile_part *part, const struct rt_window *w)
{
    const struct rt_scope *root = &w->scopes[w->root];
    struct edges edges = {.edge = malloc((4 * (size_t)w->n_events + 2) * sizeof *edges.edge)};
    int count[KINDS] = {0};
    if (!edges.edge)
        return false;
    collect(&edges, w);
    qsort(edges.edge, edges.n, sizeof *edges.edge, by_time);
    double at = root->begin;
    for (uint32_t i = 0; i < edges.n; i++) {
        if (edges.edge[i].at > at)
            give(part, root, count, at, edges.edge[i].at);
        at = edges.edge[i].at > at ? edges.edge[i].at : at;
        count[edges.edge[i].kind] += edges.edge[i].step;
    }
    if (root->end > at)
        give(part, root, count, at, root->end);
    free(edges.edge);
    return true;
}
