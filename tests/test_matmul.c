/* tests/test_matmul.c - y = x W^T, y = x W and w = x^T y: every variant against the double reference, and the
 * gradients.
 *
 * Tolerance: the partial sums of n random products with mean squares of at most 1 (x: 1/3; the harness's weights of
 * every type: below 1) grow to about sqrt(n / 3), and n roundings of half an eps of them add up, as independent ones
 * do, to eps n / 4 or so. The largest of thousands of outputs lies within a few times that, in whatever order the sum
 * is taken:
 *
 *     atol = 2 eps n, rtol = 4 eps (the scale, and what is added). A product that is left out or taken twice is off by
 * about 1/2.
 *
 * Variants that round their inputs to f16 (op_variant.rounding, e): n independent errors of e |x w| at most and e / 8 in the mean
 * square (rounding to nearest, |x| < 1, weights of mean square 1) make e sqrt(n) / 8, and the largest of thousands of outputs is five
 * times that. All weights of one output may lie in a block of large ones, up to six times the mean: 4 e sqrt(n). */
#include "mosld/ops/matmul_split.h"
#include "tests/support/op_test.h"
#include "tests/support/vk_test.h"

#include <check.h>
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Edges of a tile (64), of a block of 8 tokens, of the matrix-vector form (8), of a step of 16 sums; a real layer. */
static const struct {
    uint32_t rows, n, k;
} shapes[] = {
    {1, 1, 32}, {0, 5, 32}, {3, 7, 64}, {8, 67, 96}, {9, 33, 32}, {65, 65, 64}, {17, 130, 288}, {4, 192, 576},
};

/* f32, f16 and bf16 rows may end anywhere. */
static const struct {
    uint32_t rows, n, k;
} odd_shapes[] = {{1, 1, 1}, {2, 3, 5}, {5, 4, 33}, {8, 70, 257}, {13, 66, 19}, {70, 9, 131}};

static void run_case(const struct op *op, enum op_wtype type, uint32_t rows, uint32_t n, uint32_t k, uint32_t add,
                     unsigned seed)
{
    bool nn = op == &op_matmul_nn_desc;
    k = (k + op_wtype_block(type) - 1) / op_wtype_block(type) * op_wtype_block(type);
    uint32_t x_cols = nn ? n : k, y_cols = nn ? k : n;
    struct op_weight_layout layout;
    ck_assert(op_weight_layout(type, n, k, &layout));
    struct matmul_push p = {
        .rows = rows,
        .n = n,
        .k = k,
        .x_stride = x_cols + seed % 3,
        .x_col = seed % 3,
        .y_stride = y_cols + 2 * (seed % 2),
        .y_col = seed % 2,
        .wtype = type,
        .scales = (uint32_t)layout.scales,
        .add = add,
        .bias_col = seed % 4,
        .scale = seed % 5 ? 1 : 0.375f,
    };
    char label[96];
    snprintf(label, sizeof label, "%s rows %u n %u k %u add %u seed %u", op_wtype_name(type), rows, n, k, add, seed);
    uint64_t y_size = (uint64_t)rows * p.y_stride;
    struct op_case c = {
        .label = label,
        .push = &p,
        .seed = seed,
        .rtol = 4 * FLT_EPSILON,
        .atol = 2 * FLT_EPSILON * (x_cols + 1),
        .spread = 4 * sqrt(x_cols + 1),
        .b = {{.n = (uint64_t)rows * p.x_stride},
              {.n = (uint64_t)n * k, .wtype = type, .rows = n, .cols = k},
              {.n = y_size},
              {.n = add == MATMUL_ADD_BIAS ? p.bias_col + n : y_size}},
    };
    op_test_run(op, &c);
}

