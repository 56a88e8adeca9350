/* mosld/tune/tuning_file.c - see tuning_file.h. */
#include "mosld/tune/tuning_file.h"

#include "mosld/io/file.h"
#include "mosld/io/json.h"
#include "mosld/ops/choice.h"
#include "runtime/cache_folder.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FORMAT 1
#define MOST_BYTES (1 << 20)

static uint64_t hash(uint64_t h, const void *data, size_t n)
{
    const unsigned char *p = data;
    for (size_t i = 0; i < n; i++)
        h = (h ^ p[i]) * 0x100000001b3u; /* FNV-1a */
    return h;
}

static uint64_t hash_text(uint64_t h, const char *text) { return hash(h, text, strlen(text) + 1); }

/* 16 hexadecimal digits over all that decides which variants there are and how they fare. */
static void make_key(const struct rt_device *dev, char key[32])
{
    const struct rt_device_info *d = rt_device_info(dev);
    const struct rt_limits *l = &d->limits;
    const uint32_t numbers[] = {d->kind,          d->vendor_id,   d->device_id,     d->caps,       l->max_storage_buffers, l->max_push,
                                l->max_shared,    l->max_size[0], l->max_size[1],   l->max_size[2], l->max_invocations,    l->subgroup_size,
                                l->max_groups[0], l->max_groups[1]};
    uint64_t h = hash(0xcbf29ce484222325u, numbers, sizeof numbers);
    h = hash(h, d->uuid, sizeof d->uuid);
    h = hash(h, &l->max_range, sizeof l->max_range);
    h = hash_text(hash_text(hash_text(h, d->name), d->driver), MOSLD_VERSION);
    h = hash_text(hash_text(h, rt_kernels_id()), __VERSION__);
    snprintf(key, 32, "%016llx", (unsigned long long)h);
}

char *mosld_tuning_path(const struct rt_device *dev)
{
    char key[32], name[64], *path;
    make_key(dev, key);
    snprintf(name, sizeof name, "tuning-%s.json", key);
    return rt_cache_path(name, &path) ? path : NULL;
}

/* Of the document without its key "checksum". */
static bool checksum(const cJSON *json, char sum[32])
{
    char *text = cJSON_PrintUnformatted(json);
    if (text)
        snprintf(sum, 32, "%016llx", (unsigned long long)hash_text(0xcbf29ce484222325u, text));
    cJSON_free(text);
    return text != NULL;
}

/* ---- reading ---- */

static bool is_sound(const struct rt_device *dev, cJSON *json)
{
    char key[32], own[32];
    make_key(dev, key);
    const char *said = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(json, "key"));
    const cJSON *format = cJSON_GetObjectItemCaseSensitive(json, "format");
    cJSON *sum = cJSON_DetachItemFromObjectCaseSensitive(json, "checksum");
    bool sound = cJSON_IsString(sum) && checksum(json, own) && strcmp(own, sum->valuestring) == 0 && said && strcmp(said, key) == 0 &&
                 cJSON_IsNumber(format) && format->valuedouble == FORMAT;
    cJSON_Delete(sum);
    return sound;
}

static const struct op_variant *named(const cJSON *item, const struct op **op)
{
    const char *op_name = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(item, "op"));
    const char *variant = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(item, "variant"));
    *op = op_name ? op_find(op_name) : NULL;
    return *op && variant ? op_variant_find(*op, variant) : NULL;
}

static void apply(struct rt_device *dev, const cJSON *json)
{
    const cJSON *classes, *item;
    const struct op *op;
    cJSON_ArrayForEach(classes, cJSON_GetObjectItemCaseSensitive(json, "fastest"))
    {
        op = op_find(classes->string);
        if (!op)
            continue;
        cJSON_ArrayForEach(item, classes)
        {
            int class_ = op_class_find(op, item->string);
            const struct op_variant *v = cJSON_IsString(item) ? op_variant_find(op, item->valuestring) : NULL;
            if (class_ >= 0 && v)
                op_choice_prefer(dev, op, (uint32_t)class_, v);
        }
    }
    cJSON_ArrayForEach(item, cJSON_GetObjectItemCaseSensitive(json, "wrong"))
    {
        const struct op_variant *v = named(item, &op);
        if (v)
            op_choice_ban(dev, op, v);
    }
}

enum mosld_tuning_found mosld_tuning_load(struct rt_device *dev)
{
    const char *off = getenv("MOSLD_TUNING");
    char *path = off && strcmp(off, "0") == 0 ? NULL : mosld_tuning_path(dev);
    enum mosld_tuning_found found = MOSLD_TUNING_NONE;
    cJSON *json = NULL;
    if (path && file_is_regular(path)) {
        found = MOSLD_TUNING_DAMAGED;
        if (json_read_file(path, MOST_BYTES, &json, NULL) == RT_OK && is_sound(dev, json)) {
            apply(dev, json);
            found = MOSLD_TUNING_APPLIED;
        }
    }
    cJSON_Delete(json);
    free(path);
    return found;
}

/* ---- writing ---- */

enum rt_status mosld_tuning_write(const struct rt_device *dev, const cJSON *wrong, const cJSON *fastest, struct rt_error *err)
{
    const struct rt_device_info *d = rt_device_info(dev);
    char key[32], sum[32], *path = mosld_tuning_path(dev);
    if (!path)
        return rt_fail(err, RT_FAILED, "there is no folder for the tuning file: set XDG_CACHE_HOME or HOME");
    make_key(dev, key);
    cJSON *json = cJSON_CreateObject();
    cJSON_AddNumberToObject(json, "format", FORMAT);
    cJSON_AddStringToObject(json, "key", key);
    cJSON_AddStringToObject(json, "device", d->name);
    cJSON_AddStringToObject(json, "driver", d->driver);
    cJSON_AddStringToObject(json, "mosld_version", MOSLD_VERSION);
    cJSON_AddItemToObject(json, "wrong", cJSON_Duplicate(wrong, true));
    cJSON_AddItemToObject(json, "fastest", cJSON_Duplicate(fastest, true));
    enum rt_status st = json && checksum(json, sum) && cJSON_AddStringToObject(json, "checksum", sum)
                            ? json_write_file(path, json, err)
                            : rt_fail(err, RT_NO_MEMORY, "no memory for the tuning file");
    cJSON_Delete(json);
    free(path);
    return st;
}
