/* tests/test_data_record.c - records of every kind, and each way in which one can be bad. */
#include "mosld/data/record.h"

#include <check.h>
#include <cjson/cJSON.h>
#include <stdio.h>
#include <string.h>

static struct rt_error err;
static struct mosld_record r;
static cJSON *json;

static enum rt_status read(const char *text)
{
    cJSON_Delete(json);
    json = cJSON_Parse(text);
    ck_assert_msg(json != NULL, "no JSON: %s", text);
    return mosld_record_read(json, "rows.jsonl", 7, &r, &err);
}

static void good(const char *text, enum mosld_record_kind kind)
{
    enum rt_status st = read(text);
    ck_assert_msg(st == RT_OK, "%s: %s", text, err.text);
    ck_assert_int_eq(r.kind, kind);
    ck_assert_uint_eq(r.line, 7);
}

static void teardown(void)
{
    mosld_record_finish(&r);
    cJSON_Delete(json);
    json = NULL;
}

START_TEST(instruction)
{
    good("{\"instruction\": \"do\", \"input\": \"this\", \"output\": \"done\", \"id\": 1}", MOSLD_RECORD_INSTRUCTION);
    ck_assert_str_eq(r.instruction, "do");
    ck_assert_str_eq(r.input, "this");
    ck_assert_str_eq(r.output, "done");
}
END_TEST

START_TEST(instruction_without_input)
{
    static const char *const texts[] = {"{\"instruction\": \"do\", \"output\": \"\"}",
                                        "{\"instruction\": \"do\", \"input\": \"\", \"output\": \"\"}",
                                        "{\"instruction\": \"do\", \"input\": null, \"output\": \"\"}"};
    good(texts[_i], MOSLD_RECORD_INSTRUCTION);
    ck_assert_ptr_null(r.input);
    ck_assert_str_eq(r.output, "");
}
END_TEST

START_TEST(completion_and_text)
{
    good("{\"prompt\": \"a\", \"completion\": \"b\", \"text\": \"no\"}", MOSLD_RECORD_COMPLETION);
    ck_assert_str_eq(r.prompt, "a");
    ck_assert_str_eq(r.completion, "b");
    good("{\"text\": \"\\u00e9\"}", MOSLD_RECORD_TEXT);
    ck_assert_str_eq(r.text, "\xc3\xa9");
}
END_TEST

START_TEST(messages)
{
    good("{\"messages\": [{\"role\": \"system\", \"content\": \"s\"}, {\"role\": \"user\", \"content\": \"u\"}, "
         "{\"role\": \"assistant\", \"content\": \"a\", \"tool_calls\": null}]}",
         MOSLD_RECORD_MESSAGES);
    ck_assert_uint_eq(r.n_messages, 3);
    ck_assert_str_eq(r.messages[0].role, "system");
    ck_assert_str_eq(r.messages[2].role, "assistant");
    ck_assert_str_eq(r.messages[2].content, "a");
}
END_TEST

START_TEST(sharegpt)
{
    good("{\"conversations\": [{\"from\": \"human\", \"value\": \"u\"}, {\"from\": \"gpt\", \"value\": \"a\"}]}",
         MOSLD_RECORD_MESSAGES);
    ck_assert_str_eq(r.messages[0].role, "user");
    ck_assert_str_eq(r.messages[1].role, "assistant");
    ck_assert_str_eq(r.messages[1].content, "a");
}
END_TEST

static const struct {
    const char *answer;
    size_t index;
} answers[] = {{"0", 0}, {"2", 2}, {"2.0", 2}, {"\"A\"", 0}, {"\"c\"", 2}};