START_TEST(nt_agrees)
{
    for (uint32_t i = 0; i < OP_COUNT(shapes); i++)
        run_case(&op_matmul_nt_desc, _i, shapes[i].rows, shapes[i].n, shapes[i].k, i % 4, i);
    for (uint32_t i = 0; i < OP_COUNT(odd_shapes) && _i < OP_W_Q8_0; i++)
        run_case(&op_matmul_nt_desc, _i, odd_shapes[i].rows, odd_shapes[i].n, odd_shapes[i].k, (i + 1) % 4, i + 100);
}
END_TEST

START_TEST(nn_agrees)
{
    static const uint32_t adds[] = {MATMUL_ADD_NONE, MATMUL_ADD_SELF, MATMUL_ADD_RESIDUAL};
    for (uint32_t i = 0; i < OP_COUNT(shapes); i++)
        run_case(&op_matmul_nn_desc, _i, shapes[i].rows, shapes[i].n, shapes[i].k, adds[i % 3], i);
    for (uint32_t i = 0; i < OP_COUNT(odd_shapes) && _i < OP_W_Q8_0; i++)
        run_case(&op_matmul_nn_desc, _i, odd_shapes[i].rows, odd_shapes[i].n, odd_shapes[i].k, adds[(i + 1) % 3],
                 i + 100);
}
END_TEST

/* Large enough that the host cuts several tiles both ways, and that unpacked rows go through several blocks. */
START_TEST(many_tiles_agree)
{
    if (_i == 2) /* more columns than a grid has groups of four */
        run_case(&op_matmul_nt_desc, OP_W_F32, 1, 65535 * 4 + 5, 1, MATMUL_ADD_BIAS, 7);
    else if (_i == 3) /* more rows than llvmpipe lets all loops of an invocation turn: it ends them silently */
        run_case(&op_matmul_nn_desc, OP_W_F32, 2, 70001, 8, MATMUL_ADD_NONE, 8);
    else if (_i == 4)
        run_case(&op_matmul_nn_desc, OP_W_Q4_0, 2, 70001, 64, MATMUL_ADD_SELF, 9);
    else if (_i == 5) /* several chunks of rows for several blocks of columns */
        run_case(&op_matmul_nn_desc, OP_W_F16, 20, 20003, 330, MATMUL_ADD_RESIDUAL, 10);
    else if (_i == 0)
        run_case(&op_matmul_nt_desc, OP_W_Q4_1, 150, 150, 2304, MATMUL_ADD_SELF, 5);
    else
        run_case(&op_matmul_nn_desc, OP_W_Q8_0, 150, 1700, 160, MATMUL_ADD_RESIDUAL, 6);
}
END_TEST

/* Enough outputs for tiles of 128 x 64, which end inside in both directions; sums that end inside of a step, or not. */
START_TEST(wide_tiles_agree)
{
    bool nn = _i >= OP_W_TYPES;
    enum op_wtype type = (enum op_wtype)(_i % OP_W_TYPES);
    bool blocks = type >= OP_W_Q8_0;
    uint32_t cols = blocks ? 2080 : 2053, sums = nn ? 37 : blocks ? 64 : 43;
    run_case(nn ? &op_matmul_nn_desc : &op_matmul_nt_desc, type, 131, nn ? sums : cols, nn ? cols : sums, MATMUL_ADD_SELF, 3);
    run_case(nn ? &op_matmul_nn_desc : &op_matmul_nt_desc, type, 256, nn ? 48 : 2048, nn ? 2048 : 64, nn ? MATMUL_ADD_RESIDUAL : MATMUL_ADD_BIAS, 0);
}
END_TEST

static const struct {
    uint32_t rows, a, b, w_offset;
    bool accumulate;
    float scale;
} tn_shapes[] = {
    {1, 1, 1, 0, false, 1},    {0, 3, 5, 2, false, 1},     {0, 3, 5, 0, true, 1},      {17, 33, 7, 3, true, 0.5f},
    {16, 32, 32, 0, false, 2}, {100, 8, 130, 1, false, 1}, {200, 65, 31, 64, true, 1}, {256, 192, 64, 0, false, 1},
};

