/* tests/test_linear_few.c - the linear modules of a group for a few tokens: every variant against the double reference, and against the products and mixtures one
 * by one, whose work it does at once.
 *
 * Tolerance: as in test_matmul.c for k products, and test_mixture_few.c for gates and experts: u and l are sums of k products below one, and go into sums of k r more. */
#include "mosld/ops/choice.h"
#include "mosld/ops/linear_few_host.h"
#include "tests/support/op_test.h"

#include <check.h>
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct shape {
    uint32_t rows, n, k, r, experts, top_k;
} shapes[] = {{1, 576, 576, 8, 8, 2}, {0, 5, 32, 8, 4, 2}, {3, 7, 64, 1, 2, 1}, {8, 131, 96, 5, 3, 2}, {5, 65, 288, 16, 1, 1}, {2, 130, 64, 0, 0, 0}, {4, 33, 32, 16, 64, 64}};

/* One module with its adapter, for every weight type. */
static void run_case(enum op_wtype type, struct shape s, uint32_t add, uint32_t seed)
{
    s.k = (s.k + op_wtype_block(type) - 1) / op_wtype_block(type) * op_wtype_block(type);
    uint32_t before = seed % 3, first = seed / 2 % 4, alone = s.r && seed % 5 == 3, ul = s.r ? before + s.r + s.experts : 0;
    struct linear_few_push p = {.rows = s.rows, .first = first, .k = s.k, .x_stride = s.k + before, .y_stride = s.n + 2, .ul_stride = ul + 1,
                                .stack_rows = ul, .how = type | add << LINEAR_FEW_ADD_SHIFT | (seed % 2 ? LINEAR_FEW_TRANSPOSED : 0) | (alone ? LINEAR_FEW_ALONE : 0)};
    p.n[0] = s.n, p.y_col[0] = 1, p.bias[0] = before, p.u_col[0] = before, p.b[0] = 3, p.scale[0] = 0.5f;
    p.mix[0] = s.r ? s.r | s.experts << 16 | s.top_k << 24 : 0;
    char label[120];
    snprintf(label, sizeof label, "%s rows %u n %u k %u r %u E %u top %u add %u first %u%s", op_wtype_name(type), s.rows, s.n, s.k, s.r, s.experts, s.top_k, add, first,
             alone ? " adapter alone" : "");
    uint64_t y = (uint64_t)(first + s.rows) * p.y_stride;
    struct op_case c = {
        .label = label, .push = &p, .seed = seed, .atol = 1e-5 + 2 * FLT_EPSILON * s.k * (1 + s.r), .rtol = 1e-5,
        .b = {{.n = (uint64_t)(first + s.rows) * p.x_stride},
              {.n = (uint64_t)s.n * s.k, .wtype = type, .rows = s.n, .cols = s.k},
              {.n = y},
              {.n = add == MATMUL_ADD_BIAS ? s.n + before : y},
              {.n = (uint64_t)ul * s.k + 1},
              {.n = (uint64_t)s.rows * p.ul_stride},
              {.n = p.b[0] + (uint64_t)s.n * s.r * s.experts}},
    };
    op_test_run(&op_linear_few_desc, &c);
}

START_TEST(agrees)
{
    static const uint32_t adds[] = {MATMUL_ADD_NONE, MATMUL_ADD_BIAS, MATMUL_ADD_RESIDUAL};
    for (uint32_t i = 0; i < OP_COUNT(shapes); i++)
        run_case((enum op_wtype)_i, shapes[i], adds[i % 3], i + (uint32_t)_i);
}
END_TEST

