/* tests/test_vulkan_runtime.c - the Vulkan device from end to end, with small shaders of its own, under the validation layer. */
#include "runtime/vulkan/caps.h"
#include "runtime/vulkan/reflect.h"
#include "runtime/vulkan/shaders.h"
#include "shaders/test_push.h"
#include "tests/support/vk_test.h"

#include <check.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Ways of doing the same thing: what concerns them is tested in each. */
static const char *const ways[] = {"", "minimal", "-mapped", "-unified", "-push-descriptor,-timestamps", "minimal,-mapped"};
#define N_WAYS ((int)(sizeof ways / sizeof *ways))

enum { N = 1000 };

/* x = 2 x + 1, exact in float as long as the values stay below 2^24. */
static void double_it(struct rt_device *dev, struct rt_span x)
{
    struct test_push push = {.n = N, .value = 1};
    VK_OK(rt_dispatch(dev, &vk_test_double, &x, &push, (const uint32_t[]){4, 1, 1}, N, err));
}

static void add(struct rt_device *dev, struct rt_span x, struct rt_span y, struct rt_span z, float value)
{
    struct rt_span spans[] = {x, y, z};
    struct test_push push = {.n = N, .value = value};
    VK_OK(rt_dispatch(dev, &vk_test_add, spans, &push, (const uint32_t[]){4, 1, 1}, N, err));
}

static void upload_counting(struct rt_device *dev, struct rt_span x)
{
    float data[N];
    for (int i = 0; i < N; i++)
        data[i] = (float)i;
    VK_OK(rt_upload(dev, x, 0, data, sizeof data, err));
}

/* ---- kernels in a chain ---- */

/* Ping-pong between x and y: each step reads what the one before wrote and overwrites what the one before read. */
static void chain(struct rt_device *dev, int steps)
{
    struct rt_arena *arenas[3];
    struct rt_span x = vk_test_span(dev, N * sizeof(float), &arenas[0]), y = vk_test_span(dev, N * sizeof(float), &arenas[1]);
    struct rt_span ones = vk_test_span(dev, N * sizeof(float), &arenas[2]);
    float data[N];
    upload_counting(dev, x);
    VK_OK(rt_fill(dev, ones, 0x3f800000, err)); /* 1.0f */
    for (int s = 0; s < steps; s += 2) {
        VK_OK(rt_segment(dev, "a layer", err));
        add(dev, x, ones, y, 2);
        add(dev, y, ones, x, 2);
    }
    VK_OK(rt_download(dev, x, 0, data, sizeof data, err));
    for (int i = 0; i < N; i++)
        ck_assert_msg(data[i] == (float)(i + 3 * steps), "at %d: %g", i, (double)data[i]);
    for (int i = 0; i < 3; i++)
        rt_arena_destroy(&arenas[i]);
}

START_TEST(a_chain_of_dependent_kernels)
{
    struct rt_device *dev = vk_test_open(ways[_i], NULL);
    if (!dev)
        return;
    chain(dev, 600); /* more than a descriptor pool has sets */
    struct rt_statistics s;
    rt_get_statistics(dev, &s);
    ck_assert_uint_eq(s.dispatches, 600);
    ck_assert_uint_ge(s.barriers, 600);
    ck_assert_uint_eq(s.pipelines_built, 1);
    ck_assert(s.submissions > 0 && s.device_seconds > 0 && s.longest_submission > 0);
    ck_assert(s.longest_submission <= s.device_seconds);
    vk_test_close(dev);
}
END_TEST

START_TEST(a_small_budget_cuts_and_changes_nothing)
{
    struct rt_device_params params = {.validate = true, .no_pipeline_cache = true, .submit_budget = 1e-9};
    struct rt_device *dev = vk_test_open(ways[_i], &params);
    if (!dev)
        return;
    chain(dev, 40);
    struct rt_statistics s;
    rt_get_statistics(dev, &s);
    ck_assert_uint_ge(s.submissions, 40); /* a dispatch each */
    vk_test_close(dev);
}
END_TEST

/* A second's work in many dispatches: once the rate is measured, submissions keep near their budget, whatever was guessed. The bound is
 * loose, since cores are shared; without cutting there would be one submission of the whole length. */
