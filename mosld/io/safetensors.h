/* mosld/io/safetensors.h - reads and writes safetensors files, and reads folders of them with an index.
 *
 * A file: u64 N, little-endian; N bytes of JSON, {"name": {"dtype", "shape", "data_offsets": [begin, end]},
 * "__metadata__": {...}}; then the data, which the tensors fill without hole or overlap. The reader maps the file and
 * checks all of that before it hands out a pointer, so a tensor's bytes are always inside the mapping; see file.h for
 * what truncating a mapped file does. Data may stand at any address: read elements with memcpy. NaN is not looked for
 * here.
 *
 * RT_BAD_FILE for a bad file, with its name and the tensor's. Reading from several threads is fine. */
#ifndef MOSLD_IO_SAFETENSORS_H
#define MOSLD_IO_SAFETENSORS_H

#include "mosld/io/dtype.h"
#include "runtime/error.h"

#define SAFETENSORS_MAX_RANK 8

struct safetensor {
    const char *name;
    const char *file; /* path of the file that holds it, for messages */
    enum dtype dtype;
    uint32_t rank; /* 0: a scalar */
    uint64_t shape[SAFETENSORS_MAX_RANK];
    uint64_t elements; /* 0 where a dimension is 0 */
    const uint8_t *data;
    uint64_t bytes;
};

struct safetensors;

/* Opens one file. After an error *out is NULL. */
enum rt_status safetensors_open(const char *path, struct safetensors **out, struct rt_error *err);
/* Opens a model folder: model.safetensors, or the shards that model.safetensors.index.json names, which must lie in the
 * folder itself, have what the index says of them, and share no tensor. Its metadata.total_size is not looked at:
 * writers get it wrong. */
enum rt_status safetensors_open_folder(const char *folder, struct safetensors **out, struct rt_error *err);
void safetensors_close(struct safetensors **s); /* NULL is fine; invalidates every tensor */

/* Tensors, sorted by name (bytewise). */
size_t safetensors_count(const struct safetensors *s);
const struct safetensor *safetensors_at(const struct safetensors *s, size_t i);
const struct safetensor *safetensors_find(const struct safetensors *s, const char *name); /* NULL: not there */

/* __metadata__ of a single file, in the file's order; a folder has none. Values are strings always. */
size_t safetensors_metadata_count(const struct safetensors *s);
void safetensors_metadata_at(const struct safetensors *s, size_t i, const char **key, const char **value);
const char *safetensors_metadata(const struct safetensors *s, const char *key); /* NULL: not there */

/* "[2, 3]", for messages; returns text. */
const char *shape_text(const uint64_t *shape, uint32_t rank, char *text, size_t size);

struct safetensors_entry {
    const char *name;
    enum dtype dtype;
    uint32_t rank;
    uint64_t shape[SAFETENSORS_MAX_RANK];
    const void *data; /* may be NULL where the tensor is empty */
};
struct safetensors_pair {
    const char *key, *value;
};
/* Writes a file, atomically (file.h). The bytes depend on the set of entries, not on their order: by falling element
 * size, then by name; the data begins at a multiple of 8, so every element is aligned. Metadata is sorted by key.
 * RT_FAILED also for a name given twice, a type that safetensors lacks, a rank above the limit. */
enum rt_status safetensors_write(const char *path, const struct safetensors_entry *entries, size_t n,
                                 const struct safetensors_pair *metadata, size_t n_metadata, struct rt_error *err);

/* The same for tensors that do not all fit memory: those without data are asked for when their turn comes. `tensor` is their place in
 * `entries`, and `write` writes exactly as many bytes as the shape has (RT_FAILED otherwise). */
struct file_writer;
typedef enum rt_status (*safetensors_source)(void *user, size_t tensor, struct file_writer *to, struct rt_error *err);
enum rt_status safetensors_write_from(const char *path, const struct safetensors_entry *entries, size_t n,
                                      const struct safetensors_pair *metadata, size_t n_metadata, safetensors_source write,
                                      void *user, struct rt_error *err);

#endif
