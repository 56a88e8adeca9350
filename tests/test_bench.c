/* tests/test_bench.c - mosld bench measures on both kinds of device, and what it prints is whole: never how fast. */
#include "tests/support/program.h"

#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define QUICK "bench --json --tokens 2x8 --seconds 0.005 --cube 32 --rounds 1 --steps 1 "

/* Every number anywhere in the document is finite and positive; returns how many there are. */
static int check_numbers(const cJSON *json, const char *name)
{
    int n = cJSON_IsNumber(json);
    ck_assert_msg(!n || (isfinite(json->valuedouble) && json->valuedouble > 0), "%s is %g", name, json->valuedouble);
    ck_assert_msg(!cJSON_IsNull(json), "%s is not finite", name);
    for (const cJSON *item = json->child; item; item = item->next)
        n += check_numbers(item, item->string ? item->string : name);
    return n;
}

static const cJSON *find(const cJSON *array, const char *name)
{
    const cJSON *item;
    cJSON_ArrayForEach(item, array) if (strcmp(cJSON_GetStringValue(cJSON_GetObjectItem(item, "name")), name) ==
                                        0) return item;
    ck_abort_msg("there is no %s", name);
    return NULL;
}

static double number(const cJSON *json, const char *key)
{
    const cJSON *item = cJSON_GetObjectItem(json, key);
    ck_assert_msg(cJSON_IsNumber(item), "%s is missing", key);
    return item->valuedouble;
}

static bool has_vulkan(void)
{
    cJSON *json = program_json(program("devices --json"));
    const cJSON *inner = cJSON_GetObjectItem(json, "devices"), *devices = inner ? inner : json, *item;
    bool found = false;
    cJSON_ArrayForEach(item, devices)
    {
        const char *name = cJSON_GetStringValue(cJSON_GetObjectItem(item, "name"));
        found |= name && strstr(name, "llvmpipe") != NULL;
    }
    cJSON_Delete(json);
    return found;
}

static void check_document(const char *device, const char *arithmetic)
{
    cJSON *json = program_json(program(QUICK "--shapes tiny --num-experts 1,2 --device %s", device));
    const cJSON *peaks = cJSON_GetObjectItem(json, "peaks"), *ops = cJSON_GetObjectItem(json, "ops");
    const cJSON *steps = cJSON_GetObjectItem(json, "steps"), *item;
    ck_assert_int_gt(check_numbers(json, "the document"), 200);
    ck_assert_double_ge(number(peaks, "flops"), number(peaks, "product_flops"));
    ck_assert_double_ge(number(peaks, "flops"), number(peaks, arithmetic));
    number(peaks, "copy_bytes_per_second");
    ck_assert_double_ge(number(peaks, "submit_seconds"), 1e-9);
    cJSON_ArrayForEach(item, ops)
    {
        ck_assert_double_ge(number(item, "median_seconds"), number(item, "best_seconds"));
        number(item, "share");
        number(item, "calls");
    }
    find(ops, "head: dx = dy W"), find(ops, "dB = s dy' z"), find(ops, "gate_bwd"), find(ops, "dropout of A"),
        find(ops, "attention_bwd");
    find(ops, "adamw");
    /* no adapter; and on each of two target sets lora, mosl and mosld with 1 and 2 experts */
    ck_assert_int_eq(cJSON_GetArraySize(steps), 1 + 2 * 5);
    ck_assert_double_eq(number(cJSON_GetArrayItem(steps, 0), "ratio"), 1);
    cJSON_ArrayForEach(item, steps)
    {
        number(item, "tokens_per_second");
        ck_assert_double_ge(number(item, "allocated_bytes"), number(item, "planned_bytes"));
    }
    /* 3 layers, r 8, q [64, 64] and v [32, 64]: A, and B of each expert, and the router's rows. */
    ck_assert_double_eq(number(find(steps, "lora, q and v"), "parameters"), 3 * (2 * 8 * 64 + 8 * 96));
    ck_assert_double_eq(number(find(steps, "mosld E 1, q and v"), "parameters"), 3 * (2 * 8 * 64 + 8 * 96));
    ck_assert_double_eq(number(find(steps, "mosld E 2, q and v"), "parameters"),
                        3 * (2 * 8 * 64 + 2 * 8 * 96 + 2 * 2 * 64));
    ck_assert_double_eq(number(cJSON_GetArrayItem(steps, 0), "parameters"),
                        64 + 64); /* of the lowest layer's q alone */
    cJSON_Delete(json);
}

START_TEST(host_measures_everything) { check_document("host", "blas_flops"); }
END_TEST

