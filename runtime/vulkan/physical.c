/* runtime/vulkan/physical.c - what a physical device is and can do, and the logical device made from what may be used. */
#include "runtime/vulkan/heaps.h"
#include "runtime/vulkan/matrix.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Headers of 2023 do not know VK_EXT_frame_boundary yet; these are its numbers. */
#define FRAME_BOUNDARY_NAME     "VK_EXT_frame_boundary"
#define FRAME_BOUNDARY_FEATURES ((VkStructureType)1000375000)
struct frame_boundary_features {
    VkStructureType sType;
    void *pNext;
    VkBool32 frameBoundary;
};

/* ---- extensions ---- */

struct extensions {
    VkExtensionProperties *list;
    uint32_t n;
};

static enum rt_status get_extensions(const struct vk_instance *instance, VkPhysicalDevice handle, struct extensions *out,
                                     struct rt_error *err)
{
    *out = (struct extensions){0};
    VK_TRY(NULL, instance->extensions(handle, NULL, &out->n, NULL), err);
    out->list = calloc(out->n ? out->n : 1, sizeof *out->list);
    if (!out->list)
        return rt_fail(err, RT_NO_MEMORY, "no memory for the extensions of a device");
    VkResult r = instance->extensions(handle, NULL, &out->n, out->list);
    if (r == VK_SUCCESS || r == VK_INCOMPLETE)
        return RT_OK;
    free(out->list);
    out->list = NULL;
    return vk_fail(NULL, r, "vkEnumerateDeviceExtensionProperties", err);
}

static bool has(const struct extensions *e, const char *name)
{
    for (uint32_t i = 0; i < e->n; i++)
        if (strcmp(e->list[i].extensionName, name) == 0)
            return true;
    return false;
}

/* ---- features: one chain, used to ask and to enable ---- */

struct features {
    VkPhysicalDeviceFeatures2 core;
    VkPhysicalDeviceVulkan11Features v11;
    VkPhysicalDeviceVulkan12Features v12;
    VkPhysicalDeviceSubgroupSizeControlFeaturesEXT size_control;
    VkPhysicalDeviceShaderIntegerDotProductFeaturesKHR dot;
    VkPhysicalDevicePipelineExecutablePropertiesFeaturesKHR executables;
    VkPhysicalDeviceCooperativeMatrixFeaturesKHR matrix;
};

static void link_in(struct features *f, void *feature)
{
    VkBaseOutStructure *base = feature;
    base->pNext = f->core.pNext;
    f->core.pNext = base;
}

/* Structs of extensions are linked only where the extension is there (asking) or wanted (enabling). */
static void chain_features(struct features *f, bool size_control, bool dot, bool matrix)
{
    *f = (struct features){
        .core.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FEATURES_2,
        .v11.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_1_FEATURES,
        .v12.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_2_FEATURES,
        .size_control.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SUBGROUP_SIZE_CONTROL_FEATURES_EXT,
        .dot.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SHADER_INTEGER_DOT_PRODUCT_FEATURES_KHR,
        .matrix.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_COOPERATIVE_MATRIX_FEATURES_KHR,
        .executables.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PIPELINE_EXECUTABLE_PROPERTIES_FEATURES_KHR,
    };
    link_in(f, &f->v11);
    link_in(f, &f->v12);
    if (size_control)
        link_in(f, &f->size_control);
    if (dot)
        link_in(f, &f->dot);
    if (matrix)
        link_in(f, &f->matrix);
}