START_TEST(long_work_is_cut_by_measured_time)
{
    struct rt_device_params params = {.validate = false, .no_pipeline_cache = true, .submit_budget = 0.02};
    struct rt_device *dev = vk_test_open(_i ? "-timestamps" : "", &params);
    if (!dev)
        return;
    struct rt_arena *arena;
    struct rt_span x = vk_test_span(dev, N * sizeof(float), &arena);
    struct test_push push = {.n = N, .repeat = 20000, .value = 0.25f};
    for (int i = 0; i < 60; i++)
        VK_OK(rt_dispatch(dev, &vk_test_slow, &x, &push, (const uint32_t[]){16, 1, 1}, 2.0 * N * 20000, err));
    VK_OK(rt_finish(dev, err));
    struct rt_statistics s;
    rt_get_statistics(dev, &s);
    ck_assert_uint_ge(s.submissions, 3);
    ck_assert_msg(s.longest_submission < 0.5 * s.device_seconds, "%g of %g s in one submission", s.longest_submission, s.device_seconds);
    rt_arena_destroy(&arena);
    vk_test_close(dev);
}
END_TEST

START_TEST(serialized)
{
    struct rt_device_params params = {.validate = true, .no_pipeline_cache = true, .serialize = true};
    struct rt_device *dev = vk_test_open("", &params);
    if (!dev)
        return;
    chain(dev, 10);
    struct rt_statistics s;
    rt_get_statistics(dev, &s);
    ck_assert_uint_ge(s.submissions, 10);
    vk_test_close(dev);
}
END_TEST

START_TEST(a_grid_without_groups_does_nothing)
{
    struct rt_device *dev = vk_test_open("", NULL);
    if (!dev)
        return;
    struct rt_arena *arena;
    struct rt_span x = vk_test_span(dev, N * sizeof(float), &arena);
    struct test_push push = {.n = N};
    float data[N];
    upload_counting(dev, x);
    for (int i = 0; i < 3; i++) {
        uint32_t groups[3] = {1, 1, 1};
        groups[i] = 0;
        VK_OK(rt_dispatch(dev, &vk_test_double, &x, &push, groups, 0, err));
    }
    VK_OK(rt_download(dev, x, 0, data, sizeof data, err));
    for (int i = 0; i < N; i++)
        ck_assert(data[i] == (float)i);
    struct rt_statistics s;
    rt_get_statistics(dev, &s);
    ck_assert_uint_eq(s.dispatches, 0);
    rt_arena_destroy(&arena);
    vk_test_close(dev);
}
END_TEST

/* ---- memory ---- */

START_TEST(memory_starts_as_zero)
{
    struct rt_device *dev = vk_test_open(ways[_i], NULL);
    if (!dev)
        return;
    for (int round = 0; round < 2; round++) { /* the second time it may get what the first has dirtied */
        struct rt_arena *arena;
        struct rt_span x = vk_test_span(dev, 3 * 256 + 10, &arena);
        unsigned char data[3 * 256 + 10];
        VK_OK(rt_download(dev, x, 0, data, sizeof data, err));
        for (size_t i = 0; i < sizeof data; i++)
            ck_assert_uint_eq(data[i], 0);
        memset(data, 0xaa, sizeof data);
        VK_OK(rt_upload(dev, x, 0, data, sizeof data, err));
        rt_arena_destroy(&arena);
    }
    vk_test_close(dev);
}
END_TEST

/* Any size and offset, also unaligned and larger than staging holds; small ones right after kernels were recorded too. */
START_TEST(upload_and_download)
{
    static const uint64_t pieces[][2] = {{0, 1}, {1, 3}, {4, 4}, {255, 258}, {1024, 65536}, {512, 65540}, {3, 9000001}, {0, 40000000}};
    const uint64_t size = 40000000;
    struct rt_device *dev = vk_test_open(ways[_i], NULL);
    if (!dev)
        return;
    struct rt_arena *arenas[2];
    struct rt_span big = vk_test_span(dev, size, &arenas[0]), x = vk_test_span(dev, N * sizeof(float), &arenas[1]);
    unsigned char *want = calloc(1, size), *got = malloc(size);
    ck_assert(want && got);
    for (size_t p = 0; p < sizeof pieces / sizeof *pieces; p++) {
        uint64_t at = pieces[p][0], n = pieces[p][1];
        for (uint64_t i = 0; i < n; i++)
            want[at + i] = (unsigned char)(i * 31 + p);
        if (p % 2)
            double_it(dev, x); /* so that the device has something to do */
        VK_OK(rt_upload(dev, big, at, want + at, n, err));
        memset(got, 0, n);
        VK_OK(rt_download(dev, big, at, got, n, err));
        ck_assert_msg(memcmp(got, want + at, n) == 0, "piece %zu", p);
    }
    VK_OK(rt_download(dev, big, 0, got, size, err));
    ck_assert(memcmp(got, want, size) == 0);
    free(want);
    free(got);
    rt_arena_destroy(&arenas[0]);
    rt_arena_destroy(&arenas[1]);
    vk_test_close(dev);
}
END_TEST

