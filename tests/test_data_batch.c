/* tests/test_data_batch.c - rows packed into one pass: what each token sees, at which position, and what is asked of
 * it.
 *
 * Examples come from input_ids and from arrays made here, so no tokenizer is needed. */
#include "mosld/data/batch.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

#define NO       MOSLD_NO_LABEL
#define COUNT(a) (sizeof(a) / sizeof *(a))

static struct rt_error err;
static struct mosld_examples x;
static struct mosld_batch b;

static void teardown(void)
{
    mosld_batch_finish(&b);
    mosld_examples_finish(&x);
}

static void add_row(const int32_t *ids, const int32_t *labels, size_t n)
{
    struct mosld_record record = {.kind = MOSLD_RECORD_TOKENS,
                                  .file = "f",
                                  .line = x.counts.records + 1,
                                  .n_ids = n,
                                  .ids = (int32_t *)ids,
                                  .labels = (int32_t *)labels};
    struct mosld_encoder encoder = {0};
    ck_assert_int_eq(mosld_examples_add(&x, &encoder, mosld_example_options(), &record, &err), RT_OK);
}
#define ADD_ROW(ids, labels) add_row(ids, labels, COUNT(ids))

/* A row of n tokens base, base + 1, ... that are all targets. */
static void add_count(int32_t base, size_t n)
{
    int32_t ids[64];
    ck_assert_uint_le(n, COUNT(ids));
    for (size_t i = 0; i < n; i++)
        ids[i] = base + (int32_t)i;
    add_row(ids, NULL, n);
}

/* A question whose prompt is 10 11 .. and whose choices are given, all tokens scored but the first `unscored` of each.
 */
static void add_question(uint32_t n_prompt, const int32_t *const *choices, const uint32_t *lengths, uint32_t n_choices,
                         uint32_t unscored)
{
    size_t n = n_prompt;
    for (uint32_t c = 0; c < n_choices; c++)
        n += lengths[c];
    x.tokens = realloc(x.tokens, (x.n_tokens + n) * sizeof *x.tokens);
    x.labels = realloc(x.labels, (x.n_tokens + n) * sizeof *x.labels);
    x.choice = realloc(x.choice, (x.n_choices + n_choices) * sizeof *x.choice);
    x.example = realloc(x.example, (x.n + 1) * sizeof *x.example);
    x.token_capacity = x.n_tokens + n;
    x.choice_capacity = x.n_choices + n_choices;
    x.capacity = x.n + 1;
    struct mosld_example *e = &x.example[x.n++];
    *e = (struct mosld_example){.first = x.n_tokens,
                                .n_tokens = (uint32_t)n,
                                .n_prompt = n_prompt,
                                .n_choices = n_choices,
                                .first_choice = x.n_choices};
    for (uint32_t i = 0; i < n_prompt; i++, x.n_tokens++) {
        x.tokens[x.n_tokens] = 10 + (int32_t)i;
        x.labels[x.n_tokens] = NO;
    }
    for (uint32_t c = 0; c < n_choices; c++) {
        x.choice[x.n_choices++] = (struct mosld_choice){(uint32_t)(x.n_tokens - e->first), lengths[c], 1};
        for (uint32_t i = 0; i < lengths[c]; i++, x.n_tokens++) {
            x.tokens[x.n_tokens] = choices[c][i];
            x.labels[x.n_tokens] = i < unscored ? NO : choices[c][i];
            e->n_targets += i >= unscored;
        }
    }
}

static void put(uint32_t task, uint32_t row)
{
    ck_assert_int_eq(mosld_batch_add(&b, &x, task, row, &err), RT_OK);
}

static bool sees(uint32_t t, uint32_t j)
{
    const uint32_t *seg = b.seg + 4 * (size_t)t;
    return (seg[0] <= j && j <= t) || (seg[1] <= j && j < seg[2]);
}

/* The contract of the four words, against its definition: `last` is one past the last token that sees t, and the two
 * ranges are disjoint. */
static void check_seg(void)
{
    for (uint32_t t = 0; t < b.T; t++) {
        const uint32_t *seg = b.seg + 4 * (size_t)t;
        uint32_t last = 0;
        for (uint32_t i = 0; i < b.T; i++)
            if (sees(i, t))
                last = i + 1;
        ck_assert_msg(seg[3] == last, "last of token %u is %u, must be %u", t, seg[3], last);
        ck_assert_msg(seg[1] <= seg[2] && seg[2] <= seg[0] && seg[0] <= t, "token %u: %u %u %u", t, seg[0], seg[1],
                      seg[2]);
    }
}

/* What is seen from row t, in order of position, must be these ids at positions 0, 1, ... */
static void check_view(uint32_t t, const int32_t *ids, size_t n)
{
    size_t seen = 0;
    for (uint32_t j = 0; j < b.T; j++) {
        if (!sees(t, j))
            continue;
        ck_assert_uint_lt(b.pos[j], n);
        ck_assert_msg((int32_t)b.tokens[j] == ids[b.pos[j]], "row %u sees %u at position %u, must be %d", t,
                      b.tokens[j], b.pos[j], ids[b.pos[j]]);
        seen++;
    }
    ck_assert_msg(seen == n, "row %u sees %zu tokens, must see %zu", t, seen, n);
}

