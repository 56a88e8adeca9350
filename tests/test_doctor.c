/* tests/test_doctor.c - mosld doctor: every op has cases, sound variants pass, a wrong one is found and then avoided, and a crash costs a trial. */
#include "mosld/ops/choice.h"
#include "mosld/tune/cases.h"
#include "mosld/tune/doctor.h"
#include "tests/support/op_test.h"
#include "tests/support/program.h"
#include "tests/support/skip.h"
#include "tests/support/vk_test.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ADAPTER "adapter_model.safetensors"

/* ---- cases ---- */

START_TEST(every_op_has_cases)
{
    for (const struct op *const *op = op_table; *op; op++)
        for (uint32_t class_ = 0; class_ < op_class_count(*op); class_++) {
            struct tune_case c;
            char name[64];
            op_class_name(*op, class_, name, sizeof name);
            if (strstr(name, "_k ") && strstr(name, "narrow"))
                continue; /* a K type's rows are whole blocks of 256 columns */
            ck_assert_msg(tune_case_make(*op, class_, 0, false, &c), "%s, %s: mosld/tune/cases.c has none", (*op)->name, name);
            ck_assert_msg(op_class_of(*op, c.push.bytes) == class_, "%s, %s: its case is of another class", (*op)->name, name);
            tune_case_finish(&c);
        }
}
END_TEST

/* ---- what trials say, made by hand ---- */

static struct mosld_trial trial(const char *variant, const char *label, bool first, double seconds)
{
    struct mosld_trial t = {.timed = true, .first = first, .seconds = seconds};
    snprintf(t.op, sizeof t.op, "matmul_nt");
    snprintf(t.variant, sizeof t.variant, "%s", variant);
    snprintf(t.class_, sizeof t.class_, "f32 many");
    snprintf(t.label, sizeof t.label, "%s", label);
    return t;
}

static void result(const struct mosld_trial *trials, size_t n, const char *fastest, int wrong)
{
    cJSON *w, *f;
    VK_OK(mosld_doctor_result(trials, n, &w, &f, err));
    char *text = cJSON_PrintUnformatted(f);
    ck_assert_str_eq(text, fastest);
    ck_assert_int_eq(cJSON_GetArraySize(w), wrong);
    cJSON_free(text);
    cJSON_Delete(w);
    cJSON_Delete(f);
}

START_TEST(the_fastest_is_clear_and_sound)
{
    struct mosld_trial t[] = {trial("tile.f32", "a", true, 1), trial("wide.f32", "a", false, 0.97), trial("rows.f32", "a", false, 2)};
    result(t, 3, "{}", 0); /* 3 % are noise */
    t[1].seconds = 0.9;
    result(t, 3, "{\"matmul_nt\":{\"f32 many\":\"wide.f32\"}}", 0);
    struct mosld_trial two[] = {t[0], t[1], trial("tile.f32", "b", true, 1), trial("wide.f32", "b", false, 1.2)};
    result(two, 4, "{}", 0); /* it loses in another case of the class */
    t[1].verdict = MOSLD_WRONG;
    result(t, 3, "{}", 1);
    t[1].verdict = MOSLD_PASSED;
    t[1].seconds = 3;
    t[0].verdict = MOSLD_FAILED; /* then anything sound is better: the faster of the two */
    result(t, 3, "{\"matmul_nt\":{\"f32 many\":\"rows.f32\"}}", 1);
}
END_TEST

/* ---- the program ---- */

static cJSON *doctor(const char *device, const char *more)
{
    return program_json(program("doctor --json --seconds 0 --device %s %s", device, more));
}

static int count(const cJSON *json, const char *verdict)
{
    const cJSON *item;
    int n = 0;
    cJSON_ArrayForEach(item, cJSON_GetObjectItem(json, "trials"))
    {
        const char *v = cJSON_GetStringValue(cJSON_GetObjectItem(item, "verdict"));
        n += v && strcmp(v, verdict) == 0;
    }
    return n;
}

/* Every variant of both devices is right: what op_test.h asks of each op's test, once more, with the cases that users run. */
START_TEST(a_sound_device_passes)
{
    char name[32] = "host";
    if (_i == 1 && !vk_test_name(name, sizeof name))
        return;
    cJSON *json = doctor(name, "--no-timing --no-save");
    char *wrong = cJSON_PrintUnformatted(cJSON_GetObjectItem(json, "wrong"));
    ck_assert_str_eq(wrong, "[]");
    ck_assert_int_gt(count(json, "right"), 200);
    ck_assert_int_eq(count(json, "right"), cJSON_GetArraySize(cJSON_GetObjectItem(json, "trials")));
    ck_assert(!path_exists("mosld") || access("mosld", W_OK) == 0);
    free(wrong);
    cJSON_Delete(json);
}
END_TEST

static void train(const char *device, const char *out, const char *more)
{
    int got = program("train --model " STORIES " --device %s --task t=t.jsonl --per-device-train-batch-size 2 --r 4 --learning-rate 1e-2 --max-steps 3 "
                      "--out %s %s", device, out, more);
    ck_assert_msg(got == 0, "%s", program_err());
}

/* The gates of a driver that computes none: training goes wrong without a word. The doctor finds it, and names it as the only one there is;
 * of a product that has others, training takes another one, and comes to what a sound driver comes to. */
