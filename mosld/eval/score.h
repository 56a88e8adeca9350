/* mosld/eval/score.h - how well a model does on a task: right choices, and loss.
 *
 * A question's choices are scored by the log-likelihood of their tokens behind the prompt, which all of them share in
 * one pass. acc takes the choice with the largest sum, acc_norm that with the largest sum divided by the choice's
 * length in characters without the space before it (ties go to the first). Rows without choices give loss: the mean
 * over all their target tokens. */
#ifndef MOSLD_SCORE_H
#define MOSLD_SCORE_H

#include "mosld/data/batch.h"
#include "mosld/model/pass.h"

#include <signal.h>

struct mosld_question_score {
    uint32_t line;    /* of the record in its file */
    uint8_t right, right_norm;
    uint8_t chosen, chosen_norm;
};

struct mosld_score {
    uint64_t rows, questions, loss_targets;
    double acc, acc_stderr, acc_norm, acc_norm_stderr; /* of the questions; standard error sqrt(p (1 - p) / (n - 1)) */
    double loss; /* mean over target tokens of plain rows, or of the right choices; NaN: none */
    uint64_t tokens;                                   /* that went through the model */
    struct mosld_question_score *question;             /* [questions], in the file's order */
};

/* Raises *max_tokens and *max_targets to what a pass needs for these examples in batches of `budget` tokens (a longer
 * row is a batch). */
enum rt_status mosld_score_size(const struct mosld_examples *examples, uint32_t limit, uint32_t budget,
                                uint32_t *max_tokens, uint32_t *max_targets, struct rt_error *err);

/* Scores the first `limit` rows (0: all), in batches of the same `budget`. progress(user, done, of), in rows, may be
 * NULL. RT_INTERRUPTED when *interrupted (may be NULL). */
enum rt_status mosld_score_examples(struct mosld_pass *pass, const struct mosld_examples *examples, uint32_t limit,
                                    uint32_t budget, void (*progress)(void *user, uint64_t done, uint64_t of),
                                    void *user, const volatile sig_atomic_t *interrupted, struct mosld_score *out,
                                    struct rt_error *err);
void mosld_score_finish(struct mosld_score *score);

/* Questions right here and wrong there, and the reverse, among those that both answered, by line. */
struct mosld_score_change {
    uint64_t both, gained, lost;           /* by acc_norm */
};
struct mosld_score_change mosld_score_compare(const struct mosld_score *now, const struct mosld_question_score *before,
                                              uint64_t n_before);

#endif
