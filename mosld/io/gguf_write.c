/* mosld/io/gguf_write.c - see gguf_write.h. */
#include "mosld/io/gguf_write.h"

#include <stdlib.h>
#include <string.h>

enum { DEFAULT_ALIGNMENT = 32 };

static enum rt_status put_u32(struct file_writer *w, uint32_t v, struct rt_error *err)
{
    return file_writer_write(w, &v, sizeof v, err);
}

static enum rt_status put_u64(struct file_writer *w, uint64_t v, struct rt_error *err)
{
    return file_writer_write(w, &v, sizeof v, err);
}

static enum rt_status put_string(struct file_writer *w, const char *s, struct rt_error *err)
{
    RT_TRY(put_u64(w, strlen(s), err));
    return file_writer_write(w, s, strlen(s), err);
}

/* ---- keys ---- */

static uint64_t strings_bytes(const uint8_t *data, uint64_t n)
{
    const uint8_t *p = data;
    for (uint64_t i = 0; i < n; i++) {
        uint64_t size;
        memcpy(&size, p, sizeof size);
        p += 8 + size;
    }
    return (uint64_t)(p - data);
}

static uint64_t scalar_bytes(enum gguf_type type)
{
    switch (type) {
    case GGUF_U8: case GGUF_I8: case GGUF_BOOL: return 1;
    case GGUF_U16: case GGUF_I16: return 2;
    case GGUF_U64: case GGUF_I64: case GGUF_F64: return 8;
    default: return 4;
    }
}

static enum rt_status copy_key(struct file_writer *w, const struct gguf_key *k, struct rt_error *err)
{
    enum gguf_type of = k->type == GGUF_ARRAY ? k->element : k->type;
    RT_TRY(put_string(w, k->name, err));
    RT_TRY(put_u32(w, (uint32_t)k->type, err));
    if (k->type == GGUF_ARRAY) {
        RT_TRY(put_u32(w, (uint32_t)k->element, err));
        RT_TRY(put_u64(w, k->count, err));
    }
    return file_writer_write(w, k->data, of == GGUF_STRING ? strings_bytes(k->data, k->count) : k->count * scalar_bytes(of), err);
}

static enum rt_status put_key(struct file_writer *w, const struct gguf_write_key *k, struct rt_error *err)
{
    if (k->from)
        return copy_key(w, k->from, err);
    RT_TRY(put_string(w, k->name, err));
    RT_TRY(put_u32(w, (uint32_t)k->type, err));
    if (k->type == GGUF_STRING)
        return put_string(w, k->string, err);
    return k->type == GGUF_U32 ? put_u32(w, k->u32, err) : file_writer_write(w, &k->f32, sizeof k->f32, err);
}

static uint64_t key_bytes(const struct gguf_write_key *k)
{
    if (!k->from)
        return 8 + strlen(k->name) + 4 + (k->type == GGUF_STRING ? 8 + strlen(k->string) : 4);
    enum gguf_type of = k->from->type == GGUF_ARRAY ? k->from->element : k->from->type;
    return 8 + strlen(k->from->name) + 4 + (k->from->type == GGUF_ARRAY ? 12 : 0) +
           (of == GGUF_STRING ? strings_bytes(k->from->data, k->from->count) : k->from->count * scalar_bytes(of));
}

static uint64_t alignment_of(const struct gguf_write_key *keys, size_t n)
{
    uint32_t v = DEFAULT_ALIGNMENT;
    for (size_t i = 0; i < n; i++)
        if (keys[i].from && strcmp(keys[i].from->name, "general.alignment") == 0 && keys[i].from->type == GGUF_U32)
            memcpy(&v, keys[i].from->data, sizeof v);
    return v;
}

/* ---- tensors ---- */

