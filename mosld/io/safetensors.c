/* mosld/io/safetensors.c - the reader of safetensors.h; the writer is safetensors_write.c. */
#include "mosld/io/safetensors.h"

#include "mosld/io/file.h"
#include "mosld/io/json.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The reference implementation's own limit. */
#define MAX_HEADER 100000000ull
#define INDEX_NAME "model.safetensors.index.json"
#define INDEX_MAX_BYTES (64u << 20)

struct shard {
    char *path;
    struct file_map map;
    cJSON *header; /* owns the names */
};

struct safetensors {
    struct shard *shards;
    size_t n_shards;
    struct safetensor *tensors;
    size_t n_tensors;
    const cJSON *metadata; /* of the only shard, or NULL */
};

/* ---- one tensor's entry in the header ---- */

static enum rt_status read_shape(const cJSON *shape, const char *where, struct safetensor *t, struct rt_error *err)
{
    t->rank = 0;
    t->elements = 1;
    const cJSON *dim;
    cJSON_ArrayForEach(dim, shape) {
        int64_t n;
        enum rt_status st = json_to_integer(dim, "shape", where, 0, JSON_INT_MAX, &n, err);
        if (st != RT_OK)
            return st;
        if (t->rank == SAFETENSORS_MAX_RANK)
            return rt_fail(err, RT_BAD_FILE, "%s: has more than %d dimensions", where, SAFETENSORS_MAX_RANK);
        t->shape[t->rank++] = (uint64_t)n;
        if (__builtin_mul_overflow(t->elements, (uint64_t)n, &t->elements))
            return rt_fail(err, RT_BAD_FILE, "%s: its shape has more elements than 64 bits count", where);
    }
    return RT_OK;
}

static enum rt_status read_offsets(const cJSON *entry, const char *where, uint64_t data_size, uint64_t *begin,
                                   uint64_t *end, struct rt_error *err)
{
    const cJSON *offsets;
    enum rt_status st = json_array(entry, "data_offsets", where, &offsets, err);
    if (st != RT_OK)
        return st;
    if (cJSON_GetArraySize(offsets) != 2)
        return rt_fail(err, RT_BAD_FILE, "%s: \"data_offsets\" must be two numbers", where);
    int64_t value[2];
    for (int i = 0; i < 2 && st == RT_OK; i++)
        st = json_to_integer(cJSON_GetArrayItem(offsets, i), "data_offsets", where, 0, JSON_INT_MAX, &value[i], err);
    if (st != RT_OK)
        return st;
    *begin = (uint64_t)value[0];
    *end = (uint64_t)value[1];
    if (*begin > *end)
        return rt_fail(err, RT_BAD_FILE, "%s: its data begins at %lld and ends before that, at %lld", where,
                       (long long)value[0], (long long)value[1]);
    if (*end > data_size)
        return rt_fail(err, RT_BAD_FILE,
                       "%s: its data ends at byte %lld, the file has %llu; it may be incomplete: fetch it again", where,
                       (long long)value[1], (unsigned long long)data_size);
    return RT_OK;
}

static enum rt_status read_entry(const cJSON *entry, const struct shard *shard, const uint8_t *data, uint64_t data_size,
                                 struct safetensor *t, struct rt_error *err)
{
    char where[600];
    snprintf(where, sizeof where, "%.400s: tensor %.150s", shard->path, entry->string);
    if (!cJSON_IsObject(entry))
        return rt_fail(err, RT_BAD_FILE, "%s: its entry must be an object", where);
    enum rt_status st = json_check_unique(entry, where, err);
    const char *dtype = NULL;
    const cJSON *shape = NULL;
    if (st == RT_OK)
        st = json_string(entry, "dtype", where, &dtype, err);
    if (st == RT_OK)
        st = json_array(entry, "shape", where, &shape, err);
    if (st == RT_OK)
        st = read_shape(shape, where, t, err);
    uint64_t begin = 0, end = 0, bytes = 0;
    if (st == RT_OK)
        st = read_offsets(entry, where, data_size, &begin, &end, err);
    if (st != RT_OK)
        return st;
    t->dtype = dtype_from_safetensors(dtype);
    if (t->dtype == DTYPES)
        return rt_fail(err, RT_BAD_FILE, "%s: its dtype %.40s is none that mosld knows", where, dtype);
    if (!dtype_bytes(t->dtype, t->elements, &bytes) || bytes != end - begin) {
        char text[160];
        return rt_fail(err, RT_BAD_FILE, "%s: %s of %s do not fill its %llu bytes of data", where,
                       shape_text(t->shape, t->rank, text, sizeof text), dtype, (unsigned long long)(end - begin));
    }
    t->name = entry->string;
    t->file = shard->path;
    t->data = data + begin;
    t->bytes = bytes;
    return RT_OK;
}

