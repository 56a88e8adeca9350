/* mosld/profile/profile.c - rows: which call belongs to which op, kernel, phase and layer. The timeline is in timeline.c. See profile.h. */
#include "mosld/profile/timeline.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void mosld_profile_init(struct mosld_profile *p, const struct rt_device *dev)
{
    *p = (struct mosld_profile){.host = rt_device_kind(dev) == RT_HOST};
}

static void part_finish(struct mosld_profile_part *part)
{
    free(part->ops.row);
    free(part->by_kernel.row);
    free(part->phases.row);
    free(part->modules.row);
    free(part->layers.row);
}

void mosld_profile_finish(struct mosld_profile *p)
{
    for (uint32_t i = 0; i < p->n_roots; i++) {
        part_finish(&p->roots[i].first);
        part_finish(&p->roots[i].rest);
    }
    free(p->roots);
    *p = (struct mosld_profile){0};
}

/* ---- rows ---- */

/* The row of this name; names are literals, so most are told apart by their address. NULL: no memory. */
static struct mosld_profile_row *row_of(struct mosld_profile_rows *rows, const char *name, const char *variant, int64_t number)
{
    for (uint32_t i = 0; i < rows->n; i++) {
        struct mosld_profile_row *r = &rows->row[i];
        bool same = r->name == name && r->variant == variant;
        if (r->number == number && (same || (strcmp(r->name, name) == 0 && strcmp(r->variant ? r->variant : "", variant ? variant : "") == 0)))
            return r;
    }
    if (rows->n == rows->cap) {
        uint32_t cap = rows->cap ? 2 * rows->cap : 32;
        struct mosld_profile_row *grown = realloc(rows->row, cap * sizeof *grown);
        if (!grown)
            return NULL;
        rows->row = grown;
        rows->cap = cap;
    }
    rows->row[rows->n] = (struct mosld_profile_row){.name = name, .variant = variant, .number = number};
    return &rows->row[rows->n++];
}

static void add_to(struct mosld_profile_row *row, double seconds, double flops, double bytes)
{
    if (!row)
        return;
    row->calls++;
    row->seconds += seconds;
    row->flops += flops;
    row->bytes += bytes;
}

/* "layer / backward / q_proj": the scopes below the outermost one, without numbers and without the op itself. A phase ends after its first name, or after
 * its second where the first has a number; one more name is the module. */
static void path_of(const struct rt_window *w, uint32_t scope, bool module, char *path, size_t size)
{
    const struct rt_scope *up[RT_MAX_SCOPES];
    unsigned n = 0;
    for (; scope != RT_NO_SCOPE && scope != w->root && n < RT_MAX_SCOPES; scope = w->scopes[scope].parent)
        if (!w->scopes[scope].variant)
            up[n++] = &w->scopes[scope];
    path[0] = 0;
    for (unsigned most = (module ? 2 : 1) + (n && up[n - 1]->number >= 0); n && most; n--, most--) {
        size_t len = strlen(path);
        snprintf(path + len, size - len, "%s%s", len ? " / " : "", up[n - 1]->name);
    }
    if (!path[0])
        snprintf(path, size, "outside of these");
}

static struct mosld_profile_row *path_row(struct mosld_profile_rows *rows, const struct rt_window *w, uint32_t scope, bool module)
{
    char path[sizeof rows->row->path];
    path_of(w, scope, module, path, sizeof path);
    for (uint32_t i = 0; i < rows->n; i++)
        if (strcmp(rows->row[i].path, path) == 0)
            return &rows->row[i];
    struct mosld_profile_row *row = row_of(rows, "", "", (int64_t)rows->n); /* the path tells it apart, not the name */
    if (row)
        snprintf(row->path, sizeof row->path, "%s", path);
    return row;
}

