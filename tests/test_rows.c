/* tests/test_rows.c - embedding, gather and scatter: copies, so every variant must give the reference's values to the
 * bit. */
#include "mosld/ops/rows_common.h"
#include "mosld/ops/weight_layout.h"
#include "tests/support/op_test.h"

#include <check.h>
#include <float.h>
#include <stdio.h>
#include <stdlib.h>

static const struct {
    uint32_t rows, n, k, row0;
} shapes[] = {{1, 1, 32, 0}, {0, 3, 32, 0}, {7, 5, 96, 0}, {9, 6, 288, 3}, {33, 50, 576, 20}};
static const struct {
    uint32_t rows, n, k, row0;
} odd_shapes[] = {{3, 2, 1, 0}, {4, 7, 33, 1}, {5, 3, 259, 0}, {2, 3, 6, 0}};

static void run_embedding(enum op_wtype type, uint32_t rows, uint32_t n, uint32_t k, uint32_t row0)
{
    k = (k + op_wtype_block(type) - 1) / op_wtype_block(type) * op_wtype_block(type);
    struct op_weight_layout layout;
    ck_assert(op_weight_layout(type, n, k, &layout));
    struct embedding_push p = {
        .rows = rows, .row0 = row0, .n = n, .k = k, .scales = (uint32_t)layout.scales, .wtype = type};
    uint32_t tokens[64];
    uint64_t state = rows + k;
    for (uint32_t i = 0; i < rows; i++) /* rows of this chunk, and with row0 some of chunks before and behind it */
        tokens[i] = (uint32_t)(test_random(&state) % (n + 2 * row0));
    bool has_offset = 1u << type & (1u << OP_W_Q4_1 | 1u << OP_W_Q5_1 | 1u << OP_W_Q2_K | 1u << OP_W_Q4_K | 1u << OP_W_Q5_K);
    char label[80];
    snprintf(label, sizeof label, "%s rows %u n %u k %u row0 %u", op_wtype_name(type), rows, n, k, row0);
    struct op_case c = {
        .label = label,
        .push = &p,
        .seed = k,
        /* A type with an offset is a product and a sum: a device may contract them, which moves the last bit of the larger one
           (values below 8). */
        .atol = has_offset ? 8 * FLT_EPSILON : 0,
        .b = {{.n = rows, .words = tokens},
              {.n = (uint64_t)n * k, .wtype = type, .rows = n, .cols = k},
              {.n = (uint64_t)rows * k}},
    };
    op_test_run(&op_embedding_desc, &c);
}

START_TEST(embedding_agrees)
{
    for (uint32_t i = 0; i < OP_COUNT(shapes); i++)
        run_embedding(_i, shapes[i].rows, shapes[i].n, shapes[i].k, shapes[i].row0);
    for (uint32_t i = 0; i < OP_COUNT(odd_shapes) && _i < OP_W_Q8_0; i++)
        run_embedding(_i, odd_shapes[i].rows, odd_shapes[i].n, odd_shapes[i].k, odd_shapes[i].row0);
}
END_TEST

static const struct {
    uint32_t rows, cols, limit;
} moves[] = {{0, 3, 4}, {1, 1, 1}, {5, 63, 9}, {7, 65, 7}, {70000, 2, 70000}, {3, 576, 20}};

/* Distinct indices in an order of their own; where there is room, one that lies outside and moves nothing. */
static uint32_t *make_index(uint32_t rows, uint32_t limit)
{
    uint32_t *index = malloc((rows + 1) * sizeof *index);
    for (uint32_t i = 0; i < rows; i++)
        index[i] = limit - 1 - i;
    if (rows > 2)
        index[1] = limit + 5;
    return index;
}

START_TEST(moves_agree)
{
    uint32_t rows = moves[_i].rows, cols = moves[_i].cols, limit = moves[_i].limit;
    struct rows_push p = {.rows = rows, .cols = cols, .limit = limit};
    uint32_t *index = make_index(rows, limit);
    uint64_t dense = (uint64_t)rows * cols, indexed = (uint64_t)limit * cols;
    char label[80];
    snprintf(label, sizeof label, "rows %u cols %u of %u", rows, cols, limit);
    struct op_case c = {
        .label = label, .push = &p, .seed = rows, .b = {{.n = indexed}, {.n = rows, .words = index}, {.n = dense}}};
    op_test_run(&op_gather_rows_desc, &c);
    c.b[0].n = dense;
    c.b[2].n = indexed;
    op_test_run(&op_scatter_rows_desc, &c);
    free(index);
}
END_TEST

/* Through the functions that the model calls: a table of two chunks, and there and back by index. */
static void check_calls(struct rt_device *dev)
{
    enum { ROWS = 4, COLS = 3 };
    struct rt_error err = {0};
    const float table[5 * COLS] = {0, 1, 2, 10, 11, 12, 20, 21, 22, 30, 31, 32, 40, 41, 42};
    const uint32_t tokens[ROWS] = {4, 0, 2, 3};
    struct op_weight_chunk parts[2] = {{test_span(dev, 2 * COLS * 4, table), 0, 2},
                                       {test_span(dev, 3 * COLS * 4, table + 2 * COLS), 2, 3}};
    struct op_weight w = {.type = OP_W_F32, .rows = 5, .cols = COLS, .n_chunks = 2, .chunks = parts};
    struct rt_span t = test_span(dev, sizeof tokens, tokens), y = test_span(dev, ROWS * COLS * 4, NULL);
    struct rt_span wide = test_span(dev, 5 * COLS * 4, NULL), back = test_span(dev, ROWS * COLS * 4, NULL);
    float got[5 * COLS];
    ck_assert_msg(op_embedding(dev, t, &w, y, ROWS, &err) == RT_OK, "%s", err.text);
    ck_assert_msg(op_scatter_rows(dev, y, t, wide, ROWS, COLS, &err) == RT_OK, "%s", err.text);
    ck_assert_msg(op_gather_rows(dev, wide, t, back, ROWS, COLS, &err) == RT_OK, "%s", err.text);
    ck_assert_int_eq(rt_download(dev, wide, 0, got, sizeof got, &err), RT_OK);
    for (int i = 0; i < 5 * COLS; i++)
        ck_assert_float_eq(got[i], i / COLS == 1 ? 0 : table[i]);
    ck_assert_int_eq(rt_download(dev, back, 0, got, ROWS * COLS * 4, &err), RT_OK);
    for (int i = 0; i < ROWS * COLS; i++)
        ck_assert_float_eq(got[i], table[tokens[i / COLS] * COLS + i % COLS]);
    ck_assert_int_eq(op_embedding(dev, t, &w, test_span(dev, 8, NULL), ROWS, &err), RT_FAILED);
    ck_assert_int_eq(op_gather_rows(dev, wide, t, back, 500, COLS, &err), RT_FAILED);
    test_check_validation(dev);
    test_release(dev);
}

START_TEST(calls)
{
    check_calls(test_host());
    if (test_vulkan())
        check_calls(test_vulkan());
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("rows");
    TCase *tc = tcase_create("rows");
    tcase_set_timeout(tc, 600);
    tcase_add_loop_test(tc, embedding_agrees, 0, OP_W_TYPES);
    tcase_add_loop_test(tc, moves_agree, 0, (int)OP_COUNT(moves));
    tcase_add_test(tc, calls);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