static uint32_t caps_of(const struct features *f, const struct extensions *e, uint32_t subgroup_ops)
{
    uint32_t caps = 0;
    if (f->v11.storageBuffer16BitAccess)
        caps |= RT_CAP_FP16_STORAGE;
    if (f->v12.shaderFloat16)
        caps |= RT_CAP_FP16_ARITHMETIC;
    if (f->v12.storageBuffer8BitAccess && f->v12.shaderInt8)
        caps |= RT_CAP_INT8_STORAGE;
    if ((subgroup_ops & VK_SUBGROUP_FEATURE_BASIC_BIT) && (subgroup_ops & VK_SUBGROUP_FEATURE_ARITHMETIC_BIT))
        caps |= RT_CAP_SUBGROUP;
    if (f->size_control.subgroupSizeControl && f->size_control.computeFullSubgroups)
        caps |= RT_CAP_SUBGROUP_SIZE;
    if (f->dot.shaderIntegerDotProduct)
        caps |= RT_CAP_INTEGER_DOT;
    if (f->matrix.cooperativeMatrix && f->v12.vulkanMemoryModel && f->v12.shaderFloat16)
        caps |= RT_CAP_COOPERATIVE_MATRIX;
    if (f->v12.bufferDeviceAddress)
        caps |= RT_CAP_BUFFER_ADDRESS;
    if (has(e, VK_KHR_PUSH_DESCRIPTOR_EXTENSION_NAME))
        caps |= RT_CAP_PUSH_DESCRIPTOR;
    if (has(e, VK_EXT_MEMORY_BUDGET_EXTENSION_NAME))
        caps |= RT_CAP_MEMORY_BUDGET;
    return caps;
}

/* ---- properties ---- */

struct properties {
    VkPhysicalDeviceProperties2 core;
    VkPhysicalDeviceVulkan11Properties v11;
    VkPhysicalDeviceVulkan12Properties v12;
    VkPhysicalDeviceMaintenance4PropertiesKHR maintenance4;
    VkPhysicalDeviceSubgroupSizeControlPropertiesEXT size_control;
};

static void get_properties(const struct vk_instance *instance, VkPhysicalDevice handle, const struct extensions *e,
                           struct properties *p)
{
    *p = (struct properties){
        .core = {VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PROPERTIES_2, &p->v11, {0}},
        .v11 = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_1_PROPERTIES, .pNext = &p->v12},
        .v12 = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_2_PROPERTIES,
                .pNext = has(e, VK_KHR_MAINTENANCE_4_EXTENSION_NAME) ? &p->maintenance4 : NULL},
        .maintenance4 = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MAINTENANCE_4_PROPERTIES_KHR},
        .size_control = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SUBGROUP_SIZE_CONTROL_PROPERTIES_EXT},
    };
    if (has(e, VK_EXT_SUBGROUP_SIZE_CONTROL_EXTENSION_NAME)) {
        p->size_control.pNext = p->core.pNext;
        p->core.pNext = &p->size_control;
    }
    instance->properties(handle, &p->core);
}

static enum rt_class class_of(VkPhysicalDeviceType type)
{
    switch (type) {
    case VK_PHYSICAL_DEVICE_TYPE_DISCRETE_GPU: return RT_CLASS_DISCRETE;
    case VK_PHYSICAL_DEVICE_TYPE_INTEGRATED_GPU: return RT_CLASS_INTEGRATED;
    case VK_PHYSICAL_DEVICE_TYPE_VIRTUAL_GPU: return RT_CLASS_VIRTUAL;
    case VK_PHYSICAL_DEVICE_TYPE_CPU: return RT_CLASS_CPU;
    default: return RT_CLASS_OTHER;
    }
}

static void fill_limits(const struct properties *p, struct rt_limits *out)
{
    const VkPhysicalDeviceLimits *l = &p->core.properties.limits;
    uint64_t align = l->minStorageBufferOffsetAlignment;
    *out = (struct rt_limits){
        .max_range = l->maxStorageBufferRange,
        .max_allocation = p->v11.maxMemoryAllocationSize,
        .max_buffer = p->maintenance4.maxBufferSize ? p->maintenance4.maxBufferSize : p->v11.maxMemoryAllocationSize,
        .offset_align = align == 0 ? 1 : align > 256 ? 256 : (uint32_t)align,
        .max_storage_buffers = l->maxPerStageDescriptorStorageBuffers < l->maxDescriptorSetStorageBuffers
                                   ? l->maxPerStageDescriptorStorageBuffers : l->maxDescriptorSetStorageBuffers,
        .max_push = l->maxPushConstantsSize,
        .max_shared = l->maxComputeSharedMemorySize,
        .max_invocations = l->maxComputeWorkGroupInvocations,
        .subgroup_size = p->v11.subgroupSize,
    };
    for (int i = 0; i < 3; i++) {
        out->max_size[i] = l->maxComputeWorkGroupSize[i];
        out->max_groups[i] = l->maxComputeWorkGroupCount[i];
    }
}

