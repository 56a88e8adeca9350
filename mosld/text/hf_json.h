/* mosld/text/hf_json.h - small readers over cJSON for the tokenizer files of Hugging Face. Errors are RT_BAD_FILE with
 * the field's name and no file name. Strings belong to the JSON document. */
#ifndef MOSLD_TEXT_HF_JSON_H
#define MOSLD_TEXT_HF_JSON_H

#include "runtime/error.h"

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Parses a document, which must be an object in valid UTF-8; errors give the line. cJSON_Delete it. */
enum rt_status hf_parse(const char *text, size_t len, cJSON **out, struct rt_error *err);

/* A member that is there and not null, else NULL. */
const cJSON *hf_get(const cJSON *object, const char *key);

/* A member that is true or false; `fallback` when absent or null. */
enum rt_status hf_bool(const cJSON *object, const char *key, bool fallback, bool *out, struct rt_error *err);

/* A string member; NULL when absent or null. */
enum rt_status hf_string(const cJSON *object, const char *key, const char **out, struct rt_error *err);

/* The "type" member, which must be there. */
enum rt_status hf_type(const cJSON *object, const char *what, const char **out, struct rt_error *err);

/* A whole number in [0, max], as an id is. `what` names it in the message. */
enum rt_status hf_id(const cJSON *number, const char *what, uint32_t max, uint32_t *out, struct rt_error *err);

/* A member that must be an array; NULL when absent or null and not `required`. */
enum rt_status hf_array(const cJSON *object, const char *key, bool required, const cJSON **out, struct rt_error *err);

#endif
