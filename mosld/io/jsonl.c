/* mosld/io/jsonl.c - see jsonl.h. */
#include "mosld/io/jsonl.h"

#include "mosld/io/file.h"

#include <stdlib.h>
#include <string.h>

struct jsonl {
    char *path, *text;
    size_t size, at;
    uint64_t line;   /* of `at` */
    bool is_array;
    bool after_item; /* in an array: a comma or its end must follow */
};

static bool is_space(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }

static void skip_space(struct jsonl *r)
{
    for (; r->at < r->size && is_space(r->text[r->at]); r->at++)
        r->line += r->text[r->at] == '\n';
}

enum rt_status jsonl_open(const char *path, struct jsonl **out, struct rt_error *err)
{
    *out = NULL;
    struct jsonl *r = calloc(1, sizeof *r);
    char *copy = strdup(path);
    enum rt_status st = r && copy ? RT_OK : rt_fail(err, RT_NO_MEMORY, "%s: no memory to read it", path);
    if (st == RT_OK)
        st = file_read(path, (uint64_t)8 << 30, &r->text, &r->size, err);
    if (st != RT_OK) {
        free(copy);
        free(r);
        return st;
    }
    r->path = copy;
    r->line = 1;
    r->at = r->size >= 3 && memcmp(r->text, "\xef\xbb\xbf", 3) == 0 ? 3 : 0;
    skip_space(r);
    if (r->at < r->size && r->text[r->at] == '[') {
        r->is_array = true;
        r->at++;
    }
    *out = r;
    return RT_OK;
}

void jsonl_close(struct jsonl **r)
{
    if (!*r)
        return;
    free((*r)->path);
    free((*r)->text);
    free(*r);
    *r = NULL;
}

/* Where the array's element that begins at `at` ends: at the comma or bracket behind it, or at the end of the text. */
static size_t element_end(const struct jsonl *r)
{
    size_t depth = 0;
    bool in_string = false;
    for (size_t i = r->at; i < r->size; i++) {
        char c = r->text[i];
        if (in_string) {
            i += c == '\\';
            in_string = c != '"';
        } else if (c == '"') {
            in_string = true;
        } else if (c == '[' || c == '{') {
            depth++;
        } else if (c == ']' || c == '}') {
            if (depth == 0)
                return i;
            depth--;
        } else if (c == ',' && depth == 0) {
            return i;
        }
    }
    return r->size;
}

static enum rt_status fail_line(struct jsonl *r, const char *what, struct rt_error *err)
{
    unsigned long long line = r->line;
    r->at = r->size;
    r->is_array = false; /* so that what follows is the end */
    return rt_fail(err, RT_BAD_FILE, "%s: line %llu: %s", r->path, line, what);
}

/* Puts r->at on the next element of the array; *more is false behind the last. */
static enum rt_status next_element(struct jsonl *r, bool *more, struct rt_error *err)
{
    *more = false;
    skip_space(r);
    bool comma = r->after_item && r->at < r->size && r->text[r->at] == ',';
    if (comma) {
        r->at++;
        skip_space(r);
    }
    if (r->at >= r->size)
        return fail_line(r, "the array is not closed", err);
    char c = r->text[r->at];
    if (c == ']' && !comma) {
        r->at++;
        skip_space(r);
        if (r->at < r->size)
            return fail_line(r, "something follows the array", err);
        r->is_array = false;
        return RT_OK;
    }
    if (c == ',' || c == ']' || (r->after_item && !comma))
        return fail_line(r, "one comma must stand between two records", err);
    *more = true;
    return RT_OK;
}

/* Finds the record that begins at r->at; *more is false behind the last. */
static enum rt_status next_extent(struct jsonl *r, size_t *end, bool *more, struct rt_error *err)
{
    if (r->is_array) {
        enum rt_status st = next_element(r, more, err);
        *end = *more ? element_end(r) : r->at;
        return st;
    }
    skip_space(r);
    *more = r->at < r->size;
    const char *newline = *more ? memchr(r->text + r->at, '\n', r->size - r->at) : NULL;
    *end = newline ? (size_t)(newline - r->text) : r->size;
    return RT_OK;
}

enum rt_status jsonl_next(struct jsonl *r, cJSON **record, uint64_t *line, struct rt_error *err)
{
    *record = NULL;
    size_t end;
    bool more;
    enum rt_status st = next_extent(r, &end, &more, err);
    if (st != RT_OK || !more)
        return st;
    *line = r->line;
    cJSON *json;
    st = json_parse(r->text + r->at, end - r->at, r->path, r->line, &json, err);
    if (st == RT_OK && !cJSON_IsObject(json)) {
        cJSON_Delete(json);
        st = fail_line(r, "a record must be an object, {\"...\": ...}", err);
    }
    if (st != RT_OK) {
        r->at = r->size;
        r->is_array = false;
        return st;
    }
    for (size_t i = r->at; i < end; i++)
        r->line += r->text[i] == '\n';
    r->at = end;
    r->after_item = true;
    *record = json;
    return RT_OK;
}
