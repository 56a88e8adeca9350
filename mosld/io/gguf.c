/* mosld/io/gguf.c - reads the structure of a GGUF file; the values of keys are read in gguf_values.c. See gguf.h.
 *
 *     magic "GGUF", u32 version, u64 tensors, u64 keys
 *     a key: string name, u32 type, value
 *     a string: u64 length, bytes; an array: u32 element type, u64 count, elements
 *     a tensor: string name, u32 dimensions, u64 each, u32 type, u64 offset into the data
 *     the data, from the next multiple of general.alignment (32) on */
#include "mosld/io/gguf.h"

#include "mosld/io/file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The least that a key (empty name, u8) and a tensor (empty name, one dimension) take: counts that cannot fit are
 * refused before anything is allocated by them. */
enum { MIN_KEY_BYTES = 8 + 4 + 1, MIN_TENSOR_BYTES = 8 + 4 + 8 + 4 + 8, MAX_NAME = 1024, MAX_ALIGNMENT = 1 << 16 };

struct gguf {
    char *path;
    struct file_map map;
    uint32_t version;
    struct gguf_key *keys;
    size_t n_keys;
    struct gguf_tensor *tensors;
    size_t n_tensors;
    const struct gguf_key **keys_by_name;
    const struct gguf_tensor **tensors_by_name;
    char *names; /* all names, terminated, one behind the other */
    size_t names_used;
    struct gguf **parts; /* of a split model, behind the first, which this is; `tensors` are then those of all */
    size_t n_parts;
};

static const struct {
    const char *name;
    uint32_t bytes; /* 0: of no fixed size */
} types[GGUF_TYPES] = {
    [GGUF_U8] = {"u8", 1},         [GGUF_I8] = {"i8", 1},       [GGUF_U16] = {"u16", 2}, [GGUF_I16] = {"i16", 2},
    [GGUF_U32] = {"u32", 4},       [GGUF_I32] = {"i32", 4},     [GGUF_F32] = {"f32", 4}, [GGUF_BOOL] = {"bool", 1},
    [GGUF_STRING] = {"string", 0}, [GGUF_ARRAY] = {"array", 0}, [GGUF_U64] = {"u64", 8}, [GGUF_I64] = {"i64", 8},
    [GGUF_F64] = {"f64", 8},
};

const char *gguf_type_name(enum gguf_type type) { return (unsigned)type < GGUF_TYPES ? types[type].name : "unknown"; }

/* ---- reading forward, never past the end ---- */

struct cursor {
    const uint8_t *at, *end;
    const char *path;
};

static uint64_t left(const struct cursor *c) { return (uint64_t)(c->end - c->at); }

static enum rt_status fail_short(const struct cursor *c, const char *what, struct rt_error *err)
{
    return rt_fail(err, RT_BAD_FILE, "%s: ends within %s; it may be incomplete: fetch it again", c->path, what);
}

static enum rt_status take(struct cursor *c, void *out, size_t size, const char *what, struct rt_error *err)
{
    if (left(c) < size)
        return fail_short(c, what, err);
    memcpy(out, c->at, size); /* the file is little-endian, and so is the machine: see below */
    c->at += size;
    return RT_OK;
}
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "tensors are read as they stand in files");

static enum rt_status take_string(struct cursor *c, struct gguf_string *out, const char *what, struct rt_error *err)
{
    uint64_t size = 0;
    enum rt_status st = take(c, &size, sizeof size, what, err);
    if (st != RT_OK)
        return st;
    if (size > left(c))
        return rt_fail(err, RT_BAD_FILE, "%s: %s is a string of %llu bytes, the file has %llu left", c->path, what,
                       (unsigned long long)size, (unsigned long long)left(c));
    *out = (struct gguf_string){.data = (const char *)c->at, .size = (size_t)size};
    c->at += size;
    return RT_OK;
}

/* A name: terminated, in g->names. Names are shorter in memory than in the file (8 bytes of length against a NUL), so
 * they fit. */