static void fill_info(const struct properties *p, struct rt_device_info *out)
{
    const VkPhysicalDeviceProperties *core = &p->core.properties;
    out->kind = RT_VULKAN;
    out->class_ = class_of(core->deviceType);
    snprintf(out->name, sizeof out->name, "%s", core->deviceName);
    snprintf(out->driver, sizeof out->driver, "%.120s %.120s", p->v12.driverName, p->v12.driverInfo);
    out->api_version = core->apiVersion;
    out->vendor_id = core->vendorID;
    out->device_id = core->deviceID;
    memcpy(out->uuid, p->v11.deviceUUID, sizeof out->uuid);
    fill_limits(p, &out->limits);
}

/* A queue for compute alone is preferred where it can tell the time: it leaves the desktop its own. */
static bool choose_queue(const struct vk_instance *instance, VkPhysicalDevice handle, struct vk_physical *out)
{
    VkQueueFamilyProperties families[32];
    uint32_t n = 32;
    bool found = false;
    int best = -1;
    instance->queues(handle, &n, families);
    for (uint32_t i = 0; i < n; i++) {
        if (!(families[i].queueFlags & VK_QUEUE_COMPUTE_BIT) || families[i].queueCount == 0)
            continue;
        int score = (families[i].timestampValidBits ? 2 : 0) + (families[i].queueFlags & VK_QUEUE_GRAPHICS_BIT ? 0 : 1);
        if (score <= best)
            continue;
        best = score;
        found = true;
        out->queue_family = i;
        out->timestamp_bits = families[i].timestampValidBits;
    }
    return found;
}

static bool has_counters(const struct vk_instance *instance, VkPhysicalDevice handle, const struct extensions *e)
{
    VkPhysicalDevicePerformanceQueryFeaturesKHR performance = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PERFORMANCE_QUERY_FEATURES_KHR};
    VkPhysicalDeviceFeatures2 core = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FEATURES_2, .pNext = &performance};
    if (!has(e, VK_KHR_PERFORMANCE_QUERY_EXTENSION_NAME))
        return false;
    instance->features(handle, &core);
    return performance.performanceCounterQueryPools;
}

static bool has_frame_boundary(const struct vk_instance *instance, VkPhysicalDevice handle, const struct extensions *e)
{
    struct frame_boundary_features boundary = {.sType = FRAME_BOUNDARY_FEATURES};
    VkPhysicalDeviceFeatures2 core = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FEATURES_2, .pNext = &boundary};
    if (!has(e, FRAME_BOUNDARY_NAME))
        return false;
    instance->features(handle, &core);
    return boundary.frameBoundary;
}

