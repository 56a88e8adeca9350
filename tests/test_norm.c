/* tests/test_norm.c - rmsnorm and its gradient, of whole rows and of heads, in place and added. */
#include "mosld/ops/norm.h"
#include "shaders/rmsnorm.h"
#include "tests/support/gradient.h"
#include "tests/support/op_test.h"

#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

extern const struct op op_rmsnorm_desc, op_rmsnorm_bwd_desc;

/* One value, off a workgroup and off the lanes, a real layer, heads inside a wider row, more rows than a grid has
 * groups. */
static const struct rmsnorm_push shapes[] = {
    {.rows = 0, .heads = 1, .cols = 64, .x_stride = 64, .y_stride = 64, .dx_stride = 64},
    {.rows = 1, .heads = 1, .cols = 1, .x_stride = 1, .y_stride = 1, .dx_stride = 1},
    {.rows = 3, .heads = 1, .cols = 127, .x_stride = 127, .y_stride = 130, .y_col = 2, .dx_stride = 128, .dx_col = 1},
    {.rows = 3, .heads = 1, .cols = 129, .x_stride = 200, .x_col = 71, .y_stride = 129, .dx_stride = 129,
     .accumulate = 1},
    {.rows = 9, .heads = 1, .cols = 576, .x_stride = 576, .y_stride = 576, .dx_stride = 576, .accumulate = 1},
    {.rows = 2, .heads = 1, .cols = 4096, .x_stride = 4096, .y_stride = 4096, .dx_stride = 4096},
    {.rows = 5, .heads = 3, .cols = 64, .x_stride = 400, .x_col = 192, .y_stride = 192, .dx_stride = 400,
     .dx_col = 192},
    {.rows = 2101, .heads = 2, .cols = 3, .x_stride = 6, .y_stride = 6, .dx_stride = 6, .accumulate = 1},
};

START_TEST(gradient_is_the_slope)
{
    for (uint32_t accumulate = 0; accumulate < 2; accumulate++) {
        struct rmsnorm_push p = {.rows = 2,
                                 .heads = 2,
                                 .cols = 3,
                                 .x_stride = 8,
                                 .x_col = 1,
                                 .y_stride = 7,
                                 .y_col = 1,
                                 .dx_stride = 8,
                                 .dx_col = 1,
                                 .eps = 0.1f,
                                 .accumulate = accumulate};
        double *x = test_doubles(16, 1, 1), *w = test_doubles(3, 2, 1), *y = test_doubles(14, 3, 1),
               *dy = test_doubles(14, 4, 1);
        double *dx = calloc(16, sizeof *dx); /* zero where nothing is written, as the slope is */
        for (int i = 0; i < 14; i++)
            dy[i] = i % 7 == 0 ? 0 : dy[i]; /* column 0 of y is not an output */
        double y_again[14], dx_again[16] = {0};
        struct rmsnorm_push a = p;
        a.again = 1;
        op_rmsnorm_bwd_desc.ref((void *[]){x, w, dy, dx}, &p);
        memcpy(y_again, dy, sizeof y_again);
        memcpy(y, dy, sizeof y_again); /* what is between the rows stays */
        op_rmsnorm_bwd_desc.ref((void *[]){x, w, y_again, dx_again}, &a);
        op_rmsnorm_desc.ref((void *[]){x, w, y}, &p);
        ck_assert_mem_eq(y_again, y, sizeof y_again);
        ck_assert_mem_eq(dx_again, dx, sizeof dx_again);
        struct gradient_check c = {.op = &op_rmsnorm_desc,
                                   .bindings = (void *[]){x, w, y},
                                   .push = &p,
                                   .input = 0,
                                   .output = 2,
                                   .n_input = 16,
                                   .n_output = 14,
                                   .d_output = dy,
                                   .d_input = dx};
        test_gradient("rmsnorm", &c, 1e-8);
        free(x), free(w), free(y), free(dy), free(dx);
    }
}
END_TEST

static void variants_agree_at(uint32_t i)
{
    struct rmsnorm_push p = shapes[i];
    p.eps = 1e-5f;
    uint64_t nx = (uint64_t)p.rows * p.x_stride, ny = (uint64_t)p.rows * p.y_stride,
             nd = (uint64_t)p.rows * p.dx_stride;
    char label[80];
    snprintf(label, sizeof label, "rows %u heads %u cols %u", p.rows, p.heads, p.cols);
    /* Sums of at most 4096 terms of order one, as trees: a few roundings of 6e-8. r is up to some tens where three
     * values are all small. */
    struct op_case c = {.label = label,
                        .push = &p,
                        .atol = 2e-6,
                        .rtol = 2e-6,
                        .seed = nx,
                        .b = {{.n = nx}, {.n = p.cols}, {.n = ny}}};
    op_test_run(&op_rmsnorm_desc, &c);
    /* In backward two terms of size r take each other away; with three columns r reaches 50 in 4,000 rows. */
    struct op_case b = {.label = label,
                        .push = &p,
                        .atol = p.cols < 8 ? 5e-5 : 4e-6,
                        .rtol = 4e-6,
                        .seed = nx,
                        .b = {{.n = nx}, {.n = p.cols}, {.n = ny}, {.n = nd}}};
    op_test_run(&op_rmsnorm_bwd_desc, &b);
    p.again = 1; /* y in the place of dy, beside the same dx */
    op_test_run(&op_rmsnorm_bwd_desc, &b);
}

