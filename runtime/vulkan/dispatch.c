/* runtime/vulkan/dispatch.c - one kernel into the command buffer: barrier, descriptors, push constants, dispatch. */
#include "runtime/vulkan/vk.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>

/* ---- barriers ---- */

static VkPipelineStageFlags stages_of(unsigned stages)
{
    return (stages & HAZARD_COMPUTE ? VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT : 0) |
           (stages & HAZARD_TRANSFER ? VK_PIPELINE_STAGE_TRANSFER_BIT : 0);
}

void vk_barrier_for(struct vk_device *dev, VkCommandBuffer cmd, enum hazard_stage stage, const struct hazard_access *accesses,
                    unsigned n)
{
    struct hazard_barrier b;
    if (!hazard_command(&dev->hazard, stage, accesses, n, &b))
        return;
    /* Everything after waits, not the next command alone: so the tracker may forget all that came before. */
    VkMemoryBarrier barrier = {
        .sType = VK_STRUCTURE_TYPE_MEMORY_BARRIER,
        .srcAccessMask = (b.src_write_stages & HAZARD_COMPUTE ? VK_ACCESS_SHADER_WRITE_BIT : 0) |
                         (b.src_write_stages & HAZARD_TRANSFER ? VK_ACCESS_TRANSFER_WRITE_BIT : 0),
        .dstAccessMask = VK_ACCESS_SHADER_READ_BIT | VK_ACCESS_SHADER_WRITE_BIT | VK_ACCESS_TRANSFER_READ_BIT |
                         VK_ACCESS_TRANSFER_WRITE_BIT,
    };
    dev->fn.vkCmdPipelineBarrier(cmd, stages_of(b.src_stages), VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT | VK_PIPELINE_STAGE_TRANSFER_BIT,
                                 0, 1, &barrier, 0, NULL, 0, NULL);
    dev->statistics.barriers++;
}

/* ---- descriptors ---- */

#define SETS_PER_POOL 256u

/* A set from the submission's pools, where they are reset as one when it is recorded anew. */
static enum rt_status take_set(struct vk_device *dev, uint32_t n_bindings, VkDescriptorSet *out, struct rt_error *err)
{
    struct vk_submission *s = &dev->ring[dev->current];
    unsigned pool = s->sets_used / SETS_PER_POOL;
    if (pool == s->n_sets) {
        VkDescriptorPool *grown = realloc(s->sets, (pool + 1) * sizeof *grown);
        if (!grown)
            return rt_fail(err, RT_NO_MEMORY, "no memory for descriptor pools");
        s->sets = grown;
        VkDescriptorPoolSize size = {VK_DESCRIPTOR_TYPE_STORAGE_BUFFER, SETS_PER_POOL * RT_MAX_BINDINGS};
        VkDescriptorPoolCreateInfo info = {.sType = VK_STRUCTURE_TYPE_DESCRIPTOR_POOL_CREATE_INFO, .maxSets = SETS_PER_POOL,
                                           .poolSizeCount = 1, .pPoolSizes = &size};
        VK_TRY(dev, dev->fn.vkCreateDescriptorPool(dev->handle, &info, NULL, &s->sets[pool]), err);
        s->n_sets++;
    }
    VkDescriptorSetAllocateInfo info = {VK_STRUCTURE_TYPE_DESCRIPTOR_SET_ALLOCATE_INFO, NULL, s->sets[pool], 1,
                                        &dev->set_layouts[n_bindings]};
    VK_TRY(dev, dev->fn.vkAllocateDescriptorSets(dev->handle, &info, out), err);
    s->sets_used++;
    return RT_OK;
}

