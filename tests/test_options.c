/* tests/test_options.c - the command line, config files, --help and the effective configuration of tools/options.h. */
#include "tools/options.h"

#include <check.h>
#include <cjson/cJSON.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum method { LORA, MOSLD };

struct values {
    char *out, *note;
    double learning_rate;
    float dropout;
    int64_t seed;
    uint32_t rows;
    bool packing, verbose;
    enum method method;
    struct option_list task, targets;
    struct option_ints experts;
    char *secret;
};

static const char *const methods[] = {"lora", "mosld", NULL};
static const struct option table[] = {
    {.name = "out",
     OPTION_STRING(struct values, out),
     .value = "DIR",
     .required = true,
     .help = "where the run is written",
     .section = "Files"},
    {.name = "note", OPTION_STRING(struct values, note), .help = "a remark"},
    {.name = "config", OPTION_CONFIG, .help = "options as a JSON object"},
    {.name = "secret", OPTION_STRING(struct values, secret), .command_line_only = true},
    {.name = "learning_rate",
     OPTION_REAL(struct values, learning_rate, 0, 1),
     .section = "Training",
     .help = "the largest step that the optimizer takes, after warming up and before the schedule lowers it"},
    {.name = "dropout",
     OPTION_REAL(struct values, dropout, 0, 0.99),
     .alias = "lora_dropout",
     .help = "share left out"},
    {.name = "seed", OPTION_INT(struct values, seed, 0, OPTION_INT_MAX), .help = "same seed, same bits"},
    {.name = "per_device_train_batch_size", OPTION_INT(struct values, rows, 1, UINT32_MAX), .help = "rows"},
    {.name = "packing", OPTION_BOOL(struct values, packing), .help = "rows share a pass"},
    {.name = "verbose", OPTION_BOOL(struct values, verbose), .help = "say more"},
    {.name = "method", OPTION_CHOICE(struct values, method, methods), .help = "the adapter"},
    {.name = "task", OPTION_STRINGS(struct values, task), .value = "NAME=FILE", .help = "may be given again"},
    {.name = "target_modules", OPTION_STRINGS(struct values, targets), .commas = true, .help = "modules"},
    {.name = "num_experts", OPTION_INTS(struct values, experts, 1, 64), .help = "one, or a list"},
};
enum { N = sizeof table / sizeof *table };

static struct values v;
static struct options o;
static struct rt_error err;

static void setup(void)
{
    static char *default_targets[] = {"q_proj", "v_proj"};
    v = (struct values){.learning_rate = 3e-4,
                        .dropout = 0.1f,
                        .seed = 42,
                        .rows = 8,
                        .verbose = true,
                        .method = MOSLD,
                        .note = "literal",
                        .targets = {2, default_targets}};
    ck_assert_int_eq(options_init(&o, "mosld train [options]", table, N, &v, &err), RT_OK);
}

static void teardown(void)
{
    options_finish(&o);
}

#define PARSE(...) parse((char *[]){"train", __VA_ARGS__, NULL})
static enum rt_status parse(char **argv)
{
    int argc = 0;
    while (argv[argc])
        argc++;
    return options_parse(&o, argc, argv, &err);
}

/* A config file with this text; its name lasts until the next call. */
static char *config_file(const char *text)
{
    static char path[64];
    snprintf(path, sizeof path, "/tmp/mosld-options-%d.json", (int)getpid());
    FILE *f = fopen(path, "w");
    ck_assert_ptr_nonnull(f);
    ck_assert_uint_eq(fwrite(text, 1, strlen(text), f), strlen(text));
    ck_assert_int_eq(fclose(f), 0);
    return path;
}

#define FAILS(status, says, call) \
    do { \
        ck_assert_int_eq((call), (status)); \
        ck_assert_msg(strstr(err.text, says) != NULL, "'%s' is not in: %s", says, err.text); \
    } while (0)

