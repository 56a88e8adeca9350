/* runtime/vulkan/capture.c - who listens, and the delimiters of a capture for every tool that has one.
 *
 *     RenderDoc            its in-application API, when its library is in the process; else the labels `capture-marker,...`,
 *                          which it takes too (both at once would be two captures in one)
 *     AMD's driver tools   the queue labels AmdFrameBegin and AmdFrameEnd
 *     gfxreconstruct,      the queue label `vr-marker,frame_end,type,application`, and VK_EXT_frame_boundary where the device
 *     Nsight               has it: an empty submission that ends a frame
 *
 * What a capture holds is whole submissions: the device is idle at both ends. */
#include "runtime/vulkan/vk.h"

#include <dlfcn.h>
#include <string.h>

/* RENDERDOC_API_1_0_0: a table of functions, of which the 20th to 22nd are of use here. The interface is frozen by its version. */
#define RENDERDOC_1_0_0     10000
#define RENDERDOC_START     19
#define RENDERDOC_CAPTURING 20
#define RENDERDOC_END       21
typedef int renderdoc_get_api_fn(int version, void **api);
typedef void renderdoc_start_fn(void *device, void *window);
typedef uint32_t renderdoc_end_fn(void *device, void *window);

static void **renderdoc_api(void)
{
    void *library = dlopen("librenderdoc.so", RTLD_NOW | RTLD_NOLOAD), *api = NULL;
    renderdoc_get_api_fn *get = library ? (renderdoc_get_api_fn *)dlsym(library, "RENDERDOC_GetAPI") : NULL;
    if (get && get(RENDERDOC_1_0_0, &api) != 1)
        api = NULL;
    if (library)
        dlclose(library); /* it stays: whoever loaded it holds it */
    return api;
}

/* ---- who listens ---- */

bool vk_tool_attached(const struct vk_device *dev)
{
    PFN_vkGetPhysicalDeviceToolPropertiesEXT get =
        (PFN_vkGetPhysicalDeviceToolPropertiesEXT)vkGetInstanceProcAddr(dev->instance.handle, "vkGetPhysicalDeviceToolPropertiesEXT");
    VkPhysicalDeviceToolPropertiesEXT tools[16];
    const VkToolPurposeFlagsEXT listens = VK_TOOL_PURPOSE_PROFILING_BIT_EXT | VK_TOOL_PURPOSE_TRACING_BIT_EXT | VK_TOOL_PURPOSE_DEBUG_MARKERS_BIT_EXT;
    uint32_t n = sizeof tools / sizeof *tools;
    memset(tools, 0, sizeof tools);
    for (uint32_t i = 0; i < n; i++)
        tools[i].sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_TOOL_PROPERTIES_EXT;
    if (!dev->physical.tooling || !get || get(dev->physical.handle, &n, tools) < 0)
        return false;
    for (uint32_t i = 0; i < n; i++)
        if (tools[i].purposes & listens)
            return true;
    return false;
}

/* ---- delimiters ---- */

static void insert(struct vk_device *dev, const char *text)
{
    VkDebugUtilsLabelEXT info = {.sType = VK_STRUCTURE_TYPE_DEBUG_UTILS_LABEL_EXT, .pLabelName = text};
    if (dev->base.labels && dev->instance.queue_insert_label)
        dev->instance.queue_insert_label(dev->queue, &info);
}

/* Headers of 2023 do not know the extension yet; these are its numbers. */
struct frame_boundary {
    VkStructureType sType;
    const void *pNext;
    VkFlags flags;
    uint64_t frameID;
    uint32_t imageCount;
    const void *pImages;
    uint32_t bufferCount;
    const void *pBuffers;
    uint64_t tagName;
    size_t tagSize;
    const void *pTag;
};
#define FRAME_BOUNDARY     ((VkStructureType)1000375001)
#define FRAME_BOUNDARY_END 1u

static void end_frame(struct vk_device *dev)
{
    const struct frame_boundary boundary = {.sType = FRAME_BOUNDARY, .flags = FRAME_BOUNDARY_END, .frameID = dev->base.scopes.captures};
    VkSubmitInfo info = {.sType = VK_STRUCTURE_TYPE_SUBMIT_INFO, .pNext = &boundary};
    if (dev->physical.frame_boundary)
        dev->fn.vkQueueSubmit(dev->queue, 1, &info, VK_NULL_HANDLE); /* a delimiter that fails costs a capture, not a run */
}

const char *vk_capture_begin(struct rt_device *base, const char *label)
{
    struct vk_device *dev = vk_of(base);
    void **api = renderdoc_api();
    (void)label;
    if (api)
        ((renderdoc_start_fn *)api[RENDERDOC_START])(NULL, NULL);
    else
        insert(dev, "capture-marker,begin_capture");
    insert(dev, "AmdFrameBegin");
    return api ? "RenderDoc" : base->labels ? "labels" : "";
}

void vk_capture_end(struct rt_device *base)
{
    struct vk_device *dev = vk_of(base);
    void **api = renderdoc_api();
    insert(dev, "AmdFrameEnd");
    if (api)
        ((renderdoc_end_fn *)api[RENDERDOC_END])(NULL, NULL);
    else
        insert(dev, "capture-marker,end_capture");
    insert(dev, "vr-marker,frame_end,type,application");
    end_frame(dev);
}
