/* runtime/vulkan/transfer.c - between the program's memory and the device's, and on the device.
 *
 * Memory that is mapped (devices that share the host's) is written and read in place once the device is idle. Small uploads travel in the
 * command buffer, larger ones through two halves of a staging buffer, filled while the other half is copied. */
#include "runtime/vulkan/vk.h"

#include <string.h>

#define STAGING_HALF VK_STAGING_HALF
#define SUBMIT_FROM ((uint64_t)1 << 20)
#define INLINE_MAX 65536u /* what vkCmdUpdateBuffer takes */

static struct hazard_access range(const struct vk_buffer *b, uint64_t begin, uint64_t size, bool write)
{
    return (struct hazard_access){b, begin, begin + size, write};
}

static enum rt_status begin(struct vk_device *dev, uint64_t bytes, VkCommandBuffer *cmd, struct rt_error *err)
{
    return vk_record_begin(dev, VK_WORK_PER_BYTE * (double)bytes, cmd, err);
}

/* Bytes that fit into the budget at the rate that is known; no less than a MiB, and whole words. */
static uint64_t bytes_at_once(const struct vk_device *dev)
{
    double bytes = dev->rate * dev->budget / VK_WORK_PER_BYTE;
    return bytes < (1 << 20) ? 1 << 20 : bytes > 1e15 ? (uint64_t)1e15 : (uint64_t)bytes & ~(uint64_t)255;
}

static enum rt_status need_staging(struct vk_device *dev, struct rt_error *err)
{
    return dev->staging ? RT_OK : vk_staging_create(dev, 2 * STAGING_HALF, &dev->staging, err);
}

/* From the device's writes to the host's reads; a fence alone does not do this. */
static void barrier_to_host(struct vk_device *dev, VkCommandBuffer cmd)
{
    VkMemoryBarrier b = {VK_STRUCTURE_TYPE_MEMORY_BARRIER, NULL, VK_ACCESS_SHADER_WRITE_BIT | VK_ACCESS_TRANSFER_WRITE_BIT,
                         VK_ACCESS_HOST_READ_BIT};
    dev->fn.vkCmdPipelineBarrier(cmd, VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT | VK_PIPELINE_STAGE_TRANSFER_BIT,
                                 VK_PIPELINE_STAGE_HOST_BIT, 0, 1, &b, 0, NULL, 0, NULL);
}

static enum rt_status copy_buffer(struct vk_device *dev, struct vk_buffer *to, uint64_t to_offset, struct vk_buffer *from,
                                  uint64_t from_offset, uint64_t size, bool to_host, struct rt_error *err)
{
    VkCommandBuffer cmd;
    enum rt_status st = begin(dev, size, &cmd, err);
    if (st)
        return st;
    struct hazard_access accesses[] = {range(from, from_offset, size, false), range(to, to_offset, size, true)};
    vk_barrier_for(dev, cmd, HAZARD_TRANSFER, accesses, 2);
    VkBufferCopy region = {from_offset, to_offset, size};
    uint32_t slot = vk_profile_open(dev, cmd, RT_EVENT_TRANSFER, "copy", (double)size, NULL);
    dev->fn.vkCmdCopyBuffer(cmd, from->handle, to->handle, 1, &region);
    vk_profile_close(dev, cmd, slot);
    if (to_host)
        barrier_to_host(dev, cmd);
    return RT_OK;
}

/* ---- upload ---- */

static enum rt_status upload_mapped(struct vk_device *dev, struct vk_buffer *to, uint64_t at, const void *data, uint64_t size,
                                    struct rt_error *err)
{
    enum rt_status st = vk_finish(&dev->base, err);
    if (st)
        return st;
    memcpy(to->mapped + at, data, size);
    return vk_buffer_flush(to, at, size, err); /* what is submitted later sees it */
}

static enum rt_status upload_inline(struct vk_device *dev, struct vk_buffer *to, uint64_t at, const void *data, uint64_t size,
                                    struct rt_error *err)
{
    VkCommandBuffer cmd;
    enum rt_status st = begin(dev, size, &cmd, err);
    if (st)
        return st;
    struct hazard_access access = range(to, at, size, true);
    vk_barrier_for(dev, cmd, HAZARD_TRANSFER, &access, 1);
    uint32_t slot = vk_profile_open(dev, cmd, RT_EVENT_TRANSFER, "upload", (double)size, NULL);
    dev->fn.vkCmdUpdateBuffer(cmd, to->handle, at, size, data);
    vk_profile_close(dev, cmd, slot);
    return RT_OK;
}

static enum rt_status upload_staged(struct vk_device *dev, struct vk_buffer *to, uint64_t at, const unsigned char *data,
                                    uint64_t size, struct rt_error *err)
{
    enum rt_status st = need_staging(dev, err);
    while (st == RT_OK && size) {
        uint64_t part = size < STAGING_HALF ? size : STAGING_HALF;
        unsigned half = dev->staging_half;
        st = vk_record_wait(dev, dev->staging_half_used[half], err);
        if (st)
            return st;
        memcpy(dev->staging->mapped + half * STAGING_HALF, data, part);
        st = vk_buffer_flush(dev->staging, half * STAGING_HALF, part, err);
        if (st == RT_OK)
            st = copy_buffer(dev, to, at, dev->staging, half * STAGING_HALF, part, false, err);
        dev->staging_half_used[half] = dev->begun;
        dev->staging_half = !half;
        if (st == RT_OK && part >= SUBMIT_FROM) /* under way while the caller reads what comes next */
            st = vk_record_submit(dev, err);
        at += part;
        data += part;
        size -= part;
    }
    return st;
}

