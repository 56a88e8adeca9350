/* runtime/vulkan/record.c - command buffers in a ring, and where they are cut into submissions.
 *
 * Kernels of the operating system reset a device that does not finish a submission in time (2 s where it is strict), and a desktop
 * stutters long before. So work is estimated, as flops plus weighted bytes, and a submission holds what fits into the budget at
 * the rate that was measured so far; the first rate is a pessimistic guess. Kernels differ in how much of their work a second they do: those that fill
 * submissions of their own, which are the ones that may be too long, have a rate of their own once it is known. A dispatch that is too long by itself is cut by its groups, where
 * the kernel allows it (dispatch.c): never within a sum. */
#include "runtime/vulkan/vk.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define FIRST_RATE 5e9       /* units of work a second that any device should reach */
#define DEFAULT_BUDGET 0.1   /* seconds */
#define DISPATCH_COST 1e-5   /* seconds that a dispatch with its barrier may take even if it does nothing */

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* ---- making and unmaking the ring ---- */

static enum rt_status submission_init(struct vk_device *dev, struct vk_submission *s, struct rt_error *err)
{
    VkCommandPoolCreateInfo pool = {VK_STRUCTURE_TYPE_COMMAND_POOL_CREATE_INFO, NULL, VK_COMMAND_POOL_CREATE_TRANSIENT_BIT,
                                    dev->physical.queue_family};
    VK_TRY(dev, dev->fn.vkCreateCommandPool(dev->handle, &pool, NULL, &s->pool), err);
    VkCommandBufferAllocateInfo buffer = {VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO, NULL, s->pool,
                                          VK_COMMAND_BUFFER_LEVEL_PRIMARY, 1};
    VK_TRY(dev, dev->fn.vkAllocateCommandBuffers(dev->handle, &buffer, &s->cmd), err);
    VkFenceCreateInfo fence = {.sType = VK_STRUCTURE_TYPE_FENCE_CREATE_INFO};
    VK_TRY(dev, dev->fn.vkCreateFence(dev->handle, &fence, NULL, &s->fence), err);
    if (dev->physical.timestamp_bits) {
        VkQueryPoolCreateInfo queries = {.sType = VK_STRUCTURE_TYPE_QUERY_POOL_CREATE_INFO, .queryType = VK_QUERY_TYPE_TIMESTAMP,
                                         .queryCount = 2};
        VK_TRY(dev, dev->fn.vkCreateQueryPool(dev->handle, &queries, NULL, &s->queries), err);
    }
    return RT_OK;
}

enum rt_status vk_record_init(struct vk_device *dev, double budget, struct rt_error *err)
{
    dev->budget = budget > 0 ? budget : DEFAULT_BUDGET;
    dev->rate = FIRST_RATE;
    const char *fault = getenv("MOSLD_FAULT");
    if (fault && strncmp(fault, "device-lost@", 12) == 0)
        dev->fault_at = strtoull(fault + 12, NULL, 10);
    for (int i = 0; i < VK_RING; i++) {
        enum rt_status st = submission_init(dev, &dev->ring[i], err);
        if (st)
            return st;
    }
    return RT_OK;
}

void vk_record_finish(struct vk_device *dev)
{
    for (int i = 0; i < VK_RING; i++) {
        struct vk_submission *s = &dev->ring[i];
        for (unsigned k = 0; k < s->n_sets; k++)
            dev->fn.vkDestroyDescriptorPool(dev->handle, s->sets[k], NULL);
        free(s->sets);
        dev->fn.vkDestroyQueryPool(dev->handle, s->queries, NULL);
        dev->fn.vkDestroyFence(dev->handle, s->fence, NULL);
        dev->fn.vkDestroyCommandPool(dev->handle, s->pool, NULL);
    }
}

/* Seconds that a submission is expected to take with `more` work. */
static double estimate(const struct vk_device *dev, const struct vk_submission *s, double more)
{
    return (s->work + more) / dev->rate + DISPATCH_COST * s->dispatches;
}

/* ---- when a submission is done ---- */

/* Seconds that it took on the device; host time where there are no timestamps. */
static double measure(struct vk_device *dev, const struct vk_submission *s, double done_at)
{
    double started = s->submitted_at > dev->last_done_at ? s->submitted_at : dev->last_done_at;
    uint64_t ticks[2];
    if (s->counted || !s->queries || dev->fn.vkGetQueryPoolResults(dev->handle, s->queries, 0, 2, sizeof ticks, ticks, sizeof *ticks,
                                                     VK_QUERY_RESULT_64_BIT) != VK_SUCCESS)
        return done_at - started;
    uint64_t mask = dev->physical.timestamp_bits >= 64 ? UINT64_MAX : (1ull << dev->physical.timestamp_bits) - 1;
    return (double)((ticks[1] - ticks[0]) & mask) * dev->physical.timestamp_period;
}

/* A slow submission lowers the rate at once. A fast one raises it by halves and at most fourfold; one that is short against
 * the budget consists of overhead for the most part, and says only that the device is not slower than this. */