static enum rt_status take_name(struct gguf *g, struct cursor *c, const char *what, const char **out,
                                struct rt_error *err)
{
    struct gguf_string text = {0};
    enum rt_status st = take_string(c, &text, what, err);
    if (st != RT_OK)
        return st;
    if (text.size == 0 || text.size > MAX_NAME || memchr(text.data, '\0', text.size))
        return rt_fail(err, RT_BAD_FILE, "%s: the name of %s has %zu bytes or a NUL in it; names have 1 to %d bytes",
                       g->path, what, text.size, MAX_NAME);
    char *name = g->names + g->names_used;
    memcpy(name, text.data, text.size);
    name[text.size] = '\0';
    g->names_used += text.size + 1;
    *out = name;
    return RT_OK;
}

/* ---- keys ---- */

static enum rt_status skip_strings(struct cursor *c, uint64_t n, const char *what, struct rt_error *err)
{
    if (n > left(c) / 8)
        return fail_short(c, what, err);
    struct gguf_string text = {0};
    enum rt_status st = RT_OK;
    for (uint64_t i = 0; i < n && st == RT_OK; i++)
        st = take_string(c, &text, what, err);
    return st;
}

static enum rt_status take_type(struct cursor *c, enum gguf_type *out, const char *what, struct rt_error *err)
{
    uint32_t type = 0;
    enum rt_status st = take(c, &type, sizeof type, what, err);
    if (st != RT_OK)
        return st;
    if (type >= GGUF_TYPES)
        return rt_fail(err, RT_BAD_FILE, "%s: %s has type %u, GGUF has 0 to %d", c->path, what, type, GGUF_TYPES - 1);
    *out = (enum gguf_type)type;
    return RT_OK;
}

static enum rt_status read_key(struct gguf *g, struct cursor *c, struct gguf_key *key, struct rt_error *err)
{
    char what[120];
    snprintf(what, sizeof what, "key number %zu", (size_t)(key - g->keys) + 1);
    enum rt_status st = take_name(g, c, what, &key->name, err);
    if (st != RT_OK)
        return st;
    snprintf(what, sizeof what, "key %.100s", key->name);
    st = take_type(c, &key->type, what, err);
    key->count = 1;
    key->element = key->type;
    if (st == RT_OK && key->type == GGUF_ARRAY) {
        st = take_type(c, &key->element, what, err);
        if (st == RT_OK)
            st = take(c, &key->count, sizeof key->count, what, err);
        if (st == RT_OK && key->element == GGUF_ARRAY)
            st = rt_fail(err, RT_BAD_FILE, "%s: %s is an array of arrays, which mosld does not read", g->path, what);
    }
    if (st != RT_OK)
        return st;
    key->data = c->at;
    if (key->element == GGUF_STRING)
        return skip_strings(c, key->count, what, err);
    uint32_t bytes = types[key->element].bytes;
    if (key->count > left(c) / bytes)
        return fail_short(c, what, err);
    c->at += key->count * bytes;
    return RT_OK;
}

static int key_by_name(const void *a, const void *b)
{
    return strcmp((*(const struct gguf_key *const *)a)->name, (*(const struct gguf_key *const *)b)->name);
}

static enum rt_status read_keys(struct gguf *g, struct cursor *c, struct rt_error *err)
{
    for (size_t i = 0; i < g->n_keys; i++) {
        enum rt_status st = read_key(g, c, &g->keys[i], err);
        if (st != RT_OK)
            return st;
        g->keys_by_name[i] = &g->keys[i];
    }
    qsort(g->keys_by_name, g->n_keys, sizeof *g->keys_by_name, key_by_name);
    for (size_t i = 1; i < g->n_keys; i++)
        if (strcmp(g->keys_by_name[i - 1]->name, g->keys_by_name[i]->name) == 0)
            return rt_fail(err, RT_BAD_FILE, "%s: key %.200s stands there twice", g->path, g->keys_by_name[i]->name);
    return RT_OK;
}

/* ---- tensors ---- */

static enum rt_status read_dims(const struct gguf *g, struct cursor *c, struct gguf_tensor *t, struct rt_error *err)
{
    t->elements = 1;
    for (uint32_t i = 0; i < GGUF_MAX_DIMS; i++)
        t->dims[i] = 1;
    for (uint32_t i = 0; i < t->n_dims; i++) {
        enum rt_status st = take(c, &t->dims[i], sizeof t->dims[i], "a tensor's dimensions", err);
        if (st != RT_OK)
            return st;
        if (t->dims[i] == 0 || t->dims[i] > INT64_MAX)
            return rt_fail(err, RT_BAD_FILE, "%s: tensor %.200s: dimension %u is 0 or negative", g->path, t->name, i);
        if (__builtin_mul_overflow(t->elements, t->dims[i], &t->elements))
            return rt_fail(err, RT_BAD_FILE, "%s: tensor %.200s: has more elements than 64 bits count", g->path,
                           t->name);
    }
    return RT_OK;
}

