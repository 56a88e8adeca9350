/* tests/test_kernels_mix.c - counting the hottest loop in assembly: made-up programs with known counts. */
#include "tools/kernels_mix.h"

#include <check.h>
#include <stdlib.h>

/* An outer loop with a load and an inner loop of four multiply-adds; a longer loop before it that only counts. */
static const char nested[] = "BB0:\n\ts_mov_b32 s0, 0\n"
                             "BB1:\n\tv_add_u32 v0, 1, v0\n\tv_mul_f32 v1, v1, v1\n\tv_max_f32 v1, v1, v2\n\ts_cbranch_scc0 BB1\n"
                             "BB2:\n\tbuffer_load_dwordx4 v[0:3], v4, s[0:3], 0 offen\n\tv_fma_f32 v9, v9, v9, v9\n"
                             "BB3:\n\tds_read_b128 v[4:7], v8\n\tv_fmac_f32_e32 v0, v1, v2\n\tv_fma_f32 v0, v1, v2, v3\n"
                             "\tv_dual_fmac_f32 v3, v4, v5 :: v_dual_mul_f32 v4, v5, v6\n\tv_dot2_f32_f16 v0, v1, v2, v0\n"
                             "\ts_waitcnt lgkmcnt(0)\n\ts_add_i32 s0, s0, 1\n\ts_cbranch_scc1 BB3\n"
                             "BB4:\n\ts_cbranch_scc0 BB2\nBB5:\n\ts_endpgm\n";

START_TEST(the_inner_loop_with_multiply_adds_is_the_hottest)
{
    struct kernels_mix m;
    ck_assert(kernels_mix_read(nested, &m));
    ck_assert(m.loop);
    ck_assert_uint_eq(m.multiply_add, 4);
    ck_assert_uint_eq(m.vector, 5); /* the other half of the dual instruction */
    ck_assert_uint_eq(m.shared, 1);
    ck_assert_uint_eq(m.shared_words, 4);
    ck_assert_uint_eq(m.global, 0);
    ck_assert_uint_eq(m.scalar, 2); /* the wait is none */
    ck_assert_uint_eq(m.matrix, 0);
    ck_assert_double_eq_tol(m.share_of_peak, 4.0 / 8.0, 1e-12); /* four words of shared memory cost eight vector instructions */
}
END_TEST

/* Both ways of the branch have two loads and one multiply-add; the second is longer. Then one that no lane may need. */
static const char branches[] = "BB0:\n\tv_fma_f32 v0, v0, v0, v0\n\ts_cbranch_scc0 BB2\n"
                               "BB1:\n\tglobal_load_b64 v[0:1], v2, off\n\ts_branch BB3\n"
                               "BB2:\n\tglobal_load_b32 v0, v2, off\n\tv_add_u32 v2, 4, v2\n\tglobal_load_b32 v1, v2, off\n"
                               "BB3:\n\ts_cbranch_execz BB5\n"
                               "BB4:\n\tv_mul_f32 v0, v0, v0\n"
                               "BB5:\n\ts_cbranch_scc1 BB0\nBB6:\n\ts_endpgm\n";

START_TEST(the_shorter_way_is_counted_and_divergent_code_too)
{
    struct kernels_mix m;
    ck_assert(kernels_mix_read(branches, &m));
    ck_assert_uint_eq(m.vector, 2);
    ck_assert_uint_eq(m.multiply_add, 1);
    ck_assert_uint_eq(m.global, 1);
    ck_assert_uint_eq(m.global_words, 2);
    ck_assert_double_eq_tol(m.share_of_peak, 1.0 / 8.0, 1e-12);
}
END_TEST

START_TEST(matrix_instructions_are_multiply_adds)
{
    struct kernels_mix m;
    ck_assert(kernels_mix_read("BB0:\n\tv_wmma_f32_16x16x16_f16 v[0:7], v[8:15], v[16:23], v[0:7]\n\tv_add_u32 v0, 1, v0\n"
                               "\tv_add_u32 v1, 1, v1\n\ts_cbranch_scc1 BB0\n\ts_endpgm\n", &m));
    ck_assert_uint_eq(m.matrix, 1);
    ck_assert_uint_eq(m.multiply_add, 1);
    ck_assert_double_eq_tol(m.share_of_peak, 16.0 / 18.0, 1e-12);
}
END_TEST

START_TEST(a_kernel_without_loops_is_counted_whole)
{
    struct kernels_mix m;
    ck_assert(kernels_mix_read("BB0:\n\tv_add_f32 v0, v0, v1\n\tv_mad_u32_u24 v0, v1, v2, v3\n\ts_endpgm\n", &m));
    ck_assert(!m.loop);
    ck_assert_uint_eq(m.vector, 2);
    ck_assert_uint_eq(m.multiply_add, 0); /* that one is of integers */
    ck_assert_double_eq(m.share_of_peak, 0);
}
END_TEST

START_TEST(other_text_is_not_read)
{
    struct kernels_mix m;
    ck_assert(!kernels_mix_read("", &m));
    ck_assert(!kernels_mix_read("mad(16) g1<1>F g2<8,8,1>F g3<8,8,1>F g4<8,8,1>F", &m));
    ck_assert(!kernels_mix_read("; no disassembler\n\tp_startpgm\n\ts_endpgm\n", &m));
    ck_assert(kernels_mix_read("\nBB99999999999999999999:\nBB\nv_fma_f32\ns_cbranch_scc0 BB7\ns_cbranch_scc1\ns_endpgm", &m)); /* cut off, and no crash */
    ck_assert_uint_eq(m.multiply_add, 1);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("kernels_mix");
    TCase *t = tcase_create("kernels_mix");
    tcase_add_test(t, the_inner_loop_with_multiply_adds_is_the_hottest);
    tcase_add_test(t, the_shorter_way_is_counted_and_divergent_code_too);
    tcase_add_test(t, matrix_instructions_are_multiply_adds);
    tcase_add_test(t, a_kernel_without_loops_is_counted_whole);
    tcase_add_test(t, other_text_is_not_read);
    suite_add_tcase(suite, t);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
