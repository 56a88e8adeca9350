/* JSON with positions and limits, its getters, and JSON Lines. */
#include "mosld/io/json.h"
#include "mosld/io/jsonl.h"
#include "tests/support/io_files.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Parses from memory of exactly that size, so that a read beyond it is seen. */
static enum rt_status parse(const char *text, size_t size, cJSON **out, struct rt_error *err)
{
    char *exact = malloc(size ? size : 1);
    memcpy(exact, text, size);
    *err = (struct rt_error){0};
    enum rt_status st = json_parse(exact, size, "f.json", 1, out, err);
    free(exact);
    return st;
}

static const struct {
    const char *text, *words;
} documents[] = {
    {"{\"a\":1}", NULL},
    {"  [1, 2.5e3, \"x\", null, true]\r\n\t ", NULL},
    {"\xef\xbb\xbf{}", NULL},
    {"\"\\ud83d\\ude00\"", NULL},
    {"\"\\\\\"", NULL},
    {"\"\\\"[[[\"", NULL},
    {"", "line 1 is empty"},
    {" \n ", "is empty"},
    {"{\"a\":1", "line 1: the JSON ends too early"},
    {"{\n\"a\":\n\"unfinished", "line 3: the JSON ends too early"},
    {"{\n\n\"a\": nope}", "line 3 is not valid JSON near nope}"},
    {"{\"a\" 1}", "near 1}"},
    {"{\"a\":1,}", "near }"},
    {"{a:1}", "line 1 is not valid JSON"},
    {"{}\n{}", "line 2: something follows"},
    {"{\"a\":1}x", "something follows"},
    {"\n\"\xc3\x28\"", "line 2 is not valid UTF-8"},
    {"\"\xed\xa0\x80\"", "UTF-8"}, /* a surrogate */
    {"\"\xc0\xaf\"", "UTF-8"},     /* an overlong / */
    {"\"\xf4\x90\x80\x80\"", "UTF-8"},
    {"\"\xe2\x82", "UTF-8"},
    {"\"a\\u0000b\"", "u0000"},
    {"\"\\ud800\"", "not valid JSON"},
    {"\"\\q\"", "not valid JSON"},
    {"tru", "not valid JSON"},
    {"\"\\", "too early"},
};
enum { N_DOCUMENTS = sizeof documents / sizeof *documents };

START_TEST(documents_are_told_from_others)
{
    struct rt_error err;
    cJSON *json;
    enum rt_status st = parse(documents[_i].text, strlen(documents[_i].text), &json, &err);
    if (documents[_i].words)
        check_refused(st, &err, "f.json: ", documents[_i].words);
    else
        check_ok(st, &err);
    ck_assert_int_eq(json != NULL, documents[_i].words == NULL);
    cJSON_Delete(json);
}
END_TEST

START_TEST(limits_hold)
{
    struct rt_error err;
    cJSON *json;
    char *deep = calloc(1, 200001);
    memset(deep, '[', 100000);
    memset(deep + 100000, ']', 100000);
    check_refused(parse(deep, 200000, &json, &err), &err, "f.json", "nested more than 64 deep");
    check_ok(parse(deep + 100000 - 64, 128, &json, &err), &err);
    cJSON_Delete(json);
    check_refused(parse(deep + 100000 - 65, 130, &json, &err), &err, "f.json", "nested");
    free(deep);
    enum { COMMAS = 9 << 20 };
    char *many = malloc(COMMAS);
    memset(many, ',', COMMAS);
    many[0] = '[';
    check_refused(parse(many, COMMAS, &json, &err), &err, "f.json", "eight million");
    free(many);
    check_refused(parse("{\"a\0b\":1}", 9, &json, &err), &err, "f.json", "NUL");
}
END_TEST

