/* mosld/io/gguf_values.c - the values of GGUF keys, converted and range-checked; see gguf.h. That they lie inside the
 * file was checked when it was opened. */
#include "mosld/io/gguf.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool is_integer(enum gguf_type t) { return t <= GGUF_I32 || t == GGUF_U64 || t == GGUF_I64; }

static size_t integer_bytes(enum gguf_type type)
{
    if (type == GGUF_U64 || type == GGUF_I64)
        return 8;
    return type >= GGUF_U32 ? 4 : type >= GGUF_U16 ? 2 : 1;
}

/* An integer at p; false where a u64 exceeds int64_t. */
static bool integer_at(enum gguf_type type, const uint8_t *p, int64_t *out)
{
    union {
        uint8_t u8;
        int8_t i8;
        uint16_t u16;
        int16_t i16;
        uint32_t u32;
        int32_t i32;
        uint64_t u64;
        int64_t i64;
    } v;
    memcpy(&v, p, integer_bytes(type));
    switch (type) {
    case GGUF_U8: *out = v.u8; return true;
    case GGUF_I8: *out = v.i8; return true;
    case GGUF_U16: *out = v.u16; return true;
    case GGUF_I16: *out = v.i16; return true;
    case GGUF_U32: *out = v.u32; return true;
    case GGUF_I32: *out = v.i32; return true;
    case GGUF_I64: *out = v.i64; return true;
    default: *out = (int64_t)v.u64; return v.u64 <= INT64_MAX;
    }
}

static double float_at(enum gguf_type type, const uint8_t *p)
{
    float f;
    double d;
    if (type == GGUF_F64) {
        memcpy(&d, p, sizeof d);
        return d;
    }
    memcpy(&f, p, sizeof f);
    return f;
}

static enum rt_status fail_missing(const struct gguf *g, const char *key, struct rt_error *err)
{
    return rt_fail(err, RT_BAD_FILE, "%s: the key %s is missing", gguf_path(g), key);
}

static enum rt_status fail_kind(const struct gguf *g, const struct gguf_key *key, const char *wanted,
                                struct rt_error *err)
{
    bool array = key->type == GGUF_ARRAY;
    return rt_fail(err, RT_BAD_FILE, "%s: the key %s is %s%s, it must be %s", gguf_path(g), key->name,
                   array ? "an array of " : "of type ", gguf_type_name(key->element), wanted);
}

enum rt_status gguf_get_string(const struct gguf *g, const char *name, struct gguf_string *out, struct rt_error *err)
{
    const struct gguf_key *key = gguf_find_key(g, name);
    if (!key)
        return fail_missing(g, name, err);
    if (key->type != GGUF_STRING)
        return fail_kind(g, key, "a string", err);
    uint64_t size;
    memcpy(&size, key->data, sizeof size);
    *out = (struct gguf_string){.data = (const char *)key->data + 8, .size = (size_t)size};
    return RT_OK;
}

enum rt_status gguf_dup_string_or_null(const struct gguf *g, const char *name, char **out, struct rt_error *err)
{
    *out = NULL;
    if (!gguf_find_key(g, name))
        return RT_OK;
    struct gguf_string text = {0};
    enum rt_status st = gguf_get_string(g, name, &text, err);
    if (st != RT_OK)
        return st;
    if (memchr(text.data, '\0', text.size))
        return rt_fail(err, RT_BAD_FILE, "%s: the key %s has a NUL byte in its text", gguf_path(g), name);
    *out = strndup(text.data, text.size);
    return *out ? RT_OK : rt_fail(err, RT_NO_MEMORY, "%s: no memory for the key %s", gguf_path(g), name);
}

enum rt_status gguf_get_integer(const struct gguf *g, const char *name, int64_t min, int64_t max, int64_t *out,
                                struct rt_error *err)
{
    const struct gguf_key *key = gguf_find_key(g, name);
    if (!key)
        return fail_missing(g, name, err);
    if (!is_integer(key->type))
        return fail_kind(g, key, "an integer", err);
    int64_t value;
    bool fits = integer_at(key->type, key->data, &value);
    if (!fits || value < min || value > max)
        return rt_fail(err, RT_BAD_FILE,
                       fits ? "%s: the key %s is %lld, it must be in %lld..%lld"
                            : "%s: the key %s is %llu, it must be in %lld..%lld",
                       gguf_path(g), name, (long long)value, (long long)min, (long long)max);
    *out = value;
    return RT_OK;
}

enum rt_status gguf_get_integer_or(const struct gguf *g, const char *key, int64_t min, int64_t max, int64_t fallback,
                                   int64_t *out, struct rt_error *err)
{
    *out = fallback;
    return gguf_find_key(g, key) ? gguf_get_integer(g, key, min, max, out, err) : RT_OK;
}