START_TEST(two_rows_by_hand)
{
    const int32_t first[] = {5, 6, 7}, labels[] = {NO, NO, 7}, second[] = {8, 9};
    ADD_ROW(first, labels);
    ADD_ROW(second, NULL);
    put(3, 0);
    put(4, 1);
    const uint32_t tokens[] = {5, 6, 7, 8, 9}, pos[] = {0, 1, 2, 0, 1};
    const uint32_t seg[] = {0, 0, 0, 3, 0, 0, 0, 3, 0, 0, 0, 3, 3, 3, 3, 5, 3, 3, 3, 5};
    const uint32_t rows[] = {1, 3}, targets[] = {7, 9}, parts[] = {0, 1};
    ck_assert_uint_eq(b.T, 5);
    ck_assert_mem_eq(b.tokens, tokens, sizeof tokens);
    ck_assert_mem_eq(b.pos, pos, sizeof pos);
    ck_assert_mem_eq(b.seg, seg, sizeof seg);
    ck_assert_uint_eq(b.n_targets, 2);
    ck_assert_mem_eq(b.target_row, rows, sizeof rows);
    ck_assert_mem_eq(b.target, targets, sizeof targets);
    ck_assert_mem_eq(b.target_part, parts, sizeof parts);
    ck_assert_uint_eq(b.n_parts, 2);
    ck_assert_uint_eq(b.parts[0].task, 3);
    ck_assert_uint_eq(b.parts[1].task, 4);
    ck_assert_uint_eq(b.parts[1].row, 1);
    ck_assert_uint_eq(b.parts[1].first_target, 1);
    ck_assert_uint_eq(b.parts[1].n_targets, 1);
    check_seg();
}
END_TEST

START_TEST(labels_that_differ_from_ids_are_kept)
{
    const int32_t ids[] = {5, 6, 7, 8}, labels[] = {1, 2, NO, 3};
    ADD_ROW(ids, labels);
    put(0, 0);
    const uint32_t rows[] = {0, 2}, targets[] = {2, 3};
    ck_assert_uint_eq(b.n_targets, 2);
    ck_assert_mem_eq(b.target_row, rows, sizeof rows);
    ck_assert_mem_eq(b.target, targets, sizeof targets);
}
END_TEST

static const int32_t choice0[] = {20, 21}, choice1[] = {30}, choice2[] = {40, 41, 42};
static const int32_t *const choices[] = {choice0, choice1, choice2};
static const uint32_t lengths[] = {2, 1, 3};

START_TEST(a_question_by_hand)
{
    add_question(3, choices, lengths, 3, 0);
    put(0, 0);
    const uint32_t tokens[] = {10, 11, 12, 20, 40, 41}, pos[] = {0, 1, 2, 3, 3, 4};
    const uint32_t seg[] = {0, 0, 0, 6, 0, 0, 0, 6, 0, 0, 0, 6, 3, 0, 3, 4, 4, 0, 3, 6, 4, 0, 3, 6};
    const uint32_t rows[] = {2, 3, 2, 2, 4, 5}, targets[] = {20, 21, 30, 40, 41, 42}, parts[] = {0, 0, 1, 2, 2, 2};
    ck_assert_uint_eq(b.T, 6);
    ck_assert_uint_eq(mosld_batch_row_tokens(&x, 0), 6);
    ck_assert_uint_eq(mosld_batch_row_targets(&x, 0), 6);
    ck_assert_mem_eq(b.tokens, tokens, sizeof tokens);
    ck_assert_mem_eq(b.pos, pos, sizeof pos);
    ck_assert_mem_eq(b.seg, seg, sizeof seg);
    ck_assert_uint_eq(b.n_targets, 6);
    ck_assert_mem_eq(b.target_row, rows, sizeof rows);
    ck_assert_mem_eq(b.target, targets, sizeof targets);
    ck_assert_mem_eq(b.target_part, parts, sizeof parts);
    ck_assert_uint_eq(b.parts[2].choice, 2);
    check_seg();
}
END_TEST

/* Letters: no choice feeds a token, so the question is its prompt alone. */
START_TEST(a_question_of_letters_is_its_prompt)
{
    static const uint32_t one[] = {1, 1, 1};
    add_question(3, choices, one, 3, 0);
    put(0, 0);
    ck_assert_uint_eq(b.T, 3);
    ck_assert_uint_eq(b.n_targets, 3);
    for (uint32_t i = 0; i < 3; i++)
        ck_assert_uint_eq(b.target_row[i], 2);
    check_seg();
}
END_TEST

/* Behind rows of other kinds, each target of each choice must see the prompt and the choice so far, and nothing else:
 * as if the two stood alone. */
