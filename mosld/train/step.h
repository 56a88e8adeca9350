/* mosld/train/step.h - one optimizer step on the device: gradients of its micro-batches, clipping, AdamW. Knows no
 * files and no tasks. */
#ifndef MOSLD_STEP_RUN_H
#define MOSLD_STEP_RUN_H

#include "mosld/model/pass.h"
#include "mosld/train/config.h"

struct mosld_step {
    struct mosld_pass *pass;
    const struct mosld_train_config *config;
    struct rt_arena *arena;
    struct rt_span partial;  /* scratch of the gradient's norm */
    uint64_t micro;          /* micro-steps of the run so far: a part of the dropout key */
    uint64_t updates;        /* of the optimizer and of the schedule so far; a skipped step is none */
    double aux;              /* balance loss of the step's micro-batches so far, summed */
    double *load; /* [max_experts]: share of the top-k places of each expert, over routers and micro-batches, summed */
    uint32_t n_load;         /* how many are summed there */
    float *stats;            /* [n_modules, 2 max_experts]: host copy */
};

enum rt_status mosld_step_create(struct mosld_pass *pass, const struct mosld_train_config *config,
                                 struct mosld_step **out, struct rt_error *err);
void mosld_step_destroy(struct mosld_step **step);

/* Begins a step of `micro_steps` micro-batches: clears gradient and sums. */
enum rt_status mosld_step_begin(struct mosld_step *s, uint32_t micro_steps, struct rt_error *err);
/* One micro-batch; `targets`: all target tokens of the step. losses: words [batch->n_targets, 2] as mosld/ops/loss.h
 * has them. */
enum rt_status mosld_step_micro(struct mosld_step *s, const struct mosld_tokens *batch, uint64_t targets,
                                uint32_t *losses, struct rt_error *err);
/* Clips and updates with this learning rate. *skipped: the gradient was not finite, and nothing changed. */
enum rt_status mosld_step_end(struct mosld_step *s, double learning_rate, float *grad_norm, bool *skipped,
                              struct rt_error *err);
/* Balance loss of the step: the coefficient times the mean over routers and micro-batches of E sum_e f_e P_e. */
double mosld_step_aux_loss(const struct mosld_step *s);

#endif
