/* tests/test_data_task.c - tasks from the command line and from files: good, odd and bad ones, and the three that ship.
 */
#include "mosld/data/task.h"
#include "tests/support/tiny_tokenizer.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define COUNT(a) (sizeof(a) / sizeof *(a))

static struct rt_error err;
static struct mosld_tokenizer *tokenizer;
static struct mosld_task task;

static void setup(void)
{
    tokenizer = tiny_tokenizer(0);
}

static void teardown(void)
{
    mosld_task_finish(&task);
    mosld_tokenizer_close(tokenizer);
    tiny_folder_remove();
}

static struct mosld_task_params params(void)
{
    return (struct mosld_task_params){.encoder = {.tokenizer = tokenizer, .vocab_size = TINY_VOCAB},
                                      .example = *mosld_example_options()};
}

static enum rt_status load_with(const char *path, const struct mosld_task_params *p)
{
    struct mosld_task_spec spec = {.name = "t", .path = (char *)path, .weight = 1};
    mosld_task_finish(&task);
    return mosld_task_load(&spec, p, &task, &err);
}

static enum rt_status load(const char *path)
{
    struct mosld_task_params p = params();
    return load_with(path, &p);
}

static void load_fine(const char *text, size_t n)
{
    enum rt_status st = load(tiny_file("rows.jsonl", text));
    ck_assert_msg(st == RT_OK, "%s", err.text);
    ck_assert_uint_eq(task.examples.n, n);
}

/* Specs */

static const struct {
    const char *text, *name, *path;
    double weight;
    bool weighted;
} specs[] = {
    {"arc=rows.jsonl", "arc", "rows.jsonl", 1, false},
    {"arc=rows.jsonl:2.5", "arc", "rows.jsonl", 2.5, true},
    {"a.b-c_1=/x/y=z.jsonl:1", "a.b-c_1", "/x/y=z.jsonl", 1, true},
    {"arc=C:rows", "arc", "C:rows", 1, false},
    {"arc=a:b:0.5", "arc", "a:b", 0.5, true},
    {"arc=rows:", "arc", "rows:", 1, false},
};

START_TEST(specs_are_taken_apart)
{
    struct mosld_task_spec spec;
    ck_assert_int_eq(mosld_task_spec_parse(specs[_i].text, &spec, &err), RT_OK);
    ck_assert_str_eq(spec.name, specs[_i].name);
    ck_assert_str_eq(spec.path, specs[_i].path);
    ck_assert_double_eq(spec.weight, specs[_i].weight);
    ck_assert_int_eq(spec.weighted, specs[_i].weighted);
    mosld_task_spec_finish(&spec);
}
END_TEST

START_TEST(a_file_whose_name_ends_like_a_weight_is_a_file)
{
    char text[700];
    struct mosld_task_spec spec;
    snprintf(text, sizeof text, "t=%s", tiny_file("rows:2", "{\"text\": \"ab\"}"));
    ck_assert_int_eq(mosld_task_spec_parse(text, &spec, &err), RT_OK);
    ck_assert_str_eq(spec.path, text + 2);
    ck_assert(!spec.weighted);
    mosld_task_spec_finish(&spec);
}
END_TEST

static const char *const bad_specs[] = {"rows.jsonl", "arc=",        "=rows.jsonl",   "a b=rows",     "a/b=rows",
                                        "arc=rows:0", "arc=rows:-1", "arc=rows:1001", "arc=rows:nan", ""};

START_TEST(bad_specs_are_usage)
{
    struct mosld_task_spec spec;
    ck_assert_int_eq(mosld_task_spec_parse(bad_specs[_i], &spec, &err), RT_USAGE);
    ck_assert_ptr_nonnull(strstr(err.text, bad_specs[_i]));
}
END_TEST

/* Files */

