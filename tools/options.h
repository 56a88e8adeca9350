/* tools/options.h - a command's options from one table: command line, config file, --help, and back to JSON.
 *
 * A table names each option once, in the config file's spelling (learning_rate). The command line takes it with dashes
 * or underscores, `--learning-rate 1e-4` or `--learning_rate=1e-4`; booleans as `--packing`, `--no-packing` or
 * `--packing false`; a list by giving the option again (or with commas, where its `commas` is set). In the config file,
 * a JSON object, the same name is a key. What stands on the command line wins over the config file, and both over the
 * defaults, which are what the values hold before.
 *
 *     struct my_values {
 *         char *out;
 *         double rate;
 *         int64_t seed;
 *         bool packing;
 *         int method;
 *         struct option_list task;
 *     };
 *     static const char *const methods[] = {"lora", "mosld", NULL};
 *     static const struct option table[] = {
 *         {.name = "out", OPTION_STRING(struct my_values, out), .value = "DIR", .required = true,
 *          .help = "where the run is written", .section = "Files"},
 *         {.name = "config", OPTION_CONFIG, .help = "options as a JSON object"},
 *         {.name = "learning_rate", OPTION_REAL(struct my_values, rate, 0, 1), .help = "the largest step",
 *          .section = "Training"},
 *         {.name = "seed", OPTION_INT(struct my_values, seed, 0, OPTION_INT_MAX), .help = "same seed, same bits"},
 *         {.name = "packing", OPTION_BOOL(struct my_values, packing), .help = "rows share a pass"},
 *         {.name = "method", OPTION_CHOICE(struct my_values, method, methods), .help = "the adapter"},
 *         {.name = "task", OPTION_STRINGS(struct my_values, task), .value = "NAME=FILE", .help = "may be given again"},
 *     };
 *     struct my_values v = {.rate = 1e-4, .seed = 42};
 *     struct options o;
 *     st = options_init(&o, "mosld train --model PATH [options]", table, sizeof table / sizeof *table, &v, &err);
 *     if (st == RT_OK)
 *         st = options_parse(&o, argc, argv, &err);
 *     if (st == RT_OK && o.help)
 *         options_print_help(&o, stdout);
 *     ...
 *     options_finish(&o);     // frees the strings and lists in v too
 *
 * Errors name the option, or the file and the key, and for an unknown name the nearest one there is: RT_USAGE on the
 * command line, RT_BAD_FILE in a config file. Not safe for several threads at once on one object. */
#ifndef MOSLD_TOOLS_OPTIONS_H
#define MOSLD_TOOLS_OPTIONS_H

#include "runtime/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

struct cJSON;

/* JSON numbers are doubles, so integers stop where doubles stop being exact. */
#define OPTION_INT_MAX ((int64_t)1 << 53)

struct option_list {
    size_t n;
    char **item;
};

struct option_ints {
    size_t n;
    int64_t *item;
};

enum option_type {
    OPTION_TYPE_STRING,  /* char *: NULL until given, unless the default is a literal */
    OPTION_TYPE_INT,     /* int64_t, int32_t, or uint64_t or uint32_t where int_min >= 0; in [int_min, int_max] */
    OPTION_TYPE_REAL,    /* double or float in [real_min, real_max], finite */
    OPTION_TYPE_BOOL,    /* bool */
    OPTION_TYPE_CHOICE,  /* int or an enum: index into `choices`; with "true" and "false" among them --NAME and --no-NAME
                          * work as for a boolean, and JSON's true and false are taken */
    OPTION_TYPE_STRINGS, /* struct option_list */
    OPTION_TYPE_INTS,    /* struct option_ints, each in [int_min, int_max], with commas; in JSON a number or an array */
    OPTION_TYPE_CONFIG,  /* no value: names a config file to read; command line only */
};