/* Leaves the tensor's offset into the data in *offset: where the data begins is known only behind the last tensor. */
static enum rt_status read_tensor(struct gguf *g, struct cursor *c, struct gguf_tensor *t, uint64_t *offset,
                                  struct rt_error *err)
{
    char what[64];
    snprintf(what, sizeof what, "tensor number %zu", (size_t)(t - g->tensors) + 1);
    enum rt_status st = take_name(g, c, what, &t->name, err);
    if (st == RT_OK)
        st = take(c, &t->n_dims, sizeof t->n_dims, what, err);
    if (st == RT_OK && (t->n_dims == 0 || t->n_dims > GGUF_MAX_DIMS))
        return rt_fail(err, RT_BAD_FILE, "%s: tensor %.200s: has %u dimensions, 1 to %d are possible", g->path, t->name,
                       t->n_dims, GGUF_MAX_DIMS);
    uint32_t type = 0;
    if (st == RT_OK)
        st = read_dims(g, c, t, err);
    if (st == RT_OK)
        st = take(c, &type, sizeof type, what, err);
    if (st == RT_OK)
        st = take(c, offset, sizeof *offset, what, err);
    if (st != RT_OK)
        return st;
    t->dtype = dtype_from_gguf(type);
    if (t->dtype == DTYPES)
        return rt_fail(err, RT_BAD_FILE, "%s: tensor %.200s: its type %u is none that mosld knows", g->path, t->name,
                       type);
    const struct dtype_info *info = dtype_info(t->dtype);
    if (t->dims[0] % info->block != 0)
        return rt_fail(err, RT_BAD_FILE, "%s: tensor %.200s: rows of %llu are no multiple of %u, the block of %s",
                       g->path, t->name, (unsigned long long)t->dims[0], info->block, info->name);
    if (!dtype_bytes(t->dtype, t->elements, &t->bytes))
        return rt_fail(err, RT_BAD_FILE, "%s: tensor %.200s: has more bytes than 64 bits count", g->path, t->name);
    return RT_OK;
}

static enum rt_status place_tensor(const struct gguf *g, struct gguf_tensor *t, uint64_t offset, const uint8_t *data,
                                   uint64_t data_size, uint32_t alignment, struct rt_error *err)
{
    if (offset % alignment != 0)
        return rt_fail(err, RT_BAD_FILE, "%s: tensor %.200s: its offset %llu is no multiple of %u", g->path, t->name,
                       (unsigned long long)offset, alignment);
    if (offset > data_size || t->bytes > data_size - offset)
        return rt_fail(err, RT_BAD_FILE,
                       "%s: tensor %.200s: %llu bytes at %llu exceed the file's %llu bytes of data; it may be "
                       "incomplete: fetch it again",
                       g->path, t->name, (unsigned long long)t->bytes, (unsigned long long)offset,
                       (unsigned long long)data_size);
    t->data = data + offset;
    return RT_OK;
}

static int tensor_by_name(const void *a, const void *b)
{
    return strcmp((*(const struct gguf_tensor *const *)a)->name, (*(const struct gguf_tensor *const *)b)->name);
}

static int tensor_by_place(const void *a, const void *b)
{
    const struct gguf_tensor *x = *(const struct gguf_tensor *const *)a, *y = *(const struct gguf_tensor *const *)b;
    return x->data < y->data ? -1 : x->data > y->data;
}

static enum rt_status check_tensors(struct gguf *g, struct rt_error *err)
{
    const struct gguf_tensor **list = g->tensors_by_name;
    for (size_t i = 0; i < g->n_tensors; i++)
        list[i] = &g->tensors[i];
    qsort(list, g->n_tensors, sizeof *list, tensor_by_place);
    for (size_t i = 1; i < g->n_tensors; i++)
        if (list[i]->data < list[i - 1]->data + list[i - 1]->bytes)
            return rt_fail(err, RT_BAD_FILE, "%s: tensors %.200s and %.200s overlap", g->path, list[i - 1]->name,
                           list[i]->name);
    qsort(list, g->n_tensors, sizeof *list, tensor_by_name);
    for (size_t i = 1; i < g->n_tensors; i++)
        if (strcmp(list[i - 1]->name, list[i]->name) == 0)
            return rt_fail(err, RT_BAD_FILE, "%s: tensor %.200s stands there twice", g->path, list[i]->name);
    return RT_OK;
}

