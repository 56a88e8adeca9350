/* tests/support/io_files.c - see io_files.h. */
#include "tests/support/io_files.h"

#include <check.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char folder[64];
static pid_t owner;

static int remove_one(const char *path, const struct stat *info, int type, struct FTW *ftw)
{
    (void)info, (void)type, (void)ftw;
    return remove(path);
}

static void remove_folder(void)
{
    if (getpid() == owner)
        nftw(folder, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

const char *io_folder(void)
{
    if (!folder[0]) {
        snprintf(folder, sizeof folder, "/tmp/mosld-test-XXXXXX");
        if (!mkdtemp(folder))
            abort();
        owner = getpid();
        atexit(remove_folder);
    }
    return folder;
}

const char *io_path(const char *name)
{
    static char paths[16][512];
    static unsigned next;
    char *path = paths[next++ % 16];
    snprintf(path, sizeof paths[0], "%s/%s", io_folder(), name);
    return path;
}

void io_write(const char *path, const void *data, size_t size)
{
    remove(path); /* writing over a file makes ext4 flush it, which takes milliseconds */
    FILE *file = fopen(path, "wb");
    ck_assert_msg(file != NULL, "%s cannot be made", path);
    ck_assert_uint_eq(fwrite(data, 1, size, file), size);
    ck_assert_int_eq(fclose(file), 0);
}

void io_write_text(const char *path, const char *text) { io_write(path, text, strlen(text)); }

char *io_quoted(const char *text)
{
    char *copy = strdup(text);
    ck_assert_ptr_nonnull(copy);
    for (char *at = strchr(copy, '\''); at; at = strchr(at, '\''))
        *at = '"';
    return copy;
}

void io_write_json(const char *path, const char *text)
{
    char *quoted = io_quoted(text);
    io_write_text(path, quoted);
    free(quoted);
}

void bytes_add(struct bytes *b, const void *data, size_t size)
{
    if (size == 0)
        return;
    b->data = realloc(b->data, b->size + size);
    ck_assert_ptr_nonnull(b->data);
    memcpy(b->data + b->size, data, size);
    b->size += size;
}

void bytes_u8(struct bytes *b, uint8_t value) { bytes_add(b, &value, 1); }
void bytes_u32(struct bytes *b, uint32_t value) { bytes_add(b, &value, 4); }
void bytes_u64(struct bytes *b, uint64_t value) { bytes_add(b, &value, 8); }
void bytes_f32(struct bytes *b, float value) { bytes_add(b, &value, 4); }

void bytes_align(struct bytes *b, size_t alignment)
{
    while (b->size % alignment != 0)
        bytes_u8(b, 0);
}

void bytes_free(struct bytes *b)
{
    free(b->data);
    *b = (struct bytes){0};
}

void build_begin(struct bytes *b, uint32_t version, uint64_t n_tensors, uint64_t n_keys)
{
    bytes_add(b, "GGUF", 4);
    bytes_u32(b, version);
    bytes_u64(b, n_tensors);
    bytes_u64(b, n_keys);
}

void build_string(struct bytes *b, const char *text)
{
    bytes_u64(b, strlen(text));
    bytes_add(b, text, strlen(text));
}

void build_key_u32(struct bytes *b, const char *key, uint32_t value)
{
    build_string(b, key);
    bytes_u32(b, 4);
    bytes_u32(b, value);
}

void build_key_f32(struct bytes *b, const char *key, float value)
{
    build_string(b, key);
    bytes_u32(b, 6);
    bytes_f32(b, value);
}

void build_key_string(struct bytes *b, const char *key, const char *value)
{
    build_string(b, key);
    bytes_u32(b, 8);
    build_string(b, value);
}

void build_key_array(struct bytes *b, const char *key, uint32_t element_type, uint64_t count)
{
    build_string(b, key);
    bytes_u32(b, 9);
    bytes_u32(b, element_type);
    bytes_u64(b, count);
}

void build_tensor(struct bytes *b, const char *name, uint32_t n_dims, const uint64_t *dims, uint32_t type,
                  uint64_t offset)
{
    build_string(b, name);
    bytes_u32(b, n_dims);
    for (uint32_t i = 0; i < n_dims && i < 8; i++)
        bytes_u64(b, dims[i]);
    bytes_u32(b, type);
    bytes_u64(b, offset);
}

void safetensors_raw(const char *path, const char *header, const void *data, size_t size)
{
    struct bytes b = {0};
    char *quoted = io_quoted(header);
    bytes_u64(&b, strlen(quoted));
    bytes_add(&b, quoted, strlen(quoted));
    bytes_add(&b, data, size);
    io_write(path, b.data, b.size);
    bytes_free(&b);
    free(quoted);
}

void check_refused(enum rt_status st, const struct rt_error *err, const char *file, const char *words)
{
    ck_assert_msg(st == RT_BAD_FILE, "status %d instead of RT_BAD_FILE, for '%s': %s", st, words, err->text);
    ck_assert_int_eq(err->status, RT_BAD_FILE);
    ck_assert_msg(strstr(err->text, file) != NULL, "'%s' is not in: %s", file, err->text);
    char *quoted = io_quoted(words);
    ck_assert_msg(strstr(err->text, quoted) != NULL, "'%s' is not in: %s", quoted, err->text);
    free(quoted);
    ck_assert_ptr_null(strchr(err->text, '\n'));
}

void check_ok(enum rt_status st, const struct rt_error *err)
{
    ck_assert_msg(st == RT_OK, "status %d: %s", st, err->text);
}

/* splitmix64 */
uint32_t io_random(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return (uint32_t)((z ^ z >> 31) >> 16);
}
