/* tests/test_waiting.c - waiting for a Vulkan device costs the waiting thread no processor time. */
#include "mosld/ops/matmul.h"
#include "tests/support/op_test.h"

#include <check.h>
#include <time.h>

static double seconds(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* A driver that computes on the processor does so in threads of its own, so this thread's time is its own. */
START_TEST(waiting_does_not_spin)
{
    struct rt_device *dev = test_vulkan();
    struct rt_error err;
    const uint32_t n = 512;
    if (!dev)
        return;
    struct rt_span x = test_span(dev, 4ull * n * n, NULL), y = test_span(dev, 4ull * n * n, NULL);
    struct op_weight w = op_weight_f32(test_span(dev, 4ull * n * n, NULL), n, n);
    struct op_matmul m = {.x = x, .x_stride = n, .w = &w, .y = y, .y_stride = n, .rows = n};
    ck_assert_msg(op_matmul_nt(dev, &m, &err) == RT_OK && rt_finish(dev, &err) == RT_OK, "%s", err.text); /* builds the pipeline */
    for (int i = 0; i < 10; i++)
        ck_assert_msg(op_matmul_nt(dev, &m, &err) == RT_OK, "%s", err.text);
    double wall = seconds(CLOCK_MONOTONIC), mine = seconds(CLOCK_THREAD_CPUTIME_ID);
    ck_assert_msg(rt_finish(dev, &err) == RT_OK, "%s", err.text);
    wall = seconds(CLOCK_MONOTONIC) - wall;
    mine = seconds(CLOCK_THREAD_CPUTIME_ID) - mine;
    ck_assert_msg(wall < 0.02 || mine < 0.5 * wall, "waiting %g s took %g s of this thread's time", wall, mine);
    test_check_validation(dev);
    test_release(dev);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("waiting");
    TCase *tc = tcase_create("vulkan");
    tcase_set_timeout(tc, 120);
    tcase_add_test(tc, waiting_does_not_spin);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