/* Three modules of one x, f32: the second without an adapter, the third with one expert. */
START_TEST(three_modules_agree)
{
    for (uint32_t rows = 1; rows <= 8; rows += 7) {
        const uint32_t k = 70, n[3] = {65, 3, 130}, all = 198;
        struct linear_few_push p = {.rows = rows, .k = k, .x_stride = k, .y_stride = all, .ul_stride = 20, .stack_rows = 19, .how = rows == 8 ? LINEAR_FEW_TRANSPOSED : 0};
        for (uint32_t i = 0, row = 0; i < 3; row += n[i++])
            p.n[i] = n[i], p.w[i] = row * k, p.y_col[i] = row, p.scale[i] = 2;
        p.mix[0] = 8 | 3 << 16 | 2u << 24, p.mix[2] = 5 | 1 << 16 | 1u << 24;
        p.u_col[2] = 11, p.b[2] = n[0] * 24;
        struct op_case c = {.label = "three modules", .push = &p, .seed = rows, .atol = 1e-4, .rtol = 1e-5,
                            .b = {{.n = (uint64_t)rows * k}, {.n = (uint64_t)all * k, .wtype = OP_W_F32, .rows = all, .cols = k}, {.n = (uint64_t)rows * all},
                                  {.n = 1}, {.n = 19 * k}, {.n = (uint64_t)rows * 20}, {.n = p.b[2] + n[2] * 5}}};
        op_test_run(&op_linear_few_desc, &c);
    }
}
END_TEST

/* ---- through the public functions ---- */

enum { K = 256, ROWS = 5, UL = 50, STACK = 48, EXPERTS = 8, R = 8 };
static const uint32_t widths[3] = {150, 66, 40};

struct group {
    struct rt_arena *arena;
    struct op_weight w[3];
    struct rt_span x, other, stack, b, bias[3];
};

static struct rt_span random_span(struct rt_device *dev, uint64_t n, uint64_t seed)
{
    float *f = malloc(4 * n);
    for (uint64_t i = 0; i < n; i++)
        f[i] = test_uniform(&seed, -1, 1);
    struct rt_span s = test_span(dev, 4 * n, f);
    free(f);
    return s;
}

static void fill_weight(struct rt_device *dev, const struct op_weight *w, uint64_t seed)
{
    struct rt_error err;
    uint64_t bytes = op_weight_bytes(w->type, w->rows, w->cols);
    struct op_weight_part part = op_weight_part(w->type, w->rows, w->cols, 0, w->rows);
    unsigned char *raw = malloc(bytes);
    for (uint64_t i = 0; i < bytes; i++)
        raw[i] = (unsigned char)test_random(&seed);
    for (uint64_t i = 0; i + 2 <= part.scale_bytes; i += 2) { /* about 0.01 */
        uint16_t half = (uint16_t)(0x2000 + test_random(&seed) % 256);
        memcpy(raw + part.scales + i, &half, 2);
    }
    ck_assert(rt_upload(dev, op_weight_chunk(w, 0)->span, 0, raw, bytes, &err) == RT_OK);
    free(raw);
}

static void make_group(struct rt_device *dev, enum op_wtype type, struct group *g)
{
    struct rt_error err;
    ck_assert(rt_arena_create(dev, "test", &g->arena, &err) == RT_OK);
    for (int i = 0; i < 3; i++) {
        ck_assert_msg(op_weight_plan(dev, g->arena, type, widths[i], K, "w", &g->w[i], &err) == RT_OK, "%s", err.text);
        ck_assert(rt_arena_add(g->arena, 4 * widths[i], "bias", &g->bias[i], &err) == RT_OK);
    }
    ck_assert_msg(rt_arena_commit(g->arena, &err) == RT_OK, "%s", err.text);
    for (int i = 0; i < 3; i++) {
        float bias[150];
        uint64_t seed = 70u + (unsigned)i;
        for (uint32_t o = 0; o < widths[i]; o++)
            bias[o] = test_uniform(&seed, -1, 1);
        fill_weight(dev, &g->w[i], (uint64_t)i + 5);
        ck_assert(rt_upload(dev, g->bias[i], 0, bias, 4 * widths[i], &err) == RT_OK);
    }
    g->x = random_span(dev, ROWS * K, 1), g->other = random_span(dev, ROWS * 256, 2), g->stack = random_span(dev, STACK * K, 3);
    g->b = random_span(dev, 256 * EXPERTS * R, 4);
}

