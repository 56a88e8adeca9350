/* tests/test_linear.c - a frozen product with an adapter's tail: every variant against the double reference, and the two
 * ways of op_linear against each other.
 *
 * Tolerance: as in test_matmul.c, for sums of n + r products. */
#include "mosld/ops/choice.h"
#include "mosld/ops/linear.h"
#include "mosld/ops/linear_host.h"
#include "tests/support/op_test.h"

#include <check.h>
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/* Edges of a tile, of a step of 16 sums, tails that are whole steps, a part of one, odd, and none; a real layer. */
static const struct shape {
    uint32_t rows, n, k, r;
} shapes[] = {{0, 5, 32, 8}, {3, 7, 64, 1}, {9, 33, 32, 0}, {65, 65, 64, 16}, {17, 130, 288, 64}, {130, 70, 96, 9}, {70, 192, 576, 24}};

static void run_case(const struct op *op, enum op_wtype type, struct shape s, uint32_t add, unsigned seed)
{
    bool nn = op == &op_linear_nn_desc;
    s.k = (s.k + op_wtype_block(type) - 1) / op_wtype_block(type) * op_wtype_block(type);
    uint32_t x_cols = nn ? s.n : s.k, y_cols = nn ? s.k : s.n, step = seed % 2 ? 4 : 1; /* odd seeds may read vectors */
    struct op_weight_layout layout;
    ck_assert(op_weight_layout(type, s.n, s.k, &layout));
    struct linear_push p = {
        .m = {.rows = s.rows, .n = s.n, .k = s.k, .x_stride = x_cols + seed % 3 * step, .x_col = seed % 3 * step, .y_stride = y_cols + 2 * step,
              .y_col = step, .wtype = type, .scales = (uint32_t)layout.scales, .add = add, .bias_col = step, .scale = 1},
        .z_stride = s.r + 3 * step, .z_col = 2 * step, .b_offset = 2 * step, .r = s.r, .tail_scale = 0.5f,
    };
    char label[96];
    snprintf(label, sizeof label, "%s rows %u n %u k %u r %u add %u seed %u", op_wtype_name(type), s.rows, s.n, s.k, s.r, add, seed);
    uint64_t y_size = (uint64_t)s.rows * p.m.y_stride;
    struct op_case c = {
        .label = label,
        .push = &p,
        .atol = 2 * FLT_EPSILON * (x_cols + s.r),
        .rtol = 4 * FLT_EPSILON,
        .seed = seed,
        .b = {{.n = (uint64_t)s.rows * p.m.x_stride},
              {.n = (uint64_t)s.n * s.k, .wtype = type, .rows = s.n, .cols = s.k},
              {.n = y_size},
              {.n = add == MATMUL_ADD_BIAS ? y_cols + p.m.bias_col : y_size},
              {.n = (uint64_t)s.rows * p.z_stride},
              {.n = p.b_offset + (uint64_t)s.r * y_cols}},
    };
    op_test_run(op, &c);
}

static void run_cases(const struct op *op, enum op_wtype type)
{
    unsigned seed = 0;
    for (uint32_t i = 0; i < OP_COUNT(shapes); i++) {
        uint32_t add = seed % 4;
        if (add == MATMUL_ADD_BIAS && op == &op_linear_nn_desc)
            add = MATMUL_ADD_SELF;
        run_case(op, type, shapes[i], add, seed++);
    }
}

START_TEST(forward_agrees) { run_cases(&op_linear_nt_desc, (enum op_wtype)_i); }
END_TEST

START_TEST(backward_agrees) { run_cases(&op_linear_nn_desc, (enum op_wtype)_i); }
END_TEST

/* ---- through the public functions ---- */

static struct rt_span random_span(struct rt_device *dev, uint64_t n, uint64_t seed)
{
    float *f = malloc(4 * n);
    for (uint64_t i = 0; i < n; i++)
        f[i] = test_uniform(&seed, -1, 1);
    struct rt_span s = test_span(dev, 4 * n, f);
    free(f);
    return s;
}

/* As a GPU does: the kernels with a tail are those of `tile`. On the host there is no other. */
static void prefer_tiles(struct rt_device *dev)
{
    const struct op *ops[2] = {&op_matmul_nt_desc, &op_matmul_nn_desc};
    for (int i = 0; i < 2; i++)
        for (uint32_t c = 0; c < op_class_count(ops[i]); c++)
            op_choice_prefer(dev, ops[i], c, op_variant_find(ops[i], "tile.f32"));
}