START_TEST(odd_files_are_fine)
{
    load_fine("\xef\xbb\xbf{\"text\": \"ab\"}\r\n\r\n  \n{\"text\": \"cd\"}", 2);
    ck_assert_uint_eq(task.examples.example[1].line, 4);
    load_fine("[{\"text\": \"ab\"},\n {\"text\": \"cd\"},\n {\"text\": \"ab\"}]\n", 3);
    ck_assert_uint_eq(task.examples.example[1].line, 2);
    ck_assert_str_eq(task.name, "t");
    ck_assert_uint_eq(task.examples.counts.tokens, 6);
    ck_assert_uint_eq(task.examples.counts.targets, 3);
}
END_TEST

START_TEST(kinds_may_be_mixed_in_a_file)
{
    load_fine("{\"text\": \"ab\"}\n{\"prompt\": \"a\", \"completion\": \"b\"}\n{\"input_ids\": [1, 2]}\n"
              "{\"question\": \"q\", \"choices\": [\"a\", \"b\"], \"answer\": \"B\"}\n",
              4);
}
END_TEST

START_TEST(a_limit_reads_no_further)
{
    struct mosld_task_params p = params();
    p.limit = 2;
    const char *path = tiny_file("rows.jsonl", "{\"text\": \"ab\"}\n{\"text\": \"cd\"}\n{broken\n");
    ck_assert_int_eq(load_with(path, &p), RT_OK);
    ck_assert_uint_eq(task.examples.n, 2);
    ck_assert_int_eq(load(path), RT_BAD_FILE);
}
END_TEST

START_TEST(a_folder_gives_the_file_of_its_split)
{
    struct mosld_task_params p = params();
    tiny_file("train.jsonl", "{\"text\": \"ab\"}\n{\"text\": \"ab\"}\n");
    tiny_file("valid.jsonl", "{\"text\": \"ab\"}\n");
    ck_assert_int_eq(load_with(tiny_folder(), &p), RT_OK);
    ck_assert_uint_eq(task.examples.n, 2);
    p.split = MOSLD_SPLIT_VALIDATION;
    ck_assert_int_eq(load_with(tiny_folder(), &p), RT_OK);
    ck_assert_uint_eq(task.examples.n, 1);
    ck_assert_ptr_nonnull(strstr(task.path, "/valid.jsonl"));
}
END_TEST

static const struct {
    const char *text, *says;
} bad_files[] = {
    {"", "the file has no records"},
    {"\n\n", "the file has no records"},
    {"[]", "the file has no records"},
    {"{\"text\": \"ab\"}\n{\"text\": \n", "line 2"},
    {"{\"text\": \"ab\"}\n\n5\n", "line 3"},
    {"{\"text\": \"ab\"}\n{\"txt\": \"ab\"}\n", "line 2: the record has none of the keys"},
    {"{\"text\": \"a\\u0000b\"}\n", "line 1"},
    {"{\"text\": \"a\xff\"}\n", "line 1"},
    {"{\"text\": \"\"}\n{\"text\": \"a\"}\n", "none of the 2 records has anything to learn or score"},
    {"{\"text\": \"ab\"}\n{\"messages\": []}\n", "line 2: \"messages\" is empty"},
};

START_TEST(bad_files_are_named)
{
    const char *path = tiny_file("rows.jsonl", bad_files[_i].text);
    ck_assert_int_eq(load(path), RT_BAD_FILE);
    ck_assert_msg(strncmp(err.text, path, strlen(path)) == 0 && strstr(err.text, bad_files[_i].says), "%s", err.text);
    ck_assert_ptr_null(task.name);
}
END_TEST

START_TEST(missing_files_and_folders_are_named)
{
    char path[600];
    snprintf(path, sizeof path, "%s/none.jsonl", tiny_folder());
    ck_assert_int_eq(load(path), RT_BAD_FILE);
    ck_assert_ptr_nonnull(strstr(err.text, "none.jsonl"));
    ck_assert_int_eq(load(tiny_folder()), RT_BAD_FILE);
    ck_assert_ptr_nonnull(strstr(err.text, "the folder has no train.jsonl"));
    ck_assert_int_eq(load("/dev/zero"), RT_BAD_FILE);
}
END_TEST

