/* runtime/arena.c - memory by purpose: asked for first, allocated once, in as few buffers as the device allows. */
#include "runtime/backend.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define ALIGN 256u /* the largest alignment of a binding's offset that Vulkan lets a device ask for */

struct request {
    struct rt_span *out;
    uint64_t size; /* as asked for */
    char *label;   /* NULL unless debuggers are told; goes to the buffer's regions when it is placed */
};

struct rt_arena {
    struct rt_device *dev;
    const char *purpose;
    struct request *requests;
    size_t n_requests, cap_requests;
    struct rt_buffer **buffers;
    size_t n_buffers;
    uint64_t planned, allocated;
};

static uint64_t round_up(uint64_t n) { return (n + ALIGN - 1) & ~(uint64_t)(ALIGN - 1); }

enum rt_status rt_arena_create(struct rt_device *dev, const char *purpose, struct rt_arena **out, struct rt_error *err)
{
    *out = calloc(1, sizeof **out);
    if (!*out)
        return rt_fail(err, RT_NO_MEMORY, "no memory for the plan of %s", purpose);
    **out = (struct rt_arena){.dev = dev, .purpose = purpose};
    return RT_OK;
}

static uint64_t largest_buffer(const struct rt_device *dev)
{
    const struct rt_limits *l = &dev->info.limits;
    uint64_t largest = l->max_buffer < l->max_allocation ? l->max_buffer : l->max_allocation;
    return largest & ~(uint64_t)(ALIGN - 1);
}

enum rt_status rt_arena_add(struct rt_arena *arena, uint64_t size, const char *label, struct rt_span *out,
                            struct rt_error *err)
{
    *out = (struct rt_span){0};
    if (size == 0)
        return RT_OK;
    uint64_t sum;
    if (size > largest_buffer(arena->dev) || __builtin_add_overflow(arena->planned, round_up(size), &sum))
        return rt_fail(err, RT_NO_MEMORY, "%s (%s) needs %.1f MiB in one piece, and %s allows %.1f MiB: use a smaller batch or length",
                       label, arena->purpose, (double)size / (1 << 20), arena->dev->info.name,
                       (double)largest_buffer(arena->dev) / (1 << 20));
    if (arena->n_requests == arena->cap_requests) {
        size_t cap = arena->cap_requests ? arena->cap_requests * 2 : 64;
        struct request *grown = realloc(arena->requests, cap * sizeof *grown);
        if (!grown)
            return rt_fail(err, RT_NO_MEMORY, "no memory for the plan of %s", arena->purpose);
        arena->requests = grown;
        arena->cap_requests = cap;
    }
    arena->requests[arena->n_requests++] = (struct request){out, size, arena->dev->labels ? strdup(label) : NULL};
    arena->planned = sum;
    return RT_OK;
}

uint64_t rt_arena_planned(const struct rt_arena *arena) { return arena ? arena->planned : 0; }
uint64_t rt_arena_allocated(const struct rt_arena *arena) { return arena ? arena->allocated : 0; }

/* Hands the labels over to the buffer. Without memory for it debuggers learn less. */
static void note_regions(struct rt_buffer *buffer, struct request *requests, size_t n)
{
    buffer->regions = buffer->dev->labels ? calloc(n, sizeof *buffer->regions) : NULL;
    uint64_t offset = 0;
    for (size_t i = 0; buffer->regions && i < n; i++) {
        buffer->regions[buffer->n_regions++] = (struct rt_region){offset, offset + round_up(requests[i].size), requests[i].label};
        requests[i].label = NULL;
        offset += round_up(requests[i].size);
    }
}

static void forget_regions(struct rt_buffer *buffer)
{
    for (uint32_t i = 0; i < buffer->n_regions; i++)
        free(buffer->regions[i].label);
    free(buffer->regions);
}

const char *rt_region_at(const struct rt_buffer *buffer, uint64_t offset)
{
    uint32_t low = 0, high = buffer->n_regions;
    while (low < high) { /* the first region that ends behind the offset */
        uint32_t middle = low + (high - low) / 2;
        if (buffer->regions[middle].end <= offset)
            low = middle + 1;
        else
            high = middle;
    }
    return low < buffer->n_regions ? buffer->regions[low].label : NULL;
}