/* An upload takes its place among the kernels: those before it see the old bytes, those after it the new ones. */
START_TEST(uploads_are_in_order)
{
    struct rt_device *dev = vk_test_open(ways[_i], NULL);
    if (!dev)
        return;
    struct rt_arena *arenas[3];
    struct rt_span x = vk_test_span(dev, N * sizeof(float), &arenas[0]), sum = vk_test_span(dev, N * sizeof(float), &arenas[1]);
    struct rt_span other = vk_test_span(dev, N * sizeof(float), &arenas[2]);
    float data[N];
    for (int round = 1; round <= 5; round++) {
        for (int i = 0; i < N; i++)
            data[i] = (float)(round * i);
        VK_OK(rt_upload(dev, x, 0, data, sizeof data, err));
        add(dev, sum, x, other, 0);
        VK_OK(rt_copy(dev, sum, 0, other, 0, sum.size, err));
    }
    VK_OK(rt_download(dev, sum, 0, data, sizeof data, err));
    for (int i = 0; i < N; i++)
        ck_assert_msg(data[i] == (float)(15 * i), "at %d: %g", i, (double)data[i]);
    for (int i = 0; i < 3; i++)
        rt_arena_destroy(&arenas[i]);
    vk_test_close(dev);
}
END_TEST

START_TEST(fill_and_copy)
{
    struct rt_device *dev = vk_test_open(ways[_i], NULL);
    if (!dev)
        return;
    struct rt_arena *arena;
    struct rt_span x = vk_test_span(dev, 4096, &arena);
    uint32_t data[1024];
    VK_OK(rt_fill(dev, x, 1, err));
    VK_OK(rt_fill(dev, rt_span_part(x, 1024, 512), 2, err));
    VK_OK(rt_copy(dev, x, 2048, x, 1020, 520, err));
    struct rt_error err = {0};
    ck_assert_int_eq(rt_copy(dev, x, 0, x, 4, 1024, &err), RT_FAILED); /* overlaps */
    VK_OK(rt_download(dev, x, 0, data, sizeof data, err));
    for (uint32_t i = 0; i < 1024; i++) {
        bool twos = (i >= 256 && i < 384) || (i >= 513 && i < 641);
        ck_assert_msg(data[i] == (twos ? 2u : 1u), "word %u is %u", i, data[i]);
    }
    rt_arena_destroy(&arena);
    vk_test_close(dev);
}
END_TEST

/* Spans far into a buffer, at every multiple of 256 that a device may ask for, and beyond one binding's range. */
START_TEST(big_offsets)
{
    const uint64_t size = (uint64_t)160 << 20, offsets[] = {256, 512, 4096 + 256, (uint64_t)1 << 27, ((uint64_t)159 << 20) + 768};
    struct rt_device *dev = vk_test_open(ways[_i], NULL);
    if (!dev)
        return;
    struct rt_arena *arena;
    struct rt_span all = vk_test_span(dev, size, &arena);
    float data[N];
    for (size_t o = 0; o < sizeof offsets / sizeof *offsets; o++) {
        struct rt_span x = rt_span_part(all, offsets[o], N * sizeof(float));
        upload_counting(dev, x);
        double_it(dev, x);
        double_it(dev, x);
        VK_OK(rt_download(dev, x, 0, data, sizeof data, err));
        for (int i = 0; i < N; i++)
            ck_assert_msg(data[i] == (float)(4 * i + 3), "offset %llu at %d: %g", (unsigned long long)offsets[o], i, (double)data[i]);
        VK_OK(rt_fill(dev, x, 0, err));
    }
    rt_arena_destroy(&arena);
    vk_test_close(dev);
}
END_TEST