/* ---- one file ---- */

static enum rt_status read_header(struct shard *shard, const uint8_t **data, struct rt_error *err)
{
    const char *path = shard->path;
    const struct file_map *map = &shard->map;
    uint64_t length = 0;
    if (map->size < 8)
        return rt_fail(err, RT_BAD_FILE, "%s: has %llu bytes, too few for a safetensors file", path,
                       (unsigned long long)map->size);
    for (int i = 7; i >= 0; i--)
        length = length << 8 | map->data[i];
    if (length > MAX_HEADER)
        return rt_fail(err, RT_BAD_FILE,
                       "%s: is no safetensors file: its header would have %llu bytes, at most %llu are allowed", path,
                       (unsigned long long)length, MAX_HEADER);
    if (length > map->size - 8)
        return rt_fail(err, RT_BAD_FILE,
                       "%s: its header has %llu bytes, the file only %llu; it may be incomplete: fetch it again", path,
                       (unsigned long long)length, (unsigned long long)map->size);
    if (length == 0 || map->data[8] != '{')
        return rt_fail(err, RT_BAD_FILE, "%s: is no safetensors file: its header does not begin with {", path);
    char where[600];
    snprintf(where, sizeof where, "%.500s: header", path);
    enum rt_status st = json_parse((const char *)map->data + 8, (size_t)length, where, 1, &shard->header, err);
    if (st == RT_OK)
        *data = map->data + 8 + length;
    return st;
}

static enum rt_status check_metadata(const cJSON *metadata, const char *path, struct rt_error *err)
{
    if (!cJSON_IsObject(metadata))
        return rt_fail(err, RT_BAD_FILE, "%s: \"__metadata__\" must be an object", path);
    const cJSON *item;
    cJSON_ArrayForEach(item, metadata)
        if (!cJSON_IsString(item))
            return rt_fail(err, RT_BAD_FILE, "%s: \"__metadata__\": \"%.80s\" must be a string", path, item->string);
    char where[600];
    snprintf(where, sizeof where, "%.500s: \"__metadata__\"", path);
    return json_check_unique(metadata, where, err);
}

static int by_offset(const void *a, const void *b)
{
    const struct safetensor *x = a, *y = b;
    if (x->data != y->data)
        return x->data < y->data ? -1 : 1;
    return x->bytes < y->bytes ? -1 : x->bytes > y->bytes; /* empty ones first: they end where they begin */
}

static enum rt_status check_coverage(struct safetensor *tensors, size_t n, const char *path, const uint8_t *data,
                                     const uint8_t *end, struct rt_error *err)
{
    if (n > 1)
        qsort(tensors, n, sizeof *tensors, by_offset);
    for (size_t i = 0; i < n; i++) {
        if (tensors[i].data != data)
            return rt_fail(err, RT_BAD_FILE, "%s: tensor %.200s %s", path, tensors[i].name,
                           tensors[i].data < data ? "overlaps the one before it" : "has unused bytes before it");
        data += tensors[i].bytes;
    }
    if (data != end)
        return rt_fail(err, RT_BAD_FILE, "%s: %llu bytes follow the last tensor", path,
                       (unsigned long long)(end - data));
    return RT_OK;
}

/* Opens a shard and appends its tensors. On failure what was opened is in *s and goes with it. */
static enum rt_status add_shard(struct safetensors *s, const char *path, struct rt_error *err)
{
    struct shard *shard = &s->shards[s->n_shards++];
    shard->path = strdup(path);
    if (!shard->path)
        return rt_fail(err, RT_NO_MEMORY, "%s: no memory to open it", path);
    const uint8_t *data = NULL;
    enum rt_status st = file_map_open(path, &shard->map, err);
    if (st == RT_OK)
        st = read_header(shard, &data, err);
    if (st == RT_OK)
        st = json_check_unique(shard->header, path, err);
    if (st != RT_OK)
        return st;
    const uint8_t *end = shard->map.data + shard->map.size;
    size_t n = (size_t)cJSON_GetArraySize(shard->header), first = s->n_tensors;
    struct safetensor *grown = reallocarray(s->tensors, first + n + 1, sizeof *grown);
    if (!grown)
        return rt_fail(err, RT_NO_MEMORY, "%s: no memory for its %zu tensors", path, n);
    s->tensors = grown;
    const cJSON *entry;
    cJSON_ArrayForEach(entry, shard->header) {
        if (strcmp(entry->string, "__metadata__") == 0) {
            s->metadata = entry;
            st = check_metadata(entry, path, err);
        } else {
            st = read_entry(entry, shard, data, (uint64_t)(end - data), &s->tensors[s->n_tensors], err);
            s->n_tensors += st == RT_OK;
        }
        if (st != RT_OK)
            return st;
    }
    return check_coverage(s->tensors + first, s->n_tensors - first, path, data, end, err);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct safetensor *)a)->name, ((const struct safetensor *)b)->name);
}

