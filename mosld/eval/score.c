/* mosld/eval/score.c - see score.h. */
#include "mosld/eval/score.h"
#include "runtime/trace.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum rt_status mosld_score_size(const struct mosld_examples *ex, uint32_t limit, uint32_t budget, uint32_t *max_tokens,
                                uint32_t *max_targets, struct rt_error *err)
{
    size_t rows = limit && limit < ex->n ? limit : ex->n;
    struct mosld_batch_plan plan;
    for (size_t i = 0; i < rows; i++) {
        uint32_t t = mosld_batch_row_tokens(ex, (uint32_t)i);
        budget = t > budget ? t : budget;
    }
    enum rt_status st = mosld_batch_plan_create(ex, (uint32_t)rows, budget, &plan, err);
    if (st)
        return st;
    for (uint32_t b = 0; b < plan.n_batches; b++) {
        uint32_t tokens = 0, targets = 0;
        for (uint32_t i = plan.first[b]; i < plan.first[b + 1]; i++) {
            tokens += mosld_batch_row_tokens(ex, plan.order[i]);
            targets += mosld_batch_row_targets(ex, plan.order[i]);
        }
        *max_tokens = tokens > *max_tokens ? tokens : *max_tokens;
        *max_targets = targets > *max_targets ? targets : *max_targets;
    }
    mosld_batch_plan_finish(&plan);
    return RT_OK;
}

/* Sums of a batch's targets by part. */
static void sum_parts(const struct mosld_batch *b, const uint32_t *losses, double *sums)
{
    memset(sums, 0, b->n_parts * sizeof *sums);
    for (uint32_t i = 0; i < b->n_targets; i++) {
        float loss;
        memcpy(&loss, &losses[2 * i], 4);
        sums[b->target_part[i]] += loss;
    }
}

/* The parts [first, first + n) are the choices of one question. */
static void judge(const struct mosld_examples *ex, uint32_t row, const double *sums, uint32_t n,
                  struct mosld_question_score *q)
{
    const struct mosld_example *e = &ex->example[row];
    uint32_t best = 0, best_norm = 0;
    double top = -INFINITY, top_norm = -INFINITY;
    for (uint32_t c = 0; c < n; c++) {
        double likelihood = -sums[c], norm = likelihood / (double)ex->choice[e->first_choice + c].n_characters;
        if (likelihood > top)
            top = likelihood, best = c;
        if (norm > top_norm)
            top_norm = norm, best_norm = c;
    }
    *q = (struct mosld_question_score){.line = (uint32_t)e->line,
                                       .right = best == e->answer,
                                       .right_norm = best_norm == e->answer,
                                       .chosen = (uint8_t)best,
                                       .chosen_norm = (uint8_t)best_norm};
}

struct scoring {
    struct mosld_pass *pass;
    const struct mosld_examples *examples;
    struct mosld_batch batch;
    uint32_t *losses;
    double *sums;
    struct mosld_question_score *by_row; /* [rows of the examples]; line 0 where it is no question */
    double loss;
    struct mosld_score *out;
};

static void take_results(struct scoring *s)
{
    const struct mosld_batch *b = &s->batch;
    sum_parts(b, s->losses, s->sums);
    for (uint32_t i = 0; i < b->n_parts;) {
        uint32_t row = b->parts[i].row, n = s->examples->example[row].n_choices,
                 answer = n ? s->examples->example[row].answer : 0;
        if (n)
            judge(s->examples, row, s->sums + i, n, &s->by_row[row]);
        s->loss += s->sums[i + answer];
        s->out->loss_targets += b->parts[i + answer].n_targets;
        s->out->questions += n > 0;
        s->out->rows++;
        i += n ? n : 1;
    }
    s->out->tokens += b->T;
}

