/* tests/test_subgroups.c - MOSLD_CAPS=subgroup=N: every size that the device offers is what its pipelines get, and no other is. */
#include "shaders/test_push.h"
#include "tests/support/vk_test.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { N = 300 };

static const struct rt_kernel subgroup_kernel = {"test_subgroup", sizeof(struct test_push), 1, {{"x", RT_WRITE}}};

/* The size that a kernel sees; 0: the device cannot run it. */
static uint32_t seen_size(struct rt_device *dev)
{
    struct rt_arena *arena;
    struct rt_span x = vk_test_span(dev, N * sizeof(float), &arena);
    struct test_push push = {.n = N};
    float got[N];
    if (!rt_kernel_supported(dev, &subgroup_kernel)) {
        rt_arena_destroy(&arena);
        return 0;
    }
    VK_OK(rt_dispatch(dev, &subgroup_kernel, &x, &push, (const uint32_t[]){2, 1, 1}, 0, err));
    VK_OK(rt_download(dev, x, 0, got, sizeof got, err));
    rt_arena_destroy(&arena);
    for (int i = 1; i < N; i++)
        ck_assert_msg(got[i] == got[0], "subgroups of %g and of %g in one dispatch", got[0], got[i]);
    return (uint32_t)got[0];
}

START_TEST(each_size_that_is_offered_is_what_pipelines_get)
{
    char caps[64];
    struct rt_device *dev = vk_test_open("", NULL);
    if (!dev)
        return;
    struct rt_limits l = rt_device_info(dev)->limits;
    ck_assert_uint_ge(l.subgroup_size, l.subgroup_sizes[0]);
    ck_assert_uint_le(l.subgroup_size, l.subgroup_sizes[1]);
    vk_test_close(dev);
    int tried = 0;
    for (uint32_t size = l.subgroup_sizes[0]; size <= l.subgroup_sizes[1]; size *= 2, tried++) {
        snprintf(caps, sizeof caps, "subgroup=%u", size);
        dev = vk_test_open(caps, NULL);
        ck_assert_uint_eq(rt_device_info(dev)->limits.subgroup_size, size);
        ck_assert_uint_eq(seen_size(dev), size);
        vk_test_close(dev);
    }
    ck_assert_int_gt(tried, 0);
}
END_TEST

/* A device that does not offer it is not there, and the message has the device, the size and what it offers. */
START_TEST(a_size_that_is_not_offered_is_refused_by_name)
{
    char name[32], caps[64], note[512];
    if (!vk_test_name(name, sizeof name))
        return;
    struct rt_device_info *list;
    size_t count;
    VK_OK(rt_devices_list(&list, &count, note, sizeof note, err));
    struct rt_device_info info = {0};
    for (size_t i = 0; i < count; i++)
        if (list[i].kind == RT_VULKAN && list[i].index == atoi(name))
            info = list[i];
    free(list);
    uint32_t size = info.limits.subgroup_sizes[1] < 128 ? 2 * info.limits.subgroup_sizes[1] : info.limits.subgroup_sizes[0] / 2;
    snprintf(caps, sizeof caps, "subgroup=%u", size);
    setenv("MOSLD_CAPS", caps, 1);
    struct rt_device_params params = {.name = name};
    struct rt_device *dev = NULL;
    struct rt_error err = {0};
    ck_assert_int_ne(rt_device_open(&params, &dev, &err), RT_OK);
    ck_assert_ptr_null(dev);
    ck_assert_msg(strstr(err.text, caps) && strstr(err.text, info.name), "%s", err.text);
}
END_TEST

START_TEST(taken_away_there_are_none)
{
    struct rt_device *dev = vk_test_open("-subgroup", NULL);
    if (!dev)
        return;
    ck_assert_uint_eq(rt_device_info(dev)->limits.subgroup_size, 1);
    ck_assert_uint_eq(seen_size(dev), 0);
    vk_test_close(dev);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("subgroups");
    TCase *t = tcase_create("sizes");
    tcase_set_timeout(t, 120);
    tcase_add_test(t, each_size_that_is_offered_is_what_pipelines_get);
    tcase_add_test(t, a_size_that_is_not_offered_is_refused_by_name);
    tcase_add_test(t, taken_away_there_are_none);
    suite_add_tcase(suite, t);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
