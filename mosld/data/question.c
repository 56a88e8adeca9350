/* mosld/data/question.c - a multiple choice record with all its choices, for scoring; see example.h. */
#include "mosld/data/encode.h"
#include "mosld/data/prompt.h"
#include "mosld/text/tokenizer.h"

#include <stdlib.h>
#include <string.h>

/* Question and one choice, encoded as one text. */
struct candidate {
    int32_t *ids;
    size_t n;
    size_t begin; /* first id that is scored */
};

/* What the candidates have in common becomes the prompt. */
struct question {
    struct candidate candidate[MOSLD_CHOICES_MAX];
    size_t n_choices;
    size_t shared;  /* ids that all candidates begin with and none scores */
    size_t dropped; /* of these, so many are left out behind the first `kept`, for want of room */
    size_t kept;
};

static enum rt_status encode_candidates(struct question *q, const struct example_job *job, struct rt_error *err)
{
    const struct mosld_record *r = job->record;
    const enum mosld_choice_format format = job->options->choice_format;
    enum rt_status st = RT_OK;
    q->shared = SIZE_MAX;
    for (size_t c = 0; st == RT_OK && c < r->n_choices; c++) {
        struct candidate *k = &q->candidate[q->n_choices++];
        struct text_buf prompt = {0}, completion = {0};
        if (prompt_question(&prompt, r, format) && prompt_choice(&completion, r, c, format))
            st = encode_pair(job->encoder, &prompt, &completion, &k->ids, &k->n, &k->begin, err);
        else
            st = rt_fail(err, RT_NO_MEMORY, "out of memory");
        text_buf_finish(&prompt);
        text_buf_finish(&completion);
        if (st == RT_OK)
            st = encode_check_ids(job->encoder, k->ids, k->n, err);
        if (st == RT_OK && k->begin < q->shared)
            q->shared = k->begin;
    }
    return st;
}

/* Whether every choice has something to score and something that predicts it; and how much of the prompt fits. */
static bool fit(struct question *q, const struct example_job *job, bool *truncated)
{
    size_t longest = 0;
    const int32_t bos = mosld_tokenizer_bos(job->encoder->tokenizer);
    for (size_t c = 0; c < q->n_choices; c++) {
        const struct candidate *k = &q->candidate[c];
        if (k->begin >= k->n)
            return false;
        longest = k->n - q->shared > longest ? k->n - q->shared : longest;
    }
    if (q->shared == 0)
        return false;
    q->kept = bos != MOSLD_NO_TOKEN && q->candidate[0].ids[0] == bos ? 1 : 0;
    const size_t limit = job->options->max_length;
    if (limit && q->shared + longest > limit) {
        *truncated = true;
        q->dropped = q->shared + longest - limit;
    }
    return q->dropped < q->shared - q->kept;
}

/* Appends ids [from, to) of a candidate; those from `begin` on are scored. */
static uint32_t write_tokens(struct mosld_examples *x, size_t at, const struct candidate *k, size_t from, size_t to)
{
    for (size_t i = from; i < to; i++, at++) {
        x->tokens[at] = k->ids[i];
        x->labels[at] = i < k->begin ? MOSLD_NO_LABEL : k->ids[i];
    }
    return (uint32_t)(to - from);
}

static void write_question(struct mosld_examples *x, const struct question *q, const struct example_job *job)
{
    struct mosld_example e = {.first = x->n_tokens,
                              .n_choices = (uint32_t)q->n_choices,
                              .answer = (uint32_t)job->record->answer,
                              .first_choice = x->n_choices,
                              .line = job->record->line};
    const struct candidate *any = &q->candidate[0];
    e.n_tokens = write_tokens(x, e.first, any, 0, q->kept);
    e.n_tokens += write_tokens(x, e.first + e.n_tokens, any, q->kept + q->dropped, q->shared);
    e.n_prompt = e.n_tokens;
    for (size_t c = 0; c < q->n_choices; c++) {
        const struct candidate *k = &q->candidate[c];
        struct mosld_choice *choice = &x->choice[e.first_choice + c];
        choice->first = e.n_tokens;
        choice->n_tokens = write_tokens(x, e.first + e.n_tokens, k, q->shared, k->n);
        choice->n_characters = job->options->choice_format == MOSLD_CHOICE_LETTER
                                   ? 1
                                   : (uint32_t)prompt_characters(job->record->choices[c]);
        e.n_tokens += choice->n_tokens;
        e.n_targets += (uint32_t)(k->n - k->begin);
    }
    examples_push(x, &e);
}

enum rt_status add_question(struct mosld_examples *examples, const struct example_job *job, struct rt_error *err)
{
    struct question q = {0};
    bool truncated = false;
    enum rt_status st = encode_candidates(&q, job, err);
    if (st == RT_OK) {
        size_t room = 0;
        for (size_t c = 0; c < q.n_choices; c++)
            room += q.candidate[c].n;
        bool fits = fit(&q, job, &truncated);
        examples->counts.truncated += truncated;
        if (!fits)
            examples_count_skipped(examples, job->record);
        else if (room > INT32_MAX || !examples_reserve(examples, room, q.n_choices))
            st = rt_fail(err, RT_NO_MEMORY, "no memory for a question of %zu tokens", room);
        else
            write_question(examples, &q, job);
    }
    for (size_t c = 0; c < q.n_choices; c++)
        free(q.candidate[c].ids);
    return st;
}
