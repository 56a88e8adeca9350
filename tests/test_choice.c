/* tests/test_choice.c - which variant is taken: orders, what changes them, the tuning file, and that a resumed run keeps its own. */
#include "mosld/ops/choice.h"
#include "mosld/ops/matmul_common.h"
#include "mosld/tune/choices.h"
#include "mosld/tune/tuning_file.h"
#include "tests/support/op_test.h"
#include "tests/support/program.h"
#include "tests/support/skip.h"
#include "tests/support/vk_test.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct rt_device *open_host(void)
{
    struct rt_device_params params = {.name = "host"};
    struct rt_device *dev;
    VK_OK(rt_device_open(&params, &dev, err));
    return dev;
}

static const struct op *const nt = &op_matmul_nt_desc;
static const struct matmul_push few = {.rows = 2, .n = 300, .k = 320, .wtype = OP_W_Q4_1}, many = {.rows = 200, .n = 300, .k = 320, .wtype = OP_W_F32},
                                low = {.rows = 200, .n = 72, .k = 320, .wtype = OP_W_F32};

static const char *taken(struct rt_device *dev, const void *push)
{
    const struct op_variant *v = op_choose(dev, nt, push);
    return v ? v->name : "none";
}

START_TEST(classes_have_names)
{
    char text[64];
    for (const struct op *const *op = op_table; *op; op++)
        for (uint32_t c = 0; c < op_class_count(*op); c++) {
            op_class_name(*op, c, text, sizeof text);
            ck_assert_msg(op_class_find(*op, text) == (int)c, "%s: class %u is \"%s\"", (*op)->name, c, text);
        }
    op_class_name(nt, op_class_of(nt, &few), text, sizeof text);
    ck_assert_str_eq(text, "q4_1 few");
    op_class_name(nt, op_class_of(nt, &low), text, sizeof text);
    ck_assert_str_eq(text, "f32 many, low W");
    ck_assert_int_eq(op_class_find(nt, "q4_1 some more"), -1);
    ck_assert_ptr_eq(op_find("matmul_nt"), nt);
    ck_assert_ptr_null(op_find("matmul"));
}
END_TEST

START_TEST(orders_change)
{
    struct rt_device *dev = open_host();
    const struct op_variant *host = op_variant_find(nt, "host"), *vec = op_variant_find(nt, "host_vec");
    ck_assert_str_eq(taken(dev, &few), "host_vec");
    op_choice_prefer(dev, nt, op_class_of(nt, &few), host);
    ck_assert_str_eq(taken(dev, &few), "host");
    op_choice_prefer(dev, nt, op_class_of(nt, &few), op_variant_find(nt, "tile.q4_1")); /* not on a host */
    ck_assert_str_eq(taken(dev, &few), "host");
    op_choice_reset(dev);
    ck_assert_str_eq(taken(dev, &few), "host_vec");
    op_choice_prefer(dev, nt, op_class_of(nt, &many), vec); /* which does not apply to so many rows */
    ck_assert_str_eq(taken(dev, &many), "host");
    ck_assert(op_choice_ban(dev, nt, vec));
    ck_assert_str_eq(taken(dev, &few), "host");
    ck_assert(!op_choice_ban(dev, nt, host)); /* the last one stays */
    ck_assert_str_eq(taken(dev, &many), "host");
    ck_assert(op_choice_set(dev, nt, op_class_of(nt, &few), (const struct op_variant *[]){vec, host}, 2));
    ck_assert_str_eq(taken(dev, &few), "host_vec");
    ck_assert(!op_choice_set(dev, nt, op_class_of(nt, &few), NULL, 0));
    ck_assert(!op_choice_set(dev, nt, op_class_of(nt, &few), (const struct op_variant *[]){op_variant_find(nt, "tile.q4_1"), host}, 2));
    ck_assert_str_eq(taken(dev, &few), "host");
    rt_device_close(&dev);
}
END_TEST