struct option {
    const char *name; /* with underscores */
    enum option_type type;
    size_t offset, size; /* of the value in the values struct, bytes */
    int64_t int_min, int_max;
    double real_min, real_max;
    const char *const *choices; /* names, ended by NULL */
    const char *alias;          /* another name that means the same, or NULL */
    const char *value;          /* what --help calls the value; NULL: made from the type */
    const char *help;           /* a line of text, no full stop */
    const char *section;        /* --help opens a section with this title here; NULL goes on with the one before */
    const char *bare;           /* not NULL: the option may stand without a value, which is this then; others need the = */
    bool required;              /* RT_USAGE when neither the command line nor the config file gives it */
    bool commas;                /* OPTION_STRINGS: a value is cut at its commas */
    bool command_line_only;     /* neither a config key nor in the effective configuration */
};

#define OPTION_FIELD(type_, field)  .offset = offsetof(type_, field), .size = sizeof(((type_ *)0)->field)
#define OPTION_STRING(type_, field) .type = OPTION_TYPE_STRING, OPTION_FIELD(type_, field)
#define OPTION_INT(type_, field, min, max) \
    .type = OPTION_TYPE_INT, OPTION_FIELD(type_, field), .int_min = (min), .int_max = (max)
#define OPTION_REAL(type_, field, min, max) \
    .type = OPTION_TYPE_REAL, OPTION_FIELD(type_, field), .real_min = (min), .real_max = (max)
#define OPTION_BOOL(type_, field)          .type = OPTION_TYPE_BOOL, OPTION_FIELD(type_, field)
#define OPTION_CHOICE(type_, field, names) .type = OPTION_TYPE_CHOICE, OPTION_FIELD(type_, field), .choices = (names)
#define OPTION_STRINGS(type_, field)       .type = OPTION_TYPE_STRINGS, OPTION_FIELD(type_, field)
#define OPTION_INTS(type_, field, min, max) \
    .type = OPTION_TYPE_INTS, OPTION_FIELD(type_, field), .int_min = (min), .int_max = (max)
#define OPTION_CONFIG .type = OPTION_TYPE_CONFIG, .command_line_only = true

enum option_source { OPTION_FROM_DEFAULT, OPTION_FROM_CONFIG, OPTION_FROM_COMMAND };

struct options {
    const char *usage;
    const struct option *table;
    size_t n;
    void *values;
    enum option_source *source; /* [n]: who set each value */
    size_t max_arguments; /* how many arguments that are no options are taken: set it after options_init; 0 at first */
    struct option_list arguments; /* those arguments, not owned: they point into argv */
    char *config;                 /* the config file that was read, or NULL */
    bool help;                    /* --help or -h was there: nothing was checked after it */
};

/* `usage` is the line that --help opens with; it, `table` and `values` must outlive `o`. RT_NO_MEMORY; RT_FAILED where
 * the table is faulty (a name twice or not in [a-z0-9_], a choice without choices, an empty range, a field of
 * another size than the type's). */
enum rt_status options_init(struct options *o, const char *usage, const struct option *table, size_t n, void *values,
                            struct rt_error *err);

/* Frees what parsing put into the values and resets those to zero. NULL-safe on a zeroed object. */
void options_finish(struct options *o);

/* Reads argv[1..]; then the config file, if one was named; then looks for what is required. "--" ends the options. */
enum rt_status options_parse(struct options *o, int argc, char **argv, struct rt_error *err);

/* Takes the keys of a JSON object, of a file or already parsed, for options that the command line did not give. null is
 * "not given". `path` is for messages. RT_BAD_FILE with file and key; what was taken before the fault stays. */
enum rt_status options_read_config(struct options *o, const char *path, struct rt_error *err);
enum rt_status options_read_json(struct options *o, const struct cJSON *object, const char *path, struct rt_error *err);

/* Whether the config file or the command line gave the option: for defaults that depend on others. `name` must be in
 * the table. */
bool options_given(const struct options *o, const char *name);

/* The text of --help, at most 80 columns, by sections. Defaults are shown as the values stand when it is called. */
void options_print_help(const struct options *o, FILE *to);

/* The effective configuration, an object that options_read_json accepts back; the caller deletes it. NULL: out of
 * memory. */
struct cJSON *options_to_json(const struct options *o);

#endif
