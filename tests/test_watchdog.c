/* tests/test_watchdog.c - long work is cut without a trace in the bits, and a lost device costs no run. */
#include "mosld/ops/matmul_common.h"
#include "runtime/vulkan/divide.h"
#include "runtime/vulkan/reflect.h"
#include "runtime/vulkan/shaders.h"
#include "shaders/test_push.h"
#include "tests/support/op_test.h"
#include "tests/support/program.h"
#include "tests/support/skip.h"
#include "tests/support/vk_test.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ADAPTER "adapter_model.safetensors"

/* ---- the modules ---- */

/* Whether the built-in is named: OpDecorate ... BuiltIn NumWorkgroups. */
static bool reads_groups(const uint32_t *words, size_t n)
{
    for (size_t i = 5; i < n; i += words[i] >> 16)
        if ((words[i] & 0xffff) == 71 && words[i] >> 16 == 4 && words[i + 2] == 11 && words[i + 3] == 24)
            return true;
    return false;
}

START_TEST(every_module_can_be_divided)
{
    int had = 0;
    for (size_t i = 0; i < rt_n_shaders; i++) {
        const struct rt_shader *s = &rt_shaders[i];
        struct reflection before, after;
        size_t n;
        uint32_t *words = divide_spirv(s->words, s->n_words, &n);
        ck_assert_msg(words, "%s", s->name);
        ck_assert_msg(!reads_groups(words, n), "%s", s->name);
        had += reads_groups(s->words, s->n_words);
        ck_assert(reflect_spirv(s->words, s->n_words, &before));
        ck_assert_msg(reflect_spirv(words, n, &after), "%s", s->name);
        ck_assert_msg(memcmp(&before, &after, sizeof before) == 0, "%s asks for something else now", s->name);
        free(words);
    }
    ck_assert_int_gt(had, 20);
}
END_TEST

START_TEST(a_damaged_module_is_not_divided)
{
    const struct rt_shader *s = &rt_shaders[0];
    while (!reads_groups(s->words, s->n_words))
        s++;
    size_t n;
    uint32_t *copy = malloc(s->n_words * 4);
    for (size_t cut = 0; cut < s->n_words; cut += 7) { /* an own block each, so that a sanitizer sees a read behind the end */
        uint32_t *part = malloc(cut * 4 + 1);
        memcpy(part, s->words, cut * 4);
        uint32_t *words = divide_spirv(part, cut, &n);
        ck_assert(!words || n >= cut); /* cut between two instructions it is a module, if a poor one */
        free(words);
        free(part);
    }
    for (size_t i = 0; i < s->n_words; i++) {
        memcpy(copy, s->words, s->n_words * 4);
        copy[i] ^= 0xffff0000u;
        free(divide_spirv(copy, s->n_words, &n));
    }
    memcpy(copy, s->words, s->n_words * 4);
    copy[1] = 0x10300;
    ck_assert_ptr_null(divide_spirv(copy, s->n_words, &n));
    free(copy);
}
END_TEST

/* ---- dispatches ---- */

enum { ROWS = 70, N = 333, K = 96 };

static bool product(const char *variant, double budget, float *y, struct rt_statistics *statistics)
{
    struct rt_device_params params = {.validate = true, .submit_budget = budget};
    struct rt_device *dev = vk_test_open(NULL, &params);
    if (!dev)
        return false;
    float *x = malloc(ROWS * K * 4), *w = malloc(N * K * 4);
    uint64_t state = 5;
    for (int i = 0; i < ROWS * K; i++)
        x[i] = test_uniform(&state, -1, 1);
    for (int i = 0; i < N * K; i++)
        w[i] = test_uniform(&state, -1, 1);
    for (int i = 0; i < ROWS * N; i++)
        y[i] = (float)i;
    struct matmul_push p = {.rows = ROWS, .n = N, .k = K, .x_stride = K, .y_stride = N, .wtype = OP_W_F32, .add = MATMUL_ADD_SELF, .scale = 1};
    struct rt_span spans[] = {test_span(dev, ROWS * K * 4, x), test_span(dev, N * K * 4, w), test_span(dev, ROWS * N * 4, y), {0}};
    spans[3] = spans[0];
    const struct op_variant *v = NULL;
    for (uint32_t i = 0; i < op_matmul_nt_desc.n_variants; i++)
        if (strcmp(op_matmul_nt_desc.variants[i].name, variant) == 0)
            v = &op_matmul_nt_desc.variants[i];
    ck_assert_ptr_nonnull(v);
    bool can = op_can_run(dev, v);
    if (can) {
        struct rt_statistics before;
        rt_get_statistics(dev, &before);
        for (int i = 0; i < 3; i++) /* y grows by the same product each time: a part that runs twice shows */
            VK_OK(op_launch_variant(dev, &op_matmul_nt_desc, v, spans, &p, err));
        VK_OK(rt_download(dev, spans[2], 0, y, ROWS * N * 4, err));
        rt_get_statistics(dev, statistics);
        statistics->dispatches -= before.dispatches;
        statistics->submissions -= before.submissions;
    }
    free(x);
    free(w);
    test_release(dev);
    vk_test_close(dev);
    return can;
}

