/* runtime/vulkan/labels.c - what debuggers see of scopes, kernels and objects, and captures of a scope for every tool at once.
 *
 * Labels nest inside a command buffer, so the scopes that are open are opened again in each new one, and closed at its end. */
#include "runtime/vulkan/vk.h"

#include <stdio.h>
#include <string.h>

static void open_one(struct vk_device *dev, struct vk_submission *s, const struct rt_open_scope *scope)
{
    char text[96];
    VkDebugUtilsLabelEXT info = {.sType = VK_STRUCTURE_TYPE_DEBUG_UTILS_LABEL_EXT, .pLabelName = rt_scope_text(scope, text, sizeof text)};
    dev->instance.begin_label(s->cmd, &info);
    s->labels_open++;
}

void vk_labels_open(struct vk_device *dev, struct vk_submission *s)
{
    s->labels_open = 0;
    for (unsigned i = 0; dev->base.labels && i < dev->base.scopes.depth; i++)
        open_one(dev, s, &dev->base.scopes.open[i]);
}

void vk_labels_close(struct vk_device *dev, struct vk_submission *s)
{
    for (; s->labels_open; s->labels_open--)
        dev->instance.end_label(s->cmd);
}

void vk_label_begin(struct rt_device *base)
{
    struct vk_device *dev = vk_of(base);
    struct vk_submission *s = &dev->ring[dev->current];
    if (s->state == VK_RECORDING)
        open_one(dev, s, &base->scopes.open[base->scopes.depth - 1]);
}

void vk_label_end(struct rt_device *base)
{
    struct vk_device *dev = vk_of(base);
    struct vk_submission *s = &dev->ring[dev->current];
    if (s->state == VK_RECORDING && s->labels_open > base->scopes.depth) {
        dev->instance.end_label(s->cmd);
        s->labels_open--;
    }
}

void vk_label_command(struct vk_device *dev, VkCommandBuffer cmd, const char *name)
{
    VkDebugUtilsLabelEXT info = {.sType = VK_STRUCTURE_TYPE_DEBUG_UTILS_LABEL_EXT, .pLabelName = name};
    if (dev->base.labels && name)
        dev->instance.begin_label(cmd, &info);
    else if (dev->base.labels)
        dev->instance.end_label(cmd);
}

void vk_label_bindings(struct vk_device *dev, VkCommandBuffer cmd, const struct rt_kernel *kernel, const struct rt_span *spans)
{
    char text[512] = "";
    size_t n = 0;
    if (!dev->base.labels || !dev->instance.insert_label)
        return;
    for (uint32_t i = 0; i < kernel->n_bindings && n < sizeof text; i++) {
        const char *label = rt_region_at(spans[i].buffer, spans[i].offset);
        n += (size_t)snprintf(text + n, sizeof text - n, "%s%s: %s", i ? ", " : "", kernel->bindings[i].name, label ? label : "?");
    }
    VkDebugUtilsLabelEXT info = {.sType = VK_STRUCTURE_TYPE_DEBUG_UTILS_LABEL_EXT, .pLabelName = text};
    if (n)
        dev->instance.insert_label(cmd, &info);
}

void vk_label_submission(struct vk_device *dev, const struct vk_submission *s, bool begin)
{
    char text[160], scope[64] = "";
    if (!dev->base.labels || !dev->instance.queue_begin_label || !dev->instance.queue_end_label)
        return;
    if (!begin) {
        dev->instance.queue_end_label(dev->queue);
        return;
    }
    if (dev->base.scopes.depth)
        rt_scope_text(&dev->base.scopes.open[0], scope, sizeof scope);
    const char *first = s->n_labels ? s->labels[0] : "", *last = s->n_labels ? s->labels[s->n_labels - 1] : "";
    snprintf(text, sizeof text, "submission %llu%s%s%s%.40s%s%.40s", (unsigned long long)s->number, *scope ? ": " : "", scope,
             *first ? ": " : "", first, strcmp(first, last) ? " to " : "", strcmp(first, last) ? last : "");
    VkDebugUtilsLabelEXT info = {.sType = VK_STRUCTURE_TYPE_DEBUG_UTILS_LABEL_EXT, .pLabelName = text};
    dev->instance.queue_begin_label(dev->queue, &info);
}

void vk_labels_name_device(struct vk_device *dev)
{
    char text[64];
    vk_name(dev, VK_OBJECT_TYPE_QUEUE, (uint64_t)(uintptr_t)dev->queue, "mosld queue");
    for (int i = 0; i < VK_RING; i++) {
        snprintf(text, sizeof text, "mosld commands %d", i);
        vk_name(dev, VK_OBJECT_TYPE_COMMAND_BUFFER, (uint64_t)(uintptr_t)dev->ring[i].cmd, text);
    }
}