static enum rt_status read_tensors(struct gguf *g, struct cursor *c, struct rt_error *err)
{
    int64_t alignment;
    enum rt_status st = gguf_get_integer_or(g, "general.alignment", 1, MAX_ALIGNMENT, 32, &alignment, err);
    if (st == RT_OK && (alignment & (alignment - 1)) != 0)
        st = rt_fail(err, RT_BAD_FILE, "%s: general.alignment is %lld, it must be a power of two", g->path,
                     (long long)alignment);
    uint64_t *offsets = st == RT_OK ? calloc(g->n_tensors + 1, sizeof *offsets) : NULL;
    if (st == RT_OK && !offsets)
        st = rt_fail(err, RT_NO_MEMORY, "%s: no memory for its %zu tensors", g->path, g->n_tensors);
    for (size_t i = 0; i < g->n_tensors && st == RT_OK; i++)
        st = read_tensor(g, c, &g->tensors[i], &offsets[i], err);
    uint64_t begin = (uint64_t)(c->at - g->map.data);
    begin += (uint64_t)-(int64_t)begin & (uint64_t)(alignment - 1);
    if (begin > g->map.size) /* a file with a vocabulary alone may end unpadded */
        begin = g->map.size;
    for (size_t i = 0; i < g->n_tensors && st == RT_OK; i++)
        st = place_tensor(g, &g->tensors[i], offsets[i], g->map.data + begin, g->map.size - begin, (uint32_t)alignment,
                          err);
    free(offsets);
    return st == RT_OK ? check_tensors(g, err) : st;
}

/* ---- the file ---- */

static enum rt_status read_preamble(struct gguf *g, struct cursor *c, struct rt_error *err)
{
    char magic[4] = "";
    enum rt_status st = take(c, magic, sizeof magic, "its first bytes", err);
    if (st != RT_OK)
        return st;
    if (memcmp(magic, "GGUF", 4) != 0)
        return rt_fail(err, RT_BAD_FILE, "%s: is no GGUF file: it does not begin with GGUF", g->path);
    uint64_t n_tensors = 0, n_keys = 0;
    st = take(c, &g->version, sizeof g->version, "its header", err);
    if (st == RT_OK && g->version != 0 && (g->version & 0xffff) == 0)
        return rt_fail(err, RT_BAD_FILE, "%s: is a big-endian GGUF file; mosld reads little-endian ones", g->path);
    if (st == RT_OK && g->version != 2 && g->version != 3)
        return rt_fail(err, RT_BAD_FILE, "%s: is GGUF version %u; mosld reads 2 and 3", g->path, g->version);
    if (st == RT_OK)
        st = take(c, &n_tensors, sizeof n_tensors, "its header", err);
    if (st == RT_OK)
        st = take(c, &n_keys, sizeof n_keys, "its header", err);
    if (st != RT_OK)
        return st;
    if (n_keys > left(c) / MIN_KEY_BYTES || n_tensors > left(c) / MIN_TENSOR_BYTES)
        return rt_fail(err, RT_BAD_FILE, "%s: claims %llu keys and %llu tensors, which %llu bytes cannot hold", g->path,
                       (unsigned long long)n_keys, (unsigned long long)n_tensors, (unsigned long long)g->map.size);
    g->n_keys = (size_t)n_keys;
    g->n_tensors = (size_t)n_tensors;
    return RT_OK;
}

/* How much the names can take: each at most MAX_NAME + 1, together less than the file. */
static size_t names_bound(const struct gguf *g)
{
    uint64_t count = (uint64_t)g->n_keys + g->n_tensors, bound;
    if (__builtin_mul_overflow(count, (uint64_t)MAX_NAME + 1, &bound) || bound > g->map.size)
        bound = g->map.size;
    return (size_t)bound;
}

