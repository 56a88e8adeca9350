/* tests/test_dropout.c - Philox by its published answers, and the masks drawn from it: the same on every device. */
#include "mosld/ops/mixture.h"
#include "mosld/ops/op.h"
#include "mosld/ops/philox.h"
#include "shaders/dropout.h"
#include "shaders/dropout_stacks.h"
#include "shaders/step.h"
#include "tests/support/op_stride.h"

#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

START_TEST(philox_gives_the_published_answers)
{
    /* philox4x32-10 in kat_vectors of Random123: counter, key, result */
    static const uint32_t known[3][10] = {
        {0, 0, 0, 0, 0, 0, 0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8},
        {~0u, ~0u, ~0u, ~0u, ~0u, ~0u, 0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd},
        {0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344, 0xa4093822, 0x299f31d0, 0xd16cfe09, 0x94fdcceb, 0x5001e420,
         0x24126ea1},
    };
    for (int i = 0; i < 3; i++) {
        uint32_t out[4], lanes[4][PHILOX_LANES];
        mosld_philox(known[i], known[i] + 4, out);
        ck_assert_mem_eq(out, known[i] + 6, sizeof out);
        /* the block of this counter in the middle of many; the first counter may wrap */
        philox_lanes(known[i][0] - 5, known[i][1], known[i][2], known[i][3], known[i] + 4, lanes);
        for (int w = 0; w < 4; w++)
            ck_assert_uint_eq(lanes[w][5], known[i][6 + w]);
    }
}
END_TEST

START_TEST(threshold_is_the_one_of_double)
{
    uint64_t state = 1;
    for (int i = 0; i < 100000; i++) {
        float p = test_uniform(&state, 0, 1);
        if (i % 2)
            p = ldexpf(p, -(int)(test_random(&state) % 20));
        if (p > 0)
            ck_assert_msg(philox_threshold(p) == (uint32_t)((1 - (double)p) * 4294967296.0), "p = %a", p);
    }
    ck_assert_uint_eq(philox_threshold(0.5f), 1u << 31);
    ck_assert_uint_eq(philox_threshold(0.25f), 3u << 30);
    ck_assert_uint_eq(philox_threshold(1e-30f), ~0u);
    ck_assert_uint_eq(philox_threshold(nextafterf(1, 0)), 1u << 8);
}
END_TEST

static void make_step(uint32_t step[STEP_WORDS], float p)
{
    memset(step, 0, STEP_WORDS * sizeof *step);
    step[STEP_DROPOUT] = host_bits(p);
    step[STEP_SEED_LO] = 0xfeedf00d;
    step[STEP_SEED_HI] = 0x12345678;
    step[STEP_MICRO] = 77;
}

/* x has no zero and, where y is not added to, a dropped element must be 0 and a kept one not: a wrong bit of the mask
 * cannot hide in the tolerance, which is for the rounding of 1 / (1 - p), its product, and the sum with y. */
static void run_dropout(struct dropout_push p, float drop, uint32_t site,
                        void run(const struct op *, const struct op_case *))
{
    char label[96];
    uint32_t step[STEP_WORDS];
    make_step(step, drop);
    p.module = 3, p.layer = 11, p.site = site;
    snprintf(label, sizeof label, "n %u dropped %u p %g site %u given %u accumulate %u", p.n, p.dropped, drop, site,
             p.given, p.accumulate);
    float *mask = malloc((p.n + 1 + (uint64_t)p.mask_offset) * sizeof *mask);
    for (uint32_t i = 0; i < p.n + p.mask_offset; i++)
        mask[i] = i * 2654435761u >> 31;
    struct op_case c = {.label = label, .push = &p, .seed = p.n, .atol = p.accumulate ? 1e-6 : 0, .rtol = 1e-6,
                        .b = {{.n = (uint64_t)p.n + p.x_offset, .lo = 0.5f, .hi = 1},
                              {.n = (uint64_t)p.n + p.y_offset},
                              {.n = p.given ? (uint64_t)p.n + p.mask_offset : 0, .values = mask},
                              {.n = STEP_WORDS, .words = step}}};
    run(&op_dropout_desc, &c);
    free(mask);
}

