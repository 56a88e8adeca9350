/* mosld/io/json.h - cJSON with what input from outside needs: limits, positions, and getters whose errors name file and
 * key.
 *
 * A document is parsed with json_parse or json_read_file and freed with cJSON_Delete. What both refuse, naming file and
 * line: text that is not UTF-8, nesting deeper than 64, more than eight million values, a NUL character (also as
 * \u0000, which C strings would cut at), and anything behind the document. A byte order mark in front is skipped.
 *
 * Getters take an object, a key and `path`, the text in front of their messages: the file, or "file: outer_key" for
 * nested objects. What is missing or of the wrong type or range is RT_BAD_FILE: `config.json: "hidden_size" is "576",
 * it must be an integer in 1..65536`. The `_or` forms give `fallback` where the key is missing or null (and nothing
 * else). Of a key that stands twice the first counts, unless json_check_unique was asked. Strings belong to the
 * document. Any thread, one at a time a document. */
#ifndef MOSLD_IO_JSON_H
#define MOSLD_IO_JSON_H

#include "runtime/error.h"

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Integers are exact in doubles up to here; beyond, 2^53 + 1 would read as 2^53. */
#define JSON_INT_MAX (((int64_t)1 << 53) - 1)

/* Parses `size` bytes. `first_line` is the number of their first line in the file at `path`, 1 for a whole file. After
 * an error *out is NULL. RT_BAD_FILE or RT_NO_MEMORY. */
enum rt_status json_parse(const char *text, size_t size, const char *path, uint64_t first_line, cJSON **out,
                          struct rt_error *err);
/* Reads and parses a file of at most `max` bytes. */
enum rt_status json_read_file(const char *path, uint64_t max, cJSON **out, struct rt_error *err);
/* Writes a document, indented, with a newline at its end; see file_write_atomic. */
enum rt_status json_write_file(const char *path, const cJSON *json, struct rt_error *err);

/* The member, or NULL where it is missing or null. Keys match in full, case included. */
const cJSON *json_find(const cJSON *object, const char *key);

enum rt_status json_string(const cJSON *object, const char *key, const char *path, const char **out,
                           struct rt_error *err);
enum rt_status json_string_or(const cJSON *object, const char *key, const char *path, const char *fallback,
                              const char **out, struct rt_error *err);
/* An integer in min..max, both within +-JSON_INT_MAX. 3.0 is one, 3.5 and "3" are none. */
enum rt_status json_integer(const cJSON *object, const char *key, const char *path, int64_t min, int64_t max,
                            int64_t *out, struct rt_error *err);
enum rt_status json_integer_or(const cJSON *object, const char *key, const char *path, int64_t min, int64_t max,
                               int64_t fallback, int64_t *out, struct rt_error *err);
/* A finite number in min..max. */
enum rt_status json_number(const cJSON *object, const char *key, const char *path, double min, double max, double *out,
                           struct rt_error *err);
enum rt_status json_number_or(const cJSON *object, const char *key, const char *path, double min, double max,
                              double fallback, double *out, struct rt_error *err);
enum rt_status json_bool_or(const cJSON *object, const char *key, const char *path, bool fallback, bool *out,
                            struct rt_error *err);
/* A member that must be an array or an object; _or gives NULL where it is missing or null. */
enum rt_status json_array(const cJSON *object, const char *key, const char *path, const cJSON **out,
                          struct rt_error *err);
enum rt_status json_array_or(const cJSON *object, const char *key, const char *path, const cJSON **out,
                             struct rt_error *err);
enum rt_status json_object(const cJSON *object, const char *key, const char *path, const cJSON **out,
                           struct rt_error *err);
enum rt_status json_object_or(const cJSON *object, const char *key, const char *path, const cJSON **out,
                              struct rt_error *err);

/* The same for a value that is no member (an array's): `what` takes the key's place in the message. */
enum rt_status json_to_integer(const cJSON *value, const char *what, const char *path, int64_t min, int64_t max,
                               int64_t *out, struct rt_error *err);

/* RT_BAD_FILE where a key of the object stands twice. O(n log n). */
enum rt_status json_check_unique(const cJSON *object, const char *path, struct rt_error *err);

#endif