static void learn(struct vk_device *dev, double work, double seconds)
{
    if (work <= 0 || seconds <= 0)
        return;
    double measured = work / seconds;
    if (measured >= dev->rate) {
        double raised = 0.5 * (dev->rate + measured);
        dev->rate = raised < 4 * dev->rate ? raised : 4 * dev->rate;
    } else if (seconds > dev->budget / 50) {
        dev->rate = measured;
    }
}

static void learn_of_kernel(const struct vk_device *dev, const struct vk_submission *s, double seconds)
{
    struct vk_kernel *k = s->heaviest;
    if (!k || s->heaviest_part * 2 < s->work || seconds < dev->budget / 50)
        return;
    double measured = s->heaviest_work / seconds * s->work / s->heaviest_part;
    if (k->rate > 0 && measured > k->rate) {
        double raised = 0.5 * (k->rate + measured);
        k->rate = raised < 4 * k->rate ? raised : 4 * k->rate;
    } else {
        k->rate = measured;
    }
}

static void collect(struct vk_device *dev, struct vk_submission *s)
{
    double done_at = now(), seconds = measure(dev, s, done_at);
    vk_profile_collect(dev, s, done_at);
    dev->statistics.device_seconds += seconds;
    if (seconds > dev->statistics.longest_submission)
        dev->statistics.longest_submission = seconds;
    int class_ = seconds > 1e-6 ? (int)ceil(4 * log2(seconds * 1e6)) : 0;
    dev->statistics.durations[class_ < RT_DURATIONS ? class_ : RT_DURATIONS - 1]++;
    if (s->counted)
        vk_counters_collect(dev, s);
    else
        learn_of_kernel(dev, s, seconds), learn(dev, s->work, seconds);
    dev->last_done_at = done_at;
    s->state = VK_IDLE;
}

static struct vk_submission *oldest_in_flight(struct vk_device *dev)
{
    struct vk_submission *oldest = NULL;
    for (int i = 0; i < VK_RING; i++)
        if (dev->ring[i].state == VK_IN_FLIGHT && (!oldest || dev->ring[i].number < oldest->number))
            oldest = &dev->ring[i];
    return oldest;
}

static enum rt_status wait_for(struct vk_device *dev, struct vk_submission *s, struct rt_error *err)
{
    VkResult r;
    uint32_t event = rt_trace_add(dev->base.trace, RT_EVENT_WAIT, "wait for the device", 0);
    do
        r = dev->fn.vkWaitForFences(dev->handle, 1, &s->fence, VK_TRUE, UINT64_MAX);
    while (r == VK_TIMEOUT);
    rt_trace_close(dev->base.trace, event);
    if (r != VK_SUCCESS)
        return vk_fail(dev, r, "vkWaitForFences", err);
    collect(dev, s);
    return RT_OK;
}

/* Takes note of what is done by now, without waiting. */
static void poll(struct vk_device *dev)
{
    struct vk_submission *s;
    while ((s = oldest_in_flight(dev)) != NULL && dev->fn.vkGetFenceStatus(dev->handle, s->fence) == VK_SUCCESS)
        collect(dev, s);
}

enum rt_status vk_record_wait(struct vk_device *dev, uint64_t number, struct rt_error *err)
{
    if (dev->lost)
        return vk_fail(dev, VK_ERROR_DEVICE_LOST, "waiting", err);
    const struct vk_submission *current = &dev->ring[dev->current];
    if (current->state == VK_RECORDING && current->number <= number) {
        enum rt_status st = vk_record_submit(dev, err);
        if (st)
            return st;
    }
    struct vk_submission *s;
    while ((s = oldest_in_flight(dev)) != NULL && s->number <= number) {
        enum rt_status st = wait_for(dev, s, err);
        if (st)
            return st;
    }
    return RT_OK;
}

bool vk_record_idle(struct vk_device *dev)
{
    poll(dev);
    return dev->ring[dev->current].state != VK_RECORDING && !oldest_in_flight(dev);
}

/* ---- recording ---- */

static void add_label(struct vk_submission *s, const char *label)
{
    if (!label)
        return;
    unsigned i = s->n_labels < VK_MAX_LABELS ? s->n_labels++ : VK_MAX_LABELS - 1; /* the last one always stands there */
    s->labels[i] = label;
}