START_TEST(choices_see_what_they_would_see_alone)
{
    add_count(50, 5);
    add_question(4, choices, lengths, 3, (uint32_t)_i);
    add_count(60, 2);
    add_question(1, choices, lengths, 2, (uint32_t)_i);
    for (uint32_t row = 0; row < 4; row++)
        put(0, row);
    check_seg();
    uint32_t checked = 0;
    for (uint32_t i = 0; i < b.n_targets; i++) {
        const struct mosld_batch_part *part = &b.parts[b.target_part[i]];
        ck_assert(part->first_target <= i && i < part->first_target + part->n_targets);
        const struct mosld_example *e = &x.example[part->row];
        if (e->n_choices == 0)
            continue;
        int32_t alone[16];
        uint32_t at = i - part->first_target + (uint32_t)_i; /* index of the target in its choice */
        for (uint32_t k = 0; k < e->n_prompt; k++)
            alone[k] = 10 + (int32_t)k;
        for (uint32_t k = 0; k < at; k++)
            alone[e->n_prompt + k] = choices[part->choice][k];
        check_view(b.target_row[i], alone, e->n_prompt + at);
        ck_assert_int_eq(b.target[i], choices[part->choice][at]);
        checked++;
    }
    ck_assert_uint_eq(checked,
                      _i ? 3 + 1 : 6 + 3); /* the choice of one token has nothing to score when its first is not */
}
END_TEST

/* The wrong attention of micro-batches shorter than the context: a row must see all of itself before it and nothing
 * else, wherever it stands. */
START_TEST(rows_see_themselves_only)
{
    static const size_t n[] = {7, 1 + 1, 13, 4};
    for (size_t i = 0; i < COUNT(n); i++)
        add_count((int32_t)(100 * i), n[i]);
    for (uint32_t i = 0; i < COUNT(n); i++)
        put(0, i);
    check_seg();
    for (uint32_t i = 0; i < b.n_targets; i++) {
        uint32_t row = b.parts[b.target_part[i]].row, seen = i - b.parts[b.target_part[i]].first_target + 1;
        check_view(b.target_row[i], x.tokens + x.example[row].first, seen);
        ck_assert_uint_eq(b.target[i], 100 * row + seen);
    }
    ck_assert_uint_eq(b.n_targets, 6 + 1 + 12 + 3);
}
END_TEST

START_TEST(a_cleared_batch_starts_again)
{
    add_count(5, 3);
    put(0, 0);
    mosld_batch_clear(&b);
    put(0, 0);
    ck_assert_uint_eq(b.T, 3);
    ck_assert_uint_eq(b.seg[0], 0);
    ck_assert_uint_eq(b.n_targets, 2);
    ck_assert_uint_eq(b.parts[0].first_target, 0);
}
END_TEST

START_TEST(a_plan_holds_every_row_once_within_the_budget)
{
    static const size_t n[] = {3, 9, 5, 5, 20, 2, 9};
    for (size_t i = 0; i < COUNT(n); i++)
        add_count(0, n[i]);
    struct mosld_batch_plan plan;
    ck_assert_int_eq(mosld_batch_plan_create(&x, 0, 14, &plan, &err), RT_OK);
    /* lengths 20 | 9 | 9 5 | 5 3 2, equal lengths in file order */
    const uint32_t order[] = {4, 1, 6, 2, 3, 0, 5}, first[] = {0, 1, 2, 4, 7};
    ck_assert_uint_eq(plan.n_batches, 4);
    ck_assert_mem_eq(plan.order, order, sizeof order);
    ck_assert_mem_eq(plan.first, first, sizeof first);
    mosld_batch_plan_finish(&plan);
    ck_assert_int_eq(mosld_batch_plan_create(&x, 2, 100, &plan, &err), RT_OK);
    ck_assert_uint_eq(plan.n_batches, 1);
    ck_assert_uint_eq(plan.first[1], 2);
    ck_assert_uint_eq(plan.order[0], 1);
    mosld_batch_plan_finish(&plan);
}
END_TEST

START_TEST(a_plan_of_nothing_is_empty)
{
    struct mosld_batch_plan plan;
    ck_assert_int_eq(mosld_batch_plan_create(&x, 0, 14, &plan, &err), RT_OK);
    ck_assert_uint_eq(plan.n_batches, 0);
    ck_assert_uint_eq(plan.first[0], 0);
    mosld_batch_plan_finish(&plan);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("data/batch");
    TCase *tc = tcase_create("batch");
    tcase_add_checked_fixture(tc, NULL, teardown);
    tcase_add_test(tc, two_rows_by_hand);
    tcase_add_test(tc, labels_that_differ_from_ids_are_kept);
    tcase_add_test(tc, a_question_by_hand);
    tcase_add_test(tc, a_question_of_letters_is_its_prompt);
    tcase_add_loop_test(tc, choices_see_what_they_would_see_alone, 0, 2);
    tcase_add_test(tc, rows_see_themselves_only);
    tcase_add_test(tc, a_cleared_batch_starts_again);
    tcase_add_test(tc, a_plan_holds_every_row_once_within_the_budget);
    tcase_add_test(tc, a_plan_of_nothing_is_empty);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
