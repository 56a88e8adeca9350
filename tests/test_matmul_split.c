/* tests/test_matmul_split.c - products whose sums are split over workgroups: every type against the double reference, into how many parts
 * sums are cut, and that the functions which the model calls come to the same with and without scratch for parts.
 *
 * Tolerance: as in test_matmul.c; adding a few parts rounds less often than one long sum. */
#include "mosld/ops/matmul_split.h"
#include "tests/support/op_test.h"
#include "tests/support/vk_test.h"

#include <check.h>
#include <float.h>
#include <math.h>
#include <stdio.h>

/* Edges of a tile, odd strides, a last part that is short or ends inside of a step, more parts asked for than there are steps. */
static const struct {
    uint32_t rows, cols, sums, splits, add;
} shapes[] = {
    {65, 96, 288, 3, MATMUL_ADD_NONE}, {3, 32, 64, 4, MATMUL_ADD_SELF}, {9, 160, 96, 9, MATMUL_ADD_RESIDUAL}, {64, 64, 256, 2, MATMUL_ADD_BIAS},
};

static void run_case(bool nn, enum op_wtype type, uint32_t i, uint32_t seed)
{
    uint32_t block = op_wtype_block(type), odd = type < OP_W_Q8_0 && i < 3 ? 3 : 0;
    uint32_t cols = shapes[i].cols - odd, sums = shapes[i].sums - odd;
    uint32_t *k = nn ? &cols : &sums;
    *k = (*k + block - 1) / block * block;
    struct op_weight_layout layout;
    ck_assert(op_weight_layout(type, nn ? sums : cols, *k, &layout));
    struct matmul_split_push p = {.splits = shapes[i].splits};
    p.m = (struct matmul_push){.rows = shapes[i].rows, .n = nn ? sums : cols, .k = *k, .x_stride = sums + seed % 2 * 3, .x_col = seed % 2,
                               .y_stride = cols + seed % 2, .y_col = seed % 2, .wtype = type, .scales = (uint32_t)layout.scales,
                               .add = nn && shapes[i].add == MATMUL_ADD_BIAS ? MATMUL_ADD_SELF : shapes[i].add, .bias_col = 2, .scale = 0.75f};
    p.split_sums = matmul_split_terms(sums, &p.splits);
    ck_assert(p.split_sums % 16 == 0 && (p.splits - 1) * p.split_sums < sums && p.splits * p.split_sums >= sums);
    char label[96];
    snprintf(label, sizeof label, "%s rows %u, %u sums of %u in %u parts", op_wtype_name(type), p.m.rows, cols, sums, p.splits);
    uint64_t y = (uint64_t)p.m.rows * p.m.y_stride;
    struct op_case c = {.label = label, .push = &p, .seed = seed, .rtol = 4 * FLT_EPSILON, .atol = 2 * FLT_EPSILON * (sums + 1),
                        .b = {{.n = (uint64_t)p.m.rows * p.m.x_stride},
                              {.n = (uint64_t)p.m.n * p.m.k, .wtype = type, .rows = p.m.n, .cols = p.m.k},
                              {.n = y},
                              {.n = y + 2},
                              {.n = (uint64_t)p.splits * p.m.rows * ((cols + 3) / 4 * 4), .ignore = true}}};
    op_test_run(nn ? &op_matmul_nn_split_desc : &op_matmul_nt_split_desc, &c);
}

START_TEST(parts_agree)
{
    for (uint32_t i = 0; i < OP_COUNT(shapes); i++) {
        run_case(false, (enum op_wtype)_i, i, i);
        run_case(true, (enum op_wtype)_i, i, i + 1);
    }
}
END_TEST

START_TEST(terms_are_whole_steps)
{
    for (uint32_t sums = 1; sums < 700; sums += 7)
        for (uint32_t wanted = 1; wanted < 40; wanted++) {
            uint32_t splits = wanted, each = matmul_split_terms(sums, &splits);
            ck_assert(each % 16 == 0 && splits >= 1 && splits <= wanted);
            ck_assert_msg((splits - 1) * each < sums && splits * each >= sums, "%u terms in %u parts of %u", sums, splits, each);
        }
    uint32_t splits = 5;
    ck_assert_uint_eq(matmul_split_terms(0, &splits), 16);
    ck_assert_uint_eq(splits, 1);
    ck_assert_uint_eq(matmul_splits(test_host(), 512, 576, 49152, 64, 192, 16 << 20), 1); /* no workgroups to fill */
    ck_assert_uint_eq(op_matmul_parts_bytes(test_host()), 0);
}
END_TEST