static enum rt_status bind(struct vk_device *dev, VkCommandBuffer cmd, const struct vk_kernel *k, const struct rt_span *spans,
                           struct rt_error *err)
{
    uint32_t n = k->desc->n_bindings;
    VkDescriptorBufferInfo buffers[RT_MAX_BINDINGS];
    VkWriteDescriptorSet writes[RT_MAX_BINDINGS];
    VkDescriptorSet set = VK_NULL_HANDLE;
    bool push = dev->base.info.caps & RT_CAP_PUSH_DESCRIPTOR;
    if (!push && n) {
        enum rt_status st = take_set(dev, n, &set, err);
        if (st)
            return st;
    }
    for (uint32_t i = 0; i < n; i++) {
        /* Kernels read 32-bit words; the buffer reaches to the end of the last one. */
        uint64_t words = (spans[i].size + 3) & ~(uint64_t)3;
        buffers[i] = (VkDescriptorBufferInfo){vk_buffer_of(spans[i].buffer)->handle, spans[i].offset,
                                              words <= dev->base.info.limits.max_range ? words : spans[i].size};
        writes[i] = (VkWriteDescriptorSet){.sType = VK_STRUCTURE_TYPE_WRITE_DESCRIPTOR_SET, .dstSet = set, .dstBinding = i,
                                           .descriptorCount = 1, .descriptorType = VK_DESCRIPTOR_TYPE_STORAGE_BUFFER,
                                           .pBufferInfo = &buffers[i]};
    }
    if (n && push) {
        dev->fn.vkCmdPushDescriptorSetKHR(cmd, VK_PIPELINE_BIND_POINT_COMPUTE, k->layout, 0, n, writes);
    } else if (n) {
        dev->fn.vkUpdateDescriptorSets(dev->handle, n, writes, 0, NULL);
        dev->fn.vkCmdBindDescriptorSets(cmd, VK_PIPELINE_BIND_POINT_COMPUTE, k->layout, 0, 1, &set, 0, NULL);
    }
    return RT_OK;
}

/* ---- dispatch ---- */

static unsigned accesses_of(const struct rt_kernel *desc, const struct rt_span *spans, struct hazard_access *out)
{
    for (uint32_t i = 0; i < desc->n_bindings; i++)
        out[i] = (struct hazard_access){spans[i].buffer, spans[i].offset, spans[i].offset + spans[i].size,
                                        (desc->bindings[i].access & RT_WRITE) != 0};
    return desc->n_bindings;
}

static double work_of(const struct rt_kernel *desc, const struct rt_span *spans, double flops)
{
    double work = flops > 0 ? flops : 0;
    for (uint32_t i = 0; i < desc->n_bindings; i++)
        work += VK_WORK_PER_BYTE * (double)spans[i].size;
    return work;
}

static double bytes_bound(const struct rt_kernel *desc, const struct rt_span *spans)
{
    double bytes = 0;
    for (uint32_t i = 0; i < desc->n_bindings; i++)
        bytes += (double)spans[i].size;
    return bytes;
}

/* A part of a grid: groups [base, base + count). */
struct part {
    uint32_t base[3], count[3];
};

static void record(struct vk_device *dev, VkCommandBuffer cmd, const struct vk_kernel *k, const struct rt_span *spans, const void *push,
                   const struct part *part)
{
    vk_label_command(dev, cmd, k->desc->name);
    vk_label_bindings(dev, cmd, k->desc, spans);
    uint32_t slot = dev->profile ? vk_profile_open(dev, cmd, RT_EVENT_WORK, k->desc->name, bytes_bound(k->desc, spans), part->count) : VK_NO_SLOT;
    dev->fn.vkCmdBindPipeline(cmd, VK_PIPELINE_BIND_POINT_COMPUTE, k->pipeline);
    if (k->desc->push_size)
        dev->fn.vkCmdPushConstants(cmd, k->layout, VK_SHADER_STAGE_COMPUTE_BIT, 0, k->desc->push_size, push);
    if (k->divided)
        dev->fn.vkCmdDispatchBase(cmd, part->base[0], part->base[1], part->base[2], part->count[0], part->count[1], part->count[2]);
    else
        dev->fn.vkCmdDispatch(cmd, part->count[0], part->count[1], part->count[2]);
    vk_profile_close(dev, cmd, slot);
    vk_label_command(dev, cmd, NULL);
    dev->ring[dev->current].dispatches++;
    dev->statistics.dispatches++;
}