static enum rt_status open_one(const char *path, struct gguf **out, struct rt_error *err)
{
    *out = NULL;
    struct gguf *g = calloc(1, sizeof *g);
    if (!g)
        return rt_fail(err, RT_NO_MEMORY, "%s: no memory to open it", path);
    struct cursor c = {.path = path};
    enum rt_status st = file_map_open(path, &g->map, err);
    if (st != RT_OK)
        goto fail;
    g->path = strdup(path);
    if (!g->path) {
        st = rt_fail(err, RT_NO_MEMORY, "%s: no memory to open it", path);
        goto fail;
    }
    c.at = g->map.data;
    c.end = g->map.data ? g->map.data + g->map.size : NULL;
    st = read_preamble(g, &c, err);
    if (st != RT_OK)
        goto fail;
    g->keys = calloc(g->n_keys + 1, sizeof *g->keys);
    g->tensors = calloc(g->n_tensors + 1, sizeof *g->tensors);
    g->keys_by_name = calloc(g->n_keys + 1, sizeof *g->keys_by_name);
    g->tensors_by_name = calloc(g->n_tensors + 1, sizeof *g->tensors_by_name);
    g->names = malloc(names_bound(g) + 1);
    if (!g->keys || !g->tensors || !g->keys_by_name || !g->tensors_by_name || !g->names)
        st =
            rt_fail(err, RT_NO_MEMORY, "%s: no memory for its %zu keys and %zu tensors", path, g->n_keys, g->n_tensors);
    if (st == RT_OK)
        st = read_keys(g, &c, err);
    if (st == RT_OK)
        st = read_tensors(g, &c, err);
    if (st != RT_OK)
        goto fail;
    *out = g;
    return RT_OK;
fail:
    gguf_close(&g);
    return st;
}

/* ---- split models: NAME-00001-of-00003.gguf and so on; the first has the keys ---- */

static enum rt_status check_part(const struct gguf *part, int64_t number, int64_t count, struct rt_error *err)
{
    int64_t no, of;
    RT_TRY(gguf_get_integer(part, "split.no", 0, 65535, &no, err));
    RT_TRY(gguf_get_integer(part, "split.count", 0, 65535, &of, err));
    if (no == number && of == count)
        return RT_OK;
    return rt_fail(err, RT_BAD_FILE, "%s: says that it is part %lld of %lld, its name that it is part %lld of %lld", part->path, (long long)no + 1,
                   (long long)of, (long long)number + 1, (long long)count);
}

/* Opens part `number` (from 0) of g, whose path ends in "00001-of-NNNNN.gguf". */
static enum rt_status open_part(struct gguf *g, int64_t number, int64_t count, struct rt_error *err)
{
    static const char pattern[] = "00001-of-NNNNN.gguf";
    char *path = strdup(g->path), digits[8];
    if (!path)
        return rt_fail(err, RT_NO_MEMORY, "%s: no memory to open its parts", g->path);
    snprintf(digits, sizeof digits, "%05u", (unsigned)(number + 1) % 100000);
    memcpy(path + strlen(path) - (sizeof pattern - 1), digits, 5);
    enum rt_status st = open_one(path, &g->parts[g->n_parts], err);
    if (!st)
        st = check_part(g->parts[g->n_parts++], number, count, err);
    free(path);
    return st;
}

static bool names_first_part(const char *path, int64_t count)
{
    char end[40];
    snprintf(end, sizeof end, "-00001-of-%05d.gguf", (int)count);
    size_t n = strlen(path), m = strlen(end);
    return n > m && strcmp(path + n - m, end) == 0;
}

/* The tensors of all parts in one list. */
static enum rt_status join_tensors(struct gguf *g, struct rt_error *err)
{
    size_t n = g->n_tensors;
    for (size_t i = 0; i < g->n_parts; i++)
        n += g->parts[i]->n_tensors;
    struct gguf_tensor *all = calloc(n + 1, sizeof *all);
    const struct gguf_tensor **by_name = calloc(n + 1, sizeof *by_name);
    if (!all || !by_name) {
        free(all);
        free(by_name);
        return rt_fail(err, RT_NO_MEMORY, "%s: no memory for %zu tensors", g->path, n);
    }
    memcpy(all, g->tensors, g->n_tensors * sizeof *all);
    struct gguf_tensor *to = all + g->n_tensors;
    for (size_t i = 0; i < g->n_parts; to += g->parts[i++]->n_tensors)
        memcpy(to, g->parts[i]->tensors, g->parts[i]->n_tensors * sizeof *all);
    free(g->tensors);
    free(g->tensors_by_name);
    g->tensors = all;
    g->tensors_by_name = by_name;
    g->n_tensors = n;
    for (size_t i = 0; i < n; i++)
        by_name[i] = &all[i];
    qsort(by_name, n, sizeof *by_name, tensor_by_name);
    for (size_t i = 1; i < n; i++)
        if (strcmp(by_name[i - 1]->name, by_name[i]->name) == 0)
            return rt_fail(err, RT_BAD_FILE, "%s: tensor %.200s stands in two of its parts", g->path, by_name[i]->name);
    return RT_OK;
}