START_TEST(multiple_choice)
{
    char text[256];
    snprintf(text, sizeof text,
             "{\"id\": \"x\", \"question\": \"q\", \"context\": \"c\", \"choices\": [\"k\", \"l\", \"l\"], "
             "\"answer\": %s}",
             answers[_i].answer);
    good(text, MOSLD_RECORD_CHOICE);
    ck_assert_str_eq(r.question, "q");
    ck_assert_str_eq(r.context, "c");
    ck_assert_uint_eq(r.n_choices, 3);
    ck_assert_str_eq(r.choices[1], "l");
    ck_assert_uint_eq(r.answer, answers[_i].index);
}
END_TEST

START_TEST(tokens)
{
    good("{\"input_ids\": [3, 1, 4]}", MOSLD_RECORD_TOKENS);
    ck_assert_uint_eq(r.n_ids, 3);
    ck_assert_int_eq(r.ids[2], 4);
    ck_assert_ptr_null(r.labels);
    mosld_record_finish(&r);
    good("{\"input_ids\": [3, 1], \"labels\": [-100, 9]}", MOSLD_RECORD_TOKENS);
    ck_assert_int_eq(r.labels[0], MOSLD_NO_LABEL);
    ck_assert_int_eq(r.labels[1], 9);
}
END_TEST

#define CHOICE(choices, answer) "{\"question\": \"q\", \"choices\": " choices ", \"answer\": " answer "}"
#define MESSAGES(list)          "{\"messages\": " list "}"
#define USER                    "{\"role\": \"user\", \"content\": \"u\"}"