START_TEST(what_was_cut_and_left_out_is_said)
{
    struct mosld_task_params p = params();
    char text[256];
    p.example.max_length = 3;
    const char *path =
        tiny_file("rows.jsonl",
                  "{\"text\": \"abcd\"}\n{\"prompt\": \"abc\", \"completion\": \"d\"}\n{\"text\": \"a\"}\n");
    ck_assert_int_eq(load_with(path, &p), RT_OK);
    ck_assert(mosld_task_describe_losses(&task, 3, text, sizeof text));
    ck_assert_str_eq(
        text, "t: 2 of 3 records were cut to 3 tokens; 2 records with nothing to learn or score were left out, the "
              "first on line 2");
    ck_assert(mosld_task_describe_losses(&task, 3, text, 20));
    ck_assert_uint_eq(strlen(text), 19);
    load_fine("{\"text\": \"ab\"}\n", 1);
    ck_assert(!mosld_task_describe_losses(&task, 3, text, sizeof text));
    p.example.max_length = 2;
    ck_assert_int_eq(load_with(tiny_file("rows.jsonl", "{\"prompt\": \"abc\", \"completion\": \"d\"}"), &p),
                     RT_BAD_FILE);
    ck_assert_ptr_nonnull(strstr(err.text, "within 2 tokens; a larger --max-length may help"));
}
END_TEST

/* What ships must load whole, in both forms. */
static const struct {
    const char *name;
    size_t train, validation;
    bool choices;
} shipped[] = {{"arc-easy", 2251, 570, true}, {"arc-challenge", 1119, 299, true}, {"gsm8k", 6973, 500, false}};

START_TEST(the_tasks_that_ship_load)
{
    char path[1024];
    struct mosld_task_params p = params();
    snprintf(path, sizeof path, "%s/data/%s", MOSLD_SOURCE_DIR, shipped[_i].name);
    enum rt_status st = load_with(path, &p);
    ck_assert_msg(st == RT_OK, "%s", err.text);
    ck_assert_uint_eq(task.examples.n, shipped[_i].train);
    p.split = MOSLD_SPLIT_VALIDATION;
    p.example.score_choices = true;
    st = load_with(path, &p);
    ck_assert_msg(st == RT_OK, "%s", err.text);
    ck_assert_uint_eq(task.examples.n, shipped[_i].validation);
    ck_assert_uint_eq(task.examples.counts.skipped, 0);
    for (size_t i = 0; i < task.examples.n; i++) {
        const struct mosld_example *e = &task.examples.example[i];
        ck_assert(shipped[_i].choices ? e->n_choices >= 3 && e->n_choices <= 5 && e->answer < e->n_choices
                                      : e->n_choices == 0);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("data/task");
    TCase *tc = tcase_create("task");
    tcase_set_timeout(tc, 120);
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_loop_test(tc, specs_are_taken_apart, 0, COUNT(specs));
    tcase_add_test(tc, a_file_whose_name_ends_like_a_weight_is_a_file);
    tcase_add_loop_test(tc, bad_specs_are_usage, 0, COUNT(bad_specs));
    tcase_add_test(tc, odd_files_are_fine);
    tcase_add_test(tc, kinds_may_be_mixed_in_a_file);
    tcase_add_test(tc, a_limit_reads_no_further);
    tcase_add_test(tc, a_folder_gives_the_file_of_its_split);
    tcase_add_loop_test(tc, bad_files_are_named, 0, COUNT(bad_files));
    tcase_add_test(tc, missing_files_and_folders_are_named);
    tcase_add_test(tc, what_was_cut_and_left_out_is_said);
    tcase_add_loop_test(tc, the_tasks_that_ship_load, 0, COUNT(shipped));
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
