/* runtime/vulkan/profile.c - device times of kernels and transfers, for a trace: see runtime/trace.h.
 *
 * Each submission has a pool of timestamps, two for each command that is timed: at the top of the pipe before it, at the bottom behind it.
 * A command behind a barrier cannot have begun before all that came before it ended, so its begin is moved there: the timestamp at the top may be
 * taken while the device still waits. In serial mode every timed command stands behind such a barrier.
 * On a processor's driver each timestamp is a wait of its own for all threads, and nothing runs at a barrier: there a command behind a barrier takes the
 * end of the one before it for its begin, and has one timestamp. */
#include "runtime/vulkan/vk.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define SLOTS 1024u /* timed commands of a submission: there it is cut */

#define BEFORE UINT32_MAX /* for a query: the begin is the end of the command before */

struct vk_slot {
    uint32_t event;
    uint32_t begin, end; /* queries */
    bool behind_barrier;
};

struct vk_slots { /* of one submission */
    VkQueryPool queries;
    uint32_t n, n_queries;
    struct vk_slot slot[SLOTS];
};

struct vk_profile {
    bool serial;
    bool joined;              /* one timestamp between two commands with a barrier between them */
    bool host_timed;          /* the queue has no timestamps: one kernel a submission */
    bool calibrated;
    uint64_t mask, reference; /* of the timestamps; the last one seen, unwrapped */
    bool referenced;
    double latest_end;        /* device seconds: of all commands so far */
    double low, high;         /* bounds of what is added to device seconds to get rt_clock's; not calibrated */
    double shift;             /* calibrated */
    uint64_t barriers;        /* statistics.barriers when the last command was timed */
    struct vk_slots slots[VK_RING];
    char clock_text[64];
};

static struct vk_slots *slots_of(struct vk_device *dev, const struct vk_submission *s) { return &dev->profile->slots[s - dev->ring]; }

/* ---- the two clocks ---- */

/* Ticks as seconds that do not wrap. A timestamp may lie a little before the one that was seen last. */
static double seconds_of(struct vk_device *dev, uint64_t ticks)
{
    struct vk_profile *p = dev->profile;
    uint64_t ahead = (ticks - p->reference) & p->mask;
    if (!p->referenced) {
        p->reference = ticks & p->mask;
        p->referenced = true;
    } else if (ahead <= p->mask / 2) {
        p->reference += ahead;
    } else {
        return (double)(p->reference - ((p->reference - ticks) & p->mask)) * dev->physical.timestamp_period;
    }
    return (double)p->reference * dev->physical.timestamp_period;
}

static bool can_calibrate(struct vk_device *dev)
{
    PFN_vkGetPhysicalDeviceCalibrateableTimeDomainsEXT domains = (PFN_vkGetPhysicalDeviceCalibrateableTimeDomainsEXT)vkGetInstanceProcAddr(
        dev->instance.handle, "vkGetPhysicalDeviceCalibrateableTimeDomainsEXT");
    VkTimeDomainEXT list[16];
    uint32_t n = 16, found = 0;
    if (!dev->physical.calibrated || !domains || !dev->fn.vkGetCalibratedTimestampsEXT || domains(dev->physical.handle, &n, list) < 0)
        return false;
    for (uint32_t i = 0; i < n; i++)
        found |= list[i] == VK_TIME_DOMAIN_DEVICE_EXT ? 1 : list[i] == VK_TIME_DOMAIN_CLOCK_MONOTONIC_EXT ? 2 : 0;
    return found == 3;
}

static void calibrate(struct vk_device *dev)
{
    const VkCalibratedTimestampInfoEXT info[2] = {
        {VK_STRUCTURE_TYPE_CALIBRATED_TIMESTAMP_INFO_EXT, NULL, VK_TIME_DOMAIN_DEVICE_EXT},
        {VK_STRUCTURE_TYPE_CALIBRATED_TIMESTAMP_INFO_EXT, NULL, VK_TIME_DOMAIN_CLOCK_MONOTONIC_EXT},
    };
    uint64_t stamps[2], deviation;
    if (dev->fn.vkGetCalibratedTimestampsEXT(dev->handle, 2, info, stamps, &deviation) == VK_SUCCESS)
        dev->profile->shift = (double)stamps[1] * 1e-9 - seconds_of(dev, stamps[0]);
}

