/* runtime/rt.h - devices: choosing one, its memory, running kernels on it in order, and timing them.
 *
 * There are two kinds of device behind this header. RT_VULKAN runs SPIR-V kernels through a Vulkan driver. RT_HOST gives
 * plain memory and threads; what runs on it are C functions, which its user calls with rt_host_ptr and rt_parallel.
 * Nothing here knows about tensors, tokens or models. Sizes and offsets are bytes.
 *
 * Everything that a device is asked to do happens in the order of the calls: a kernel sees what earlier kernels, fills and
 * uploads wrote, because barriers are derived from the accesses that each kernel declares. A device is used by one
 * thread at a time. */
#ifndef RT_RT_H
#define RT_RT_H

#include "runtime/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct rt_device;
struct rt_buffer;
struct rt_arena;

/* ---- devices ---- */

enum rt_kind { RT_HOST, RT_VULKAN };
enum rt_class { RT_CLASS_OTHER, RT_CLASS_CPU, RT_CLASS_VIRTUAL, RT_CLASS_INTEGRATED, RT_CLASS_DISCRETE };

/* What a device can do beyond the floor of Vulkan 1.2 without optional features. A clamp (MOSLD_CAPS) takes bits away. */
enum rt_cap {
    RT_CAP_FP16_STORAGE = 1u << 0,    /* 16-bit storage buffers */
    RT_CAP_FP16_ARITHMETIC = 1u << 1, /* shaderFloat16 */
    RT_CAP_INT8_STORAGE = 1u << 2,
    RT_CAP_SUBGROUP = 1u << 3,       /* basic and arithmetic subgroup operations in compute */
    RT_CAP_SUBGROUP_SIZE = 1u << 4,  /* size control with full subgroups */
    RT_CAP_INTEGER_DOT = 1u << 5,
    RT_CAP_COOPERATIVE_MATRIX = 1u << 6,
    RT_CAP_PUSH_DESCRIPTOR = 1u << 7,
    RT_CAP_MEMORY_BUDGET = 1u << 8,
    RT_CAP_BUFFER_ADDRESS = 1u << 9,
    RT_CAP_TIMESTAMPS = 1u << 10,
};

struct rt_limits {
    uint64_t max_range;      /* bytes of one binding (maxStorageBufferRange) */
    uint64_t max_buffer;     /* bytes of one buffer */
    uint64_t max_allocation; /* bytes of one allocation */
    uint64_t memory;         /* bytes that a run may plan with: the budget where known, else the heap */
    uint32_t offset_align;   /* of a span that is bound; a power of two, at most 256 */
    uint32_t max_storage_buffers;
    uint32_t max_push;
    uint32_t max_shared;
    uint32_t max_invocations;
    uint32_t max_size[3];
    uint32_t max_groups[3];
    uint32_t subgroup_size;
    uint32_t subgroup_sizes[2]; /* the least and the most of the powers of two that MOSLD_CAPS=subgroup=N can force */
    uint32_t matrix[3];       /* with RT_CAP_COOPERATIVE_MATRIX: M, N and K of f16 inputs and f32 sums */
    uint32_t matrix_subgroup; /* and the size of the subgroups that share one */
};

/* What arithmetic in f32 may be given up for; names as PyTorch's float32_matmul_precision. */
enum rt_precision {
    RT_PRECISION_HIGH,    /* the default: inputs split into several of a shorter type where that loses next to nothing */
    RT_PRECISION_HIGHEST, /* f32 throughout */
    RT_PRECISION_MEDIUM,  /* inputs rounded to f16 */
};

struct rt_device_info {
    int index;            /* what --device takes */
    enum rt_kind kind;
    enum rt_class class_; /* of a Vulkan device; RT_CLASS_CPU for the host */
    char name[256];
    char driver[256];     /* driver name and version; the processor's features for the host */
    uint32_t api_version; /* as Vulkan packs it; 0 for the host */
    uint32_t vendor_id, device_id;
    uint8_t uuid[16];     /* deviceUUID: two drivers for one GPU share it */
    uint32_t caps;        /* enum rt_cap, after clamping */
    enum rt_precision precision; /* of an open device: what it was opened with */
    struct rt_limits limits;
};

/* Lists the devices, best first: discrete, integrated, virtual GPUs, the host, then CPU drivers of Vulkan. A GPU that two
 * drivers offer is listed once. Without a Vulkan loader the list has the host alone, and `note` (may be NULL, `note_size`
 * bytes) says so in a sentence. The caller frees *list. */
enum rt_status rt_devices_list(struct rt_device_info **list, size_t *count, char *note, size_t note_size,
                               struct rt_error *err);

