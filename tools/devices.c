/* tools/devices.c - mosld devices: what mosld can run on, and what of it is used. */
#include "runtime/rt.h"
#include "tools/commands.h"

#include <cjson/cJSON.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct {
    uint32_t bit;
    const char *name; /* as MOSLD_CAPS takes it */
} caps[] = {
    {RT_CAP_FP16_STORAGE, "fp16-storage"},
    {RT_CAP_FP16_ARITHMETIC, "fp16-arithmetic"},
    {RT_CAP_INT8_STORAGE, "int8"},
    {RT_CAP_SUBGROUP, "subgroup"},
    {RT_CAP_SUBGROUP_SIZE, "subgroup-size"},
    {RT_CAP_INTEGER_DOT, "integer-dot"},
    {RT_CAP_COOPERATIVE_MATRIX, "cooperative-matrix"},
    {RT_CAP_PUSH_DESCRIPTOR, "push-descriptor"},
    {RT_CAP_MEMORY_BUDGET, "memory-budget"},
    {RT_CAP_BUFFER_ADDRESS, "buffer-address"},
    {RT_CAP_TIMESTAMPS, "timestamps"},
};
#define N_CAPS (sizeof caps / sizeof *caps)

static const char *kind_name(const struct rt_device_info *d) { return d->kind == RT_HOST ? "host" : "vulkan"; }

static const char *class_name(enum rt_class c)
{
    static const char *const names[] = {"other", "cpu", "virtual", "integrated", "discrete"};
    return (unsigned)c < sizeof names / sizeof *names ? names[c] : "other";
}

/* The same devices without MOSLD_CAPS, so that what a clamp took away can be shown. NULL when there is no clamp. */
static struct rt_device_info *unclamped(size_t count)
{
    const char *set = getenv("MOSLD_CAPS");
    char *kept = set && *set ? strdup(set) : NULL;
    if (!kept)
        return NULL;
    struct rt_device_info *list = NULL;
    size_t n = 0;
    unsetenv("MOSLD_CAPS");
    enum rt_status st = rt_devices_list(&list, &n, NULL, 0, NULL);
    setenv("MOSLD_CAPS", kept, 1);
    free(kept);
    if (st != RT_OK || n != count) { /* a device came or went between the two calls */
        free(list);
        return NULL;
    }
    return list;
}

static uint32_t taken_away(const struct rt_device_info *list, const struct rt_device_info *whole, size_t i)
{
    return whole ? whole[i].caps & ~list[i].caps : 0;
}

/* ---- for people ---- */

static void print_caps(const char *title, uint32_t bits)
{
    printf("    %-13s", title);
    for (size_t c = 0; c < N_CAPS; c++)
        if (bits & caps[c].bit)
            printf(" %s", caps[c].name);
    printf("%s\n", bits ? "" : " nothing beyond the floor of Vulkan 1.2");
}

static void print_vulkan(const struct rt_device_info *d, uint32_t clamped)
{
    const struct rt_limits *l = &d->limits;
    char sizes[48] = "";
    if (l->subgroup_sizes[0] < l->subgroup_sizes[1])
        snprintf(sizes, sizeof sizes, " (%u to %u can be forced)", l->subgroup_sizes[0], l->subgroup_sizes[1]);
    printf(
        "    limits        binding %.0f MiB, buffer %.0f MiB, allocation %.0f MiB, offsets of %u, %u storage buffers,\n"
        "                  %u bytes of push constants, %u KiB shared, %u invocations (%u x %u x %u), subgroup %u%s\n",
        (double)l->max_range / (1 << 20), (double)l->max_buffer / (1 << 20), (double)l->max_allocation / (1 << 20),
        l->offset_align, l->max_storage_buffers, l->max_push, l->max_shared / 1024, l->max_invocations, l->max_size[0],
        l->max_size[1], l->max_size[2], l->subgroup_size, sizes);
    print_caps("used", d->caps);
    if (clamped)
        print_caps("clamped", clamped);
}

static void print_people(const struct rt_device_info *list, const struct rt_device_info *whole, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        const struct rt_device_info *d = &list[i];
        printf("%d%s %s\n", d->index, i == 0 ? " *" : "  ", d->name);
        printf("    kind          %s, %s\n    driver        %s\n", kind_name(d), class_name(d->class_), d->driver);
        if (d->kind == RT_VULKAN)
            printf("    Vulkan        %u.%u.%u\n", d->api_version >> 22 & 0x7f, d->api_version >> 12 & 0x3ff,
                   d->api_version & 0xfff);
        printf("    memory        %.0f MiB\n", (double)d->limits.memory / (1 << 20));
        if (d->kind == RT_VULKAN)
            print_vulkan(d, taken_away(list, whole, i));
    }
    printf("* is what --device auto takes\n");
}

/* ---- for programs ---- */

static cJSON *caps_json(uint32_t bits)
{
    cJSON *array = cJSON_CreateArray();
    for (size_t c = 0; c < N_CAPS; c++)
        if (bits & caps[c].bit)
            cJSON_AddItemToArray(array, cJSON_CreateString(caps[c].name));
    return array;
}

