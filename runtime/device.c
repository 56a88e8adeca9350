/* runtime/device.c - which devices there are, which one is meant, and the checked way to a backend. */
#include "runtime/backend.h"

#include <assert.h>
#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_DEVICES 32

/* ---- listing ---- */

static int rank(const struct rt_device_info *d)
{
    if (d->kind == RT_HOST)
        return 10;
    switch (d->class_) {
    case RT_CLASS_DISCRETE: return 0;
    case RT_CLASS_INTEGRATED: return 1;
    case RT_CLASS_VIRTUAL: return 2;
    case RT_CLASS_OTHER: return 3;
    case RT_CLASS_CPU: return 20;
    }
    return 30;
}

/* Layered drivers (Vulkan over another interface) come after native ones for the same GPU. */
static bool is_layered(const struct rt_device_info *d) { return strstr(d->driver, "Dozen") || strstr(d->name, "Direct3D12"); }

static bool better(const struct rt_device_info *a, const struct rt_device_info *b)
{
    if (rank(a) != rank(b))
        return rank(a) < rank(b);
    if (is_layered(a) != is_layered(b))
        return is_layered(b);
    return a->limits.memory > b->limits.memory;
}

static bool same_gpu(const struct rt_device_info *a, const struct rt_device_info *b)
{
    static const uint8_t none[16];
    return a->kind == RT_VULKAN && b->kind == RT_VULKAN && memcmp(a->uuid, none, 16) != 0 &&
           memcmp(a->uuid, b->uuid, 16) == 0 && a->class_ != RT_CLASS_CPU;
}

/* Sorts by insertion (a handful of devices; order among equals stays) and drops the second driver of a GPU. */
static size_t sort_and_merge(struct rt_device_info *list, size_t count)
{
    for (size_t i = 1; i < count; i++)
        for (size_t j = i; j > 0 && better(&list[j], &list[j - 1]); j--) {
            struct rt_device_info t = list[j];
            list[j] = list[j - 1];
            list[j - 1] = t;
        }
    size_t kept = 0;
    for (size_t i = 0; i < count; i++) {
        bool twice = false;
        for (size_t j = 0; j < kept; j++)
            twice = twice || same_gpu(&list[i], &list[j]);
        if (!twice)
            list[kept++] = list[i];
    }
    return kept;
}

/* `native` receives what the backend calls each device, in the list's order. */
static enum rt_status list_devices(struct rt_device_info **list, int *native, size_t *count, char *note, size_t note_size,
                                   struct rt_error *err)
{
    *list = calloc(MAX_DEVICES + 1, sizeof **list);
    *count = 0;
    if (!*list)
        return rt_fail(err, RT_NO_MEMORY, "no memory for the list of devices");
    enum rt_status st = rt_vulkan_list(*list, MAX_DEVICES, count, note, note_size, err);
    if (st) {
        free(*list);
        *list = NULL;
        return st;
    }
    rt_host_describe(&(*list)[*count]);
    *count = sort_and_merge(*list, *count + 1);
    for (size_t i = 0; i < *count; i++) {
        if (native)
            native[i] = (*list)[i].index;
        (*list)[i].index = (int)i;
    }
    return RT_OK;
}

enum rt_status rt_devices_list(struct rt_device_info **list, size_t *count, char *note, size_t note_size,
                               struct rt_error *err)
{
    if (note && note_size)
        note[0] = 0;
    return list_devices(list, NULL, count, note, note_size, err);
}

/* ---- choosing ---- */

static bool contains(const char *text, const char *part)
{
    size_t n = strlen(part);
    for (; *text; text++) {
        size_t i = 0;
        while (i < n && text[i] && tolower((unsigned char)text[i]) == tolower((unsigned char)part[i]))
            i++;
        if (i == n)
            return true;
    }
    return n == 0;
}

static enum rt_status no_match(const struct rt_device_info *list, size_t count, const char *name, const char *why,
                               struct rt_error *err)
{
    char all[700] = "";
    for (size_t i = 0; i < count; i++) {
        size_t n = strlen(all);
        snprintf(all + n, sizeof all - n, "%s%d: %s", i ? ", " : "", list[i].index, list[i].name);
    }
    return rt_fail(err, RT_USAGE, "--device %s: %s; there are: %s", name, why, all);
}

static enum rt_status choose(const struct rt_device_info *list, size_t count, const char *name, size_t *out,
                             struct rt_error *err)
{
    *out = 0; /* the best GPU or the host: the host stands before CPU drivers of Vulkan, and is always there */
    if (!name || !*name || strcmp(name, "auto") == 0)
        return RT_OK;
    char *end;
    long index = strtol(name, &end, 10);
    if (*end == 0) {
        if (index < 0 || (size_t)index >= count)
            return no_match(list, count, name, "no device has this index", err);
        *out = (size_t)index;
        return RT_OK;
    }
    size_t found = 0;
    for (size_t i = 0; i < count; i++) {
        if (strcmp(name, "host") == 0 ? list[i].kind == RT_HOST : contains(list[i].name, name) || contains(list[i].driver, name)) {
            if (!found++)
                *out = i;
        }
    }
    if (found == 1)
        return RT_OK;
    return no_match(list, count, name, found ? "more than one device has this in its name" : "no device has this in its name", err);
}

