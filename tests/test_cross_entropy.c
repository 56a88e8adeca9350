/* tests/test_cross_entropy.c - the loss, its gradient and the best token, from one logit to the largest vocabulary. */
#include "mosld/ops/loss.h"
#include "mosld/ops/host_math.h"
#include "mosld/ops/op.h"
#include "shaders/cross_entropy.h"
#include "tests/support/op_stride.h"

#include <check.h>
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct shape {
    uint32_t n, V, row0;
} shapes[] = {{0, 5, 2}, {1, 1, 0}, {3, 2, 1}, {2, 127, 0}, {3, 129, 4}, {5, 1000, 0}, {2, 49152, 2}, {1, 262144, 0}};

static uint32_t *draw_targets(const struct shape *s)
{
    uint32_t *targets = malloc((s->n + s->row0 + 1) * sizeof *targets);
    uint64_t state = s->V;
    for (uint32_t i = 0; i < s->n + s->row0; i++)
        targets[i] = (uint32_t)(test_random(&state) % s->V);
    return targets;
}

START_TEST(the_gradient_agrees)
{
    const float spreads[] = {1, 80}, scales[] = {0, 0.125f};
    for (uint32_t i = 0; i < OP_COUNT(shapes); i++)
        for (uint32_t j = 0; j < 2; j++)
            for (uint32_t k = 0; k < 2; k++) {
                const struct shape *s = &shapes[i];
                struct cross_entropy_push p = {.n = s->n, .V = s->V, .row0 = s->row0, .grad_scale = scales[k]};
                uint32_t *targets = draw_targets(s);
                char label[80];
                snprintf(label, sizeof label, "n %u V %u +-%g scale %g", s->n, s->V, spreads[j], scales[k]);
                struct op_case c = {
                    .label = label,
                    .push = &p,
                    .seed = i,
                    /* a probability is known to the device's exp (3 + 2 |x| units, so 1e-5 where it counts) and to the
                                     * sum of V / 128 terms a lane; at the target 1 is taken away */
                    .atol = scales[k] * 2e-6,
                    .rtol = 2e-5,
                    .b = {{.n = (uint64_t)s->n * s->V, .lo = -spreads[j], .hi = spreads[j]},
                          {.n = (uint64_t)s->n + s->row0, .words = targets},
                          {.n = 2 * ((uint64_t)s->n + s->row0), .ignore = true}}};
                op_test_run(&op_cross_entropy_desc, &c);
                if (s->n == 5)
                    op_test_run_strided(&op_cross_entropy_desc, &c);
                free(targets);
            }
}
END_TEST

/* ---- the loss ---- */

static double loss_of(const double *l, uint32_t V, uint32_t target)
{
    double max = l[0], sum = 0;
    for (uint32_t v = 1; v < V; v++)
        max = fmax(max, l[v]);
    for (uint32_t v = 0; v < V; v++)
        sum += exp(l[v] - max);
    return log(sum) + max - l[target];
}

/* Runs the public function on `dev` and checks the loss, the best token, and that rows before row0 are left alone. */
static void check_loss(struct rt_device *dev, const struct shape *s, const float *logits, const uint32_t *targets)
{
    struct rt_error err = {0};
    uint64_t words = 2 * ((uint64_t)s->n + s->row0);
    uint32_t *loss = malloc((words + 1) * sizeof *loss);
    double *row = malloc(s->V * sizeof *row);
    memset(loss, 0x5a, words * sizeof *loss);
    struct op_cross_entropy c = {.logits = test_span(dev, 4ull * s->n * s->V, logits),
                                 .targets = test_span(dev, 4ull * (s->n + s->row0), targets),
                                 .loss = test_span(dev, 4 * words, loss),
                                 .n = s->n,
                                 .V = s->V,
                                 .row0 = s->row0,
                                 .grad_scale = 0.5f};
    ck_assert_msg(op_cross_entropy(dev, &c, &err) == RT_OK, "%s", err.text);
    if (words)
        ck_assert_msg(rt_download(dev, c.loss, 0, loss, 4 * words, &err) == RT_OK, "%s", err.text);
    for (uint32_t i = 0; i < 2 * s->row0; i++)
        ck_assert_uint_eq(loss[i], 0x5a5a5a5a);
    for (uint32_t i = 0; i < s->n; i++) {
        uint32_t best = 0;
        for (uint32_t v = 0; v < s->V; v++) {
            row[v] = logits[(size_t)i * s->V + v];
            best = row[v] > row[best] ? v : best;
        }
        double want = loss_of(row, s->V, targets[s->row0 + i]), got = host_float(loss[2 * (s->row0 + i)]);
        /* the loss is rounded to f32, a device's log is off by 2^-21, and the sum of V / 128 terms a lane by 1e-6 */
        ck_assert_msg(fabs(got - want) <= 4e-6 + 4 * FLT_EPSILON * fabs(want),
                      "%s, n %u V %u row %u: want %.9g, got %.9g", rt_device_info(dev)->name, s->n, s->V, i, want, got);
        ck_assert_msg(loss[2 * (s->row0 + i) + 1] == best, "%s, n %u V %u row %u: best %u, got %u",
                      rt_device_info(dev)->name, s->n, s->V, i, best, loss[2 * (s->row0 + i) + 1]);
    }
    test_check_validation(dev);
    test_release(dev);
    free(row);
    free(loss);
}

static void check_on_all(const struct shape *s, const float *logits, const uint32_t *targets)
{
    struct rt_device *devices[] = {test_host(), test_vulkan()};
    for (int d = 0; d < 2 && devices[d]; d++)
        check_loss(devices[d], s, logits, targets);
}

