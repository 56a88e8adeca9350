/* runtime/vulkan/instance.c - the loader, the instance, and the validation layer with its messages. */
#include "runtime/vulkan/vk.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define VALIDATION_LAYER "VK_LAYER_KHRONOS_validation"

static bool set(const char *variable)
{
    const char *value = getenv(variable);
    return value && *value && strcmp(value, "0") != 0;
}

/* ---- messages ---- */

static VKAPI_ATTR VkBool32 VKAPI_CALL on_message(VkDebugUtilsMessageSeverityFlagBitsEXT severity,
                                                 VkDebugUtilsMessageTypeFlagsEXT type,
                                                 const VkDebugUtilsMessengerCallbackDataEXT *data, void *user)
{
    (void)severity, (void)type;
    struct vk_messages *messages = user;
    pthread_mutex_lock(&messages->lock);
    messages->count++;
    snprintf(messages->last, sizeof messages->last, "%s", data->pMessage ? data->pMessage : "(no text)");
    pthread_mutex_unlock(&messages->lock);
    if (set("MOSLD_VALIDATE"))
        fprintf(stderr, "validation: %s\n", data->pMessage ? data->pMessage : "(no text)");
    return VK_FALSE;
}

static VkDebugUtilsMessengerCreateInfoEXT messenger_info(struct vk_messages *messages)
{
    return (VkDebugUtilsMessengerCreateInfoEXT){
        .sType = VK_STRUCTURE_TYPE_DEBUG_UTILS_MESSENGER_CREATE_INFO_EXT,
        .messageSeverity = VK_DEBUG_UTILS_MESSAGE_SEVERITY_WARNING_BIT_EXT | VK_DEBUG_UTILS_MESSAGE_SEVERITY_ERROR_BIT_EXT,
        .messageType = VK_DEBUG_UTILS_MESSAGE_TYPE_VALIDATION_BIT_EXT | VK_DEBUG_UTILS_MESSAGE_TYPE_PERFORMANCE_BIT_EXT,
        .pfnUserCallback = on_message,
        .pUserData = messages,
    };
}

/* ---- what the loader offers ---- */

/* `layer` NULL: of the loader and its implicit layers. */
static bool has_extension(const char *layer, const char *name)
{
    uint32_t n = 0;
    if (vkEnumerateInstanceExtensionProperties(layer, &n, NULL) != VK_SUCCESS || n == 0)
        return false;
    VkExtensionProperties *list = calloc(n, sizeof *list);
    bool found = false;
    if (list && vkEnumerateInstanceExtensionProperties(layer, &n, list) >= 0)
        for (uint32_t i = 0; i < n; i++)
            found = found || strcmp(list[i].extensionName, name) == 0;
    free(list);
    return found;
}

static bool has_layer(const char *name)
{
    uint32_t n = 0;
    if (vkEnumerateInstanceLayerProperties(&n, NULL) != VK_SUCCESS || n == 0)
        return false;
    VkLayerProperties *list = calloc(n, sizeof *list);
    bool found = false;
    if (list && vkEnumerateInstanceLayerProperties(&n, list) >= 0)
        for (uint32_t i = 0; i < n; i++)
            found = found || strcmp(list[i].layerName, name) == 0;
    free(list);
    return found;
}

/* ---- validation settings ----
 *
 * Synchronization validation is a field of VkValidationFeaturesEXT. Its reach across submissions is not: layers of 2023 read it
 * from the environment, where what the user has set himself stands. Layers since 1.3.27x have it on, but report accesses of
 * shaders only with one more setting, given through VK_EXT_layer_settings; an older header does not know that extension. */
static const VkValidationFeatureEnableEXT enables[] = {VK_VALIDATION_FEATURE_ENABLE_SYNCHRONIZATION_VALIDATION_EXT};
static const VkValidationFeaturesEXT validation_features = {
    .sType = VK_STRUCTURE_TYPE_VALIDATION_FEATURES_EXT,
    .enabledValidationFeatureCount = 1,
    .pEnabledValidationFeatures = enables,
};

