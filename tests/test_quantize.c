/* tests/test_quantize.c - f32 to the weight types and back: exact where the type holds the value, else within half a step of the block's scale. */
#include "mosld/io/dtype.h"

#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static float value(uint32_t i) { return (float)((i * 2654435761u) >> 8) / (1 << 24) * 4 - 2; }

static const enum dtype types[] = {DTYPE_Q8_0, DTYPE_Q4_0, DTYPE_Q4_1};

/* The block's own step: what a quant more or less is worth. */
static double step_of(enum dtype type, const float *x)
{
    double low = x[0], high = x[0];
    for (int i = 1; i < 32; i++) {
        low = fmin(low, x[i]);
        high = fmax(high, x[i]);
    }
    double largest = fmax(fabs(low), fabs(high));
    return type == DTYPE_Q8_0 ? largest / 127 : type == DTYPE_Q4_0 ? largest / 8 : (high - low) / 15;
}

START_TEST(within_half_a_step)
{
    enum dtype type = types[_i];
    float x[64 * 32], back[64 * 32];
    unsigned char blocks[64 * 34];
    for (uint32_t i = 0; i < 64 * 32; i++)
        x[i] = value(i) * (float)(1 + i / 32);
    ck_assert(dtype_from_f32(type, x, 64 * 32, blocks));
    dtype_to_f32(type, blocks, 64 * 32, back);
    for (uint32_t i = 0; i < 64 * 32; i++) {
        double step = step_of(type, x + i / 32 * 32), largest = 2.0 * (1 + i / 32);
        /* Q4_0's range ends a step short on the side opposite to its extreme: up to a whole step there. f16 scales are good to 2^-11. */
        double most = (type == DTYPE_Q4_0 ? 1.0 : 0.5) * step + largest / 1024;
        ck_assert_msg(fabs(back[i] - x[i]) <= most, "%s, element %u: %g became %g, step %g", dtype_name(type), i, x[i], back[i], step);
    }
}
END_TEST

/* What a type holds comes back as it was: a second trip changes nothing. */
START_TEST(stable)
{
    enum dtype type = types[_i];
    float x[32], once[32], twice[32];
    unsigned char block[34];
    for (uint32_t i = 0; i < 32; i++)
        x[i] = value(i + 7);
    ck_assert(dtype_from_f32(type, x, 32, block));
    dtype_to_f32(type, block, 32, once);
    ck_assert(dtype_from_f32(type, once, 32, block));
    dtype_to_f32(type, block, 32, twice);
    for (int i = 0; i < 32; i++)
        ck_assert_msg(fabsf(once[i] - twice[i]) <= 2e-3f * fabsf(once[i]) + 1e-3f, "%s, element %d: %g, then %g", dtype_name(type), i, once[i], twice[i]);
}
END_TEST

START_TEST(edges)
{
    float zero[32] = {0}, same[32], back[32];
    unsigned char block[34];
    for (int i = 0; i < 32; i++)
        same[i] = -3;
    for (int t = 0; t < 3; t++) {
        ck_assert(dtype_from_f32(types[t], zero, 32, block));
        dtype_to_f32(types[t], block, 32, back);
        for (int i = 0; i < 32; i++)
            ck_assert_float_eq(back[i], 0);
        ck_assert(dtype_from_f32(types[t], same, 32, block));
        dtype_to_f32(types[t], block, 32, back);
        for (int i = 0; i < 32; i++)
            ck_assert_float_eq_tol(back[i], -3, 3.0f / 1024);
        ck_assert(!dtype_from_f32(types[t], same, 31, block)); /* no whole block */
    }
    ck_assert(!dtype_from_f32(DTYPE_Q6_K, same, 32, block));
    ck_assert(dtype_from_f32(DTYPE_F16, same, 1, block) && dtype_from_f32(DTYPE_BF16, same, 1, block) && dtype_from_f32(DTYPE_F32, same, 1, block));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("quantize");
    TCase *tc = tcase_create("blocks");
    tcase_add_loop_test(tc, within_half_a_step, 0, 3);
    tcase_add_loop_test(tc, stable, 0, 3);
    tcase_add_test(tc, edges);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
