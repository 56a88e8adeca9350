/* tools/options_value.h - inside options: how one value is set from text or JSON, and freed. Used by tools/options*.c
 * only.
 *
 * Messages name no option: the caller puts "--name" or "FILE: key" in front. */
#ifndef MOSLD_TOOLS_OPTIONS_VALUE_H
#define MOSLD_TOOLS_OPTIONS_VALUE_H

#include "tools/options.h"

/* Where the value of an option stands. */
void *option_at(const struct option *desc, void *values);

/* The numbers there, whatever their size. */
int64_t option_int(const struct option *desc, void *values);
double option_real(const struct option *desc, void *values);

/* True for the types whose value grows with each mention. */
bool option_is_list(const struct option *desc);

/* Sets the value (a list: adds to it) from the text of the command line; `fresh` where the value there now was not set
 * by parsing, so that it must be neither freed nor added to. The status is `status` where the text is wrong, or
 * RT_NO_MEMORY. */
enum rt_status option_set_text(const struct option *desc, void *values, const char *text, bool fresh,
                               enum rt_status status, struct rt_error *err);

/* The same from JSON, which is a whole value: a list is replaced. */
enum rt_status option_set_json(const struct option *desc, void *values, const struct cJSON *json, bool fresh,
                               struct rt_error *err);

/* Frees a value that parsing set and zeroes it. */
void option_clear(const struct option *desc, void *values);

/* The value as JSON (null for a string that is not there); NULL when out of memory. */
struct cJSON *option_value_json(const struct option *desc, void *values);

/* Index of the option with this name or alias, dashes counting as underscores; -1: none. `len` bytes of `name` count.
 */
int option_find(const struct options *o, const char *name, size_t len);

/* The option's name that is nearest to a mistyped one, or NULL where none is near. */
const char *option_nearest(const struct options *o, const char *name, size_t len, bool config_keys_only);

#endif