static void describe_features(const struct vk_instance *instance, VkPhysicalDevice handle, const struct extensions *e,
                              const struct properties *p, struct vk_physical *out)
{
    struct features f;
    /* Not even asked for where MOSLD_CAPS takes it away: drivers have died of the question. */
    bool matrix = out->clamp.keep & RT_CAP_COOPERATIVE_MATRIX && has(e, VK_KHR_COOPERATIVE_MATRIX_EXTENSION_NAME);
    chain_features(&f, has(e, VK_EXT_SUBGROUP_SIZE_CONTROL_EXTENSION_NAME),
                   has(e, VK_KHR_SHADER_INTEGER_DOT_PRODUCT_EXTENSION_NAME), matrix);
    if (has(e, VK_KHR_PIPELINE_EXECUTABLE_PROPERTIES_EXTENSION_NAME))
        link_in(&f, &f.executables);
    instance->features(handle, &f.core);
    out->executables = f.executables.pipelineExecutableInfo;
    if (p->v11.subgroupSupportedStages & VK_SHADER_STAGE_COMPUTE_BIT)
        out->subgroup_ops = p->v11.subgroupSupportedOperations;
    out->info.caps = caps_of(&f, e, out->subgroup_ops);
    struct rt_limits *l = &out->info.limits;
    if (out->info.caps & RT_CAP_COOPERATIVE_MATRIX && vk_matrix_shape(instance, handle, l->matrix))
        l->matrix_subgroup = p->size_control.requiredSubgroupSizeStages & VK_SHADER_STAGE_COMPUTE_BIT
                                 ? vk_matrix_subgroup(l->matrix, l->subgroup_size, p->size_control.minSubgroupSize,
                                                      p->size_control.maxSubgroupSize)
                                 : l->subgroup_size;
    else
        out->info.caps &= ~(uint32_t)RT_CAP_COOPERATIVE_MATRIX;
    out->int16 = f.core.features.shaderInt16 && out->clamp.int16;
    out->global_priority = has(e, VK_KHR_GLOBAL_PRIORITY_EXTENSION_NAME)   ? VK_KHR_GLOBAL_PRIORITY_EXTENSION_NAME
                           : has(e, VK_EXT_GLOBAL_PRIORITY_EXTENSION_NAME) ? VK_EXT_GLOBAL_PRIORITY_EXTENSION_NAME
                                                                           : NULL;
    out->portability_subset = has(e, "VK_KHR_portability_subset");
    out->calibrated = has(e, VK_EXT_CALIBRATED_TIMESTAMPS_EXTENSION_NAME);
    out->frame_boundary = has_frame_boundary(instance, handle, e);
    out->counters = has_counters(instance, handle, e);
    out->tooling = has(e, VK_EXT_TOOLING_INFO_EXTENSION_NAME);
    out->timestamp_period = (double)p->core.properties.limits.timestampPeriod * 1e-9;
    if (out->timestamp_bits && isfinite(out->timestamp_period) && out->timestamp_period > 0)
        out->info.caps |= RT_CAP_TIMESTAMPS;
}

/* Sizes of subgroups: which there are, and the one that the clamp wants of every pipeline. */
static enum rt_status choose_subgroup(const struct properties *p, struct vk_physical *out, struct rt_error *err)
{
    struct rt_limits *l = &out->info.limits;
    uint32_t wanted = out->clamp.subgroup, usual = p->v11.subgroupSize;
    bool sized = out->info.caps & RT_CAP_SUBGROUP_SIZE && p->size_control.requiredSubgroupSizeStages & VK_SHADER_STAGE_COMPUTE_BIT;
    l->subgroup_sizes[0] = sized ? p->size_control.minSubgroupSize : usual;
    l->subgroup_sizes[1] = sized ? p->size_control.maxSubgroupSize : usual;
    if (!wanted)
        return RT_OK;
    if (!(out->info.caps & RT_CAP_SUBGROUP) || wanted < l->subgroup_sizes[0] || wanted > l->subgroup_sizes[1])
        return rt_fail(err, RT_NO_DEVICE, "MOSLD_CAPS: subgroup=%u: %s offers subgroups of %u to %u", wanted, out->info.name, l->subgroup_sizes[0],
                       l->subgroup_sizes[1]);
    l->subgroup_size = wanted;
    l->matrix_subgroup = l->matrix_subgroup ? wanted : 0;
    if (sized) {
        out->forced_subgroup = wanted;
        out->most_subgroups = p->size_control.maxComputeWorkgroupSubgroups;
    }
    return RT_OK;
}

