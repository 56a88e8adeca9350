/* mosld/io/safetensors_write.c - the writer of safetensors.h. */
#include "mosld/io/safetensors.h"

#include "mosld/io/file.h"

#include <cjson/cJSON.h>
#include <stdlib.h>
#include <string.h>

struct item {
    const struct safetensors_entry *entry;
    uint64_t bytes;
};

/* Larger elements first, so that each is aligned behind the others. */
static int by_size_then_name(const void *a, const void *b)
{
    const struct safetensors_entry *x = ((const struct item *)a)->entry, *y = ((const struct item *)b)->entry;
    uint32_t p = dtype_info(x->dtype)->bytes, q = dtype_info(y->dtype)->bytes;
    return p != q ? (p < q ? 1 : -1) : strcmp(x->name, y->name);
}

static int by_key(const void *a, const void *b)
{
    return strcmp(((const struct safetensors_pair *)a)->key, ((const struct safetensors_pair *)b)->key);
}

static enum rt_status measure(const char *path, struct item *item, struct rt_error *err)
{
    const struct safetensors_entry *e = item->entry;
    if (!dtype_info(e->dtype)->in_safetensors)
        return rt_fail(err, RT_FAILED, "%s: tensor %s: safetensors has no type %s", path, e->name,
                       dtype_name(e->dtype));
    if (e->rank > SAFETENSORS_MAX_RANK)
        return rt_fail(err, RT_FAILED, "%s: tensor %s: has %u dimensions, at most %d are written", path, e->name,
                       e->rank, SAFETENSORS_MAX_RANK);
    uint64_t elements = 1;
    bool fits = true;
    for (uint32_t i = 0; i < e->rank; i++)
        fits = fits && !__builtin_mul_overflow(elements, e->shape[i], &elements);
    if (!fits || !dtype_bytes(e->dtype, elements, &item->bytes) || item->bytes > SIZE_MAX)
        return rt_fail(err, RT_FAILED, "%s: tensor %s: its size does not fit 64 bits", path, e->name);
    return RT_OK;
}

/* The sorted list of what is written. */
static enum rt_status gather(const char *path, const struct safetensors_entry *entries, size_t n, struct item **out,
                             struct rt_error *err)
{
    struct item *items = *out = calloc(n + 1, sizeof *items);
    if (!items)
        return rt_fail(err, RT_NO_MEMORY, "%s: no memory for %zu tensors", path, n);
    for (size_t i = 0; i < n; i++) {
        items[i].entry = &entries[i];
        enum rt_status st = measure(path, &items[i], err);
        if (st != RT_OK)
            return st;
    }
    qsort(items, n, sizeof *items, by_size_then_name);
    return RT_OK;
}

static cJSON *entry_json(const struct item *item, uint64_t offset)
{
    const struct safetensors_entry *e = item->entry;
    cJSON *json = cJSON_CreateObject();
    cJSON_AddStringToObject(json, "dtype", dtype_name(e->dtype));
    cJSON *shape = cJSON_AddArrayToObject(json, "shape");
    for (uint32_t i = 0; i < e->rank; i++)
        cJSON_AddItemToArray(shape, cJSON_CreateNumber((double)e->shape[i]));
    cJSON *offsets = cJSON_AddArrayToObject(json, "data_offsets");
    cJSON_AddItemToArray(offsets, cJSON_CreateNumber((double)offset));
    cJSON_AddItemToArray(offsets, cJSON_CreateNumber((double)(offset + item->bytes)));
    return json;
}

static enum rt_status add_metadata(const char *path, cJSON *header, const struct safetensors_pair *metadata, size_t n,
                                   struct rt_error *err)
{
    if (n == 0)
        return RT_OK;
    struct safetensors_pair *sorted = calloc(n, sizeof *sorted);
    cJSON *object = cJSON_AddObjectToObject(header, "__metadata__");
    enum rt_status st = RT_OK;
    if (!sorted || !object) {
        st = rt_fail(err, RT_NO_MEMORY, "%s: no memory for its metadata", path);
        goto out;
    }
    memcpy(sorted, metadata, n * sizeof *sorted);
    qsort(sorted, n, sizeof *sorted, by_key);
    for (size_t i = 0; i < n && st == RT_OK; i++) {
        if (i > 0 && strcmp(sorted[i - 1].key, sorted[i].key) == 0)
            st = rt_fail(err, RT_FAILED, "%s: metadata \"%s\" is given twice", path, sorted[i].key);
        else if (!cJSON_AddStringToObject(object, sorted[i].key, sorted[i].value))
            st = rt_fail(err, RT_NO_MEMORY, "%s: no memory for its metadata", path);
    }
out:
    free(sorted);
    return st;
}

