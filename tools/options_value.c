/* tools/options_value.c - see options_value.h. */
#include "tools/options_value.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

void *option_at(const struct option *desc, void *values)
{
    return (char *)values + desc->offset;
}

int64_t option_int(const struct option *desc, void *values)
{
    const void *at = option_at(desc, values);
    if (desc->size == sizeof(int64_t))
        return *(const int64_t *)at;
    return desc->int_min < 0 ? *(const int32_t *)at : (int64_t) * (const uint32_t *)at;
}

static void set_int(const struct option *desc, void *values, int64_t value)
{
    void *at = option_at(desc, values);
    if (desc->size == sizeof(int64_t))
        *(int64_t *)at = value;
    else
        *(uint32_t *)at = (uint32_t)value; /* the same bits as an int32_t's */
}

double option_real(const struct option *desc, void *values)
{
    const void *at = option_at(desc, values);
    return desc->size == sizeof(double) ? *(const double *)at : (double)*(const float *)at;
}

static void set_real(const struct option *desc, void *values, double value)
{
    void *at = option_at(desc, values);
    if (desc->size == sizeof(double))
        *(double *)at = value;
    else
        *(float *)at = (float)value;
}

bool option_is_list(const struct option *desc)
{
    return desc->type == OPTION_TYPE_STRINGS || desc->type == OPTION_TYPE_INTS;
}

void option_clear(const struct option *desc, void *values)
{
    void *at = option_at(desc, values);
    switch (desc->type) {
    case OPTION_TYPE_STRING:
        free(*(char **)at);
        *(char **)at = NULL;
        break;
    case OPTION_TYPE_STRINGS: {
        struct option_list *list = at;
        for (size_t i = 0; i < list->n; i++)
            free(list->item[i]);
        free(list->item);
        *list = (struct option_list){0};
        break;
    }
    case OPTION_TYPE_INTS: {
        struct option_ints *list = at;
        free(list->item);
        *list = (struct option_ints){0};
        break;
    }
    default: break;
    }
}

/* Before a value is written: what parsing put there goes; a default of the caller is only forgotten. */
static void make_room(const struct option *desc, void *values, bool fresh)
{
    void *at = option_at(desc, values);
    if (!fresh)
        option_clear(desc, values);
    else if (desc->type == OPTION_TYPE_STRING)
        *(char **)at = NULL;
    else if (desc->type == OPTION_TYPE_STRINGS)
        *(struct option_list *)at = (struct option_list){0};
    else if (desc->type == OPTION_TYPE_INTS)
        *(struct option_ints *)at = (struct option_ints){0};
}

static enum rt_status out_of_memory(struct rt_error *err)
{
    return rt_fail(err, RT_NO_MEMORY, "out of memory");
}

static enum rt_status list_add(struct option_list *list, const char *text, size_t len, struct rt_error *err)
{
    char **item = reallocarray(list->item, list->n + 1, sizeof *item);
    if (!item)
        return out_of_memory(err);
    list->item = item;
    item[list->n] = strndup(text, len);
    if (!item[list->n])
        return out_of_memory(err);
    list->n++;
    return RT_OK;
}

static enum rt_status ints_add(struct option_ints *list, int64_t value, struct rt_error *err)
{
    int64_t *item = reallocarray(list->item, list->n + 1, sizeof *item);
    if (!item)
        return out_of_memory(err);
    list->item = item;
    item[list->n++] = value;
    return RT_OK;
}

static enum rt_status check_int(const struct option *desc, int64_t value, enum rt_status status, struct rt_error *err)
{
    if (value >= desc->int_min && value <= desc->int_max)
        return RT_OK;
    if (desc->int_max >= OPTION_INT_MAX)
        return rt_fail(err, status, "%lld is out of range: give a whole number from %lld on", (long long)value,
                       (long long)desc->int_min);
    return rt_fail(err, status, "%lld is out of range: give a whole number from %lld to %lld", (long long)value,
                   (long long)desc->int_min, (long long)desc->int_max);
}

