/* tests/test_rope.c - the table against formulas of its own and known values, the rotation against the reference and
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

static const struct op_rope_params llama31 = {.theta = 500000,
                                              .scaling = OP_ROPE_LLAMA3,
                                              .factor = 8,
                                              .low_freq_factor = 1,
                                              .high_freq_factor = 4,
                                              .original_max_position_embeddings = 8192};

START_TEST(plain_table)
{
    float table[5 * 4 * 2];
    op_rope_table(&(struct op_rope_params){.theta = 10000}, 5, 8, table);
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
    op_rope_table(&(struct op_rope_params){.theta = 10000}, n, 2, table);
    ck_assert_float_eq_tol(table[2 * (n - 1)], (float)cos(1048576.0), 1e-7f);
    ck_assert_float_eq_tol(table[2 * (n - 1) + 1], (float)sin(1048576.0), 1e-7f);
    free(table);
}
END_TEST

START_TEST(linear_table_stretches_positions)
{
    float plain[3 * 4 * 2], stretched[9 * 4 * 2];
    op_rope_table(&(struct op_rope_params){.theta = 10000}, 3, 8, plain);
    op_rope_table(&(struct op_rope_params){.theta = 10000, .scaling = OP_ROPE_LINEAR, .factor = 4}, 9, 8, stretched);
    for (int pos = 0; pos < 3; pos++)
        for (int i = 0; i < 8; i++)
            ck_assert_float_eq_tol(stretched[pos * 4 * 8 + i], plain[pos * 8 + i], 1e-7f);
}
END_TEST

/* The angle of position 1 is the frequency itself. For Llama 3.1 (theta 5e5, D 128, factor 8, 1, 4, 8192) a wavelength
 * below 2048 is kept (i <= 28), one above 8192 is divided by 8 (i >= 35), and those between are blended. */
START_TEST(llama3_table)
{
    float table[2 * 64 * 2];
    op_rope_table(&llama31, 2, 128, table);
    for (int i = 0; i < 64; i++) {
        double f = exp(-i / 64.0 * log(500000.0)), w = 2 * M_PI / f, want = f;
        if (i >= 35)
            want = f / 8;
        else if (i > 28) {
            double s = (8192 / w - 1) / 3;
            ck_assert_msg(s > 0 && s < 1, "pair %d is not in the band", i);
            want = f * (s + (1 - s) / 8);
        }
        ck_assert(i <= 28 ? w < 2048 : i >= 35 ? w > 8192 : true);
        ck_assert_msg(fabs(table[(64 + i) * 2 + 1] - sin(want)) <= 1e-7 * want + 1e-12, "pair %d: sine %.9g, want %.9g",
                      i, table[(64 + i) * 2 + 1], sin(want));
    }
}
END_TEST

/* Llama 3.2 1B: theta 5e5, D 64, factor 32. Frequencies that Hugging Face's Transformers 5.23 gives for it (inv_freq,
 * which it computes in f32: good to some units of 6e-8, and less where two terms are blended). */
static const struct {
    int i;
    double inv_freq;
} published[] = {
    {0, 1.0},
    {1, 0.663601279},
    {13, 0.00483942125},
    {14, 0.00321144611},
    {15, 0.00129054801},
    {16, 0.000429556705},
    {17, 9.70828623e-05},
    {18, 1.94616387e-05},
    {19, 1.29147675e-05},
    {31, 9.41830649e-08},
};

START_TEST(llama3_known_values)
{
    struct op_rope_params p = llama31;
    p.factor = 32;
    float table[2 * 32 * 2];
    op_rope_table(&p, 2, 64, table);
    for (uint32_t k = 0; k < OP_COUNT(published); k++) {
        double got = asin(table[(32 + published[k].i) * 2 + 1]), want = published[k].inv_freq;
        if (published[k].i == 0)
            got = atan2(table[32 * 2 + 1], table[32 * 2]);
        ck_assert_msg(fabs(got - want) <= 1e-6 * want, "pair %d: %.9g, want %.9g", published[k].i, got, want);
    }
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
    op_rope_table(&(struct op_rope_params){.theta = 10000}, POSITIONS, p->head_dim, table);
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
    op_rope_table(&(struct op_rope_params){.theta = 10}, 7, 8, tf);
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
    tcase_add_test(tc, linear_table_stretches_positions);
    tcase_add_test(tc, llama3_table);
    tcase_add_test(tc, llama3_known_values);
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