START_TEST(getters_name_file_and_key)
{
    struct rt_error err;
    cJSON *j;
    static const char text[] = "{\"s\":\"x\",\"i\":3,\"big\":9007199254740993,\"e\":3.0,\"f\":2.5,\"inf\":1e999,\"b\":"
                               "true,\"n\":null,\"l\":[1],\"o\":{\"p\":-1}}";
    check_ok(parse(text, strlen(text), &j, &err), &err);
    const char *s;
    int64_t i;
    double x;
    bool b;
    const cJSON *a;
    check_ok(json_string(j, "s", "f", &s, &err), &err);
    ck_assert_str_eq(s, "x");
    check_ok(json_integer(j, "i", "f", 3, 3, &i, &err), &err);
    ck_assert_int_eq(i, 3);
    check_ok(json_integer(j, "e", "f", 0, 9, &i, &err), &err);
    check_ok(json_integer_or(j, "n", "f", 0, 9, 5, &i, &err), &err);
    ck_assert_int_eq(i, 5);
    check_ok(json_number(j, "f", "f", 0, 9, &x, &err), &err);
    ck_assert(x == 2.5);
    check_ok(json_number_or(j, "absent", "f", 0, 9, 0.5, &x, &err), &err);
    ck_assert(x == 0.5);
    check_ok(json_bool_or(j, "b", "f", false, &b, &err), &err);
    ck_assert(b);
    check_ok(json_array(j, "l", "f", &a, &err), &err);
    check_ok(json_object(j, "o", "f", &a, &err), &err);
    check_ok(json_array_or(j, "n", "f", &a, &err), &err);
    ck_assert_ptr_null(a);
    check_refused(json_string(j, "absent", "f", &s, &err), &err, "f: ", "\"absent\" is missing");
    check_refused(json_string(j, "n", "f", &s, &err), &err, "f: ", "\"n\" is missing");
    check_refused(json_string(j, "S", "f", &s, &err), &err, "f: ", "\"S\" is missing");
    check_refused(json_string(j, "i", "f", &s, &err), &err, "f: ", "\"i\" is 3, it must be a string");
    check_refused(json_integer(j, "s", "f", 0, 9, &i, &err), &err,
                  "f: ", "\"s\" is \"x\", it must be an integer in 0..9");
    check_refused(json_integer(j, "f", "f", 0, 9, &i, &err), &err, "f: ", "\"f\" is 2.5");
    check_refused(json_integer(j, "i", "f", 4, 9, &i, &err), &err, "f: ", "\"i\" is 3");
    check_refused(json_integer(j, "big", "f", 0, JSON_INT_MAX, &i, &err), &err, "f: ", "\"big\"");
    check_refused(json_integer(j, "inf", "f", 0, JSON_INT_MAX, &i, &err), &err, "f: ", "\"inf\"");
    check_refused(json_number(j, "inf", "f", 0, 1e300, &x, &err), &err, "f: ", "\"inf\"");
    check_refused(json_number_or(j, "f", "f", 0, 1, 0, &x, &err), &err, "f: ", "a number in 0..1");
    check_refused(json_bool_or(j, "i", "f", false, &b, &err), &err, "f: ", "true or false");
    check_refused(json_array(j, "o", "f", &a, &err), &err, "f: ", "is an object, it must be an array");
    check_refused(json_object(j, "l", "f", &a, &err), &err, "f: ", "is an array, it must be an object");
    check_ok(json_check_unique(j, "f", &err), &err);
    cJSON_Delete(j);
    check_ok(parse("{\"a\":1,\"b\":2,\"a\":3}", 19, &j, &err), &err);
    check_refused(json_check_unique(j, "f", &err), &err, "f: ", "\"a\" stands there twice");
    cJSON_Delete(j);
}
END_TEST

START_TEST(a_document_is_written)
{
    struct rt_error err = {0};
    cJSON *json = cJSON_CreateObject(), *back;
    cJSON_AddNumberToObject(json, "n", 0.1);
    const char *path = io_path("written.json");
    check_ok(json_write_file(path, json, &err), &err);
    check_ok(json_read_file(path, 1000, &back, &err), &err);
    ck_assert(cJSON_Compare(json, back, true));
    cJSON_Delete(back);
    check_refused(json_read_file(path, 3, &back, &err), &err, path, "at most 3");
    ck_assert_ptr_null(back);
    cJSON_Delete(json);
}
END_TEST