START_TEST(every_spelling_and_type)
{
    ck_assert_int_eq(PARSE("--out", "dir", "--learning-rate=1e-3", "--lora_dropout", "0.5", "--seed",
                           "9007199254740992", "--per-device_train-batch_size", "4294967295", "--packing",
                           "--no-verbose", "--method=lora", "--task", "a=x,y", "--task=b=z:2", "--target-modules",
                           "k_proj,o_proj", "--num-experts", "8,6,4,2"),
                     RT_OK);
    ck_assert_str_eq(v.out, "dir");
    ck_assert_double_eq(v.learning_rate, 1e-3);
    ck_assert_float_eq(v.dropout, 0.5f);
    ck_assert_int_eq(v.seed, OPTION_INT_MAX);
    ck_assert_uint_eq(v.rows, UINT32_MAX);
    ck_assert(v.packing && !v.verbose);
    ck_assert_int_eq(v.method, LORA);
    ck_assert_uint_eq(v.task.n, 2);
    ck_assert_str_eq(v.task.item[0], "a=x,y");
    ck_assert_str_eq(v.task.item[1], "b=z:2");
    ck_assert_uint_eq(v.targets.n, 2);
    ck_assert_str_eq(v.targets.item[1], "o_proj");
    ck_assert_uint_eq(v.experts.n, 4);
    ck_assert_int_eq(v.experts.item[3], 2);
    ck_assert(options_given(&o, "dropout") && !options_given(&o, "note"));
    ck_assert_str_eq(v.note, "literal");
}
END_TEST

START_TEST(a_bool_takes_the_word_after_it_only_if_it_is_one)
{
    o.max_arguments = 2;
    ck_assert_int_eq(PARSE("--out=d", "--packing", "true", "--verbose", "false", "one", "--packing", "two"), RT_OK);
    ck_assert(v.packing && !v.verbose);
    ck_assert_uint_eq(o.arguments.n, 2);
    ck_assert_str_eq(o.arguments.item[1], "two");
}
END_TEST

START_TEST(later_mentions_win_and_lists_grow)
{
    ck_assert_int_eq(PARSE("--out=a", "--out=b", "--num-experts=2", "--num-experts", "4"), RT_OK);
    ck_assert_str_eq(v.out, "b");
    ck_assert_uint_eq(v.experts.n, 2);
}
END_TEST

START_TEST(two_dashes_end_the_options)
{
    o.max_arguments = 1;
    ck_assert_int_eq(PARSE("--out=d", "--", "--packing"), RT_OK);
    ck_assert_str_eq(o.arguments.item[0], "--packing");
    ck_assert(!v.packing);
}
END_TEST

START_TEST(wrong_command_lines_are_named)
{
    FAILS(RT_USAGE, "--learning-rate may be meant", PARSE("--out=d", "--lerning-rate", "1"));
    FAILS(RT_USAGE, "there is no option --zzzzzzzzzz; --help", PARSE("--out=d", "--zzzzzzzzzz"));
    FAILS(RT_USAGE, "there is no option --no-out", PARSE("--no-out"));
    FAILS(RT_USAGE, "--learning-rate needs a value", PARSE("--out=d", "--learning-rate"));
    FAILS(RT_USAGE, "--learning-rate: 2 is out of range: give a number from 0 to 1", PARSE("--learning-rate", "2"));
    FAILS(RT_USAGE, "--learning-rate: 'nix' is no number", PARSE("--learning-rate", "nix"));
    FAILS(RT_USAGE, "--learning-rate: nan is out of range", PARSE("--learning-rate", "nan"));
    FAILS(RT_USAGE, "--seed: '1.5' is no whole number", PARSE("--seed", "1.5"));
    FAILS(RT_USAGE, "--seed: '' is no whole number", PARSE("--seed="));
    FAILS(RT_USAGE, "--seed: -1 is out of range: give a whole number from 0 on", PARSE("--seed=-1"));
    FAILS(RT_USAGE, "--seed: '99999999999999999999' is no whole number", PARSE("--seed=99999999999999999999"));
    FAILS(RT_USAGE, "--packing: 'maybe' is neither true nor false", PARSE("--packing=maybe"));
    FAILS(RT_USAGE, "--method: 'full' is not one of: lora, mosld", PARSE("--method", "full"));
    FAILS(RT_USAGE, "--num-experts: '' is no whole number", PARSE("--num-experts=4,"));
    FAILS(RT_USAGE, "--num-experts: 65 is out of range: give a whole number from 1 to 64", PARSE("--num-experts=4,65"));
    FAILS(RT_USAGE, "--target-modules: an empty value", PARSE("--target-modules=a,,b"));
    FAILS(RT_USAGE, "'stray' is too much", PARSE("--out=d", "stray"));
}
END_TEST

START_TEST(what_is_required_is_asked_for)
{
    FAILS(RT_USAGE, "--out is missing: where the run is written", PARSE("--packing"));
}
END_TEST

START_TEST(help_comes_before_faults)
{
    ck_assert_int_eq(PARSE("--help"), RT_OK);
    ck_assert(o.help);
}
END_TEST