enum rt_status gguf_get_number(const struct gguf *g, const char *name, double min, double max, double *out,
                               struct rt_error *err)
{
    const struct gguf_key *key = gguf_find_key(g, name);
    if (!key)
        return fail_missing(g, name, err);
    double value;
    int64_t integer;
    if (is_integer(key->type))
        value = integer_at(key->type, key->data, &integer) ? (double)integer : (double)(uint64_t)integer;
    else if (key->type == GGUF_F32 || key->type == GGUF_F64)
        value = float_at(key->type, key->data);
    else
        return fail_kind(g, key, "a number", err);
    if (!isfinite(value) || value < min || value > max)
        return rt_fail(err, RT_BAD_FILE, "%s: the key %s is %g, it must be in %g..%g", gguf_path(g), name, value, min,
                       max);
    *out = value;
    return RT_OK;
}

enum rt_status gguf_get_number_or(const struct gguf *g, const char *key, double min, double max, double fallback,
                                  double *out, struct rt_error *err)
{
    *out = fallback;
    return gguf_find_key(g, key) ? gguf_get_number(g, key, min, max, out, err) : RT_OK;
}

enum rt_status gguf_get_bool_or(const struct gguf *g, const char *name, bool fallback, bool *out, struct rt_error *err)
{
    const struct gguf_key *key = gguf_find_key(g, name);
    *out = fallback;
    if (!key)
        return RT_OK;
    if (key->type != GGUF_BOOL || key->data[0] > 1)
        return fail_kind(g, key, "a boolean, 0 or 1", err);
    *out = key->data[0];
    return RT_OK;
}

/* ---- arrays ---- */

/* The array key and memory for its elements of `size` bytes each; *key is NULL where there is nothing to read. */
static enum rt_status open_array(const struct gguf *g, const char *name, size_t size, const struct gguf_key **key,
                                 void *out, size_t *n, struct rt_error *err)
{
    *n = 0;
    *key = gguf_find_key(g, name);
    memset(out, 0, sizeof(void *));
    if (!*key)
        return RT_OK;
    if ((*key)->type != GGUF_ARRAY)
        return fail_kind(g, *key, "an array", err);
    if ((*key)->count == 0) {
        *key = NULL;
        return RT_OK;
    }
    void *memory = calloc((size_t)(*key)->count, size);
    if (!memory)
        return rt_fail(err, RT_NO_MEMORY, "%s: no memory for the %llu elements of %s", gguf_path(g),
                       (unsigned long long)(*key)->count, name);
    memcpy(out, &memory, sizeof memory);
    *n = (size_t)(*key)->count;
    return RT_OK;
}

enum rt_status gguf_get_strings(const struct gguf *g, const char *name, struct gguf_string **out, size_t *n,
                                struct rt_error *err)
{
    const struct gguf_key *key;
    enum rt_status st = open_array(g, name, sizeof **out, &key, out, n, err);
    if (st != RT_OK || !key)
        return st;
    if (key->element != GGUF_STRING) {
        free(*out);
        *out = NULL;
        *n = 0;
        return fail_kind(g, key, "an array of strings", err);
    }
    const uint8_t *p = key->data;
    for (size_t i = 0; i < *n; i++) {
        uint64_t size;
        memcpy(&size, p, sizeof size);
        (*out)[i] = (struct gguf_string){.data = (const char *)p + 8, .size = (size_t)size};
        p += 8 + size;
    }
    return RT_OK;
}

enum rt_status gguf_get_integers(const struct gguf *g, const char *name, int64_t **out, size_t *n, struct rt_error *err)
{
    const struct gguf_key *key;
    enum rt_status st = open_array(g, name, sizeof **out, &key, out, n, err);
    if (st != RT_OK || !key)
        return st;
    bool good = is_integer(key->element);
    size_t bytes = integer_bytes(key->element);
    for (size_t i = 0; i < *n && good; i++)
        good = integer_at(key->element, key->data + i * bytes, &(*out)[i]);
    if (good)
        return RT_OK;
    free(*out);
    *out = NULL;
    *n = 0;
    return fail_kind(g, key, "an array of integers below 2^63", err);
}

enum rt_status gguf_get_floats(const struct gguf *g, const char *name, float **out, size_t *n, struct rt_error *err)
{
    const struct gguf_key *key;
    enum rt_status st = open_array(g, name, sizeof **out, &key, out, n, err);
    if (st != RT_OK || !key)
        return st;
    if (key->element != GGUF_F32 && key->element != GGUF_F64) {
        free(*out);
        *out = NULL;
        *n = 0;
        return fail_kind(g, key, "an array of floats", err);
    }
    size_t bytes = key->element == GGUF_F64 ? 8 : 4;
    for (size_t i = 0; i < *n; i++)
        (*out)[i] = (float)float_at(key->element, key->data + i * bytes);
    return RT_OK;
}
