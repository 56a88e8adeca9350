/* runtime/vulkan/counters.c - hardware counters through VK_KHR_performance_query: see rt.h.
 *
 * What is counted is what a command buffer does: the query is its first and its last command, since counters may have that scope and no finer one
 * (so a counted submission has no timestamps). Counters that the hardware cannot take together need several passes, and then the same command
 * buffer is submitted once a pass, each time behind the end of the one before. The profiling lock is held from the choice on. */
#include "runtime/vulkan/vk.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LOCK_TIMEOUT 5000000000ull /* nanoseconds: another program may be profiling */

struct vk_counters {
    VkPerformanceCounterKHR *list; /* [n], of the queue family */
    VkPerformanceCounterDescriptionKHR *told;
    uint32_t n;
    uint32_t *chosen; /* [n_chosen] */
    uint32_t n_chosen, passes;
    bool locked, counting;
    VkQueryPool pool;                       /* a query a submission of the ring */
    VkPerformanceCounterResultKHR *results; /* [n_chosen], of one submission */
    double *sums;                           /* [n_chosen], of all since counting began */
    uint32_t submissions;
    VkResult result; /* the first failure to read one */
};

/* ---- which there are ---- */

static enum rt_status enumerate(struct vk_device *dev, uint32_t family, struct vk_counters *c, struct rt_error *err)
{
    PFN_vkEnumeratePhysicalDeviceQueueFamilyPerformanceQueryCountersKHR get =
        (PFN_vkEnumeratePhysicalDeviceQueueFamilyPerformanceQueryCountersKHR)vkGetInstanceProcAddr(
            dev->instance.handle, "vkEnumeratePhysicalDeviceQueueFamilyPerformanceQueryCountersKHR");
    c->n = 0;
    if (!get)
        return RT_OK;
    VK_TRY(NULL, get(dev->physical.handle, family, &c->n, NULL, NULL), err);
    if (!c->n)
        return RT_OK;
    c->list = calloc(c->n, sizeof *c->list);
    c->told = calloc(c->n, sizeof *c->told);
    if (!c->list || !c->told)
        return rt_fail(err, RT_NO_MEMORY, "no memory for %u hardware counters", c->n);
    for (uint32_t i = 0; i < c->n; i++) {
        c->list[i].sType = VK_STRUCTURE_TYPE_PERFORMANCE_COUNTER_KHR;
        c->told[i].sType = VK_STRUCTURE_TYPE_PERFORMANCE_COUNTER_DESCRIPTION_KHR;
    }
    VkResult r = get(dev->physical.handle, family, &c->n, c->list, c->told);
    return r == VK_SUCCESS || r == VK_INCOMPLETE ? RT_OK
                                                 : vk_fail(NULL, r, "vkEnumeratePhysicalDeviceQueueFamilyPerformanceQueryCountersKHR", err);
}

enum rt_status vk_counters_open(struct vk_device *dev, struct rt_error *err)
{
    struct vk_physical *p = &dev->physical;
    if (!p->counters)
        return rt_fail(err, RT_NO_DEVICE, "%s has no hardware counters that a program may read: its driver lacks VK_KHR_performance_query with "
                       "performanceCounterQueryPools. docs/profiling.md has the tools of its maker", p->info.name);
    dev->counters = calloc(1, sizeof *dev->counters);
    if (!dev->counters)
        return rt_fail(err, RT_NO_MEMORY, "no memory for hardware counters");
    /* The family that mosld prefers has the first word; some drivers count on the one for graphics alone. */
    RT_TRY(enumerate(dev, p->queue_family, dev->counters, err));
    VkQueueFamilyProperties families[32];
    uint32_t n = 32;
    dev->instance.queues(p->handle, &n, families);
    for (uint32_t i = 0; i < n && !dev->counters->n; i++) {
        if (!(families[i].queueFlags & VK_QUEUE_COMPUTE_BIT) || !families[i].queueCount)
            continue;
        RT_TRY(enumerate(dev, i, dev->counters, err));
        if (dev->counters->n) {
            p->queue_family = i;
            p->timestamp_bits = p->timestamp_bits ? families[i].timestampValidBits : 0; /* 0 may be a clamp's wish */
        }
    }
    return dev->counters->n ? RT_OK
                            : rt_fail(err, RT_NO_DEVICE, "%s has VK_KHR_performance_query, and no counters on a queue that computes", p->info.name);
}