START_TEST(tn_agrees)
{
    struct matmul_tn_push p = {
        .rows = tn_shapes[_i].rows,
        .a = tn_shapes[_i].a,
        .b = tn_shapes[_i].b,
        .x_stride = tn_shapes[_i].a + 3,
        .x_col = 2,
        .y_stride = tn_shapes[_i].b + 1,
        .y_col = 1,
        .w_offset = tn_shapes[_i].w_offset,
        .accumulate = tn_shapes[_i].accumulate,
        .scale = tn_shapes[_i].scale,
        .splits = 1 + (uint32_t)_i % 4,
    };
    p.split_rows = matmul_split_terms(p.rows, &p.splits);
    char label[96];
    snprintf(label, sizeof label, "rows %u a %u b %u", p.rows, p.a, p.b);
    struct op_case c = {
        .label = label,
        .push = &p,
        .seed = (uint64_t)_i,
        .rtol = 4 * FLT_EPSILON,
        .atol = 2 * FLT_EPSILON * (p.rows + 1) * p.scale,
        .b = {{.n = (uint64_t)p.rows * p.x_stride},
              {.n = (uint64_t)p.rows * p.y_stride},
              {.n = p.w_offset + (uint64_t)p.a * p.b + 2},
              {.n = (uint64_t)p.splits * p.a * p.b, .ignore = true}},
    };
    op_test_run(&op_matmul_tn_desc, &c);
}
END_TEST

/* ---- gradients: with loss = sum c y, dx = nn(c) and dW = tn(c, x) against differences of nt in double ---- */

enum { T = 3, N = 4, K = 5 };

static double loss(const struct matmul_push *p, double *x, double *w, const double *c)
{
    double y[T * N] = {0}, sum = 0;
    op_matmul_nt_desc.ref((void *[]){x, w, y, y}, p);
    for (int i = 0; i < T * N; i++)
        sum += c[i] * y[i];
    return sum;
}

static void check_differences(const struct matmul_push *p, double *x, double *w, const double *c, double *values, int n,
                              const double *gradient)
{
    for (int i = 0; i < n; i++) {
        const double h = 1e-4, keep = values[i];
        values[i] = keep + h;
        double up = loss(p, x, w, c);
        values[i] = keep - h;
        double down = loss(p, x, w, c);
        values[i] = keep;
        /* The loss is linear in each value: the difference is exact but for rounding, 1e-16 / h. */
        ck_assert_double_eq_tol(gradient[i], (up - down) / (2 * h), 1e-10);
    }
}

START_TEST(gradients_are_the_differences)
{
    double x[T * K], w[N * K], c[T * N], dx[T * K], dw[N * K];
    uint64_t state = 42;
    for (int i = 0; i < T * K; i++)
        x[i] = test_uniform(&state, -1, 1);
    for (int i = 0; i < N * K; i++)
        w[i] = test_uniform(&state, -1, 1);
    for (int i = 0; i < T * N; i++)
        c[i] = test_uniform(&state, -1, 1);
    struct matmul_push nt = {.rows = T, .n = N, .k = K, .x_stride = K, .y_stride = N, .scale = 0.75f};
    struct matmul_push nn = {.rows = T, .n = N, .k = K, .x_stride = N, .y_stride = K, .scale = 0.75f};
    struct matmul_tn_push tn = {.rows = T, .a = N, .b = K, .x_stride = N, .y_stride = K, .scale = 0.75f};
    op_matmul_nn_desc.ref((void *[]){c, w, dx, dx}, &nn);
    op_matmul_tn_desc.ref((void *[]){c, x, dw}, &tn);
    check_differences(&nt, x, w, c, x, T * K, dx);
    check_differences(&nt, x, w, c, w, N * K, dw);
}
END_TEST

/* ---- the functions that the model calls ---- */

static void fill(float *v, size_t n, uint64_t seed)
{
    for (size_t i = 0; i < n; i++)
        v[i] = test_uniform(&seed, -1, 1);
}

