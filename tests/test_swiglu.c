/* tests/test_swiglu.c - swiglu and its gradient: differences of the reference, then every variant against it. */
#include "mosld/ops/swiglu.h"
#include "shaders/swiglu.h"
#include "tests/support/gradient.h"
#include "tests/support/op_test.h"

#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

extern const struct op op_swiglu_desc, op_swiglu_bwd_desc;

/* The last is more than one grid holds. F that is and is not a multiple of 4, since those are different kernels. */
static const struct {
    uint32_t T, F;
} shapes[] = {{0, 8}, {1, 1}, {3, 5}, {2, 127}, {5, 132}, {7, 1536}, {3, 90001}};

START_TEST(gradient_is_the_slope)
{
    struct swiglu_push p = {.T = 3, .F = 4};
    double *gu = test_doubles(24, 1, 2), *h = test_doubles(12, 2, 1), *dh = test_doubles(12, 3, 1),
           *dgu = test_doubles(24, 4, 1);
    op_swiglu_bwd_desc.ref((void *[]){gu, dh, dgu}, &p);
    double dh_then_h[12], dgu_again[24];
    memcpy(dh_then_h, dh, sizeof dh_then_h);
    op_swiglu_bwd_desc.ref((void *[]){gu, dh_then_h, dgu_again}, &(struct swiglu_push){3, 4, .again = 1});
    op_swiglu_desc.ref((void *[]){gu, h}, &p);
    ck_assert_mem_eq(dgu_again, dgu, sizeof dgu_again);
    for (int i = 0; i < 12; i++)
        ck_assert_msg(fabs(dh_then_h[i] - h[i]) < 1e-15, "h[%d]: want %.17g, got %.17g", i, h[i], dh_then_h[i]);
    struct gradient_check c = {.op = &op_swiglu_desc,
                               .bindings = (void *[]){gu, h},
                               .push = &p,
                               .input = 0,
                               .output = 1,
                               .n_input = 24,
                               .n_output = 12,
                               .d_output = dh,
                               .d_input = dgu};
    test_gradient("swiglu", &c, 1e-8);
    free(gu), free(h), free(dh), free(dgu);
}
END_TEST

static void variants_agree_at(uint32_t i)
{
    struct swiglu_push p = {.T = shapes[i].T, .F = shapes[i].F};
    uint64_t n = (uint64_t)p.T * p.F;
    char label[64];
    snprintf(label, sizeof label, "T %u F %u", p.T, p.F);
    /* A handful of roundings of 6e-8, and an exponential that Vulkan lets be off by 3 + 2 |x| units in the last place:
     * 2e-6 at |x| = 8. */
    struct op_case c = {.label = label,
                        .push = &p,
                        .atol = 1e-6,
                        .rtol = 4e-6,
                        .seed = n,
                        .b = {{.n = 2 * n, .lo = -8, .hi = 8}, {.n = n}}};
    op_test_run(&op_swiglu_desc, &c);
    struct op_case b = {.label = label,
                        .push = &p,
                        .atol = 2e-6,
                        .rtol = 1e-5,
                        .seed = n, /* 1 - s takes away digits */
                        .b = {{.n = 2 * n, .lo = -8, .hi = 8}, {.n = n}, {.n = 2 * n}}};
    op_test_run(&op_swiglu_bwd_desc, &b);
    p.again = 1;
    op_test_run(&op_swiglu_bwd_desc, &b);
}

START_TEST(variants_agree)
{
    for (uint32_t i = 0; i < OP_COUNT(shapes); i++)
        variants_agree_at(i);
}
END_TEST

/* exp(-g) of a very negative gate overflows f32; the result is a zero, never a NaN. */
START_TEST(large_gates_are_harmless)
{
    struct swiglu_push p = {.T = 1, .F = 6};
    const float gu[] = {-1e4f, -200, -90, 90, 200, 1e4f, 1, 1, 1, 1, 1, 1};
    struct op_case c = {.label = "large gates",
                        .push = &p,
                        .atol = 1e-6,
                        .rtol = 1e-6,
                        .b = {{.n = 12, .values = gu}, {.n = 6}}};
    op_test_run(&op_swiglu_desc, &c);
    struct op_case b = {.label = "large gates",
                        .push = &p,
                        .atol = 1e-6,
                        .rtol = 1e-6,
                        .b = {{.n = 12, .values = gu}, {.n = 6}, {.n = 12}}};
    op_test_run(&op_swiglu_bwd_desc, &b);
    p.again = 1;
    op_test_run(&op_swiglu_bwd_desc, &b);
}
END_TEST

START_TEST(memory_that_is_too_small_is_refused)
{
    struct rt_device *dev = test_host();
    struct rt_error err = {0};
    struct rt_span small = test_span(dev, 4 * 8, NULL), large = test_span(dev, 4 * 16, NULL);
    ck_assert_int_eq(op_swiglu(dev, large, small, 2, 4, &err), RT_OK);
    ck_assert_int_eq(op_swiglu(dev, small, large, 512, 4, &err), RT_FAILED);
    ck_assert_ptr_nonnull(strstr(err.text, "gu"));
    ck_assert_int_eq(op_swiglu(dev, large, large, 1, 0x80000001u, &err), RT_FAILED);
    ck_assert_int_eq(op_swiglu_bwd(dev, large, large, small, 512, 4, false, &err), RT_FAILED);
    test_release(dev);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("swiglu");
    TCase *tc = tcase_create("all");
    tcase_set_timeout(tc, 120);
    tcase_add_test(tc, gradient_is_the_slope);
    tcase_add_test(tc, variants_agree);
    tcase_add_test(tc, large_gates_are_harmless);
    tcase_add_test(tc, memory_that_is_too_small_is_refused);
    suite_add_tcase(s, tc);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? 1 : 0;
}