static const char *unit_of(VkPerformanceCounterUnitKHR unit)
{
    switch (unit) {
    case VK_PERFORMANCE_COUNTER_UNIT_PERCENTAGE_KHR: return "%";
    case VK_PERFORMANCE_COUNTER_UNIT_NANOSECONDS_KHR: return "ns";
    case VK_PERFORMANCE_COUNTER_UNIT_BYTES_KHR: return "B";
    case VK_PERFORMANCE_COUNTER_UNIT_BYTES_PER_SECOND_KHR: return "B/s";
    case VK_PERFORMANCE_COUNTER_UNIT_KELVIN_KHR: return "K";
    case VK_PERFORMANCE_COUNTER_UNIT_WATTS_KHR: return "W";
    case VK_PERFORMANCE_COUNTER_UNIT_VOLTS_KHR: return "V";
    case VK_PERFORMANCE_COUNTER_UNIT_AMPS_KHR: return "A";
    case VK_PERFORMANCE_COUNTER_UNIT_HERTZ_KHR: return "Hz";
    case VK_PERFORMANCE_COUNTER_UNIT_CYCLES_KHR: return "cycles";
    default: return "";
    }
}

static bool adds_up(VkPerformanceCounterUnitKHR unit)
{
    return unit == VK_PERFORMANCE_COUNTER_UNIT_GENERIC_KHR || unit == VK_PERFORMANCE_COUNTER_UNIT_NANOSECONDS_KHR ||
           unit == VK_PERFORMANCE_COUNTER_UNIT_BYTES_KHR || unit == VK_PERFORMANCE_COUNTER_UNIT_CYCLES_KHR;
}

enum rt_status vk_counters_list(struct rt_device *base, struct rt_hardware_counter **out, size_t *n, struct rt_error *err)
{
    const struct vk_counters *c = vk_of(base)->counters;
    struct rt_hardware_counter *list = calloc(c->n, sizeof *list);
    if (!list)
        return rt_fail(err, RT_NO_MEMORY, "no memory for %u hardware counters", c->n);
    for (uint32_t i = 0; i < c->n; i++) {
        snprintf(list[i].name, sizeof list[i].name, "%s", c->told[i].name);
        snprintf(list[i].category, sizeof list[i].category, "%s", c->told[i].category);
        snprintf(list[i].description, sizeof list[i].description, "%s", c->told[i].description);
        list[i].unit = unit_of(c->list[i].unit);
    }
    *out = list;
    *n = c->n;
    return RT_OK;
}

/* ---- choosing ---- */

static void forget_choice(struct vk_device *dev)
{
    struct vk_counters *c = dev->counters;
    if (c->pool)
        dev->fn.vkDestroyQueryPool(dev->handle, c->pool, NULL);
    c->pool = VK_NULL_HANDLE;
    free(c->chosen);
    free(c->results);
    free(c->sums);
    c->chosen = NULL, c->results = NULL, c->sums = NULL;
    c->n_chosen = c->passes = 0;
}

static enum rt_status lock(struct vk_device *dev, struct rt_error *err)
{
    VkAcquireProfilingLockInfoKHR info = {.sType = VK_STRUCTURE_TYPE_ACQUIRE_PROFILING_LOCK_INFO_KHR, .timeout = LOCK_TIMEOUT};
    VkResult r = dev->counters->locked ? VK_SUCCESS : dev->fn.vkAcquireProfilingLockKHR(dev->handle, &info);
    if (r == VK_TIMEOUT)
        return rt_fail(err, RT_NO_DEVICE, "%s: another program holds the device's hardware counters: end it, or try again", dev->base.info.name);
    if (r != VK_SUCCESS)
        return vk_fail(dev, r, "vkAcquireProfilingLockKHR", err);
    dev->counters->locked = true;
    return RT_OK;
}