START_TEST(memory_that_is_not_there)
{
    struct rt_device *dev = vk_test_open("memory=1000000,buffer=600000", NULL);
    if (!dev)
        return;
    struct rt_error err = {0};
    struct rt_arena *arena;
    struct rt_span a, b;
    VK_OK(rt_arena_create(dev, "weights", &arena, err));
    ck_assert_int_eq(rt_arena_add(arena, 600001, "too large for a buffer", &a, &err), RT_NO_MEMORY);
    VK_OK(rt_arena_add(arena, 590000, "a", &a, err));
    VK_OK(rt_arena_add(arena, 590000, "b", &b, err));
    ck_assert_int_eq(rt_arena_commit(arena, &err), RT_NO_MEMORY);
    ck_assert(strstr(err.text, "1.0 MiB") || strstr(err.text, "1.1 MiB"));
    rt_arena_destroy(&arena);
    vk_test_close(dev);
}
END_TEST

/* ---- kernels and what a device can run ---- */

static const struct rt_kernel half_kernel = {"test_half", 0, 1, {{"x", RT_READ_WRITE}}};
static const struct rt_kernel large_kernel = {
    "test_five_buffers", 0, 5, {{"a", RT_READ}, {"b", RT_READ}, {"c", RT_READ}, {"d", RT_READ}, {"e", RT_WRITE}},
};

static bool supported_under(const char *caps, const struct rt_kernel *kernel, char *why, size_t size)
{
    struct rt_device *dev = vk_test_open(caps, NULL);
    ck_assert(dev);
    bool can = rt_kernel_supported(dev, kernel);
    struct rt_error err = {0};
    enum rt_status st = rt_kernels_prepare(dev, &kernel, 1, &err);
    ck_assert_msg((st == RT_OK) == can && (st == RT_OK || st == RT_NO_DEVICE), "%s under %s: %d %s", kernel->name, caps, st, err.text);
    snprintf(why, size, "%s", err.text);
    vk_test_close(dev);
    return can;
}

START_TEST(what_a_clamped_device_can_run)
{
    char name[32], why[1024];
    if (!vk_test_name(name, sizeof name))
        return;
    bool whole = supported_under("", &half_kernel, why, sizeof why), large = supported_under("", &large_kernel, why, sizeof why);
    if (!whole) /* a device without 16-bit types, such as SwiftShader */
        ck_assert_msg(strstr(why, "16-bit") != NULL || large, "%s", why);
    ck_assert(!supported_under("-fp16", &half_kernel, why, sizeof why) && strstr(why, "test_half") && strstr(why, "16-bit"));
    ck_assert(!supported_under("-fp16-arithmetic", &half_kernel, why, sizeof why));
    ck_assert(!supported_under("-fp16-storage", &half_kernel, why, sizeof why));
    ck_assert_int_eq(supported_under("-subgroup,-int8", &half_kernel, why, sizeof why), whole);
    ck_assert(!supported_under("minimal", &large_kernel, why, sizeof why));
    ck_assert(!supported_under("buffers=4", &large_kernel, why, sizeof why) && strstr(why, "5 storage buffers"));
    ck_assert(!supported_under("shared=20479", &large_kernel, why, sizeof why) && strstr(why, "20480 bytes of shared"));
    ck_assert(!supported_under("invocations=255", &large_kernel, why, sizeof why) && strstr(why, "256 invocations"));
    ck_assert(!supported_under("push=8", &vk_test_add, why, sizeof why) && strstr(why, "push constants"));
    ck_assert(supported_under("minimal", &vk_test_add, why, sizeof why));
}
END_TEST

START_TEST(kernels_that_are_wrong)
{
    static const struct rt_kernel unknown = {"no_such_kernel", 0, 1, {{"x", RT_READ}}};
    static const struct rt_kernel hidden_write = {"test_double", sizeof(struct test_push), 1, {{"x", RT_READ}}};
    static const struct rt_kernel hidden_read = {"test_double", sizeof(struct test_push), 1, {{"x", RT_WRITE}}};
    static const struct rt_kernel few = {"test_add", sizeof(struct test_push), 2, {{"x", RT_READ}, {"y", RT_READ}}};
    static const struct rt_kernel no_push = {"test_double", 0, 1, {{"x", RT_READ_WRITE}}};
    static const struct {
        const struct rt_kernel *kernel;
        const char *text;
    } cases[] = {{&unknown, "no_such_kernel"}, {&hidden_write, "writes binding 0 (x)"}, {&hidden_read, "reads binding 0 (x)"},
                 {&few, "storage buffers"}, {&no_push, "push constants"}};
    struct rt_device *dev = vk_test_open("", NULL);
    if (!dev)
        return;
    struct rt_arena *arena;
    struct rt_span x = vk_test_span(dev, N * sizeof(float), &arena), spans[] = {x, x};
    struct test_push push = {.n = N};
    ck_assert(!rt_kernel_supported(dev, &unknown));
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct rt_error err = {0};
        ck_assert_int_ne(rt_kernels_prepare(dev, &cases[i].kernel, 1, &err), RT_OK);
        ck_assert_msg(strstr(err.text, cases[i].text) != NULL, "%s", err.text);
        err = (struct rt_error){0};
        ck_assert_int_ne(rt_dispatch(dev, cases[i].kernel, spans, &push, (const uint32_t[]){1, 1, 1}, 0, &err), RT_OK);
        ck_assert_msg(strstr(err.text, cases[i].text) != NULL, "%s", err.text);
    }
    double_it(dev, x); /* and the device still works */
    rt_arena_destroy(&arena);
    vk_test_close(dev);
}
END_TEST