START_TEST(variants_agree)
{
    for (uint32_t i = 0; i < OP_COUNT(shapes); i++)
        variants_agree_at(i);
}
END_TEST

/* dx = dy and y = x in memory, which the header allows and Qwen3's q and k norms use. */
static void run_in_place(struct rt_device *dev)
{
    enum { ROWS = 5, HEADS = 3, COLS = 70, STRIDE = 250, COL = 20, N = ROWS * STRIDE };
    struct rt_error err = {0};
    float x[N], dy[N], got[N];
    double *dx = test_doubles(N, 5, 1), *xr = test_doubles(N, 6, 1), *w = test_doubles(COLS, 7, 1),
           *dyr = test_doubles(N, 8, 1);
    float wf[COLS];
    for (int i = 0; i < N; i++) {
        xr[i] = x[i] = (float)xr[i];
        dx[i] = dyr[i] = dy[i] = (float)dyr[i];
    }
    for (int i = 0; i < COLS; i++)
        w[i] = wf[i] = (float)w[i];
    struct rt_span xs = test_span(dev, sizeof x, x), ws = test_span(dev, sizeof wf, wf),
                   ds = test_span(dev, sizeof dy, dy);
    struct op_rmsnorm n = {.x = xs,
                           .w = ws,
                           .y = ds,
                           .x_stride = STRIDE,
                           .x_col = COL,
                           .y_stride = STRIDE,
                           .y_col = COL,
                           .rows = ROWS,
                           .heads = HEADS,
                           .cols = COLS,
                           .eps = 1e-6f};
    struct op_rmsnorm_bwd b = {.n = n, .dx = ds, .dx_stride = STRIDE, .dx_col = COL};
    ck_assert_msg(op_rmsnorm_bwd(dev, &b, &err) == RT_OK, "%s", err.text);
    n.y = xs;
    ck_assert_msg(op_rmsnorm(dev, &n, &err) == RT_OK, "%s", err.text);
    struct rmsnorm_push p = {.x_stride = STRIDE,
                             .x_col = COL,
                             .y_stride = STRIDE,
                             .y_col = COL,
                             .rows = ROWS,
                             .heads = HEADS,
                             .cols = COLS,
                             .eps = 1e-6f,
                             .dx_stride = STRIDE,
                             .dx_col = COL};
    op_rmsnorm_bwd_desc.ref((void *[]){xr, w, dyr, dx}, &p);
    ck_assert(rt_download(dev, ds, 0, got, sizeof got, &err) == RT_OK);
    for (int i = 0; i < N; i++)
        ck_assert_msg(fabs(got[i] - dx[i]) <= 4e-6 * (1 + fabs(dx[i])), "dx[%d]: want %g, got %g", i, dx[i], got[i]);
    op_rmsnorm_desc.ref((void *[]){xr, w, xr}, &p);
    ck_assert(rt_download(dev, xs, 0, got, sizeof got, &err) == RT_OK);
    for (int i = 0; i < N; i++)
        ck_assert_msg(fabs(got[i] - xr[i]) <= 2e-6 * (1 + fabs(xr[i])), "y[%d]: want %g, got %g", i, xr[i], got[i]);
    test_check_validation(dev);
    test_release(dev);
    free(dx), free(xr), free(w), free(dyr);
}

START_TEST(in_place)
{
    run_in_place(test_host());
    if (test_vulkan())
        run_in_place(test_vulkan());
}
END_TEST

START_TEST(memory_that_is_too_small_is_refused)
{
    struct rt_device *dev = test_host();
    struct rt_error err = {0};
    struct rt_span s = test_span(dev, 4 * 64, NULL);
    struct op_rmsnorm n =
        {.x = s, .w = s, .y = s, .x_stride = 16, .y_stride = 16, .rows = 4, .heads = 1, .cols = 16, .eps = 1e-5f};
    ck_assert_int_eq(op_rmsnorm(dev, &n, &err), RT_OK);
    n.x_col = 1;
    ck_assert_int_eq(op_rmsnorm(dev, &n, &err), RT_FAILED);
    ck_assert_ptr_nonnull(strstr(err.text, "x has rows of 16"));
    n.x_col = 0, n.rows = 5;
    ck_assert_int_eq(op_rmsnorm(dev, &n, &err), RT_FAILED);
    n.rows = 0;
    ck_assert_int_eq(op_rmsnorm(dev, &n, &err), RT_OK);
    test_release(dev);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("norm");
    TCase *tc = tcase_create("all");
    tcase_set_timeout(tc, 120);
    tcase_add_test(tc, gradient_is_the_slope);
    tcase_add_test(tc, variants_agree);
    tcase_add_test(tc, in_place);
    tcase_add_test(tc, memory_that_is_too_small_is_refused);
    suite_add_tcase(s, tc);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? 1 : 0;
}