static enum rt_status check_real(const struct option *desc, double value, enum rt_status status, struct rt_error *err)
{
    if (isfinite(value) && value >= desc->real_min && value <= desc->real_max)
        return RT_OK;
    if (isinf(desc->real_max) && isfinite(desc->real_min))
        return rt_fail(err, status, "%g is out of range: give a number from %g on", value, desc->real_min);
    return rt_fail(err, status, "%g is out of range: give a number from %g to %g", value, desc->real_min,
                   desc->real_max);
}

/* `len` bytes of text as an integer; "1e3" is one too, since people write steps so. */
static enum rt_status parse_int(const struct option *desc, const char *text, size_t len, enum rt_status status,
                                int64_t *out, struct rt_error *err)
{
    char copy[64], *end;
    if (len > 0 && len < sizeof copy) {
        memcpy(copy, text, len);
        copy[len] = 0;
        errno = 0;
        long long value = strtoll(copy, &end, 10);
        if (end != copy && *end == 0 && errno == 0) {
            *out = value;
            return check_int(desc, value, status, err);
        }
        double real = strtod(copy, &end);
        if (end != copy && *end == 0 && fabs(real) <= (double)OPTION_INT_MAX && real == floor(real)) {
            *out = (int64_t)real;
            return check_int(desc, *out, status, err);
        }
    }
    return rt_fail(err, status, "'%.*s' is no whole number", (int)(len < 80 ? len : 80), text);
}

static enum rt_status parse_ints(const struct option *desc, struct option_ints *list, const char *text,
                                 enum rt_status status, struct rt_error *err)
{
    for (;;) {
        size_t len = strcspn(text, ",");
        int64_t value = 0;
        enum rt_status st = parse_int(desc, text, len, status, &value, err);
        if (st == RT_OK)
            st = ints_add(list, value, err);
        if (st != RT_OK || text[len] == 0)
            return st;
        text += len + 1;
    }
}

static enum rt_status parse_strings(const struct option *desc, struct option_list *list, const char *text,
                                    enum rt_status status, struct rt_error *err)
{
    for (;;) {
        size_t len = desc->commas ? strcspn(text, ",") : strlen(text);
        if (len == 0)
            return rt_fail(err, status, "an empty value");
        enum rt_status st = list_add(list, text, len, err);
        if (st != RT_OK || text[len] == 0)
            return st;
        text += len + 1;
    }
}

static enum rt_status parse_real(const struct option *desc, const char *text, enum rt_status status, double *out,
                                 struct rt_error *err)
{
    char *end;
    double value = strtod(text, &end);
    if (end == text || *end)
        return rt_fail(err, status, "'%.80s' is no number", text);
    enum rt_status st = check_real(desc, value, status, err);
    if (st == RT_OK)
        *out = value;
    return st;
}

static enum rt_status parse_bool(const char *text, enum rt_status status, bool *out, struct rt_error *err)
{
    static const char *const yes[] = {"true", "yes", "on", "1"}, *const no[] = {"false", "no", "off", "0"};
    for (size_t i = 0; i < sizeof yes / sizeof *yes; i++) {
        if (strcasecmp(text, yes[i]) == 0 || strcasecmp(text, no[i]) == 0) {
            *out = strcasecmp(text, yes[i]) == 0;
            return RT_OK;
        }
    }
    return rt_fail(err, status, "'%.80s' is neither true nor false", text);
}

static enum rt_status parse_choice(const struct option *desc, const char *text, enum rt_status status, int *out,
                                   struct rt_error *err)
{
    char all[512] = "";
    for (int i = 0; desc->choices[i]; i++) {
        if (strcmp(text, desc->choices[i]) == 0) {
            *out = i;
            return RT_OK;
        }
        size_t used = strlen(all);
        snprintf(all + used, sizeof all - used, "%s%s", i ? ", " : "", desc->choices[i]);
    }
    return rt_fail(err, status, "'%.80s' is not one of: %s", text, all);
}

