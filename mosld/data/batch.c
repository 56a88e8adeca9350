/* mosld/data/batch.c - see batch.h. */
#include "mosld/data/batch.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* An array of the batch: where its pointer stands, and the size of an element. */
struct array {
    void *pointer;
    size_t size;
};

/* Makes room for `more` elements in each of the arrays, which share one capacity. */
static bool reserve(const struct array *arrays, size_t n_arrays, uint32_t used, uint32_t more, uint32_t *capacity)
{
    const uint64_t need = (uint64_t)used + more;
    if (need <= *capacity)
        return true;
    if (need > INT32_MAX)
        return false;
    const uint64_t grown = need + need / 2;
    for (size_t i = 0; i < n_arrays; i++) {
        void *old, *bigger;
        memcpy(&old, arrays[i].pointer, sizeof old);
        bigger = reallocarray(old, grown, arrays[i].size);
        if (!bigger)
            return false;
        memcpy(arrays[i].pointer, &bigger, sizeof bigger);
    }
    *capacity = (uint32_t)grown;
    return true;
}

static bool reserve_all(struct mosld_batch *b, uint32_t tokens, uint32_t targets, uint32_t parts)
{
    const size_t word = sizeof(uint32_t);
    const struct array of_token[] = {{&b->tokens, word}, {&b->pos, word}, {&b->seg, 4 * word}};
    const struct array of_target[] = {{&b->target_row, word}, {&b->target, word}, {&b->target_part, word}};
    const struct array of_part[] = {{&b->parts, sizeof *b->parts}};
    return reserve(of_token, 3, b->T, tokens, &b->token_capacity)
           && reserve(of_target, 3, b->n_targets, targets, &b->target_capacity)
           && reserve(of_part, 1, b->n_parts, parts, &b->part_capacity);
}

/* The tokens of a choice that are fed: all but the last. */
static uint32_t fed(const struct mosld_choice *choice)
{
    return choice->n_tokens - 1;
}

uint32_t mosld_batch_row_tokens(const struct mosld_examples *examples, uint32_t row)
{
    const struct mosld_example *e = &examples->example[row];
    if (e->n_choices == 0)
        return e->n_tokens;
    uint32_t n = e->n_prompt;
    for (uint32_t c = 0; c < e->n_choices; c++)
        n += fed(&examples->choice[e->first_choice + c]);
    return n;
}

uint32_t mosld_batch_row_targets(const struct mosld_examples *examples, uint32_t row)
{
    return examples->example[row].n_targets;
}

struct segment {
    uint32_t own, prefix_begin, prefix_end, last, pos;
};

/* Appends n tokens that see s->own and after, and the prefix. */
static void put_tokens(struct mosld_batch *b, const int32_t *tokens, uint32_t n, const struct segment *s)
{
    for (uint32_t i = 0; i < n; i++) {
        uint32_t t = b->T++;
        b->tokens[t] = (uint32_t)tokens[i];
        b->pos[t] = s->pos + i;
        memcpy(b->seg + 4 * (size_t)t, (uint32_t[]){s->own, s->prefix_begin, s->prefix_end, s->last},
               4 * sizeof *b->seg);
    }
}

static void open_part(struct mosld_batch *b, uint32_t task, uint32_t row, uint32_t choice)
{
    b->parts[b->n_parts++] = (struct mosld_batch_part){task, row, choice, b->n_targets, 0};
}

static void put_target(struct mosld_batch *b, uint32_t row, int32_t label)
{
    if (label == MOSLD_NO_LABEL)
        return;
    b->target_row[b->n_targets] = row;
    b->target[b->n_targets] = (uint32_t)label;
    b->target_part[b->n_targets] = b->n_parts - 1;
    b->n_targets++;
    b->parts[b->n_parts - 1].n_targets++;
}

static void put_plain(struct mosld_batch *b, const struct mosld_examples *examples, const struct mosld_example *e,
                      uint32_t task, uint32_t row)
{
    const uint32_t begin = b->T;
    put_tokens(b, examples->tokens + e->first, e->n_tokens,
               &(struct segment){begin, begin, begin, begin + e->n_tokens, 0});
    open_part(b, task, row, 0);
    for (uint32_t i = 1; i < e->n_tokens; i++)
        put_target(b, begin + i - 1, examples->labels[e->first + i]);
}