enum rt_status vk_upload(struct rt_device *base, struct rt_span to, uint64_t offset, const void *data, uint64_t size,
                         struct rt_error *err)
{
    struct vk_device *dev = vk_of(base);
    struct vk_buffer *b = vk_buffer_of(to.buffer);
    uint64_t at = to.offset + offset;
    bool words = at % 4 == 0 && size % 4 == 0;
    if (dev->lost)
        return vk_fail(dev, VK_ERROR_DEVICE_LOST, "uploading", err);
    if (words && size <= INLINE_MAX && !(b->mapped && vk_record_idle(dev)))
        return upload_inline(dev, b, at, data, size, err);
    return b->mapped ? upload_mapped(dev, b, at, data, size, err) : upload_staged(dev, b, at, data, size, err);
}

enum rt_status vk_write_begin(struct rt_device *base, struct rt_span to, void **at, struct rt_error *err)
{
    struct vk_buffer *b = vk_buffer_of(to.buffer);
    *at = NULL;
    if (!b->mapped)
        return RT_OK;
    *at = b->mapped + to.offset;
    return vk_finish(base, err); /* what was recorded for it, its clearing above all, comes first */
}

enum rt_status vk_write_end(struct rt_device *base, struct rt_span to, struct rt_error *err)
{
    (void)base;
    return vk_buffer_flush(vk_buffer_of(to.buffer), to.offset, to.size, err); /* what is submitted later sees it */
}

/* ---- download ---- */

static enum rt_status download_mapped(struct vk_device *dev, struct vk_buffer *from, uint64_t at, void *data, uint64_t size,
                                      struct rt_error *err)
{
    VkCommandBuffer cmd;
    enum rt_status st = begin(dev, 0, &cmd, err);
    if (st)
        return st;
    barrier_to_host(dev, cmd);
    st = vk_finish(&dev->base, err);
    if (st == RT_OK)
        st = vk_buffer_invalidate(from, at, size, err);
    if (st == RT_OK)
        memcpy(data, from->mapped + at, size);
    return st;
}

static enum rt_status download_staged(struct vk_device *dev, struct vk_buffer *from, uint64_t at, unsigned char *data,
                                      uint64_t size, struct rt_error *err)
{
    enum rt_status st = need_staging(dev, err);
    while (st == RT_OK && size) {
        uint64_t part = size < 2 * STAGING_HALF ? size : 2 * STAGING_HALF;
        st = copy_buffer(dev, dev->staging, 0, from, at, part, true, err);
        if (st == RT_OK)
            st = vk_finish(&dev->base, err);
        if (st == RT_OK)
            st = vk_buffer_invalidate(dev->staging, 0, part, err);
        if (st)
            return st;
        memcpy(data, dev->staging->mapped, part);
        at += part;
        data += part;
        size -= part;
    }
    return st;
}

enum rt_status vk_download(struct rt_device *base, struct rt_span from, uint64_t offset, void *data, uint64_t size,
                           struct rt_error *err)
{
    struct vk_device *dev = vk_of(base);
    struct vk_buffer *b = vk_buffer_of(from.buffer);
    /* Reading memory that is not cached, a word at a time, is slower than copying it where it is. */
    if (b->mapped && b->readable && (b->cached || size <= 4096))
        return download_mapped(dev, b, from.offset + offset, data, size, err);
    return download_staged(dev, b, from.offset + offset, data, size, err);
}

/* ---- on the device ---- */

enum rt_status vk_copy(struct rt_device *base, struct rt_span to, uint64_t to_offset, struct rt_span from, uint64_t from_offset,
                       uint64_t size, struct rt_error *err)
{
    uint64_t a = to.offset + to_offset, b = from.offset + from_offset;
    if (to.buffer == from.buffer && a < b + size && b < a + size)
        return rt_fail(err, RT_FAILED, "rt_copy: the %llu bytes at %llu and at %llu of one buffer overlap", (unsigned long long)size,
                       (unsigned long long)b, (unsigned long long)a);
    for (uint64_t part; size; a += part, b += part, size -= part) {
        uint64_t most = bytes_at_once(vk_of(base));
        part = size < most ? size : most;
        RT_TRY(copy_buffer(vk_of(base), vk_buffer_of(to.buffer), a, vk_buffer_of(from.buffer), b, part, false, err));
    }
    return RT_OK;
}

static enum rt_status fill_part(struct vk_device *dev, struct vk_buffer *b, uint64_t offset, uint64_t size, uint32_t word, struct rt_error *err)
{
    VkCommandBuffer cmd;
    enum rt_status st = begin(dev, size, &cmd, err);
    if (st)
        return st;
    struct hazard_access access = range(b, offset, size, true);
    vk_barrier_for(dev, cmd, HAZARD_TRANSFER, &access, 1);
    uint32_t slot = vk_profile_open(dev, cmd, RT_EVENT_TRANSFER, "fill", (double)size, NULL);
    dev->fn.vkCmdFillBuffer(cmd, b->handle, offset, size, word);
    vk_profile_close(dev, cmd, slot);
    return RT_OK;
}

enum rt_status vk_fill_buffer(struct vk_device *dev, struct vk_buffer *b, uint64_t offset, uint64_t size, uint32_t word,
                              struct rt_error *err)
{
    for (uint64_t part; size; offset += part, size -= part) {
        uint64_t most = bytes_at_once(dev);
        part = size < most ? size : most;
        RT_TRY(fill_part(dev, b, offset, part, word, err));
    }
    return RT_OK;
}

enum rt_status vk_fill(struct rt_device *base, struct rt_span to, uint32_t word, struct rt_error *err)
{
    return vk_fill_buffer(vk_of(base), vk_buffer_of(to.buffer), to.offset, to.size, word, err);
}