static enum rt_status add_tensors(const char *path, cJSON *header, const struct item *items, size_t n,
                                  struct rt_error *err)
{
    uint64_t offset = 0;
    for (size_t i = 0; i < n; i++) {
        const char *name = items[i].entry->name;
        if (strcmp(name, "__metadata__") == 0 || cJSON_GetObjectItemCaseSensitive(header, name))
            return rt_fail(err, RT_FAILED, "%s: tensor %s is given twice, or its name is reserved", path, name);
        cJSON *json = entry_json(&items[i], offset);
        if (!cJSON_AddItemToObject(header, name, json)) {
            cJSON_Delete(json);
            return rt_fail(err, RT_NO_MEMORY, "%s: no memory for its header", path);
        }
        if (__builtin_add_overflow(offset, items[i].bytes, &offset) || offset > (uint64_t)1 << 53)
            return rt_fail(err, RT_FAILED, "%s: its tensors are too large for one file", path);
    }
    return RT_OK;
}

/* Who writes the tensors without data. */
struct source {
    const struct safetensors_entry *entries;
    safetensors_source write;
    void *user;
};

static enum rt_status write_all(const char *path, const char *header, const struct item *items, size_t n,
                                const struct source *source, struct rt_error *err)
{
    struct file_writer *w;
    enum rt_status st = file_writer_open(path, &w, err);
    if (st != RT_OK)
        return st;
    size_t length = strlen(header), padding = (8 - length % 8) % 8;
    uint8_t count[8];
    for (int i = 0; i < 8; i++)
        count[i] = (uint8_t)((uint64_t)(length + padding) >> 8 * i);
    st = file_writer_write(w, count, sizeof count, err);
    if (st == RT_OK)
        st = file_writer_write(w, header, length, err);
    if (st == RT_OK)
        st = file_writer_write(w, "       ", padding, err);
    for (size_t i = 0; i < n && st == RT_OK; i++) {
        const struct safetensors_entry *e = items[i].entry;
        uint64_t before = file_writer_size(w);
        st = e->data || !source->write ? file_writer_write(w, e->data, (size_t)items[i].bytes, err)
                                       : source->write(source->user, (size_t)(e - source->entries), w, err);
        if (st == RT_OK && file_writer_size(w) - before != items[i].bytes)
            st = rt_fail(err, RT_FAILED, "%s: tensor %s came with another number of bytes than its shape has", path, e->name);
    }
    if (st == RT_OK)
        return file_writer_commit(&w, err);
    file_writer_abort(&w);
    return st;
}

enum rt_status safetensors_write(const char *path, const struct safetensors_entry *entries, size_t n,
                                 const struct safetensors_pair *metadata, size_t n_metadata, struct rt_error *err)
{
    return safetensors_write_from(path, entries, n, metadata, n_metadata, NULL, NULL, err);
}

enum rt_status safetensors_write_from(const char *path, const struct safetensors_entry *entries, size_t n,
                                      const struct safetensors_pair *metadata, size_t n_metadata, safetensors_source write,
                                      void *user, struct rt_error *err)
{
    const struct source source = {entries, write, user};
    struct item *items = NULL;
    char *text = NULL;
    cJSON *header = cJSON_CreateObject();
    enum rt_status st = header ? RT_OK : rt_fail(err, RT_NO_MEMORY, "%s: no memory for its header", path);
    if (st == RT_OK)
        st = gather(path, entries, n, &items, err);
    if (st == RT_OK)
        st = add_metadata(path, header, metadata, n_metadata, err);
    if (st == RT_OK)
        st = add_tensors(path, header, items, n, err);
    if (st == RT_OK) {
        text = cJSON_PrintUnformatted(header);
        st = text ? write_all(path, text, items, n, &source, err)
                  : rt_fail(err, RT_NO_MEMORY, "%s: no memory for its header", path);
    }
    cJSON_free(text);
    cJSON_Delete(header);
    free(items);
    return st;
}