static struct op_linear_few few_of(const struct group *g, enum op_add add, struct rt_span y, struct rt_span ul)
{
    struct op_linear_few l = {.x = g->x, .y = y, .other = g->other, .ul = ul, .stack = g->stack, .b = g->b, .rows = ROWS, .x_stride = K, .y_stride = 256,
                              .ul_stride = UL, .stack_rows = STACK, .top_k = 2, .add = add, .n_parts = 3};
    for (uint32_t i = 0, col = 0; i < 3; col += widths[i++])
        l.part[i] = (struct op_linear_few_part){.w = &g->w[i], .y_col = col, .bias = g->bias[i], .r = R, .experts = EXPERTS, .u_col = i * (R + EXPERTS),
                                                .b_offset = (uint64_t)col * EXPERTS * R, .scale = 2};
    return l;
}

/* What model/linear.c did module by module. */
static void one_by_one(struct rt_device *dev, const struct op_linear_few *l)
{
    struct rt_error err;
    struct op_weight stack = op_weight_f32(l->stack, STACK, K);
    ck_assert(op_matmul_nt(dev, &(struct op_matmul){.x = l->x, .x_stride = K, .w = &stack, .y = l->ul, .y_stride = UL, .rows = ROWS}, &err) == RT_OK);
    for (uint32_t i = 0; i < 3; i++) {
        const struct op_linear_few_part *part = &l->part[i];
        uint64_t n = part->w->rows * EXPERTS * R;
        ck_assert_msg(op_matmul_nt(dev, &(struct op_matmul){.x = l->x, .x_stride = K, .w = part->w, .y = l->y, .y_stride = 256, .y_col = part->y_col, .rows = ROWS,
                                                            .add = l->add, .other = l->add == OP_ADD_BIAS ? part->bias : l->other}, &err) == RT_OK, "%s", err.text);
        ck_assert_msg(op_mixture_few(dev, &(struct op_mixture_few){
            .gate = {.ul = l->ul, .rows = ROWS, .ul_stride = UL, .u_col = part->u_col, .l_col = part->u_col + R, .r = R, .experts = EXPERTS, .top_k = 2},
            .b = rt_span_part(l->b, 4 * part->b_offset, 4 * n), .y = l->y, .cols = part->w->rows, .y_stride = 256, .y_col = part->y_col, .scale = 2}, &err) == RT_OK,
            "%s", err.text);
    }
}

static void compare(struct rt_device *dev, struct rt_span one, struct rt_span two, uint32_t rows, uint32_t stride, uint32_t cols, const char *what)
{
    struct rt_error err;
    float a[ROWS * 256], b[ROWS * 256];
    ck_assert(rt_download(dev, one, 0, a, 4ull * rows * stride, &err) == RT_OK && rt_download(dev, two, 0, b, 4ull * rows * stride, &err) == RT_OK);
    for (uint32_t i = 0; i < rows * stride; i++) /* the host's order of sums is the same one */
        if (i % stride < cols)
            ck_assert_msg(rt_device_kind(dev) == RT_HOST ? memcmp(&a[i], &b[i], 4) == 0 : fabsf(a[i] - b[i]) <= 1e-4f * (1 + fabsf(a[i])), "%s %u, %u: %g, %g", what,
                          i / stride, i % stride, a[i], b[i]);
}