START_TEST(pipelines_are_built_once)
{
    static const struct rt_kernel *const kernels[] = {&vk_test_add, &vk_test_double, &vk_test_slow, &vk_test_add};
    struct rt_device *dev = vk_test_open("", NULL);
    if (!dev)
        return;
    struct rt_statistics s;
    for (int i = 0; i < 2; i++) {
        VK_OK(rt_kernels_prepare(dev, kernels, 4, err));
        rt_get_statistics(dev, &s);
        ck_assert_uint_eq(s.pipelines_built, 3);
    }
    chain(dev, 2);
    rt_get_statistics(dev, &s);
    ck_assert_uint_eq(s.pipelines_built, 3);
    VK_OK(rt_kernels_prepare(dev, NULL, 0, err));
    vk_test_close(dev);
}
END_TEST

START_TEST(two_devices_at_once)
{
    struct rt_device_params plain = {.no_pipeline_cache = true};
    struct rt_device *a = vk_test_open("", NULL), *b = a ? vk_test_open("minimal", &plain) : NULL;
    if (!a)
        return;
    chain(a, 4);
    chain(b, 4);
    ck_assert_uint_eq(rt_validation_messages(b, NULL), 0);
    vk_test_close(a);
    chain(b, 4);
    vk_test_close(b);
}
END_TEST

/* What the layer says while the device is closed, by which time nobody can ask it: it then prints. `leak`: an arena is left. */
static bool closing_is_silent(bool leak)
{
    char path[] = "/tmp/mosld-stderr-XXXXXX", text[4096] = "";
    int fd = mkstemp(path), kept = dup(STDERR_FILENO);
    ck_assert(fd >= 0 && kept >= 0);
    unlink(path);
    setenv("MOSLD_VALIDATE", "1", 1);
    struct rt_device *dev = vk_test_open("-mapped,-push-descriptor", NULL);
    ck_assert(dev);
    static struct rt_arena *arena; /* static: a leak for Vulkan, but none that LeakSanitizer counts */
    chain(dev, 300);
    vk_test_span(dev, 4096, &arena);
    VK_OK(rt_finish(dev, err));
    fflush(stderr);
    dup2(fd, STDERR_FILENO);
    if (!leak)
        rt_arena_destroy(&arena);
    rt_device_close(&dev);
    fflush(stderr);
    dup2(kept, STDERR_FILENO);
    ck_assert(pread(fd, text, sizeof text - 1, 0) >= 0);
    close(fd);
    close(kept);
    return strstr(text, "validation:") == NULL;
}

START_TEST(closing_leaves_nothing_behind)
{
    char name[32];
    if (!vk_test_name(name, sizeof name))
        return;
    ck_assert(closing_is_silent(false));
    ck_assert(!closing_is_silent(true)); /* so its silence means something */
}
END_TEST

/* ---- clamps ---- */

