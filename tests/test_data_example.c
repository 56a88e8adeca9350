/* tests/test_data_example.c - what each kind of record becomes, and which tokens bear loss, checked by hand: in the
 * tiny tokenizer a byte's id is its value, so that ids are written as characters. */
#include "mosld/data/example.h"
#include "mosld/text/chat.h"
#include "tests/support/tiny_tokenizer.h"

#include <check.h>
#include <cjson/cJSON.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NO       MOSLD_NO_LABEL
#define COUNT(a) (sizeof(a) / sizeof *(a))

static struct rt_error err;
static struct mosld_examples x;
static struct mosld_tokenizer *tokenizer;
static struct mosld_chat_template chatml;
static struct mosld_encoder encoder;
static size_t line;

static void open_tokenizer(int flags)
{
    mosld_tokenizer_close(tokenizer);
    tokenizer = tiny_tokenizer(flags);
    encoder = (struct mosld_encoder){.tokenizer = tokenizer, .vocab_size = TINY_VOCAB};
}

static void setup(void)
{
    open_tokenizer(0);
    ck_assert_int_eq(mosld_chat_template_by_name("chatml", &chatml, &err), RT_OK);
    line = 0;
}

static void teardown(void)
{
    mosld_examples_finish(&x);
    mosld_tokenizer_close(tokenizer);
    tokenizer = NULL;
    tiny_folder_remove();
}

static enum rt_status add(const char *text, const struct mosld_example_options *options)
{
    struct mosld_record record = {0};
    cJSON *json = cJSON_Parse(text);
    ck_assert_msg(json != NULL, "no JSON: %s", text);
    enum rt_status st = mosld_record_read(json, "rows.jsonl", ++line, &record, &err);
    ck_assert_msg(st == RT_OK, "%s", err.text);
    st = mosld_examples_add(&x, &encoder, options, &record, &err);
    mosld_record_finish(&record);
    cJSON_Delete(json);
    return st;
}

static void add_fine(const char *text, const struct mosld_example_options *options)
{
    enum rt_status st = add(text, options);
    ck_assert_msg(st == RT_OK, "%s: %s", text, err.text);
}

/* The last example is these ids and labels. */
static void expect(const int32_t *ids, const int32_t *labels, size_t n)
{
    ck_assert_uint_gt(x.n, 0);
    const struct mosld_example *e = &x.example[x.n - 1];
    uint32_t targets = 0;
    ck_assert_uint_eq(e->n_tokens, n);
    for (size_t i = 0; i < n; i++) {
        ck_assert_msg(x.tokens[e->first + i] == ids[i], "id %zu is %d, not %d", i, x.tokens[e->first + i], ids[i]);
        ck_assert_msg(x.labels[e->first + i] == labels[i], "label %zu is %d, not %d", i, x.labels[e->first + i],
                      labels[i]);
        targets += i > 0 && labels[i] != NO;
    }
    ck_assert_uint_eq(e->n_targets, targets);
    ck_assert_uint_eq(e->line, line);
    ck_assert_uint_eq(x.counts.records, line);
}
#define EXPECT(ids, labels) \
    do { \
        ck_assert_uint_eq(COUNT(ids), COUNT(labels)); \
        expect(ids, labels, COUNT(ids)); \
    } while (0)

/* The last example's text, up to where its targets begin and from there on. What follows the last byte is `end`. */
static void expect_text(const char *before, const char *target, int32_t end)
{
    const struct mosld_example *e = &x.example[x.n - 1];
    const int32_t *ids = x.tokens + e->first;
    char *text = NULL;
    size_t len = 0, begin = 0, n = e->n_tokens;
    if (end) {
        ck_assert_int_eq(ids[n - 1], end);
        ck_assert_int_eq(x.labels[e->first + n - 1], end);
        n--;
    }
    while (begin < n && x.labels[e->first + begin] == NO)
        begin++;
    for (size_t i = begin; i < n; i++)
        ck_assert_int_eq(x.labels[e->first + i], ids[i]);
    ck_assert_int_eq(mosld_tokenizer_decode(tokenizer, ids, begin, false, &text, &len, &err), RT_OK);
    ck_assert_str_eq(text, before);
    free(text);
    ck_assert_int_eq(mosld_tokenizer_decode(tokenizer, ids + begin, n - begin, false, &text, &len, &err), RT_OK);
    ck_assert_str_eq(text, target);
    free(text);
}

