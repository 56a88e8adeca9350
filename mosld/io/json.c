/* mosld/io/json.c - see json.h. */
#include "mosld/io/json.h"

#include "mosld/io/file.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* cJSON itself stops at 1000, on the C stack; no file that we read nests deeper than ten. The number of values bounds
 * its memory, 64 bytes and more a value, against files made of commas. */
enum { MAX_DEPTH = 64, MAX_VALUES = 8 << 20 };

struct fault {
    const char *what;
    size_t offset;
    bool in_string, unclosed; /* how the text ends, where there is no fault */
};

/* Length of the UTF-8 character at p (`left` bytes follow, at least one); 0 where it is none: overlong forms,
 * surrogates, beyond U+10FFFF. */
static size_t utf8_length(const unsigned char *p, size_t left)
{
    unsigned char c = p[0];
    if (c < 0x80)
        return 1;
    size_t n = c >= 0xc2 && c <= 0xdf ? 2 : (c & 0xf0) == 0xe0 ? 3 : c >= 0xf0 && c <= 0xf4 ? 4 : 0;
    if (n == 0 || n > left)
        return 0;
    for (size_t i = 1; i < n; i++)
        if ((p[i] & 0xc0) != 0x80)
            return 0;
    bool bad = (c == 0xe0 && p[1] < 0xa0) || (c == 0xed && p[1] > 0x9f) || (c == 0xf0 && p[1] < 0x90) ||
               (c == 0xf4 && p[1] > 0x8f);
    return bad ? 0 : n;
}

/* What cJSON lets pass or does not bound. Strings are told from structure; whether the rest is JSON is for cJSON to
 * say. */
static bool scan(const char *text, size_t size, struct fault *fault)
{
    const unsigned char *p = (const unsigned char *)text;
    size_t depth = 0, values = 0;
    bool in_string = false;
    for (size_t i = 0; i < size;) {
        size_t n = utf8_length(p + i, size - i);
        fault->offset = i;
        fault->what = n == 0 ? "is not valid UTF-8" : p[i] == 0 ? "has a NUL byte" : NULL;
        if (fault->what)
            return false;
        if (p[i] == '"') {
            in_string = !in_string;
        } else if (in_string && p[i] == '\\' && i + 1 < size) {
            if (size - i >= 6 && memcmp(p + i, "\\u0000", 6) == 0) {
                fault->what = "has the character \\u0000, which mosld does not take";
                return false;
            }
            i += p[i + 1] < 0x80;
        } else if (!in_string && (p[i] == '[' || p[i] == '{')) {
            depth++;
        } else if (!in_string && (p[i] == ']' || p[i] == '}')) {
            depth -= depth > 0;
        }
        values += !in_string && (p[i] == ',' || p[i] == '[' || p[i] == '{');
        if (depth > MAX_DEPTH || values > MAX_VALUES) {
            fault->what = depth > MAX_DEPTH ? "is nested more than 64 deep" : "has more than eight million values";
            return false;
        }
        i += n;
    }
    fault->in_string = in_string;
    fault->unclosed = in_string || depth > 0;
    return true;
}

static uint64_t line_of(const char *text, size_t offset, uint64_t first_line)
{
    for (size_t i = 0; i < offset; i++)
        first_line += text[i] == '\n';
    return first_line;
}

static bool is_space(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }

static bool is_blank(const char *text, size_t size)
{
    while (size > 0 && is_space(text[size - 1]))
        size--;
    return size == 0;
}

/* Parsing failed at `end` of `size` bytes. In a document cut short that is its last byte, or the quote that opens an
 * unfinished string. */
static enum rt_status fail_syntax(const char *text, size_t size, const char *end, const struct fault *scanned,
                                  const char *path, uint64_t first_line, struct rt_error *err)
{
    size_t offset = end && end >= text ? (size_t)(end - text) : 0;
    if (offset > size)
        offset = size;
    unsigned long long line = line_of(text, offset, first_line);
    if (is_blank(text, size))
        return rt_fail(err, RT_BAD_FILE, "%s: line %llu is empty where JSON should stand", path, line);
    if (scanned->unclosed && (scanned->in_string || offset >= size || is_blank(text + offset + 1, size - offset - 1)))
        return rt_fail(err, RT_BAD_FILE, "%s: line %llu: the JSON ends too early", path, line);
    char near[25];
    size_t n = 0;
    for (; n < sizeof near - 1 && offset + n < size; n++)
        near[n] = (unsigned char)text[offset + n] < 0x20 ? ' ' : text[offset + n];
    while (n > 0 && ((unsigned char)near[n - 1] & 0xc0) == 0x80) /* not through the middle of a character */
        n--;
    n -= n > 0 && (unsigned char)near[n - 1] >= 0xc0;
    near[n] = '\0';
    return rt_fail(err, RT_BAD_FILE, "%s: line %llu is not valid JSON near %s", path, line, near);
}