/* The parts of a dispatch go into submissions of their own, and every part is there once. */
START_TEST(a_long_dispatch_is_cut)
{
    static const char *const variants[] = {"tile.f32", "rows.f32", "lanes.f32"};
    static float whole[ROWS * N], parts[ROWS * N];
    struct rt_statistics one, many;
    if (!product(variants[_i], 1000, whole, &one) || !product(variants[_i], 1e-6, parts, &many))
        return;
    ck_assert_uint_eq(one.dispatches, 3);
    ck_assert_uint_gt(many.dispatches, 3 + 2);
    ck_assert_uint_gt(many.submissions, one.submissions + 2);
    ck_assert(memcmp(whole, parts, sizeof whole) == 0);
}
END_TEST

/* ---- a device that is slower than was thought ---- */

static const struct rt_kernel slow_kernel = {"test_slow", sizeof(struct test_push), 1, {{"x", RT_READ_WRITE_BY_GROUPS}}};

/* Asked for as next to no work: the first submission is too long, and as soon as it has been seen to be, the same work comes in parts, to the same
 * bits. Without timestamps too. */
START_TEST(the_cut_adapts_at_once)
{
    enum { GROUPS = 64, ITEMS = GROUPS * 64 };
    static float x[2][ITEMS];
    struct rt_device_params params = {.validate = true, .submit_budget = 0.002};
    struct rt_device *dev = vk_test_open(_i ? "-timestamps" : "", &params);
    if (!dev)
        return;
    struct rt_arena *arena;
    struct rt_span span = vk_test_span(dev, sizeof x[0], &arena);
    struct test_push push = {.n = ITEMS, .value = 0.25f, .repeat = 20000};
    struct rt_statistics s[3];
    for (int i = 0; i < 2; i++) {
        VK_OK(rt_fill(dev, span, 0, err));
        VK_OK(rt_finish(dev, err));
        rt_get_statistics(dev, &s[i]);
        VK_OK(rt_dispatch(dev, &slow_kernel, &span, &push, (const uint32_t[]){GROUPS, 1, 1}, 1000, err));
        VK_OK(rt_finish(dev, err));
        rt_get_statistics(dev, &s[i + 1]);
        VK_OK(rt_download(dev, span, 0, x[i], sizeof x[i], err));
    }
    double seconds = s[1].device_seconds - s[0].device_seconds;
    ck_assert_msg(seconds > 3 * params.submit_budget, "the work took only %g s", seconds);
    /* A fill that the machine interrupted may have lowered the rate already. */
    ck_assert_uint_ge(s[2].parts_added - s[1].parts_added, s[1].parts_added - s[0].parts_added);
    ck_assert_uint_ge(s[2].parts_added - s[1].parts_added, 2);
    ck_assert_uint_ge(s[2].submissions - s[1].submissions, 3);
    ck_assert(memcmp(x[0], x[1], sizeof x[0]) == 0 && x[0][5] != 0);
    rt_arena_destroy(&arena);
    vk_test_close(dev);
}
END_TEST