static const struct {
    const char *json, *says;
} bad[] = {
    {"[1]", "the record is a list, must be an object"},
    {"\"text\"", "the record is a string"},
    {"{}", "none of the keys"},
    {"{\"txt\": \"x\"}", "none of the keys"},
    {"{\"text\": null}", "none of the keys"},
    {"{\"text\": 5}", "\"text\" is a number, must be a string"},
    {"{\"prompt\": \"x\"}", "\"completion\" is missing"},
    {"{\"completion\": \"x\"}", "\"prompt\" is missing"},
    {"{\"prompt\": [\"x\"], \"completion\": \"y\"}", "\"prompt\" is a list, must be a string"},
    {"{\"instruction\": \"x\"}", "\"output\" is missing"},
    {"{\"instruction\": \"x\", \"output\": {}}", "\"output\" is an object"},
    {"{\"instruction\": \"x\", \"input\": true, \"output\": \"y\"}", "\"input\" is true or false"},
    {MESSAGES("[]"), "\"messages\" is empty"},
    {MESSAGES("\"hello\""), "\"messages\" is a string, must be a list"},
    {MESSAGES("[\"hello\"]"), "message 1 is a string, must be an object"},
    {MESSAGES("[" USER "]"), "no turn of the assistant"},
    {MESSAGES("[" USER ", {\"role\": \"tool\", \"content\": \"x\"}]"), "message 2: the role \"tool\" is not supported"},
    {MESSAGES("[" USER ", {\"role\": \"gpt\", \"content\": \"x\"}]"), "the role \"gpt\" is not supported"},
    {MESSAGES("[" USER ", {\"role\": \"assistant\"}]"), "message 2: \"content\" is missing"},
    {MESSAGES("[" USER ", {\"role\": \"assistant\", \"content\": [\"x\"]}]"), "message 2: \"content\" is a list"},
    {MESSAGES("[" USER ", {\"content\": \"x\"}]"), "message 2: \"role\" is missing"},
    {MESSAGES("[{\"role\": \"assistant\", \"content\": null, \"tool_calls\": []}]"), "message 1 has tool_calls"},
    {"{\"conversations\": [{\"from\": \"human\", \"value\": \"x\"}]}",
     "\"conversations\" has no turn of the assistant"},
    {"{\"conversations\": [{\"from\": \"tool\", \"value\": \"x\"}]}", "the role \"tool\" is not supported"},
    {"{\"question\": \"q\", \"answer\": 0}", "\"choices\" is missing"},
    {"{\"choices\": [\"a\", \"b\"], \"answer\": 0}", "\"question\" is missing"},
    {"{\"question\": \"q\", \"choices\": [\"a\", \"b\"]}", "\"answer\" is missing"},
    {CHOICE("{\"A\": \"a\"}", "0"), "\"choices\" is an object, must be a list"},
    {CHOICE("[\"a\"]", "0"), "there are 1 choices"},
    {CHOICE("[]", "0"), "there are 0 choices"},
    {CHOICE("[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1]", "0"), "there are 27 choices"},
    {CHOICE("[\"a\", 2]", "0"), "choice 1 is a number, must be a string"},
    {CHOICE("[\"a\", \"\"]", "0"), "choice 1 is empty"},
    {CHOICE("[\"a\", \"b\"]", "2"), "\"answer\" is 2, must be an index from 0 to 1"},
    {CHOICE("[\"a\", \"b\"]", "-1"), "\"answer\" is -1"},
    {CHOICE("[\"a\", \"b\"]", "0.5"), "\"answer\" is 0.5"},
    {CHOICE("[\"a\", \"b\"]", "1e400"), "\"answer\" is inf"},
    {CHOICE("[\"a\", \"b\"]", "\"C\""), "\"answer\" is \"C\", must be a letter from A to B"},
    {CHOICE("[\"a\", \"b\"]", "\"AB\""), "\"answer\" is \"AB\""},
    {CHOICE("[\"a\", \"b\"]", "\"\""), "\"answer\" is \"\""},
    {CHOICE("[\"a\", \"b\"]", "\"1\""), "\"answer\" is \"1\""},
    {CHOICE("[\"a\", \"b\"]", "[0]"), "\"answer\" is a list"},
    {"{\"input_ids\": []}", "\"input_ids\" is empty"},
    {"{\"input_ids\": 3}", "\"input_ids\" is a number, must be a list"},
    {"{\"input_ids\": [1, -1]}", "\"input_ids\": item 1 is no token id"},
    {"{\"input_ids\": [1, -100]}", "\"input_ids\": item 1 is no token id"},
    {"{\"input_ids\": [1.5]}", "item 0 is no token id"},
    {"{\"input_ids\": [1e400]}", "item 0 is no token id"},
    {"{\"input_ids\": [2147483648]}", "item 0 is no token id"},
    {"{\"input_ids\": [\"1\"]}", "item 0 is no token id"},
    {"{\"input_ids\": [1, 2], \"labels\": [1]}", "1 labels for 2 input_ids"},
    {"{\"input_ids\": [1, 2], \"labels\": [1, -1]}", "\"labels\": item 1 is no token id, nor -100"},
    {"{\"input_ids\": [1, 2], \"labels\": 1}", "\"labels\" is a number, must be a list"},
};

START_TEST(bad_records_are_named_by_file_and_line)
{
    enum rt_status st = read(bad[_i].json);
    ck_assert_msg(st == RT_BAD_FILE, "%s: status %d", bad[_i].json, st);
    ck_assert_msg(strncmp(err.text, "rows.jsonl: line 7: ", 20) == 0, "%s", err.text);
    ck_assert_msg(strstr(err.text, bad[_i].says) != NULL, "%s: not '%s' but: %s", bad[_i].json, bad[_i].says, err.text);
    ck_assert_ptr_null(r.messages);
    ck_assert_ptr_null(r.ids);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("data/record");
    TCase *tc = tcase_create("record");
    tcase_add_checked_fixture(tc, NULL, teardown);
    tcase_add_test(tc, instruction);
    tcase_add_loop_test(tc, instruction_without_input, 0, 3);
    tcase_add_test(tc, completion_and_text);
    tcase_add_test(tc, messages);
    tcase_add_test(tc, sharegpt);
    tcase_add_loop_test(tc, multiple_choice, 0, sizeof answers / sizeof *answers);
    tcase_add_test(tc, tokens);
    tcase_add_loop_test(tc, bad_records_are_named_by_file_and_line, 0, sizeof bad / sizeof *bad);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