/* dx of a head and dB, forced into parts, against the same in one piece; without enough scratch, in one piece to the bit. */
static void run_functions(struct rt_device *dev, uint32_t splits, uint64_t parts, float *dx, float *db)
{
    enum { T = 70, IN = 40, OUT = 900, R = 24 };
    struct rt_error err = {0};
    static float dy[T * OUT], w[OUT * IN], z[T * R];
    uint64_t seed = 3;
    for (uint32_t i = 0; i < OP_COUNT(dy); i++)
        dy[i] = test_uniform(&seed, -1, 1);
    for (uint32_t i = 0; i < OP_COUNT(w); i++)
        w[i] = test_uniform(&seed, -1, 1);
    for (uint32_t i = 0; i < OP_COUNT(z); i++)
        z[i] = test_uniform(&seed, -1, 1);
    struct op_weight weight = op_weight_f32(test_span(dev, sizeof w, w), OUT, IN);
    struct rt_span dys = test_span(dev, sizeof dy, dy), dxs = test_span(dev, 4 * T * IN, NULL), dbs = test_span(dev, 4 * OUT * R, NULL),
                   scratch = parts ? test_span(dev, parts, NULL) : (struct rt_span){0};
    ck_assert_msg(op_matmul_nn(dev, &(struct op_matmul){.x = dys, .x_stride = OUT, .w = &weight, .y = dxs, .y_stride = IN, .rows = T,
                                                        .parts = scratch, .splits = splits}, &err) == RT_OK, "%s", err.text);
    ck_assert_msg(op_matmul_tn(dev, &(struct op_matmul_tn){.x = dys, .x_stride = OUT, .y = test_span(dev, sizeof z, z), .y_stride = R, .w = dbs,
                                                           .a = OUT, .b = R, .rows = T, .parts = scratch, .splits = splits}, &err) == RT_OK,
                  "%s", err.text);
    ck_assert_int_eq(rt_download(dev, dxs, 0, dx, 4 * T * IN, &err), RT_OK);
    ck_assert_int_eq(rt_download(dev, dbs, 0, db, 4 * OUT * R, &err), RT_OK);
    test_check_validation(dev);
    test_release(dev);
}

START_TEST(functions_split)
{
    static float dx[4][70 * 40], db[4][900 * 24];
    struct rt_device *dev = test_vulkan();
    if (!dev)
        return;
    run_functions(dev, 1, 0, dx[0], db[0]);
    run_functions(dev, 4, 4 * 900 * 24 * 4, dx[1], db[1]);
    run_functions(dev, 4, 4 * 900 * 24 * 4, dx[2], db[2]);
    run_functions(dev, 4, 1024, dx[3], db[3]); /* too little for any parts */
    uint32_t moved = 0;
    for (uint32_t i = 0; i < OP_COUNT(dx[0]); i++) {
        ck_assert_float_eq_tol(dx[0][i], dx[1][i], 2 * FLT_EPSILON * 900);
        ck_assert(dx[1][i] == dx[2][i] && dx[0][i] == dx[3][i]);
        moved += dx[0][i] != dx[1][i];
    }
    for (uint32_t i = 0; i < OP_COUNT(db[0]); i++) {
        ck_assert_float_eq_tol(db[0][i], db[1][i], 2 * FLT_EPSILON * 70);
        ck_assert(db[1][i] == db[2][i] && db[0][i] == db[3][i]);
    }
    ck_assert_msg(moved > 0, "sums in parts have the bits of whole sums: were they split?");
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("matmul_split");
    TCase *tc = tcase_create("split");
    tcase_set_timeout(tc, 600);
    tcase_add_test(tc, terms_are_whole_steps);
    tcase_add_test(tc, functions_split);
    tcase_add_loop_test(tc, parts_agree, 0, OP_W_TYPES);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
