/* tests/test_rope.c - the table against plain cosines, the rotation against the reference and
 * its transpose. */
#include "mosld/ops/rope.h"
#include "shaders/rope.h"
#include "tests/support/gradient.h"
#include "tests/support/op_test.h"

#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

extern const struct op op_rope_desc;

/* theta^(-2 i / D), where nothing is scaled. */
static void plain_table_of(double theta, uint32_t positions, uint32_t D, float *table)
{
    double inv_freq[256];
    for (uint32_t i = 0; i < D / 2; i++)
        inv_freq[i] = pow(theta, -2.0 * i / D);
    op_rope_table(inv_freq, positions, D, table);
}

START_TEST(plain_table)
{
    float table[5 * 4 * 2];
    plain_table_of(10000, 5, 8, table);
    const double f[4] = {1, 0.1, 0.01, 0.001}; /* 10000^(-2 i / 8) */
    for (int pos = 0; pos < 5; pos++)
        for (int i = 0; i < 4; i++) {
            ck_assert_float_eq_tol(table[(pos * 4 + i) * 2], (float)cos(pos * f[i]), 1e-7f);
            ck_assert_float_eq_tol(table[(pos * 4 + i) * 2 + 1], (float)sin(pos * f[i]), 1e-7f);
        }
}
END_TEST

/* Angles stay right far out, where f32 would have lost them: 2^20 steps of one radian. */
START_TEST(far_positions)
{
    const uint32_t n = (1u << 20) + 1;
    float *table = malloc(n * 2 * sizeof *table);
    plain_table_of(10000, n, 2, table);
    ck_assert_float_eq_tol(table[2 * (n - 1)], (float)cos(1048576.0), 1e-7f);
    ck_assert_float_eq_tol(table[2 * (n - 1) + 1], (float)sin(1048576.0), 1e-7f);
    free(table);
}
END_TEST

static const struct rope_push shapes[] = {
    {0, 8, 0, 1, 8, 1},       {1, 2, 0, 1, 2, 1},     {3, 40, 5, 3, 10, -1},     {5, 12 * 64 + 192, 0, 12, 64, 1},
    {2, 300, 20, 1, 256, -1}, {4, 128, 0, 1, 128, 1}, {4100, 128, 0, 1, 128, 1}, /* more than one grid holds */
};

static void variants_agree_at(uint32_t shape)
{
    const struct rope_push *p = &shapes[shape];
    enum { POSITIONS = 50 };
    uint32_t *pos = malloc((p->rows + 1) * sizeof *pos);
    uint64_t state = 3, n = (uint64_t)p->rows * p->stride;
    for (uint32_t i = 0; i < p->rows; i++)
        pos[i] = (uint32_t)(test_random(&state) % POSITIONS);
    float *table = malloc(POSITIONS * p->head_dim * sizeof *table);
    plain_table_of(10000, POSITIONS, p->head_dim, table);
    char label[80];
    snprintf(label, sizeof label, "rows %u heads %u D %u sign %g", p->rows, p->heads, p->head_dim, p->sign);
    /* Two products and a sum of values below one: three roundings of 6e-8. */
    struct op_case c = {
        .label = label,
        .push = p,
        .atol = 2e-7,
        .seed = n,
        .b = {{.n = n}, {.n = (uint64_t)POSITIONS * p->head_dim, .values = table}, {.n = p->rows, .words = pos}}};
    op_test_run(&op_rope_desc, &c);
    free(pos), free(table);
}

START_TEST(variants_agree)
{
    for (uint32_t i = 0; i < OP_COUNT(shapes); i++)
        variants_agree_at(i);
}
END_TEST

/* <R x, y> = <x, R^-1 y>: the inverse is the gradient. And R^-1 R x = x. */
START_TEST(inverse_is_the_transpose)
{
    struct rope_push p = {3, 20, 2, 2, 8, 1}, inverse = p;
    inverse.sign = -1;
    double *x = test_doubles(60, 1, 1), *y = test_doubles(60, 2, 1), rx[60], ry[60], table[7 * 8];
    float tf[7 * 8];
    uint32_t pos[3] = {6, 0, 3};
    plain_table_of(10, 7, 8, tf);
    for (int i = 0; i < 56; i++)
        table[i] = tf[i];
    memcpy(rx, x, sizeof rx);
    memcpy(ry, y, sizeof ry);
    op_rope_desc.ref((void *[]){rx, table, pos}, &p);
    op_rope_desc.ref((void *[]){ry, table, pos}, &inverse);
    double left = 0, right = 0, moved = 0;
    for (int i = 0; i < 60; i++) {
        left += rx[i] * y[i];
        right += x[i] * ry[i];
        moved += fabs(rx[i] - x[i]);
    }
    ck_assert_double_eq_tol(left, right, 1e-12);
    ck_assert(moved > 1);
    op_rope_desc.ref((void *[]){rx, table, pos}, &inverse);
    for (int i = 0; i < 60; i++)
        ck_assert_double_eq_tol(rx[i], x[i], 1e-6); /* the table's cosine and sine are rounded to f32 */
    free(x), free(y);
}
END_TEST

START_TEST(odd_heads_are_refused)
{
    struct rt_device *dev = test_host();
    struct rt_error err = {0};
    struct rt_span s = test_span(dev, 4096, NULL);
    struct op_rope r = {.x = s, .table = s, .pos = s, .rows = 1, .stride = 512, .heads = 1, .head_dim = 7};
    ck_assert_int_eq(op_rope(dev, &r, &err), RT_FAILED);
    ck_assert_ptr_nonnull(strstr(err.text, "even"));
    r.head_dim = 258;
    ck_assert_int_eq(op_rope(dev, &r, &err), RT_FAILED);
    r.head_dim = 256;
    ck_assert_int_eq(op_rope(dev, &r, &err), RT_OK);
    test_release(dev);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("rope");
    TCase *tc = tcase_create("all");
    tcase_set_timeout(tc, 120);
    tcase_add_test(tc, plain_table);
    tcase_add_test(tc, far_positions);
    tcase_add_test(tc, variants_agree);
    tcase_add_test(tc, inverse_is_the_transpose);
    tcase_add_test(tc, odd_heads_are_refused);
    suite_add_tcase(s, tc);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? 1 : 0;
}
