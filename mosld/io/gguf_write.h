/* mosld/io/gguf_write.h - writes GGUF files, version 3: keys, the table of tensors, then their data, each at a multiple of
 * general.alignment. What the keys mean is for others to know. */
#ifndef MOSLD_IO_GGUF_WRITE_H
#define MOSLD_IO_GGUF_WRITE_H

#include "mosld/io/file.h"
#include "mosld/io/gguf.h"

/* A key: one of a file that is copied (`from`), or a new string, u32 or f32. */
struct gguf_write_key {
    const struct gguf_key *from;
    const char *name;
    enum gguf_type type; /* GGUF_STRING, GGUF_U32, GGUF_F32 */
    const char *string;
    uint32_t u32;
    float f32;
};

struct gguf_write_tensor {
    const char *name;
    enum dtype dtype;
    uint32_t n_dims;
    uint64_t dims[GGUF_MAX_DIMS]; /* fastest first, as in gguf.h */
    const void *data;             /* its bytes; NULL: `write` writes exactly as many */
    enum rt_status (*write)(void *user, struct file_writer *to, struct rt_error *err);
    void *user;
};

/* Writes the file, atomically (file.h), with the keys and tensors in this order. RT_FAILED also for a tensor that does not fill blocks of
 * its type, or a `write` that wrote another number of bytes. */
enum rt_status gguf_write(const char *path, const struct gguf_write_key *keys, size_t n_keys,
                          const struct gguf_write_tensor *tensors, size_t n_tensors, struct rt_error *err);

#endif
