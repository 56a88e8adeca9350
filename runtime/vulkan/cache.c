/* runtime/vulkan/cache.c - the pipeline cache, kept on disk between runs.
 *
 * One file for each pipelineCacheUUID, driver version and set of embedded shaders, in the folder of cache_folder.h. It begins with
 * a header of our own, since drivers are known to crash on damaged data: what does not match it is ignored and replaced. */
#include "runtime/cache_folder.h"
#include "runtime/vulkan/vk.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MAX_CACHE ((size_t)256 << 20)

struct file_header {
    char magic[8];
    uint64_t size; /* of the driver's data that follows */
    uint64_t sum;  /* FNV-1a of it */
};
static const char magic[8] = {'M', 'O', 'S', 'L', 'D', 'P', 'C', '1'};

static uint64_t fnv1a(const unsigned char *data, size_t size)
{
    uint64_t h = 0xcbf29ce484222325u;
    for (size_t i = 0; i < size; i++)
        h = (h ^ data[i]) * 0x100000001b3u;
    return h;
}

/* ---- where ---- */

/* NULL: there is no place, and so no cache on disk. */
static char *make_path(const struct vk_physical *p)
{
    char name[128], uuid[33], *path;
    for (int i = 0; i < 16; i++)
        snprintf(uuid + 2 * i, 3, "%02x", p->cache_uuid[i]);
    snprintf(name, sizeof name, "pipelines-%s-%08x-%s.bin", uuid, p->driver_version, rt_shaders_id);
    return rt_cache_path(name, &path) ? path : NULL;
}

/* ---- reading ---- */

/* Whether the driver's own header names this very device. */
static bool for_this_device(const struct vk_physical *p, const unsigned char *data, size_t size)
{
    uint32_t words[4];
    if (size < sizeof words + VK_UUID_SIZE)
        return false;
    memcpy(words, data, sizeof words);
    return words[0] >= sizeof words + VK_UUID_SIZE && words[1] == VK_PIPELINE_CACHE_HEADER_VERSION_ONE &&
           words[2] == p->info.vendor_id && words[3] == p->info.device_id &&
           memcmp(data + sizeof words, p->cache_uuid, VK_UUID_SIZE) == 0;
}

/* The driver's data of a sound file; NULL otherwise. The caller frees it. */
static unsigned char *read_file(const struct vk_physical *p, const char *path, size_t *size)
{
    FILE *f = fopen(path, "rb");
    if (!f)
        return NULL;
    struct file_header header;
    unsigned char *data = NULL;
    if (fread(&header, sizeof header, 1, f) == 1 && memcmp(header.magic, magic, sizeof magic) == 0 && header.size <= MAX_CACHE &&
        (data = malloc(header.size ? header.size : 1)) != NULL) {
        *size = (size_t)header.size;
        bool sound = fread(data, 1, *size, f) == *size && fgetc(f) == EOF && fnv1a(data, *size) == header.sum &&
                     for_this_device(p, data, *size);
        if (!sound) {
            free(data);
            data = NULL;
        }
    }
    fclose(f);
    return data;
}

enum rt_status vk_cache_open(struct vk_device *dev, bool on_disk, struct rt_error *err)
{
    VkPipelineCacheCreateInfo info = {.sType = VK_STRUCTURE_TYPE_PIPELINE_CACHE_CREATE_INFO};
    size_t size = 0;
    dev->cache_path = on_disk ? make_path(&dev->physical) : NULL;
    unsigned char *data = dev->cache_path ? read_file(&dev->physical, dev->cache_path, &size) : NULL;
    info.initialDataSize = data ? size : 0;
    info.pInitialData = data;
    VkResult r = dev->fn.vkCreatePipelineCache(dev->handle, &info, NULL, &dev->cache);
    if (r != VK_SUCCESS && data) { /* the driver does not like it: begin anew */
        info.initialDataSize = 0;
        info.pInitialData = NULL;
        r = dev->fn.vkCreatePipelineCache(dev->handle, &info, NULL, &dev->cache);
    }
    dev->cache_saved = data ? 0 : UINT64_MAX; /* without a sound file one is written even if it teaches nothing new */
    free(data);
    return r == VK_SUCCESS ? RT_OK : vk_fail(dev, r, "vkCreatePipelineCache", err);
}

/* ---- writing ---- */

static bool write_all(int fd, const void *data, size_t size)
{
    const char *p = data;
    while (size) {
        ssize_t n = write(fd, p, size);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        p += n;
        size -= (size_t)n;
    }
    return true;
}

/* Beside the file, then renamed over it: a reader sees the old one or the new one. */
static void write_file(const char *path, const unsigned char *data, size_t size)
{
    struct file_header header = {.size = size, .sum = fnv1a(data, size)};
    memcpy(header.magic, magic, sizeof magic);
    char *temporary;
    if (asprintf(&temporary, "%s.XXXXXX", path) < 0)
        return;
    int fd = mkstemp(temporary);
    if (fd >= 0) {
        bool good = write_all(fd, &header, sizeof header) && write_all(fd, data, size) && fsync(fd) == 0;
        good = close(fd) == 0 && good;
        if (!good || rename(temporary, path) != 0)
            unlink(temporary);
    }
    free(temporary);
}

void vk_cache_save(struct vk_device *dev)
{
    if (!dev->cache_path || !dev->cache || dev->lost || dev->cache_saved == dev->statistics.pipelines_built)
        return;
    size_t size = 0;
    if (dev->fn.vkGetPipelineCacheData(dev->handle, dev->cache, &size, NULL) != VK_SUCCESS || size == 0 || size > MAX_CACHE)
        return;
    unsigned char *data = malloc(size);
    if (data && dev->fn.vkGetPipelineCacheData(dev->handle, dev->cache, &size, data) == VK_SUCCESS) {
        write_file(dev->cache_path, data, size);
        dev->cache_saved = dev->statistics.pipelines_built;
    }
    free(data);
}

void vk_cache_finish(struct vk_device *dev)
{
    vk_cache_save(dev);
    if (dev->cache)
        dev->fn.vkDestroyPipelineCache(dev->handle, dev->cache, NULL);
    dev->cache = VK_NULL_HANDLE;
    free(dev->cache_path);
    dev->cache_path = NULL;
}