/* Adds to the scope's row, which is found once and then noted in `known`. */
static void add_to_path(struct mosld_profile_rows *rows, const struct rt_window *w, uint32_t scope, bool module, uint32_t *known, double seconds)
{
    struct mosld_profile_row *row = known[scope] != UINT32_MAX ? &rows->row[known[scope]] : path_row(rows, w, scope, module);
    if (row)
        known[scope] = (uint32_t)(row - rows->row);
    add_to(row, seconds, 0, 0);
}

/* The scope with a number that stands directly below the outermost one: a layer. */
static const struct rt_scope *layer_of(const struct rt_window *w, uint32_t scope)
{
    while (scope != RT_NO_SCOPE && scope != w->root && w->scopes[scope].parent != w->root)
        scope = w->scopes[scope].parent;
    return scope != RT_NO_SCOPE && scope != w->root && w->scopes[scope].number >= 0 ? &w->scopes[scope] : NULL;
}

/* Of each scope: how many kernels stand in it, the name of the first, whether another has a different one, and its rows of phases and modules. */
struct notes {
    uint32_t *kernels, *phase, *module;
    const char **kernel;
    bool *several;
};

static bool note(struct notes *notes, const struct rt_window *w)
{
    size_t n = w->n_scopes + 1;
    *notes = (struct notes){calloc(n, sizeof *notes->kernels), malloc(n * sizeof *notes->phase), malloc(n * sizeof *notes->module),
                            calloc(n, sizeof *notes->kernel), calloc(n, sizeof *notes->several)};
    if (!notes->kernels || !notes->phase || !notes->module || !notes->kernel || !notes->several)
        return false;
    memset(notes->phase, 0xff, n * sizeof *notes->phase);
    memset(notes->module, 0xff, n * sizeof *notes->module);
    for (uint32_t i = 0; i < w->n_events; i++) {
        const struct rt_event *e = &w->events[i];
        if (e->kind != RT_EVENT_WORK || e->scope == RT_NO_SCOPE)
            continue;
        notes->several[e->scope] |= notes->kernels[e->scope] && strcmp(notes->kernel[e->scope], e->name) != 0;
        notes->kernel[e->scope] = e->name;
        notes->kernels[e->scope]++;
    }
    return true;
}

static void forget(struct notes *notes)
{
    free(notes->kernels);
    free(notes->phase);
    free(notes->module);
    free(notes->kernel);
    free(notes->several);
}

static void add_event(struct mosld_profile *p, struct mosld_profile_part *part, const struct rt_window *w, const struct notes *notes,
                      const struct rt_event *e)
{
    double seconds = e->end - e->begin;
    const struct rt_scope *scope = e->scope != RT_NO_SCOPE ? &w->scopes[e->scope] : NULL;
    bool transfer = e->kind == RT_EVENT_TRANSFER, op = scope && scope->variant && !transfer;
    if (transfer) {
        part->transfers++;
        add_to(row_of(&part->ops, e->name, "transfer", -1), seconds, 0, e->bytes);
    } else {
        part->kernels++;
        bool alone = op && !notes->several[e->scope]; /* the op's work is this kernel's, in one dispatch or in parts */
        double parts = op ? notes->kernels[e->scope] : 1;
        add_to(row_of(&part->by_kernel, p->host && op ? scope->name : e->name, p->host && op ? scope->variant : NULL, -1), seconds,
               alone ? scope->flops / parts : 0, alone ? scope->bytes / parts : e->bytes);
    }
    if (op) { /* calls, FLOPs and bytes are added once a call, by add_scopes */
        struct mosld_profile_row *row = row_of(&part->ops, scope->name, NULL, -1);
        if (row)
            row->seconds += seconds;
    }
    if (scope) {
        add_to_path(&part->phases, w, e->scope, false, notes->phase, seconds);
        add_to_path(&part->modules, w, e->scope, true, notes->module, seconds);
    }
    const struct rt_scope *layer = layer_of(w, e->scope);
    if (layer)
        add_to(row_of(&part->layers, layer->name, NULL, layer->number), seconds, 0, 0);
}

