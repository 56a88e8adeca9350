/* tests/test_vulkan_memory.c - memory of a Vulkan device: what is held, what is written in place, what happens when there is none. Each in
 * the ways in which a device may give it: shared with the host, seen through a window, reached by staging alone. */
#include "shaders/test_push.h"
#include "tests/support/vk_test.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

static const char *const ways[] = {"", "-mapped", "-unified", "minimal", "minimal,-mapped"};
#define N_WAYS ((int)(sizeof ways / sizeof *ways))

enum { N = 1000 };

/* What is held, staging included, is counted; what was planned for is what comes. */
START_TEST(memory_is_accounted_for)
{
    struct rt_device *dev = vk_test_open(ways[_i], NULL);
    if (!dev)
        return;
    struct rt_statistics before, held, after;
    struct rt_arena *arena;
    unsigned char *data = calloc(1, 100000);
    rt_get_statistics(dev, &before);
    ck_assert_uint_eq(before.allocated, 0);
    struct rt_span span = vk_test_span(dev, 100000, &arena);
    VK_OK(rt_upload(dev, span, 0, data, 100000, err));
    VK_OK(rt_download(dev, span, 0, data, 100000, err));
    rt_get_statistics(dev, &held);
    uint64_t planned = rt_arena_planned(arena) + rt_reserve(dev);
    ck_assert_msg(held.allocated >= planned && held.allocated <= planned + 65536, "%llu bytes are held, %llu were planned",
                  (unsigned long long)held.allocated, (unsigned long long)planned);
    rt_arena_destroy(&arena);
    rt_get_statistics(dev, &after);
    ck_assert_uint_eq(after.allocated, rt_reserve(dev));
    ck_assert_uint_eq(after.most_allocated, held.allocated);
    free(data);
    vk_test_close(dev);
}
END_TEST

START_TEST(memory_written_in_place)
{
    struct rt_device *dev = vk_test_open(ways[_i], NULL);
    if (!dev)
        return;
    struct rt_arena *arena;
    void *at;
    float x[N], got[N];
    struct rt_span span = vk_test_span(dev, sizeof x, &arena);
    for (int i = 0; i < N; i++)
        x[i] = (float)i;
    VK_OK(rt_write_begin(dev, span, &at, err));
    ck_assert_int_eq(at == NULL, strstr(ways[_i], "-mapped") != NULL);
    if (at)
        memcpy(at, x, sizeof x);
    else
        VK_OK(rt_upload(dev, span, 0, x, sizeof x, err));
    VK_OK(rt_write_end(dev, span, err));
    struct test_push push = {.n = N, .value = 1};
    VK_OK(rt_dispatch(dev, &vk_test_double, &span, &push, (const uint32_t[]){4, 1, 1}, N, err));
    VK_OK(rt_download(dev, span, 0, got, sizeof got, err));
    for (int i = 0; i < N; i++)
        ck_assert_float_eq(got[i], 2 * x[i] + 1);
    rt_arena_destroy(&arena);
    vk_test_close(dev);
}
END_TEST

/* The Nth piece of memory is not given: each time a sentence, and nothing is lost. */
START_TEST(memory_runs_out)
{
    setenv("MOSLD_FAULT", _i == 0 ? "no-memory@1" : "no-memory@2", 1);
    struct rt_device *dev = vk_test_open(_i == 2 ? "-mapped" : "", NULL);
    if (!dev)
        return;
    struct rt_error err = {0};
    struct rt_arena *arena;
    struct rt_span a, b;
    char data[16] = "";
    VK_OK(rt_arena_create(dev, "weights", &arena, err));
    VK_OK(rt_arena_add(arena, 1000, "a", &a, err));
    if (_i == 1) { /* a second buffer */
        struct rt_arena *first;
        vk_test_span(dev, 1000, &first);
        ck_assert_int_eq(rt_arena_commit(arena, &err), RT_NO_MEMORY);
        rt_arena_destroy(&first);
    } else if (_i == 2) { /* staging, which comes at the first transfer that needs it */
        VK_OK(rt_arena_add(arena, 100000, "b", &b, err));
        VK_OK(rt_arena_commit(arena, err));
        ck_assert_int_eq(rt_download(dev, b, 0, data, sizeof data, &err), RT_NO_MEMORY);
        VK_OK(rt_download(dev, b, 0, data, sizeof data, err)); /* once */
    } else
        ck_assert_int_eq(rt_arena_commit(arena, &err), RT_NO_MEMORY);
    ck_assert_msg(strstr(err.text, "MiB") && strstr(err.text, "smaller batch or length"), "%s", err.text);
    rt_arena_destroy(&arena);
    vk_test_close(dev);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("vulkan memory");
    TCase *t = tcase_create("memory");
    tcase_set_timeout(t, 120);
    tcase_add_loop_test(t, memory_is_accounted_for, 0, N_WAYS);
    tcase_add_loop_test(t, memory_written_in_place, 0, N_WAYS);
    tcase_add_loop_test(t, memory_runs_out, 0, 3);
    suite_add_tcase(suite, t);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