enum rt_status vk_counters_choose(struct rt_device *base, const uint32_t *indices, uint32_t n, uint32_t *passes, struct rt_error *err)
{
    struct vk_device *dev = vk_of(base);
    struct vk_counters *c = dev->counters;
    PFN_vkGetPhysicalDeviceQueueFamilyPerformanceQueryPassesKHR get =
        (PFN_vkGetPhysicalDeviceQueueFamilyPerformanceQueryPassesKHR)vkGetInstanceProcAddr(
            dev->instance.handle, "vkGetPhysicalDeviceQueueFamilyPerformanceQueryPassesKHR");
    RT_TRY(vk_finish(base, err));
    forget_choice(dev);
    c->chosen = calloc(n ? n : 1, sizeof *c->chosen);
    c->results = calloc(n ? n : 1, sizeof *c->results);
    c->sums = calloc(n ? n : 1, sizeof *c->sums);
    if (!c->chosen || !c->results || !c->sums)
        return rt_fail(err, RT_NO_MEMORY, "no memory for %u hardware counters", n);
    for (uint32_t i = 0; i < n; i++) {
        if (indices[i] >= c->n)
            return rt_fail(err, RT_USAGE, "hardware counter %u: there are %u", indices[i], c->n);
        c->chosen[i] = indices[i];
    }
    VkQueryPoolPerformanceCreateInfoKHR which = {VK_STRUCTURE_TYPE_QUERY_POOL_PERFORMANCE_CREATE_INFO_KHR, NULL, dev->physical.queue_family, n,
                                                 c->chosen};
    uint32_t needed = 0;
    if (n && get)
        get(dev->physical.handle, &which, &needed);
    if (!needed)
        return rt_fail(err, RT_NO_DEVICE, "%s cannot take these %u hardware counters: choose fewer", dev->base.info.name, n);
    RT_TRY(lock(dev, err));
    VkQueryPoolCreateInfo info = {.sType = VK_STRUCTURE_TYPE_QUERY_POOL_CREATE_INFO, .pNext = &which,
                                  .queryType = VK_QUERY_TYPE_PERFORMANCE_QUERY_KHR, .queryCount = VK_RING};
    VK_TRY(dev, dev->fn.vkCreateQueryPool(dev->handle, &info, NULL, &c->pool), err);
    c->n_chosen = n;
    c->passes = *passes = needed;
    return RT_OK;
}

void vk_counters_finish(struct vk_device *dev)
{
    struct vk_counters *c = dev->counters;
    if (!c)
        return;
    forget_choice(dev);
    if (c->locked)
        dev->fn.vkReleaseProfilingLockKHR(dev->handle);
    free(c->list);
    free(c->told);
    free(c);
    dev->counters = NULL;
}

/* ---- counting ---- */

bool vk_counters_counting(const struct vk_device *dev) { return dev->counters && dev->counters->counting; }

enum rt_status vk_counters_begin(struct rt_device *base, struct rt_error *err)
{
    struct vk_device *dev = vk_of(base);
    struct vk_counters *c = dev->counters;
    if (!c->pool || c->counting || dev->profile)
        return rt_fail(err, RT_FAILED, "hardware counters: %s", !c->pool ? "none are chosen" : c->counting ? "they count already"
                                                                : "a trace records, and its timestamps are no part of what can be counted");
    RT_TRY(vk_finish(base, err)); /* what was asked for before is not counted */
    memset(c->sums, 0, c->n_chosen * sizeof *c->sums);
    c->submissions = 0;
    c->result = VK_SUCCESS;
    c->counting = true;
    return RT_OK;
}

