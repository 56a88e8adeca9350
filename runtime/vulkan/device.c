/* runtime/vulkan/device.c - listing, opening and closing Vulkan devices, the backend's table, and what failed calls mean. */
#include "runtime/vulkan/vk.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool set(const char *variable)
{
    const char *value = getenv(variable);
    return value && *value && strcmp(value, "0") != 0;
}

/* ---- failures ---- */

const char *vk_result_name(VkResult result)
{
    switch (result) {
    case VK_ERROR_OUT_OF_HOST_MEMORY: return "VK_ERROR_OUT_OF_HOST_MEMORY";
    case VK_ERROR_OUT_OF_DEVICE_MEMORY: return "VK_ERROR_OUT_OF_DEVICE_MEMORY";
    case VK_ERROR_INITIALIZATION_FAILED: return "VK_ERROR_INITIALIZATION_FAILED";
    case VK_ERROR_DEVICE_LOST: return "VK_ERROR_DEVICE_LOST";
    case VK_ERROR_MEMORY_MAP_FAILED: return "VK_ERROR_MEMORY_MAP_FAILED";
    case VK_ERROR_LAYER_NOT_PRESENT: return "VK_ERROR_LAYER_NOT_PRESENT";
    case VK_ERROR_EXTENSION_NOT_PRESENT: return "VK_ERROR_EXTENSION_NOT_PRESENT";
    case VK_ERROR_FEATURE_NOT_PRESENT: return "VK_ERROR_FEATURE_NOT_PRESENT";
    case VK_ERROR_INCOMPATIBLE_DRIVER: return "VK_ERROR_INCOMPATIBLE_DRIVER";
    case VK_ERROR_TOO_MANY_OBJECTS: return "VK_ERROR_TOO_MANY_OBJECTS";
    case VK_ERROR_FRAGMENTED_POOL: return "VK_ERROR_FRAGMENTED_POOL";
    case VK_ERROR_OUT_OF_POOL_MEMORY: return "VK_ERROR_OUT_OF_POOL_MEMORY";
    case VK_ERROR_INVALID_SHADER_NV: return "VK_ERROR_INVALID_SHADER_NV";
    case VK_ERROR_UNKNOWN: return "VK_ERROR_UNKNOWN";
    case VK_INCOMPLETE: return "VK_INCOMPLETE";
    case VK_TIMEOUT: return "VK_TIMEOUT";
    case VK_NOT_READY: return "VK_NOT_READY";
    default: return "an unexpected VkResult";
    }
}

/* The segments in flight, oldest submission first. */
static void in_flight(const struct vk_device *dev, char *out, size_t size)
{
    size_t n = 0;
    out[0] = 0;
    for (unsigned i = 0; i < VK_RING; i++) { /* `current` is the next to be used, so the oldest */
        const struct vk_submission *s = &dev->ring[(dev->current + i) % VK_RING];
        for (unsigned k = 0; s->state == VK_IN_FLIGHT && k < s->n_labels && n < size; k++)
            n += (size_t)snprintf(out + n, size - n, "%s%s", n ? ", " : "", s->labels[k]);
    }
    if (n == 0)
        snprintf(out, size, "work without a label");
}

static enum rt_status lost(struct vk_device *dev, struct rt_error *err)
{
    if (!dev->lost) {
        char labels[300];
        in_flight(dev, labels, sizeof labels);
        snprintf(dev->lost_text, sizeof dev->lost_text, "%s stopped answering while it ran: %s", dev->base.info.name, labels);
        dev->lost = true;
        /* It comes back in finite time even now, and then nothing uses the buffers any more that are going to be freed. */
        dev->fn.vkDeviceWaitIdle(dev->handle);
    }
    return rt_fail(err, RT_DEVICE_LOST, "%s. Nothing on the device is left. What helps: a smaller batch or length; on AMD under Linux the kernel "
                   "option amdgpu.lockup_timeout=10000,60000,10000,10000; MOSLD_SERIALIZE=1 finds the kernel to blame", dev->lost_text);
}