enum rt_status option_set_text(const struct option *desc, void *values, const char *text, bool fresh,
                               enum rt_status status, struct rt_error *err)
{
    void *at = option_at(desc, values);
    if (fresh || !option_is_list(desc))
        make_room(desc, values, fresh);
    switch (desc->type) {
    case OPTION_TYPE_STRING: *(char **)at = strdup(text); return *(char **)at ? RT_OK : out_of_memory(err);
    case OPTION_TYPE_INT: {
        int64_t value = 0;
        enum rt_status st = parse_int(desc, text, strlen(text), status, &value, err);
        if (st == RT_OK)
            set_int(desc, values, value);
        return st;
    }
    case OPTION_TYPE_REAL: {
        double value = 0;
        enum rt_status st = parse_real(desc, text, status, &value, err);
        if (st == RT_OK)
            set_real(desc, values, value);
        return st;
    }
    case OPTION_TYPE_BOOL: return parse_bool(text, status, at, err);
    case OPTION_TYPE_CHOICE: return parse_choice(desc, text, status, at, err);
    case OPTION_TYPE_STRINGS: return parse_strings(desc, at, text, status, err);
    case OPTION_TYPE_INTS: return parse_ints(desc, at, text, status, err);
    case OPTION_TYPE_CONFIG: break;
    }
    return rt_fail(err, status, "takes no value");
}

static const char *json_type(const cJSON *json)
{
    return cJSON_IsObject(json)   ? "an object"
           : cJSON_IsArray(json)  ? "a list"
           : cJSON_IsString(json) ? "a string"
           : cJSON_IsNumber(json) ? "a number"
           : cJSON_IsBool(json)   ? "true or false"
                                  : "null";
}

static enum rt_status wrong_type(const cJSON *json, const char *wanted, struct rt_error *err)
{
    return rt_fail(err, RT_BAD_FILE, "is %s, must be %s", json_type(json), wanted);
}

static enum rt_status json_int(const struct option *desc, const cJSON *json, int64_t *out, struct rt_error *err)
{
    if (!cJSON_IsNumber(json))
        return wrong_type(json, "a whole number", err);
    double value = json->valuedouble;
    if (!(fabs(value) <= (double)OPTION_INT_MAX) || value != floor(value))
        return rt_fail(err, RT_BAD_FILE, "%.17g is no whole number that can be held exactly", value);
    *out = (int64_t)value;
    return check_int(desc, *out, RT_BAD_FILE, err);
}

static enum rt_status json_ints(const struct option *desc, struct option_ints *list, const cJSON *json,
                                struct rt_error *err)
{
    int64_t value = 0;
    if (!cJSON_IsArray(json)) {
        enum rt_status st = json_int(desc, json, &value, err);
        return st == RT_OK ? ints_add(list, value, err) : st;
    }
    const cJSON *item;
    cJSON_ArrayForEach(item, json)
    {
        enum rt_status st = json_int(desc, item, &value, err);
        if (st == RT_OK)
            st = ints_add(list, value, err);
        if (st != RT_OK)
            return st;
    }
    return RT_OK;
}

/* A string means what it means on the command line; a list is taken item by item, commas included. */
static enum rt_status json_strings(const struct option *desc, struct option_list *list, const cJSON *json,
                                   struct rt_error *err)
{
    if (cJSON_IsString(json))
        return parse_strings(desc, list, json->valuestring, RT_BAD_FILE, err);
    if (!cJSON_IsArray(json))
        return wrong_type(json, "a list of strings", err);
    const cJSON *item;
    cJSON_ArrayForEach(item, json)
    {
        if (!cJSON_IsString(item))
            return rt_fail(err, RT_BAD_FILE, "an item is %s, must be a string", json_type(item));
        if (!item->valuestring[0])
            return rt_fail(err, RT_BAD_FILE, "an item is empty");
        enum rt_status st = list_add(list, item->valuestring, strlen(item->valuestring), err);
        if (st != RT_OK)
            return st;
    }
    return RT_OK;
}