static void put_question(struct mosld_batch *b, const struct mosld_examples *examples, const struct mosld_example *e,
                         uint32_t task, uint32_t row, uint32_t n_tokens)
{
    const uint32_t begin = b->T, prompt_end = begin + e->n_prompt;
    put_tokens(b, examples->tokens + e->first, e->n_prompt,
               &(struct segment){begin, begin, begin, begin + n_tokens, 0});
    for (uint32_t c = 0; c < e->n_choices; c++) {
        const struct mosld_choice *choice = &examples->choice[e->first_choice + c];
        const size_t first = e->first + choice->first;
        const uint32_t own = b->T;
        put_tokens(b, examples->tokens + first, fed(choice),
                   &(struct segment){own, begin, prompt_end, own + fed(choice), e->n_prompt});
        open_part(b, task, row, c);
        for (uint32_t i = 0; i < choice->n_tokens; i++)
            put_target(b, i == 0 ? prompt_end - 1 : own + i - 1, examples->labels[first + i]);
    }
}

enum rt_status mosld_batch_add(struct mosld_batch *batch, const struct mosld_examples *examples, uint32_t task,
                               uint32_t row, struct rt_error *err)
{
    const struct mosld_example *e = &examples->example[row];
    const uint32_t n_tokens = mosld_batch_row_tokens(examples, row);
    if (!reserve_all(batch, n_tokens, e->n_targets, e->n_choices ? e->n_choices : 1))
        return rt_fail(err, RT_NO_MEMORY, "no memory for a batch of %u + %u tokens: a smaller batch helps", batch->T,
                       n_tokens);
    if (e->n_choices)
        put_question(batch, examples, e, task, row, n_tokens);
    else
        put_plain(batch, examples, e, task, row);
    return RT_OK;
}

void mosld_batch_clear(struct mosld_batch *batch)
{
    batch->T = batch->n_targets = batch->n_parts = 0;
}

void mosld_batch_finish(struct mosld_batch *batch)
{
    free(batch->tokens);
    free(batch->pos);
    free(batch->seg);
    free(batch->target_row);
    free(batch->target);
    free(batch->target_part);
    free(batch->parts);
    *batch = (struct mosld_batch){0};
}

static int longest_first(const void *a, const void *b, void *examples)
{
    const uint32_t row_a = *(const uint32_t *)a, row_b = *(const uint32_t *)b;
    const uint32_t len_a = mosld_batch_row_tokens(examples, row_a), len_b = mosld_batch_row_tokens(examples, row_b);
    if (len_a != len_b)
        return len_a > len_b ? -1 : 1;
    return row_a < row_b ? -1 : row_a > row_b;
}

enum rt_status mosld_batch_plan_create(const struct mosld_examples *examples, uint32_t limit, uint32_t budget,
                                       struct mosld_batch_plan *plan, struct rt_error *err)
{
    const size_t rows = limit && limit < examples->n ? limit : examples->n;
    *plan = (struct mosld_batch_plan){0};
    plan->first = calloc(rows + 1, sizeof *plan->first);
    plan->order = calloc(rows + 1, sizeof *plan->order);
    if (!plan->first || !plan->order) {
        mosld_batch_plan_finish(plan);
        return rt_fail(err, RT_NO_MEMORY, "no memory for the order of %zu rows", rows);
    }
    for (size_t i = 0; i < rows; i++)
        plan->order[i] = (uint32_t)i;
    qsort_r(plan->order, rows, sizeof *plan->order, longest_first, (void *)examples);
    uint64_t tokens = 0;
    for (size_t i = 0; i < rows; i++) {
        const uint32_t n = mosld_batch_row_tokens(examples, plan->order[i]);
        if (i == 0 || tokens + n > budget) {
            plan->first[plan->n_batches++] = (uint32_t)i;
            tokens = 0;
        }
        tokens += n;
    }
    plan->first[plan->n_batches] = (uint32_t)rows;
    return RT_OK;
}

void mosld_batch_plan_finish(struct mosld_batch_plan *plan)
{
    free(plan->first);
    free(plan->order);
    *plan = (struct mosld_batch_plan){0};
}
