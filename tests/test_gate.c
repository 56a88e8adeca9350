/* tests/test_gate.c - the routers of a group: gates with their statistics, and their backward. */
#include "mosld/ops/gate_row.h"
#include "mosld/ops/op.h"
#include "shaders/gate.h"
#include "tests/support/op_stride.h"

#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ul is stride wide, u and l stand apart in it and in either order. The last shapes: all of what is allowed;
 * every expert kept, or more asked for than there are. Pairs of token and module fill a workgroup or not, and modules side by side
 * have a column between them or none. */
static const struct shape {
    uint32_t rows, E, k, r, u_col, l_col, stride, modules, module_cols;
} shapes[] = {
    {0, 4, 2, 8, 0, 8, 12, 1, 0},        {1, 1, 1, 1, 0, 1, 2, 1, 0},          {3, 2, 1, 5, 2, 0, 9, 1, 0},
    {33, 8, 2, 8, 16, 24, 36, 1, 0},     {5, 3, 3, 33, 7, 1, 41, 1, 0},        {7, 7, 3, 65, 0, 65, 72, 1, 0},
    {2, 64, 5, 256, 0, 256, 320, 1, 0},  {2, 64, 64, 3, 0, 3, 67, 1, 0},       {3, 4, 9, 16, 0, 16, 20, 1, 0},
    {33, 8, 2, 8, 0, 8, 32, 2, 16},      {5, 3, 2, 4, 1, 6, 32, 3, 10},        {65, 16, 2, 8, 0, 8, 72, 3, 24},
    {70, 2, 1, 8, 8, 6, 26, 2, 10},
};

static struct gate_push push_of(const struct shape *s)
{
    return (struct gate_push){.rows = s->rows,
                              .ul_stride = s->stride,
                              .u_col = s->u_col,
                              .l_col = s->l_col,
                              .r = s->r,
                              .experts = s->E,
                              .top_k = s->k,
                              .modules = s->modules,
                              .module_cols = s->module_cols,
                              .stats_offset = 3,
                              .stats_stride = 2 * s->E + 1};
}

static uint64_t stats_words(const struct gate_push *p) { return p->stats_offset + (uint64_t)p->modules * p->stats_stride; }

static char *label_of(const struct shape *s, float spread)
{
    static char label[96];
    snprintf(label, sizeof label, "rows %u modules %u E %u k %u r %u, +-%g", s->rows, s->modules, s->E, s->k, s->r, spread);
    return label;
}

/* Gates are exact to a few roundings, the sum of E of them and the device's exp, whose error is 3 + 2 |x| units in the
 * last place: of e^-x that is at most 1e-7 of the largest gate and, where a gate counts, 1e-5 of itself. */
#define GATE_ATOL 1e-6
#define GATE_RTOL 1e-5

/* With statistics and without. Those are means of up to 64 terms a partial sum: exact to GATE_ATOL too. */
static void run_gate(const struct shape *s, bool counts, float spread, uint64_t seed)
{
    struct gate_push p = push_of(s);
    p.counts = counts;
    struct op_case c = {.label = label_of(s, spread),
                        .push = &p,
                        .seed = seed,
                        .atol = GATE_ATOL * spread,
                        .rtol = GATE_RTOL,
                        .b = {{.n = (uint64_t)s->rows * s->stride, .lo = -spread, .hi = spread},
                              {.n = (uint64_t)s->rows * s->modules * s->E * s->r},
                              {.n = stats_words(&p) + 1}}};
    op_test_run(&op_gate_desc, &c);
    if (s->rows == 5)
        op_test_run_strided(&op_gate_desc, &c);
}

START_TEST(gate_agrees)
{
    for (uint32_t i = 0; i < OP_COUNT(shapes); i++)
        for (int counts = 0; counts < 2; counts++) {
            run_gate(&shapes[i], counts, 1, i);
            run_gate(&shapes[i], counts, 80, i);
        }
}
END_TEST

START_TEST(ties_go_to_the_lowest_index)
{
    /* Two tokens of six experts and u = 1: three equal logits on top of which two are kept, and all six equal. */
    float ul[14] = {1, 3, -1, 3, 0, 3, 2, 1, 5, 5, 5, 5, 5, 5}, want[12] = {0.5, 0, 0.5, 0, 0, 0, 0.5, 0.5, 0, 0, 0, 0},
          z[12];
    struct rt_device *devices[] = {test_host(), test_vulkan()};
    for (int d = 0; d < 2 && devices[d]; d++) {
        struct rt_error err = {0};
        struct op_gate g = {.ul = test_span(devices[d], sizeof ul, ul),
                            .z = test_span(devices[d], sizeof z, NULL),
                            .rows = 2,
                            .ul_stride = 7,
                            .l_col = 1,
                            .r = 1,
                            .experts = 6,
                            .top_k = 2};
        ck_assert_msg(op_gate(devices[d], &g, &err) == RT_OK, "%s", err.text);
        ck_assert_msg(rt_download(devices[d], g.z, 0, z, sizeof z, &err) == RT_OK, "%s", err.text);
        for (int i = 0; i < 12; i++)
            ck_assert_msg(fabsf(z[i] - want[i]) < 1e-6f, "device %d, z[%d]: want %g, got %g", d, i, want[i], z[i]);
        test_release(devices[d]);
    }
}
END_TEST

