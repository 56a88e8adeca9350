/* runtime/vulkan/kernel.c - kernels on this device: whether they can run, layouts, pipelines. */
#include "runtime/vulkan/divide.h"
#include "runtime/vulkan/vk.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const char *rt_kernels_id(void) { return rt_shaders_id; }

/* ---- the table, by address of the descriptor ---- */

static size_t slot_of(const struct vk_device *dev, const struct rt_kernel *desc)
{
    uint64_t h = (uint64_t)(uintptr_t)desc * 0x9e3779b97f4a7c15u;
    size_t slot = (size_t)(h >> 32) & (dev->kernel_slots - 1);
    while (dev->kernels[slot] && dev->kernels[slot]->desc != desc)
        slot = (slot + 1) & (dev->kernel_slots - 1);
    return slot;
}

static bool grow(struct vk_device *dev)
{
    if (dev->kernel_slots > 2 * (dev->n_kernels + 1))
        return true;
    struct vk_kernel **old = dev->kernels;
    size_t old_slots = dev->kernel_slots, slots = old_slots ? old_slots * 2 : 256;
    struct vk_kernel **grown = calloc(slots, sizeof *grown);
    if (!grown)
        return false;
    dev->kernels = grown;
    dev->kernel_slots = slots;
    for (size_t i = 0; i < old_slots; i++)
        if (old[i])
            dev->kernels[slot_of(dev, old[i]->desc)] = old[i];
    free(old);
    return true;
}

/* ---- whether it can run ---- */

/* By the name up to a #. */
static int compare_name(const char *name, size_t length, const char *with)
{
    int order = strncmp(name, with, length);
    return order ? order : -(with[length] != 0);
}

