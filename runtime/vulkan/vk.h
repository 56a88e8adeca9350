/* runtime/vulkan/vk.h - what the files of runtime/vulkan/ share; nobody else includes it.
 *
 *     instance.c   loader, instance, validation layer          kernel.c    layouts, pipelines, whether a kernel can run
 *     physical.c   what a physical device is and can do        cache.c     the pipeline cache on disk
 *     caps.c       MOSLD_CAPS                                  record.c    command buffers, submissions, their time budget
 *     reflect.c    SPIR-V                                      dispatch.c  barriers, descriptors, dispatches
 *     divide.c     kernels whose grid may be cut
 *     hazard.c     which commands need a barrier               transfer.c  upload, download, copy, fill
 *     heaps.c      which memory type                           memory.c    buffers
 *     executable.c what the driver tells of a kernel           device.c    list, open, close, the backend's table
 *     counters.c   hardware counters
 *
 * Functions of Vulkan are called through dev->fn and instance->..., never through volk's globals, so that devices of
 * several instances live side by side. */
#ifndef RT_VULKAN_VK_H
#define RT_VULKAN_VK_H

#include "runtime/backend.h"
#include "runtime/vulkan/caps.h"
#include "runtime/vulkan/hazard.h"
#include "runtime/vulkan/reflect.h"
#include "runtime/vulkan/shaders.h"

#include <pthread.h>
#include <volk.h>

/* ---- instance ---- */

struct vk_messages { /* of the validation layer; on the heap, since the layer keeps its address */
    pthread_mutex_t lock;
    unsigned count;
    char last[2048];
};

struct vk_instance {
    VkInstance handle;
    VkDebugUtilsMessengerEXT messenger;
    struct vk_messages *messages; /* NULL without validation */
    bool labels;                  /* VK_EXT_debug_utils is on; whether it is used: rt_device.labels */
    PFN_vkDestroyInstance destroy;
    PFN_vkEnumeratePhysicalDevices enumerate;
    PFN_vkEnumerateDeviceExtensionProperties extensions;
    PFN_vkGetPhysicalDeviceProperties2 properties;
    PFN_vkGetPhysicalDeviceFeatures2 features;
    PFN_vkGetPhysicalDeviceMemoryProperties2 memory;
    PFN_vkGetPhysicalDeviceQueueFamilyProperties queues;
    PFN_vkCreateDevice create_device;
    PFN_vkDestroyDebugUtilsMessengerEXT destroy_messenger;
    PFN_vkSetDebugUtilsObjectNameEXT set_name;
    PFN_vkCmdBeginDebugUtilsLabelEXT begin_label;
    PFN_vkCmdEndDebugUtilsLabelEXT end_label;
    PFN_vkCmdInsertDebugUtilsLabelEXT insert_label;
    PFN_vkQueueBeginDebugUtilsLabelEXT queue_begin_label;
    PFN_vkQueueEndDebugUtilsLabelEXT queue_end_label;
    PFN_vkQueueInsertDebugUtilsLabelEXT queue_insert_label;
};

/* Loads Vulkan and makes an instance. When there is no loader or no driver: RT_NO_DEVICE, and `err` says which.
 * `validate` without the layer installed: RT_NO_DEVICE too. On failure nothing is left of it. */
enum rt_status vk_instance_init(struct vk_instance *instance, bool validate, struct rt_error *err);
void vk_instance_finish(struct vk_instance *instance); /* a zeroed one is fine */

/* ---- physical devices ---- */

struct vk_physical {
    VkPhysicalDevice handle;
    struct rt_device_info info; /* after the clamp */
    struct caps_clamp clamp;
    uint32_t queue_family;
    uint32_t timestamp_bits;    /* 0: the queue has none, or they are not to be used */
    double timestamp_period;    /* seconds a tick */
    uint32_t subgroup_ops;      /* VkSubgroupFeatureFlags */
    uint32_t forced_subgroup;   /* the size that every pipeline is built for; 0: the driver's choice */
    uint32_t most_subgroups;    /* of a workgroup, where a size is forced */
    uint32_t driver_version;
    uint8_t cache_uuid[16];
    bool executables;           /* VK_KHR_pipeline_executable_properties is there and works */
    bool calibrated, frame_boundary; /* VK_EXT_calibrated_timestamps, VK_EXT_frame_boundary are there, and on */
    bool tooling;               /* VK_EXT_tooling_info is there, and on */
    bool counters;              /* VK_KHR_performance_query is there with performanceCounterQueryPools; on when asked for */
    const char *global_priority; /* the extension, or NULL */
    bool int16, portability_subset, unified; /* unified: the host sees all device memory at full speed */
    uint64_t noncoherent_atom;
    VkPhysicalDeviceMemoryProperties memory;
};