static enum rt_status sort_tensors(struct safetensors *s, struct rt_error *err)
{
    if (s->n_tensors > 1)
        qsort(s->tensors, s->n_tensors, sizeof *s->tensors, by_name);
    for (size_t i = 1; i < s->n_tensors; i++) {
        const struct safetensor *a = &s->tensors[i - 1], *b = &s->tensors[i];
        if (strcmp(a->name, b->name) == 0)
            return rt_fail(err, RT_BAD_FILE, "%s: tensor %.200s is also in %s", b->file, b->name, a->file);
    }
    return RT_OK;
}

static struct safetensors *create(size_t max_shards)
{
    struct safetensors *s = calloc(1, sizeof *s);
    if (s)
        s->shards = calloc(max_shards, sizeof *s->shards);
    if (s && !s->shards) {
        free(s);
        s = NULL;
    }
    return s;
}

enum rt_status safetensors_open(const char *path, struct safetensors **out, struct rt_error *err)
{
    *out = NULL;
    struct safetensors *s = create(1);
    if (!s)
        return rt_fail(err, RT_NO_MEMORY, "%s: no memory to open it", path);
    enum rt_status st = add_shard(s, path, err);
    if (st == RT_OK)
        st = sort_tensors(s, err);
    if (st != RT_OK)
        safetensors_close(&s);
    *out = s;
    return st;
}

void safetensors_close(struct safetensors **s)
{
    if (!*s)
        return;
    for (size_t i = 0; i < (*s)->n_shards; i++) {
        struct shard *shard = &(*s)->shards[i];
        cJSON_Delete(shard->header);
        file_map_close(&shard->map);
        free(shard->path);
    }
    free((*s)->shards);
    free((*s)->tensors);
    free(*s);
    *s = NULL;
}

/* ---- a folder ---- */

/* An index is input: its shards must be files beside it, not ../../etc/x. */
static enum rt_status check_shard_name(const cJSON *item, const char *index, struct rt_error *err)
{
    if (!cJSON_IsString(item))
        return rt_fail(err, RT_BAD_FILE, "%s: weight_map: \"%.200s\" must name a file", index, item->string);
    const char *name = item->valuestring;
    size_t n = strlen(name), suffix = strlen(".safetensors");
    if (name[0] == '.' || strchr(name, '/') || n <= suffix || n > 255 || strcmp(name + n - suffix, ".safetensors") != 0)
        return rt_fail(err, RT_BAD_FILE,
                       "%s: weight_map: \"%.200s\" is said to be in \"%.200s\"; only a .safetensors file of the same "
                       "folder is opened",
                       index, item->string, name);
    return RT_OK;
}

static int by_text(const void *a, const void *b) { return strcmp(*(const char *const *)a, *(const char *const *)b); }

/* Sorted names of the shards, each once; the caller's to free(), the texts the index's. */
static enum rt_status list_shards(const cJSON *weight_map, const char *index, const char ***names, size_t *n,
                                  struct rt_error *err)
{
    size_t count = (size_t)cJSON_GetArraySize(weight_map), i = 0;
    *n = 0;
    *names = calloc(count + 1, sizeof **names);
    if (!*names)
        return rt_fail(err, RT_NO_MEMORY, "%s: no memory for its %zu tensors", index, count);
    const cJSON *item;
    cJSON_ArrayForEach(item, weight_map) {
        enum rt_status st = check_shard_name(item, index, err);
        if (st != RT_OK)
            return st;
        (*names)[i++] = item->valuestring;
    }
    if (count == 0)
        return rt_fail(err, RT_BAD_FILE, "%s: weight_map names no tensor", index);
    qsort(*names, count, sizeof **names, by_text);
    for (i = 0; i < count; i++)
        if (i == 0 || strcmp((*names)[i], (*names)[*n - 1]) != 0)
            (*names)[(*n)++] = (*names)[i];
    return RT_OK;
}

