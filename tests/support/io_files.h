/* tests/support/io_files.h - files made at run time for the tests of readers: bytes, a GGUF builder, and what a refusal
 * must look like. */
#ifndef MOSLD_TESTS_IO_FILES_H
#define MOSLD_TESTS_IO_FILES_H

#include "runtime/error.h"

#include <stddef.h>
#include <stdint.h>

/* A folder of this test program, made by the first call and removed when the process that made it exits: call it from
 * main(), so that it is shared by the forked tests. */
const char *io_folder(void);
/* "FOLDER/name"; the text stays valid until 16 more calls. */
const char *io_path(const char *name);
void io_write(const char *path, const void *data, size_t size);
void io_write_text(const char *path, const char *text);
/* JSON in C, readable: ' stands for ". Here, in safetensors_raw and in what check_refused looks for. */
void io_write_json(const char *path, const char *text);
/* The text with " for ', the caller's to free(). */
char *io_quoted(const char *text);

/* Bytes that grow; zero-initialise, free with bytes_free. */
struct bytes {
    uint8_t *data;
    size_t size;
};
void bytes_add(struct bytes *b, const void *data, size_t size);
void bytes_u8(struct bytes *b, uint8_t value);
void bytes_u32(struct bytes *b, uint32_t value);
void bytes_u64(struct bytes *b, uint64_t value);
void bytes_f32(struct bytes *b, float value);
void bytes_align(struct bytes *b, size_t alignment);
void bytes_free(struct bytes *b);

/* GGUF, piece by piece: nothing is checked, so that anything can be written. */
void build_begin(struct bytes *b, uint32_t version, uint64_t n_tensors, uint64_t n_keys);
void build_string(struct bytes *b, const char *text);
void build_key_u32(struct bytes *b, const char *key, uint32_t value);
void build_key_f32(struct bytes *b, const char *key, float value);
void build_key_string(struct bytes *b, const char *key, const char *value);
void build_key_array(struct bytes *b, const char *key, uint32_t element_type, uint64_t count); /* elements follow */
void build_tensor(struct bytes *b, const char *name, uint32_t n_dims, const uint64_t *dims, uint32_t type,
                  uint64_t offset);

/* Writes a safetensors file of any header. */
void safetensors_raw(const char *path, const char *header, const void *data, size_t size);

/* Fails the test unless `st` is RT_BAD_FILE and the message has both texts in it (' in words stands for "). */
void check_refused(enum rt_status st, const struct rt_error *err, const char *file, const char *words);
/* Fails the test, with the message, unless st is RT_OK. */
void check_ok(enum rt_status st, const struct rt_error *err);

/* A pseudo-random stream for mutations: same seed, same files. */
uint32_t io_random(uint64_t *state);

#endif
