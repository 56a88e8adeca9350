/* mosld/text/hf_json.c - see hf_json.h. */
#include "mosld/text/hf_json.h"

#include "mosld/text/utf8.h"

#include <math.h>

enum rt_status hf_parse(const char *text, size_t len, cJSON **out, struct rt_error *err)
{
    const char *end = NULL;
    *out = NULL;
    if (!utf8_valid(text, len))
        return rt_fail(err, RT_BAD_FILE, "not valid UTF-8");
    if (len >= 3 && (uint8_t)text[0] == 0xEF && (uint8_t)text[1] == 0xBB && (uint8_t)text[2] == 0xBF) {
        text += 3;
        len -= 3;
    }
    cJSON *doc = len == 0 ? NULL : cJSON_ParseWithLengthOpts(text, len, &end, 0);
    size_t line = 1;
    for (const char *c = text; end && c < end && c < text + len; c++)
        line += *c == '\n';
    if (!doc)
        return rt_fail(err, RT_BAD_FILE, "not valid JSON (near line %zu)", line);
    for (; end < text + len; end++) {
        if (*end != ' ' && *end != '\t' && *end != '\r' && *end != '\n') {
            cJSON_Delete(doc);
            return rt_fail(err, RT_BAD_FILE, "something follows the JSON document (near line %zu)", line);
        }
    }
    if (!cJSON_IsObject(doc)) {
        cJSON_Delete(doc);
        return rt_fail(err, RT_BAD_FILE, "the JSON document is not an object");
    }
    *out = doc;
    return RT_OK;
}

const cJSON *hf_get(const cJSON *object, const char *key)
{
    const cJSON *member = cJSON_GetObjectItemCaseSensitive(object, key);
    return cJSON_IsNull(member) ? NULL : member;
}

enum rt_status hf_bool(const cJSON *object, const char *key, bool fallback, bool *out, struct rt_error *err)
{
    const cJSON *member = hf_get(object, key);
    if (member && !cJSON_IsBool(member))
        return rt_fail(err, RT_BAD_FILE, "'%s' is not true or false", key);
    *out = member ? cJSON_IsTrue(member) : fallback;
    return RT_OK;
}

enum rt_status hf_string(const cJSON *object, const char *key, const char **out, struct rt_error *err)
{
    const cJSON *member = hf_get(object, key);
    if (member && !cJSON_IsString(member))
        return rt_fail(err, RT_BAD_FILE, "'%s' is not a string", key);
    *out = member ? member->valuestring : NULL;
    return RT_OK;
}

enum rt_status hf_type(const cJSON *object, const char *what, const char **out, struct rt_error *err)
{
    if (!cJSON_IsObject(object))
        return rt_fail(err, RT_BAD_FILE, "%s is not an object", what);
    enum rt_status st = hf_string(object, "type", out, err);
    if (st == RT_OK && !*out)
        st = rt_fail(err, RT_BAD_FILE, "%s has no 'type'", what);
    return st;
}

enum rt_status hf_id(const cJSON *number, const char *what, uint32_t max, uint32_t *out, struct rt_error *err)
{
    double value = cJSON_IsNumber(number) ? number->valuedouble : -1;
    if (!(value >= 0 && value <= max) || value != floor(value))
        return rt_fail(err, RT_BAD_FILE, "%s is not a whole number from 0 to %u", what, max);
    *out = (uint32_t)value;
    return RT_OK;
}

enum rt_status hf_array(const cJSON *object, const char *key, bool required, const cJSON **out, struct rt_error *err)
{
    const cJSON *member = hf_get(object, key);
    if ((!member && required) || (member && !cJSON_IsArray(member)))
        return rt_fail(err, RT_BAD_FILE, "'%s' is %s", key, member ? "not an array" : "missing");
    *out = member;
    return RT_OK;
}