enum rt_status vk_fail(struct vk_device *dev, VkResult result, const char *what, struct rt_error *err)
{
    if (result == VK_ERROR_DEVICE_LOST && dev)
        return lost(dev, err);
    bool memory = result == VK_ERROR_OUT_OF_HOST_MEMORY || result == VK_ERROR_OUT_OF_DEVICE_MEMORY;
    return rt_fail(err, memory ? RT_NO_MEMORY : dev ? RT_FAILED : RT_NO_DEVICE, "%s%s%.150s gave %s (%d)%s", dev ? dev->base.info.name : "",
                   dev ? ": " : "", what, vk_result_name(result), (int)result, memory ? ": use a smaller batch or length" : "");
}

void vk_name(struct vk_device *dev, VkObjectType type, uint64_t handle, const char *name)
{
    VkDebugUtilsObjectNameInfoEXT info = {VK_STRUCTURE_TYPE_DEBUG_UTILS_OBJECT_NAME_INFO_EXT, NULL, type, handle, name};
    if (dev->base.labels)
        dev->instance.set_name(dev->handle, &info); /* a name that was not taken is no failure */
}

/* ---- listing ---- */

#define MAX_PHYSICAL 32

static enum rt_status enumerate(const struct vk_instance *instance, VkPhysicalDevice handles[MAX_PHYSICAL], uint32_t *n,
                                struct rt_error *err)
{
    *n = MAX_PHYSICAL;
    VkResult r = instance->enumerate(instance->handle, n, handles);
    return r == VK_SUCCESS || r == VK_INCOMPLETE ? RT_OK : vk_fail(NULL, r, "vkEnumeratePhysicalDevices", err);
}

static void add_note(char *note, size_t size, const char *text)
{
    size_t n = note && size ? strlen(note) : size;
    if (n < size)
        snprintf(note + n, size - n, "%s%s", n ? "; " : "", text);
}

enum rt_status rt_vulkan_list(struct rt_device_info *list, size_t max, size_t *count, char *note, size_t note_size,
                              struct rt_error *err)
{
    struct caps_clamp clamp;
    struct vk_instance instance;
    struct rt_error why = {0};
    VkPhysicalDevice handles[MAX_PHYSICAL];
    uint32_t n = 0;
    *count = 0;
    if (note && note_size)
        note[0] = 0;
    enum rt_status st = caps_parse(getenv("MOSLD_CAPS"), &clamp, err);
    if (st)
        return st;
    if (vk_instance_init(&instance, false, &why) != RT_OK || enumerate(&instance, handles, &n, &why) != RT_OK) {
        add_note(note, note_size, why.text); /* a machine without Vulkan is no error: the host device is there */
        vk_instance_finish(&instance);
        return RT_OK;
    }
    for (uint32_t i = 0; i < n && *count < max; i++) {
        struct vk_physical physical;
        if (vk_physical_describe(&instance, handles[i], &clamp, &physical, &why) != RT_OK) {
            add_note(note, note_size, why.text);
            continue;
        }
        list[*count] = physical.info;
        list[(*count)++].index = (int)i;
    }
    if (n == 0)
        add_note(note, note_size, "no Vulkan driver offers a device, so only the host device is there");
    vk_instance_finish(&instance);
    return RT_OK;
}

/* ---- opening and closing ---- */

static void vk_close(struct rt_device *base)
{
    struct vk_device *dev = vk_of(base);
    if (dev->handle) {
        if (dev->statistics.submissions) { /* a driver without hardware cannot even wait for nothing */
            vk_finish(base, NULL);
            dev->fn.vkDeviceWaitIdle(dev->handle);
        }
        if (dev->staging)
            vk_buffer_destroy(&dev->staging->base);
        vk_counters_finish(dev);
        vk_record_finish(dev);
        vk_kernels_finish(dev);
        vk_cache_finish(dev);
        dev->fn.vkDestroyDevice(dev->handle, NULL);
    } else {
        vk_counters_finish(dev);
    }
    vk_instance_finish(&dev->instance);
    free(dev);
}

static unsigned validation_messages(const struct rt_device *base, const char **last)
{
    struct vk_messages *messages = vk_of(base)->instance.messages;
    if (last)
        *last = messages ? messages->last : "";
    if (!messages)
        return 0;
    pthread_mutex_lock(&messages->lock);
    unsigned count = messages->count;
    pthread_mutex_unlock(&messages->lock);
    return count;
}

static void statistics(const struct rt_device *base, struct rt_statistics *out) { *out = vk_of(base)->statistics; }