/* Memory is filled and copied in parts too. */
START_TEST(long_copies_are_cut)
{
    enum { BYTES = 12 << 20 };
    struct rt_device_params params = {.validate = true, .submit_budget = 1e-6};
    struct rt_device *dev = vk_test_open("", &params);
    if (!dev)
        return;
    struct rt_arena *arenas[2];
    struct rt_span a = vk_test_span(dev, BYTES, &arenas[0]), b = vk_test_span(dev, BYTES, &arenas[1]);
    struct rt_statistics before, after;
    VK_OK(rt_finish(dev, err));
    rt_get_statistics(dev, &before);
    VK_OK(rt_fill(dev, a, 0x01020304, err));
    VK_OK(rt_copy(dev, b, 0, a, 0, BYTES, err));
    uint32_t *got = malloc(BYTES);
    VK_OK(rt_download(dev, b, 0, got, BYTES, err));
    rt_get_statistics(dev, &after);
    for (size_t i = 0; i < BYTES / 4; i++)
        ck_assert_uint_eq(got[i], 0x01020304);
    ck_assert_uint_ge(after.submissions - before.submissions, 2 * 12); /* a MiB each */
    free(got);
    rt_arena_destroy(&arenas[0]);
    rt_arena_destroy(&arenas[1]);
    vk_test_close(dev);
}
END_TEST

START_TEST(percentiles)
{
    struct rt_statistics a = {0}, b = {0};
    ck_assert(rt_submission_percentile(NULL, &b, 0.99) == 0);
    a.durations[40] = 3; /* before: 1 ms */
    b.durations[40] = 3 + 98;
    b.durations[60] = 2; /* 33 ms */
    ck_assert_double_eq_tol(rt_submission_percentile(&a, &b, 0.5), 1.024e-3, 1e-9);
    ck_assert_double_eq_tol(rt_submission_percentile(&a, &b, 0.98), 1.024e-3, 1e-9);
    ck_assert_double_eq_tol(rt_submission_percentile(&a, &b, 0.99), 32.768e-3, 1e-9);
    ck_assert_double_eq_tol(rt_submission_percentile(NULL, &a, 1), 1.024e-3, 1e-9);
}
END_TEST

/* ---- a lost device ---- */

static int train(const char *device, const char *out, const char *more)
{
    return program("train --model " STORIES " --device %s --task t=t.jsonl --per-device-train-batch-size 2 --r 4 --num-experts 3 --learning-rate 1e-2 "
                   "--max-steps 6 --out %s %s", device, out, more);
}

/* Lost early (no checkpoint yet), in the middle, and in a run that was resumed: the run ends as one that was not disturbed. */
START_TEST(a_run_survives_a_lost_device)
{
    char name[32], fault[64];
    if (!vk_test_name(name, sizeof name))
        return;
    FILE *f = fopen("t.jsonl", "w");
    for (int i = 0; i < 12; i++)
        fprintf(f, "{\"prompt\": \"Day %d. \", \"completion\": \"Tom saw %d birds and was glad.\"}\n", i, i * 7 % 5);
    fclose(f);
    ck_assert_msg(train(name, "sound", "--save-steps 2") == 0, "%s", program_err());
    int anew = 0, onward = 0;
    for (int at = 2; at < 60; at += 9) {
        snprintf(fault, sizeof fault, "device-lost@%d", at);
        setenv("MOSLD_FAULT", fault, 1);
        ck_assert_msg(train(name, "lost", "--save-steps 2 --overwrite-output-dir") == 0, "at %d: %s", at, program_err());
        unsetenv("MOSLD_FAULT");
        ck_assert_msg(same_bytes("sound/" ADAPTER, "lost/" ADAPTER), "at %d", at);
        anew += strstr(program_err(), "begins anew") != NULL;
        onward += strstr(program_err(), "goes on from its last checkpoint") != NULL;
        if (strstr(program_err(), "opened again"))
            ck_assert_msg(strstr(program_err(), "stopped answering") && strstr(program_err(), "lockup_timeout"), "%s", program_err());
    }
    ck_assert_int_gt(anew, 0);
    ck_assert_int_gt(onward, 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("watchdog");
    TCase *modules = tcase_create("modules"), *cut = tcase_create("dispatches"), *lost = tcase_create("lost");
    tcase_add_test(modules, every_module_can_be_divided);
    tcase_add_test(modules, a_damaged_module_is_not_divided);
    tcase_set_timeout(cut, 300);
    tcase_add_loop_test(cut, a_long_dispatch_is_cut, 0, 3);
    tcase_add_loop_test(cut, the_cut_adapts_at_once, 0, 2);
    tcase_add_test(cut, long_copies_are_cut);
    tcase_add_test(cut, percentiles);
    tcase_add_checked_fixture(lost, program_folder_make, program_folder_remove);
    tcase_set_timeout(lost, 600);
    tcase_add_test(lost, a_run_survives_a_lost_device);
    suite_add_tcase(suite, modules);
    suite_add_tcase(suite, cut);
    suite_add_tcase(suite, lost);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