double vk_trace_shift(struct rt_device *base)
{
    struct vk_device *dev = vk_of(base);
    struct vk_profile *p = dev->profile;
    double none = rt_trace_origin(base->trace); /* for events that the program has timed itself */
    if (p->calibrated)
        calibrate(dev);
    return p->host_timed ? none : p->calibrated ? p->shift : isfinite(p->low) ? p->low + (p->high - p->low) / 2 : none;
}

const char *vk_trace_clock(const struct rt_device *base)
{
    struct vk_profile *p = ((const struct vk_device *)base)->profile;
    if (!p || p->calibrated || p->host_timed)
        return p && p->host_timed ? "one kernel a submission" : "calibrated";
    snprintf(p->clock_text, sizeof p->clock_text, "bounds of %.0f us", isfinite(p->low) ? 1e6 * (p->high - p->low) : 0.0);
    return p->clock_text;
}

/* A submission runs after it was submitted, and before it was seen to be done: two bounds. Clocks drift apart by some parts in a million,
 * so bounds that have come to contradict each other start anew. */
static void narrow(struct vk_profile *p, double first, double last, double submitted_at, double done_at)
{
    double low = submitted_at - first, high = done_at - last;
    if (!isfinite(p->low) || low > p->high || high < p->low) {
        p->low = low;
        p->high = high;
        return;
    }
    p->low = low > p->low ? low : p->low;
    p->high = high < p->high ? high : p->high;
}

/* ---- recording ---- */

void vk_profile_begin(struct vk_device *dev, struct vk_submission *s)
{
    if (!dev->profile || dev->profile->host_timed)
        return;
    struct vk_slots *slots = slots_of(dev, s);
    slots->n = slots->n_queries = 0;
    dev->fn.vkCmdResetQueryPool(s->cmd, slots->queries, 0, 2 * SLOTS);
}

bool vk_profile_full(struct vk_device *dev, const struct vk_submission *s)
{
    return dev->profile && slots_of(dev, s)->n == SLOTS;
}

uint32_t vk_profile_open(struct vk_device *dev, VkCommandBuffer cmd, enum rt_event_kind kind, const char *name, double bytes,
                         const uint32_t *groups)
{
    struct vk_profile *p = dev->profile;
    const struct vk_submission *s = &dev->ring[dev->current];
    uint32_t event = p ? rt_trace_add(dev->base.trace, kind, name, bytes) : RT_NO_EVENT;
    if (event == RT_NO_EVENT)
        return VK_NO_SLOT;
    struct rt_event *e = rt_trace_event(dev->base.trace, event);
    e->submission = s->number;
    for (int i = 0; groups && i < 3; i++)
        e->groups[i] = groups[i];
    struct vk_slots *slots = slots_of(dev, s);
    if (p->host_timed || slots->n == SLOTS) {
        slots->slot[0].event = event; /* what vk_profile_alone completes */
        return VK_NO_SLOT;
    }
    uint32_t slot = slots->n++;
    bool barrier = p->serial || dev->statistics.barriers != p->barriers;
    p->barriers = dev->statistics.barriers;
    bool joined = p->joined && barrier && slot > 0;
    slots->slot[slot] = (struct vk_slot){event, joined ? BEFORE : slots->n_queries++, 0, barrier};
    if (p->serial) {
        const VkPipelineStageFlags all = VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT | VK_PIPELINE_STAGE_TRANSFER_BIT;
        dev->fn.vkCmdPipelineBarrier(cmd, all, all, 0, 0, NULL, 0, NULL, 0, NULL);
    }
    if (!joined)
        dev->fn.vkCmdWriteTimestamp(cmd, p->serial ? VK_PIPELINE_STAGE_BOTTOM_OF_PIPE_BIT : VK_PIPELINE_STAGE_TOP_OF_PIPE_BIT, slots->queries,
                                    slots->slot[slot].begin);
    return slot;
}

void vk_profile_close(struct vk_device *dev, VkCommandBuffer cmd, uint32_t slot)
{
    if (slot == VK_NO_SLOT)
        return;
    struct vk_slots *slots = slots_of(dev, &dev->ring[dev->current]);
    slots->slot[slot].end = slots->n_queries++;
    dev->fn.vkCmdWriteTimestamp(cmd, VK_PIPELINE_STAGE_BOTTOM_OF_PIPE_BIT, slots->queries, slots->slot[slot].end);
}

bool vk_profile_alone(const struct vk_device *dev) { return dev->profile && dev->profile->host_timed; }