/* Allocates one buffer for requests [first, last) and points their spans into it. */
static enum rt_status place(struct rt_arena *arena, size_t first, size_t last, uint64_t bytes, struct rt_error *err)
{
    struct rt_buffer **grown = realloc(arena->buffers, (arena->n_buffers + 1) * sizeof *grown);
    if (!grown)
        return rt_fail(err, RT_NO_MEMORY, "no memory for the plan of %s", arena->purpose);
    arena->buffers = grown;
    struct rt_buffer *buffer;
    enum rt_status st = arena->dev->backend->buffer_create(arena->dev, bytes, arena->purpose, &buffer, err);
    if (st)
        return st;
    arena->buffers[arena->n_buffers++] = buffer;
    arena->allocated += bytes;
    rt_trace_change_memory(arena->dev, arena->purpose, (int64_t)bytes);
    uint64_t offset = 0;
    for (size_t i = first; i < last; i++) {
        *arena->requests[i].out = (struct rt_span){buffer, offset, arena->requests[i].size};
        offset += round_up(arena->requests[i].size);
    }
    note_regions(buffer, &arena->requests[first], last - first);
    return RT_OK;
}

/* What is held already counts: arenas are committed one after another. */
static enum rt_status check_limit(const struct rt_arena *arena, struct rt_error *err)
{
    const double mib = 1 << 20;
    uint64_t memory = arena->dev->info.limits.memory, held = arena->dev->allocated;
    if (!memory || (held <= memory && arena->planned <= memory - held))
        return RT_OK;
    return rt_fail(err, RT_NO_MEMORY, "%s need %.1f MiB, %.1f MiB are taken, and the limit of %s is %.1f MiB: use a smaller batch or length",
                   arena->purpose, (double)arena->planned / mib, (double)held / mib, arena->dev->info.name, (double)memory / mib);
}

enum rt_status rt_arena_commit(struct rt_arena *arena, struct rt_error *err)
{
    assert(arena->n_buffers == 0);
    RT_TRY(check_limit(arena, err));
    uint64_t limit = largest_buffer(arena->dev), bytes = 0;
    size_t first = 0;
    for (size_t i = 0; i < arena->n_requests; i++) {
        uint64_t size = round_up(arena->requests[i].size);
        if (bytes > 0 && size > limit - bytes) {
            enum rt_status st = place(arena, first, i, bytes, err);
            if (st)
                return st;
            first = i;
            bytes = 0;
        }
        bytes += size;
    }
    return bytes ? place(arena, first, arena->n_requests, bytes, err) : RT_OK;
}

void rt_arena_destroy(struct rt_arena **arena)
{
    if (!arena || !*arena)
        return;
    struct rt_arena *a = *arena;
    if (a->n_buffers)
        rt_finish(a->dev, NULL);
    for (size_t i = 0; i < a->n_buffers; i++) {
        forget_regions(a->buffers[i]);
        a->dev->backend->buffer_destroy(a->buffers[i]);
    }
    for (size_t i = 0; i < a->n_requests; i++)
        free(a->requests[i].label);
    if (a->n_buffers)
        rt_trace_change_memory(a->dev, a->purpose, -(int64_t)a->allocated);
    free(a->buffers);
    free(a->requests);
    free(a);
    *arena = NULL;
}

/* ---- accounts ---- */

bool rt_allocation_fails(struct rt_device *dev)
{
    const char *fault = getenv("MOSLD_FAULT");
    dev->allocations++;
    return fault && strncmp(fault, "no-memory@", 10) == 0 && strtoull(fault + 10, NULL, 10) == dev->allocations;
}

void rt_allocated(struct rt_device *dev, int64_t bytes)
{
    dev->allocated += (uint64_t)bytes;
    if (dev->allocated > dev->most_allocated)
        dev->most_allocated = dev->allocated;
}

struct rt_span rt_span_part(struct rt_span span, uint64_t offset, uint64_t size)
{
    assert(offset % ALIGN == 0 && offset <= span.size && size <= span.size - offset);
    return (struct rt_span){span.buffer, span.offset + offset, size};
}