/* Describes one. RT_NO_DEVICE: it is below the floor; `err` says what it lacks. */
enum rt_status vk_physical_describe(const struct vk_instance *instance, VkPhysicalDevice handle,
                                    const struct caps_clamp *clamp, struct vk_physical *out, struct rt_error *err);
/* Creates the logical device with what the clamp left and nothing else; `executables` and `counters` come on top of it where the device has them. */
enum rt_status vk_physical_open(const struct vk_instance *instance, const struct vk_physical *physical, bool executables, bool counters,
                                VkDevice *out, struct rt_error *err);

/* ---- the device ---- */

struct vk_buffer {
    struct rt_buffer base;
    VkBuffer handle;
    VkDeviceMemory memory;
    unsigned char *mapped; /* NULL: reached through staging alone */
    uint64_t size;         /* bytes of the memory; 0: none was given */
    bool cached, coherent, readable; /* readable: mapped memory is the host's own, not the other end of a bus */
};

struct vk_kernel { /* one struct rt_kernel on this device */
    const struct rt_kernel *desc;
    const struct rt_shader *shader;
    struct reflection needs;
    bool supported, queued; /* queued: while pipelines are built in parallel */
    char why_not[256];
    VkPipelineLayout layout;
    VkPipeline pipeline; /* built at first need */
    bool divided;        /* the pipeline takes parts of a grid */
    double rate;         /* units of work a second, from submissions that were this kernel's for the most part; 0: not known */
};

#define VK_RING 3          /* submissions in flight at most, and being recorded */
#define VK_MAX_LABELS 8    /* segments of a submission that its message about a lost device names */

struct vk_submission {
    VkCommandPool pool;
    VkCommandBuffer cmd;
    VkFence fence;
    VkQueryPool queries;    /* two timestamps; null without */
    VkDescriptorPool *sets; /* where there are no push descriptors; grows by need and is kept */
    unsigned n_sets, sets_used;
    enum { VK_IDLE, VK_RECORDING, VK_IN_FLIGHT } state;
    uint64_t number;        /* counts from 1, in the order of recording */
    double work;            /* see record.c */
    struct vk_kernel *heaviest; /* of its dispatches the one that is expected to take longest, */
    double heaviest_work, heaviest_part; /* how much work that is, and how much of `work` it was counted as */
    unsigned dispatches;
    const char *labels[VK_MAX_LABELS];
    unsigned n_labels;
    unsigned labels_open;   /* scopes that are open as labels in cmd */
    bool counted;           /* by hardware counters: it has no timestamps, and is submitted once a pass */
    uint32_t event;         /* of the trace, once it is submitted; RT_NO_EVENT */
    double submitted_at;    /* host seconds */
};

struct vk_device {
    struct rt_device base;
    struct vk_instance instance;
    struct vk_physical physical;
    VkDevice handle;
    VkQueue queue;
    struct VolkDeviceTable fn;
    bool lost, serialize, compile_only;
    enum rt_capture capture; /* what pipelines are built to tell; nothing where the driver cannot */
    char lost_text[512];     /* what every call after the loss says */

    struct vk_profile *profile; /* profile.c; NULL: no trace records */
    struct vk_counters *counters; /* counters.c; NULL: not opened for them */

    /* kernel.c, cache.c */
    struct vk_kernel **kernels; /* hash table by the address of the rt_kernel; a power of two */
    size_t kernel_slots, n_kernels;
    VkDescriptorSetLayout set_layouts[RT_MAX_BINDINGS + 1]; /* by number of bindings */
    VkPipelineCache cache;
    char *cache_path;           /* NULL: not kept on disk */
    uint64_t cache_saved;       /* pipelines built when it was last written */

    /* record.c */
    struct vk_submission ring[VK_RING];
    unsigned current;           /* the one being recorded, or next to be */
    uint64_t begun;             /* number of the submission that was begun last */
    double budget, rate;        /* seconds; units of work a second */
    double segment_work;        /* of the segment being recorded */
    const char *label;          /* of the segment being recorded; NULL before the first */
    double last_done_at;        /* host seconds: when a submission was last seen to be done */
    uint64_t fault_at;          /* MOSLD_FAULT=device-lost@N; 0: none */
    struct hazard hazard;
    struct rt_statistics statistics;

    /* transfer.c */
    struct vk_buffer *staging;  /* mapped, host memory; made at first need */
    uint64_t staging_half_used[2]; /* number of the submission that last read or wrote each half */
    unsigned staging_half;
};

static inline struct vk_device *vk_of(const struct rt_device *dev) { return (struct vk_device *)dev; }
static inline struct vk_buffer *vk_buffer_of(const struct rt_buffer *buffer) { return (struct vk_buffer *)buffer; }

