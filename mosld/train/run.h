/* mosld/train/run.h - the state of a training run, shared by the files of mosld/train. */
#ifndef MOSLD_TRAIN_RUN_H
#define MOSLD_TRAIN_RUN_H

#include "mosld/data/batch.h"
#include "mosld/train/plan.h"
#include "mosld/train/step.h"
#include "mosld/train/trainer.h"

#include <stdio.h>

struct mosld_run {
    const struct mosld_train_params *params;
    const struct mosld_train_config *config;
    struct mosld_adapter_params adapter_params; /* of the config, or of the adapter that is started from */
    struct mosld_adapter *adapter;
    struct mosld_pass *pass;
    struct mosld_step *stepper;
    struct mosld_sampler *sampler;
    struct mosld_plan plan;
    struct mosld_batch batch;
    struct mosld_batch_plan *eval_plans; /* [n_eval_tasks] */
    uint32_t *losses;                    /* [most_targets, 2] */
    uint32_t most_tokens, most_targets;
    double *task_loss;                   /* [n_tasks] sums, then means */
    uint64_t *task_targets;
    double *eval_loss;                   /* [n_eval_tasks] */
    uint64_t step;                       /* steps done */
    double seconds;                      /* of training so far, over resumes */
    double best;                         /* lowest mean evaluation loss; NaN: none yet */
    uint64_t best_step, saved_step, tokens, skipped;
    bool evaluation_pending; /* the step's evaluation was due when the run was interrupted: a resumed run begins with it
                              */
    int lock;                            /* the run folder's lock file */
    FILE *metrics, *tensorboard;
};

/* checkpoint.c */
enum rt_status run_save_checkpoint(struct mosld_run *run, struct rt_error *err);
enum rt_status run_save_adapter(struct mosld_run *run, const char *dir, struct rt_error *err);
/* Finds the checkpoint to go on from; *path is malloc'd. */
enum rt_status run_find_checkpoint(const struct mosld_train_params *params, char **path, struct rt_error *err);
enum rt_status run_load_checkpoint(struct mosld_run *run, const char *path, struct rt_error *err);

/* fingerprint.c: 64 bits over all that decides the result, as hexadecimal digits; and the hash it uses, FNV-1a. */
#define RUN_HASH_START 0xcbf29ce484222325u
uint64_t run_hash(uint64_t h, const void *data, size_t n);
enum rt_status run_fingerprint(const struct mosld_run *run, char text[32], struct rt_error *err);

/* folder.c: the run folder: made, locked, refused where a run is in it already; run.json. */
enum rt_status run_open_folder(struct mosld_run *run, struct rt_error *err);
/* Removes what an earlier run left there, where that was asked for. Called when the new run is certain to begin. */
enum rt_status run_clear_folder(struct mosld_run *run, struct rt_error *err);
/* Removes a checkpoint folder of the run, `name`. It loses its name first, so that a kill cannot leave half a
 * checkpoint. */
enum rt_status run_discard(struct mosld_run *run, const char *name, struct rt_error *err);
/* "checkpoint-000123" -> 123; -1 for any other name, half-written ones included. */
int64_t run_step_of(const char *name);
/* run.json. Its "variants" are those that have run, so that it is written at the start and again behind the first step. */
enum rt_status run_write_description(struct mosld_run *run, struct rt_error *err);

/* metrics.c */
enum rt_status run_open_metrics(struct mosld_run *run,
                                struct rt_error *err); /* drops lines of steps that are to be done again */
enum rt_status run_log_step(struct mosld_run *run, const struct mosld_train_progress *p, struct rt_error *err);
enum rt_status run_log_evaluation(struct mosld_run *run, double mean, struct rt_error *err);

#endif