START_TEST(clamps_are_read)
{
    static const char *const wrong[] = {"nonsense", "-nonsense", "shared", "shared=", "shared=x", "shared=-4", "shared=0", "colour=4", "minimal,oops",
                                         "subgroup=12", "subgroup=256", "subgroup=0", "subgroup=8,-subgroup", "minimal,subgroup=8"};
    struct caps_clamp clamp;
    struct rt_error err;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        err = (struct rt_error){0};
        ck_assert_msg(caps_parse(wrong[i], &clamp, &err) == RT_USAGE, "%s", wrong[i]);
        ck_assert_msg(strstr(err.text, "MOSLD_CAPS"), "%s", err.text);
    }
    VK_OK(caps_parse("-fp16,shared=16384,range=134217728,", &clamp, err));
    struct rt_device_info info = {.caps = ~0u, .limits = {.max_shared = 65536, .max_range = 1u << 20, .offset_align = 4, .subgroup_size = 32}};
    caps_apply(&clamp, &info);
    ck_assert(!(info.caps & (RT_CAP_FP16_STORAGE | RT_CAP_FP16_ARITHMETIC)) && (info.caps & RT_CAP_SUBGROUP));
    ck_assert_uint_eq(info.limits.max_shared, 16384);
    ck_assert_uint_eq(info.limits.max_range, 1u << 20); /* never raised */
    ck_assert_uint_eq(info.limits.subgroup_size, 32);
    VK_OK(caps_parse("minimal", &clamp, err));
    caps_apply(&clamp, &info);
    ck_assert_uint_eq(info.caps, 0);
    ck_assert_uint_eq(info.limits.offset_align, 256);
    ck_assert_uint_eq(info.limits.subgroup_size, 1);
}
END_TEST

START_TEST(an_unknown_clamp_is_a_usage_error)
{
    struct rt_error err = {0};
    struct rt_device *dev = NULL;
    setenv("MOSLD_CAPS", "minimum", 1);
    ck_assert_int_eq(rt_device_open(NULL, &dev, &err), RT_USAGE);
    ck_assert(dev == NULL && strstr(err.text, "'minimum'"));
}
END_TEST

/* ---- reflection ---- */

static const struct rt_shader *shader(const char *name)
{
    for (size_t i = 0; i < rt_n_shaders; i++)
        if (strcmp(rt_shaders[i].name, name) == 0)
            return &rt_shaders[i];
    ck_abort_msg("%s is not embedded", name);
    return NULL;
}

START_TEST(reflection_of_known_shaders)
{
    struct reflection r;
    const struct rt_shader *s = shader("test_add");
    ck_assert(reflect_spirv(s->words, s->n_words, &r));
    ck_assert_uint_eq(r.caps, 0);
    ck_assert_uint_eq(r.n_bindings, 3);
    ck_assert_uint_eq(r.access[0], RT_READ);
    ck_assert_uint_eq(r.access[1], RT_READ);
    ck_assert_uint_eq(r.access[2], RT_WRITE);
    ck_assert_uint_eq(r.push_bytes, sizeof(struct test_push));
    ck_assert(r.local_size[0] == 64 && r.local_size[1] == 1 && r.local_size[2] == 1 && r.shared_bytes == 0);
    s = shader("test_five_buffers");
    ck_assert(reflect_spirv(s->words, s->n_words, &r));
    ck_assert_uint_eq(r.n_bindings, 5);
    ck_assert_uint_eq(r.shared_bytes, 20480);
    ck_assert_uint_eq(r.local_size[0], 256);
    s = shader("test_half");
    ck_assert(reflect_spirv(s->words, s->n_words, &r));
    ck_assert_uint_eq(r.caps, RT_CAP_FP16_STORAGE | RT_CAP_FP16_ARITHMETIC);
    ck_assert_uint_eq(r.access[0], RT_READ_WRITE);
}
END_TEST

START_TEST(every_embedded_shader_is_understood)
{
    for (size_t i = 0; i < rt_n_shaders; i++) {
        struct reflection r;
        const char *name = rt_shaders[i].name;
        ck_assert_msg(reflect_spirv(rt_shaders[i].words, rt_shaders[i].n_words, &r), "%s", name);
        ck_assert_msg(r.unknown_capability == 0, "%s: capability %u", name, r.unknown_capability);
        ck_assert_msg(r.local_size[0] && r.local_size[1] && r.local_size[2] && !r.other_sets, "%s", name);
        ck_assert_msg(i == 0 || strcmp(rt_shaders[i - 1].name, name) < 0, "%s: not sorted", name);
    }
}
END_TEST