START_TEST(completion_ends_with_the_end_token)
{
    add_fine("{\"prompt\": \"ab\", \"completion\": \"c\"}", mosld_example_options());
    EXPECT(((int32_t[]){'a', 'b', 'c', TINY_END}), ((int32_t[]){NO, NO, 'c', TINY_END}));
}
END_TEST

START_TEST(a_beginning_token_goes_in_front)
{
    open_tokenizer(TINY_WITH_BEGIN);
    add_fine("{\"prompt\": \"ab\", \"completion\": \"c\"}", mosld_example_options());
    EXPECT(((int32_t[]){TINY_BEGIN, 'a', 'b', 'c', TINY_END}), ((int32_t[]){NO, NO, NO, 'c', TINY_END}));
    add_fine("{\"text\": \"ab\"}", mosld_example_options());
    EXPECT(((int32_t[]){TINY_BEGIN, 'a', 'b'}), ((int32_t[]){TINY_BEGIN, 'a', 'b'}));
    add_fine("{\"prompt\": \"\", \"completion\": \"c\"}", mosld_example_options());
    EXPECT(((int32_t[]){TINY_BEGIN, 'c', TINY_END}), ((int32_t[]){NO, 'c', TINY_END}));
}
END_TEST

START_TEST(spaces_at_the_end_of_a_prompt_move)
{
    add_fine("{\"prompt\": \"ab \", \"completion\": \"A\"}", mosld_example_options());
    EXPECT(((int32_t[]){'a', 'b', TINY_SPACE_A, TINY_END}), ((int32_t[]){NO, NO, TINY_SPACE_A, TINY_END}));
    add_fine("{\"prompt\": \"ab \", \"completion\": \"c\"}", mosld_example_options());
    EXPECT(((int32_t[]){'a', 'b', ' ', 'c', TINY_END}), ((int32_t[]){NO, NO, ' ', 'c', TINY_END}));
    add_fine("{\"prompt\": \"b\\n\", \"completion\": \"c\"}", mosld_example_options());
    EXPECT(((int32_t[]){'b', '\n', 'c', TINY_END}), ((int32_t[]){NO, NO, 'c', TINY_END}));
}
END_TEST

/* The prompt alone is a x, with its completion a xy: the token that spans the border is a target. */
START_TEST(a_token_across_the_border_is_a_target)
{
    add_fine("{\"prompt\": \"ax\", \"completion\": \"yb\"}", mosld_example_options());
    EXPECT(((int32_t[]){'a', TINY_XY, 'b', TINY_END}), ((int32_t[]){NO, TINY_XY, 'b', TINY_END}));
}
END_TEST

START_TEST(prompts_bear_loss_when_asked)
{
    add_fine("{\"prompt\": \"ab\", \"completion\": \"c\"}", mosld_example_options(.completion_only_loss = false));
    EXPECT(((int32_t[]){'a', 'b', 'c', TINY_END}), ((int32_t[]){'a', 'b', 'c', TINY_END}));
}
END_TEST

START_TEST(text_is_all_target_without_an_end)
{
    add_fine("{\"text\": \"abc\"}", mosld_example_options());
    EXPECT(((int32_t[]){'a', 'b', 'c'}), ((int32_t[]){'a', 'b', 'c'}));
    ck_assert_uint_eq(x.example[0].n_targets, 2);
}
END_TEST

START_TEST(special_tokens_in_plain_text_are_tokens)
{
    add_fine("{\"prompt\": \"a<|im_end|>\", \"completion\": \"b\"}", mosld_example_options());
    EXPECT(((int32_t[]){'a', TINY_IM_END, 'b', TINY_END}), ((int32_t[]){NO, NO, 'b', TINY_END}));
}
END_TEST

START_TEST(multiple_choice_trains_on_the_right_one)
{
    static const char row[] =
        "{\"question\": \"Why?\", \"context\": \"So.\", \"choices\": [\"no\", \"Ab\"], \"answer\": 1}";
    add_fine(row, mosld_example_options());
    expect_text("So.\nQuestion: Why?\nAnswer:", " Ab", 0);
    ck_assert_int_eq(x.tokens[x.n_tokens - 2], TINY_SPACE_A);
    ck_assert_uint_eq(x.example[0].n_choices, 0);
    add_fine(row, mosld_example_options(.choice_format = MOSLD_CHOICE_LETTER));
    expect_text("So.\nQuestion: Why?\nA. no\nB. Ab\nAnswer:", " B", 0);
}
END_TEST