static const struct rt_shader *find_shader(const char *name)
{
    size_t low = 0, high = rt_n_shaders, length = strcspn(name, "#");
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = compare_name(name, length, rt_shaders[middle].name);
        if (order == 0)
            return &rt_shaders[middle];
        if (order < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return NULL;
}

#define REFUSE(...) return (void)snprintf(k->why_not, sizeof k->why_not, __VA_ARGS__), false

/* The device against what the shader asks for. */
static bool device_can(const struct vk_device *dev, struct vk_kernel *k)
{
    const struct rt_limits *l = &dev->base.info.limits;
    const struct reflection *n = &k->needs;
    uint32_t missing = n->caps & ~dev->base.info.caps;
    uint32_t buffers = k->desc->n_bindings > n->n_bindings ? k->desc->n_bindings : n->n_bindings;
    uint64_t invocations = (uint64_t)n->local_size[0] * n->local_size[1] * n->local_size[2];
    if (n->unknown_capability)
        REFUSE("its SPIR-V asks for capability %u, which mosld never enables", n->unknown_capability);
    if (missing)
        REFUSE("it needs %s%s%s%s%s%s", missing & RT_CAP_FP16_STORAGE ? "16-bit storage, " : "",
               missing & RT_CAP_FP16_ARITHMETIC ? "16-bit arithmetic, " : "", missing & RT_CAP_INT8_STORAGE ? "8-bit storage, " : "",
               missing & RT_CAP_SUBGROUP ? "subgroup operations, " : "",
               missing & RT_CAP_COOPERATIVE_MATRIX ? "cooperative matrices, " : "",
               "which the device lacks or MOSLD_CAPS takes away");
    if (n->subgroup_ops & ~dev->physical.subgroup_ops)
        REFUSE("it needs subgroup operations %#x and the device has %#x", n->subgroup_ops, dev->physical.subgroup_ops);
    if (n->int16 && !dev->physical.int16)
        REFUSE("it needs 16-bit integers");
    if (buffers > l->max_storage_buffers)
        REFUSE("it binds %u storage buffers and the device allows %u", buffers, l->max_storage_buffers);
    if (n->shared_bytes > l->max_shared)
        REFUSE("it needs %u bytes of shared memory and the device has %u", n->shared_bytes, l->max_shared);
    uint32_t push = k->desc->push_size > n->push_bytes ? k->desc->push_size : n->push_bytes;
    if (push > l->max_push)
        REFUSE("it needs %u bytes of push constants and the device has %u", push, l->max_push);
    if (invocations == 0 || invocations > l->max_invocations)
        REFUSE("its workgroups have %llu invocations and the device allows %u", (unsigned long long)invocations, l->max_invocations);
    if (dev->physical.forced_subgroup && invocations > (uint64_t)dev->physical.forced_subgroup * dev->physical.most_subgroups)
        REFUSE("its workgroups have %llu invocations and the device allows %u subgroups of %u, the size that MOSLD_CAPS forces",
               (unsigned long long)invocations, dev->physical.most_subgroups, dev->physical.forced_subgroup);
    for (int i = 0; i < 3; i++)
        if (n->local_size[i] > l->max_size[i])
            REFUSE("its workgroups are %u wide in dimension %d and the device allows %u", n->local_size[i], i, l->max_size[i]);
    return true;
}

/* The descriptor against the shader: where they disagree, barriers would be wrong. A fault of ours, so that it is
 * reported when the kernel is built, rather than taken for a device that cannot run it. */
static enum rt_status check_interface(const struct vk_kernel *k, struct rt_error *err)
{
    const struct rt_kernel *d = k->desc;
    const struct reflection *n = &k->needs;
    if (n->other_sets || n->n_bindings > d->n_bindings)
        return rt_fail(err, RT_FAILED, "kernel %s: the shader uses more than the %u storage buffers of set 0 that its descriptor declares",
                       d->name, d->n_bindings);
    if (n->push_bytes > d->push_size || d->push_size % 4)
        return rt_fail(err, RT_FAILED, "kernel %s: the shader reads %u bytes of push constants and its descriptor gives %u (a multiple of 4)",
                       d->name, n->push_bytes, d->push_size);
    for (uint32_t i = 0; i < n->n_bindings; i++)
        if (n->access[i] & ~(unsigned)d->bindings[i].access)
            return rt_fail(err, RT_FAILED, "kernel %s: the shader %s binding %u (%s), which its descriptor does not declare", d->name,
                           n->access[i] & ~(unsigned)d->bindings[i].access & RT_WRITE ? "writes" : "reads", i, d->bindings[i].name);
    return RT_OK;
}

static bool judge(const struct vk_device *dev, struct vk_kernel *k)
{
    k->shader = find_shader(k->desc->name);
    if (!k->shader)
        REFUSE("it is not in shaders/manifest.txt");
    if (!reflect_spirv(k->shader->words, k->shader->n_words, &k->needs))
        REFUSE("its SPIR-V cannot be read");
    return device_can(dev, k);
}

struct vk_kernel *vk_kernel_find(struct vk_device *dev, const struct rt_kernel *desc)
{
    if (dev->kernel_slots) {
        struct vk_kernel *k = dev->kernels[slot_of(dev, desc)];
        if (k)
            return k;
    }
    struct vk_kernel *k = grow(dev) ? calloc(1, sizeof *k) : NULL;
    if (!k)
        return NULL;
    k->desc = desc;
    k->supported = judge(dev, k);
    dev->kernels[slot_of(dev, desc)] = k;
    dev->n_kernels++;
    return k;
}

bool vk_kernel_supported(const struct rt_device *dev, const struct rt_kernel *desc)
{
    struct vk_kernel *k = vk_kernel_find(vk_of(dev), desc);
    return k && k->supported;
}

/* ---- layouts ---- */

static enum rt_status set_layout(struct vk_device *dev, uint32_t n, VkDescriptorSetLayout *out, struct rt_error *err)
{
    if (!dev->set_layouts[n]) {
        VkDescriptorSetLayoutBinding bindings[RT_MAX_BINDINGS];
        for (uint32_t i = 0; i < n; i++)
            bindings[i] = (VkDescriptorSetLayoutBinding){i, VK_DESCRIPTOR_TYPE_STORAGE_BUFFER, 1, VK_SHADER_STAGE_COMPUTE_BIT, NULL};
        VkDescriptorSetLayoutCreateInfo info = {
            .sType = VK_STRUCTURE_TYPE_DESCRIPTOR_SET_LAYOUT_CREATE_INFO,
            .flags = dev->base.info.caps & RT_CAP_PUSH_DESCRIPTOR ? VK_DESCRIPTOR_SET_LAYOUT_CREATE_PUSH_DESCRIPTOR_BIT_KHR : 0,
            .bindingCount = n, .pBindings = bindings,
        };
        VK_TRY(dev, dev->fn.vkCreateDescriptorSetLayout(dev->handle, &info, NULL, &dev->set_layouts[n]), err);
    }
    *out = dev->set_layouts[n];
    return RT_OK;
}

/* What has to happen on the user's thread, before the pipeline may be built on any. */
static enum rt_status lay_out(struct vk_device *dev, struct vk_kernel *k, struct rt_error *err)
{
    if (!k->supported)
        return rt_fail(err, RT_NO_DEVICE, "kernel %s cannot run on %s: %s", k->desc->name, dev->base.info.name, k->why_not);
    if (k->layout)
        return RT_OK;
    enum rt_status st = check_interface(k, err);
    if (st)
        return st;
    VkDescriptorSetLayout set;
    st = set_layout(dev, k->desc->n_bindings, &set, err);
    if (st)
        return st;
    VkPushConstantRange push = {VK_SHADER_STAGE_COMPUTE_BIT, 0, k->desc->push_size};
    VkPipelineLayoutCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_PIPELINE_LAYOUT_CREATE_INFO, .setLayoutCount = 1, .pSetLayouts = &set,
        .pushConstantRangeCount = k->desc->push_size ? 1 : 0, .pPushConstantRanges = &push,
    };
    VK_TRY(dev, dev->fn.vkCreatePipelineLayout(dev->handle, &info, NULL, &k->layout), err);
    return RT_OK;
}