START_TEST(orders_as_json)
{
    struct rt_device *dev = open_host();
    bool whole;
    struct rt_error err = {0};
    taken(dev, &few);
    cJSON *used = mosld_choices_taken_json(dev), *all = mosld_choices_json(dev, 1u << OP_W_Q4_1);
    char *text = cJSON_PrintUnformatted(used);
    ck_assert_str_eq(text, "{\"matmul_nt\":{\"q4_1 few\":[\"host_vec\"]}}");
    cJSON_free(text);
    cJSON *classes = cJSON_GetObjectItem(all, "matmul_nt");
    ck_assert_ptr_nonnull(cJSON_GetObjectItem(classes, "q4_1 many"));
    ck_assert_ptr_null(cJSON_GetObjectItem(classes, "f32 many"));
    op_choice_ban(dev, nt, op_variant_find(nt, "host_vec"));
    VK_OK(mosld_choices_set(dev, all, "state", &whole, err));
    ck_assert(whole);
    ck_assert_str_eq(taken(dev, &few), "host_vec");
    static const char *const odd[] = {"{\"matmul_nt\": {\"q4_1 few\": [\"fast\", \"host\"]}}", "{\"matmul\": {}}",
                                      "{\"matmul_nt\": {\"q9 few\": [\"host\"]}}", "{\"matmul_nt\": {\"q4_1 few\": [3]}}"};
    for (size_t i = 0; i < sizeof odd / sizeof *odd; i++) {
        cJSON *json = cJSON_Parse(odd[i]);
        VK_OK(mosld_choices_set(dev, json, "state", &whole, err));
        ck_assert_msg(!whole, "%s", odd[i]);
        cJSON_Delete(json);
    }
    static const char *const bad[] = {"[]", "{\"matmul_nt\": 3}", "{\"matmul_nt\": {\"q4_1 few\": \"host\"}}"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        cJSON *json = cJSON_Parse(bad[i]);
        ck_assert_int_eq(mosld_choices_set(dev, json, "state", &whole, &err), RT_BAD_FILE);
        ck_assert_ptr_nonnull(strstr(err.text, "state"));
        cJSON_Delete(json);
    }
    cJSON_Delete(used);
    cJSON_Delete(all);
    rt_device_close(&dev);
}
END_TEST

/* ---- the tuning file, in a cache folder of the test's own ---- */

/* `fastest` and `wrong` as JSON text. */
static void write_tuning(const struct rt_device *dev, const char *fastest, const char *wrong)
{
    cJSON *f = cJSON_Parse(fastest), *w = cJSON_Parse(wrong);
    ck_assert(f && w);
    VK_OK(mosld_tuning_write(dev, w, f, err));
    cJSON_Delete(f);
    cJSON_Delete(w);
}

START_TEST(the_tuning_file_rules)
{
    struct rt_device *dev = open_host();
    ck_assert_int_eq(mosld_tuning_load(dev), MOSLD_TUNING_NONE);
    write_tuning(dev, "{\"matmul_nt\": {\"q4_1 few\": \"host\", \"q4_1 fewer\": \"host\"}, \"unknown\": {\"a\": \"b\"}}", "[]");
    ck_assert_int_eq(mosld_tuning_load(dev), MOSLD_TUNING_APPLIED);
    ck_assert_str_eq(taken(dev, &few), "host");
    op_choice_reset(dev);
    setenv("MOSLD_TUNING", "0", 1);
    ck_assert_int_eq(mosld_tuning_load(dev), MOSLD_TUNING_NONE);
    ck_assert_str_eq(taken(dev, &few), "host_vec");
    unsetenv("MOSLD_TUNING");
    write_tuning(dev, "{}", "[{\"op\": \"matmul_nt\", \"variant\": \"host_vec\", \"why\": \"a test\"}, {\"op\": 3}, 4]");
    ck_assert_int_eq(mosld_tuning_load(dev), MOSLD_TUNING_APPLIED);
    ck_assert_str_eq(taken(dev, &few), "host");
    rt_device_close(&dev);
}
END_TEST

START_TEST(a_damaged_tuning_file_is_ignored_and_replaced)
{
    struct rt_device *dev = open_host();
    write_tuning(dev, "{\"matmul_nt\": {\"q4_1 few\": \"host\"}}", "[]");
    char *path = mosld_tuning_path(dev);
    size_t n;
    char *good = read_bytes(path, &n);
    for (int i = 0; i < 4; i++) {
        char *bytes = strdup(good);
        if (i == 0)
            memcpy(strstr(bytes, "\"host\""), "\"hose\"", 6); /* well-formed, and not what was written */
        if (i == 3)
            memcpy(strchr(strstr(bytes, "\"key\":") + 6, '"') + 1, "0123", 4);
        write_bytes(path, bytes, i == 1 ? n / 2 : i == 2 ? 0 : n);
        free(bytes);
        ck_assert_msg(mosld_tuning_load(dev) == MOSLD_TUNING_DAMAGED, "damage %d", i);
        ck_assert_str_eq(taken(dev, &few), "host_vec");
    }
    write_tuning(dev, "{\"matmul_nt\": {\"q4_1 few\": \"host\"}}", "[]");
    ck_assert_int_eq(mosld_tuning_load(dev), MOSLD_TUNING_APPLIED);
    free(good);
    free(path);
    rt_device_close(&dev);
}
END_TEST