static void apply(struct rt_device *dev, const struct rt_device_params *params)
{
    if (params->memory_limit && params->memory_limit < dev->info.limits.memory)
        dev->info.limits.memory = params->memory_limit;
    dev->info.precision = params->precision;
}

enum rt_status rt_device_open(const struct rt_device_params *params, struct rt_device **out, struct rt_error *err)
{
    static const struct rt_device_params defaults;
    if (!params)
        params = &defaults;
    *out = NULL;
    /* The host is opened without asking any Vulkan driver, which may be slow or broken. */
    if (params->name && strcmp(params->name, "host") == 0) {
        enum rt_status opened = rt_host_open(params, out, err);
        if (opened == RT_OK)
            apply(*out, params);
        return opened;
    }
    struct rt_device_info *list;
    int native[MAX_DEVICES + 1];
    size_t count, chosen;
    char note[256] = "";
    enum rt_status st = list_devices(&list, native, &count, note, sizeof note, err);
    if (st)
        return st;
    st = choose(list, count, params->name, &chosen, err);
    if (st == RT_USAGE && note[0] && err) {
        size_t n = strlen(err->text);
        snprintf(err->text + n, sizeof err->text - n, " (%s)", note);
    }
    if (st == RT_OK && list[chosen].kind == RT_HOST) {
        st = rt_host_open(params, out, err);
    } else if (st == RT_OK) {
        struct rt_device_info which = list[chosen];
        which.index = native[chosen];
        st = rt_vulkan_open(&which, params, out, err);
    }
    if (st == RT_OK) {
        (*out)->info.index = list[chosen].index;
        apply(*out, params);
    }
    free(list);
    return st;
}

void rt_device_close(struct rt_device **dev)
{
    if (dev && *dev) {
        rt_trace_stop(*dev);
        rt_device_attach(*dev, NULL, NULL);
        (*dev)->backend->close(*dev);
        *dev = NULL;
    }
}

const struct rt_device_info *rt_device_info(const struct rt_device *dev) { return &dev->info; }
enum rt_kind rt_device_kind(const struct rt_device *dev) { return dev->info.kind; }

void rt_device_attach(struct rt_device *dev, void *object, void (*destroy)(void *object))
{
    if (dev->attached && dev->destroy_attached)
        dev->destroy_attached(dev->attached);
    dev->attached = object;
    dev->destroy_attached = destroy;
}

void *rt_device_attached(const struct rt_device *dev) { return dev->attached; }

/* ---- to the backend ---- */

static inline bool inside(struct rt_span span, uint64_t offset, uint64_t size)
{
    return offset <= span.size && size <= span.size - offset;
}

enum rt_status rt_upload(struct rt_device *dev, struct rt_span to, uint64_t offset, const void *data, uint64_t size,
                         struct rt_error *err)
{
    assert(inside(to, offset, size));
    if (size == 0)
        return RT_OK;
    uint32_t event = rt_trace_add(dev->trace, RT_EVENT_MOVE, "upload", (double)size);
    enum rt_status st = dev->backend->upload(dev, to, offset, data, size, err);
    rt_trace_close(dev->trace, event);
    return st;
}

enum rt_status rt_download(struct rt_device *dev, struct rt_span from, uint64_t offset, void *data, uint64_t size,
                           struct rt_error *err)
{
    assert(inside(from, offset, size));
    if (size == 0)
        return RT_OK;
    uint32_t event = rt_trace_add(dev->trace, RT_EVENT_MOVE, "download", (double)size);
    enum rt_status st = dev->backend->download(dev, from, offset, data, size, err);
    rt_trace_close(dev->trace, event);
    return st;
}

uint64_t rt_reserve(const struct rt_device *dev) { return dev->backend->reserve(dev); }

enum rt_status rt_write_begin(struct rt_device *dev, struct rt_span to, void **at, struct rt_error *err)
{
    *at = NULL;
    return to.size ? dev->backend->write_begin(dev, to, at, err) : RT_OK;
}

enum rt_status rt_write_end(struct rt_device *dev, struct rt_span to, struct rt_error *err)
{
    return to.size ? dev->backend->write_end(dev, to, err) : RT_OK;
}

enum rt_status rt_copy(struct rt_device *dev, struct rt_span to, uint64_t to_offset, struct rt_span from,
                       uint64_t from_offset, uint64_t size, struct rt_error *err)
{
    assert(inside(to, to_offset, size) && inside(from, from_offset, size) && (to_offset | from_offset | size) % 4 == 0);
    return size ? dev->backend->copy(dev, to, to_offset, from, from_offset, size, err) : RT_OK;
}

enum rt_status rt_fill(struct rt_device *dev, struct rt_span to, uint32_t word, struct rt_error *err)
{
    assert(to.size % 4 == 0);
    return to.size ? dev->backend->fill(dev, to, word, err) : RT_OK;
}