/* ---- pipelines ---- */

/* Full subgroups where the shader counts on subgroups at all and its rows can be cut so. */
static VkPipelineShaderStageCreateFlags stage_flags(const struct vk_device *dev, const struct vk_kernel *k)
{
    bool full = k->needs.subgroup_ops && (dev->base.info.caps & RT_CAP_SUBGROUP_SIZE) && dev->base.info.limits.subgroup_size &&
                k->needs.local_size[0] % dev->base.info.limits.subgroup_size == 0;
    return full ? VK_PIPELINE_SHADER_STAGE_CREATE_REQUIRE_FULL_SUBGROUPS_BIT_EXT : 0;
}

/* The module's words with its specialisation constants at the values that this device and kernel want; NULL: no memory. They are set in the
 * words, since validation layers of 2025 look at the sizes of cooperative matrices without heeding VkSpecializationInfo. */
static uint32_t *specialised(const struct vk_device *dev, const struct vk_kernel *k)
{
    const struct rt_limits *l = &dev->base.info.limits;
    size_t n = k->shader->n_words;
    uint32_t *words = malloc(n * sizeof *words);
    if (!words)
        return NULL;
    memcpy(words, k->shader->words, n * sizeof *words);
    const char *constant = strchr(k->desc->name, '#');
    if (constant)
        reflect_set_constant(words, n, 0, (uint32_t)strtoul(constant + 1, NULL, 10));
    for (uint32_t i = 0; i < 3 && k->needs.caps & RT_CAP_COOPERATIVE_MATRIX; i++)
        reflect_set_constant(words, n, 100 + i, l->matrix[i]);
    if (k->needs.caps & RT_CAP_COOPERATIVE_MATRIX)
        reflect_set_constant(words, n, 103, l->matrix_subgroup);
    return words;
}

