/* mosld/train/plan.h - which rows make which micro-batch of which step: known for the whole run before it begins.
 *
 * An epoch's rows, in the sampler's order, are cut into micro-batches of `rows` rows, or with packing of as many rows
 * as fit `tokens` tokens (at least one); `accumulate` micro-batches make a step, and the last of an epoch may have
 * fewer. A row never counts twice in an epoch, and none is left out. */
#ifndef MOSLD_PLAN_H
#define MOSLD_PLAN_H

#include "mosld/data/sampler.h"
#include "runtime/error.h"

#include <stdbool.h>

struct mosld_plan_params {
    uint32_t rows, accumulate;
    uint64_t tokens; /* packing: budget of a micro-batch; 0: by rows */
    double epochs;
    uint64_t max_steps; /* not 0: so many, over as many epochs as it takes */
    /* Length in tokens of a row. */
    uint32_t (*length)(const void *user, struct mosld_row row);
    const void *user;
};

struct mosld_micro_batch {
    uint64_t first; /* place in the run, as mosld_sampler_at counts */
    uint32_t rows, tokens;
};

struct mosld_plan {
    struct mosld_micro_batch *micro; /* [n_micro], of the whole run */
    uint64_t n_micro;
    uint64_t *step_begin;            /* [steps + 1]: index of each step's first micro-batch */
    uint64_t steps;
    uint32_t most_tokens;            /* of a micro-batch */
    uint64_t epoch_rows;
    double epochs;
};

/* RT_USAGE: nothing to train on. RT_NO_MEMORY. */
enum rt_status mosld_plan_create(struct mosld_sampler *sampler, const struct mosld_plan_params *params,
                                 struct mosld_plan *out, struct rt_error *err);
void mosld_plan_finish(struct mosld_plan *plan);

#endif
