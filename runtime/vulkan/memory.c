/* runtime/vulkan/memory.c - buffers with memory of their own.
 *
 * A run has a handful of buffers (arenas), so each has one allocation. Types are tried from best to worst (heaps.c) until one gives the
 * memory: a small heap may be full, and drivers' accounts may be wrong. */
#include "runtime/vulkan/heaps.h"
#include "runtime/vulkan/vk.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* ---- how much there is ---- */

static uint64_t host_memory(void)
{
    long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
    return pages > 0 && page > 0 ? (uint64_t)pages * (uint64_t)page : UINT64_MAX;
}

/* The driver's account as it is now. */
static struct heap_view view_of(const struct vk_instance *instance, const struct vk_physical *physical)
{
    struct heap_view v = {.memory = &physical->memory, .unified = physical->unified, .map = physical->clamp.mapped, .host_memory = host_memory()};
    if (!(physical->info.caps & RT_CAP_MEMORY_BUDGET) || heap_available(&v) == 0) /* RADV without hardware crashes on the question */
        return v;
    VkPhysicalDeviceMemoryBudgetPropertiesEXT budget = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MEMORY_BUDGET_PROPERTIES_EXT};
    VkPhysicalDeviceMemoryProperties2 memory = {VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MEMORY_PROPERTIES_2, &budget, {0}};
    instance->memory(physical->handle, &memory);
    for (uint32_t i = 0; i < physical->memory.memoryHeapCount; i++)
        if (budget.heapBudget[i]) /* 1: nothing is left */
            v.left[i] = budget.heapBudget[i] > budget.heapUsage[i] ? budget.heapBudget[i] - budget.heapUsage[i] : 1;
    return v;
}

uint64_t vk_memory_available(const struct vk_instance *instance, const struct vk_physical *physical)
{
    struct heap_view v = view_of(instance, physical);
    return heap_available(&v);
}

uint64_t vk_reserve(const struct rt_device *base)
{
    const struct vk_device *dev = (const struct vk_device *)base;
    struct heap_view v = view_of(&dev->instance, &dev->physical);
    uint32_t types[VK_MAX_MEMORY_TYPES];
    unsigned n = heap_rank(&v, UINT32_MAX, HEAP_DEVICE, 0, types);
    VkMemoryPropertyFlags f = n ? v.memory->memoryTypes[types[0]].propertyFlags : 0;
    /* Memory that is mapped and cached is written and read in place: there is nothing for staging to do. */
    return n && v.unified && heap_maps(&v, types[0]) && (f & VK_MEMORY_PROPERTY_HOST_CACHED_BIT) ? 0 : VK_STAGING_BYTES;
}

/* ---- buffers ---- */

static enum rt_status no_memory(struct vk_device *dev, uint64_t size, const char *label, struct rt_error *err)
{
    return rt_fail(err, RT_NO_MEMORY, "%s did not give %.1f MiB for %s (it had %.1f MiB when it was opened; %.1f MiB are the most in one "
                   "allocation): use a smaller batch or length, or close other programs that use the device", dev->base.info.name,
                   (double)size / (1 << 20), label, (double)dev->base.info.limits.memory / (1 << 20),
                   (double)dev->base.info.limits.max_allocation / (1 << 20));
}

/* Tries the types in turn. */
static VkResult take_memory(struct vk_device *dev, const struct heap_view *v, const VkMemoryRequirements *needs, enum heap_use use,
                            VkDeviceMemory *memory, uint32_t *type)
{
    uint32_t types[VK_MAX_MEMORY_TYPES];
    VkResult r = VK_ERROR_OUT_OF_DEVICE_MEMORY;
    if (rt_allocation_fails(&dev->base))
        return r;
    unsigned n = heap_rank(v, needs->memoryTypeBits, use, needs->size, types);
    for (unsigned i = 0; i < n && r != VK_SUCCESS; i++) {
        VkMemoryAllocateInfo info = {VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_INFO, NULL, needs->size, types[i]};
        r = dev->fn.vkAllocateMemory(dev->handle, &info, NULL, memory);
        *type = types[i];
    }
    return r;
}

static enum rt_status allocate(struct vk_device *dev, struct vk_buffer *b, enum heap_use use, const char *label,
                               struct rt_error *err)
{
    VkMemoryRequirements needs;
    struct heap_view view = view_of(&dev->instance, &dev->physical);
    uint32_t type = 0;
    dev->fn.vkGetBufferMemoryRequirements(dev->handle, b->handle, &needs);
    VkResult r = take_memory(dev, &view, &needs, use, &b->memory, &type);
    if (r == VK_ERROR_OUT_OF_DEVICE_MEMORY || r == VK_ERROR_OUT_OF_HOST_MEMORY || r == VK_ERROR_TOO_MANY_OBJECTS)
        return no_memory(dev, needs.size, label, err);
    if (r != VK_SUCCESS)
        return vk_fail(dev, r, "vkAllocateMemory", err);
    VkMemoryPropertyFlags flags = view.memory->memoryTypes[type].propertyFlags;
    b->size = needs.size;
    rt_allocated(&dev->base, (int64_t)b->size);
    /* Device memory behind a window is written in place, yet read through staging: reads across the bus take one at a time. */
    b->cached = (flags & VK_MEMORY_PROPERTY_HOST_CACHED_BIT) != 0;
    b->readable = use == HEAP_STAGING || view.unified;
    b->coherent = (flags & VK_MEMORY_PROPERTY_HOST_COHERENT_BIT) != 0;
    VK_TRY(dev, dev->fn.vkBindBufferMemory(dev->handle, b->handle, b->memory, 0), err);
    void *mapped = NULL;
    if (use == HEAP_STAGING || heap_maps(&view, type))
        VK_TRY(dev, dev->fn.vkMapMemory(dev->handle, b->memory, 0, VK_WHOLE_SIZE, 0, &mapped), err);
    b->mapped = mapped;
    return RT_OK;
}