static void run_backward(const struct shape *s, float balance, float spread, uint64_t seed)
{
    struct gate_push p = push_of(s);
    p.balance = balance;
    struct op_case c = {.label = label_of(s, spread), .push = &p, .seed = seed,
                        /* a product of r terms: each addition rounds a partial sum that stays well under 4 spread */
                        .atol = spread * (1e-6 + s->r * 2.4e-7), .rtol = GATE_RTOL,
                        .b = {{.n = (uint64_t)s->rows * s->stride, .lo = -spread, .hi = spread},
                              {.n = (uint64_t)s->rows * s->modules * s->E * s->r},
                              {.n = (uint64_t)s->rows * s->stride},
                              {.n = stats_words(&p), .lo = 0, .hi = 1}}};
    op_test_run(&op_gate_bwd_desc, &c);
    if (s->rows == 5)
        op_test_run_strided(&op_gate_bwd_desc, &c);
}

START_TEST(gate_bwd_agrees)
{
    for (uint32_t i = 0; i < OP_COUNT(shapes); i++) {
        run_backward(&shapes[i], 0, 1, i);
        run_backward(&shapes[i], 0.25f, 1, i);
        run_backward(&shapes[i], 0.25f, 80, i);
    }
}
END_TEST

/* ---- the reference's gradient against differences of the reference ---- */

#define ROWS 5
#define EXPERTS 6
#define RANK 3
#define MODULES 2
#define STRIDE (MODULES * (RANK + EXPERTS))

/* sum of w z, and of the balance term balance * f_e p_te with f held. */
static double objective(const struct gate_push *p, double *ul, const double *w, const double *f)
{
    double z[ROWS * MODULES * EXPERTS * RANK], sum = 0, g[EXPERTS], prob[EXPERTS];
    void *bindings[] = {ul, z, NULL};
    op_gate_desc.ref(bindings, p);
    for (uint32_t i = 0; i < OP_COUNT(z); i++)
        sum += w[i] * z[i];
    for (uint32_t i = 0; i < p->rows * p->modules; i++) {
        uint32_t t = i / p->modules, m = i % p->modules;
        gate_row_ref(ul + t * p->ul_stride + m * p->module_cols + p->l_col, p->experts, p->top_k, g, prob);
        for (uint32_t e = 0; e < p->experts; e++)
            sum += p->balance * f[m * p->stats_stride + e] * prob[e];
    }
    return sum;
}

/* Logits in [-2, 2), no two of a token closer than 0.01, so that a small step changes no decision. */
static void draw_apart(double *l, uint32_t n, uint64_t *state)
{
    for (uint32_t i = 0; i < n; i++) {
        l[i] = test_uniform(state, -2, 2);
        for (uint32_t j = 0; j < i; j++)
            if (fabs(l[i] - l[j]) < 0.01) {
                i--;
                break;
            }
    }
}