/* A weight in three chunks, each its own span, gives what one piece gives: bias and residual move with the chunk, nn
 * goes on. */
static void check_chunks(struct rt_device *dev, enum op_wtype type)
{
    enum { ROWS = 11, OUT = 20, IN = 64 };
    struct rt_error err = {0};
    float x[ROWS * OUT + ROWS * IN], w[OUT * IN], other[ROWS * IN], whole[ROWS * IN], pieces[ROWS * IN];
    fill(x, OP_COUNT(x), 1);
    fill(w, OP_COUNT(w), 2);
    fill(other, OP_COUNT(other), 3);
    for (size_t i = 0; type == OP_W_F16 && i < OP_COUNT(w); i++) /* two halves, as bits; 0.5 .. 1 */
        ((uint32_t *)(void *)w)[i] = 0x38003800u | ((uint32_t)i * 2654435761u & 0x03ff03ffu);
    size_t row = type == OP_W_F32 ? IN : IN / 2; /* words of w a row */
    struct op_weight_chunk parts[3] = {{.row0 = 0, .rows = 7}, {.row0 = 7, .rows = 12}, {.row0 = 19, .rows = 1}};
    for (int i = 0; i < 3; i++)
        parts[i].span = test_span(dev, parts[i].rows * row * 4, w + parts[i].row0 * row);
    struct op_weight one = {
        .type = type, .rows = OUT, .cols = IN, .n_chunks = 1, .one = {test_span(dev, OUT * row * 4, w), 0, OUT}};
    struct op_weight three = {.type = type, .rows = OUT, .cols = IN, .n_chunks = 3, .chunks = parts};
    struct rt_span spans[2] = {test_span(dev, sizeof whole, NULL), test_span(dev, sizeof whole, NULL)};
    for (int form = 0; form < 4; form++) {
        bool nn = form == 3;
        for (int i = 0; i < 2; i++) {
            struct op_matmul m = {
                .x = test_span(dev, sizeof x, x),
                .x_stride = nn ? OUT : IN,
                .w = i ? &three : &one,
                .y = spans[i],
                .y_stride = nn ? IN : OUT,
                .rows = ROWS,
                .add = form == 0   ? OP_ADD_NONE
                       : form == 1 ? OP_ADD_BIAS
                                   : OP_ADD_RESIDUAL,
                .other = test_span(dev, sizeof other, other),
            };
            enum rt_status st = nn ? op_matmul_nn(dev, &m, &err) : op_matmul_nt(dev, &m, &err);
            ck_assert_msg(st == RT_OK, "%s", err.text);
        }
        ck_assert_int_eq(rt_download(dev, spans[0], 0, whole, sizeof whole, &err), RT_OK);
        ck_assert_int_eq(rt_download(dev, spans[1], 0, pieces, sizeof pieces, &err), RT_OK);
        for (int i = 0; i < ROWS * (nn ? IN : OUT); i++) /* 64 or 20 products of at most 1 */
            ck_assert_msg(fabsf(whole[i] - pieces[i]) <= 2e-5f, "form %d at %d: %g in one piece, %g in three", form, i,
                          whole[i], pieces[i]);
    }
    test_check_validation(dev);
    test_release(dev);
}

START_TEST(chunks_are_one_weight)
{
    check_chunks(test_host(), _i ? OP_W_F16 : OP_W_F32);
    if (test_vulkan())
        check_chunks(test_vulkan(), _i ? OP_W_F16 : OP_W_F32);
}
END_TEST