/* How many times slower than the device's rate the kernel is known to be; 1: not slower, or not known. */
static double slower(const struct vk_device *dev, const struct vk_kernel *k)
{
    return k->rate > 0 && k->rate < dev->rate ? dev->rate / k->rate : 1;
}

/* Into how many parts a grid is cut, along the dimension *d: so many that each fits the budget at the rate that is known. */
static uint32_t parts_of(const struct vk_device *dev, const struct vk_kernel *k, const uint32_t groups[3], double work, int *d)
{
    *d = groups[1] > groups[0] ? 1 : 0;
    *d = groups[2] > groups[*d] ? 2 : *d;
    double parts = ceil(work * slower(dev, k) / (dev->rate * dev->budget));
    if (!k->divided || !(parts > 1) || vk_counters_counting(dev))
        return 1;
    return parts < groups[*d] ? (uint32_t)parts : groups[*d];
}

static enum rt_status dispatch_part(struct vk_device *dev, struct vk_kernel *k, const struct rt_span *spans, const void *push,
                                    const struct part *part, double work, bool barrier, struct rt_error *err)
{
    VkCommandBuffer cmd;
    RT_TRY(vk_record_begin(dev, work * slower(dev, k), &cmd, err));
    struct vk_submission *s = &dev->ring[dev->current];
    if (work * slower(dev, k) > s->heaviest_part) {
        s->heaviest = k;
        s->heaviest_work = work;
        s->heaviest_part = work * slower(dev, k);
    }
    /* Descriptors first: they can fail, and what the tracker has entered cannot be taken back. */
    RT_TRY(bind(dev, cmd, k, spans, err));
    if (barrier) { /* the parts of one dispatch need none between them */
        struct hazard_access accesses[RT_MAX_BINDINGS];
        unsigned n = accesses_of(k->desc, spans, accesses);
        vk_barrier_for(dev, cmd, HAZARD_COMPUTE, accesses, n);
    }
    record(dev, cmd, k, spans, push, part);
    return RT_OK;
}

enum rt_status vk_dispatch(struct rt_device *base, const struct rt_kernel *desc, const struct rt_span *spans, const void *push,
                           const uint32_t groups[3], double flops, struct rt_error *err)
{
    struct vk_device *dev = vk_of(base);
    struct vk_kernel *k = vk_kernel_find(dev, desc);
    if (!k)
        return rt_fail(err, RT_NO_MEMORY, "no memory for kernel %s", desc->name);
    RT_TRY(vk_kernel_ready(dev, k, err));
    double work = work_of(desc, spans, flops);
    int d;
    uint32_t parts = parts_of(dev, k, groups, work, &d);
    dev->statistics.parts_added += parts - 1;
    struct part part = {.count = {groups[0], groups[1], groups[2]}};
    for (uint32_t i = 0; i < parts; i++) {
        part.base[d] = (uint32_t)((uint64_t)groups[d] * i / parts);
        part.count[d] = (uint32_t)((uint64_t)groups[d] * (i + 1) / parts) - part.base[d];
        RT_TRY(dispatch_part(dev, k, spans, push, &part, work / parts, i == 0, err));
    }
    if (!dev->serialize && !vk_profile_alone(dev))
        return RT_OK;
    struct vk_submission *s = &dev->ring[dev->current];
    s->labels[0] = desc->name; /* alone in its submission: what a lost device is blamed on */
    s->n_labels = 1;
    enum rt_status st = vk_finish(base, err);
    if (st == RT_OK && vk_profile_alone(dev))
        vk_profile_timed(dev, s);
    return st;
}