enum rt_status vk_physical_describe(const struct vk_instance *instance, VkPhysicalDevice handle,
                                    const struct caps_clamp *clamp, struct vk_physical *out, struct rt_error *err)
{
    *out = (struct vk_physical){.handle = handle, .clamp = *clamp};
    VkPhysicalDeviceProperties2 first = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PROPERTIES_2};
    instance->properties(handle, &first);
    uint32_t api = first.properties.apiVersion;
    if (api < VK_API_VERSION_1_2)
        return rt_fail(err, RT_NO_DEVICE, "%s has Vulkan %u.%u and mosld needs 1.2: a newer driver may have it", first.properties.deviceName,
                       VK_API_VERSION_MAJOR(api), VK_API_VERSION_MINOR(api));
    if (!choose_queue(instance, handle, out))
        return rt_fail(err, RT_NO_DEVICE, "%s has no queue for compute", first.properties.deviceName);
    struct extensions e;
    enum rt_status st = get_extensions(instance, handle, &e, err);
    if (st)
        return st;
    struct properties p;
    get_properties(instance, handle, &e, &p);
    fill_info(&p, &out->info);
    describe_features(instance, handle, &e, &p, out);
    free(e.list);
    RT_TRY(choose_subgroup(&p, out, err));
    out->driver_version = p.core.properties.driverVersion;
    out->noncoherent_atom = p.core.properties.limits.nonCoherentAtomSize ? p.core.properties.limits.nonCoherentAtomSize : 1;
    memcpy(out->cache_uuid, p.core.properties.pipelineCacheUUID, sizeof out->cache_uuid);
    VkPhysicalDeviceMemoryProperties2 memory = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MEMORY_PROPERTIES_2};
    instance->memory(handle, &memory);
    out->memory = memory.memoryProperties;
    out->unified = clamp->unified && heap_unified(out->info.class_, &out->memory);
    uint32_t budget = out->info.caps & clamp->keep & RT_CAP_MEMORY_BUDGET;
    out->info.caps = (out->info.caps & ~(uint32_t)RT_CAP_MEMORY_BUDGET) | budget;
    out->info.limits.memory = vk_memory_available(instance, out);
    caps_apply(clamp, &out->info);
    if (!(out->info.caps & RT_CAP_SUBGROUP))
        out->subgroup_ops = 0;
    if (!(out->info.caps & RT_CAP_TIMESTAMPS))
        out->timestamp_bits = 0;
    return RT_OK;
}

/* ---- the logical device ---- */

static void enable(uint32_t caps, bool int16, struct features *f)
{
    chain_features(f, caps & RT_CAP_SUBGROUP_SIZE, caps & RT_CAP_INTEGER_DOT, caps & RT_CAP_COOPERATIVE_MATRIX);
    f->core.features.shaderInt16 = int16;
    f->v11.storageBuffer16BitAccess = (caps & RT_CAP_FP16_STORAGE) != 0;
    f->v12.shaderFloat16 = (caps & RT_CAP_FP16_ARITHMETIC) != 0;
    f->v12.storageBuffer8BitAccess = f->v12.shaderInt8 = (caps & RT_CAP_INT8_STORAGE) != 0;
    f->v12.bufferDeviceAddress = (caps & RT_CAP_BUFFER_ADDRESS) != 0;
    f->size_control.subgroupSizeControl = f->size_control.computeFullSubgroups = VK_TRUE; /* where linked */
    f->dot.shaderIntegerDotProduct = VK_TRUE;
    f->matrix.cooperativeMatrix = VK_TRUE; /* where linked */
    f->v12.vulkanMemoryModel = (caps & RT_CAP_COOPERATIVE_MATRIX) != 0;
}