/* Text, then the lines on which records begin, 0-terminated; then the words of the error that ends it, or NULL. */
static const struct {
    const char *text;
    uint64_t lines[5];
    const char *words;
} texts[] = {
    {"", {0}, NULL},
    {"\n \r\n", {0}, NULL},
    {"{\"k\":1}", {1}, NULL},
    {"{\"k\":1}\n{\"k\":2}\n", {1, 2}, NULL},
    {"\xef\xbb\xbf{\"k\":1}\r\n\r\n  \n{\"k\":2}\r\n{\"k\":3}", {1, 4, 5}, NULL},
    {"{\"k\":\"a\\nb\"}\n", {1}, NULL},
    {"{\"k\":1}\n{\"k\":}\n{}", {1}, "line 2 is not valid JSON"},
    {"{\"k\":1}\n\n[1]\n", {1}, "line 3: a record must be an object"},
    {"{\"k\":1}\nnull", {1}, "line 2: a record must be an object"},
    {"{\"k\":1} {\"k\":2}", {0}, "line 1: something follows"},
    {"{\"k\":1}\n{\"k\":\"\xff\"}", {1}, "line 2 is not valid UTF-8"},
    {"{\"k\":1}\n{\"k\":2", {1}, "line 2: the JSON ends too early"},
    {"[]", {0}, NULL},
    {"[]\n", {0}, NULL},
    {"\n[{\"k\":1},\n {\"k\":\n2}\n,\n{\"k\":\"],[{\\\"\"}]\n", {2, 3, 6}, NULL},
    {"[{\"k\":1}\n{\"k\":2}]", {0}, "something follows"},
    {"[{\"k\":1},]", {1}, "comma"},
    {"[,{\"k\":1}]", {0}, "comma"},
    {"[{\"k\":1},,{\"k\":2}]", {1}, "comma"},
    {"[{\"k\":1}", {1}, "not closed"},
    {"[{\"k\":1},", {1}, "not closed"},
    {"[", {0}, "not closed"},
    {"[{\"k\":1}] {}", {1}, "something follows the array"},
    {"[{\"k\":1},\n\n2]", {1}, "line 3: a record must be an object"},
    {"[{\"k\":1},\n{\"k\" 2}]", {1}, "line 2 is not valid JSON"},
    {"[{\"k\":1},\n{\"k\":\n\nx}]", {1}, "line 4 is not valid JSON"},
};
enum { N_TEXTS = sizeof texts / sizeof *texts };

START_TEST(records_are_read_with_their_lines)
{
    const char *path = io_path("records.jsonl");
    io_write_text(path, texts[_i].text);
    struct rt_error err = {0};
    struct jsonl *r;
    cJSON *record = NULL;
    uint64_t line = 0;
    check_ok(jsonl_open(path, &r, &err), &err);
    for (int k = 0; texts[_i].lines[k]; k++) {
        check_ok(jsonl_next(r, &record, &line, &err), &err);
        ck_assert_ptr_nonnull(record);
        ck_assert_uint_eq(line, texts[_i].lines[k]);
        ck_assert_ptr_nonnull(json_find(record, "k"));
        cJSON_Delete(record);
    }
    enum rt_status st = jsonl_next(r, &record, &line, &err);
    if (texts[_i].words)
        check_refused(st, &err, path, texts[_i].words);
    else
        check_ok(st, &err);
    ck_assert_ptr_null(record);
    check_ok(jsonl_next(r, &record, &line, &err), &err); /* the end stays the end */
    ck_assert_ptr_null(record);
    jsonl_close(&r);
}
END_TEST

START_TEST(a_line_may_be_long)
{
    enum { LENGTH = 100 << 20 };
    static const char head[] = "{\"k\":\"";
    const size_t n = sizeof head - 1;
    char *text = malloc(LENGTH + 64);
    ck_assert_ptr_nonnull(text);
    memcpy(text, head, n);
    memset(text + n, 'x', LENGTH);
    strcpy(text + n + LENGTH, "\"}\n{\"k\":2}");
    const char *path = io_path("long.jsonl");
    io_write_text(path, text);
    free(text);
    struct rt_error err = {0};
    struct jsonl *r;
    cJSON *record;
    uint64_t line;
    check_ok(jsonl_open(path, &r, &err), &err);
    check_ok(jsonl_next(r, &record, &line, &err), &err);
    ck_assert_uint_eq(strlen(json_find(record, "k")->valuestring), LENGTH);
    cJSON_Delete(record);
    check_ok(jsonl_next(r, &record, &line, &err), &err);
    ck_assert_uint_eq(line, 2);
    cJSON_Delete(record);
    jsonl_close(&r);
    check_refused(jsonl_open(io_folder(), &r, &err), &err, io_folder(), "folder");
    ck_assert_ptr_null(r);
}
END_TEST

int main(void)
{
    io_folder();
    Suite *suite = suite_create("json");
    TCase *tc = tcase_create("text");
    tcase_set_timeout(tc, 120);
    tcase_add_loop_test(tc, documents_are_told_from_others, 0, N_DOCUMENTS);
    tcase_add_test(tc, limits_hold);
    tcase_add_test(tc, getters_name_file_and_key);
    tcase_add_test(tc, a_document_is_written);
    tcase_add_loop_test(tc, records_are_read_with_their_lines, 0, N_TEXTS);
    tcase_add_test(tc, a_line_may_be_long);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