static enum rt_status run_batch(struct scoring *s, const struct mosld_batch_plan *plan, uint32_t b, struct rt_error *err)
{
    mosld_batch_clear(&s->batch);
    enum rt_status st = RT_OK;
    for (uint32_t i = plan->first[b]; i < plan->first[b + 1] && !st; i++)
        st = mosld_batch_add(&s->batch, s->examples, 0, plan->order[i], err);
    if (st)
        return st;
    const struct mosld_batch *t = &s->batch;
    struct mosld_tokens tokens = {.T = t->T,
                                  .tokens = t->tokens,
                                  .pos = t->pos,
                                  .seg = t->seg,
                                  .n_targets = t->n_targets,
                                  .target_row = t->target_row,
                                  .target = t->target};
    uint32_t *losses = realloc(s->losses, 8ull * (t->n_targets + 1));
    double *sums = losses ? realloc(s->sums, (t->n_parts + 1) * sizeof *sums) : NULL;
    s->losses = losses ? losses : s->losses;
    s->sums = sums ? sums : s->sums;
    if (!losses || !sums)
        return rt_fail(err, RT_NO_MEMORY, "no memory for an evaluation batch");
    st = mosld_forward(s->pass, &tokens, false, err);
    if (!st)
        st = mosld_loss(s->pass, 0, err);
    if (!st)
        st = rt_download(s->pass->model->dev, s->pass->loss, 0, s->losses, 8ull * t->n_targets, err);
    if (!st)
        take_results(s);
    return st;
}

static enum rt_status score_batch(struct scoring *s, const struct mosld_batch_plan *plan, uint32_t b,
                                  struct rt_error *err)
{
    unsigned scope = rt_scope_begin(s->pass->model->dev, "batch", b);
    enum rt_status st = run_batch(s, plan, b, err);
    rt_scope_end(s->pass->model->dev, scope);
    return st;
}

/* Means, errors, and the questions in the file's order. */
static void summarise(struct scoring *s, size_t rows)
{
    struct mosld_score *o = s->out;
    uint64_t n = 0, right = 0, right_norm = 0;
    for (size_t i = 0; i < rows; i++)
        if (s->by_row[i].line) {
            right += s->by_row[i].right;
            right_norm += s->by_row[i].right_norm;
            s->by_row[n++] = s->by_row[i];
        }
    o->question = s->by_row;
    s->by_row = NULL;
    o->loss = o->loss_targets ? s->loss / (double)o->loss_targets : NAN;
    if (!n)
        return;
    o->acc = (double)right / (double)n;
    o->acc_norm = (double)right_norm / (double)n;
    double d = n > 1 ? (double)(n - 1) : 1;
    o->acc_stderr = sqrt(o->acc * (1 - o->acc) / d);
    o->acc_norm_stderr = sqrt(o->acc_norm * (1 - o->acc_norm) / d);
}

enum rt_status mosld_score_examples(struct mosld_pass *pass, const struct mosld_examples *examples, uint32_t limit,
                                    uint32_t budget, void (*progress)(void *user, uint64_t done, uint64_t of),
                                    void *user, const volatile sig_atomic_t *interrupted, struct mosld_score *out,
                                    struct rt_error *err)
{
    *out = (struct mosld_score){0};
    struct scoring s = {.pass = pass, .examples = examples, .out = out};
    struct mosld_batch_plan plan = {0};
    size_t rows = limit && limit < examples->n ? limit : examples->n;
    s.by_row = calloc(rows + 1, sizeof *s.by_row);
    enum rt_status st = s.by_row ? mosld_batch_plan_create(examples, (uint32_t)rows, budget, &plan, err)
                                 : rt_fail(err, RT_NO_MEMORY, "no memory for the scores");
    for (uint32_t b = 0; b < plan.n_batches && !st; b++) {
        if (progress)
            progress(user, out->rows, rows);
        st = interrupted && *interrupted ? rt_fail(err, RT_INTERRUPTED, "interrupted") : score_batch(&s, &plan, b, err);
    }
    if (!st)
        summarise(&s, rows);
    if (!st && progress)
        progress(user, rows, rows);
    mosld_batch_plan_finish(&plan);
    mosld_batch_finish(&s.batch);
    free(s.losses);
    free(s.sums);
    free(s.by_row);
    return st;
}

void mosld_score_finish(struct mosld_score *score)
{
    free(score->question);
    score->question = NULL;
}

struct mosld_score_change mosld_score_compare(const struct mosld_score *now, const struct mosld_question_score *before,
                                              uint64_t n_before)
{
    struct mosld_score_change change = {0};
    uint64_t i = 0, j = 0;
    while (i < now->questions && j < n_before) { /* both are in the order of lines */
        const struct mosld_question_score *a = &now->question[i], *b = &before[j];
        if (a->line != b->line) {
            a->line < b->line ? i++ : j++;
            continue;
        }
        change.both++;
        change.gained += a->right_norm && !b->right_norm;
        change.lost += !a->right_norm && b->right_norm;
        i++, j++;
    }
    return change;
}
