/* mosld/data/task.c - see task.h. */
#include "mosld/data/task.h"

#include "mosld/io/file.h"
#include "mosld/io/jsonl.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { WEIGHT_MAX = 1000 };

static bool good_name(const char *name, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (!isalnum((unsigned char)name[i]) && !strchr("._-", name[i]))
            return false;
    return len > 0;
}

/* Where the weight of "FILE:WEIGHT" begins, or NULL. */
static const char *find_weight(const char *path, double *weight)
{
    const char *colon = strrchr(path, ':');
    char *end;
    if (!colon || colon == path || !colon[1] || file_is_regular(path) || file_is_folder(path))
        return NULL;
    double value = strtod(colon + 1, &end);
    if (*end)
        return NULL;
    *weight = value;
    return colon;
}

enum rt_status mosld_task_spec_parse(const char *text, struct mosld_task_spec *out, struct rt_error *err)
{
    *out = (struct mosld_task_spec){.weight = 1};
    const char *equals = strchr(text, '=');
    if (!equals || !equals[1])
        return rt_fail(err, RT_USAGE, "task '%.200s': must be NAME=FILE or NAME=FILE:WEIGHT", text);
    if (!good_name(text, (size_t)(equals - text)))
        return rt_fail(err, RT_USAGE, "task '%.200s': a name is made of letters, digits, '.', '_' and '-'", text);
    const char *path = equals + 1, *colon = find_weight(path, &out->weight);
    if (colon && !(out->weight > 0 && out->weight <= WEIGHT_MAX))
        return rt_fail(err, RT_USAGE, "task '%.200s': the weight must be above 0 and at most %d", text, WEIGHT_MAX);
    out->weighted = colon != NULL;
    out->name = strndup(text, (size_t)(equals - text));
    out->path = colon ? strndup(path, (size_t)(colon - path)) : strdup(path);
    if (!out->name || !out->path) {
        mosld_task_spec_finish(out);
        return rt_fail(err, RT_NO_MEMORY, "out of memory");
    }
    return RT_OK;
}

void mosld_task_spec_finish(struct mosld_task_spec *spec)
{
    free(spec->name);
    free(spec->path);
    *spec = (struct mosld_task_spec){0};
}

/* The file to read: the path itself, or the split's file in it. malloc'd. */
static enum rt_status find_file(const char *path, enum mosld_task_split split, char **out, struct rt_error *err)
{
    static const char *const train[] = {"train.jsonl", "train.json", NULL};
    static const char *const validation[] = {"validation.jsonl", "valid.jsonl", "validation.json", "valid.json", NULL};
    *out = NULL;
    if (!file_is_folder(path)) {
        *out = strdup(path);
        return *out ? RT_OK : rt_fail(err, RT_NO_MEMORY, "out of memory");
    }
    for (const char *const *name = split == MOSLD_SPLIT_TRAIN ? train : validation; *name; name++) {
        char *file = file_join(path, *name);
        if (!file)
            return rt_fail(err, RT_NO_MEMORY, "out of memory");
        if (file_is_regular(file)) {
            *out = file;
            return RT_OK;
        }
        free(file);
    }
    return rt_fail(err, RT_BAD_FILE, "%s: the folder has no %s", path,
                   split == MOSLD_SPLIT_TRAIN ? "train.jsonl" : "validation.jsonl or valid.jsonl");
}

static enum rt_status add_record(struct mosld_task *task, const struct mosld_task_params *params, const cJSON *json,
                                 uint64_t line, struct rt_error *err)
{
    struct mosld_record record = {0};
    enum rt_status st = mosld_record_read(json, task->path, line, &record, err);
    if (st == RT_OK)
        st = mosld_examples_add(&task->examples, &params->encoder, &params->example, &record, err);
    mosld_record_finish(&record);
    return st;
}

static enum rt_status read_records(struct mosld_task *task, const struct mosld_task_params *params,
                                   struct rt_error *err)
{
    struct jsonl *reader = NULL;
    uint64_t line = 0;
    enum rt_status st = jsonl_open(task->path, &reader, err);
    for (uint64_t i = 0; st == RT_OK && (params->limit == 0 || i < params->limit); i++) {
        cJSON *json = NULL;
        st = jsonl_next(reader, &json, &line, err);
        if (st != RT_OK || !json)
            break;
        st = add_record(task, params, json, line, err);
        cJSON_Delete(json);
    }
    jsonl_close(&reader);
    return st;
}

static enum rt_status check_filled(const struct mosld_task *task, uint32_t max_length, struct rt_error *err)
{
    const struct mosld_example_counts *c = &task->examples.counts;
    if (task->examples.n)
        return RT_OK;
    if (c->records == 0)
        return rt_fail(err, RT_BAD_FILE, "%s: the file has no records", task->path);
    if (c->truncated)
        return rt_fail(err, RT_BAD_FILE,
                       "%s: none of the %zu records has anything to learn or score within %u tokens; a larger "
                       "--max-length may help",
                       task->path, c->records, max_length);
    return rt_fail(err, RT_BAD_FILE, "%s: none of the %zu records has anything to learn or score", task->path,
                   c->records);
}

enum rt_status mosld_task_load(const struct mosld_task_spec *spec, const struct mosld_task_params *params,
                               struct mosld_task *out, struct rt_error *err)
{
    *out = (struct mosld_task){.weight = spec->weight};
    enum rt_status st = find_file(spec->path, params->split, &out->path, err);
    if (st == RT_OK) {
        out->name = strdup(spec->name);
        if (!out->name)
            st = rt_fail(err, RT_NO_MEMORY, "out of memory");
    }
    if (st == RT_OK)
        st = read_records(out, params, err);
    if (st == RT_OK)
        st = check_filled(out, params->example.max_length, err);
    if (st != RT_OK)
        mosld_task_finish(out);
    return st;
}

bool mosld_task_describe_losses(const struct mosld_task *task, uint32_t max_length, char *text, size_t size)
{
    const struct mosld_example_counts *c = &task->examples.counts;
    int n = 0;
    text[0] = 0;
    if (c->truncated)
        n = snprintf(text, size, "%s: %zu of %zu records were cut to %u tokens", task->name, c->truncated, c->records,
                     max_length);
    if (c->skipped && n >= 0 && (size_t)n < size)
        snprintf(text + n, size - (size_t)n,
                 "%s%s%zu records with nothing to learn or score were left out, the first on line %zu",
                 n ? "; " : task->name, n ? "" : ": ", c->skipped, c->skipped_line);
    return text[0] != 0;
}

void mosld_task_finish(struct mosld_task *task)
{
    free(task->name);
    free(task->path);
    mosld_examples_finish(&task->examples);
    *task = (struct mosld_task){0};
}
