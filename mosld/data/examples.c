/* mosld/data/examples.c - the growing arrays behind struct mosld_examples; see example.h and encode.h. */
#include "mosld/data/encode.h"

#include <stdlib.h>

bool examples_reserve(struct mosld_examples *x, size_t tokens, size_t choices)
{
    size_t need, label_capacity = x->token_capacity;
    if (__builtin_add_overflow(x->n_tokens, tokens, &need) || x->n >= UINT32_MAX)
        return false;
    if (need > x->token_capacity) {
        size_t grown = need + need / 2, bytes;
        if (grown < need || __builtin_mul_overflow(grown, sizeof(int32_t), &bytes))
            return false;
        int32_t *ids = realloc(x->tokens, bytes);
        if (!ids)
            return false;
        x->tokens = ids;
        int32_t *labels = realloc(x->labels, bytes);
        if (!labels)
            return false;
        x->labels = labels;
        label_capacity = grown;
    }
    x->token_capacity = label_capacity;
    if (x->n == x->capacity) {
        size_t grown = x->capacity ? 2 * x->capacity : 64;
        struct mosld_example *example = reallocarray(x->example, grown, sizeof *example);
        if (!example)
            return false;
        x->example = example;
        x->capacity = grown;
    }
    if (x->n_choices + choices > x->choice_capacity) {
        size_t grown = 2 * (x->n_choices + choices);
        struct mosld_choice *choice = reallocarray(x->choice, grown, sizeof *choice);
        if (!choice)
            return false;
        x->choice = choice;
        x->choice_capacity = grown;
    }
    return true;
}

void examples_push(struct mosld_examples *x, const struct mosld_example *e)
{
    x->example[x->n++] = *e;
    x->n_tokens += e->n_tokens;
    x->n_choices += e->n_choices;
    x->counts.tokens += e->n_tokens;
    x->counts.targets += e->n_targets;
    if (e->n_tokens > x->counts.longest)
        x->counts.longest = e->n_tokens;
}

void examples_count_skipped(struct mosld_examples *x, const struct mosld_record *record)
{
    if (x->counts.skipped++ == 0)
        x->counts.skipped_line = record->line;
}

void mosld_examples_finish(struct mosld_examples *examples)
{
    free(examples->example);
    free(examples->tokens);
    free(examples->labels);
    free(examples->choice);
    *examples = (struct mosld_examples){0};
}