START_TEST(gate_bwd_is_the_derivative)
{
    const uint32_t top_k[] = {1, 2, EXPERTS};
    const double h =
        1e-5; /* differences of a smooth function in double: error about h^2 and 1e-16 / h, both under 1e-9 */
    uint64_t state = 7;
    for (int i = 0; i < 3; i++)
        for (int b = 0; b < 2; b++) {
            struct gate_push p = {.rows = ROWS,
                                  .ul_stride = STRIDE,
                                  .l_col = RANK,
                                  .r = RANK,
                                  .experts = EXPERTS,
                                  .top_k = top_k[i],
                                  .modules = MODULES,
                                  .module_cols = RANK + EXPERTS,
                                  .stats_stride = 2 * EXPERTS,
                                  .balance = b ? 0.75f : 0};
            double ul[ROWS * STRIDE], w[ROWS * MODULES * EXPERTS * RANK], dz[OP_COUNT(w)], z[OP_COUNT(w)], dul[ROWS * STRIDE],
                stats[MODULES * 2 * EXPERTS];
            for (int t = 0; t < ROWS * MODULES; t++) {
                for (int j = 0; j < RANK; j++)
                    ul[t * (RANK + EXPERTS) + j] = test_uniform(&state, -1, 1);
                draw_apart(ul + t * (RANK + EXPERTS) + RANK, EXPERTS, &state);
            }
            for (uint32_t j = 0; j < OP_COUNT(w); j++)
                w[j] = test_uniform(&state, -1, 1);
            for (uint32_t j = 0; j < OP_COUNT(stats); j++)
                stats[j] = test_uniform(&state, 0, 1);
            memcpy(dz, w, sizeof w);
            op_gate_bwd_desc.ref((void *[]){ul, dz, dul, stats}, &p);
            op_gate_desc.ref((void *[]){ul, z, NULL}, &p);
            ck_assert_mem_eq(dz, z, sizeof z); /* z stands where dz was */
            for (int j = 0; j < ROWS * STRIDE; j++) {
                double at = ul[j];
                ul[j] = at + h;
                double up = objective(&p, ul, w, stats);
                ul[j] = at - h;
                double down = objective(&p, ul, w, stats);
                ul[j] = at;
                double want = (up - down) / (2 * h);
                ck_assert_msg(fabs(dul[j] - want) < 1e-8, "k %u balance %g [%d]: difference %.10g, gradient %.10g",
                              p.top_k, p.balance, j, want, dul[j]);
            }
        }
}
END_TEST

/* ---- statistics ---- */

START_TEST(statistics_do_not_depend_on_threads)
{
    enum { T = 1000, E = 8 };
    float *ul = malloc(T * E * sizeof *ul), stats[3][2 * E], shares = 0, means = 0;
    uint64_t state = 3;
    for (int i = 0; i < T * E; i++)
        ul[i] = test_uniform(&state, -4, 4);
    for (int threads = 1; threads <= 3; threads++) {
        struct rt_error err = {0};
        struct rt_device *dev;
        struct rt_device_params params = {.name = "host", .threads = threads};
        ck_assert_msg(rt_device_open(&params, &dev, &err) == RT_OK, "%s", err.text);
        struct op_gate s = {.ul = test_span(dev, T * E * sizeof *ul, ul),
                            .z = test_span(dev, T * E * sizeof *ul, NULL),
                            .stats = test_span(dev, sizeof stats[0], NULL),
                            .counts = true,
                            .rows = T,
                            .ul_stride = E,
                            .r = 1,
                            .experts = E,
                            .top_k = 2};
        ck_assert_msg(op_gate(dev, &s, &err) == RT_OK, "%s", err.text);
        ck_assert_msg(rt_download(dev, s.stats, 0, stats[threads - 1], sizeof stats[0], &err) == RT_OK, "%s", err.text);
        test_release(dev);
        rt_device_close(&dev);
        ck_assert_mem_eq(stats[threads - 1], stats[0], sizeof stats[0]);
    }
    for (int e = 0; e < E; e++) {
        shares += stats[0][e];
        means += stats[0][E + e];
    }
    ck_assert(fabsf(shares - 1) < 1e-5f && fabsf(means - 1) < 1e-5f);
    free(ul);
}
END_TEST

START_TEST(refuses_what_it_cannot_do)
{
    struct rt_error err = {0};
    struct op_gate g = {.rows = 1, .ul_stride = 100, .r = 1, .experts = MOSLD_MAX_EXPERTS + 1, .top_k = 1};
    ck_assert_int_eq(op_gate(test_host(), &g, &err), RT_USAGE);
    ck_assert_ptr_nonnull(strstr(err.text, "65 experts"));
    g.experts = 4, g.top_k = 0;
    ck_assert_int_eq(op_gate_bwd(test_host(), &(struct op_gate_bwd){.g = g}, &err), RT_USAGE);
    ck_assert_ptr_nonnull(strstr(err.text, "top_k"));
    g.experts = 0, g.top_k = 1;
    ck_assert_int_eq(op_gate(test_host(), &g, &err), RT_USAGE);
    g.experts = 4, g.modules = 4;
    ck_assert_int_eq(op_gate(test_host(), &g, &err), RT_USAGE);
    ck_assert_ptr_nonnull(strstr(err.text, "4 modules"));
}
END_TEST

int main(void)
{
    Suite *s = suite_create("gate");
    TCase *tc = tcase_create("gate");
    tcase_set_timeout(tc, 300);
    tcase_add_test(tc, gate_agrees);
    tcase_add_test(tc, ties_go_to_the_lowest_index);
    tcase_add_test(tc, gate_bwd_agrees);
    tcase_add_test(tc, gate_bwd_is_the_derivative);
    tcase_add_test(tc, statistics_do_not_depend_on_threads);
    tcase_add_test(tc, refuses_what_it_cannot_do);
    suite_add_tcase(s, tc);
    SRunner *runner = srunner_create(s);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