static void run_both_ways(struct rt_device *dev, enum op_wtype type)
{
    static const enum op_add adds[] = {OP_ADD_NONE, OP_ADD_BIAS, OP_ADD_RESIDUAL};
    struct rt_error err = {0};
    struct group g;
    make_group(dev, type, &g);
    for (int a = 0; a < 3; a++) {
        struct rt_span y1 = test_span(dev, 4 * ROWS * 256, NULL), y2 = test_span(dev, 4 * ROWS * 256, NULL);
        struct rt_span u1 = test_span(dev, 4 * ROWS * UL, NULL), u2 = test_span(dev, 4 * ROWS * UL, NULL);
        struct op_linear_few one = few_of(&g, adds[a], y1, u1), two = few_of(&g, adds[a], y2, u2);
        ck_assert_msg(op_linear_few(dev, &one, &err) == RT_OK, "%s", err.text);
        one_by_one(dev, &two);
        compare(dev, u1, u2, ROWS, UL, STACK, "u and l");
        compare(dev, y1, y2, ROWS, 256, 256, "y");
    }
    for (int i = 0; i < 3; i++)
        op_weight_finish(&g.w[i]);
    test_check_validation(dev);
    test_release(dev);
    rt_arena_destroy(&g.arena);
}

/* An optional op: a device with four storage buffers a stage has its variants without an adapter alone. */
static bool takes_adapters(struct rt_device *dev)
{
    for (uint32_t i = 0; i < op_linear_few_desc.n_variants; i++)
        if (strncmp(op_linear_few_desc.variants[i].name, "columns.", 8) == 0 && op_can_run(dev, &op_linear_few_desc.variants[i]))
            return true;
    return false;
}

START_TEST(is_products_and_mixtures)
{
    static const enum op_wtype types[] = {OP_W_Q4_0, OP_W_Q4_1, OP_W_Q8_0, OP_W_Q6_K};
    run_both_ways(test_host(), types[_i]);
    if (test_vulkan() && takes_adapters(test_vulkan()))
        run_both_ways(test_vulkan(), types[_i]);
}
END_TEST

START_TEST(what_it_does_not_take_is_refused)
{
    struct rt_device *dev = test_host();
    struct rt_error err = {0};
    struct group g;
    make_group(dev, OP_W_Q4_1, &g);
    struct rt_span y = test_span(dev, 4 * ROWS * 256, NULL), ul = test_span(dev, 4 * ROWS * UL, NULL);
    struct op_linear_few l = few_of(&g, OP_ADD_NONE, y, ul), bad = l;
    ck_assert(op_linear_few_takes(dev, &l) && op_linear_few(dev, &l, &err) == RT_OK);
    bad.rows = LINEAR_FEW_ROWS + 1;
    ck_assert(!op_linear_few_takes(dev, &bad));
    ck_assert_int_eq(op_linear_few(dev, &bad, &err), RT_FAILED);
    bad = l, bad.part[1].r = 1024;
    ck_assert(!op_linear_few_takes(dev, &bad));
    bad = l, bad.part[2].w = &(struct op_weight){.type = OP_W_F32, .rows = 40, .cols = K + 1, .n_chunks = 1, .one = {.span = y, .rows = 40}};
    ck_assert(!op_linear_few_takes(dev, &bad));
    bad = l, bad.part[1].u_col = STACK - R - EXPERTS + 1; /* beyond the stack */
    ck_assert_int_eq(op_linear_few(dev, &bad, &err), RT_FAILED);
    bad = l, bad.part[1].b_offset = 256 * EXPERTS * R; /* beyond B */
    ck_assert_int_eq(op_linear_few(dev, &bad, &err), RT_FAILED);
    bad = l, bad.y_stride = 255;
    ck_assert_int_eq(op_linear_few(dev, &bad, &err), RT_FAILED);
    for (int i = 0; i < 3; i++)
        op_weight_finish(&g.w[i]);
    test_release(dev);
    rt_arena_destroy(&g.arena);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("linear_few");
    TCase *tc = tcase_create("all");
    tcase_set_timeout(tc, 300);
    tcase_add_loop_test(tc, agrees, 0, OP_W_TYPES);
    tcase_add_test(tc, three_modules_agree);
    tcase_add_loop_test(tc, is_products_and_mixtures, 0, 4);
    tcase_add_test(tc, what_it_does_not_take_is_refused);
    suite_add_tcase(s, tc);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? 1 : 0;
}
