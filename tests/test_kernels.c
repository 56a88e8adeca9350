/* tests/test_kernels.c - mosld kernels, and what it stands on: devices that only compile, and what drivers tell of kernels. */
#include "mosld/ops/choice.h"
#include "mosld/ops/op.h"
#include "runtime/rt.h"
#include "tests/support/program.h"
#include "tests/support/skip.h"
#include "tests/support/vk_test.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *text(const cJSON *object, const char *key)
{
    const cJSON *item = cJSON_GetObjectItem(object, key);
    ck_assert_msg(cJSON_IsString(item), "%s is no string", key);
    return item->valuestring;
}

static double number(const cJSON *object, const char *key)
{
    const cJSON *item = cJSON_GetObjectItem(object, key);
    ck_assert_msg(cJSON_IsNumber(item), "%s is no number", key);
    return item->valuedouble;
}

/* Rows of `op`, or of all where it is NULL. */
static int rows(const cJSON *root, const char *op)
{
    int n = 0;
    const cJSON *k;
    cJSON_ArrayForEach(k, cJSON_GetObjectItem(root, "kernels"))
        n += !op || strcmp(text(k, "op"), op) == 0;
    return n;
}

static void every_op_is_there(const cJSON *root)
{
    for (const struct op *const *op = op_table; *op; op++)
        ck_assert_msg((*op)->optional || rows(root, (*op)->name) > 0, "%s has nothing to run", (*op)->name);
}


START_TEST(lists_what_each_op_would_run)
{
    char name[32];
    if (!vk_test_name(name, sizeof name))
        return;
    cJSON *root = program_json(program("kernels --device %s --compile-only --json", name)), *k, *e;
    bool statistics = cJSON_IsTrue(cJSON_GetObjectItem(root, "statistics"));
    every_op_is_there(root);
    cJSON_ArrayForEach(k, cJSON_GetObjectItem(root, "kernels")) {
        ck_assert(cJSON_IsTrue(cJSON_GetObjectItem(k, "taken")));
        cJSON *group = cJSON_GetObjectItem(k, "workgroup"), *executables = cJSON_GetObjectItem(k, "executables");
        double invocations = 1;
        for (int i = 0; i < 3; i++)
            invocations *= cJSON_GetArrayItem(group, i)->valuedouble;
        ck_assert(invocations >= 1 && invocations <= 128); /* the floor, which every kernel keeps */
        ck_assert(number(k, "shared_bytes") <= 16384 && number(k, "push_bytes") <= 128 && number(k, "storage_buffers") <= (op_find(text(k, "op"))->optional ? 8 : 4));
        ck_assert_int_eq(statistics, cJSON_GetArraySize(executables) > 0);
        cJSON_ArrayForEach(e, executables)
            ck_assert(cJSON_GetArraySize(cJSON_GetObjectItem(e, "statistics")) > 0);
    }
    cJSON_Delete(root);
    ck_assert_int_eq(program("kernels --device %s", name), 0);
    ck_assert(statistics == !strstr(program_out(), "VK_KHR_pipeline_executable_properties"));
    ck_assert(strstr(program_out(), "attention_dkv.64"));
}
END_TEST

START_TEST(options_choose_the_rows)
{
    char name[32];
    if (!vk_test_name(name, sizeof name))
        return;
    cJSON *all = program_json(program("kernels --device %s --all --json", name));
    cJSON *few = program_json(program("kernels --device %s --ops embedding,matmul_nt --weights q4_1 --json", name)), *k;
    ck_assert_int_gt(rows(all, NULL), rows(few, NULL));
    ck_assert_int_eq(rows(few, "embedding"), 1);
    ck_assert_int_ge(rows(few, "matmul_nt"), 1);
    ck_assert_int_eq(rows(few, "embedding") + rows(few, "matmul_nt"), rows(few, NULL));
    cJSON_ArrayForEach(k, cJSON_GetObjectItem(few, "kernels"))
        ck_assert(strstr(text(k, "kernel"), ".q4_1"));
    cJSON_Delete(all);
    cJSON_Delete(few);
    program_failed_as(program("kernels --device %s --weights q9", name), 2, "q9", "q4_1", NULL);
    program_failed_as(program("kernels --device %s --ops conv", name), 2, "conv", NULL);
    program_failed_as(program("kernels --device %s --assembly conv", name), 2, "conv", "--all", NULL);
}
END_TEST

START_TEST(the_host_runs_functions)
{
    cJSON *root = program_json(program("kernels --device host --json")), *k;
    every_op_is_there(root);
    cJSON_ArrayForEach(k, cJSON_GetObjectItem(root, "kernels"))
        ck_assert(cJSON_IsNull(cJSON_GetObjectItem(k, "kernel")));
    cJSON_Delete(root);
}
END_TEST

