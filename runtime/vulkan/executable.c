/* runtime/vulkan/executable.c - what the driver tells of a kernel, through VK_KHR_pipeline_executable_properties.
 *
 * The extension gives lists of names and numbers and leaves both to the driver. They are passed on as they are; the table
 * below says which of them is which measure of rt.h. A driver whose names are not in it still has them listed. RADV's
 * "Spilled SGPRs" is not: they go to lanes of vector registers, not to memory. */
#include "runtime/vulkan/vk.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Names as Mesa's drivers have them (RADV, ANV, Turnip, NVK) and the NVIDIA driver's. Where two of one driver mean one
 * measure, the numbers are added up. */
static const struct {
    const char *name;
    enum rt_kernel_measure measure;
} names[] = {
    {"VGPRs", RT_MEASURE_REGISTERS},
    {"SGPRs", RT_MEASURE_SCALAR_REGISTERS},
    {"Spilled VGPRs", RT_MEASURE_SPILLS},
    {"Scratch size", RT_MEASURE_SCRATCH},
    {"LDS size", RT_MEASURE_SHARED},
    {"Subgroups per SIMD", RT_MEASURE_OCCUPANCY},
    {"Instructions", RT_MEASURE_INSTRUCTIONS},
    {"Code size", RT_MEASURE_CODE},
    {"Latency", RT_MEASURE_LATENCY},
    {"Inverse Throughput", RT_MEASURE_INVERSE_THROUGHPUT},
    /* ANV */
    {"Max live registers", RT_MEASURE_REGISTERS},
    {"Spill Count", RT_MEASURE_SPILLS},
    {"Fill Count", RT_MEASURE_SPILLS},
    {"Scratch Memory Size", RT_MEASURE_SCRATCH},
    {"Workgroup Memory Size", RT_MEASURE_SHARED},
    {"Instruction Count", RT_MEASURE_INSTRUCTIONS},
    {"Cycle Count", RT_MEASURE_LATENCY},
    /* Turnip */
    {"Registers used", RT_MEASURE_REGISTERS},
    {"STP Count", RT_MEASURE_SPILLS},
    {"LDP Count", RT_MEASURE_SPILLS},
    {"Max Waves Per Core", RT_MEASURE_OCCUPANCY},
    /* NVK, and NVIDIA's own */
    {"Number of GPRs", RT_MEASURE_REGISTERS},
    {"Instruction count", RT_MEASURE_INSTRUCTIONS},
    {"Static cycle count", RT_MEASURE_LATENCY},
    {"Spills to memory", RT_MEASURE_SPILLS},
    {"Fills from memory", RT_MEASURE_SPILLS},
    {"SLM Size", RT_MEASURE_SCRATCH},
    {"Max warps/SM", RT_MEASURE_OCCUPANCY},
    {"Register Count", RT_MEASURE_REGISTERS},
    {"Local Memory Size", RT_MEASURE_SCRATCH},
    {"Shared Memory Size", RT_MEASURE_SHARED},
    {"Binary Size", RT_MEASURE_CODE},
};

static double value_of(const VkPipelineExecutableStatisticKHR *s)
{
    switch (s->format) {
    case VK_PIPELINE_EXECUTABLE_STATISTIC_FORMAT_BOOL32_KHR: return s->value.b32 ? 1 : 0;
    case VK_PIPELINE_EXECUTABLE_STATISTIC_FORMAT_INT64_KHR: return (double)s->value.i64;
    case VK_PIPELINE_EXECUTABLE_STATISTIC_FORMAT_UINT64_KHR: return (double)s->value.u64;
    case VK_PIPELINE_EXECUTABLE_STATISTIC_FORMAT_FLOAT64_KHR: return s->value.f64;
    default: return NAN;
    }
}

static void add_statistic(struct rt_executable *e, const VkPipelineExecutableStatisticKHR *s)
{
    if (strstr(s->name, "hash") || strstr(s->name, "Hash")) /* names the code, and measures nothing */
        return;
    struct rt_executable_statistic *to = &e->statistics[e->n_statistics++];
    snprintf(to->name, sizeof to->name, "%s", s->name);
    to->value = value_of(s);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(names[i].name, s->name) == 0) {
            double *sum = &e->measures[names[i].measure];
            *sum = isnan(*sum) ? to->value : *sum + to->value;
        }
}

static enum rt_status get_statistics(struct vk_device *dev, const VkPipelineExecutableInfoKHR *which, struct rt_executable *e,
                                     struct rt_error *err)
{
    uint32_t n = 0;
    VK_TRY(dev, dev->fn.vkGetPipelineExecutableStatisticsKHR(dev->handle, which, &n, NULL), err);
    VkPipelineExecutableStatisticKHR *list = calloc(n ? n : 1, sizeof *list);
    e->statistics = calloc(n ? n : 1, sizeof *e->statistics);
    if (!list || !e->statistics) {
        free(list);
        return rt_fail(err, RT_NO_MEMORY, "no memory for %u statistics", n);
    }
    for (uint32_t i = 0; i < n; i++)
        list[i].sType = VK_STRUCTURE_TYPE_PIPELINE_EXECUTABLE_STATISTIC_KHR;
    VkResult r = dev->fn.vkGetPipelineExecutableStatisticsKHR(dev->handle, which, &n, list);
    for (uint32_t i = 0; r == VK_SUCCESS && i < n; i++)
        add_statistic(e, &list[i]);
    free(list);
    return r == VK_SUCCESS ? RT_OK : vk_fail(dev, r, "vkGetPipelineExecutableStatisticsKHR", err);
}