/* An f32 matrix that begins inside of a span, for few tokens and for more. */
static void check_offset(struct rt_device *dev, uint32_t rows)
{
    enum { OUT = 6, IN = 10, OFFSET = 7 };
    struct rt_error err = {0};
    float x[9 * IN], w[OFFSET + OUT * IN], y[9 * OUT];
    fill(x, OP_COUNT(x), 1);
    fill(w, OP_COUNT(w), 2);
    struct op_weight weight = op_weight_f32(test_span(dev, sizeof w, w), OUT, IN);
    weight.offset = OFFSET;
    struct op_matmul m = {.x = test_span(dev, sizeof x, x),
                          .x_stride = IN,
                          .w = &weight,
                          .y = test_span(dev, sizeof y, NULL),
                          .y_stride = OUT,
                          .rows = rows};
    ck_assert_msg(op_matmul_nt(dev, &m, &err) == RT_OK, "%s", err.text);
    ck_assert_int_eq(rt_download(dev, m.y, 0, y, rows * OUT * 4, &err), RT_OK);
    for (uint32_t i = 0; i < rows * OUT; i++) {
        float want = 0;
        for (uint32_t k = 0; k < IN; k++)
            want += x[i / OUT * IN + k] * w[OFFSET + i % OUT * IN + k];
        ck_assert_float_eq_tol(y[i], want, 1e-5f);
    }
    test_release(dev);
}

START_TEST(a_matrix_inside_of_a_span)
{
    check_offset(test_host(), _i ? 9 : 2);
    if (test_vulkan())
        check_offset(test_vulkan(), _i ? 9 : 2);
}
END_TEST

/* A device that binds 48 KiB at most: W in chunks, x, y and the residual in windows of rows, as on the host, which binds all. */
enum { WINDOW_ROWS = 300, WINDOW_OUT = 96, WINDOW_IN = 160, WINDOW_B = 64 };

static void check_windows(struct rt_device *dev, float *y, float *dx, float *dw)
{
    struct rt_error err = {0};
    static float x[WINDOW_ROWS * WINDOW_IN], dy[WINDOW_ROWS * WINDOW_OUT], w[WINDOW_OUT * WINDOW_IN], other[WINDOW_ROWS * WINDOW_OUT];
    fill(x, OP_COUNT(x), 1);
    fill(dy, OP_COUNT(dy), 2);
    fill(w, OP_COUNT(w), 3);
    fill(other, OP_COUNT(other), 4);
    struct rt_arena *arena;
    struct op_weight weight;
    ck_assert_int_eq(rt_arena_create(dev, "windows", &arena, &err), RT_OK);
    ck_assert_msg(op_weight_plan(dev, arena, OP_W_F32, WINDOW_OUT, WINDOW_IN, "w", &weight, &err) == RT_OK, "%s", err.text);
    ck_assert_int_eq(rt_arena_commit(arena, &err), RT_OK);
    for (uint32_t i = 0; i < weight.n_chunks; i++) {
        const struct op_weight_chunk *c = op_weight_chunk(&weight, i);
        ck_assert_int_eq(rt_upload(dev, c->span, 0, w + c->row0 * WINDOW_IN, 4ull * c->rows * WINDOW_IN, &err), RT_OK);
    }
    ck_assert(rt_device_kind(dev) == RT_HOST || weight.n_chunks > 1);
    struct rt_span xs = test_span(dev, sizeof x, x), dys = test_span(dev, sizeof dy, dy), ys = test_span(dev, sizeof dy, NULL),
                   dxs = test_span(dev, sizeof x, NULL), dws = test_span(dev, 4 * WINDOW_OUT * WINDOW_B, NULL);
    struct op_matmul nt = {.x = xs, .x_stride = WINDOW_IN, .w = &weight, .y = ys, .y_stride = WINDOW_OUT, .rows = WINDOW_ROWS,
                           .add = OP_ADD_RESIDUAL, .other = test_span(dev, sizeof other, other)};
    struct op_matmul nn = {.x = dys, .x_stride = WINDOW_OUT, .w = &weight, .y = dxs, .y_stride = WINDOW_IN, .rows = WINDOW_ROWS};
    struct op_matmul_tn tn = {.x = dys, .x_stride = WINDOW_OUT, .y = xs, .y_stride = WINDOW_IN, .w = dws, .a = WINDOW_OUT,
                              .b = WINDOW_B, .rows = WINDOW_ROWS};
    ck_assert_msg(op_matmul_nt(dev, &nt, &err) == RT_OK, "%s", err.text);
    ck_assert_msg(op_matmul_nn(dev, &nn, &err) == RT_OK, "%s", err.text);
    ck_assert_msg(op_matmul_tn(dev, &tn, &err) == RT_OK, "%s", err.text);
    ck_assert_int_eq(rt_download(dev, ys, 0, y, sizeof dy, &err), RT_OK);
    ck_assert_int_eq(rt_download(dev, dxs, 0, dx, sizeof x, &err), RT_OK);
    ck_assert_int_eq(rt_download(dev, dws, 0, dw, 4 * WINDOW_OUT * WINDOW_B, &err), RT_OK);
    nt.x_stride = 1u << 20; /* 64 rows of 4 MiB */
    nt.x = (struct rt_span){xs.buffer, xs.offset, 4ull * WINDOW_ROWS << 20};
    if (rt_device_kind(dev) == RT_VULKAN)
        ck_assert_int_eq(op_matmul_nt(dev, &nt, &err), RT_NO_DEVICE);
    test_check_validation(dev);
    test_release(dev);
    rt_arena_destroy(&arena);
    op_weight_finish(&weight);
}

