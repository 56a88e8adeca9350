/* tools/options.c - the command line and the config file; see options.h. */
#include "tools/options.h"

#include "tools/options_value.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

static bool good_name(const char *name)
{
    return name && name[0] && strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789_") == strlen(name);
}

static bool good_range(const struct option *desc)
{
    const bool word = desc->size == 4 || desc->size == 8;
    switch (desc->type) {
    case OPTION_TYPE_INT:
        if (!word || (desc->size == 4 && desc->int_max > (desc->int_min < 0 ? INT32_MAX : (int64_t)UINT32_MAX))
            || (desc->size == 4 && desc->int_min < INT32_MIN))
            return false;
        /* fall through */
    case OPTION_TYPE_INTS:
        return desc->int_min <= desc->int_max && desc->int_min >= -OPTION_INT_MAX && desc->int_max <= OPTION_INT_MAX;
    case OPTION_TYPE_REAL: return word && desc->real_min <= desc->real_max;
    case OPTION_TYPE_BOOL: return desc->size == sizeof(bool);
    case OPTION_TYPE_CHOICE: return desc->size == sizeof(int) && desc->choices && desc->choices[0];
    default: return true;
    }
}

/* A faulty table is a programmer's mistake, but one that a test of the command finds by its message. */
static enum rt_status check_table(const struct options *o, struct rt_error *err)
{
    for (size_t i = 0; i < o->n; i++) {
        const struct option *desc = &o->table[i];
        if (!good_name(desc->name) || (desc->alias && !good_name(desc->alias)))
            return rt_fail(err, RT_FAILED, "option table: entry %zu has no proper name", i);
        if (option_find(o, desc->name, strlen(desc->name)) != (int)i
            || (desc->alias && option_find(o, desc->alias, strlen(desc->alias)) != (int)i))
            return rt_fail(err, RT_FAILED, "option table: %s stands there twice", desc->name);
        if (!good_range(desc))
            return rt_fail(err, RT_FAILED, "option table: %s has no proper range or size", desc->name);
    }
    return RT_OK;
}

enum rt_status options_init(struct options *o, const char *usage, const struct option *table, size_t n, void *values,
                            struct rt_error *err)
{
    *o = (struct options){.usage = usage, .table = table, .n = n, .values = values};
    o->source = calloc(n ? n : 1, sizeof *o->source);
    if (!o->source) {
        o->n = 0;
        return rt_fail(err, RT_NO_MEMORY, "out of memory for %zu options", n);
    }
    enum rt_status st = check_table(o, err);
    if (st != RT_OK)
        options_finish(o);
    return st;
}

void options_finish(struct options *o)
{
    for (size_t i = 0; o->source && i < o->n; i++)
        if (o->source[i] != OPTION_FROM_DEFAULT)
            option_clear(&o->table[i], o->values);
    free(o->source);
    free(o->arguments.item);
    free(o->config);
    *o = (struct options){0};
}

static bool same_name(const char *name, const char *given, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (name[i] == 0 || name[i] != (given[i] == '-' ? '_' : given[i]))
            return false;
    return name[len] == 0;
}

int option_find(const struct options *o, const char *name, size_t len)
{
    for (size_t i = 0; i < o->n; i++)
        if (same_name(o->table[i].name, name, len) || (o->table[i].alias && same_name(o->table[i].alias, name, len)))
            return (int)i;
    return -1;
}

/* Edit distance (insert, delete, replace), dashes counting as underscores. Longer names are no slips of the finger. */
static size_t distance(const char *a, const char *b, size_t nb)
{
    enum { LONGEST = 64 };
    size_t row[LONGEST + 1], na = strlen(a);
    if (na > LONGEST || nb > LONGEST)
        return SIZE_MAX;
    for (size_t j = 0; j <= nb; j++)
        row[j] = j;
    for (size_t i = 1; i <= na; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= nb; j++) {
            size_t best = diagonal + (a[i - 1] != (b[j - 1] == '-' ? '_' : b[j - 1]));
            diagonal = row[j];
            best = row[j] + 1 < best ? row[j] + 1 : best;
            row[j] = row[j - 1] + 1 < best ? row[j - 1] + 1 : best;
        }
    }
    return row[nb];
}

const char *option_nearest(const struct options *o, const char *name, size_t len, bool config_keys_only)
{
    const char *nearest = NULL;
    size_t best = 2 + len / 4;
    for (size_t i = 0; i < o->n; i++) {
        if (config_keys_only && o->table[i].command_line_only)
            continue;
        size_t d = distance(o->table[i].name, name, len);
        if (d < best) {
            best = d;
            nearest = o->table[i].name;
        }
    }
    return nearest;
}

/* learning_rate -> learning-rate, as people type it. */
static const char *dashed(const char *name, char buffer[static 72])
{
    size_t i = 0;
    for (; name[i] && i < 71; i++)
        buffer[i] = name[i] == '_' ? '-' : name[i];
    buffer[i] = 0;
    return buffer;
}