static bool is_divisible(const struct rt_kernel *desc)
{
    bool writes = false;
    for (uint32_t i = 0; i < desc->n_bindings; i++) {
        unsigned access = desc->bindings[i].access;
        if ((access & RT_WRITE) && (access & RT_WRITE_BY_GROUPS) != RT_WRITE_BY_GROUPS)
            return false;
        writes |= (access & RT_WRITE) != 0;
    }
    return writes;
}

/* Touches nothing of the device but its handles: any thread may call it. */
static VkResult build(struct vk_device *dev, struct vk_kernel *k)
{
    uint32_t *words = specialised(dev, k);
    if (!words)
        return VK_ERROR_OUT_OF_HOST_MEMORY;
    size_t n_divided = 0;
    uint32_t *divided = is_divisible(k->desc) ? divide_spirv(words, k->shader->n_words, &n_divided) : NULL;
    VkShaderModuleCreateInfo module_info = {
        .sType = VK_STRUCTURE_TYPE_SHADER_MODULE_CREATE_INFO, .codeSize = k->shader->n_words * sizeof(uint32_t), .pCode = words,
    };
    if (divided)
        module_info.codeSize = n_divided * sizeof *divided, module_info.pCode = divided;
    k->divided = divided != NULL;
    VkShaderModule module;
    VkResult r = dev->fn.vkCreateShaderModule(dev->handle, &module_info, NULL, &module);
    free(words);
    free(divided);
    if (r != VK_SUCCESS)
        return r;
    VkPipelineShaderStageRequiredSubgroupSizeCreateInfoEXT size = {
        .sType = VK_STRUCTURE_TYPE_PIPELINE_SHADER_STAGE_REQUIRED_SUBGROUP_SIZE_CREATE_INFO_EXT,
        .requiredSubgroupSize = dev->physical.forced_subgroup ? dev->physical.forced_subgroup : dev->base.info.limits.matrix_subgroup,
    };
    bool sized = dev->physical.forced_subgroup || (k->needs.caps & RT_CAP_COOPERATIVE_MATRIX && dev->base.info.caps & RT_CAP_SUBGROUP_SIZE &&
                                                   size.requiredSubgroupSize != dev->base.info.limits.subgroup_size);
    VkComputePipelineCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_COMPUTE_PIPELINE_CREATE_INFO,
        .flags = (k->divided ? VK_PIPELINE_CREATE_DISPATCH_BASE_BIT : 0) |
                 (dev->capture >= RT_CAPTURE_STATISTICS ? VK_PIPELINE_CREATE_CAPTURE_STATISTICS_BIT_KHR : 0) |
                 (dev->capture >= RT_CAPTURE_ASSEMBLY ? VK_PIPELINE_CREATE_CAPTURE_INTERNAL_REPRESENTATIONS_BIT_KHR : 0),
        .stage = {.sType = VK_STRUCTURE_TYPE_PIPELINE_SHADER_STAGE_CREATE_INFO, .pNext = sized ? &size : NULL, .flags = stage_flags(dev, k),
                  .stage = VK_SHADER_STAGE_COMPUTE_BIT, .module = module, .pName = "main"},
        .layout = k->layout,
        .basePipelineIndex = -1,
    };
    r = dev->fn.vkCreateComputePipelines(dev->handle, dev->cache, 1, &info, NULL, &k->pipeline);
    dev->fn.vkDestroyShaderModule(dev->handle, module, NULL);
    if (r != VK_SUCCESS)
        k->pipeline = VK_NULL_HANDLE;
    return r;
}

static enum rt_status built(struct vk_device *dev, struct vk_kernel *k, VkResult r, struct rt_error *err)
{
    if (r != VK_SUCCESS) {
        char what[200];
        snprintf(what, sizeof what, "building the pipeline of kernel %s", k->desc->name);
        return vk_fail(dev, r, what, err);
    }
    vk_name(dev, VK_OBJECT_TYPE_PIPELINE, (uint64_t)(uintptr_t)k->pipeline, k->desc->name);
    dev->statistics.pipelines_built++;
    return RT_OK;
}