/* device.c: turns a failed call into a status and a sentence. VK_ERROR_DEVICE_LOST marks the device as lost. `dev` may be NULL. */
enum rt_status vk_fail(struct vk_device *dev, VkResult result, const char *what, struct rt_error *err);
const char *vk_result_name(VkResult result);
void vk_name(struct vk_device *dev, VkObjectType type, uint64_t handle, const char *name); /* for debuggers, when they listen */

#define VK_TRY(dev, call, err)                             \
    do {                                                   \
        VkResult result_ = (call);                         \
        if (result_ != VK_SUCCESS)                         \
            return vk_fail((dev), result_, #call, (err));  \
    } while (0)

/* ---- memory.c ---- */

/* Buffers of an arena: in device memory, zeroed by a fill that is recorded. */
enum rt_status vk_buffer_create(struct rt_device *dev, uint64_t size, const char *label, struct rt_buffer **out,
                                struct rt_error *err);
/* A mapped buffer in host memory, cached where possible, not zeroed. */
enum rt_status vk_staging_create(struct vk_device *dev, uint64_t size, struct vk_buffer **out, struct rt_error *err);
void vk_buffer_destroy(struct rt_buffer *buffer);
/* Around the host's accesses to mapped memory that is not coherent; nothing otherwise. */
enum rt_status vk_buffer_flush(struct vk_buffer *buffer, uint64_t offset, uint64_t size, struct rt_error *err);
enum rt_status vk_buffer_invalidate(struct vk_buffer *buffer, uint64_t offset, uint64_t size, struct rt_error *err);
/* Bytes that a run may plan with: the budget of the heap that buffers come from where known, else the heap. */
uint64_t vk_memory_available(const struct vk_instance *instance, const struct vk_physical *physical);
#define VK_STAGING_HALF ((uint64_t)8 << 20)
#define VK_STAGING_BYTES (2 * VK_STAGING_HALF)
uint64_t vk_reserve(const struct rt_device *dev); /* see rt_reserve */

/* ---- kernel.c ---- */

/* The kernel's entry of the table, made and judged at the first call; NULL when there is no memory for it. */
struct vk_kernel *vk_kernel_find(struct vk_device *dev, const struct rt_kernel *desc);
bool vk_kernel_supported(const struct rt_device *dev, const struct rt_kernel *desc);
enum rt_status vk_kernels_prepare(struct rt_device *dev, const struct rt_kernel *const *kernels, size_t count,
                                  struct rt_error *err);
/* Builds the pipeline if it is not there yet. */
enum rt_status vk_kernel_ready(struct vk_device *dev, struct vk_kernel *kernel, struct rt_error *err);
void vk_kernels_finish(struct vk_device *dev);

/* ---- executable.c ---- */

enum rt_status vk_kernel_describe(struct rt_device *dev, const struct rt_kernel *desc, struct rt_kernel_description *out,
                                  struct rt_error *err);

/* ---- cache.c ---- */

enum rt_status vk_cache_open(struct vk_device *dev, bool on_disk, struct rt_error *err);
void vk_cache_save(struct vk_device *dev); /* when pipelines were built since; failures to write are no errors */
void vk_cache_finish(struct vk_device *dev);

/* ---- record.c ---- */

enum rt_status vk_record_init(struct vk_device *dev, double budget, struct rt_error *err);
void vk_record_finish(struct vk_device *dev); /* the device is idle */
/* The command buffer to record into, begun if need be. Cuts before work that would not fit into the budget any more. */
enum rt_status vk_record_begin(struct vk_device *dev, double work, VkCommandBuffer *out, struct rt_error *err);
enum rt_status vk_record_submit(struct vk_device *dev, struct rt_error *err); /* what is recorded; nothing is fine */
enum rt_status vk_record_wait(struct vk_device *dev, uint64_t number, struct rt_error *err); /* for submission `number` */
bool vk_record_idle(struct vk_device *dev); /* nothing recorded, nothing in flight */
enum rt_status vk_segment(struct rt_device *dev, const char *label, struct rt_error *err);
enum rt_status vk_finish(struct rt_device *dev, struct rt_error *err);

/* ---- dispatch.c ---- */

/* What a byte that is bound or moved counts for beside a flop, in the work by which submissions are cut: the ratio of peak
 * rates of small GPUs, and of CPU drivers. */
#define VK_WORK_PER_BYTE 8.0

/* Enters accesses into the tracker and records the barrier that they ask for, if any. */
void vk_barrier_for(struct vk_device *dev, VkCommandBuffer cmd, enum hazard_stage stage,
                    const struct hazard_access *accesses, unsigned n);
enum rt_status vk_dispatch(struct rt_device *dev, const struct rt_kernel *kernel, const struct rt_span *spans,
                           const void *push, const uint32_t groups[3], double flops, struct rt_error *err);

/* ---- profile.c ---- */

#define VK_NO_SLOT UINT32_MAX

/* Around a command that is timed, behind its barrier; they do nothing unless a trace records. Times arrive when the submission is done. */
uint32_t vk_profile_open(struct vk_device *dev, VkCommandBuffer cmd, enum rt_event_kind kind, const char *name, double bytes,
                         const uint32_t *groups);
void vk_profile_close(struct vk_device *dev, VkCommandBuffer cmd, uint32_t slot);
void vk_profile_begin(struct vk_device *dev, struct vk_submission *s);
bool vk_profile_full(struct vk_device *dev, const struct vk_submission *s); /* it has to be submitted before the next command */
void vk_profile_submitted(struct vk_device *dev, struct vk_submission *s);
void vk_profile_collect(struct vk_device *dev, struct vk_submission *s, double done_at);
/* Where the queue has no timestamps: a kernel is submitted alone and waited for, and then vk_profile_timed completes its event. */
bool vk_profile_alone(const struct vk_device *dev);
void vk_profile_timed(struct vk_device *dev, const struct vk_submission *s);
enum rt_status vk_trace_begin(struct rt_device *dev, bool serial, struct rt_error *err);
void vk_trace_end(struct rt_device *dev);
double vk_trace_shift(struct rt_device *dev);
const char *vk_trace_clock(const struct rt_device *dev);

/* ---- counters.c ---- */

/* Before the logical device is made: lists the counters, and takes a queue family that has some. RT_NO_DEVICE: there are none. */
enum rt_status vk_counters_open(struct vk_device *dev, struct rt_error *err);
void vk_counters_finish(struct vk_device *dev);
enum rt_status vk_counters_list(struct rt_device *dev, struct rt_hardware_counter **out, size_t *n, struct rt_error *err);
enum rt_status vk_counters_choose(struct rt_device *dev, const uint32_t *indices, uint32_t n, uint32_t *passes, struct rt_error *err);
enum rt_status vk_counters_begin(struct rt_device *dev, struct rt_error *err);
enum rt_status vk_counters_end(struct rt_device *dev, double *values, struct rt_error *err);
bool vk_counters_counting(const struct vk_device *dev);
/* The first and the last command of a counted submission. */
void vk_counters_record(struct vk_device *dev, const struct vk_submission *s, bool begin);
/* Submits it for every pass but the last, waiting for each; *last is that one's index, which is the caller's. */
enum rt_status vk_counters_passes(struct vk_device *dev, const struct vk_submission *s, uint32_t *last, struct rt_error *err);
void vk_counters_collect(struct vk_device *dev, const struct vk_submission *s); /* all passes are done */

/* ---- labels.c, capture.c ---- */

void vk_labels_open(struct vk_device *dev, struct vk_submission *s);  /* all open scopes, in a command buffer that was begun */
void vk_labels_close(struct vk_device *dev, struct vk_submission *s); /* before it is ended */
void vk_label_begin(struct rt_device *dev);
void vk_label_end(struct rt_device *dev);
void vk_label_command(struct vk_device *dev, VkCommandBuffer cmd, const char *name); /* around one command; NULL ends it */
/* Which tensors it binds, as a label in front of a dispatch: arenas hold many in a buffer. */
void vk_label_bindings(struct vk_device *dev, VkCommandBuffer cmd, const struct rt_kernel *kernel, const struct rt_span *spans);
void vk_label_submission(struct vk_device *dev, const struct vk_submission *s, bool begin);
void vk_labels_name_device(struct vk_device *dev);
const char *vk_capture_begin(struct rt_device *dev, const char *label);
void vk_capture_end(struct rt_device *dev);
bool vk_tool_attached(const struct vk_device *dev); /* a profiler, tracer or debugger says that it listens (VK_EXT_tooling_info) */

/* ---- transfer.c ---- */

enum rt_status vk_upload(struct rt_device *dev, struct rt_span to, uint64_t offset, const void *data, uint64_t size,
                         struct rt_error *err);
enum rt_status vk_write_begin(struct rt_device *dev, struct rt_span to, void **at, struct rt_error *err);
enum rt_status vk_write_end(struct rt_device *dev, struct rt_span to, struct rt_error *err);
enum rt_status vk_download(struct rt_device *dev, struct rt_span from, uint64_t offset, void *data, uint64_t size,
                           struct rt_error *err);
enum rt_status vk_copy(struct rt_device *dev, struct rt_span to, uint64_t to_offset, struct rt_span from,
                       uint64_t from_offset, uint64_t size, struct rt_error *err);
enum rt_status vk_fill(struct rt_device *dev, struct rt_span to, uint32_t word, struct rt_error *err);
/* The same for a whole buffer, before it has a span. */
enum rt_status vk_fill_buffer(struct vk_device *dev, struct vk_buffer *buffer, uint64_t offset, uint64_t size,
                              uint32_t word, struct rt_error *err);

#endif