enum rt_status json_parse(const char *text, size_t size, const char *path, uint64_t first_line, cJSON **out,
                          struct rt_error *err)
{
    *out = NULL;
    if (size >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0) {
        text += 3;
        size -= 3;
    }
    struct fault fault;
    if (!scan(text, size, &fault))
        return rt_fail(err, RT_BAD_FILE, "%s: line %llu %s", path,
                       (unsigned long long)line_of(text, fault.offset, first_line), fault.what);
    const char *end = NULL;
    cJSON *json = cJSON_ParseWithLengthOpts(text, size, &end, false);
    if (!json)
        return fail_syntax(text, size, end, &fault, path, first_line, err);
    size_t used = (size_t)(end - text);
    if (!is_blank(end, size - used)) {
        cJSON_Delete(json);
        while (is_space(*end))
            end++;
        return rt_fail(err, RT_BAD_FILE, "%s: line %llu: something follows the JSON", path,
                       (unsigned long long)line_of(text, (size_t)(end - text), first_line));
    }
    *out = json;
    return RT_OK;
}

enum rt_status json_read_file(const char *path, uint64_t max, cJSON **out, struct rt_error *err)
{
    *out = NULL;
    char *text;
    size_t size;
    enum rt_status st = file_read(path, max, &text, &size, err);
    if (st == RT_OK)
        st = json_parse(text, size, path, 1, out, err);
    free(text);
    return st;
}

enum rt_status json_write_file(const char *path, const cJSON *json, struct rt_error *err)
{
    char *text = cJSON_Print(json);
    if (!text)
        return rt_fail(err, RT_NO_MEMORY, "%s: no memory for its text", path);
    size_t n = strlen(text);
    text[n] = '\n'; /* in place of the terminator: the length goes along */
    enum rt_status st = file_write_atomic(path, text, n + 1, err);
    cJSON_free(text);
    return st;
}

const cJSON *json_find(const cJSON *object, const char *key)
{
    const cJSON *item = cJSON_IsObject(object) ? cJSON_GetObjectItemCaseSensitive(object, key) : NULL;
    return cJSON_IsNull(item) ? NULL : item;
}

/* ---- getters ---- */

/* What the value is, shortly, for messages. */
static const char *shown(const cJSON *value, char *text, size_t size)
{
    if (cJSON_IsString(value))
        snprintf(text, size, "\"%.60s\"", value->valuestring);
    else if (cJSON_IsNumber(value))
        snprintf(text, size, "%.17g", value->valuedouble);
    else
        snprintf(text, size, "%s", cJSON_IsBool(value) ? (cJSON_IsTrue(value) ? "true" : "false")
                                   : cJSON_IsArray(value) ? "an array" : cJSON_IsObject(value) ? "an object" : "null");
    return text;
}

static enum rt_status fail_missing(const char *key, const char *path, struct rt_error *err)
{
    return rt_fail(err, RT_BAD_FILE, "%s: \"%s\" is missing", path, key);
}

static enum rt_status fail_type(const cJSON *value, const char *what, const char *path, const char *wanted,
                                struct rt_error *err)
{
    char text[80];
    return rt_fail(err, RT_BAD_FILE, "%s: \"%s\" is %s, it must be %s", path, what, shown(value, text, sizeof text),
                   wanted);
}

enum rt_status json_string_or(const cJSON *object, const char *key, const char *path, const char *fallback,
                              const char **out, struct rt_error *err)
{
    const cJSON *value = json_find(object, key);
    *out = fallback;
    if (!value)
        return RT_OK;
    if (!cJSON_IsString(value))
        return fail_type(value, key, path, "a string", err);
    *out = value->valuestring;
    return RT_OK;
}

enum rt_status json_string(const cJSON *object, const char *key, const char *path, const char **out,
                           struct rt_error *err)
{
    enum rt_status st = json_string_or(object, key, path, NULL, out, err);
    return st == RT_OK && !*out ? fail_missing(key, path, err) : st;
}