void vk_profile_timed(struct vk_device *dev, const struct vk_submission *s)
{
    struct rt_event *e = rt_trace_event(dev->base.trace, slots_of(dev, s)->slot[0].event);
    e->begin = s->submitted_at - rt_trace_origin(dev->base.trace);
    e->end = dev->last_done_at - rt_trace_origin(dev->base.trace);
}

/* ---- results ---- */

void vk_profile_submitted(struct vk_device *dev, struct vk_submission *s)
{
    s->event = rt_trace_add(dev->base.trace, RT_EVENT_SUBMISSION, s->n_labels ? s->labels[0] : "work without a label", 0);
    if (s->event != RT_NO_EVENT)
        rt_trace_event(dev->base.trace, s->event)->submission = s->number;
}

static void read_slots(struct vk_device *dev, struct vk_submission *s, double done_at)
{
    struct vk_profile *p = dev->profile;
    struct vk_slots *slots = slots_of(dev, s);
    static uint64_t ticks[2 * SLOTS]; /* one thread at a time uses devices; a stack is no place for 16 KiB everywhere */
    if (!slots->n || dev->fn.vkGetQueryPoolResults(dev->handle, slots->queries, 0, slots->n_queries, slots->n_queries * sizeof *ticks, ticks,
                                                   sizeof *ticks, VK_QUERY_RESULT_64_BIT) != VK_SUCCESS)
        return; /* the events stay without times */
    double first = INFINITY, before = 0;
    for (uint32_t i = 0; i < slots->n; i++) {
        struct rt_event *e = rt_trace_event(dev->base.trace, slots->slot[i].event);
        e->begin = slots->slot[i].begin == BEFORE ? before : seconds_of(dev, ticks[slots->slot[i].begin]);
        before = e->end = seconds_of(dev, ticks[slots->slot[i].end]);
        if (slots->slot[i].behind_barrier && e->begin < p->latest_end)
            e->begin = p->latest_end < e->end ? p->latest_end : e->end;
        p->latest_end = e->end > p->latest_end ? e->end : p->latest_end;
        first = e->begin < first ? e->begin : first;
    }
    narrow(p, first, p->latest_end, s->submitted_at, done_at);
    slots->n = 0;
}

void vk_profile_collect(struct vk_device *dev, struct vk_submission *s, double done_at)
{
    if (!dev->profile)
        return;
    if (s->event != RT_NO_EVENT)
        rt_trace_event(dev->base.trace, s->event)->end = done_at - rt_trace_origin(dev->base.trace);
    s->event = RT_NO_EVENT;
    if (!dev->profile->host_timed)
        read_slots(dev, s, done_at);
}

/* ---- beginning and end ---- */

enum rt_status vk_trace_begin(struct rt_device *base, bool serial, struct rt_error *err)
{
    struct vk_device *dev = vk_of(base);
    struct vk_profile *p = calloc(1, sizeof *p);
    if (!p)
        return rt_fail(err, RT_NO_MEMORY, "no memory to trace with");
    uint32_t bits = dev->physical.timestamp_bits;
    *p = (struct vk_profile){.serial = serial, .joined = base->info.class_ == RT_CLASS_CPU && dev->physical.clamp.joined, .host_timed = bits == 0, .mask = bits >= 64 ? UINT64_MAX : (1ull << bits) - 1,
                             .latest_end = -INFINITY, .low = -INFINITY, .high = INFINITY};
    dev->profile = p;
    for (int i = 0; i < VK_RING; i++) {
        dev->ring[i].event = RT_NO_EVENT;
        if (p->host_timed)
            continue;
        VkQueryPoolCreateInfo info = {.sType = VK_STRUCTURE_TYPE_QUERY_POOL_CREATE_INFO, .queryType = VK_QUERY_TYPE_TIMESTAMP,
                                      .queryCount = 2 * SLOTS};
        VkResult r = dev->fn.vkCreateQueryPool(dev->handle, &info, NULL, &p->slots[i].queries);
        if (r != VK_SUCCESS) {
            p->slots[i].queries = VK_NULL_HANDLE;
            vk_trace_end(base);
            return vk_fail(dev, r, "vkCreateQueryPool", err);
        }
    }
    p->calibrated = !p->host_timed && can_calibrate(dev);
    return RT_OK;
}

void vk_trace_end(struct rt_device *base)
{
    struct vk_device *dev = vk_of(base);
    for (int i = 0; dev->profile && i < VK_RING; i++)
        dev->fn.vkDestroyQueryPool(dev->handle, dev->profile->slots[i].queries, NULL);
    free(dev->profile);
    dev->profile = NULL;
}