START_TEST(dropout_agrees)
{
    /* nothing, parts of a block, off a workgroup, a layer of SmolLM2 with its router */
    static const struct dropout_push cases[] = {
        {.n = 0},
        {.n = 1, .dropped = 1},
        {.n = 7, .dropped = 3, .x_offset = 5, .y_offset = 2, .mask_offset = 3},
        {.n = 11, .dropped = 0, .x_offset = 1},
        {.n = 515, .dropped = 513, .y_offset = 1},
        {.n = (8 + 4) * 576, .dropped = 8 * 576, .x_offset = 64},
        {.n = 40001, .dropped = 33333},
    };
    const float drops[] = {0, 0.1f, 0.5f, 0.99f};
    for (uint32_t i = 0; i < OP_COUNT(cases); i++)
        for (uint32_t d = 0; d < OP_COUNT(drops); d++)
            for (uint32_t flags = 0; flags < 4; flags++) {
                struct dropout_push p = cases[i];
                p.given = flags & 1;
                p.accumulate = flags >> 1;
                run_dropout(p, drops[d], d % 2 ? DROPOUT_SITE_WEIGHTS : DROPOUT_SITE_INPUT, op_test_run);
            }
}
END_TEST

START_TEST(more_elements_than_a_grid_has_invocations)
{
    run_dropout((struct dropout_push){.n = 3000, .dropped = 1501}, 0.25f, DROPOUT_SITE_WEIGHTS, op_test_run_strided);
    run_dropout((struct dropout_push){.n = 3000, .dropped = 1501, .given = 1}, 0.25f, DROPOUT_SITE_WEIGHTS,
                op_test_run_strided);
}
END_TEST

/* Three modules of different lengths, apart in both vectors and in another order in one; with what is between them left alone. */
static void run_stacks(float drop, bool back, void run(const struct op *, const struct op_case *))
{
    static const uint32_t table[3 * DROPOUT_ENTRY] = {2000, 1,    1029, 515, 4, 6, 0, 0, /* */
                                                         1100, 1050, 7,    4,   0, 0, 0, 0, /* */
                                                         64,   1200, 1000, 600, 9, 3, 0, 0};
    struct dropout_stacks_push p = {.modules = 3, .longest = 1029, .back = back};
    uint32_t step[STEP_WORDS];
    char label[64];
    make_step(step, drop);
    snprintf(label, sizeof label, "p %g back %d", drop, back);
    struct op_case c = {.label = label, .push = &p, .seed = 5, .atol = back ? 1e-6 : 0, .rtol = 1e-6,
                        .b = {{.n = 3100, .lo = 0.5f, .hi = 1}, {.n = 3100}, {.n = OP_COUNT(table), .words = table}, {.n = STEP_WORDS, .words = step}}};
    run(&op_dropout_stacks_desc, &c);
}

START_TEST(all_modules_at_once)
{
    for (int back = 0; back < 2; back++) {
        run_stacks(0, back, op_test_run);
        run_stacks(0.1f, back, op_test_run);
        run_stacks(0.5f, back, op_test_run_strided);
    }
}
END_TEST

/* What mixture.h says, written out. */
static bool kept(const uint32_t *step, uint32_t element, uint32_t module, uint32_t layer, uint32_t site, double p)
{
    uint32_t counter[4] = {element / 4, module, layer, site}, words[4];
    uint32_t key[2] = {step[STEP_SEED_LO] ^ step[STEP_MICRO], step[STEP_SEED_HI]};
    mosld_philox(counter, key, words);
    return words[element % 4] < (uint32_t)((1 - p) * 4294967296.0);
}

enum { R = 8, E = 3, COLS = 197, N = (R + E) * COLS };