static enum rt_status create(struct vk_device *dev, uint64_t size, enum heap_use use, const char *label, struct vk_buffer **out,
                             struct rt_error *err)
{
    *out = NULL;
    if (dev->lost)
        return vk_fail(dev, VK_ERROR_DEVICE_LOST, label, err);
    struct vk_buffer *b = calloc(1, sizeof *b);
    if (!b)
        return rt_fail(err, RT_NO_MEMORY, "no memory for a buffer (%s)", label);
    b->base = (struct rt_buffer){.dev = &dev->base, .size = size};
    VkBufferCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_BUFFER_CREATE_INFO, .size = size, .sharingMode = VK_SHARING_MODE_EXCLUSIVE,
        .usage = VK_BUFFER_USAGE_TRANSFER_SRC_BIT | VK_BUFFER_USAGE_TRANSFER_DST_BIT |
                 (use == HEAP_DEVICE ? VK_BUFFER_USAGE_STORAGE_BUFFER_BIT : 0),
    };
    enum rt_status st;
    VkResult r = dev->fn.vkCreateBuffer(dev->handle, &info, NULL, &b->handle);
    if (r == VK_ERROR_OUT_OF_DEVICE_MEMORY || r == VK_ERROR_OUT_OF_HOST_MEMORY)
        st = no_memory(dev, size, label, err);
    else
        st = r == VK_SUCCESS ? allocate(dev, b, use, label, err) : vk_fail(dev, r, "vkCreateBuffer", err);
    if (st) {
        vk_buffer_destroy(&b->base);
        return st;
    }
    vk_name(dev, VK_OBJECT_TYPE_BUFFER, (uint64_t)(uintptr_t)b->handle, label);
    *out = b;
    return RT_OK;
}

enum rt_status vk_buffer_create(struct rt_device *base, uint64_t size, const char *label, struct rt_buffer **out,
                                struct rt_error *err)
{
    struct vk_device *dev = vk_of(base);
    struct vk_buffer *b;
    *out = NULL;
    enum rt_status st = create(dev, size, HEAP_DEVICE, label, &b, err);
    if (st)
        return st;
    st = vk_fill_buffer(dev, b, 0, size & ~(uint64_t)3, 0, err);
    if (st) {
        vk_finish(base, NULL);
        vk_buffer_destroy(&b->base);
        return st;
    }
    *out = &b->base;
    return RT_OK;
}

enum rt_status vk_staging_create(struct vk_device *dev, uint64_t size, struct vk_buffer **out, struct rt_error *err)
{
    return create(dev, size, HEAP_STAGING, "staging", out, err);
}

void vk_buffer_destroy(struct rt_buffer *buffer)
{
    if (!buffer)
        return;
    struct vk_buffer *b = vk_buffer_of(buffer);
    struct vk_device *dev = vk_of(buffer->dev);
    hazard_forget(&dev->hazard, b);
    dev->fn.vkDestroyBuffer(dev->handle, b->handle, NULL);
    dev->fn.vkFreeMemory(dev->handle, b->memory, NULL); /* unmaps too */
    rt_allocated(&dev->base, -(int64_t)b->size);
    free(b);
}

/* ---- memory that is mapped without being coherent ---- */

static VkMappedMemoryRange range_of(const struct vk_buffer *b, uint64_t offset, uint64_t size)
{
    uint64_t atom = vk_of(b->base.dev)->physical.noncoherent_atom; /* a power of two */
    uint64_t begin = offset & ~(atom - 1), end = (offset + size + atom - 1) & ~(atom - 1);
    return (VkMappedMemoryRange){VK_STRUCTURE_TYPE_MAPPED_MEMORY_RANGE, NULL, b->memory, begin,
                                 end >= b->size ? VK_WHOLE_SIZE : end - begin};
}

enum rt_status vk_buffer_flush(struct vk_buffer *b, uint64_t offset, uint64_t size, struct rt_error *err)
{
    struct vk_device *dev = vk_of(b->base.dev);
    if (b->coherent)
        return RT_OK;
    VkMappedMemoryRange range = range_of(b, offset, size);
    VK_TRY(dev, dev->fn.vkFlushMappedMemoryRanges(dev->handle, 1, &range), err);
    return RT_OK;
}

enum rt_status vk_buffer_invalidate(struct vk_buffer *b, uint64_t offset, uint64_t size, struct rt_error *err)
{
    struct vk_device *dev = vk_of(b->base.dev);
    if (b->coherent)
        return RT_OK;
    VkMappedMemoryRange range = range_of(b, offset, size);
    VK_TRY(dev, dev->fn.vkInvalidateMappedMemoryRanges(dev->handle, 1, &range), err);
    return RT_OK;
}