static cJSON *limits_json(const struct rt_limits *l)
{
    cJSON *o = cJSON_CreateObject();
    cJSON_AddNumberToObject(o, "max_range", (double)l->max_range);
    cJSON_AddNumberToObject(o, "max_buffer", (double)l->max_buffer);
    cJSON_AddNumberToObject(o, "max_allocation", (double)l->max_allocation);
    cJSON_AddNumberToObject(o, "offset_align", l->offset_align);
    cJSON_AddNumberToObject(o, "max_storage_buffers", l->max_storage_buffers);
    cJSON_AddNumberToObject(o, "max_push", l->max_push);
    cJSON_AddNumberToObject(o, "max_shared", l->max_shared);
    cJSON_AddNumberToObject(o, "max_invocations", l->max_invocations);
    cJSON_AddItemToObject(o, "max_size", cJSON_CreateIntArray((const int *)l->max_size, 3));
    cJSON_AddItemToObject(
        o, "max_groups", cJSON_CreateDoubleArray((double[3]){l->max_groups[0], l->max_groups[1], l->max_groups[2]}, 3));
    cJSON_AddNumberToObject(o, "subgroup_size", l->subgroup_size);
    cJSON_AddItemToObject(o, "subgroup_sizes", cJSON_CreateDoubleArray((double[2]){l->subgroup_sizes[0], l->subgroup_sizes[1]}, 2));
    return o;
}

static cJSON *device_json(const struct rt_device_info *d, uint32_t clamped)
{
    cJSON *o = cJSON_CreateObject();
    char text[33];
    cJSON_AddNumberToObject(o, "index", d->index);
    cJSON_AddStringToObject(o, "name", d->name);
    cJSON_AddStringToObject(o, "kind", kind_name(d));
    cJSON_AddStringToObject(o, "class", class_name(d->class_));
    cJSON_AddStringToObject(o, "driver", d->driver);
    cJSON_AddNumberToObject(o, "memory", (double)d->limits.memory);
    if (d->kind == RT_HOST)
        return o;
    snprintf(text, sizeof text, "%u.%u.%u", d->api_version >> 22 & 0x7f, d->api_version >> 12 & 0x3ff,
             d->api_version & 0xfff);
    cJSON_AddStringToObject(o, "api", text);
    cJSON_AddNumberToObject(o, "vendor_id", d->vendor_id);
    cJSON_AddNumberToObject(o, "device_id", d->device_id);
    for (int i = 0; i < 16; i++)
        snprintf(text + 2 * i, 3, "%02x", d->uuid[i]);
    cJSON_AddStringToObject(o, "uuid", text);
    cJSON_AddItemToObject(o, "used", caps_json(d->caps));
    cJSON_AddItemToObject(o, "clamped", caps_json(clamped));
    cJSON_AddItemToObject(o, "limits", limits_json(&d->limits));
    return o;
}

static int print_json(const struct rt_device_info *list, const struct rt_device_info *whole, size_t count,
                      const char *note)
{
    cJSON *root = cJSON_CreateObject();
    cJSON *devices = cJSON_AddArrayToObject(root, "devices");
    for (size_t i = 0; i < count; i++)
        cJSON_AddItemToArray(devices, device_json(&list[i], taken_away(list, whole, i)));
    cJSON_AddNumberToObject(root, "auto", list[0].index);
    cJSON_AddStringToObject(root, "note", note);
    char *text = cJSON_Print(root);
    cJSON_Delete(root);
    if (!text) {
        fprintf(stderr, "mosld devices: no memory for the list\n");
        return 4;
    }
    puts(text);
    free(text);
    return 0;
}

int cmd_devices(int argc, char **argv)
{
    bool json = false;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--json") == 0) {
            json = true;
        } else {
            bool help = strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0;
            FILE *to = help ? stdout : stderr;
            if (!help)
                fprintf(to, "mosld devices: there is no option %s\n", argv[i]);
            fprintf(
                to,
                "usage: mosld devices [--json]\n\nLists what mosld can run on, best first: the index that --device\n"
                "takes, driver, memory, limits, and which optional features are used or\n"
                "were taken away by MOSLD_CAPS.\n");
            return help ? 0 : 2;
        }
    }
    struct rt_device_info *list;
    size_t count;
    char note[256];
    struct rt_error err = {0};
    enum rt_status st = rt_devices_list(&list, &count, note, sizeof note, &err);
    if (st) {
        fprintf(stderr, "mosld devices: %s\n", err.text);
        return st == RT_USAGE ? 2 : 4;
    }
    struct rt_device_info *whole = unclamped(count);
    int status = 0;
    if (json) {
        status = print_json(list, whole, count, note);
    } else {
        print_people(list, whole, count);
        if (note[0])
            fprintf(stderr, "%s\n", note);
    }
    free(whole);
    free(list);
    return status;
}
