/* runtime/vulkan/memory.c - which memory type, and buffers with memory of their own.
 *
 * A run has a handful of buffers (arenas), so each has one allocation. Types are tried from best to worst until one gives the
 * memory: a small heap may be full, or may be listed first and hold only a window of the device's memory. */
#include "runtime/vulkan/vk.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum want { WANT_DEVICE, WANT_STAGING };

static uint64_t heap_of(const VkPhysicalDeviceMemoryProperties *m, uint32_t type)
{
    return m->memoryHeaps[m->memoryTypes[type].heapIndex].size;
}

/* Larger is better; negative: of no use. The size of the heap decides among types of one score. */
static int score(const struct vk_physical *p, uint32_t type, enum want want)
{
    VkMemoryPropertyFlags f = p->memory.memoryTypes[type].propertyFlags;
    if (f & (VK_MEMORY_PROPERTY_LAZILY_ALLOCATED_BIT | VK_MEMORY_PROPERTY_PROTECTED_BIT))
        return -1;
    bool local = f & VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT, visible = f & VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT;
    bool cached = f & VK_MEMORY_PROPERTY_HOST_CACHED_BIT, coherent = f & VK_MEMORY_PROPERTY_HOST_COHERENT_BIT;
    if (want == WANT_STAGING) /* the host reads it: cached counts most */
        return visible ? 4 * cached + 2 * coherent + !local : -1;
    if (p->unified && p->clamp.mapped)
        return 8 * local + 4 * visible + 2 * cached + coherent;
    return 8 * local + 4 * !visible; /* not the window through which the host sees device memory */
}

static bool ranked_before(const struct vk_physical *p, uint32_t a, uint32_t b, enum want want)
{
    int sa = score(p, a, want), sb = score(p, b, want);
    uint64_t ha = heap_of(&p->memory, a), hb = heap_of(&p->memory, b);
    bool local = want == WANT_DEVICE && sa >= 8 && sb >= 8; /* both device-local: the larger heap wins first */
    if (local && ha != hb)
        return ha > hb;
    return sa != sb ? sa > sb : ha > hb;
}

/* The types of `allowed` that serve, best first. Returns how many. */
static unsigned rank_types(const struct vk_physical *p, uint32_t allowed, enum want want, uint32_t out[VK_MAX_MEMORY_TYPES])
{
    unsigned n = 0;
    for (uint32_t t = 0; t < p->memory.memoryTypeCount; t++) {
        if (!(allowed & 1u << t) || score(p, t, want) < 0)
            continue;
        unsigned i = n++;
        for (; i > 0 && ranked_before(p, t, out[i - 1], want); i--)
            out[i] = out[i - 1];
        out[i] = t;
    }
    return n;
}

/* ---- how much there is ---- */

static uint64_t host_memory(void)
{
    long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
    return pages > 0 && page > 0 ? (uint64_t)pages * (uint64_t)page : UINT64_MAX;
}

uint64_t vk_memory_available(const struct vk_instance *instance, const struct vk_physical *physical)
{
    uint32_t types[VK_MAX_MEMORY_TYPES];
    if (rank_types(physical, UINT32_MAX, WANT_DEVICE, types) == 0)
        return 0;
    uint32_t heap = physical->memory.memoryTypes[types[0]].heapIndex;
    uint64_t bytes = physical->memory.memoryHeaps[heap].size;
    if (physical->info.caps & RT_CAP_MEMORY_BUDGET) {
        VkPhysicalDeviceMemoryBudgetPropertiesEXT budget = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MEMORY_BUDGET_PROPERTIES_EXT};
        VkPhysicalDeviceMemoryProperties2 memory = {VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MEMORY_PROPERTIES_2, &budget, {0}};
        instance->memory(physical->handle, &memory);
        if (budget.heapBudget[heap] && budget.heapBudget[heap] < bytes)
            bytes = budget.heapBudget[heap];
    }
    /* Heaps of unified memory are known to claim more than the machine has. */
    if (physical->unified && host_memory() < bytes)
        bytes = host_memory();
    return bytes;
}

/* ---- buffers ---- */