static enum rt_status tensor_bytes(const char *path, const struct gguf_write_tensor *t, uint64_t *bytes, struct rt_error *err)
{
    uint64_t elements = 1;
    bool fits = dtype_info(t->dtype)->gguf_id >= 0 && t->dims[0] % dtype_info(t->dtype)->block == 0;
    for (uint32_t i = 0; i < t->n_dims; i++)
        fits = fits && !__builtin_mul_overflow(elements, t->dims[i], &elements);
    if (!fits || !dtype_bytes(t->dtype, elements, bytes))
        return rt_fail(err, RT_FAILED, "%s: tensor %s does not fill blocks of %s", path, t->name, dtype_name(t->dtype));
    return RT_OK;
}

static enum rt_status pad(struct file_writer *w, uint64_t at, uint64_t alignment, struct rt_error *err)
{
    static const char zeros[64] = {0};
    for (uint64_t n = (alignment - at % alignment) % alignment; n;) {
        uint64_t m = n < sizeof zeros ? n : sizeof zeros;
        RT_TRY(file_writer_write(w, zeros, m, err));
        n -= m;
    }
    return RT_OK;
}

static enum rt_status put_table(struct file_writer *w, const char *path, const struct gguf_write_tensor *tensors, size_t n,
                                uint64_t alignment, uint64_t *header, struct rt_error *err)
{
    uint64_t offset = 0, bytes;
    for (size_t i = 0; i < n; i++) {
        const struct gguf_write_tensor *t = &tensors[i];
        RT_TRY(tensor_bytes(path, t, &bytes, err));
        RT_TRY(put_string(w, t->name, err));
        RT_TRY(put_u32(w, t->n_dims, err));
        for (uint32_t d = 0; d < t->n_dims; d++)
            RT_TRY(put_u64(w, t->dims[d], err));
        RT_TRY(put_u32(w, (uint32_t)dtype_info(t->dtype)->gguf_id, err));
        RT_TRY(put_u64(w, offset, err));
        *header += 8 + strlen(t->name) + 4 + 8 * t->n_dims + 4 + 8;
        offset += bytes + (alignment - bytes % alignment) % alignment;
    }
    return pad(w, *header, alignment, err);
}

static enum rt_status put_all(struct file_writer *w, const char *path, const struct gguf_write_key *keys, size_t n_keys,
                              const struct gguf_write_tensor *tensors, size_t n_tensors, struct rt_error *err)
{
    uint64_t header = 4 + 4 + 8 + 8, alignment = alignment_of(keys, n_keys), bytes;
    RT_TRY(file_writer_write(w, "GGUF", 4, err));
    RT_TRY(put_u32(w, 3, err));
    RT_TRY(put_u64(w, n_tensors, err));
    RT_TRY(put_u64(w, n_keys, err));
    for (size_t i = 0; i < n_keys; i++) {
        RT_TRY(put_key(w, &keys[i], err));
        header += key_bytes(&keys[i]);
    }
    RT_TRY(put_table(w, path, tensors, n_tensors, alignment, &header, err));
    for (size_t i = 0; i < n_tensors; i++) {
        RT_TRY(tensor_bytes(path, &tensors[i], &bytes, err));
        uint64_t before = file_writer_size(w);
        RT_TRY(tensors[i].data ? file_writer_write(w, tensors[i].data, bytes, err) : tensors[i].write(tensors[i].user, w, err));
        if (file_writer_size(w) - before != bytes)
            return rt_fail(err, RT_FAILED, "%s: tensor %s came with another number of bytes than its shape has", path, tensors[i].name);
        RT_TRY(pad(w, bytes, alignment, err));
    }
    return RT_OK;
}

enum rt_status gguf_write(const char *path, const struct gguf_write_key *keys, size_t n_keys,
                          const struct gguf_write_tensor *tensors, size_t n_tensors, struct rt_error *err)
{
    struct file_writer *w;
    RT_TRY(file_writer_open(path, &w, err));
    enum rt_status st = put_all(w, path, keys, n_keys, tensors, n_tensors, err);
    if (!st)
        return file_writer_commit(&w, err);
    file_writer_abort(&w);
    return st;
}