#ifdef VK_EXT_layer_settings
static const VkBool32 on = VK_TRUE;
static const VkLayerSettingEXT settings[] = {
    {VALIDATION_LAYER, "validate_sync", VK_LAYER_SETTING_TYPE_BOOL32_EXT, 1, &on},
    {VALIDATION_LAYER, "syncval_submit_time_validation", VK_LAYER_SETTING_TYPE_BOOL32_EXT, 1, &on},
    {VALIDATION_LAYER, "syncval_shader_accesses_heuristic", VK_LAYER_SETTING_TYPE_BOOL32_EXT, 1, &on},
};
static const VkLayerSettingsCreateInfoEXT layer_settings = {
    .sType = VK_STRUCTURE_TYPE_LAYER_SETTINGS_CREATE_INFO_EXT,
    .pNext = &validation_features,
    .settingCount = sizeof settings / sizeof *settings,
    .pSettings = settings,
};
#endif

static const void *validation_chain(const char **extensions, uint32_t *n_extensions)
{
    setenv("VK_LAYER_ENABLES", "VALIDATION_CHECK_ENABLE_SYNCHRONIZATION_VALIDATION_QUEUE_SUBMIT", 0);
    const void *chain = NULL;
    if (has_extension(VALIDATION_LAYER, VK_EXT_VALIDATION_FEATURES_EXTENSION_NAME)) {
        extensions[(*n_extensions)++] = VK_EXT_VALIDATION_FEATURES_EXTENSION_NAME;
        chain = &validation_features;
    }
#ifdef VK_EXT_layer_settings
    if (has_extension(VALIDATION_LAYER, VK_EXT_LAYER_SETTINGS_EXTENSION_NAME)) {
        extensions[(*n_extensions)++] = VK_EXT_LAYER_SETTINGS_EXTENSION_NAME;
        chain = chain ? (const void *)&layer_settings : NULL;
    }
#endif
    return chain;
}

/* ---- the instance ---- */

#define GET(field, name) (instance->field = (PFN_##name)vkGetInstanceProcAddr(instance->handle, #name))

static bool load_functions(struct vk_instance *instance)
{
    bool all = GET(destroy, vkDestroyInstance) != NULL;
    all &= GET(enumerate, vkEnumeratePhysicalDevices) != NULL;
    all &= GET(extensions, vkEnumerateDeviceExtensionProperties) != NULL;
    all &= GET(properties, vkGetPhysicalDeviceProperties2) != NULL;
    all &= GET(features, vkGetPhysicalDeviceFeatures2) != NULL;
    all &= GET(memory, vkGetPhysicalDeviceMemoryProperties2) != NULL;
    all &= GET(queues, vkGetPhysicalDeviceQueueFamilyProperties) != NULL;
    all &= GET(create_device, vkCreateDevice) != NULL;
    if (instance->labels) {
        GET(destroy_messenger, vkDestroyDebugUtilsMessengerEXT);
        GET(set_name, vkSetDebugUtilsObjectNameEXT);
        GET(begin_label, vkCmdBeginDebugUtilsLabelEXT);
        GET(end_label, vkCmdEndDebugUtilsLabelEXT);
        GET(insert_label, vkCmdInsertDebugUtilsLabelEXT);
        GET(queue_begin_label, vkQueueBeginDebugUtilsLabelEXT);
        GET(queue_end_label, vkQueueEndDebugUtilsLabelEXT);
        GET(queue_insert_label, vkQueueInsertDebugUtilsLabelEXT);
        instance->labels = instance->set_name && instance->begin_label && instance->end_label;
    }
    return all;
}

static enum rt_status listen(struct vk_instance *instance, struct rt_error *err)
{
    PFN_vkCreateDebugUtilsMessengerEXT create =
        (PFN_vkCreateDebugUtilsMessengerEXT)vkGetInstanceProcAddr(instance->handle, "vkCreateDebugUtilsMessengerEXT");
    VkDebugUtilsMessengerCreateInfoEXT info = messenger_info(instance->messages);
    VkResult r = create ? create(instance->handle, &info, NULL, &instance->messenger) : VK_ERROR_EXTENSION_NOT_PRESENT;
    return r == VK_SUCCESS ? RT_OK : vk_fail(NULL, r, "vkCreateDebugUtilsMessengerEXT", err);
}