static void check_near(const char *name, const float *a, const float *b, size_t n)
{
    for (size_t i = 0; i < n; i++) /* sums of at most 300 products of less than 1 */
        ck_assert_msg(fabsf(a[i] - b[i]) <= 1e-4f, "%s[%zu]: %g on the host, %g in windows", name, i, a[i], b[i]);
}

START_TEST(what_exceeds_a_binding_goes_in_windows)
{
    static float y[2][WINDOW_ROWS * WINDOW_OUT], dx[2][WINDOW_ROWS * WINDOW_IN], dw[2][WINDOW_OUT * WINDOW_B];
    char name[32], caps[512], before[512];
    struct rt_device *dev;
    struct rt_error err = {0};
    if (!vk_test_name(name, sizeof name))
        return;
    snprintf(before, sizeof before, "%s", getenv("MOSLD_CAPS") ? getenv("MOSLD_CAPS") : "");
    snprintf(caps, sizeof caps, "%s%srange=49152", before, *before ? "," : "");
    setenv("MOSLD_CAPS", caps, 1);
    ck_assert_msg(rt_device_open(&(struct rt_device_params){.name = name, .validate = true}, &dev, &err) == RT_OK, "%s", err.text);
    setenv("MOSLD_CAPS", before, 1);
    check_windows(test_host(), y[0], dx[0], dw[0]);
    check_windows(dev, y[1], dx[1], dw[1]);
    rt_device_close(&dev);
    check_near("y", y[0], y[1], OP_COUNT(y[0]));
    check_near("dx", dx[0], dx[1], OP_COUNT(dx[0]));
    check_near("dw", dw[0], dw[1], OP_COUNT(dw[0]));
}
END_TEST

START_TEST(what_does_not_fit_is_refused)
{
    struct rt_device *dev = test_host();
    struct rt_error err = {0};
    struct op_weight w = op_weight_f32(test_span(dev, 4 * 8 * 4, NULL), 4, 8);
    struct rt_span small = test_span(dev, 64, NULL), x = test_span(dev, 8 * 4 * 4, NULL);
    struct op_matmul m = {.x = small, .x_stride = 8, .w = &w, .y = x, .y_stride = 4, .rows = 4};
    ck_assert_int_eq(op_matmul_nt(dev, &m, &err), RT_FAILED);
    ck_assert_ptr_nonnull(strstr(err.text, "matmul_nt: x "));
    m.x = x;
    m.y_col = 1;
    ck_assert_int_eq(op_matmul_nt(dev, &m, &err), RT_FAILED);
    ck_assert_ptr_nonnull(strstr(err.text, "matmul_nt: y "));
    m.y_col = 0;
    w.rows = 4;
    w.one.rows = 400;
    ck_assert_int_eq(op_matmul_nt(dev, &m, &err), RT_FAILED);
    struct op_matmul_tn t = {
        .x = x, .y = x, .x_stride = 4, .y_stride = 4, .w = small, .a = 4, .b = 4, .rows = 2, .w_offset = 1};
    ck_assert_int_eq(op_matmul_tn(dev, &t, &err), RT_FAILED);
    t.w_offset = 0;
    ck_assert_msg(op_matmul_tn(dev, &t, &err) == RT_OK, "%s", err.text);
    test_release(dev);
}
END_TEST

