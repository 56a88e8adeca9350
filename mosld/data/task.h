/* mosld/data/task.h - a task: a named file of records, loaded whole as examples.
 *
 * On the command line a task is NAME=FILE or NAME=FILE:WEIGHT. FILE is JSON Lines or one JSON array; or a folder, of
 * which train.jsonl is taken for training and validation.jsonl or valid.jsonl for evaluation. */
#ifndef MOSLD_DATA_TASK_H
#define MOSLD_DATA_TASK_H

#include "mosld/data/example.h"
#include "runtime/error.h"

#include <stdbool.h>
#include <stdint.h>

enum mosld_task_split {
    MOSLD_SPLIT_TRAIN,
    MOSLD_SPLIT_VALIDATION,
};

/* What the command line says of a task. */
struct mosld_task_spec {
    char *name;    /* owned; of letters, digits, and "._-" */
    char *path;    /* owned */
    double weight; /* 1 where none is given */
    bool weighted; /* whether one is */
};

/* Takes "NAME=FILE[:WEIGHT]" apart. A last ":" followed by a number is a weight, unless a file of the whole name is
 * there. RT_USAGE: no name or no file, a name with other characters, a weight that is not above 0 or above 1000.
 * RT_NO_MEMORY. On failure nothing needs freeing. */
enum rt_status mosld_task_spec_parse(const char *text, struct mosld_task_spec *out, struct rt_error *err);

void mosld_task_spec_finish(struct mosld_task_spec *spec);

struct mosld_task_params {
    struct mosld_encoder encoder;
    struct mosld_example_options example;
    enum mosld_task_split split; /* which file of a folder */
    uint64_t limit;              /* reads the first records only; 0: all */
};

struct mosld_task {
    char *name;
    char *path; /* of the file that was read */
    double weight;
    struct mosld_examples examples;
};

/* Loads it. RT_BAD_FILE: no such file, no file for the split in the folder, what json and record refuse, a file without
 * records, or one that leaves no example with a target. RT_USAGE, RT_FAILED, RT_NO_MEMORY: see mosld_examples_add. *out
 * needs finish after success only. */
enum rt_status mosld_task_load(const struct mosld_task_spec *spec, const struct mosld_task_params *params,
                               struct mosld_task *out, struct rt_error *err);

/* A sentence on what was cut or left out, for people: "arc-easy: 3 of 2251 records were cut to 128 tokens; ...".
 * Returns false, and text is empty, where there is nothing to say. */
bool mosld_task_describe_losses(const struct mosld_task *task, uint32_t max_length, char *text, size_t size);

void mosld_task_finish(struct mosld_task *task);

#endif