static enum rt_status create(struct vk_instance *instance, bool validate, struct rt_error *err)
{
    const char *extensions[8];
    const char *layer = VALIDATION_LAYER;
    uint32_t n_extensions = 0;
    VkApplicationInfo app = {
        .sType = VK_STRUCTURE_TYPE_APPLICATION_INFO, .pApplicationName = "mosld", .pEngineName = "mosld", .apiVersion = VK_API_VERSION_1_2,
    };
    VkInstanceCreateInfo info = {.sType = VK_STRUCTURE_TYPE_INSTANCE_CREATE_INFO, .pApplicationInfo = &app};
    if (has_extension(NULL, VK_KHR_PORTABILITY_ENUMERATION_EXTENSION_NAME)) {
        extensions[n_extensions++] = VK_KHR_PORTABILITY_ENUMERATION_EXTENSION_NAME;
        info.flags |= VK_INSTANCE_CREATE_ENUMERATE_PORTABILITY_BIT_KHR;
    }
    /* On wherever it is there: whether a tool listens is known once there is a device, and unused it costs nothing. */
    instance->labels = has_extension(NULL, VK_EXT_DEBUG_UTILS_EXTENSION_NAME) ||
                       (validate && has_extension(VALIDATION_LAYER, VK_EXT_DEBUG_UTILS_EXTENSION_NAME));
    if (instance->labels)
        extensions[n_extensions++] = VK_EXT_DEBUG_UTILS_EXTENSION_NAME;
    VkDebugUtilsMessengerCreateInfoEXT messenger;
    if (validate) {
        messenger = messenger_info(instance->messages); /* for messages about creating the instance itself */
        messenger.pNext = validation_chain(extensions, &n_extensions);
        info.pNext = &messenger;
        info.enabledLayerCount = 1;
        info.ppEnabledLayerNames = &layer;
    }
    info.enabledExtensionCount = n_extensions;
    info.ppEnabledExtensionNames = extensions;
    VkResult r = vkCreateInstance(&info, NULL, &instance->handle);
    if (r == VK_ERROR_INCOMPATIBLE_DRIVER)
        return rt_fail(err, RT_NO_DEVICE, "no Vulkan driver is installed (on Debian and Ubuntu: mesa-vulkan-drivers), so only the host device is there");
    return r == VK_SUCCESS ? RT_OK : vk_fail(NULL, r, "vkCreateInstance", err);
}

enum rt_status vk_instance_init(struct vk_instance *instance, bool validate, struct rt_error *err)
{
    *instance = (struct vk_instance){0};
    if (volkInitialize() != VK_SUCCESS)
        return rt_fail(err, RT_NO_DEVICE, "no Vulkan loader (libvulkan.so.1) is installed, so only the host device is there");
    if (volkGetInstanceVersion() < VK_API_VERSION_1_2)
        return rt_fail(err, RT_NO_DEVICE, "the Vulkan loader is older than 1.2, so only the host device is there");
    enum rt_status st;
    if (validate) {
        if (!has_layer(VALIDATION_LAYER))
            return rt_fail(err, RT_NO_DEVICE, "validation was asked for and " VALIDATION_LAYER
                           " is not installed: on Debian and Ubuntu it is in vulkan-validationlayers");
        instance->messages = calloc(1, sizeof *instance->messages);
        if (!instance->messages)
            return rt_fail(err, RT_NO_MEMORY, "no memory for a Vulkan instance");
        pthread_mutex_init(&instance->messages->lock, NULL);
    }
    st = create(instance, validate, err);
    if (st)
        goto fail;
    volkLoadInstanceOnly(instance->handle); /* gives volkLoadDeviceTable its vkGetDeviceProcAddr */
    if (!load_functions(instance)) {
        st = rt_fail(err, RT_NO_DEVICE, "the Vulkan loader lacks functions of Vulkan 1.2");
        goto fail;
    }
    st = validate ? listen(instance, err) : RT_OK;
    if (st == RT_OK)
        return RT_OK;
fail:
    vk_instance_finish(instance);
    return st;
}

void vk_instance_finish(struct vk_instance *instance)
{
    if (instance->messenger)
        instance->destroy_messenger(instance->handle, instance->messenger, NULL);
    if (instance->handle && instance->destroy)
        instance->destroy(instance->handle, NULL);
    if (instance->messages) {
        pthread_mutex_destroy(&instance->messages->lock);
        free(instance->messages);
    }
    *instance = (struct vk_instance){0};
}