/* W in two chunks, as a weight beyond the binding range lies; the residual must be added once, and the tail too. */
static void ways_agree_on(struct rt_device *dev, bool nn)
{
    enum { T = 70, N = 96, K = 64, R = 24, FIRST = 40 };
    struct rt_error err = {0};
    struct rt_span x = random_span(dev, T * (nn ? N : K), 1), z = random_span(dev, T * R, 2), b = random_span(dev, R * (nn ? K : N), 3);
    struct op_weight_chunk chunks[2] = {{random_span(dev, FIRST * K, 4), 0, FIRST}, {random_span(dev, (N - FIRST) * K, 5), FIRST, N - FIRST}};
    struct op_weight w = {.type = OP_W_F32, .rows = N, .cols = K, .n_chunks = 2, .chunks = chunks};
    struct op_weight B = nn ? op_weight_f32(b, R, K) : op_weight_f32(b, N, R);
    uint32_t cols = nn ? K : N;
    struct rt_span residual = random_span(dev, T * cols, 6);
    float *got[2];
    uint64_t dispatches[2];
    prefer_tiles(dev);
    for (int apart = 0; apart < 2; apart++) {
        struct rt_span y = test_span(dev, 4 * T * cols, NULL);
        struct op_linear l = {.m = {.x = x, .x_stride = nn ? N : K, .w = &w, .y = y, .y_stride = cols, .rows = T, .add = OP_ADD_RESIDUAL,
                                    .other = residual},
                              .z = z, .z_stride = R, .b = &B, .scale = 2, .apart = apart};
        struct rt_statistics before, after;
        rt_get_statistics(dev, &before);
        ck_assert_msg((nn ? op_linear_nn : op_linear_nt)(dev, &l, &err) == RT_OK, "%s", err.text);
        rt_get_statistics(dev, &after);
        dispatches[apart] = after.dispatches - after.parts_added - (before.dispatches - before.parts_added);
        got[apart] = malloc(4 * T * cols);
        ck_assert_msg(rt_download(dev, y, 0, got[apart], 4 * T * cols, &err) == RT_OK, "%s", err.text);
    }
    double most = 0;
    for (uint32_t i = 0; i < T * cols; i++) {
        ck_assert_double_eq_tol(got[0][i], got[1][i], 4 * FLT_EPSILON * (N + R));
        most = fmax(most, fabs(got[0][i]));
    }
    ck_assert_double_gt(most, 1);
    if (rt_device_kind(dev) == RT_VULKAN && rt_device_info(dev)->limits.max_storage_buffers >= 6) {
        ck_assert_uint_eq(dispatches[0], 2);
        ck_assert_uint_eq(dispatches[1], 3);
    }
    op_choice_reset(dev);
    free(got[0]), free(got[1]);
    test_check_validation(dev);
    test_release(dev);
}

START_TEST(ways_agree)
{
    ways_agree_on(test_host(), _i);
    if (test_vulkan())
        ways_agree_on(test_vulkan(), _i);
}
END_TEST

START_TEST(what_does_not_fit_is_refused)
{
    struct rt_device *dev = test_host();
    struct rt_error err = {0};
    struct rt_span s = random_span(dev, 4096, 1);
    struct op_weight w = op_weight_f32(s, 8, 16), b = op_weight_f32(s, 8, 4), narrow = op_weight_f32(s, 7, 4);
    struct op_linear l = {.m = {.x = s, .x_stride = 16, .w = &w, .y = s, .y_stride = 8, .rows = 2}, .z = s, .z_stride = 4, .b = &narrow};
    ck_assert_int_eq(op_linear_nt(dev, &l, &err), RT_FAILED); /* a row of W has no row of B */
    l.b = &b, l.z_stride = 3;
    ck_assert_int_eq(op_linear_nt(dev, &l, &err), RT_FAILED); /* z has too few columns */
    l.z_stride = 4, l.m.scale = 3;
    ck_assert_int_eq(op_linear_nt(dev, &l, &err), RT_FAILED);
    test_release(dev);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("linear");
    TCase *tc = tcase_create("all");
    tcase_set_timeout(tc, 600);
    tcase_add_loop_test(tc, forward_agrees, 0, OP_W_TYPES);
    tcase_add_loop_test(tc, backward_agrees, 0, OP_W_TYPES);
    tcase_add_loop_test(tc, ways_agree, 0, 2);
    tcase_add_test(tc, what_does_not_fit_is_refused);
    suite_add_tcase(s, tc);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? 1 : 0;
}