enum rt_status json_to_integer(const cJSON *value, const char *what, const char *path, int64_t min, int64_t max,
                               int64_t *out, struct rt_error *err)
{
    double x = cJSON_IsNumber(value) ? value->valuedouble : NAN;
    if (x == floor(x) && x >= (double)min && x <= (double)max) { /* false for NaN */
        *out = (int64_t)x;
        return RT_OK;
    }
    char wanted[80];
    snprintf(wanted, sizeof wanted, "an integer in %lld..%lld", (long long)min, (long long)max);
    return fail_type(value, what, path, wanted, err);
}

enum rt_status json_integer(const cJSON *object, const char *key, const char *path, int64_t min, int64_t max,
                            int64_t *out, struct rt_error *err)
{
    const cJSON *value = json_find(object, key);
    return value ? json_to_integer(value, key, path, min, max, out, err) : fail_missing(key, path, err);
}

enum rt_status json_integer_or(const cJSON *object, const char *key, const char *path, int64_t min, int64_t max,
                               int64_t fallback, int64_t *out, struct rt_error *err)
{
    const cJSON *value = json_find(object, key);
    *out = fallback;
    return value ? json_to_integer(value, key, path, min, max, out, err) : RT_OK;
}

enum rt_status json_number(const cJSON *object, const char *key, const char *path, double min, double max, double *out,
                           struct rt_error *err)
{
    const cJSON *value = json_find(object, key);
    if (!value)
        return fail_missing(key, path, err);
    double x = cJSON_IsNumber(value) ? value->valuedouble : NAN;
    if (isfinite(x) && x >= min && x <= max) {
        *out = x;
        return RT_OK;
    }
    char wanted[80];
    snprintf(wanted, sizeof wanted, "a number in %g..%g", min, max);
    return fail_type(value, key, path, wanted, err);
}

enum rt_status json_number_or(const cJSON *object, const char *key, const char *path, double min, double max,
                              double fallback, double *out, struct rt_error *err)
{
    *out = fallback;
    return json_find(object, key) ? json_number(object, key, path, min, max, out, err) : RT_OK;
}

enum rt_status json_bool_or(const cJSON *object, const char *key, const char *path, bool fallback, bool *out,
                            struct rt_error *err)
{
    const cJSON *value = json_find(object, key);
    *out = value ? cJSON_IsTrue(value) : fallback;
    return value && !cJSON_IsBool(value) ? fail_type(value, key, path, "true or false", err) : RT_OK;
}

enum rt_status json_array_or(const cJSON *object, const char *key, const char *path, const cJSON **out,
                             struct rt_error *err)
{
    *out = json_find(object, key);
    return *out && !cJSON_IsArray(*out) ? fail_type(*out, key, path, "an array", err) : RT_OK;
}

enum rt_status json_array(const cJSON *object, const char *key, const char *path, const cJSON **out,
                          struct rt_error *err)
{
    enum rt_status st = json_array_or(object, key, path, out, err);
    return st == RT_OK && !*out ? fail_missing(key, path, err) : st;
}

enum rt_status json_object_or(const cJSON *object, const char *key, const char *path, const cJSON **out,
                              struct rt_error *err)
{
    *out = json_find(object, key);
    return *out && !cJSON_IsObject(*out) ? fail_type(*out, key, path, "an object", err) : RT_OK;
}

enum rt_status json_object(const cJSON *object, const char *key, const char *path, const cJSON **out,
                           struct rt_error *err)
{
    enum rt_status st = json_object_or(object, key, path, out, err);
    return st == RT_OK && !*out ? fail_missing(key, path, err) : st;
}

static int compare_keys(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

enum rt_status json_check_unique(const cJSON *object, const char *path, struct rt_error *err)
{
    size_t n = 0;
    const cJSON *item;
    cJSON_ArrayForEach(item, object)
        n++;
    if (n < 2)
        return RT_OK;
    const char **keys = calloc(n, sizeof *keys);
    if (!keys)
        return rt_fail(err, RT_NO_MEMORY, "%s: no memory for its %zu keys", path, n);
    size_t i = 0;
    cJSON_ArrayForEach(item, object)
        keys[i++] = item->string;
    qsort(keys, n, sizeof *keys, compare_keys);
    enum rt_status st = RT_OK;
    for (i = 1; i < n && st == RT_OK; i++)
        if (strcmp(keys[i - 1], keys[i]) == 0)
            st = rt_fail(err, RT_BAD_FILE, "%s: \"%.200s\" stands there twice", path, keys[i]);
    free(keys);
    return st;
}