/* Each prefix and each word spoiled in turn: no crash, no read beyond the end. */
START_TEST(damaged_spirv)
{
    const struct rt_shader *s = shader("test_five_buffers");
    struct reflection r;
    for (size_t n = 0; n < s->n_words; n++) {
        uint32_t *copy = calloc(n ? n : 1, sizeof *copy); /* exactly so long, for the address sanitizer */
        memcpy(copy, s->words, n * sizeof *copy);
        reflect_spirv(copy, n, &r);
        free(copy);
    }
    uint32_t *copy = malloc(s->n_words * sizeof *copy);
    memcpy(copy, s->words, s->n_words * sizeof *copy);
    for (size_t i = 0; i < s->n_words; i++) {
        static const uint32_t spoil[] = {0, 0xffffffff, 0x7fffffff, 0x00010041, 0x0003003e};
        for (size_t k = 0; k < sizeof spoil / sizeof *spoil; k++) {
            copy[i] = spoil[k];
            reflect_spirv(copy, s->n_words, &r);
        }
        copy[i] = s->words[i];
    }
    free(copy);
    ck_assert(!reflect_spirv(s->words, 6, &r)); /* within the first instruction */
}
END_TEST

/* ---- the pipeline cache ---- */

static char cache_folder[64];

/* The one file in the cache folder, read whole. */
static size_t read_cache(char *path, size_t path_size, unsigned char *data, size_t size)
{
    char folder[100];
    snprintf(folder, sizeof folder, "%s/mosld", cache_folder);
    DIR *d = opendir(folder);
    ck_assert(d != NULL);
    int files = 0;
    for (struct dirent *e; (e = readdir(d)) != NULL;)
        if (e->d_name[0] != '.') {
            snprintf(path, path_size, "%s/%s", folder, e->d_name);
            files++;
        }
    closedir(d);
    ck_assert_int_eq(files, 1); /* no temporary file is left either */
    FILE *f = fopen(path, "rb");
    ck_assert(f != NULL);
    size_t n = fread(data, 1, size, f);
    fclose(f);
    return n;
}

static void write_cache(const char *path, const unsigned char *data, size_t n)
{
    FILE *f = fopen(path, "wb");
    ck_assert(f != NULL && fwrite(data, 1, n, f) == n && fclose(f) == 0);
}

static bool run_with_cache(void)
{
    struct rt_device_params params = {.validate = true};
    struct rt_device *dev = vk_test_open("", &params);
    if (!dev)
        return false;
    chain(dev, 2);
    vk_test_close(dev);
    return true;
}

START_TEST(a_damaged_cache_is_ignored_and_replaced)
{
    static unsigned char good[1 << 20], now[1 << 20];
    char path[600];
    strcpy(cache_folder, "/tmp/mosld-cache-XXXXXX");
    ck_assert(mkdtemp(cache_folder) != NULL);
    setenv("XDG_CACHE_HOME", cache_folder, 1);
    if (!run_with_cache()) {
        rmdir(cache_folder);
        return;
    }
    size_t n = read_cache(path, sizeof path, good, sizeof good);
    ck_assert_uint_gt(n, 24);
    static const char *const damage[] = {"cut", "empty", "a byte", "its length", "the driver's header", "another file"};
    for (size_t i = 0; i < sizeof damage / sizeof *damage; i++) {
        memcpy(now, good, n);
        size_t size = i == 0 ? n - 1 : i == 1 ? 0 : n;
        if (i == 2)
            now[n - 1] ^= 1;
        if (i == 3)
            memset(now + 8, 0xff, 8);
        if (i == 4)
            now[24 + 16] ^= 0xff;
        if (i == 5)
            memset(now, 'x', n);
        write_cache(path, now, size);
        ck_assert(run_with_cache());
        size_t after = read_cache(path, sizeof path, now, sizeof now);
        ck_assert_msg(after == n && memcmp(now, good, 24) == 0, "%s: it was not replaced", damage[i]);
    }
    unlink(path);
    char folder[100];
    snprintf(folder, sizeof folder, "%s/mosld", cache_folder);
    rmdir(folder);
    rmdir(cache_folder);
}
END_TEST

START_TEST(no_place_for_a_cache_is_no_failure)
{
    setenv("XDG_CACHE_HOME", _i == 0 ? "/proc/nowhere" : "", 1);
    setenv("HOME", _i == 0 ? "/root" : "/nonexistent/home", 1);
    run_with_cache();
}
END_TEST

/* ---- a lost device ---- */