START_TEST(vulkan_measures_everything)
{
    if (!has_vulkan()) {
        fprintf(stderr, "skipped: there is no llvmpipe here\n");
        return;
    }
    check_document("llvmpipe", "registers_flops");
}
END_TEST

static const char *const types[] = {"f32", "f16", "bf16", "q8_0", "q4_0", "q4_1"};

START_TEST(random_weights_of_every_type)
{
    cJSON *json = program_json(program(QUICK "--device host --shapes tiny --what ops --weights %s", types[_i]));
    check_numbers(json, "the document");
    ck_assert_str_eq(cJSON_GetStringValue(cJSON_GetObjectItem(cJSON_GetObjectItem(json, "model"), "weights")),
                     types[_i]);
    ck_assert_ptr_null(cJSON_GetObjectItem(json, "steps"));
    cJSON_Delete(json);
}
END_TEST

START_TEST(a_model_of_a_file_and_a_table)
{
    int status = program("bench --model " STORIES
                         " --device host --tokens 2x8 --seconds 0.005 --what peaks,step --cube 32 --rounds 2 --steps 1 "
                         "--methods lora --targets qv");
    ck_assert_msg(status == 0, "%s", program_err());
    ck_assert_ptr_nonnull(strstr(program_out(), "BLAS"));
    ck_assert_ptr_nonnull(strstr(program_out(), "no adapter"));
    ck_assert_ptr_nonnull(strstr(program_out(), "lora, q and v"));
    ck_assert_ptr_null(strstr(program_out(), "mosld"));
    ck_assert_ptr_null(strstr(program_out(), "nan"));
}
END_TEST

START_TEST(peaks_need_no_model)
{
    cJSON *json = program_json(program(QUICK "--device host --what peaks"));
    ck_assert_ptr_null(cJSON_GetObjectItem(json, "model"));
    check_numbers(json, "the document");
    cJSON_Delete(json);
}
END_TEST

/* Neither has hardware counters: a sentence that says what is missing, and the exit status of a device that lacks something. */
START_TEST(counters_that_are_not_there)
{
    program_failed_as(program(QUICK "--device host --counters list"), 4, "host", "VK_KHR_performance_query", NULL);
    program_failed_as(program(QUICK "--device host --counters cycles --shapes tiny"), 4, "host", "VK_KHR_performance_query", NULL);
    program_failed_as(program(QUICK "--device host --counters cycles --what step"), 2, "--counters", "--what", NULL);
    if (!has_vulkan()) {
        fprintf(stderr, "skipped: there is no llvmpipe here\n");
        return;
    }
    program_failed_as(program(QUICK "--device llvmpipe --counters list"), 4, "llvmpipe", "VK_KHR_performance_query", NULL);
    program_failed_as(program(QUICK "--device llvmpipe --counters cycles --shapes tiny"), 4, "llvmpipe", "VK_KHR_performance_query", NULL);
}
END_TEST

START_TEST(refuses_what_it_does_not_know)
{
    program_failed_as(program(QUICK "--device host --shapes gpt-9"), 2, "gpt-9", "smollm2-135m", NULL);
    program_failed_as(program(QUICK "--device host --shapes tiny --model x"), 2, "--shapes", NULL);
    program_failed_as(program(QUICK "--device host --what speed"), 2, "--what", "speed", "peaks", NULL);
    program_failed_as(program("bench --device host --tokens 2by8"), 2, "--tokens", "2by8", NULL);
    program_failed_as(program("bench --device host --tokens 2x1"), 2, "--tokens", NULL);
    program_failed_as(program("bench --device host --tokens 2x8x9"), 2, "--tokens", NULL);
    program_failed_as(program("bench --device host --shapes tiny --tokens 1x4096 --what step"), 2, "4096", "2048",
                      NULL);
    program_failed_as(program(QUICK "--device host --model nowhere"), 3, "nowhere", NULL);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("bench");
    TCase *tc = tcase_create("bench");
    tcase_set_timeout(tc, 300);
    tcase_add_unchecked_fixture(tc, program_folder_make, program_folder_remove);
    tcase_add_test(tc, host_measures_everything);
    tcase_add_test(tc, vulkan_measures_everything);
    tcase_add_loop_test(tc, random_weights_of_every_type, 0, 6);
    tcase_add_test(tc, a_model_of_a_file_and_a_table);
    tcase_add_test(tc, peaks_need_no_model);
    tcase_add_test(tc, counters_that_are_not_there);
    tcase_add_test(tc, refuses_what_it_does_not_know);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? 1 : 0;
}
