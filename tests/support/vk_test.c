/* tests/support/vk_test.c - see vk_test.h. */
#include "tests/support/vk_test.h"

#include "shaders/test_push.h"
#include "tests/support/skip.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const struct rt_kernel vk_test_add = {
    "test_add", sizeof(struct test_push), 3, {{"x", RT_READ}, {"y", RT_READ}, {"z", RT_WRITE}},
};
const struct rt_kernel vk_test_double = {"test_double", sizeof(struct test_push), 1, {{"x", RT_READ_WRITE}}};
const struct rt_kernel vk_test_slow = {"test_slow", sizeof(struct test_push), 1, {{"x", RT_READ_WRITE}}};

bool vk_test_name(char *name, size_t size)
{
    const char *wanted = getenv("MOSLD_TEST_DEVICE");
    struct rt_device_info *list;
    size_t count;
    char note[256];
    VK_OK(rt_devices_list(&list, &count, note, sizeof note, err));
    bool found = false;
    for (size_t i = 0; i < count && !found && !(wanted && strcmp(wanted, "none") == 0); i++)
        if (list[i].kind == RT_VULKAN && (!wanted || strstr(list[i].name, wanted) || strstr(list[i].driver, wanted))) {
            snprintf(name, size, "%d", list[i].index);
            found = true;
        }
    free(list);
    if (!found)
        test_skipped("no Vulkan device%s%s, so only what runs on the host is tested (%s)", wanted ? " named " : "", wanted ? wanted : "", note);
    return found;
}

struct rt_device *vk_test_open(const char *caps, struct rt_device_params *params)
{
    struct rt_device_params defaults = {.validate = true, .no_pipeline_cache = true};
    char name[32];
    struct rt_device *dev = NULL;
    if (caps)
        setenv("MOSLD_CAPS", caps, 1);
    if (!vk_test_name(name, sizeof name))
        return NULL;
    if (!params)
        params = &defaults;
    params->name = name;
    VK_OK(rt_device_open(params, &dev, err));
    params->name = NULL;
    return dev;
}

void vk_test_close(struct rt_device *dev)
{
    const char *last;
    VK_OK(rt_finish(dev, err));
    unsigned n = rt_validation_messages(dev, &last);
    ck_assert_msg(n == 0, "%u validation messages, the last: %s", n, last);
    rt_device_close(&dev);
}

struct rt_span vk_test_span(struct rt_device *dev, uint64_t size, struct rt_arena **arena)
{
    static struct rt_span spans[64]; /* the commit fills them where they stand */
    static unsigned n;
    struct rt_span *span = &spans[n++ % 64];
    VK_OK(rt_arena_create(dev, "test", arena, err));
    VK_OK(rt_arena_add(*arena, size, "span", span, err));
    VK_OK(rt_arena_commit(*arena, err));
    return *span;
}