/* The other parts of a first part; nothing for a file that is whole, or another part (which can be looked at by itself). */
static enum rt_status open_parts(struct gguf *g, struct rt_error *err)
{
    int64_t count, no, tensors;
    RT_TRY(gguf_get_integer_or(g, "split.count", 0, 65535, 1, &count, err));
    RT_TRY(gguf_get_integer_or(g, "split.no", 0, 65535, 0, &no, err));
    if (count < 2 || no != 0)
        return RT_OK;
    if (!names_first_part(g->path, count))
        return rt_fail(err, RT_BAD_FILE, "%s: is the first of %lld parts of a model, so its name must end in -00001-of-%05d.gguf for the others to be found",
                       g->path, (long long)count, (int)count);
    g->parts = calloc((size_t)count, sizeof *g->parts);
    if (!g->parts)
        return rt_fail(err, RT_NO_MEMORY, "%s: no memory for its parts", g->path);
    for (int64_t i = 1; i < count; i++)
        RT_TRY(open_part(g, i, count, err));
    RT_TRY(join_tensors(g, err));
    RT_TRY(gguf_get_integer_or(g, "split.tensors.count", 0, INT32_MAX, (int64_t)g->n_tensors, &tensors, err));
    if ((uint64_t)tensors != g->n_tensors)
        return rt_fail(err, RT_BAD_FILE, "%s: announces %lld tensors in %lld parts, which have %zu", g->path, (long long)tensors, (long long)count,
                       g->n_tensors);
    return RT_OK;
}

enum rt_status gguf_open(const char *path, struct gguf **out, struct rt_error *err)
{
    enum rt_status st = open_one(path, out, err);
    if (!st)
        st = open_parts(*out, err);
    if (st)
        gguf_close(out);
    return st;
}

void gguf_close(struct gguf **g)
{
    if (!*g)
        return;
    for (size_t i = 0; i < (*g)->n_parts; i++)
        gguf_close(&(*g)->parts[i]);
    free((*g)->parts);
    file_map_close(&(*g)->map);
    free((*g)->keys);
    free((*g)->tensors);
    free((*g)->keys_by_name);
    free((*g)->tensors_by_name);
    free((*g)->names);
    free((*g)->path);
    free(*g);
    *g = NULL;
}

const char *gguf_path(const struct gguf *g) { return g->path; }
uint32_t gguf_version(const struct gguf *g) { return g->version; }
uint64_t gguf_file_size(const struct gguf *g)
{
    uint64_t size = g->map.size;
    for (size_t i = 0; i < g->n_parts; i++)
        size += g->parts[i]->map.size;
    return size;
}

size_t gguf_key_count(const struct gguf *g) { return g->n_keys; }
const struct gguf_key *gguf_key_at(const struct gguf *g, size_t i) { return &g->keys[i]; }
size_t gguf_tensor_count(const struct gguf *g) { return g->n_tensors; }
const struct gguf_tensor *gguf_tensor_at(const struct gguf *g, size_t i) { return &g->tensors[i]; }

const struct gguf_key *gguf_find_key(const struct gguf *g, const char *name)
{
    struct gguf_key wanted = {.name = name};
    const struct gguf_key *key = &wanted;
    const struct gguf_key **found =
        g->n_keys ? bsearch(&key, g->keys_by_name, g->n_keys, sizeof key, key_by_name) : NULL;
    return found ? *found : NULL;
}

const struct gguf_tensor *gguf_find_tensor(const struct gguf *g, const char *name)
{
    struct gguf_tensor wanted = {.name = name};
    const struct gguf_tensor *t = &wanted;
    const struct gguf_tensor **found =
        g->n_tensors ? bsearch(&t, g->tensors_by_name, g->n_tensors, sizeof t, tensor_by_name) : NULL;
    return found ? *found : NULL;
}