static bool in_root(const struct rt_window *w, uint32_t scope)
{
    while (scope != RT_NO_SCOPE && scope != w->root)
        scope = w->scopes[scope].parent;
    return scope == w->root && scope != RT_NO_SCOPE;
}

static bool is_device_time(const struct rt_event *e)
{
    return (e->kind == RT_EVENT_WORK || e->kind == RT_EVENT_TRANSFER) && e->end >= e->begin;
}

static bool add_rows(struct mosld_profile *p, struct mosld_profile_part *part, const struct rt_window *w)
{
    struct notes notes;
    bool ok = note(&notes, w);
    for (uint32_t i = 0; ok && i < w->n_events; i++) {
        const struct rt_event *e = &w->events[i];
        part->submissions += e->kind == RT_EVENT_SUBMISSION && in_root(w, e->scope);
        if (is_device_time(e) && in_root(w, e->scope))
            add_event(p, part, w, &notes, e);
    }
    for (uint32_t i = 0; ok && i < w->n_scopes; i++) {
        const struct rt_scope *s = &w->scopes[i];
        if (s->variant && in_root(w, i))
            add_to(row_of(&part->ops, s->name, NULL, -1), 0, s->flops, s->bytes);
    }
    forget(&notes);
    return ok;
}

/* ---- windows ---- */

static struct mosld_profile_root *root_of(struct mosld_profile *p, const char *name)
{
    for (uint32_t i = 0; i < p->n_roots; i++)
        if (strcmp(p->roots[i].name, name) == 0)
            return &p->roots[i];
    struct mosld_profile_root *grown = realloc(p->roots, (p->n_roots + 1) * sizeof *grown);
    if (!grown)
        return NULL;
    p->roots = grown;
    struct mosld_profile_root *root = &p->roots[p->n_roots++];
    *root = (struct mosld_profile_root){0};
    snprintf(root->name, sizeof root->name, "%.63s", name);
    return root;
}

void mosld_profile_add(struct mosld_profile *p, const struct rt_window *w)
{
    if (w->root == RT_NO_SCOPE)
        return; /* loading and the like: no step */
    struct mosld_profile_root *root = root_of(p, w->scopes[w->root].name);
    struct mosld_profile_part *part = !root ? NULL : root->first.windows ? &root->rest : &root->first;
    if (!part || !mosld_timeline_add(part, w) || !add_rows(p, part, w)) {
        p->no_memory = true;
        return;
    }
    part->windows++;
    part->wall += w->scopes[w->root].end - w->scopes[w->root].begin;
    part->process += w->process_seconds;
    part->thread += w->thread_seconds;
    part->dropped = w->dropped;
}

static int longest_first(const void *a, const void *b)
{
    double x = ((const struct mosld_profile_row *)a)->seconds, y = ((const struct mosld_profile_row *)b)->seconds;
    return (x < y) - (x > y);
}

static int by_number(const void *a, const void *b)
{
    int64_t x = ((const struct mosld_profile_row *)a)->number, y = ((const struct mosld_profile_row *)b)->number;
    return (x > y) - (x < y);
}

static void sort(struct mosld_profile_rows *rows, int (*order)(const void *, const void *))
{
    if (rows->n)
        qsort(rows->row, rows->n, sizeof *rows->row, order);
}

const struct mosld_profile_part *mosld_profile_part(struct mosld_profile_root *root)
{
    struct mosld_profile_part *part = root->rest.windows ? &root->rest : &root->first;
    sort(&part->ops, longest_first);
    sort(&part->by_kernel, longest_first);
    sort(&part->phases, longest_first);
    sort(&part->modules, longest_first);
    sort(&part->layers, by_number);
    return part;
}

double mosld_profile_accounted(const struct mosld_profile_part *part)
{
    const struct mosld_profile_time *t = &part->time;
    double gaps = t->between + t->latency + t->build + t->move + t->program;
    return part->wall > 0 ? (part->device_clock + gaps) / part->wall : 0;
}