START_TEST(a_lost_device_says_what_ran)
{
    setenv("MOSLD_FAULT", "device-lost@3", 1);
    struct rt_device_params params = {.validate = true, .no_pipeline_cache = true, .submit_budget = 1e-9};
    struct rt_device *dev = vk_test_open(ways[_i], &params);
    if (!dev)
        return;
    struct rt_arena *arena;
    struct rt_span x;
    struct rt_error err = {0};
    float data[4];
    struct test_push push = {.n = 4};
    const uint32_t groups[3] = {1, 1, 1};
    VK_OK(rt_arena_create(dev, "test", &arena, err));
    VK_OK(rt_arena_add(arena, 4096, "x", &x, err));
    VK_OK(rt_arena_commit(arena, err));
    VK_OK(rt_finish(dev, err)); /* submission 1: the fill */
    enum rt_status st = RT_OK;
    static const char *const labels[] = {"embedding", "layer 0 forward", "layer 1 forward", "layer 2 forward"};
    for (int i = 0; i < 4 && st == RT_OK; i++) {
        st = rt_segment(dev, labels[i], &err);
        if (st == RT_OK)
            st = rt_dispatch(dev, &vk_test_double, &x, &push, groups, 1, &err);
    }
    ck_assert_int_eq(st, RT_DEVICE_LOST);
    ck_assert_msg(strstr(err.text, "layer 0 forward") && strstr(err.text, "lockup_timeout"), "%s", err.text);
    ck_assert_int_eq(rt_finish(dev, &err), RT_DEVICE_LOST);
    ck_assert_msg(strstr(err.text, "layer 0 forward") != NULL, "%s", err.text);
    ck_assert_int_eq(rt_dispatch(dev, &vk_test_double, &x, &push, groups, 1, &err), RT_DEVICE_LOST);
    ck_assert_int_eq(rt_upload(dev, x, 0, data, 16, &err), RT_DEVICE_LOST);
    ck_assert_int_eq(rt_download(dev, x, 0, data, 16, &err), RT_DEVICE_LOST);
    ck_assert_int_eq(rt_fill(dev, x, 0, &err), RT_DEVICE_LOST);
    ck_assert_int_eq(rt_segment(dev, "later", NULL), RT_OK);
    rt_arena_destroy(&arena);
    rt_device_close(&dev); /* and nothing hangs */
}
END_TEST

/* ---- all of them ---- */

static TCase *group(Suite *suite, const char *name)
{
    TCase *tcase = tcase_create(name);
    tcase_set_timeout(tcase, 180);
    suite_add_tcase(suite, tcase);
    return tcase;
}

int main(void)
{
    Suite *suite = suite_create("vulkan runtime");
    TCase *t = group(suite, "kernels");
    tcase_add_loop_test(t, a_chain_of_dependent_kernels, 0, N_WAYS);
    tcase_add_loop_test(t, a_small_budget_cuts_and_changes_nothing, 0, N_WAYS);
    tcase_add_loop_test(t, long_work_is_cut_by_measured_time, 0, 2);
    tcase_add_test(t, serialized);
    tcase_add_test(t, a_grid_without_groups_does_nothing);
    tcase_add_test(t, what_a_clamped_device_can_run);
    tcase_add_test(t, kernels_that_are_wrong);
    tcase_add_test(t, pipelines_are_built_once);
    tcase_add_test(t, two_devices_at_once);
    tcase_add_test(t, closing_leaves_nothing_behind);
    t = group(suite, "memory");
    tcase_add_loop_test(t, memory_starts_as_zero, 0, N_WAYS);
    tcase_add_loop_test(t, upload_and_download, 0, N_WAYS);
    tcase_add_loop_test(t, uploads_are_in_order, 0, N_WAYS);
    tcase_add_loop_test(t, fill_and_copy, 0, N_WAYS);
    tcase_add_loop_test(t, big_offsets, 0, N_WAYS);
    tcase_add_test(t, memory_that_is_not_there);
    t = group(suite, "clamps and reflection");
    tcase_add_test(t, clamps_are_read);
    tcase_add_test(t, an_unknown_clamp_is_a_usage_error);
    tcase_add_test(t, reflection_of_known_shaders);
    tcase_add_test(t, every_embedded_shader_is_understood);
    tcase_add_test(t, damaged_spirv);
    t = group(suite, "cache");
    tcase_add_test(t, a_damaged_cache_is_ignored_and_replaced);
    tcase_add_loop_test(t, no_place_for_a_cache_is_no_failure, 0, 2);
    t = group(suite, "loss");
    tcase_add_loop_test(t, a_lost_device_says_what_ran, 0, N_WAYS);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
