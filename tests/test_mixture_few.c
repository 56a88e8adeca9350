/* tests/test_mixture_few.c - the mixture for a few tokens: every variant against the double reference, and against gate and product, whose work it does
 * in one launch.
 *
 * Tolerance: gates to 1e-6 (test_gate.c), sums of k r products of values below one, each rounding within an eps of the sum: 1e-5. */
#include "mosld/ops/matmul.h"
#include "mosld/ops/mixture.h"
#include "shaders/mixture_few.h"
#include "tests/support/op_test.h"

#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct shape {
    uint32_t rows, experts, top_k, r, cols;
} shapes[] = {
    {1, 8, 2, 8, 576}, {1, 2, 1, 1, 1}, {8, 3, 2, 5, 65}, {5, 64, 3, 16, 130}, {0, 4, 2, 8, 10}, {2, 8, 8, 8, 1536}, {3, 4, 9, 33, 64}, {8, 8, 4, 16, 900},
};

static struct mixture_few_push push_of(const struct shape *s, uint32_t i)
{
    return (struct mixture_few_push){.rows = s->rows, .ul_stride = s->r + s->experts + i % 4, .u_col = i % 2 ? s->experts : 0,
                                     .l_col = i % 2 ? 0 : s->r, .r = s->r, .experts = s->experts, .top_k = s->top_k, .cols = s->cols,
                                     .y_stride = s->cols + i % 3, .y_col = i % 3, .scale = i % 2 ? 2 : 0.5f};
}

START_TEST(agrees)
{
    for (uint32_t i = 0; i < OP_COUNT(shapes); i++) {
        const struct shape *s = &shapes[i];
        struct mixture_few_push p = push_of(s, i);
        char label[80];
        snprintf(label, sizeof label, "rows %u E %u k %u r %u cols %u", s->rows, s->experts, s->top_k, s->r, s->cols);
        struct op_case c = {.label = label, .push = &p, .seed = i, .atol = 1e-5, .rtol = 1e-5,
                            .b = {{.n = (uint64_t)s->rows * p.ul_stride}, {.n = (uint64_t)s->cols * s->experts * s->r},
                                  {.n = (uint64_t)s->rows * p.y_stride}}};
        op_test_run(&op_mixture_few_desc, &c);
    }
}
END_TEST

static void run_both_ways(struct rt_device *dev)
{
    enum { ROWS = 6, E = 5, K = 2, R = 12, COLS = 150, UL = E + R };
    struct rt_error err = {0};
    uint64_t state = 3;
    static float ul[ROWS * UL], b[COLS * E * R], one[ROWS * COLS], two[ROWS * COLS];
    for (int i = 0; i < ROWS * UL; i++)
        ul[i] = test_uniform(&state, -1, 1);
    for (int i = 0; i < COLS * E * R; i++)
        b[i] = test_uniform(&state, -1, 1);
    struct op_gate gate = {.ul = test_span(dev, sizeof ul, ul), .z = test_span(dev, 4 * ROWS * E * R, NULL), .rows = ROWS, .ul_stride = UL,
                           .u_col = 0, .l_col = R, .r = R, .experts = E, .top_k = K};
    struct rt_span weights = test_span(dev, sizeof b, b), y1 = test_span(dev, sizeof one, one), y2 = test_span(dev, sizeof two, two);
    struct op_weight w = op_weight_f32(weights, COLS, E * R);
    ck_assert_msg(op_mixture_few(dev, &(struct op_mixture_few){.gate = gate, .b = weights, .y = y1, .cols = COLS, .y_stride = COLS, .scale = 2},
                                 &err) == RT_OK, "%s", err.text);
    ck_assert_msg(op_gate(dev, &gate, &err) == RT_OK, "%s", err.text);
    ck_assert(op_matmul_nt(dev, &(struct op_matmul){.x = gate.z, .x_stride = E * R, .w = &w, .y = y2, .y_stride = COLS, .rows = ROWS, .scale = 2,
                                                    .add = OP_ADD_SELF}, &err) == RT_OK);
    ck_assert(rt_download(dev, y1, 0, one, sizeof one, &err) == RT_OK && rt_download(dev, y2, 0, two, sizeof two, &err) == RT_OK);
    for (int i = 0; i < ROWS * COLS; i++)
        ck_assert_msg(fabsf(one[i] - two[i]) <= 1e-5f, "%d: %g, %g", i, one[i], two[i]);
    test_check_validation(dev);
    test_release(dev);
}

START_TEST(is_gate_and_product)
{
    run_both_ways(test_host());
    if (test_vulkan())
        run_both_ways(test_vulkan());
}
END_TEST

START_TEST(what_it_does_not_take_is_refused)
{
    struct rt_device *dev = test_host();
    struct rt_error err = {0};
    struct rt_span s = test_span(dev, 4096, NULL);
    struct op_mixture_few m = {.gate = {.ul = s, .rows = 1, .ul_stride = 12, .l_col = 8, .r = 8, .experts = 4, .top_k = 2}, .b = s, .y = s, .cols = 8,
                               .y_stride = 8, .scale = 1};
    ck_assert_int_eq(op_mixture_few(dev, &m, &err), RT_OK);
    m.cols = 100; /* B of 100 x 32 exceeds its memory */
    m.y_stride = 100;
    ck_assert_int_eq(op_mixture_few(dev, &m, &err), RT_FAILED);
    ck_assert(!op_mixture_few_takes(MIXTURE_FEW_ROWS + 1, 8, 4) && !op_mixture_few_takes(1, 8, 1) && !op_mixture_few_takes(1, 32, 64));
    m.cols = m.y_stride = 8;
    m.gate.rows = MIXTURE_FEW_ROWS + 1;
    ck_assert_int_eq(op_mixture_few(dev, &m, &err), RT_FAILED);
    test_release(dev);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("mixture_few");
    TCase *tc = tcase_create("all");
    tcase_set_timeout(tc, 120);
    tcase_add_test(tc, agrees);
    tcase_add_test(tc, is_gate_and_product);
    tcase_add_test(tc, what_it_does_not_take_is_refused);
    suite_add_tcase(s, tc);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? 1 : 0;
}
