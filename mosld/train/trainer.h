/* mosld/train/trainer.h - a training run: from tasks and a model to an adapter on disk.
 *
 * The run folder `out` receives
 *
 *     adapter_config.json, adapter_model.safetensors   the adapter, at the end (the best, with load_best_model_at_end)
 *     checkpoint-000123/                               adapter, optimizer.safetensors, trainer_state.json
 *     metrics.jsonl, events.out.tfevents.*             a line a step; the same for TensorBoard
 *     run.json                                         configuration, device, versions
 *
 * A run that was killed goes on from its last checkpoint to the same bits as one that was not (same device, driver and
 * build). */
#ifndef MOSLD_TRAINER_H
#define MOSLD_TRAINER_H

#include "mosld/adapter/adapter.h"
#include "mosld/data/example.h"
#include "mosld/model/memory.h"
#include "mosld/model/model.h"
#include "mosld/train/config.h"

#include <signal.h>

struct cJSON;

struct mosld_train_task {
    const char *name, *path;
    double weight;                         /* training: multiplies the task's rows an epoch; 0: none was given (1) */
    const struct mosld_examples *examples; /* not owned */
};

struct mosld_train_plan { /* what a run takes: for the header, and for --plan, which allocates nothing */
    uint64_t steps, micro_steps, epoch_rows, warmup;
    double epochs;
    uint32_t most_tokens, most_targets;    /* of a micro-batch */
    struct mosld_memory memory;
};

struct mosld_train_progress { /* after a step */
    uint64_t step, steps, tokens;
    double epoch, loss, aux_loss, learning_rate, grad_norm, seconds, tokens_per_second, seconds_left;
    const double *task_loss; /* [n_tasks]: mean over the step's targets; NaN where it had none */
    const double *load;      /* [experts]: share of the top-k places, sums to 1; NULL without routers */
    uint32_t experts;
    bool skipped;            /* loss or gradient was not finite: nothing changed */
    uint64_t skipped_steps;  /* of the run so far */
};

struct mosld_train_events { /* any may be NULL. Strings and arrays last for the call. */
    void *user;
    void (*planned)(void *user, const struct mosld_train_plan *plan);
    void (*step)(void *user, const struct mosld_train_progress *progress);
    /* loss[i]: mean over the targets of eval task i; `mean`: of these */
    void (*evaluated)(void *user, uint64_t step, const double *loss, double mean, bool best);
    void (*evaluating)(void *user, uint64_t done, uint64_t of);
    void (*saved)(void *user, const char *path);
    void (*note)(void *user, const char *sentence);
};

struct mosld_train_params {
    struct mosld_model *model;     /* created, not yet loaded: the run loads it, so that a plan comes first */
    const struct mosld_model_file *file;
    const struct mosld_train_config *config;
    const struct mosld_train_task *tasks, *eval_tasks;
    uint32_t n_tasks, n_eval_tasks;
    const char *out;
    const char *base_model;        /* for adapter_config.json */
    const struct cJSON *effective; /* effective configuration, for run.json */
    const char *resume;            /* NULL: begin anew; a checkpoint folder; "last": the newest in `out` */
    bool overwrite;                /* a run is in `out` already: remove its files instead of refusing */
    const char *init_adapter, *dropout_mask, *dump_gradients; /* NULL: none */
    bool plan_only;                /* report the plan and return: RT_NO_MEMORY where it does not fit */
    const volatile sig_atomic_t
        *interrupted; /* not 0: finish the step, write a checkpoint, return RT_INTERRUPTED. May be NULL. */
    struct mosld_train_events events;
};

/* Runs it. Errors as everywhere; RT_USAGE: `out` already holds a run, or what is resumed was another configuration. */
enum rt_status mosld_train(const struct mosld_train_params *params, struct rt_error *err);

#endif
