/* tests/test_clamps.c - a short real training run under clamps of MOSLD_CAPS has the losses of the same run without any.
 *
 * Where the environment has MOSLD_CAPS (tools/test.sh --clamps), that clamp is tried, alone and together with small bindings; else some of its own
 * are. With MOSLD_TEST_SMOLLM2, SmolLM2-135M trains too, with 512 MiB of memory and bindings of 32 MiB. */
#include "tests/support/program.h"
#include "tests/support/skip.h"
#include "tests/support/vk_test.h"

#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char device[32];

static bool prepare(void)
{
    if (!vk_test_name(device, sizeof device))
        return false;
    FILE *f = fopen("t.jsonl", "w");
    ck_assert_ptr_nonnull(f);
    for (int i = 0; i < 24; i++)
        fprintf(f, "{\"prompt\": \"Day %d. \", \"completion\": \"Tom saw %d birds and was glad.\"}\n", i, i * 7 % 5);
    fclose(f);
    setenv("MOSLD_VALIDATE", "1", 1);
    return true;
}

/* caps: the clamps of the environment, which are kept in `outer`, and more. NULL: none at all. */
static int train(const char *model, int steps, const char *outer, const char *caps, const char *out)
{
    char all[256];
    snprintf(all, sizeof all, "%s,%s", outer, caps ? caps : "");
    if (caps)
        setenv("MOSLD_CAPS", all, 1);
    else
        unsetenv("MOSLD_CAPS");
    return program("train --model %s --device %s --task t=t.jsonl --per-device-train-batch-size 1 --gradient-accumulation-steps 2 --r 4 --num-experts 3 "
                   "--learning-rate 5e-3 --lr-scheduler-type constant --max-steps %d --out %s", model, device, steps, out);
}

/* Products are summed in another order, by 2^-24 of their terms; ten updates carry that on. */
static void losses_are_equal(const char *a, const char *b, int steps, const char *caps)
{
    char one[64], two[64];
    snprintf(one, sizeof one, "%s/metrics.jsonl", a);
    snprintf(two, sizeof two, "%s/metrics.jsonl", b);
    for (int i = 0; i < steps; i++) {
        double want = json_line_number(one, i, "loss"), got = json_line_number(two, i, "loss");
        ck_assert_msg(fabs(got - want) <= 2e-4 * (1 + want), "MOSLD_CAPS=%s: loss of step %d: want %.9g, got %.9g", caps, i + 1, want, got);
    }
    ck_assert(isfinite(json_line_number(one, steps - 1, "loss")));
}

static const char *outer_caps(char *text, size_t size)
{
    const char *set = getenv("MOSLD_CAPS");
    snprintf(text, size, "%s", set ? set : "");
    return text;
}

static void compare(const char *model, int steps, const char *const *caps, int n)
{
    char outer[200], out[16];
    if (!prepare())
        return;
    outer_caps(outer, sizeof outer);
    ck_assert_msg(train(model, steps, outer, NULL, "free") == 0, "%s", program_err());
    for (int i = 0; i < n; i++) {
        snprintf(out, sizeof out, "out%d", i);
        ck_assert_msg(train(model, steps, outer, caps[i], out) == 0, "MOSLD_CAPS=%s,%s: %s", outer, caps[i], program_err());
        losses_are_equal("free", out, steps, caps[i]);
    }
    setenv("MOSLD_CAPS", outer, 1);
}

/* 96 KiB: the embedding and head of 512 x 64 numbers (128 KiB) are bound in parts. 32 MiB of memory are what the run needs and little beside. */
START_TEST(a_small_model)
{
    static const char *const outer[] = {"", "range=98304", "memory=33554432"};
    static const char *const own[] = {"minimal", "-subgroup", "range=98304", "memory=33554432", "minimal,range=98304"};
    if (getenv("MOSLD_CAPS"))
        compare(STORIES, 10, outer, 3);
    else
        compare(STORIES, 10, own, 5);
}
END_TEST

START_TEST(a_language_model)
{
    static const char *const outer[] = {"memory=536870912"};
    static const char *const own[] = {"minimal,memory=536870912", "range=33554432,memory=536870912"};
    const char *model = getenv("MOSLD_TEST_SMOLLM2");
    if (!model) {
        test_skipped("MOSLD_TEST_SMOLLM2 names no model, so only a small one is trained under clamps");
        return;
    }
    if (getenv("MOSLD_CAPS"))
        compare(model, 2, outer, 1);
    else
        compare(model, 2, own, 2);
}
END_TEST

/* The clamps do what they are named for: bindings and memory that are too small are refused in a sentence, before the run. */
START_TEST(too_small_is_a_sentence)
{
    if (!prepare())
        return;
    program_failed_as(train(STORIES, 1, "", "range=4096", "out"), 4, "binds", NULL);
    program_failed_as(train(STORIES, 1, "", "memory=65536", "out"), 4, "memory", NULL);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("clamps");
    TCase *t = tcase_create("training");
    tcase_add_checked_fixture(t, program_folder_make, program_folder_remove);
    tcase_set_timeout(t, 1500);
    tcase_add_test(t, a_small_model);
    tcase_add_test(t, a_language_model);
    tcase_add_test(t, too_small_is_a_sentence);
    suite_add_tcase(suite, t);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