START_TEST(a_config_file_sets_what_the_command_line_does_not)
{
    char *path =
        config_file("{\"out\": \"from-file\", \"learning_rate\": 0.25, \"task\": [\"c=1\", \"d=2\"], \"seed\": 7, "
                    "\"num_experts\": 4, \"packing\": true, \"method\": \"lora\", \"note\": null, "
                    "\"target_modules\": \"all-linear\", \"lora_dropout\": 0}");
    ck_assert_int_eq(PARSE("--seed", "3", "--config", path, "--task", "e=5"), RT_OK);
    unlink(path);
    ck_assert_str_eq(v.out, "from-file");
    ck_assert_double_eq(v.learning_rate, 0.25);
    ck_assert_int_eq(v.seed, 3);
    ck_assert_uint_eq(v.task.n, 1);
    ck_assert_str_eq(v.task.item[0], "e=5");
    ck_assert_uint_eq(v.experts.n, 1);
    ck_assert_int_eq(v.experts.item[0], 4);
    ck_assert(v.packing);
    ck_assert_int_eq(v.method, LORA);
    ck_assert_str_eq(v.note, "literal");
    ck_assert_uint_eq(v.targets.n, 1);
    ck_assert_str_eq(v.targets.item[0], "all-linear");
    ck_assert_float_eq(v.dropout, 0);
    ck_assert(options_given(&o, "dropout") && options_given(&o, "learning_rate") && !options_given(&o, "note"));
}
END_TEST

static const struct {
    const char *json, *says;
} bad_configs[] = {
    {"{\"lerning_rate\": 1}", "there is no option \"lerning_rate\"; \"learning_rate\" may be meant"},
    {"{\"zzzzzzzzzz\": 1}", "there is no option \"zzzzzzzzzz\"; --help"},
    {"{\"learning_rate\": \"1e-3\"}", "\"learning_rate\": is a string, must be a number"},
    {"{\"learning_rate\": 1e400}", "\"learning_rate\""},
    {"{\"learning_rate\": -1}", "\"learning_rate\": -1 is out of range"},
    {"{\"seed\": 1.5}", "\"seed\": 1.5 is no whole number"},
    {"{\"seed\": 1e300}", "\"seed\""},
    {"{\"packing\": 1}", "\"packing\": is a number, must be true or false"},
    {"{\"method\": \"full\"}", "\"method\": 'full' is not one of: lora, mosld"},
    {"{\"method\": 0}", "\"method\": is a number, must be a string"},
    {"{\"task\": [1]}", "\"task\": an item is a number, must be a string"},
    {"{\"task\": [\"\"]}", "\"task\": an item is empty"},
    {"{\"task\": {}}", "\"task\": is an object, must be a list of strings"},
    {"{\"num_experts\": [4, \"2\"]}", "\"num_experts\": is a string, must be a whole number"},
    {"{\"num_experts\": [4, 0]}", "\"num_experts\": 0 is out of range"},
    {"{\"note\": [\"d\"]}", "\"note\": is a list, must be a string"},
    {"{\"seed\": 1, \"seed\": 2}", "\"seed\" stands there twice"},
    {"{\"dropout\": 0.1, \"lora_dropout\": 0.2}", "\"dropout\" stands there twice"},
    {"{\"config\": \"x\"}", "\"config\" can only be given on the command line"},
    {"{\"secret\": \"x\"}", "\"secret\" can only be given on the command line"},
    {"[1]", "a config file is a JSON object"},
    {"{\"seed\": ", ""},
    {"", ""},
};

START_TEST(wrong_config_files_are_named)
{
    char *path = config_file(bad_configs[_i].json);
    enum rt_status st = PARSE("--out=d", "--config", path);
    unlink(path);
    ck_assert_msg(st == RT_BAD_FILE, "%s: status %d", bad_configs[_i].json, st);
    ck_assert_msg(strstr(err.text, path) && strstr(err.text, bad_configs[_i].says), "%s gives: %s",
                  bad_configs[_i].json, err.text);
}
END_TEST

START_TEST(a_missing_config_file_is_a_bad_file)
{
    FAILS(RT_BAD_FILE, "/nowhere/at/all.json", PARSE("--out=d", "--config=/nowhere/at/all.json"));
}
END_TEST