/* Draws with `weights` or inputs of the public functions and counts what is kept; checks each element. */
static uint32_t draw(struct rt_device *dev, bool weights, const uint32_t *step_words, uint32_t layer, uint32_t module,
                     float y[N])
{
    struct rt_error err = {0};
    float ones[N];
    uint32_t count = 0, dropped = weights ? R * COLS : N;
    for (int i = 0; i < N; i++)
        ones[i] = 1;
    struct rt_span x = test_span(dev, sizeof ones, ones), to = test_span(dev, sizeof ones, NULL);
    struct rt_span step = test_span(dev, STEP_WORDS * 4, step_words);
    struct op_dropout_weights w = {
        .x = x, .y = to, .step = step, .r = R, .experts = E, .cols = COLS, .layer = layer, .module = module};
    struct op_dropout_input in = {
        .x = x, .y = to, .step = step, .rows = R + E, .cols = COLS, .layer = layer, .module = module};
    enum rt_status st = weights ? op_dropout_weights(dev, &w, &err) : op_dropout_input(dev, &in, &err);
    ck_assert_msg(st == RT_OK, "%s", err.text);
    ck_assert_msg(rt_download(dev, to, 0, y, N * sizeof *y, &err) == RT_OK, "%s", err.text);
    for (uint32_t i = 0; i < N; i++) {
        bool keep =
            i >= dropped || kept(step_words, i, module, layer, weights ? 0 : 1, host_float(step_words[STEP_DROPOUT]));
        ck_assert_msg((y[i] != 0) == keep, "weights %d, element %u", weights, i);
        count += i < dropped && keep;
    }
    test_release(dev);
    return count;
}

START_TEST(the_public_calls_draw_what_the_header_says)
{
    struct rt_device *devices[] = {test_host(), test_vulkan()};
    uint32_t step[STEP_WORDS];
    float first[N], again[N], other[N];
    make_step(step, 0.25f);
    for (int d = 0; d < 2 && devices[d]; d++) {
        uint32_t count = draw(devices[d], true, step, 2, 5, first);
        /* binomial: 1576 draws of 3/4 have a standard deviation of 17 */
        ck_assert_msg(count > R * COLS * 3 / 4 - 70 && count < R * COLS * 3 / 4 + 70, "%u of %d kept", count, R * COLS);
        draw(devices[d], true, step, 2, 5, again);
        ck_assert_mem_eq(first, again, sizeof first);
        draw(devices[d], true, step, 5, 2, other);
        ck_assert(memcmp(first, other, sizeof first) != 0);
        draw(devices[d], false, step, 2, 5, other);
        ck_assert(memcmp(first, other, sizeof(float) * R * COLS) != 0);
        step[STEP_MICRO]++;
        draw(devices[d], true, step, 2, 5, other);
        ck_assert(memcmp(first, other, sizeof first) != 0);
        step[STEP_MICRO]--;
        test_check_validation(devices[d]);
    }
}
END_TEST

START_TEST(refuses_what_does_not_fit)
{
    struct rt_error err = {0};
    struct op_dropout_weights w = {.r = 1u << 20, .experts = 4, .cols = 1u << 20};
    ck_assert_int_eq(op_dropout_weights(test_host(), &w, &err), RT_NO_MEMORY);
    struct op_dropout_input in = {.rows = 1u << 16, .cols = 1u << 16};
    ck_assert_int_eq(op_dropout_input(test_host(), &in, &err), RT_NO_MEMORY);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("dropout");
    TCase *tc = tcase_create("dropout");
    tcase_set_timeout(tc, 300);
    tcase_add_test(tc, philox_gives_the_published_answers);
    tcase_add_test(tc, threshold_is_the_one_of_double);
    tcase_add_test(tc, dropout_agrees);
    tcase_add_test(tc, all_modules_at_once);
    tcase_add_test(tc, more_elements_than_a_grid_has_invocations);
    tcase_add_test(tc, the_public_calls_draw_what_the_header_says);
    tcase_add_test(tc, refuses_what_does_not_fit);
    suite_add_tcase(s, tc);
    SRunner *runner = srunner_create(s);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
