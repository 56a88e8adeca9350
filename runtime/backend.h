/* runtime/backend.h - what a kind of device has to provide; included by runtime/ alone.
 *
 * device.c and arena.c check arguments, choose, plan and cut memory into buffers; a backend does the rest. A backend's own
 * device and buffer begin with the structs below. */
#ifndef RT_BACKEND_H
#define RT_BACKEND_H

#include "runtime/rt.h"
#include "runtime/trace_record.h"

/* What lies where in a buffer: only kept while debuggers are told of it (rt_device.labels). In order, without overlap. */
struct rt_region {
    uint64_t begin, end;
    char *label;
};

struct rt_buffer {
    struct rt_device *dev;
    uint64_t size;
    struct rt_region *regions;
    uint32_t n_regions;
};

/* arena.c: the label of what lies at `offset`; NULL where nothing is known. */
const char *rt_region_at(const struct rt_buffer *buffer, uint64_t offset);

struct rt_backend {
    void (*close)(struct rt_device *dev);
    /* `label` names the buffer for debuggers: its purpose. The memory is cleared to zero. */
    enum rt_status (*buffer_create)(struct rt_device *dev, uint64_t size, const char *label, struct rt_buffer **out,
                                    struct rt_error *err);
    void (*buffer_destroy)(struct rt_buffer *buffer); /* the device is idle */
    uint64_t (*reserve)(const struct rt_device *dev); /* see rt_reserve */
    /* See rt_write_begin; *at NULL: the memory is not mapped. */
    enum rt_status (*write_begin)(struct rt_device *dev, struct rt_span to, void **at, struct rt_error *err);
    enum rt_status (*write_end)(struct rt_device *dev, struct rt_span to, struct rt_error *err);
    enum rt_status (*upload)(struct rt_device *dev, struct rt_span to, uint64_t offset, const void *data, uint64_t size,
                             struct rt_error *err);
    enum rt_status (*download)(struct rt_device *dev, struct rt_span from, uint64_t offset, void *data, uint64_t size,
                               struct rt_error *err);
    enum rt_status (*copy)(struct rt_device *dev, struct rt_span to, uint64_t to_offset, struct rt_span from,
                           uint64_t from_offset, uint64_t size, struct rt_error *err);
    enum rt_status (*fill)(struct rt_device *dev, struct rt_span to, uint32_t word, struct rt_error *err);
    bool (*kernel_supported)(const struct rt_device *dev, const struct rt_kernel *kernel);
    enum rt_status (*kernels_prepare)(struct rt_device *dev, const struct rt_kernel *const *kernels, size_t count,
                                      struct rt_error *err);
    enum rt_status (*kernel_describe)(struct rt_device *dev, const struct rt_kernel *kernel, struct rt_kernel_description *out,
                                      struct rt_error *err);
    enum rt_status (*dispatch)(struct rt_device *dev, const struct rt_kernel *kernel, const struct rt_span *spans,
                               const void *push, const uint32_t groups[3], double flops, struct rt_error *err);
    enum rt_status (*segment)(struct rt_device *dev, const char *label, struct rt_error *err);
    enum rt_status (*finish)(struct rt_device *dev, struct rt_error *err);
    unsigned (*validation_messages)(const struct rt_device *dev, const char **last);
    void (*statistics)(const struct rt_device *dev, struct rt_statistics *out);
    /* What follows may be NULL: a backend without it has labels, device times and captures of no kind of its own. */
    void (*label_begin)(struct rt_device *dev); /* the innermost of dev->scopes was just opened; only while dev->labels */
    void (*label_end)(struct rt_device *dev);   /* and now it is no longer among them */
    enum rt_status (*trace_begin)(struct rt_device *dev, bool serial, struct rt_error *err); /* the device is idle, also below */
    void (*trace_end)(struct rt_device *dev);
    double (*trace_shift)(struct rt_device *dev);           /* what brings times of events with a submission onto rt_clock's clock */
    const char *(*trace_clock)(const struct rt_device *dev);
    const char *(*capture_begin)(struct rt_device *dev, const char *label); /* who was told */
    void (*capture_end)(struct rt_device *dev);
    /* Hardware counters: see rt.h. Called only on a device that was opened for them. */
    enum rt_status (*counters_list)(struct rt_device *dev, struct rt_hardware_counter **out, size_t *n, struct rt_error *err);
    enum rt_status (*counters_choose)(struct rt_device *dev, const uint32_t *indices, uint32_t n, uint32_t *passes, struct rt_error *err);
    enum rt_status (*counters_begin)(struct rt_device *dev, struct rt_error *err);
    enum rt_status (*counters_end)(struct rt_device *dev, double *values, struct rt_error *err);
};

struct rt_device {
    const struct rt_backend *backend;
    struct rt_device_info info;
    void *attached; /* rt_device_attach */
    void (*destroy_attached)(void *object);
    struct rt_trace *trace; /* NULL: nothing records */
    bool labels;            /* debuggers are told of scopes */
    bool counters;          /* opened for hardware counters */
    struct rt_scopes scopes;
    struct rt_trace_memory memory[RT_MAX_PURPOSES]; /* of arenas, by purpose: trace.c keeps it */
    uint32_t n_memory;
    uint64_t allocated, most_allocated; /* bytes that buffers hold, and held at most */
    uint64_t allocations;               /* asked for so far */
};

/* arena.c. Called by a backend: before it asks for a buffer's memory, whether to act as if there were none (MOSLD_FAULT=no-memory@N: the
 * Nth time); and when memory was given (bytes above 0) or is given back. */
bool rt_allocation_fails(struct rt_device *dev);
void rt_allocated(struct rt_device *dev, int64_t bytes);

/* host/host.c */
enum rt_status rt_host_open(const struct rt_device_params *params, struct rt_device **out, struct rt_error *err);
void rt_host_describe(struct rt_device_info *out);

/* vulkan/device.c. The list is appended to `list` (at most `max`), one entry a physical device, unsorted, `index` being the physical
 * device's number there; without a loader or a driver *count is 0 and `note` says why. */
enum rt_status rt_vulkan_list(struct rt_device_info *list, size_t max, size_t *count, char *note, size_t note_size,
                              struct rt_error *err);
enum rt_status rt_vulkan_open(const struct rt_device_info *which, const struct rt_device_params *params,
                              struct rt_device **out, struct rt_error *err);

#endif