enum rt_capture { RT_CAPTURE_NOTHING, RT_CAPTURE_STATISTICS, RT_CAPTURE_ASSEMBLY /* and statistics */ };

struct rt_device_params {
    const char *name;       /* NULL or "auto": the best GPU, else the host. An index, "host", or part of a name. */
    int threads;            /* of the host device; 0: as many as the process may use */
    uint64_t memory_limit;  /* bytes; 0: the device's own */
    double submit_budget;   /* seconds a submission may take; 0: 0.1 */
    bool validate;          /* load the validation layer (also: environment MOSLD_VALIDATE=1) with synchronization
                             * validation; RT_NO_DEVICE if it is absent */
    enum rt_precision precision;
    bool no_pipeline_cache; /* neither read nor write the cache on disk */
    bool serialize;         /* wait after every kernel, to find the one that hangs (MOSLD_SERIALIZE=1) */
    enum rt_capture capture; /* what the driver shall remember of kernels, for rt_kernel_describe; it makes building slower */
    bool compile_only;      /* nothing will run, kernels are only built: for drivers without hardware, which cannot even make a fence.
                             * Memory, copies, rt_dispatch and rt_finish are not to be used. Implies no_pipeline_cache. */
    bool labels;            /* name objects and label work for debuggers (MOSLD_LABELS=1); on by itself when one is attached */
    bool counters;          /* open for rt_counters_...; RT_NO_DEVICE where there are none */
};

/* Opens a device. `params` may be NULL and is not kept. RT_USAGE: `name` matches nothing (the message lists what there is)
 * or more than one device. RT_NO_DEVICE: it is there but lacks what the floor asks for. */
enum rt_status rt_device_open(const struct rt_device_params *params, struct rt_device **out, struct rt_error *err);
void rt_device_close(struct rt_device **dev); /* waits for the device; NULL and *dev == NULL are fine */

const struct rt_device_info *rt_device_info(const struct rt_device *dev);
/* 16 hexadecimal digits that change with any embedded kernel: a part of the key of what is kept on disk about them. */
const char *rt_kernels_id(void);
/* One object of the user's that lives as long as the device: `destroy` gets it when the device closes, or another takes its
 * place. NULL at first. */
void rt_device_attach(struct rt_device *dev, void *object, void (*destroy)(void *object));
void *rt_device_attached(const struct rt_device *dev);
enum rt_kind rt_device_kind(const struct rt_device *dev);

/* How many messages of the validation layer (warnings and errors) have arrived, and the last one's text. 0 without the layer. */
unsigned rt_validation_messages(const struct rt_device *dev, const char **last);

/* ---- memory ---- */

struct rt_span { /* a range of device memory that a kernel can bind; offset is a multiple of 256 */
    struct rt_buffer *buffer;
    uint64_t offset, size;
};

/* An arena holds everything of one purpose (weights, adapter, activations, scratch) in as few allocations as the device
 * allows. First everything is asked for, then the arena is committed: so what a run needs is known before it is allocated,
 * and the plan that is printed is the plan that is made. */
enum rt_status rt_arena_create(struct rt_device *dev, const char *purpose, struct rt_arena **out, struct rt_error *err);
/* Asks for `size` bytes (rounded up to a multiple of 256; 0 gives a null span). *out must stay where it is until the commit
 * fills it. RT_NO_MEMORY: one piece is larger than a buffer of this device may be, or the sum wraps. */
enum rt_status rt_arena_add(struct rt_arena *arena, uint64_t size, const char *label, struct rt_span *out,
                            struct rt_error *err);
uint64_t rt_arena_planned(const struct rt_arena *arena); /* bytes asked for, with alignment */
/* Allocates, clears to zero and fills the spans. RT_NO_MEMORY says what was asked for and what the device has. */
enum rt_status rt_arena_commit(struct rt_arena *arena, struct rt_error *err);
uint64_t rt_arena_allocated(const struct rt_arena *arena); /* bytes really taken from the device */
void rt_arena_destroy(struct rt_arena **arena); /* waits for the device; spans into it are dead */

/* A part of a span. `offset` must be a multiple of 256 and the part must lie inside: asserted. */
struct rt_span rt_span_part(struct rt_span span, uint64_t offset, uint64_t size);

/* Bytes that the device takes beside its arenas when it has to: staging. A part of the plan. */
uint64_t rt_reserve(const struct rt_device *dev);

/* Memory that the program may write in place, from begin to end: *at, to be written and not read; the device is idle then. *at is NULL where
 * there is none, and rt_upload does it. What is read from a file goes straight to where kernels read it. */