START_TEST(instructions_take_the_alpaca_text_without_a_template)
{
    add_fine("{\"instruction\": \"do\", \"output\": \"done\"}", mosld_example_options());
    expect_text(
        "Below is an instruction that describes a task. Write a response that appropriately completes the request."
        "\n\n### Instruction:\ndo\n\n### Response:",
        "done", TINY_END);
    add_fine("{\"instruction\": \"do\", \"input\": \"it\", \"output\": \"done\"}", mosld_example_options());
    expect_text("Below is an instruction that describes a task, paired with an input that provides further context. "
                "Write a response that appropriately completes the request."
                "\n\n### Instruction:\ndo\n\n### Input:\nit\n\n### Response:",
                "done", TINY_END);
    add_fine("{\"instruction\": \"do\", \"input\": \"it\", \"output\": \"done\"}",
             mosld_example_options(.prompt_format = MOSLD_PROMPT_PLAIN));
    expect_text("do\nit\n", "done", TINY_END);
}
END_TEST

/* <|im_start|>user\nu<|im_end|>\n<|im_start|>assistant\na<|im_end|>\n: the answer and its end of turn are targets. */
static void expect_chat(void)
{
    const struct mosld_example *e = &x.example[x.n - 1];
    const int32_t *ids = x.tokens + e->first, *labels = x.labels + e->first;
    size_t at = 0;
    while (at < e->n_tokens && labels[at] == NO)
        at++;
    ck_assert_uint_lt(at + 1, e->n_tokens);
    ck_assert_uint_ge(at, 12);
    ck_assert_int_eq(ids[at - 1], '\n');
    ck_assert_int_eq(ids[at - 11], TINY_IM_START); /* then "assistant\n" */
    ck_assert_int_eq(ids[at], 'a');
    ck_assert_int_eq(labels[at], 'a');
    ck_assert_int_eq(labels[at + 1], TINY_IM_END);
    for (size_t i = at + 2; i < e->n_tokens; i++)
        ck_assert_msg(labels[i] == NO || ids[i] == '\n', "label %zu is %d", i, labels[i]);
}

START_TEST(answers_of_a_chat_bear_loss)
{
    encoder.chat = &chatml;
    add_fine(
        "{\"messages\": [{\"role\": \"user\", \"content\": \"u\"}, {\"role\": \"assistant\", \"content\": \"a\"}]}",
        mosld_example_options());
    expect_chat();
    add_fine("{\"instruction\": \"u\", \"output\": \"a\"}", mosld_example_options());
    expect_chat();
    ck_assert_uint_eq(x.example[0].n_tokens, x.example[1].n_tokens);
    add_fine("{\"prompt\": \"u\", \"completion\": \"a\"}", mosld_example_options(.prompt_format = MOSLD_PROMPT_CHAT));
    expect_chat();
    add_fine("{\"prompt\": \"u\", \"completion\": \"a\"}", mosld_example_options());
    EXPECT(((int32_t[]){'u', 'a', TINY_END}), ((int32_t[]){NO, 'a', TINY_END}));
}
END_TEST

START_TEST(every_turn_of_the_assistant_bears_loss)
{
    encoder.chat = &chatml;
    add_fine(
        "{\"messages\": [{\"role\": \"user\", \"content\": \"u\"}, {\"role\": \"assistant\", \"content\": \"pq\"}, "
        "{\"role\": \"user\", \"content\": \"v\"}, {\"role\": \"assistant\", \"content\": \"r\"}]}",
        mosld_example_options());
    int32_t said[8];
    size_t n = 0;
    for (size_t i = 0; i < x.n_tokens; i++)
        if (x.labels[i] != NO && x.labels[i] != '\n' && n < COUNT(said))
            said[n++] = x.labels[i];
    ck_assert_uint_eq(n, 5);
    const int32_t want[] = {'p', 'q', TINY_IM_END, 'r', TINY_IM_END};
    ck_assert_mem_eq(said, want, sizeof want);
}
END_TEST

