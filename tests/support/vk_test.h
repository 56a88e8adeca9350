/* tests/support/vk_test.h - a Vulkan device of a test's own, for tests of the runtime itself.
 *
 * Every Check test runs in a process of its own, so that it may set MOSLD_CAPS and the like before it opens a device. The device is the one
 * that MOSLD_TEST_DEVICE names (part of its name or driver), by default the first. */
#ifndef VK_TEST_H
#define VK_TEST_H

#include "runtime/rt.h"

/* False, and the test program counts as skipped (skip.h), when this machine has no such device. With the environment as it is at the call. */
bool vk_test_name(char *name, size_t size);

/* Opens it under the validation layer with `caps` as MOSLD_CAPS (NULL: leave the environment alone); `params` may be NULL, its name is
 * filled in. NULL where there is none: the test is skipped then. Fails the test when the device does not open. */
struct rt_device *vk_test_open(const char *caps, struct rt_device_params *params);

/* Waits, fails the test if the validation layer has said anything, closes. */
void vk_test_close(struct rt_device *dev);

#define VK_OK(call)                                                                                \
    do {                                                                                           \
        struct rt_error err_ = {0}, *err = &err_;                                                  \
        enum rt_status st_ = (call);                                                               \
        ck_assert_msg(st_ == RT_OK, "%s: status %d: %s", #call, (int)st_, err_.text);              \
    } while (0)

/* One piece of memory in an arena of its own, which is kept in *arena. */
struct rt_span vk_test_span(struct rt_device *dev, uint64_t size, struct rt_arena **arena);

/* The kernels of shaders/test_*.comp; push block: struct test_push of shaders/test_push.h. */
extern const struct rt_kernel vk_test_add;    /* z = x + y + value: bindings x, y, z */
extern const struct rt_kernel vk_test_double; /* x = 2 x + value */
extern const struct rt_kernel vk_test_slow;   /* x = fraction(1.5 x + value), repeated */

#endif