bool rt_kernel_supported(const struct rt_device *dev, const struct rt_kernel *kernel)
{
    return dev->backend->kernel_supported(dev, kernel);
}

enum rt_status rt_kernels_prepare(struct rt_device *dev, const struct rt_kernel *const *kernels, size_t count,
                                  struct rt_error *err)
{
    uint32_t event = rt_trace_add(dev->trace, RT_EVENT_BUILD, "build pipelines", 0);
    enum rt_status st = dev->backend->kernels_prepare(dev, kernels, count, err);
    rt_trace_close(dev->trace, event);
    return st;
}

/* ---- hardware counters ---- */

static enum rt_status counts(const struct rt_device *dev, struct rt_error *err)
{
    return dev->counters ? RT_OK : rt_fail(err, RT_NO_DEVICE, "%s was not opened for hardware counters", dev->info.name);
}

enum rt_status rt_counters_list(struct rt_device *dev, struct rt_hardware_counter **out, size_t *n, struct rt_error *err)
{
    enum rt_status st = counts(dev, err);
    return st ? st : dev->backend->counters_list(dev, out, n, err);
}

enum rt_status rt_counters_choose(struct rt_device *dev, const uint32_t *indices, uint32_t n, uint32_t *passes, struct rt_error *err)
{
    enum rt_status st = counts(dev, err);
    return st ? st : dev->backend->counters_choose(dev, indices, n, passes, err);
}

enum rt_status rt_counters_begin(struct rt_device *dev, struct rt_error *err)
{
    enum rt_status st = counts(dev, err);
    return st ? st : dev->backend->counters_begin(dev, err);
}

enum rt_status rt_counters_end(struct rt_device *dev, double *values, struct rt_error *err)
{
    enum rt_status st = counts(dev, err);
    return st ? st : dev->backend->counters_end(dev, values, err);
}

enum rt_status rt_kernel_describe(struct rt_device *dev, const struct rt_kernel *kernel, struct rt_kernel_description **out,
                                  struct rt_error *err)
{
    *out = calloc(1, sizeof **out);
    if (!*out)
        return rt_fail(err, RT_NO_MEMORY, "no memory for what %s is", kernel->name);
    enum rt_status st = dev->backend->kernel_describe(dev, kernel, *out, err);
    if (st)
        rt_kernel_description_free(out);
    return st;
}

void rt_kernel_description_free(struct rt_kernel_description **description)
{
    struct rt_kernel_description *d = *description;
    for (size_t i = 0; d && i < d->n_executables; i++) {
        struct rt_executable *e = &d->executables[i];
        for (size_t t = 0; t < e->n_texts; t++)
            free(e->texts[t].text);
        free(e->texts);
        free(e->statistics);
    }
    if (d)
        free(d->executables);
    free(d);
    *description = NULL;
}

enum rt_status rt_dispatch(struct rt_device *dev, const struct rt_kernel *kernel, const struct rt_span *spans,
                           const void *push, const uint32_t groups[3], double flops, struct rt_error *err)
{
    if (groups[0] == 0 || groups[1] == 0 || groups[2] == 0)
        return RT_OK;
    const struct rt_limits *l = &dev->info.limits;
    for (int i = 0; i < 3; i++)
        if (groups[i] > l->max_groups[i])
            return rt_fail(err, RT_FAILED, "kernel %s: %u groups in dimension %d, %s allows %u", kernel->name, groups[i], i,
                           dev->info.name, l->max_groups[i]);
    for (uint32_t i = 0; i < kernel->n_bindings; i++)
        if (!spans[i].buffer || spans[i].size > l->max_range)
            return rt_fail(err, RT_FAILED, "kernel %s: binding %s has %llu bytes, %s binds 1 to %llu", kernel->name,
                           kernel->bindings[i].name, (unsigned long long)spans[i].size, dev->info.name,
                           (unsigned long long)l->max_range);
    return dev->backend->dispatch(dev, kernel, spans, push, groups, flops, err);
}

enum rt_status rt_segment(struct rt_device *dev, const char *label, struct rt_error *err)
{
    return dev->backend->segment(dev, label, err);
}

enum rt_status rt_finish(struct rt_device *dev, struct rt_error *err) { return dev->backend->finish(dev, err); }

unsigned rt_validation_messages(const struct rt_device *dev, const char **last)
{
    return dev->backend->validation_messages(dev, last);
}

double rt_submission_percentile(const struct rt_statistics *before, const struct rt_statistics *after, double share)
{
    uint64_t counts[RT_DURATIONS], all = 0, sum = 0;
    for (int i = 0; i < RT_DURATIONS; i++)
        all += counts[i] = after->durations[i] - (before ? before->durations[i] : 0);
    for (int i = 0; i < RT_DURATIONS && all; i++)
        if ((double)(sum += counts[i]) >= share * (double)all)
            return 1e-6 * exp2(i / 4.0);
    return 0;
}

void rt_get_statistics(const struct rt_device *dev, struct rt_statistics *out)
{
    dev->backend->statistics(dev, out);
    out->allocated = dev->allocated;
    out->most_allocated = dev->most_allocated;
}