static const struct rt_backend backend = {
    .close = vk_close,
    .buffer_create = vk_buffer_create,
    .buffer_destroy = vk_buffer_destroy,
    .reserve = vk_reserve,
    .upload = vk_upload,
    .write_begin = vk_write_begin,
    .write_end = vk_write_end,
    .download = vk_download,
    .copy = vk_copy,
    .fill = vk_fill,
    .kernel_supported = vk_kernel_supported,
    .kernels_prepare = vk_kernels_prepare,
    .kernel_describe = vk_kernel_describe,
    .dispatch = vk_dispatch,
    .segment = vk_segment,
    .finish = vk_finish,
    .validation_messages = validation_messages,
    .statistics = statistics,
    .label_begin = vk_label_begin,
    .label_end = vk_label_end,
    .trace_begin = vk_trace_begin,
    .trace_end = vk_trace_end,
    .trace_shift = vk_trace_shift,
    .trace_clock = vk_trace_clock,
    .capture_begin = vk_capture_begin,
    .capture_end = vk_capture_end,
    .counters_list = vk_counters_list,
    .counters_choose = vk_counters_choose,
    .counters_begin = vk_counters_begin,
    .counters_end = vk_counters_end,
};

/* The same device again, in an instance of its own. */
static enum rt_status find(struct vk_device *dev, const struct rt_device_info *which, struct rt_error *err)
{
    struct caps_clamp clamp;
    VkPhysicalDevice handles[MAX_PHYSICAL];
    uint32_t n;
    enum rt_status st = caps_parse(getenv("MOSLD_CAPS"), &clamp, err);
    if (st == RT_OK)
        st = enumerate(&dev->instance, handles, &n, err);
    if (st)
        return st;
    if (which->index < 0 || (uint32_t)which->index >= n)
        return rt_fail(err, RT_NO_DEVICE, "%s is no longer there", which->name);
    st = vk_physical_describe(&dev->instance, handles[which->index], &clamp, &dev->physical, err);
    if (st == RT_OK && strcmp(dev->physical.info.name, which->name) != 0)
        return rt_fail(err, RT_NO_DEVICE, "%s is no longer there: the devices have changed", which->name);
    return st;
}

static enum rt_status open_device(struct vk_device *dev, const struct rt_device_info *which, const struct rt_device_params *params,
                                  struct rt_error *err)
{
    enum rt_status st = vk_instance_init(&dev->instance, params->validate || set("MOSLD_VALIDATE"), err);
    bool labels = dev->instance.labels && (params->labels || set("MOSLD_LABELS") || dev->instance.messages);
    if (st == RT_OK)
        st = find(dev, which, err);
    if (st == RT_OK && params->counters)
        st = vk_counters_open(dev, err);
    if (st)
        return st;
    dev->base = (struct rt_device){.backend = &backend, .info = dev->physical.info, .counters = params->counters,
                                   .labels = labels || (dev->instance.labels && vk_tool_attached(dev))};
    st = vk_physical_open(&dev->instance, &dev->physical, params->capture != RT_CAPTURE_NOTHING, params->counters, &dev->handle, err);
    if (st)
        return st;
    volkLoadDeviceTable(&dev->fn, dev->handle);
    dev->fn.vkGetDeviceQueue(dev->handle, dev->physical.queue_family, 0, &dev->queue);
    dev->serialize = params->serialize || set("MOSLD_SERIALIZE");
    dev->hazard.disabled = set("MOSLD_TEST_NO_BARRIERS");
    dev->capture = dev->physical.executables ? params->capture : RT_CAPTURE_NOTHING;
    dev->compile_only = params->compile_only;
    st = vk_cache_open(dev, !params->no_pipeline_cache && !dev->compile_only, err);
    if (st || dev->compile_only)
        return st;
    st = vk_record_init(dev, params->submit_budget, err);
    if (!st)
        vk_labels_name_device(dev);
    return st;
}

enum rt_status rt_vulkan_open(const struct rt_device_info *which, const struct rt_device_params *params, struct rt_device **out,
                              struct rt_error *err)
{
    *out = NULL;
    struct vk_device *dev = calloc(1, sizeof *dev);
    if (!dev)
        return rt_fail(err, RT_NO_MEMORY, "no memory for a Vulkan device");
    enum rt_status st = open_device(dev, which, params, err);
    if (st) {
        vk_close(&dev->base);
        return st;
    }
    *out = &dev->base;
    return RT_OK;
}