enum rt_status vk_kernel_ready(struct vk_device *dev, struct vk_kernel *k, struct rt_error *err)
{
    if (k->pipeline)
        return RT_OK;
    enum rt_status st = lay_out(dev, k, err);
    if (st)
        return st;
    uint32_t event = rt_trace_add(dev->base.trace, RT_EVENT_BUILD, k->desc->name, 0);
    VkResult r = build(dev, k);
    rt_trace_close(dev->base.trace, event);
    return built(dev, k, r, err);
}

/* ---- many at once ---- */

struct job {
    struct vk_kernel *kernel;
    VkResult result;
};

struct crew {
    struct vk_device *dev;
    struct job *jobs;
    size_t n, next; /* next: taken by atomic increments */
};

static void *work(void *arg)
{
    struct crew *crew = arg;
    for (;;) {
        size_t i = __atomic_fetch_add(&crew->next, 1, __ATOMIC_RELAXED);
        if (i >= crew->n)
            return NULL;
        crew->jobs[i].result = build(crew->dev, crew->jobs[i].kernel);
    }
}

static void run_crew(struct crew *crew)
{
    pthread_t threads[16];
    long processors = sysconf(_SC_NPROCESSORS_ONLN);
    size_t wanted = processors > 16 ? 16 : processors < 1 ? 1 : (size_t)processors, started = 0;
    while (started + 1 < wanted && started + 1 < crew->n && pthread_create(&threads[started], NULL, work, crew) == 0)
        started++;
    work(crew);
    for (size_t i = 0; i < started; i++)
        pthread_join(threads[i], NULL);
}

enum rt_status vk_kernels_prepare(struct rt_device *base, const struct rt_kernel *const *kernels, size_t count,
                                  struct rt_error *err)
{
    struct vk_device *dev = vk_of(base);
    struct crew crew = {.dev = dev, .jobs = calloc(count ? count : 1, sizeof(struct job))};
    if (!crew.jobs)
        return rt_fail(err, RT_NO_MEMORY, "no memory to build %zu kernels", count);
    enum rt_status st = RT_OK;
    for (size_t i = 0; i < count && st == RT_OK; i++) {
        struct vk_kernel *k = vk_kernel_find(dev, kernels[i]);
        if (!k) {
            st = rt_fail(err, RT_NO_MEMORY, "no memory for kernel %s", kernels[i]->name);
            break;
        }
        st = lay_out(dev, k, err);
        if (st == RT_OK && !k->pipeline && !k->queued) { /* a kernel that stands in the list twice is built once */
            k->queued = true;
            crew.jobs[crew.n++].kernel = k;
        }
    }
    for (size_t i = 0; i < crew.n; i++)
        crew.jobs[i].kernel->queued = false;
    if (st == RT_OK) {
        run_crew(&crew);
        for (size_t i = 0; i < crew.n; i++) {
            enum rt_status one = built(dev, crew.jobs[i].kernel, crew.jobs[i].result, st ? NULL : err);
            st = st ? st : one;
        }
        vk_cache_save(dev);
    }
    free(crew.jobs);
    return st;
}

void vk_kernels_finish(struct vk_device *dev)
{
    for (size_t i = 0; i < dev->kernel_slots; i++) {
        struct vk_kernel *k = dev->kernels[i];
        if (!k)
            continue;
        dev->fn.vkDestroyPipeline(dev->handle, k->pipeline, NULL);
        dev->fn.vkDestroyPipelineLayout(dev->handle, k->layout, NULL);
        free(k);
    }
    free(dev->kernels);
    dev->kernels = NULL;
    dev->kernel_slots = dev->n_kernels = 0;
    for (int i = 0; i <= RT_MAX_BINDINGS; i++)
        dev->fn.vkDestroyDescriptorSetLayout(dev->handle, dev->set_layouts[i], NULL);
}