static enum rt_status unknown_option(const struct options *o, const char *name, size_t len, struct rt_error *err)
{
    char buffer[72];
    const char *nearest = option_nearest(o, name, len, false);
    if (nearest)
        return rt_fail(err, RT_USAGE, "there is no option --%.*s; --%s may be meant", (int)(len < 80 ? len : 80), name,
                       dashed(nearest, buffer));
    return rt_fail(err, RT_USAGE, "there is no option --%.*s; --help lists them", (int)(len < 80 ? len : 80), name);
}

static enum rt_status set_from_command(struct options *o, int index, const char *value, struct rt_error *err)
{
    const struct option *desc = &o->table[index];
    char buffer[72];
    if (desc->type == OPTION_TYPE_CONFIG) {
        if (o->config)
            return rt_fail(err, RT_USAGE, "--%s: one config file only", dashed(desc->name, buffer));
        o->config = strdup(value);
        return o->config ? RT_OK : rt_fail(err, RT_NO_MEMORY, "out of memory");
    }
    bool fresh = o->source[index] == OPTION_FROM_DEFAULT;
    o->source[index] = OPTION_FROM_COMMAND;
    enum rt_status st = option_set_text(desc, o->values, value, fresh, RT_USAGE, err);
    return st == RT_OK ? st : rt_error_prefix(err, "--%s", dashed(desc->name, buffer));
}

static bool is_bool_word(const char *text)
{
    return text && (strcasecmp(text, "true") == 0 || strcasecmp(text, "false") == 0);
}

static bool has_choice(const struct option *desc, const char *name)
{
    for (int i = 0; name && desc->type == OPTION_TYPE_CHOICE && desc->choices[i]; i++)
        if (strcmp(desc->choices[i], name) == 0)
            return true;
    return false;
}

static bool is_flag(const struct option *desc)
{
    return desc->type == OPTION_TYPE_BOOL || (has_choice(desc, "true") && has_choice(desc, "false"));
}

/* argv[*at] starts with "--": one option, which may take the argument after it. */
static enum rt_status parse_option(struct options *o, int argc, char **argv, int *at, struct rt_error *err)
{
    const char *name = argv[*at] + 2, *equals = strchr(name, '='), *value = equals ? equals + 1 : NULL;
    size_t len = equals ? (size_t)(equals - name) : strlen(name);
    char *next = *at + 1 < argc ? argv[*at + 1] : NULL;
    int index = option_find(o, name, len);
    if (index < 0 && len > 3 && !value && (strncmp(name, "no-", 3) == 0 || strncmp(name, "no_", 3) == 0)) {
        index = option_find(o, name + 3, len - 3);
        if (index >= 0 && is_flag(&o->table[index]))
            return set_from_command(o, index, "false", err);
        index = -1;
    }
    if (index < 0)
        return unknown_option(o, name, len, err);
    if (!value && is_flag(&o->table[index])) {
        bool takes = is_bool_word(next) || has_choice(&o->table[index], next);
        value = takes ? next : "true";
        *at += takes;
    } else if (!value && o->table[index].bare) {
        value = o->table[index].bare;
    } else if (!value) {
        if (!next)
            return rt_fail(err, RT_USAGE, "--%.*s needs a value", (int)len, name);
        value = next;
        ++*at;
    }
    return set_from_command(o, index, value, err);
}

static enum rt_status take_argument(struct options *o, char *text, struct rt_error *err)
{
    if (o->arguments.n >= o->max_arguments)
        return rt_fail(err, RT_USAGE, "'%.80s' is too much; an option starts with --, and --help lists them", text);
    char **item = reallocarray(o->arguments.item, o->arguments.n + 1, sizeof *item);
    if (!item)
        return rt_fail(err, RT_NO_MEMORY, "out of memory");
    o->arguments.item = item;
    item[o->arguments.n++] = text;
    return RT_OK;
}

static enum rt_status check_required(const struct options *o, struct rt_error *err)
{
    char buffer[72];
    for (size_t i = 0; i < o->n; i++)
        if (o->table[i].required && o->source[i] == OPTION_FROM_DEFAULT)
            return rt_fail(err, RT_USAGE, "--%s is missing: %s", dashed(o->table[i].name, buffer),
                           o->table[i].help ? o->table[i].help : "it must be given");
    return RT_OK;
}

enum rt_status options_parse(struct options *o, int argc, char **argv, struct rt_error *err)
{
    bool ended = false;
    for (int i = 1; i < argc; i++) {
        enum rt_status st;
        if (!ended && (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0)) {
            o->help = true;
            return RT_OK;
        }
        if (!ended && strcmp(argv[i], "--") == 0) {
            ended = true;
            continue;
        }
        if (!ended && strncmp(argv[i], "--", 2) == 0)
            st = parse_option(o, argc, argv, &i, err);
        else
            st = take_argument(o, argv[i], err);
        if (st != RT_OK)
            return st;
    }
    if (o->config) {
        enum rt_status st = options_read_config(o, o->config, err);
        if (st != RT_OK)
            return st;
    }
    return check_required(o, err);
}

bool options_given(const struct options *o, const char *name)
{
    int index = option_find(o, name, strlen(name));
    return index >= 0 && o->source[index] != OPTION_FROM_DEFAULT;
}