enum rt_status option_set_json(const struct option *desc, void *values, const cJSON *json, bool fresh,
                               struct rt_error *err)
{
    void *at = option_at(desc, values);
    make_room(desc, values, fresh);
    switch (desc->type) {
    case OPTION_TYPE_STRING:
        if (!cJSON_IsString(json))
            return wrong_type(json, "a string", err);
        return option_set_text(desc, values, json->valuestring, true, RT_BAD_FILE, err);
    case OPTION_TYPE_INT: {
        int64_t value = 0;
        enum rt_status st = json_int(desc, json, &value, err);
        if (st == RT_OK)
            set_int(desc, values, value);
        return st;
    }
    case OPTION_TYPE_REAL: {
        if (!cJSON_IsNumber(json))
            return wrong_type(json, "a number", err);
        enum rt_status st = check_real(desc, json->valuedouble, RT_BAD_FILE, err);
        if (st == RT_OK)
            set_real(desc, values, json->valuedouble);
        return st;
    }
    case OPTION_TYPE_BOOL:
        if (!cJSON_IsBool(json))
            return wrong_type(json, "true or false", err);
        *(bool *)at = cJSON_IsTrue(json);
        return RT_OK;
    case OPTION_TYPE_CHOICE:
        if (cJSON_IsBool(json))
            return parse_choice(desc, cJSON_IsTrue(json) ? "true" : "false", RT_BAD_FILE, at, err);
        if (!cJSON_IsString(json))
            return wrong_type(json, "a string", err);
        return parse_choice(desc, json->valuestring, RT_BAD_FILE, at, err);
    case OPTION_TYPE_STRINGS: return json_strings(desc, at, json, err);
    case OPTION_TYPE_INTS: return json_ints(desc, at, json, err);
    case OPTION_TYPE_CONFIG: break;
    }
    return rt_fail(err, RT_BAD_FILE, "stands on the command line only");
}

/* A float is written as the shortest decimal that gives it back, not as the double next to it: 0.1, not 0.10000000149.
 */
static double real_json(const struct option *desc, void *values)
{
    double value = option_real(desc, values);
    char text[32];
    if (desc->size == sizeof(double))
        return value;
    for (int digits = 6; digits <= 9; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, value);
        if (strtof(text, NULL) == (float)value)
            break;
    }
    return strtod(text, NULL);
}

static cJSON *list_json(const struct option_list *list)
{
    cJSON *array = cJSON_CreateArray();
    for (size_t i = 0; array && i < list->n; i++) {
        cJSON *item = cJSON_CreateString(list->item[i]);
        if (!item || !cJSON_AddItemToArray(array, item)) {
            cJSON_Delete(item);
            cJSON_Delete(array);
            return NULL;
        }
    }
    return array;
}

static cJSON *ints_json(const struct option_ints *list)
{
    cJSON *array = cJSON_CreateArray();
    for (size_t i = 0; array && i < list->n; i++) {
        cJSON *item = cJSON_CreateNumber((double)list->item[i]);
        if (!item || !cJSON_AddItemToArray(array, item)) {
            cJSON_Delete(item);
            cJSON_Delete(array);
            return NULL;
        }
    }
    return array;
}

cJSON *option_value_json(const struct option *desc, void *values)
{
    void *at = option_at(desc, values);
    switch (desc->type) {
    case OPTION_TYPE_STRING: return *(char **)at ? cJSON_CreateString(*(char **)at) : cJSON_CreateNull();
    case OPTION_TYPE_INT: return cJSON_CreateNumber((double)option_int(desc, values));
    case OPTION_TYPE_REAL: return cJSON_CreateNumber(real_json(desc, values));
    case OPTION_TYPE_BOOL: return cJSON_CreateBool(*(bool *)at);
    case OPTION_TYPE_CHOICE: return cJSON_CreateString(desc->choices[*(int *)at]);
    case OPTION_TYPE_STRINGS: return list_json(at);
    case OPTION_TYPE_INTS: return ints_json(at);
    case OPTION_TYPE_CONFIG: break;
    }
    return cJSON_CreateNull();
}