void vk_counters_record(struct vk_device *dev, const struct vk_submission *s, bool begin)
{
    struct vk_counters *c = dev->counters;
    uint32_t query = (uint32_t)(s - dev->ring);
    if (!begin) {
        dev->fn.vkCmdEndQuery(s->cmd, c->pool, query);
        return;
    }
    dev->fn.vkResetQueryPool(dev->handle, c->pool, query, 1); /* by the host: not allowed in the command buffer that has the query */
    dev->fn.vkCmdBeginQuery(s->cmd, c->pool, query, 0);
    /* One pass writes what the next one reads or writes again, and the tracker of hazards sees the commands once. */
    const VkPipelineStageFlags all = VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT | VK_PIPELINE_STAGE_TRANSFER_BIT;
    const VkMemoryBarrier barrier = {VK_STRUCTURE_TYPE_MEMORY_BARRIER, NULL, VK_ACCESS_SHADER_WRITE_BIT | VK_ACCESS_TRANSFER_WRITE_BIT,
                                     VK_ACCESS_SHADER_READ_BIT | VK_ACCESS_SHADER_WRITE_BIT | VK_ACCESS_TRANSFER_READ_BIT |
                                         VK_ACCESS_TRANSFER_WRITE_BIT};
    dev->fn.vkCmdPipelineBarrier(s->cmd, all, all, 0, 1, &barrier, 0, NULL, 0, NULL);
}

enum rt_status vk_counters_passes(struct vk_device *dev, const struct vk_submission *s, uint32_t *last, struct rt_error *err)
{
    *last = dev->counters->passes - 1;
    for (uint32_t i = 0; i < *last; i++) {
        VkPerformanceQuerySubmitInfoKHR pass = {VK_STRUCTURE_TYPE_PERFORMANCE_QUERY_SUBMIT_INFO_KHR, NULL, i};
        VkSubmitInfo info = {.sType = VK_STRUCTURE_TYPE_SUBMIT_INFO, .pNext = &pass, .commandBufferCount = 1, .pCommandBuffers = &s->cmd};
        VK_TRY(dev, dev->fn.vkQueueSubmit(dev->queue, 1, &info, s->fence), err);
        VK_TRY(dev, dev->fn.vkWaitForFences(dev->handle, 1, &s->fence, VK_TRUE, UINT64_MAX), err);
        VK_TRY(dev, dev->fn.vkResetFences(dev->handle, 1, &s->fence), err);
    }
    return RT_OK;
}

static double value_of(VkPerformanceCounterStorageKHR storage, const VkPerformanceCounterResultKHR *r)
{
    switch (storage) {
    case VK_PERFORMANCE_COUNTER_STORAGE_INT32_KHR: return r->int32;
    case VK_PERFORMANCE_COUNTER_STORAGE_INT64_KHR: return (double)r->int64;
    case VK_PERFORMANCE_COUNTER_STORAGE_UINT32_KHR: return r->uint32;
    case VK_PERFORMANCE_COUNTER_STORAGE_UINT64_KHR: return (double)r->uint64;
    case VK_PERFORMANCE_COUNTER_STORAGE_FLOAT32_KHR: return (double)r->float32;
    default: return r->float64;
    }
}

void vk_counters_collect(struct vk_device *dev, const struct vk_submission *s)
{
    struct vk_counters *c = dev->counters;
    size_t size = c->n_chosen * sizeof *c->results;
    /* Its fence is signalled, so there is nothing to wait for. */
    VkResult r = dev->fn.vkGetQueryPoolResults(dev->handle, c->pool, (uint32_t)(s - dev->ring), 1, size, c->results, size, 0);
    if (r != VK_SUCCESS)
        c->result = c->result == VK_SUCCESS ? r : c->result;
    for (uint32_t i = 0; r == VK_SUCCESS && i < c->n_chosen; i++)
        c->sums[i] += value_of(c->list[c->chosen[i]].storage, &c->results[i]);
    c->submissions++;
}

enum rt_status vk_counters_end(struct rt_device *base, double *values, struct rt_error *err)
{
    struct vk_device *dev = vk_of(base);
    struct vk_counters *c = dev->counters;
    enum rt_status st = vk_finish(base, err); /* still counting: it submits what is recorded */
    c->counting = false;
    if (st)
        return st;
    if (c->result != VK_SUCCESS)
        return vk_fail(dev, c->result, "vkGetQueryPoolResults", err);
    for (uint32_t i = 0; i < c->n_chosen; i++) {
        bool sum = adds_up(c->list[c->chosen[i]].unit) || !c->submissions;
        values[i] = sum ? c->sums[i] : c->sums[i] / c->submissions;
    }
    return RT_OK;
}
