/* mosld/data/sampler.h - in which order a run sees the rows of its tasks.
 *
 * An epoch holds round(weight x rows) rows of each task (weight 1: each row once), in an order that depends on the seed
 * and the epoch alone. A task's rows are drawn without replacement: all of them, in a new random order, then all of
 * them again; where a weight is no whole number the next epoch goes on where the last one stopped, so that after any
 * number of epochs no row has been seen twice more than another. Random order shuffles the tasks together. Sequential
 * order is file order, one task after another.
 *
 * A place in the run is one number, counted in rows from 0: resuming is asking for the next number. Knows nothing of
 * tokens. */
#ifndef MOSLD_DATA_SAMPLER_H
#define MOSLD_DATA_SAMPLER_H

#include "runtime/error.h"

#include <stddef.h>
#include <stdint.h>

enum mosld_sampling {
    MOSLD_SAMPLING_RANDOM,
    MOSLD_SAMPLING_SEQUENTIAL,
};

/* One row of one task. */
struct mosld_row {
    uint32_t task, row;
};

struct mosld_sampler_params {
    uint32_t n_tasks;
    const uint32_t *rows;  /* [n_tasks]: rows of each task */
    const double *weights; /* [n_tasks]: above 0, or NULL: 1 for all */
    enum mosld_sampling sampling;
    uint64_t seed;
};

struct mosld_sampler;

/* Keeps copies of what `params` points to. RT_USAGE: no rows at all, a weight that is not above 0 or not finite, an
 * epoch above 2^31 rows. RT_NO_MEMORY. *out is NULL then. A task without rows is passed over. */
enum rt_status mosld_sampler_create(const struct mosld_sampler_params *params, struct mosld_sampler **out,
                                    struct rt_error *err);

/* NULL is fine. Sets *s to NULL. */
void mosld_sampler_destroy(struct mosld_sampler **s);

/* Rows an epoch: the sum over tasks of round(weight x rows), at least 1 for a task with rows. */
uint64_t mosld_sampler_epoch_rows(const struct mosld_sampler *s);

/* The row at place `index` of the run. Going on within an epoch costs nothing; another epoch costs time in proportion
 * to its rows. One thread at a time. */
struct mosld_row mosld_sampler_at(struct mosld_sampler *s, uint64_t index);

#endif