START_TEST(the_loss_agrees)
{
    for (uint32_t i = 0; i < OP_COUNT(shapes); i++)
        for (float spread = 1; spread <= 81; spread += 79) {
            const struct shape *s = &shapes[i];
            uint32_t *targets = draw_targets(s);
            float *logits = malloc(((size_t)s->n * s->V + 1) * sizeof *logits);
            uint64_t state = i;
            for (size_t j = 0; j < (size_t)s->n * s->V; j++)
                logits[j] = test_uniform(&state, -spread, spread);
            check_on_all(s, logits, targets);
            free(logits);
            free(targets);
        }
}
END_TEST

START_TEST(hard_rows)
{
    enum { V = 300 };
    const struct shape s = {5, V, 0};
    uint32_t targets[5] = {299, 7, 0, 130, 128};
    float *logits = malloc(5 * V * sizeof *logits);
    for (int v = 0; v < V; v++) {
        logits[v] = 2.5f;                                    /* all equal: the best is token 0 */
        logits[V + v] = v == 7 ? 3 : -1e30f;                 /* all but one masked: the loss is 0 */
        logits[2 * V + v] = v == 0 ? -1e30f : 0;             /* the target is masked: the loss is 1e30 */
        logits[3 * V + v] = v == 130 || v == 2 ? 60 : -60;   /* a tie of lanes: token 2 */
        logits[4 * V + v] = (float)(v % 128 == 0) * 30 - 80; /* a tie in one lane: token 0 */
    }
    check_on_all(&s, logits, targets);
    free(logits);
}
END_TEST

START_TEST(a_row_that_is_not_finite_gives_a_loss_that_is_not)
{
    struct rt_device *devices[] = {test_host(), test_vulkan()};
    float logits[200] = {0};
    uint32_t target = 3, loss[2];
    logits[150] = NAN;
    for (int d = 0; d < 2 && devices[d]; d++) {
        struct rt_error err = {0};
        struct op_cross_entropy c = {.logits = test_span(devices[d], sizeof logits, logits),
                                     .targets = test_span(devices[d], 4, &target),
                                     .loss = test_span(devices[d], 8, NULL),
                                     .n = 1,
                                     .V = 200};
        ck_assert_msg(op_cross_entropy(devices[d], &c, &err) == RT_OK, "%s", err.text);
        ck_assert_int_eq(rt_download(devices[d], c.loss, 0, loss, sizeof loss, &err), RT_OK);
        ck_assert_msg((loss[0] & 0x7f800000u) == 0x7f800000u, "device %d: %g", d, host_float(loss[0]));
        test_release(devices[d]);
    }
    struct rt_error err = {0};
    ck_assert_int_eq(op_cross_entropy(test_host(), &(struct op_cross_entropy){.n = 1}, &err), RT_USAGE);
}
END_TEST

START_TEST(the_gradient_is_the_derivative)
{
    enum { N = 3, V = 11 };
    struct cross_entropy_push p = {.n = N, .V = V, .row0 = 1, .grad_scale = 0.25f};
    uint32_t targets[N + 1] = {0, 4, 10, 0}, loss[2 * (N + 1)];
    double l[N * V], gradient[N * V];
    const double h = 1e-5; /* error of the difference: h^2 and 1e-16 / h, under 1e-9 */
    uint64_t state = 5;
    for (int i = 0; i < N * V; i++)
        gradient[i] = l[i] = test_uniform(&state, -3, 3);
    op_cross_entropy_desc.ref((void *[]){gradient, targets, loss}, &p);
    for (int i = 0; i < N * V; i++) {
        double *row = l + i / V * V, at = l[i];
        uint32_t target = targets[1 + i / V];
        ck_assert_float_eq(host_float(loss[2 * (1 + i / V)]), (float)loss_of(row, V, target));
        l[i] = at + h;
        double up = loss_of(row, V, target);
        l[i] = at - h;
        double down = loss_of(row, V, target), want = 0.25 * (up - down) / (2 * h);
        l[i] = at;
        ck_assert_msg(fabs(gradient[i] - want) < 1e-8, "[%d]: difference %.10g, gradient %.10g", i, want, gradient[i]);
    }
}
END_TEST

START_TEST(the_exponential_is_within_2_ulp)
{
    for (double x = -86.9; x < 88.71; x += 1.7e-5) {
        float at = (float)x;
        double want = exp((double)at), ulp = ldexp(1, ilogb(want) - 23);
        ck_assert_msg(fabs(mosld_expf(at) - want) <= 2 * ulp, "e^%.9g: want %.9g, got %.9g", at, want, mosld_expf(at));
    }
    ck_assert_float_eq(mosld_expf(0), 1);
    ck_assert_float_eq(mosld_expf(-87), 0);
    ck_assert_float_eq(mosld_expf(-1e30f), 0);
    ck_assert(isfinite(mosld_expf(1e30f)) && mosld_expf(1e30f) > 3e38f);
    ck_assert(isnan(mosld_expf(NAN)) && isnan(mosld_expf(-NAN)) && isnan(mosld_expf(-INFINITY)));
}
END_TEST

int main(void)
{
    Suite *s = suite_create("cross_entropy");
    TCase *tc = tcase_create("cross_entropy");
    tcase_set_timeout(tc, 300);
    tcase_add_test(tc, the_gradient_agrees);
    tcase_add_test(tc, the_loss_agrees);
    tcase_add_test(tc, hard_rows);
    tcase_add_test(tc, a_row_that_is_not_finite_gives_a_loss_that_is_not);
    tcase_add_test(tc, the_gradient_is_the_derivative);
    tcase_add_test(tc, the_exponential_is_within_2_ulp);
    suite_add_tcase(s, tc);
    SRunner *runner = srunner_create(s);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
