/* mosld/io/file.h - whole files in and out: read, map, write so that a crash leaves the old file or the new one.
 *
 * Owns nothing but bytes; what is in them is the business of json.h, safetensors.h and gguf.h. Sizes are bytes. Only
 * regular files are read: a folder, a FIFO or a device is RT_BAD_FILE, as is a file that is missing or may not be read.
 * What cannot be written is RT_FAILED. Every message begins with the path. Any thread may call any function. */
#ifndef MOSLD_IO_FILE_H
#define MOSLD_IO_FILE_H

#include "runtime/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Reads a whole file into memory. *data has a NUL behind its *size bytes and is the caller's to free(). A file of more
 * than `max` bytes is RT_BAD_FILE. After an error *data is NULL. */
enum rt_status file_read(const char *path, uint64_t max, char **data, size_t *size, struct rt_error *err);

/* A file seen through memory, read-only. The bytes are those of the file as it is: somebody who truncates it while it
 * is mapped makes reads beyond its new end raise SIGBUS, and the program dies. mosld maps model files only, which
 * nobody writes in place; what a user may edit during a run (task data, settings) is read with file_read. */
struct file_map {
    const uint8_t *data; /* NULL where size is 0 */
    uint64_t size;       /* when it was opened */
};
enum rt_status file_map_open(const char *path, struct file_map *map, struct rt_error *err);
void file_map_close(struct file_map *map); /* zeroes *map; a zeroed one is fine */
/* Says of a part of a mapping that it will hardly be read again: its pages leave the process's memory, and come back from the file if it is. */
void file_map_forget(const void *data, size_t size);

/* A file that appears under its name only once it is whole. Writes go to a temporary file in the same folder; commit
 * makes them durable (fsync of the file, rename, fsync of the folder) and replaces what had the name. Write failures
 * are remembered and reported by commit, so a caller may check there alone. */
struct file_writer;
enum rt_status file_writer_open(const char *path, struct file_writer **out, struct rt_error *err);
enum rt_status file_writer_write(struct file_writer *w, const void *data, size_t size, struct rt_error *err);
uint64_t file_writer_size(const struct file_writer *w); /* bytes written so far */
enum rt_status file_writer_commit(struct file_writer **w, struct rt_error *err); /* frees *w, also after an error */
void file_writer_abort(struct file_writer **w);                                  /* leaves no trace; NULL is fine */

/* The three above in one call. */
enum rt_status file_write_atomic(const char *path, const void *data, size_t size, struct rt_error *err);

/* Makes a folder and its parents. One that is there is fine; a file in its place is RT_FAILED. */
enum rt_status file_make_folders(const char *path, struct rt_error *err);

/* Makes the names in a folder (a rename into it, say) durable. */
enum rt_status file_sync_folder(const char *path, struct rt_error *err);

bool file_is_regular(const char *path);
bool file_is_folder(const char *path);

/* "folder/name", the caller's to free(); NULL: out of memory. */
char *file_join(const char *folder, const char *name);

#endif