static enum rt_status begin(struct vk_device *dev, struct vk_submission *s, struct rt_error *err)
{
    VK_TRY(dev, dev->fn.vkResetFences(dev->handle, 1, &s->fence), err);
    VK_TRY(dev, dev->fn.vkResetCommandPool(dev->handle, s->pool, 0), err);
    for (unsigned i = 0; i < s->n_sets; i++)
        VK_TRY(dev, dev->fn.vkResetDescriptorPool(dev->handle, s->sets[i], 0), err);
    VkCommandBufferBeginInfo info = {.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO,
                                     .flags = vk_counters_counting(dev) ? 0 : VK_COMMAND_BUFFER_USAGE_ONE_TIME_SUBMIT_BIT};
    VK_TRY(dev, dev->fn.vkBeginCommandBuffer(s->cmd, &info), err);
    s->counted = vk_counters_counting(dev);
    if (s->counted) {
        vk_counters_record(dev, s, true);
    } else if (s->queries) {
        dev->fn.vkCmdResetQueryPool(s->cmd, s->queries, 0, 2);
        /* At the bottom of the pipe, so that the clock starts when the submission before this one has ended. */
        dev->fn.vkCmdWriteTimestamp(s->cmd, VK_PIPELINE_STAGE_BOTTOM_OF_PIPE_BIT, s->queries, 0);
    }
    vk_profile_begin(dev, s);
    s->state = VK_RECORDING;
    s->number = ++dev->begun;
    s->work = s->heaviest_part = 0;
    s->heaviest = NULL;
    s->dispatches = s->sets_used = s->n_labels = 0;
    add_label(s, dev->label);
    vk_labels_open(dev, s);
    return RT_OK;
}

enum rt_status vk_record_begin(struct vk_device *dev, double work, VkCommandBuffer *out, struct rt_error *err)
{
    if (dev->lost)
        return vk_fail(dev, VK_ERROR_DEVICE_LOST, "recording", err);
    if (dev->compile_only)
        return rt_fail(err, RT_FAILED, "%s was opened to compile only, so nothing can run on it", dev->base.info.name);
    struct vk_submission *s = &dev->ring[dev->current];
    bool full = s->state == VK_RECORDING && vk_profile_full(dev, s);
    if (full || (s->state == VK_RECORDING && !s->counted && s->work > 0 && estimate(dev, s, work) > dev->budget)) {
        enum rt_status st = vk_record_submit(dev, err);
        if (st)
            return st;
        s = &dev->ring[dev->current];
    }
    if (s->state == VK_IN_FLIGHT) { /* the ring is full: this is the oldest */
        enum rt_status st = wait_for(dev, s, err);
        if (st)
            return st;
    }
    if (s->state == VK_IDLE) {
        enum rt_status st = begin(dev, s, err);
        if (st)
            return st;
    }
    s->work += work;
    dev->segment_work += work;
    *out = s->cmd;
    return RT_OK;
}

enum rt_status vk_record_submit(struct vk_device *dev, struct rt_error *err)
{
    struct vk_submission *s = &dev->ring[dev->current];
    if (dev->lost)
        return vk_fail(dev, VK_ERROR_DEVICE_LOST, "submitting", err);
    if (s->state != VK_RECORDING)
        return RT_OK;
    vk_labels_close(dev, s);
    if (s->counted)
        vk_counters_record(dev, s, false);
    else if (s->queries)
        dev->fn.vkCmdWriteTimestamp(s->cmd, VK_PIPELINE_STAGE_BOTTOM_OF_PIPE_BIT, s->queries, 1);
    VK_TRY(dev, dev->fn.vkEndCommandBuffer(s->cmd), err);
    VkSubmitInfo info = {.sType = VK_STRUCTURE_TYPE_SUBMIT_INFO, .commandBufferCount = 1, .pCommandBuffers = &s->cmd};
    s->state = VK_IN_FLIGHT; /* before the call: it may be the one that loses the device */
    s->submitted_at = now();
    vk_profile_submitted(dev, s);
    dev->current = (dev->current + 1) % VK_RING;
    dev->statistics.submissions++;
    VkPerformanceQuerySubmitInfoKHR pass = {.sType = VK_STRUCTURE_TYPE_PERFORMANCE_QUERY_SUBMIT_INFO_KHR};
    if (s->counted) {
        enum rt_status st = vk_counters_passes(dev, s, &pass.counterPassIndex, err);
        if (st) {
            s->state = VK_IDLE; /* its last pass will not come */
            return st;
        }
        info.pNext = &pass;
    }
    vk_label_submission(dev, s, true);
    VkResult r = dev->statistics.submissions == dev->fault_at ? VK_ERROR_DEVICE_LOST
                                                              : dev->fn.vkQueueSubmit(dev->queue, 1, &info, s->fence);
    vk_label_submission(dev, s, false);
    if (r != VK_SUCCESS)
        return vk_fail(dev, r, "vkQueueSubmit", err);
    poll(dev);
    return RT_OK;
}

enum rt_status vk_segment(struct rt_device *base, const char *label, struct rt_error *err)
{
    struct vk_device *dev = vk_of(base);
    struct vk_submission *s = &dev->ring[dev->current];
    double ended = dev->segment_work;
    dev->segment_work = 0;
    dev->label = label;
    if (s->state != VK_RECORDING || s->counted)
        return RT_OK;
    poll(dev);
    /* The next segment is taken to be like the one that ended. A device that has nothing to do gets what there is. */
    bool full = estimate(dev, s, ended) > dev->budget;
    bool starving = !oldest_in_flight(dev) && estimate(dev, s, 0) > dev->budget / 20;
    if (full || starving)
        return vk_record_submit(dev, err);
    add_label(s, label);
    return RT_OK;
}

enum rt_status vk_finish(struct rt_device *base, struct rt_error *err)
{
    return vk_record_wait(vk_of(base), UINT64_MAX, err);
}