enum rt_status rt_write_begin(struct rt_device *dev, struct rt_span to, void **at, struct rt_error *err);
enum rt_status rt_write_end(struct rt_device *dev, struct rt_span to, struct rt_error *err);

/* Copies between memory of the program and the device, in order with the kernels. Both have finished when they return. */
enum rt_status rt_upload(struct rt_device *dev, struct rt_span to, uint64_t offset, const void *data, uint64_t size,
                         struct rt_error *err);
enum rt_status rt_download(struct rt_device *dev, struct rt_span from, uint64_t offset, void *data, uint64_t size,
                           struct rt_error *err);
/* Copies or fills with a 32-bit word on the device, in order, without waiting. Sizes and offsets are multiples of 4. */
enum rt_status rt_copy(struct rt_device *dev, struct rt_span to, uint64_t to_offset, struct rt_span from,
                       uint64_t from_offset, uint64_t size, struct rt_error *err);
enum rt_status rt_fill(struct rt_device *dev, struct rt_span to, uint32_t word, struct rt_error *err);

/* ---- kernels (RT_VULKAN) ---- */

enum rt_access {
    RT_READ = 1,
    RT_WRITE = 2,
    RT_READ_WRITE = 3,
    /* With a promise: every group writes elements of its own, whatever other groups do, and a dimension of the grid has a group an item, or
     * 65,535 where there are more, which the kernel reaches with a stride of the number of groups. A kernel whose every written binding has it
     * is divisible: a dispatch that is longer than the budget is cut into several. */
    RT_WRITE_BY_GROUPS = 6,
    RT_READ_WRITE_BY_GROUPS = 7,
};

#define RT_MAX_BINDINGS 8

/* One shader variant with its interface. Static data: the address is the identity. Binding i of set 0 is bindings[i]. "NAME#7" is
 * variant NAME with 7 for its specialisation constant 0. Kernels of cooperative matrices are given limits.matrix and
 * limits.matrix_subgroup as constants 100 .. 103. */
struct rt_kernel {
    const char *name; /* of the variant in shaders/manifest.txt, for example "matmul_nt.q4_1" */
    uint32_t push_size;
    uint32_t n_bindings;
    struct {
        const char *name;
        enum rt_access access;
    } bindings[RT_MAX_BINDINGS];
};

/* Whether the device could run the kernel: it is in the manifest and its SPIR-V asks for nothing that the device lacks
 * (capabilities, workgroup size, shared memory, storage buffers, push constants), after clamping. */
bool rt_kernel_supported(const struct rt_device *dev, const struct rt_kernel *kernel);

/* Builds the pipelines of `kernels` in parallel, so that no later rt_dispatch has to. */
enum rt_status rt_kernels_prepare(struct rt_device *dev, const struct rt_kernel *const *kernels, size_t count,
                                  struct rt_error *err);

/* What the shader asks for and what the driver's compiler made of it. */
enum rt_kernel_measure { /* what drivers tell under names of their own; units are the driver's where none are given */
    RT_MEASURE_REGISTERS,        /* vector registers of an invocation; of a thread (GRF) on Intel */
    RT_MEASURE_SCALAR_REGISTERS, /* of a subgroup */
    RT_MEASURE_SPILLS,           /* registers, or moves, that went to memory */
    RT_MEASURE_SCRATCH,          /* bytes of memory for them */
    RT_MEASURE_SHARED,           /* bytes of shared memory a workgroup */
    RT_MEASURE_OCCUPANCY,        /* subgroups that fit a SIMD (RADV), a core (Adreno), a multiprocessor (NVIDIA) at once */
    RT_MEASURE_INSTRUCTIONS,
    RT_MEASURE_CODE,             /* bytes */
    RT_MEASURE_LATENCY,          /* cycles from begin to end of one subgroup, loops taken at a fixed guess of turns */
    RT_MEASURE_INVERSE_THROUGHPUT, /* cycles a subgroup costs where many run at once: RADV's guess of speed */
    RT_MEASURES
};

struct rt_executable { /* a pipeline can have several: Intel compiles one a subgroup size */
    char name[256];
    uint32_t subgroup_size;
    double measures[RT_MEASURES]; /* NAN: this driver does not say */
    size_t n_statistics;
    struct rt_executable_statistic {
        char name[256];
        double value;
    } *statistics;                /* as the driver has them, hashes left out */
    size_t n_texts;
    struct rt_executable_text {
        char name[256];
        char *text;
    } *texts;                     /* with RT_CAPTURE_ASSEMBLY: internal representations, the last one nearest to the machine */
};