START_TEST(a_chat_is_all_target_when_asked)
{
    static const char row[] =
        "{\"messages\": [{\"role\": \"user\", \"content\": \"u\"}, {\"role\": \"assistant\", \"content\": \"a\"}]}";
    encoder.chat = &chatml;
    add_fine(row, _i ? mosld_example_options(.assistant_only_loss = false)
                     : mosld_example_options(.completion_only_loss = false));
    ck_assert_uint_eq(x.example[0].n_targets, x.example[0].n_tokens - 1);
}
END_TEST

/* What a user writes must not be able to end a turn. */
START_TEST(special_tokens_in_messages_are_letters)
{
    encoder.chat = &chatml;
    add_fine("{\"messages\": [{\"role\": \"user\", \"content\": \"<|im_end|>\"}, "
             "{\"role\": \"assistant\", \"content\": \"a\"}]}",
             mosld_example_options());
    size_t ends = 0;
    for (size_t i = 0; i < x.n_tokens; i++)
        ends += x.tokens[i] == TINY_IM_END;
    ck_assert_uint_eq(ends, 2);
}
END_TEST

START_TEST(ids_and_labels_stay_as_they_are_and_need_no_tokenizer)
{
    encoder.tokenizer = NULL;
    add_fine("{\"input_ids\": [5, 6, 7]}", mosld_example_options());
    EXPECT(((int32_t[]){5, 6, 7}), ((int32_t[]){5, 6, 7}));
    add_fine("{\"input_ids\": [5, 6, 7], \"labels\": [-100, 9, -100]}", mosld_example_options());
    EXPECT(((int32_t[]){5, 6, 7}), ((int32_t[]){NO, 9, NO}));
}
END_TEST

START_TEST(long_rows_are_cut_and_counted)
{
    const struct mosld_example_options *three = mosld_example_options(.max_length = 3);
    add_fine("{\"prompt\": \"ab\", \"completion\": \"cd\"}", three);
    EXPECT(((int32_t[]){'a', 'b', 'c'}), ((int32_t[]){NO, NO, 'c'}));
    add_fine("{\"prompt\": \"abc\", \"completion\": \"d\"}", three); /* nothing is left to learn */
    add_fine("{\"input_ids\": [1, 2, 3], \"labels\": [7, -100, -100]}",
             three); /* nor here: nothing predicts the first */
    add_fine("{\"text\": \"ab\"}", three);
    ck_assert_uint_eq(x.n, 2);
    ck_assert_uint_eq(x.counts.records, 4);
    ck_assert_uint_eq(x.counts.truncated, 2);
    ck_assert_uint_eq(x.counts.skipped, 2);
    ck_assert_uint_eq(x.counts.skipped_line, 2);
    ck_assert_uint_eq(x.counts.tokens, 5);
    ck_assert_uint_eq(x.counts.targets, 2);
    ck_assert_uint_eq(x.counts.longest, 3);
}
END_TEST

/* Question for scoring */

#define SCORE(...) mosld_example_options(.score_choices = true, __VA_ARGS__)
static const char question[] = "{\"question\": \"q\", \"choices\": [\"Ab\", \"c\", \"\\u00e9!\"], \"answer\": 2}";
static const char prompt_text[] = "Question: q\nAnswer:";

static void expect_choice(size_t c, const int32_t *ids, const int32_t *labels, uint32_t n, uint32_t characters)
{
    const struct mosld_example *e = &x.example[x.n - 1];
    const struct mosld_choice *choice = &x.choice[e->first_choice + c];
    ck_assert_uint_eq(choice->n_tokens, n);
    ck_assert_uint_eq(choice->n_characters, characters);
    ck_assert_mem_eq(x.tokens + e->first + choice->first, ids, n * sizeof *ids);
    ck_assert_mem_eq(x.labels + e->first + choice->first, labels, n * sizeof *labels);
}

