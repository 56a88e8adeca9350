/* mosld/data/batch.h - several rows packed into one pass, without padding.
 *
 * Rows stand one after another in T tokens; each sees only itself (seg, see mosld/ops/attention.h) and its positions
 * start at 0. A question for scoring is its prompt once, then each choice as a segment of its own that sees the prompt
 * and itself, with positions that go on from the prompt; the choices' last tokens, which predict nothing, are left out.
 *
 * Targets are pairs (row, id): the logits at token `target_row` should give the id `target`. Rows ascend within a part,
 * and are distinct in training; the choices of a question share the prompt's last row, so there a row may stand several
 * times. */
#ifndef MOSLD_DATA_BATCH_H
#define MOSLD_DATA_BATCH_H

#include "mosld/data/example.h"
#include "runtime/error.h"

#include <stddef.h>
#include <stdint.h>

/* What one loss or score belongs to: a plain row, or one choice of a question. Its targets are
 * [first_target, first_target + n_targets) of the batch. */
struct mosld_batch_part {
    uint32_t task, row; /* as given to mosld_batch_add */
    uint32_t choice;    /* 0 for a plain row */
    uint32_t first_target, n_targets;
};

/* Zero-initialised is empty. Arrays are the batch's own and grow; they move when something is added. */
struct mosld_batch {
    uint32_t T, n_targets, n_parts;
    uint32_t *tokens;                            /* [T] */
    uint32_t *pos;                               /* [T] */
    uint32_t *seg;                               /* [T, 4]: own, prefix_begin, prefix_end, last */
    uint32_t *target_row, *target, *target_part; /* [n_targets]: row < T; token id; index into parts */
    struct mosld_batch_part *parts;              /* [n_parts] */
    uint32_t token_capacity, target_capacity, part_capacity;
};

/* Adds row `row` of the examples. RT_NO_MEMORY, also above 2^31 tokens; nothing was added then. */
enum rt_status mosld_batch_add(struct mosld_batch *batch, const struct mosld_examples *examples, uint32_t task,
                               uint32_t row, struct rt_error *err);

/* Empties the batch and keeps its memory; the other gives that back too. */
void mosld_batch_clear(struct mosld_batch *batch);
void mosld_batch_finish(struct mosld_batch *batch);

/* Tokens that row `row` adds to a batch, and targets. */
uint32_t mosld_batch_row_tokens(const struct mosld_examples *examples, uint32_t row);
uint32_t mosld_batch_row_targets(const struct mosld_examples *examples, uint32_t row);

/* Which rows go through evaluation together: batch b is rows order[first[b]] .. order[first[b + 1] - 1]. */
struct mosld_batch_plan {
    uint32_t n_batches;
    uint32_t *first; /* [n_batches + 1] */
    uint32_t *order; /* [rows] */
};

/* Sorts the first `limit` rows (0: all) by length, longest first, so that the first batch needs the most memory and the
 * time left is told well, and fills batches up to `budget` tokens; a longer row gets a batch of its own. Rows of equal
 * length keep their order. RT_NO_MEMORY. */
enum rt_status mosld_batch_plan_create(const struct mosld_examples *examples, uint32_t limit, uint32_t budget,
                                       struct mosld_batch_plan *plan, struct rt_error *err);

void mosld_batch_plan_finish(struct mosld_batch_plan *plan);

#endif
