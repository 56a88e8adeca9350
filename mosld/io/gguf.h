/* mosld/io/gguf.h - reads GGUF files, versions 2 and 3, little-endian.
 *
 * The reader maps the file and checks everything that it later relies on: counts against the size of the file, string
 * lengths, types, duplicate keys and tensors, alignment, dimensions, offsets, overlaps, with arithmetic that cannot
 * wrap. Keys and tensors that pass are handed out as views into the mapping; see file.h for what truncating a mapped
 * file does. What the keys mean is for others to know.
 *
 * RT_BAD_FILE for a bad file, with its name and the key's or tensor's. Reading from several threads is fine. */
#ifndef MOSLD_IO_GGUF_H
#define MOSLD_IO_GGUF_H

#include "mosld/io/dtype.h"
#include "runtime/error.h"

#define GGUF_MAX_DIMS 4

enum gguf_type {
    GGUF_U8, GGUF_I8, GGUF_U16, GGUF_I16, GGUF_U32, GGUF_I32, GGUF_F32, GGUF_BOOL, GGUF_STRING, GGUF_ARRAY,
    GGUF_U64, GGUF_I64, GGUF_F64,
    GGUF_TYPES
};
const char *gguf_type_name(enum gguf_type type); /* "u32" */

/* Bytes of the file: not terminated, any byte may occur. */
struct gguf_string {
    const char *data;
    size_t size;
};

struct gguf_key {
    const char *name;
    enum gguf_type type;
    enum gguf_type element; /* of an array: never GGUF_ARRAY */
    uint64_t count;         /* elements of an array; else 1 */
    const uint8_t *data;    /* the first element, unaligned */
};

struct gguf_tensor {
    const char *name;
    enum dtype dtype;
    uint32_t n_dims;              /* 1..4 */
    uint64_t dims[GGUF_MAX_DIMS]; /* fastest first: a matrix [rows, cols] is {cols, rows}; 1 beyond n_dims */
    uint64_t elements, bytes;
    const uint8_t *data;
};

struct gguf;

/* The first part of a split model (NAME-00001-of-00003.gguf) opens the others too, which lie beside it, and has the tensors of all; another part is opened
 * by itself. After an error *out is NULL. */
enum rt_status gguf_open(const char *path, struct gguf **out, struct rt_error *err);
void gguf_close(struct gguf **g); /* NULL is fine; invalidates keys, tensors and strings */
const char *gguf_path(const struct gguf *g);
uint32_t gguf_version(const struct gguf *g);
uint64_t gguf_file_size(const struct gguf *g); /* of all parts */

/* In the order of the file. */
size_t gguf_key_count(const struct gguf *g);
const struct gguf_key *gguf_key_at(const struct gguf *g, size_t i);
const struct gguf_key *gguf_find_key(const struct gguf *g, const char *name); /* NULL: not there */
size_t gguf_tensor_count(const struct gguf *g);
const struct gguf_tensor *gguf_tensor_at(const struct gguf *g, size_t i);
const struct gguf_tensor *gguf_find_tensor(const struct gguf *g, const char *name); /* NULL: not there */

/* Getters of one value: RT_BAD_FILE where the key is missing, of another kind, or out of range. Any integer type serves
 * as an integer, integers and floats serve as a number. The _or forms give `fallback` where the key is missing (and
 * nothing else). */
enum rt_status gguf_get_string(const struct gguf *g, const char *key, struct gguf_string *out, struct rt_error *err);
enum rt_status gguf_get_integer(const struct gguf *g, const char *key, int64_t min, int64_t max, int64_t *out,
                                struct rt_error *err);
enum rt_status gguf_get_integer_or(const struct gguf *g, const char *key, int64_t min, int64_t max, int64_t fallback,
                                   int64_t *out, struct rt_error *err);
enum rt_status gguf_get_number(const struct gguf *g, const char *key, double min, double max, double *out,
                               struct rt_error *err);
enum rt_status gguf_get_number_or(const struct gguf *g, const char *key, double min, double max, double fallback,
                                  double *out, struct rt_error *err);
enum rt_status gguf_get_bool_or(const struct gguf *g, const char *key, bool fallback, bool *out, struct rt_error *err);
/* A copy of a string value, terminated, the caller's to free(); a NUL within is RT_BAD_FILE. *out is NULL where the key
 * is missing. */
enum rt_status gguf_dup_string_or_null(const struct gguf *g, const char *key, char **out, struct rt_error *err);

/* Getters of arrays: *out is the caller's to free(), NULL where the array is missing or empty (*n = 0), which is no
 * error: gguf_find_key tells the two apart. RT_BAD_FILE where the key is no array or of another kind of element:
 * integer types serve as integers (an unsigned value beyond 2^63-1 is refused), f32 and f64 as floats. String views
 * point into the mapping. */
enum rt_status gguf_get_strings(const struct gguf *g, const char *key, struct gguf_string **out, size_t *n,
                                struct rt_error *err);
enum rt_status gguf_get_integers(const struct gguf *g, const char *key, int64_t **out, size_t *n, struct rt_error *err);
enum rt_status gguf_get_floats(const struct gguf *g, const char *key, float **out, size_t *n, struct rt_error *err);

#endif