static enum rt_status check_weight_map(const struct safetensors *s, const cJSON *weight_map, const char *index,
                                       struct rt_error *err)
{
    const cJSON *item;
    cJSON_ArrayForEach(item, weight_map) {
        const struct safetensor *t = safetensors_find(s, item->string);
        const char *slash = t ? strrchr(t->file, '/') : NULL;
        if (!t || strcmp(slash ? slash + 1 : t->file, item->valuestring) != 0)
            return rt_fail(err, RT_BAD_FILE, "%s: weight_map: tensor %.200s is not in %.200s, where it should be",
                           index, item->string, item->valuestring);
    }
    return RT_OK;
}

static enum rt_status open_shards(const char *folder, const char *const *names, size_t n, struct safetensors **out,
                                  struct rt_error *err)
{
    struct safetensors *s = *out = create(n);
    if (!s)
        return rt_fail(err, RT_NO_MEMORY, "%s: no memory for its %zu shards", folder, n);
    enum rt_status st = RT_OK;
    for (size_t i = 0; i < n && st == RT_OK; i++) {
        char *path = file_join(folder, names[i]);
        st = path ? add_shard(s, path, err) : rt_fail(err, RT_NO_MEMORY, "%s: no memory", folder);
        free(path);
    }
    s->metadata = NULL;
    return st == RT_OK ? sort_tensors(s, err) : st;
}

static enum rt_status open_index(const char *folder, const char *index, struct safetensors **out, struct rt_error *err)
{
    cJSON *json = NULL;
    const cJSON *weight_map = NULL;
    const char **names = NULL;
    size_t n = 0;
    enum rt_status st = json_read_file(index, INDEX_MAX_BYTES, &json, err);
    if (st == RT_OK)
        st = json_object(json, "weight_map", index, &weight_map, err);
    if (st == RT_OK)
        st = json_check_unique(weight_map, index, err);
    if (st == RT_OK)
        st = list_shards(weight_map, index, &names, &n, err);
    if (st == RT_OK)
        st = open_shards(folder, names, n, out, err);
    if (st == RT_OK)
        st = check_weight_map(*out, weight_map, index, err);
    if (st != RT_OK)
        safetensors_close(out);
    free(names);
    cJSON_Delete(json);
    return st;
}

static enum rt_status fail_no_weights(const char *folder, struct rt_error *err)
{
    char *torch = file_join(folder, "pytorch_model.bin");
    bool pickled = torch && file_is_regular(torch);
    free(torch);
    return rt_fail(err, RT_BAD_FILE,
                   pickled ? "%s: has its weights as pytorch_model.bin only; save the model as safetensors"
                           : "%s: has neither model.safetensors nor " INDEX_NAME,
                   folder);
}

enum rt_status safetensors_open_folder(const char *folder, struct safetensors **out, struct rt_error *err)
{
    *out = NULL;
    char *single = file_join(folder, "model.safetensors"), *index = file_join(folder, INDEX_NAME);
    enum rt_status st;
    if (!single || !index)
        st = rt_fail(err, RT_NO_MEMORY, "%s: no memory to open it", folder);
    else if (file_is_regular(single))
        st = safetensors_open(single, out, err);
    else if (file_is_regular(index))
        st = open_index(folder, index, out, err);
    else
        st = fail_no_weights(folder, err);
    free(single);
    free(index);
    return st;
}

/* ---- lookups ---- */

size_t safetensors_count(const struct safetensors *s) { return s->n_tensors; }
const struct safetensor *safetensors_at(const struct safetensors *s, size_t i) { return &s->tensors[i]; }

const struct safetensor *safetensors_find(const struct safetensors *s, const char *name)
{
    struct safetensor key = {.name = name};
    return s->n_tensors ? bsearch(&key, s->tensors, s->n_tensors, sizeof key, by_name) : NULL;
}

size_t safetensors_metadata_count(const struct safetensors *s) { return (size_t)cJSON_GetArraySize(s->metadata); }

void safetensors_metadata_at(const struct safetensors *s, size_t i, const char **key, const char **value)
{
    const cJSON *item = cJSON_GetArrayItem(s->metadata, (int)i);
    *key = item->string;
    *value = item->valuestring;
}

const char *safetensors_metadata(const struct safetensors *s, const char *key)
{
    const cJSON *item = json_find(s->metadata, key);
    return item ? item->valuestring : NULL;
}

const char *shape_text(const uint64_t *shape, uint32_t rank, char *text, size_t size)
{
    size_t used = (size_t)snprintf(text, size, "[");
    for (uint32_t i = 0; i < rank && used < size; i++)
        used += (size_t)snprintf(text + used, size - used, "%s%llu", i ? ", " : "", (unsigned long long)shape[i]);
    if (used < size)
        snprintf(text + used, size - used, "]");
    return text;
}
