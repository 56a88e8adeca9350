/* tools/options_config.c - options from a JSON config file and back to JSON; see options.h. */
#include "tools/options.h"
#include "tools/options_value.h"

#include <cjson/cJSON.h>
#include <string.h>

#include "mosld/io/file.h"
#include "mosld/io/json.h"

/* A configuration is a page of text: a file above this is another file given by mistake. */
enum { CONFIG_MAX_BYTES = 4 << 20 };

enum rt_status options_read_config(struct options *o, const char *path, struct rt_error *err)
{
    cJSON *json = NULL;
    enum rt_status st = json_read_file(path, CONFIG_MAX_BYTES, &json, err);
    const cJSON *inside = json_find(json, "configuration"); /* a run.json has the options there */
    if (st == RT_OK)
        st = options_read_json(o, cJSON_IsObject(inside) ? inside : json, path, err);
    cJSON_Delete(json);
    return st;
}

static enum rt_status unknown_key(const struct options *o, const char *key, const char *path, struct rt_error *err)
{
    const char *nearest = option_nearest(o, key, strlen(key), true);
    if (nearest)
        return rt_fail(err, RT_BAD_FILE, "%s: there is no option \"%.80s\"; \"%s\" may be meant", path, key, nearest);
    return rt_fail(err, RT_BAD_FILE, "%s: there is no option \"%.80s\"; --help lists them", path, key);
}

static enum rt_status read_key(struct options *o, const cJSON *item, bool *seen, const char *path, struct rt_error *err)
{
    const char *key = item->string;
    int index = option_find(o, key, strlen(key));
    if (index < 0)
        return unknown_key(o, key, path, err);
    const struct option *desc = &o->table[index];
    if (desc->command_line_only)
        return rt_fail(err, RT_BAD_FILE, "%s: \"%s\" can only be given on the command line", path, key);
    if (seen[index])
        return rt_fail(err, RT_BAD_FILE, "%s: \"%s\" stands there twice", path, desc->name);
    seen[index] = true;
    if (o->source[index] == OPTION_FROM_COMMAND || cJSON_IsNull(item))
        return RT_OK;
    bool fresh = o->source[index] == OPTION_FROM_DEFAULT;
    o->source[index] = OPTION_FROM_CONFIG;
    enum rt_status st = option_set_json(desc, o->values, item, fresh, err);
    return st == RT_OK ? st : rt_error_prefix(err, "%s: \"%s\"", path, key);
}

enum rt_status options_read_json(struct options *o, const cJSON *object, const char *path, struct rt_error *err)
{
    if (!cJSON_IsObject(object))
        return rt_fail(err, RT_BAD_FILE, "%s: a config file is a JSON object, {\"learning_rate\": 1e-4, ...}", path);
    bool seen[o->n + 1];
    memset(seen, 0, sizeof seen);
    const cJSON *item;
    cJSON_ArrayForEach(item, object)
    {
        enum rt_status st = read_key(o, item, seen, path, err);
        if (st != RT_OK)
            return st;
    }
    return RT_OK;
}

cJSON *options_to_json(const struct options *o)
{
    cJSON *object = cJSON_CreateObject();
    for (size_t i = 0; object && i < o->n; i++) {
        const struct option *desc = &o->table[i];
        if (desc->command_line_only)
            continue;
        cJSON *value = option_value_json(desc, o->values);
        if (!value || !cJSON_AddItemToObject(object, desc->name, value)) {
            cJSON_Delete(value);
            cJSON_Delete(object);
            return NULL;
        }
    }
    return object;
}