/* Whatever a device lacks, each op has something left that runs: one clamp at a time, and all of them at once. */
static const char *const clamps[] = {
    "minimal", "-fp16", "-fp16-storage", "-fp16-arithmetic", "-int8", "-int16", "-subgroup", "-subgroup-size", "-integer-dot",
    "-cooperative-matrix", "-push-descriptor", "-memory-budget", "-buffer-address", "-timestamps", "-mapped", "shared=16384", "invocations=128",
    "buffers=4", "push=128", "range=33554432", "allocation=67108864",
    "-fp16,-int8,-int16,-subgroup,-integer-dot,-cooperative-matrix,-push-descriptor,-buffer-address,shared=16384,invocations=128,buffers=4,push=128",
};

START_TEST(under_each_clamp_every_op_has_a_kernel)
{
    char name[32];
    if (!vk_test_name(name, sizeof name))
        return;
    ck_assert_int_eq(setenv("MOSLD_CAPS", clamps[_i], 1), 0);
    cJSON *root = program_json(program("kernels --device %s --weights q4_1 --json", name));
    every_op_is_there(root);
    cJSON_Delete(root);
}
END_TEST

START_TEST(a_device_that_is_too_small_is_refused)
{
    char name[32];
    if (!vk_test_name(name, sizeof name))
        return;
    ck_assert_int_eq(setenv("MOSLD_CAPS", "invocations=64", 1), 0);
    program_failed_as(program("kernels --device %s", name), 4, "cannot run", "no variant", NULL);
}
END_TEST

/* What a compile-only device must do, and what it must refuse; silently under the validation layer. */
START_TEST(to_compile_needs_nothing_that_runs)
{
    struct rt_device *dev =
        vk_test_open(NULL, &(struct rt_device_params){.validate = true, .compile_only = true, .capture = RT_CAPTURE_ASSEMBLY});
    if (!dev)
        return;
    struct rt_kernel_description *d;
    VK_OK(rt_kernel_describe(dev, &vk_test_add, &d, err));
    ck_assert_uint_eq(d->storage_buffers, 3);
    ck_assert_uint_gt(d->spirv_bytes, 100);
    ck_assert_int_eq(d->reported, d->n_executables > 0);
    for (size_t e = 0; e < d->n_executables; e++)
        ck_assert(d->executables[e].n_statistics > 0);
    rt_kernel_description_free(&d);
    ck_assert_ptr_null(d);
    static struct rt_span span;
    struct rt_arena *arena;
    struct rt_error why = {0};
    VK_OK(rt_arena_create(dev, "test", &arena, err));
    VK_OK(rt_arena_add(arena, 256, "span", &span, err));
    ck_assert_int_eq(rt_arena_commit(arena, &why), RT_FAILED);
    ck_assert_msg(strstr(why.text, "compile only"), "%s", why.text);
    rt_arena_destroy(&arena);
    const char *last;
    ck_assert_msg(rt_validation_messages(dev, &last) == 0, "%s", last);
    rt_device_close(&dev);
}
END_TEST

START_TEST(an_ordinary_device_describes_without_statistics)
{
    struct rt_device *dev = vk_test_open(NULL, NULL);
    if (!dev)
        return;
    struct rt_kernel_description *d;
    VK_OK(rt_kernel_describe(dev, &vk_test_double, &d, err));
    ck_assert(!d->reported && d->n_executables == 0 && d->workgroup[0] > 0);
    rt_kernel_description_free(&d);
    static const struct rt_kernel none = {.name = "no_such_kernel", .n_bindings = 1, .bindings = {{"x", RT_READ}}};
    struct rt_error why = {0};
    ck_assert_int_eq(rt_kernel_describe(dev, &none, &d, &why), RT_NO_DEVICE);
    ck_assert_ptr_null(d);
    ck_assert(strstr(why.text, "no_such_kernel"));
    vk_test_close(dev);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("kernels");
    TCase *t = tcase_create("kernels");
    tcase_set_timeout(t, 300);
    tcase_add_checked_fixture(t, program_folder_make, program_folder_remove);
    tcase_add_test(t, lists_what_each_op_would_run);
    tcase_add_test(t, options_choose_the_rows);
    tcase_add_test(t, the_host_runs_functions);
    tcase_add_loop_test(t, under_each_clamp_every_op_has_a_kernel, 0, sizeof clamps / sizeof *clamps);
    tcase_add_test(t, a_device_that_is_too_small_is_refused);
    tcase_add_test(t, to_compile_needs_nothing_that_runs);
    tcase_add_test(t, an_ordinary_device_describes_without_statistics);
    suite_add_tcase(suite, t);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