START_TEST(a_question_is_its_prompt_and_each_choice)
{
    add_fine("{\"text\": \"before\"}", mosld_example_options());
    add_fine(question, SCORE());
    const struct mosld_example *e = &x.example[1];
    ck_assert_uint_eq(e->n_choices, 3);
    ck_assert_uint_eq(e->answer, 2);
    ck_assert_uint_eq(e->n_prompt, strlen(prompt_text));
    for (size_t i = 0; i < e->n_prompt; i++) {
        ck_assert_int_eq(x.tokens[e->first + i], prompt_text[i]);
        ck_assert_int_eq(x.labels[e->first + i], NO);
    }
    const int32_t a[] = {TINY_SPACE_A, 'b'}, b[] = {' ', 'c'}, c[] = {' ', 0xc3, 0xa9, '!'};
    expect_choice(0, a, a, 2, 2);
    expect_choice(1, b, b, 2, 1);
    expect_choice(2, c, c, 4, 2);
    ck_assert_uint_eq(e->n_targets, 8);
    ck_assert_uint_eq(e->n_tokens, e->n_prompt + 8);
}
END_TEST

START_TEST(a_question_by_letter_scores_letters)
{
    add_fine(question, SCORE(.choice_format = MOSLD_CHOICE_LETTER));
    const int32_t a[] = {TINY_SPACE_A}, b[] = {' ', 'B'};
    expect_choice(0, a, a, 1, 1);
    expect_choice(1, b, b, 2, 1);
}
END_TEST

/* Without words ": A" is one token: the choices then share all of the prompt but its last token, which the others bring
 * along, unscored. */
START_TEST(a_token_across_prompt_and_choice_shortens_the_shared_prompt)
{
    open_tokenizer(TINY_WITHOUT_WORDS);
    add_fine(question, SCORE());
    ck_assert_uint_eq(x.example[0].n_prompt, strlen(prompt_text) - 1);
    const int32_t a[] = {TINY_COLON_SPACE_A, 'b'}, b[] = {':', ' ', 'c'}, b_labels[] = {NO, ' ', 'c'};
    expect_choice(0, a, a, 2, 2);
    expect_choice(1, b, b_labels, 3, 1);
    ck_assert_uint_eq(x.example[0].n_targets, 2 + 2 + 4);
}
END_TEST

START_TEST(a_long_question_loses_the_beginning_of_its_prompt)
{
    open_tokenizer(TINY_WITH_BEGIN);
    add_fine(question, SCORE(.max_length = 11));
    const struct mosld_example *e = &x.example[0];
    const int32_t want[] = {TINY_BEGIN, 'n', 's', 'w', 'e', 'r', ':'};
    ck_assert_uint_eq(e->n_prompt, COUNT(want)); /* 7 + 4 of the longest choice */
    ck_assert_mem_eq(x.tokens + e->first, want, sizeof want);
    ck_assert_uint_eq(x.choice[0].first, 7);
    ck_assert_uint_eq(x.counts.truncated, 1);
    add_fine(question, SCORE(.max_length = 5)); /* the beginning token alone would be left */
    ck_assert_uint_eq(x.n, 1);
    ck_assert_uint_eq(x.counts.skipped, 1);
    ck_assert_uint_eq(x.counts.truncated, 2);
}
END_TEST

START_TEST(a_question_that_just_fits_is_left_whole)
{
    const uint32_t whole = (uint32_t)strlen(prompt_text) + 4; /* with the longest choice */
    add_fine(question, SCORE(.max_length = whole));
    ck_assert_uint_eq(x.example[0].n_prompt, whole - 4);
    ck_assert_uint_eq(x.counts.truncated, 0);
    add_fine(question, SCORE(.max_length = whole - 1));
    ck_assert_uint_eq(x.example[1].n_prompt, whole - 5);
    ck_assert_int_eq(x.tokens[x.example[1].first], 'u');
    ck_assert_uint_eq(x.counts.truncated, 1);
}
END_TEST

START_TEST(rows_without_choices_are_plain_in_scoring_too)
{
    add_fine("{\"prompt\": \"ab\", \"completion\": \"c\"}", SCORE());
    EXPECT(((int32_t[]){'a', 'b', 'c', TINY_END}), ((int32_t[]){NO, NO, 'c', TINY_END}));
}
END_TEST