struct rt_kernel_description {
    uint32_t workgroup[3], shared_bytes, push_bytes, storage_buffers, spirv_bytes;
    bool reported; /* by the driver: false where it lacks VK_KHR_pipeline_executable_properties or nothing was captured */
    size_t n_executables;
    struct rt_executable *executables;
};

/* Builds the kernel if it is not there yet and asks the driver for what it knows. The caller frees *out. RT_NO_DEVICE: the device cannot
 * run it, and the message says why; RT_FAILED: the driver does not build it. */
enum rt_status rt_kernel_describe(struct rt_device *dev, const struct rt_kernel *kernel, struct rt_kernel_description **out,
                                  struct rt_error *err);
void rt_kernel_description_free(struct rt_kernel_description **description); /* NULL is fine */

/* Appends one dispatch. `spans`: one a binding. `push`: push_size bytes. Groups may be 0: nothing happens. `flops` is an
 * estimate of the work, by which submissions are cut. Nothing is kept of what the pointers name. */
enum rt_status rt_dispatch(struct rt_device *dev, const struct rt_kernel *kernel, const struct rt_span *spans,
                           const void *push, const uint32_t groups[3], double flops, struct rt_error *err);

/* A place where the work may be cut into submissions, about a layer apart; `label` names what follows in debuggers and in
 * the message about a lost device. It must be a string that outlives the device. On the host it does nothing. */
enum rt_status rt_segment(struct rt_device *dev, const char *label, struct rt_error *err);

/* Waits until everything has run. RT_DEVICE_LOST names the segments that were in flight and what to do. */
enum rt_status rt_finish(struct rt_device *dev, struct rt_error *err);

/* ---- the host (RT_HOST) ---- */

void *rt_host_ptr(struct rt_span span); /* of a host device only */
int rt_host_threads(const struct rt_device *dev);
/* Calls fn(arg, item, worker) for item = 0 .. items-1 on all threads and returns when all are done. Which thread takes which item
 * is left open, so items must not share what they write. worker < rt_host_threads. Not to be nested. */
void rt_parallel(struct rt_device *dev, int items, void (*fn)(void *arg, int item, int worker), void *arg);
/* `size` bytes of scratch of this worker, 64-byte aligned, kept between calls; NULL when there is no memory. */
void *rt_host_scratch(struct rt_device *dev, int worker, size_t size);

/* ---- timing ---- */

#define RT_DURATIONS 128

struct rt_statistics {
    uint64_t dispatches, barriers, submissions, pipelines_built;
    uint64_t parts_added;          /* of the dispatches: those that cutting long ones added */
    double device_seconds;     /* sum of the submissions' own times, by timestamps where the queue has them */
    double longest_submission; /* seconds */
    uint32_t durations[RT_DURATIONS]; /* submissions that took up to 1e-6 2^(i / 4) s, and longer than the class before */
    uint64_t allocated, most_allocated; /* bytes of device memory, staging included: now, and at most */
};
void rt_get_statistics(const struct rt_device *dev, struct rt_statistics *out);
/* Seconds within which `share` (0.99: the 99th percentile) of the submissions between two looks were done; `before` NULL: since the device was
 * opened. Rounded up by 19 % at most. 0 where there was none. */
double rt_submission_percentile(const struct rt_statistics *before, const struct rt_statistics *after, double share);

/* ---- hardware counters (VK_KHR_performance_query) ---- */

/* Only on a device that was opened with rt_device_params.counters; elsewhere all of these give RT_NO_DEVICE. */
struct rt_hardware_counter {
    char name[256], category[256], description[256]; /* the driver's */
    const char *unit;                                /* "%", "ns", "B", "B/s", "K", "W", "V", "A", "Hz", "cycles"; "": a number */
};

/* What there is, by index. The caller frees *out. */
enum rt_status rt_counters_list(struct rt_device *dev, struct rt_hardware_counter **out, size_t *n, struct rt_error *err);
/* Takes `n` of them, and the device's profiling lock until it closes. *passes: how often work will run to be counted. RT_NO_DEVICE: the device
 * cannot, or another program holds the lock. */
enum rt_status rt_counters_choose(struct rt_device *dev, const uint32_t *indices, uint32_t n, uint32_t *passes, struct rt_error *err);
/* What is asked for between the two is counted; it is not cut into submissions by time, so it should be short. It runs once a pass, so it has to
 * find the same input each time: what adds to its own output adds once a pass. No trace may record. values[n]: of the sum of all
 * that ran in one pass. rt_counters_end has to follow also when the work could not be asked for. */
enum rt_status rt_counters_begin(struct rt_device *dev, struct rt_error *err);
enum rt_status rt_counters_end(struct rt_device *dev, double *values, struct rt_error *err);

#endif