/* The bits do not depend on the number of threads. */
START_TEST(threads_change_nothing)
{
    enum { ROWS = 130, OUT = 200, IN = 224 };
    struct rt_error err = {0};
    static float x[ROWS * OUT + ROWS * IN], w[OUT * IN], y[2][3][ROWS * IN];
    fill(x, OP_COUNT(x), 1);
    fill(w, OP_COUNT(w), 2);
    for (int i = 0; i < 2; i++) {
        struct rt_device *dev;
        ck_assert_int_eq(rt_device_open(&(struct rt_device_params){.name = "host", .threads = i ? 5 : 1}, &dev, &err),
                         RT_OK);
        struct op_weight weight = op_weight_f32(test_span(dev, sizeof w, w), OUT, IN);
        struct rt_span xs = test_span(dev, sizeof x, x), ys = test_span(dev, sizeof y[0][0], NULL);
        struct op_matmul m = {.x = xs, .x_stride = IN, .w = &weight, .y = ys, .y_stride = OUT, .rows = ROWS};
        ck_assert_int_eq(op_matmul_nt(dev, &m, &err), RT_OK);
        ck_assert_int_eq(rt_download(dev, ys, 0, y[i][0], sizeof y[0][0], &err), RT_OK);
        m.x_stride = OUT;
        m.y_stride = IN;
        ck_assert_int_eq(op_matmul_nn(dev, &m, &err), RT_OK);
        ck_assert_int_eq(rt_download(dev, ys, 0, y[i][1], sizeof y[0][0], &err), RT_OK);
        struct op_matmul_tn t = {
            .x = xs, .y = xs, .x_stride = OUT, .y_stride = OUT, .w = ys, .a = OUT, .b = 100, .rows = ROWS};
        ck_assert_int_eq(op_matmul_tn(dev, &t, &err), RT_OK);
        ck_assert_int_eq(rt_download(dev, ys, 0, y[i][2], sizeof y[0][0], &err), RT_OK);
        test_release(dev);
        rt_device_close(&dev);
    }
    for (int form = 0; form < 3; form++)
        ck_assert_msg(memcmp(y[0][form], y[1][form], sizeof y[0][0]) == 0, "form %d differs between 1 and 5 threads",
                      form);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("matmul");
    TCase *tc = tcase_create("matmul");
    tcase_set_timeout(tc, 600);
    tcase_add_test(tc, gradients_are_the_differences);
    tcase_add_test(tc, what_does_not_fit_is_refused);
    tcase_add_test(tc, threads_change_nothing);
    tcase_add_test(tc, what_exceeds_a_binding_goes_in_windows);
    tcase_add_loop_test(tc, chunks_are_one_weight, 0, 2);
    tcase_add_loop_test(tc, a_matrix_inside_of_a_span, 0, 2);
    tcase_add_loop_test(tc, tn_agrees, 0, (int)OP_COUNT(tn_shapes));
    tcase_add_loop_test(tc, nt_agrees, 0, OP_W_TYPES);
    tcase_add_loop_test(tc, nn_agrees, 0, OP_W_TYPES);
    suite_add_tcase(suite, tc);
    tc = tcase_create("large"); /* CK_RUN_CASE=large runs these alone */
    tcase_set_timeout(tc, 600);
    tcase_add_loop_test(tc, many_tiles_agree, 0, 6);
    tcase_add_loop_test(tc, wide_tiles_agree, 0, 2 * OP_W_TYPES);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