START_TEST(a_planted_wrong_variant_is_found_and_avoided)
{
    char name[32];
    if (!vk_test_name(name, sizeof name))
        return;
    write_text("t.jsonl", "{\"prompt\": \"Day 3. \", \"completion\": \"Tom saw a red bird and was glad.\"}\n{\"text\": \"One day, Lily went.\"}\n");
    train(name, "sound", "");
    struct rt_device *dev;
    VK_OK(rt_device_open(&(struct rt_device_params){.name = name}, &dev, err));
    struct tune_case c;
    const struct op *nt = op_find("matmul_nt");
    ck_assert(tune_case_make(nt, (uint32_t)op_class_find(nt, "f32 some, low W"), 0, false, &c));
    char variant[48], fault[96];
    snprintf(variant, sizeof variant, "%s", op_choose(dev, nt, c.push.bytes)->name);
    tune_case_finish(&c);
    rt_device_close(&dev);

    snprintf(fault, sizeof fault, "wrong-variant@matmul_nt.%s", variant);
    setenv("MOSLD_FAULT", fault, 1);
    train(name, "faulty", "");
    ck_assert(!same_bytes("sound/" ADAPTER, "faulty/" ADAPTER));
    cJSON *json = doctor(name, "--no-timing");
    const cJSON *wrong = cJSON_GetObjectItem(json, "wrong");
    ck_assert_int_eq(cJSON_GetArraySize(wrong), 1);
    ck_assert_str_eq(cJSON_GetStringValue(cJSON_GetObjectItem(cJSON_GetArrayItem(wrong, 0), "op")), "matmul_nt");
    ck_assert_str_eq(cJSON_GetStringValue(cJSON_GetObjectItem(cJSON_GetArrayItem(wrong, 0), "variant")), variant);
    cJSON_Delete(json);
    train(name, "cured", ""); /* the fault is still there */
    unsetenv("MOSLD_FAULT");
    train(name, "without", ""); /* no fault, the same tuning file */
    ck_assert(same_bytes("cured/" ADAPTER, "without/" ADAPTER));
    ck_assert(!same_bytes("cured/" ADAPTER, "faulty/" ADAPTER));
    train(name, "ignored", "--no-tuning");
    ck_assert(same_bytes("ignored/" ADAPTER, "sound/" ADAPTER));
}
END_TEST

START_TEST(a_crash_costs_a_trial)
{
    char name[32] = "host", fault[96];
    if (_i == 1 && !vk_test_name(name, sizeof name))
        return;
    const struct op *op = op_find("swiglu");
    uint32_t i = 0;
    while (op->variants[i].kind != (_i == 0 ? RT_HOST : RT_VULKAN))
        i++;
    snprintf(fault, sizeof fault, "crash-variant@swiglu.%s", op->variants[i].name);
    setenv("MOSLD_FAULT", fault, 1);
    cJSON *json = doctor(name, "--no-timing --no-save --op swiglu");
    ck_assert_int_gt(count(json, "ended"), 0);
    ck_assert_int_eq(count(json, "wrong") + count(json, "failed"), 0);
    ck_assert_int_eq(cJSON_GetArraySize(cJSON_GetObjectItem(json, "wrong")), 1);
    cJSON_Delete(json);
    json = doctor(name, "--no-timing --no-save --op rope"); /* others are not touched */
    ck_assert_int_eq(count(json, "ended"), 0);
    ck_assert_int_gt(count(json, "right"), 0);
    cJSON_Delete(json);
}
END_TEST

START_TEST(the_report_can_be_sent)
{
    char host[256];
    size_t n;
    ck_assert_int_eq(program("doctor --device host --no-timing --no-save --op gate --report r.txt"), 0);
    char *text = read_bytes("r.txt", &n), *here = getcwd(NULL, 0);
    ck_assert_ptr_nonnull(strstr(text, "limits"));
    ck_assert_ptr_nonnull(strstr(text, "right, "));
    ck_assert_ptr_null(strstr(text, here));
    ck_assert_int_eq(gethostname(host, sizeof host), 0);
    ck_assert(strlen(host) < 3 || !strstr(text, host));
    free(text);
    free(here);
    program_failed_as(program("doctor --op gat"), 2, "--op", "gat", NULL);
    program_failed_as(program("doctor --weights q9"), 2, "--weights", "q9", NULL);
    program_failed_as(program("doctor --device nowhere"), 2, "nowhere", NULL);
    program_failed_as(program("doctor --device host --op gate --no-timing --report no/such/place"), 1, "no/such/place", NULL);
}
END_TEST

START_TEST(bench_tune_writes_what_other_commands_heed)
{
    ck_assert_int_eq(program("bench --tune --device host --seconds 0.001 --weights f32"), 0);
    ck_assert_ptr_nonnull(strstr(program_out(), "tuning-"));
    ck_assert(path_exists("mosld"));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("doctor");
    TCase *plain = tcase_create("plain"), *run = tcase_create("program");
    tcase_add_test(plain, every_op_has_cases);
    tcase_add_test(plain, the_fastest_is_clear_and_sound);
    tcase_add_checked_fixture(run, program_folder_make_with_cache, program_folder_remove);
    tcase_set_timeout(run, 900);
    tcase_add_loop_test(run, a_sound_device_passes, 0, 2);
    tcase_add_test(run, a_planted_wrong_variant_is_found_and_avoided);
    tcase_add_loop_test(run, a_crash_costs_a_trial, 0, 2);
    tcase_add_test(run, the_report_can_be_sent);
    tcase_add_test(run, bench_tune_writes_what_other_commands_heed);
    suite_add_tcase(suite, plain);
    suite_add_tcase(suite, run);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