static enum rt_status no_memory(struct vk_device *dev, uint64_t size, const char *label, struct rt_error *err)
{
    return rt_fail(err, RT_NO_MEMORY, "%s did not give %.1f MiB for %s (it had %.1f MiB when it was opened; %.1f MiB are the most in one "
                   "allocation): use a smaller batch or length, or close other programs that use the device", dev->base.info.name,
                   (double)size / (1 << 20), label, (double)dev->base.info.limits.memory / (1 << 20),
                   (double)dev->base.info.limits.max_allocation / (1 << 20));
}

static enum rt_status allocate(struct vk_device *dev, struct vk_buffer *b, enum want want, const char *label,
                               struct rt_error *err)
{
    VkMemoryRequirements needs;
    dev->fn.vkGetBufferMemoryRequirements(dev->handle, b->handle, &needs);
    uint32_t types[VK_MAX_MEMORY_TYPES];
    unsigned n = rank_types(&dev->physical, needs.memoryTypeBits, want, types);
    VkResult r = VK_ERROR_OUT_OF_DEVICE_MEMORY;
    VkMemoryPropertyFlags flags = 0;
    for (unsigned i = 0; i < n && r != VK_SUCCESS; i++) {
        VkMemoryAllocateInfo info = {VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_INFO, NULL, needs.size, types[i]};
        flags = dev->physical.memory.memoryTypes[types[i]].propertyFlags;
        r = dev->fn.vkAllocateMemory(dev->handle, &info, NULL, &b->memory);
    }
    if (r == VK_ERROR_OUT_OF_DEVICE_MEMORY || r == VK_ERROR_OUT_OF_HOST_MEMORY || r == VK_ERROR_TOO_MANY_OBJECTS)
        return no_memory(dev, needs.size, label, err);
    if (r != VK_SUCCESS)
        return vk_fail(dev, r, "vkAllocateMemory", err);
    b->size = needs.size;
    b->cached = flags & VK_MEMORY_PROPERTY_HOST_CACHED_BIT;
    b->coherent = flags & VK_MEMORY_PROPERTY_HOST_COHERENT_BIT;
    VK_TRY(dev, dev->fn.vkBindBufferMemory(dev->handle, b->handle, b->memory, 0), err);
    bool map = want == WANT_STAGING ||
               (dev->physical.unified && dev->physical.clamp.mapped && flags & VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT);
    void *mapped = NULL;
    if (map)
        VK_TRY(dev, dev->fn.vkMapMemory(dev->handle, b->memory, 0, VK_WHOLE_SIZE, 0, &mapped), err);
    b->mapped = mapped;
    return RT_OK;
}

static enum rt_status create(struct vk_device *dev, uint64_t size, enum want want, const char *label, struct vk_buffer **out,
                             struct rt_error *err)
{
    *out = NULL;
    if (dev->lost)
        return vk_fail(dev, VK_ERROR_DEVICE_LOST, label, err);
    struct vk_buffer *b = calloc(1, sizeof *b);
    if (!b)
        return rt_fail(err, RT_NO_MEMORY, "no memory for a buffer (%s)", label);
    b->base = (struct rt_buffer){&dev->base, size};
    VkBufferCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_BUFFER_CREATE_INFO, .size = size, .sharingMode = VK_SHARING_MODE_EXCLUSIVE,
        .usage = VK_BUFFER_USAGE_TRANSFER_SRC_BIT | VK_BUFFER_USAGE_TRANSFER_DST_BIT |
                 (want == WANT_DEVICE ? VK_BUFFER_USAGE_STORAGE_BUFFER_BIT : 0),
    };
    enum rt_status st;
    VkResult r = dev->fn.vkCreateBuffer(dev->handle, &info, NULL, &b->handle);
    if (r == VK_ERROR_OUT_OF_DEVICE_MEMORY || r == VK_ERROR_OUT_OF_HOST_MEMORY)
        st = no_memory(dev, size, label, err);
    else
        st = r == VK_SUCCESS ? allocate(dev, b, want, label, err) : vk_fail(dev, r, "vkCreateBuffer", err);
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
    enum rt_status st = create(dev, size, WANT_DEVICE, label, &b, err);
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
    return create(dev, size, WANT_STAGING, "staging", out, err);
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