static const struct {
    const char *json, *says;
    enum mosld_prompt_format format;
    enum rt_status status;
    bool no_tokenizer;
} refused[] = {
    {"{\"text\": \"a\"}", "rows.jsonl: line 1: a text record needs a tokenizer", 0, RT_BAD_FILE, true},
    {"{\"input_ids\": [1, 263]}", "rows.jsonl: line 1: \"input_ids\": item 1 is 263, but", 0, RT_BAD_FILE, true},
    {"{\"input_ids\": [1, 2], \"labels\": [1, 300]}", "\"labels\": item 1 is 300", 0, RT_BAD_FILE, true},
    {"{\"messages\": [{\"role\": \"user\", \"content\": \"u\"}, {\"role\": \"assistant\", \"content\": \"a\"}]}",
     "line 1: messages need a chat template", 0, RT_BAD_FILE, false},
    {"{\"instruction\": \"u\", \"output\": \"a\"}", "--prompt-format chat", MOSLD_PROMPT_CHAT, RT_USAGE, false},
};

START_TEST(what_cannot_be_made_is_named)
{
    if (refused[_i].no_tokenizer)
        encoder.tokenizer = NULL;
    enum rt_status st = add(refused[_i].json, mosld_example_options(.prompt_format = refused[_i].format));
    ck_assert_int_eq(st, refused[_i].status);
    ck_assert_msg(strstr(err.text, refused[_i].says) != NULL, "%s", err.text);
    ck_assert_uint_eq(x.n, 0);
    ck_assert_uint_eq(x.counts.records, 0);
}
END_TEST

START_TEST(a_tokenizer_of_another_model_is_found_out)
{
    static const char *const rows[] = {"{\"prompt\": \"a\", \"completion\": \"b\"}", question};
    encoder.vocab_size = _i ? TINY_SPACE_A : TINY_END; /* the end token, or " A", is one too many */
    ck_assert_int_eq(add(rows[_i], SCORE()), RT_BAD_FILE);
    ck_assert_msg(strstr(err.text, _i ? "the id 256" : "the id 259") != NULL, "%s", err.text);
    ck_assert_uint_eq(x.n, 0);
}
END_TEST

START_TEST(a_template_that_refuses_is_named_with_its_line)
{
    encoder.chat = &chatml;
    ck_assert_int_eq(add("{\"messages\": [{\"role\": \"assistant\", \"content\": \"a\"}]}", mosld_example_options()),
                     RT_BAD_FILE);
    ck_assert_msg(strncmp(err.text, "rows.jsonl: line 1: ", 20) == 0, "%s", err.text);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("data/example");
    TCase *tc = tcase_create("example");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, completion_ends_with_the_end_token);
    tcase_add_test(tc, a_beginning_token_goes_in_front);
    tcase_add_test(tc, spaces_at_the_end_of_a_prompt_move);
    tcase_add_test(tc, a_token_across_the_border_is_a_target);
    tcase_add_test(tc, prompts_bear_loss_when_asked);
    tcase_add_test(tc, text_is_all_target_without_an_end);
    tcase_add_test(tc, special_tokens_in_plain_text_are_tokens);
    tcase_add_test(tc, multiple_choice_trains_on_the_right_one);
    tcase_add_test(tc, instructions_take_the_alpaca_text_without_a_template);
    tcase_add_test(tc, answers_of_a_chat_bear_loss);
    tcase_add_test(tc, every_turn_of_the_assistant_bears_loss);
    tcase_add_loop_test(tc, a_chat_is_all_target_when_asked, 0, 2);
    tcase_add_test(tc, special_tokens_in_messages_are_letters);
    tcase_add_test(tc, ids_and_labels_stay_as_they_are_and_need_no_tokenizer);
    tcase_add_test(tc, long_rows_are_cut_and_counted);
    tcase_add_test(tc, a_question_is_its_prompt_and_each_choice);
    tcase_add_test(tc, a_question_by_letter_scores_letters);
    tcase_add_test(tc, a_token_across_prompt_and_choice_shortens_the_shared_prompt);
    tcase_add_test(tc, a_long_question_loses_the_beginning_of_its_prompt);
    tcase_add_test(tc, a_question_that_just_fits_is_left_whole);
    tcase_add_test(tc, rows_without_choices_are_plain_in_scoring_too);
    tcase_add_loop_test(tc, what_cannot_be_made_is_named, 0, COUNT(refused));
    tcase_add_loop_test(tc, a_tokenizer_of_another_model_is_found_out, 0, 2);
    tcase_add_test(tc, a_template_that_refuses_is_named_with_its_line);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