/* The sizes are asked for first, then the texts. A representation that is no text is left out. */
static enum rt_status get_texts(struct vk_device *dev, const VkPipelineExecutableInfoKHR *which, struct rt_executable *e,
                                struct rt_error *err)
{
    uint32_t n = 0;
    VK_TRY(dev, dev->fn.vkGetPipelineExecutableInternalRepresentationsKHR(dev->handle, which, &n, NULL), err);
    VkPipelineExecutableInternalRepresentationKHR *list = calloc(n ? n : 1, sizeof *list);
    e->texts = calloc(n ? n : 1, sizeof *e->texts);
    VkResult r = list && e->texts ? VK_SUCCESS : VK_ERROR_OUT_OF_HOST_MEMORY;
    for (uint32_t i = 0; r == VK_SUCCESS && i < n; i++)
        list[i].sType = VK_STRUCTURE_TYPE_PIPELINE_EXECUTABLE_INTERNAL_REPRESENTATION_KHR;
    if (r == VK_SUCCESS)
        r = dev->fn.vkGetPipelineExecutableInternalRepresentationsKHR(dev->handle, which, &n, list);
    for (uint32_t i = 0; r == VK_SUCCESS && i < n; i++) {
        list[i].pData = calloc(1, list[i].dataSize + 1); /* ends with a zero even if the driver's does not */
        r = list[i].pData ? VK_SUCCESS : VK_ERROR_OUT_OF_HOST_MEMORY;
    }
    if (r == VK_SUCCESS)
        r = dev->fn.vkGetPipelineExecutableInternalRepresentationsKHR(dev->handle, which, &n, list);
    for (uint32_t i = 0; list && i < n; i++) {
        if (r == VK_SUCCESS && list[i].isText) {
            struct rt_executable_text *to = &e->texts[e->n_texts++];
            snprintf(to->name, sizeof to->name, "%s", list[i].name);
            to->text = list[i].pData;
        } else {
            free(list[i].pData);
        }
    }
    free(list);
    return r == VK_SUCCESS ? RT_OK : vk_fail(dev, r, "vkGetPipelineExecutableInternalRepresentationsKHR", err);
}

static enum rt_status get_executable(struct vk_device *dev, VkPipeline pipeline, uint32_t index,
                                     const VkPipelineExecutablePropertiesKHR *properties, struct rt_executable *e, struct rt_error *err)
{
    snprintf(e->name, sizeof e->name, "%s", properties->name);
    e->subgroup_size = properties->subgroupSize;
    for (int m = 0; m < RT_MEASURES; m++)
        e->measures[m] = NAN;
    VkPipelineExecutableInfoKHR which = {VK_STRUCTURE_TYPE_PIPELINE_EXECUTABLE_INFO_KHR, NULL, pipeline, index};
    enum rt_status st = get_statistics(dev, &which, e, err);
    return st || dev->capture < RT_CAPTURE_ASSEMBLY ? st : get_texts(dev, &which, e, err);
}

static enum rt_status get_executables(struct vk_device *dev, VkPipeline pipeline, struct rt_kernel_description *out,
                                      struct rt_error *err)
{
    VkPipelineInfoKHR which = {VK_STRUCTURE_TYPE_PIPELINE_INFO_KHR, NULL, pipeline};
    uint32_t n = 0;
    VK_TRY(dev, dev->fn.vkGetPipelineExecutablePropertiesKHR(dev->handle, &which, &n, NULL), err);
    VkPipelineExecutablePropertiesKHR *list = calloc(n ? n : 1, sizeof *list);
    out->executables = calloc(n ? n : 1, sizeof *out->executables);
    if (!list || !out->executables) {
        free(list);
        return rt_fail(err, RT_NO_MEMORY, "no memory for %u executables", n);
    }
    for (uint32_t i = 0; i < n; i++)
        list[i].sType = VK_STRUCTURE_TYPE_PIPELINE_EXECUTABLE_PROPERTIES_KHR;
    VkResult r = dev->fn.vkGetPipelineExecutablePropertiesKHR(dev->handle, &which, &n, list);
    enum rt_status st = r == VK_SUCCESS ? RT_OK : vk_fail(dev, r, "vkGetPipelineExecutablePropertiesKHR", err);
    for (uint32_t i = 0; st == RT_OK && i < n; i++)
        st = get_executable(dev, pipeline, i, &list[i], &out->executables[out->n_executables++], err);
    free(list);
    return st;
}

enum rt_status vk_kernel_describe(struct rt_device *base, const struct rt_kernel *desc, struct rt_kernel_description *out,
                                  struct rt_error *err)
{
    struct vk_device *dev = vk_of(base);
    struct vk_kernel *k = vk_kernel_find(dev, desc);
    if (!k)
        return rt_fail(err, RT_NO_MEMORY, "no memory for kernel %s", desc->name);
    enum rt_status st = vk_kernel_ready(dev, k, err);
    if (st)
        return st;
    memcpy(out->workgroup, k->needs.local_size, sizeof out->workgroup);
    out->shared_bytes = k->needs.shared_bytes;
    out->push_bytes = desc->push_size;
    out->storage_buffers = desc->n_bindings;
    out->spirv_bytes = (uint32_t)(k->shader->n_words * sizeof(uint32_t));
    out->reported = dev->capture != RT_CAPTURE_NOTHING;
    return out->reported ? get_executables(dev, k->pipeline, out, err) : RT_OK;
}