enum rt_status vk_physical_open(const struct vk_instance *instance, const struct vk_physical *physical, bool executables, bool counters,
                                VkDevice *out, struct rt_error *err)
{
    uint32_t caps = physical->info.caps, n = 0;
    const char *extensions[16];
    if (caps & RT_CAP_PUSH_DESCRIPTOR)
        extensions[n++] = VK_KHR_PUSH_DESCRIPTOR_EXTENSION_NAME;
    if (caps & RT_CAP_MEMORY_BUDGET)
        extensions[n++] = VK_EXT_MEMORY_BUDGET_EXTENSION_NAME;
    if (caps & RT_CAP_SUBGROUP_SIZE)
        extensions[n++] = VK_EXT_SUBGROUP_SIZE_CONTROL_EXTENSION_NAME;
    if (caps & RT_CAP_INTEGER_DOT)
        extensions[n++] = VK_KHR_SHADER_INTEGER_DOT_PRODUCT_EXTENSION_NAME;
    if (caps & RT_CAP_COOPERATIVE_MATRIX)
        extensions[n++] = VK_KHR_COOPERATIVE_MATRIX_EXTENSION_NAME;
    if (physical->calibrated) /* on without being asked for: it costs nothing, and a trace may be started later */
        extensions[n++] = VK_EXT_CALIBRATED_TIMESTAMPS_EXTENSION_NAME;
    if (physical->frame_boundary)
        extensions[n++] = FRAME_BOUNDARY_NAME;
    if (physical->tooling)
        extensions[n++] = VK_EXT_TOOLING_INFO_EXTENSION_NAME;
    if (physical->portability_subset) /* the specification wants it enabled where it is there */
        extensions[n++] = "VK_KHR_portability_subset";
    struct features f;
    enable(caps, physical->int16, &f);
    if (executables && physical->executables) {
        extensions[n++] = VK_KHR_PIPELINE_EXECUTABLE_PROPERTIES_EXTENSION_NAME;
        f.executables.pipelineExecutableInfo = VK_TRUE;
        link_in(&f, &f.executables);
    }
    VkPhysicalDevicePerformanceQueryFeaturesKHR performance = {VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PERFORMANCE_QUERY_FEATURES_KHR, NULL, VK_TRUE,
                                                               VK_FALSE};
    if (counters && physical->counters) {
        extensions[n++] = VK_KHR_PERFORMANCE_QUERY_EXTENSION_NAME;
        f.v12.hostQueryReset = VK_TRUE; /* every device of Vulkan 1.2 has it */
        link_in(&f, &performance);
    }
    struct frame_boundary_features boundary = {FRAME_BOUNDARY_FEATURES, NULL, VK_TRUE};
    void *chain = &f.core;
    if (physical->frame_boundary) {
        boundary.pNext = &f.core;
        chain = &boundary;
    }
    /* Long work shall not make a desktop stutter: below others of this process, and where the driver has it below other processes. */
    float priority = 0;
    VkDeviceQueueGlobalPriorityCreateInfoEXT low = {VK_STRUCTURE_TYPE_DEVICE_QUEUE_GLOBAL_PRIORITY_CREATE_INFO_EXT, NULL,
                                                    VK_QUEUE_GLOBAL_PRIORITY_LOW_EXT};
    if (physical->global_priority)
        extensions[n++] = physical->global_priority;
    VkDeviceQueueCreateInfo queue = {
        .sType = VK_STRUCTURE_TYPE_DEVICE_QUEUE_CREATE_INFO, .pNext = physical->global_priority ? &low : NULL, .queueFamilyIndex = physical->queue_family, .queueCount = 1,
        .pQueuePriorities = &priority,
    };
    VkDeviceCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_DEVICE_CREATE_INFO, .pNext = chain, .queueCreateInfoCount = 1, .pQueueCreateInfos = &queue,
        .enabledExtensionCount = n, .ppEnabledExtensionNames = extensions,
    };
    VkResult r = instance->create_device(physical->handle, &info, NULL, out);
    if (r != VK_SUCCESS && queue.pNext) { /* not everybody may choose, and some drivers refuse what they offer */
        queue.pNext = NULL;
        r = instance->create_device(physical->handle, &info, NULL, out);
    }
    if (r != VK_SUCCESS) {
        *out = VK_NULL_HANDLE;
        vk_fail(NULL, r, "vkCreateDevice", err);
        return rt_fail(err, RT_NO_DEVICE, "%s does not open: vkCreateDevice gave %s", physical->info.name, vk_result_name(r));
    }
    return RT_OK;
}