/* ---- in a run ---- */

#define ADAPTER "adapter_model.safetensors"

/* Rows of at most eight tokens: there two variants of a product sum in different orders. */
static void write_rows(void)
{
    FILE *f = fopen("t.jsonl", "w");
    ck_assert_ptr_nonnull(f);
    for (int i = 0; i < 12; i++)
        fprintf(f, "{\"prompt\": \"%c\", \"completion\": \" to\"}\n", 'a' + i);
    fclose(f);
}

static void train(const char *device, const char *out, const char *more)
{
    int got = program("train --model " STORIES " --device %s --task t=t.jsonl --per-device-train-batch-size 1 --r 4 --learning-rate 1e-2 "
                      "--max-steps 4 --out %s %s", device, out, more);
    ck_assert_msg(got == 0, "%s", program_err());
}

static const char *variant_of(const char *run, const char *op, const char *class_, char *text, size_t size)
{
    char path[64];
    size_t n;
    snprintf(path, sizeof path, "%s/run.json", run);
    char *bytes = read_bytes(path, &n);
    cJSON *json = cJSON_Parse(bytes);
    const cJSON *of = cJSON_GetObjectItem(cJSON_GetObjectItem(json, "variants"), op);
    const char *name = cJSON_GetStringValue(cJSON_GetArrayItem(cJSON_GetObjectItemCaseSensitive(of, class_), 0));
    snprintf(text, size, "%s", name ? name : "none");
    cJSON_Delete(json);
    free(bytes);
    return text;
}

/* The tuning file changes after the checkpoint: the resumed run keeps what its first half took, a new one takes the other. */
START_TEST(a_resumed_run_keeps_its_variants)
{
    char name[32], text[64];
    if (!vk_test_name(name, sizeof name))
        return;
    struct rt_device_params params = {.name = name};
    struct rt_device *dev;
    write_rows();
    VK_OK(rt_device_open(&params, &dev, err));
    struct matmul_push p = {.rows = 6, .n = 64, .k = 64, .wtype = OP_W_F32}; /* q of the model */
    const struct op_variant *first = op_choose(dev, &op_matmul_nt_desc, &p), *other = op_variant_find(&op_matmul_nt_desc, "vec.f32");
    ck_assert(first && other && first != other);
    char class_[64];
    op_class_name(&op_matmul_nt_desc, op_class_of(&op_matmul_nt_desc, &p), class_, sizeof class_);
    train(name, "a", "--save-steps 2");
    ck_assert_str_eq(variant_of("a", "matmul_nt", class_, text, sizeof text), first->name);
    snprintf(text, sizeof text, "{\"matmul_nt\": {\"%s\": \"vec.f32\"}}", class_);
    write_tuning(dev, text, "[]");
    rt_device_close(&dev);

    train(name, "b", ""); /* with the tuning file: other variants, other bits */
    ck_assert_str_eq(variant_of("b", "matmul_nt", class_, text, sizeof text), "vec.f32");
    ck_assert(!same_bytes("a/" ADAPTER, "b/" ADAPTER));
    train(name, "c", "--no-tuning");
    ck_assert(same_bytes("a/" ADAPTER, "c/" ADAPTER));
    ck_assert_int_eq(system("cp -r a d && rm -rf d/checkpoint-000004"), 0);
    train(name, "d", "--save-steps 2 --resume-from-checkpoint last");
    ck_assert_str_eq(variant_of("d", "matmul_nt", class_, text, sizeof text), first->name);
    ck_assert(same_bytes("a/" ADAPTER, "d/" ADAPTER));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("choice");
    TCase *orders = tcase_create("orders"), *file = tcase_create("tuning file"), *run = tcase_create("run");
    tcase_add_test(orders, classes_have_names);
    tcase_add_test(orders, orders_change);
    tcase_add_test(orders, orders_as_json);
    tcase_add_checked_fixture(file, program_folder_make_with_cache, program_folder_remove);
    tcase_add_test(file, the_tuning_file_rules);
    tcase_add_test(file, a_damaged_tuning_file_is_ignored_and_replaced);
    tcase_add_checked_fixture(run, program_folder_make_with_cache, program_folder_remove);
    tcase_set_timeout(run, 300);
    tcase_add_test(run, a_resumed_run_keeps_its_variants);
    suite_add_tcase(suite, orders);
    suite_add_tcase(suite, file);
    suite_add_tcase(suite, run);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