START_TEST(the_effective_configuration_can_be_given_back)
{
    ck_assert_int_eq(PARSE("--out", "d\"q", "--learning-rate", "0.1234567890123456", "--dropout", "0.3", "--task",
                           "a=1", "--task", "b=2", "--num-experts", "8,2", "--no-verbose", "--secret", "s"),
                     RT_OK);
    cJSON *json = options_to_json(&o);
    ck_assert_ptr_nonnull(json);
    ck_assert_ptr_null(cJSON_GetObjectItem(json, "secret"));
    ck_assert_double_eq(cJSON_GetObjectItem(json, "dropout")->valuedouble, 0.3);
    char *text = cJSON_Print(json);
    cJSON_Delete(json);
    options_finish(&o);
    setup();
    cJSON *back = cJSON_Parse(text);
    ck_assert_int_eq(options_read_json(&o, back, "run.json", &err), RT_OK);
    cJSON_Delete(back);
    ck_assert_str_eq(v.out, "d\"q");
    ck_assert_double_eq(v.learning_rate, 0.1234567890123456);
    ck_assert_float_eq(v.dropout, 0.3f);
    ck_assert_uint_eq(v.task.n, 2);
    ck_assert_uint_eq(v.experts.n, 2);
    ck_assert(!v.verbose);
    json = options_to_json(&o);
    char *again = cJSON_Print(json);
    ck_assert_str_eq(text, again);
    cJSON_Delete(json);
    cJSON_free(text);
    cJSON_free(again);
}
END_TEST

START_TEST(help_has_every_option_within_80_columns)
{
    char *text = NULL, name[80];
    size_t size = 0;
    FILE *f = open_memstream(&text, &size);
    options_print_help(&o, f);
    fclose(f);
    for (size_t i = 0; i < N; i++) {
        size_t n = (size_t)snprintf(name, sizeof name, "--%s", table[i].name);
        for (size_t k = 0; k < n; k++)
            name[k] = name[k] == '_' ? '-' : name[k];
        ck_assert_msg(strstr(text, name) != NULL, "%s is not in:\n%s", name, text);
    }
    for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n"))
        ck_assert_msg(strlen(line) <= 80, "too long: %s", line);
    free(text);
}
END_TEST

START_TEST(help_says_defaults_and_choices)
{
    char *text = NULL;
    size_t size = 0;
    FILE *f = open_memstream(&text, &size);
    options_print_help(&o, f);
    fclose(f);
    ck_assert_ptr_nonnull(strstr(text, "the adapter: lora, mosld (default mosld)"));
    ck_assert_ptr_nonnull(strstr(text, "(default 0.0003)"));
    ck_assert_ptr_nonnull(strstr(text, "\nTraining:\n"));
    free(text);
}
END_TEST

static const struct option faulty[][2] = {
    {{.name = "a", OPTION_BOOL(struct values, packing)}, {.name = "a", OPTION_BOOL(struct values, packing)}},
    {{.name = "a", OPTION_BOOL(struct values, packing)},
     {.name = "b", .alias = "a", OPTION_BOOL(struct values, packing)}},
    {{.name = "a-b", OPTION_BOOL(struct values, packing)}, {.name = "c", OPTION_BOOL(struct values, packing)}},
    {{.name = "a", OPTION_INT(struct values, rows, 0, (int64_t)1 << 32)},
     {.name = "c", OPTION_BOOL(struct values, packing)}},
    {{.name = "a", OPTION_INT(struct values, packing, 0, 1)}, {.name = "c", OPTION_BOOL(struct values, packing)}},
    {{.name = "a", OPTION_REAL(struct values, learning_rate, 1, 0)},
     {.name = "c", OPTION_BOOL(struct values, packing)}},
    {{.name = "a", OPTION_CHOICE(struct values, method, NULL)}, {.name = "c", OPTION_BOOL(struct values, packing)}},
};

START_TEST(faulty_tables_are_found)
{
    struct options f;
    ck_assert_int_eq(options_init(&f, "", faulty[_i], 2, &v, &err), RT_FAILED);
    ck_assert_ptr_nonnull(strstr(err.text, "option table"));
    options_finish(&f);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("options");
    TCase *tc = tcase_create("options");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, every_spelling_and_type);
    tcase_add_test(tc, a_bool_takes_the_word_after_it_only_if_it_is_one);
    tcase_add_test(tc, later_mentions_win_and_lists_grow);
    tcase_add_test(tc, two_dashes_end_the_options);
    tcase_add_test(tc, wrong_command_lines_are_named);
    tcase_add_test(tc, what_is_required_is_asked_for);
    tcase_add_test(tc, help_comes_before_faults);
    tcase_add_test(tc, a_config_file_sets_what_the_command_line_does_not);
    tcase_add_loop_test(tc, wrong_config_files_are_named, 0, sizeof bad_configs / sizeof *bad_configs);
    tcase_add_test(tc, a_missing_config_file_is_a_bad_file);
    tcase_add_test(tc, the_effective_configuration_can_be_given_back);
    tcase_add_test(tc, help_has_every_option_within_80_columns);
    tcase_add_test(tc, help_says_defaults_and_choices);
    tcase_add_loop_test(tc, faulty_tables_are_found, 0, sizeof faulty / sizeof *faulty);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
