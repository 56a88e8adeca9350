/* tests/test_optim.c - the gradient's norm and AdamW. */
#include "mosld/ops/optim.h"
#include "mosld/ops/host_math.h"
#include "mosld/ops/op.h"
#include "shaders/optim.h"
#include "shaders/step.h"
#include "tests/support/op_stride.h"

#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- the norm ---- */

/* What the step block says after op_grad_norm on `dev`. */
static void norm_on(struct rt_device *dev, const float *grad, uint32_t n, float max_norm, uint32_t step[STEP_WORDS])
{
    struct rt_error err = {0};
    memset(step, 0x5a, STEP_WORDS * sizeof *step);
    step[STEP_MAX_NORM] = host_bits(max_norm);
    struct rt_span g = test_span(dev, 4ull * n, grad), partial = test_span(dev, OP_NORM_PARTIALS * 4, NULL);
    struct rt_span block = test_span(dev, STEP_WORDS * 4, step);
    ck_assert_msg(op_grad_norm(dev, g, partial, block, n, &err) == RT_OK, "%s", err.text);
    ck_assert_msg(rt_download(dev, block, 0, step, STEP_WORDS * 4, &err) == RT_OK, "%s", err.text);
    test_check_validation(dev);
    test_release(dev);
    ck_assert_uint_eq(step[STEP_MAX_NORM], host_bits(max_norm));
    ck_assert_uint_eq(step[STEP_SKIP + 1], 0x5a5a5a5a);
    ck_assert_uint_eq(step[STEP_DROPOUT], 0x5a5a5a5a);
}

static void norm_on_all(const float *grad, uint32_t n, float max_norm, uint32_t step[2][STEP_WORDS])
{
    norm_on(test_host(), grad, n, max_norm, step[0]);
    memcpy(step[1], step[0], sizeof step[0]);
    if (test_vulkan())
        norm_on(test_vulkan(), grad, n, max_norm, step[1]);
}

static float *draw(uint32_t n, uint64_t seed)
{
    float *g = malloc((n + 1ull) * sizeof *g);
    for (uint32_t i = 0; i < n; i++)
        g[i] = test_uniform(&seed, -1, 1);
    return g;
}

START_TEST(norm_agrees)
{
    /* nothing, off a workgroup, off a chunk, all chunks of more than the least size */
    const uint32_t sizes[] = {0, 1, 127, 129, 4096, 4097, 300001, 5000003};
    for (uint32_t i = 0; i < OP_COUNT(sizes); i++) {
        float *grad = draw(sizes[i], i);
        double sum = 0;
        for (uint32_t j = 0; j < sizes[i]; j++)
            sum += (double)grad[j] * grad[j];
        double norm = sqrt(sum), max_norms[] = {0, norm / 4, norm * 4};
        for (int m = 0; m < 3; m++) {
            uint32_t step[2][STEP_WORDS];
            norm_on_all(grad, sizes[i], (float)max_norms[m], step);
            double clip = max_norms[m] > 0 ? fmin(1, (float)max_norms[m] / (norm + 1e-6)) : 1;
            for (int d = 0; d < 2; d++) {
                /* squares of a chunk in 16 or 128 sums of at most 310 positive terms: 310 roundings of which most
                 * cancel, halved by the root; then the device's root and quotient at 3 units */
                double got = host_float(step[d][STEP_GRAD_NORM]), got_clip = host_float(step[d][STEP_CLIP]);
                ck_assert_msg(fabs(got - norm) <= 1e-6 * norm, "device %d, n %u: norm %.9g, got %.9g", d, sizes[i],
                              norm, got);
                ck_assert_msg(fabs(got_clip - clip) <= 2e-6 * clip, "device %d, n %u: clip %.9g, got %.9g", d, sizes[i],
                              clip, got_clip);
                ck_assert_uint_eq(step[d][STEP_SKIP], 0);
            }
        }
        free(grad);
    }
}
END_TEST

START_TEST(the_reference_says_the_same)
{
    const uint32_t n = 1000;
    float *grad = draw(n, 1);
    double *wide = malloc(n * sizeof *wide);
    uint32_t step[2][STEP_WORDS], ref[STEP_WORDS] = {[STEP_MAX_NORM] = host_bits(2)};
    for (uint32_t i = 0; i < n; i++)
        wide[i] = grad[i];
    struct optim_push p = {.n = n, .chunk = op_grad_norm_chunk(n)};
    op_grad_norm_desc.ref((void *[]){wide, NULL, ref}, &p);
    norm_on_all(grad, n, 2, step);
    for (int d = 0; d < 2; d++)
        for (int w = STEP_GRAD_NORM; w <= STEP_CLIP; w++)
            ck_assert_float_eq_tol(host_float(step[d][w]), host_float(ref[w]), 2e-6f * host_float(ref[w]));
    free(wide);
    free(grad);
}
END_TEST

START_TEST(what_is_not_finite_is_skipped)
{
    const uint32_t n = 20000, places[] = {0, 4095, 4096, 8321, 19999};
    const float values[] = {NAN, -NAN, INFINITY, -INFINITY, 1e20f /* its square is not */};
    for (uint32_t i = 0; i < OP_COUNT(places); i++)
        for (uint32_t v = 0; v < OP_COUNT(values); v++) {
            uint32_t step[2][STEP_WORDS];
            float *grad = draw(n, v);
            grad[places[i]] = values[v];
            norm_on_all(grad, n, 1, step);
            for (int d = 0; d < 2; d++) {
                ck_assert_msg(step[d][STEP_SKIP] == 1, "device %d: %g at %u", d, values[v], places[i]);
                ck_assert(isnan(host_float(step[d][STEP_GRAD_NORM])));
                ck_assert_uint_eq(step[d][STEP_CLIP], 0);
            }
            free(grad);
        }
}
END_TEST

START_TEST(threads_change_nothing)
{
    const uint32_t n = 1234567;
    float *grad = draw(n, 9);
    uint32_t step[3][STEP_WORDS];
    for (int threads = 1; threads <= 3; threads++) {
        struct rt_error err = {0};
        struct rt_device *dev;
        struct rt_device_params params = {.name = "host", .threads = threads};
        ck_assert_msg(rt_device_open(&params, &dev, &err) == RT_OK, "%s", err.text);
        norm_on(dev, grad, n, 1, step[threads - 1]);
        rt_device_close(&dev);
        ck_assert_mem_eq(step[threads - 1], step[0], sizeof step[0]);
    }
    free(grad);
}
END_TEST

/* ---- AdamW ---- */

static void run_adamw(uint32_t n, float decay, bool skip, void run(const struct op *, const struct op_case *))
{
    char label[64];
    snprintf(label, sizeof label, "n %u decay %g skip %d", n, decay, skip);
    struct optim_push p = {
        .n = n, .beta1 = 0.9f, .rest1 = 0.1f, .beta2 = 0.999f, .rest2 = 0.001f, .eps = 1e-8f, .weight_decay = decay};
    uint32_t step[STEP_WORDS] = {[STEP_LR] = host_bits(0.03f),
                                 [STEP_BIAS1] = host_bits(0.271f),
                                 [STEP_BIAS2] = host_bits(0.003f),
                                 [STEP_CLIP] = host_bits(0.75f),
                                 [STEP_SKIP] = skip};
    /* a dozen f32 operations on values below 1, of which quotient and root may be off by 3 units on a device; the step
     * of at most 0.03 x 4 / 0.03 is where the error counts. A skipped step may not move a bit. */
    struct op_case c = {
        .label = label,
        .push = &p,
        .seed = n,
        .atol = skip ? 0 : 3e-6,
        .rtol = skip ? 0 : 1e-6,
        .b = {{.n = n}, {.n = n}, {.n = 2ull * n, .lo = 0.01f, .hi = 1}, {.n = STEP_WORDS, .words = step}}};
    run(&op_adamw_desc, &c);
}

START_TEST(adamw_agrees)
{
    const uint32_t sizes[] = {0, 1, 127, 129, 16385, 40000};
    for (uint32_t i = 0; i < OP_COUNT(sizes); i++) {
        run_adamw(sizes[i], 0, false, op_test_run);
        run_adamw(sizes[i], 0.1f, false, op_test_run);
        run_adamw(sizes[i], 0.1f, true, op_test_run);
    }
    run_adamw(1000, 0.1f, false, op_test_run_strided);
}
END_TEST

enum { STEPS = 20, N = 331 };

/* The formula of the header over STEPS steps, apart from the op's reference: gradients clipped to max_norm. */
struct twenty {
    double w[N], m[N], v[N];
    double beta1, beta2, eps, decay, max_norm, lr;
};

/* One in 7 elements never has a gradient (0 / 0 must not appear), others are tiny or large. */
static float gradient_of(int t, int i)
{
    const float scales[] = {0, 1e-12f, 1e-6f, 1e-3f, 1, 30, 0.1f};
    return scales[i % 7] * sinf((float)(i + 1) * 0.37f + (float)t);
}

static void twenty_step(struct twenty *s, int t)
{
    double sum = 0;
    for (int i = 0; i < N; i++)
        sum += (double)gradient_of(t, i) * gradient_of(t, i);
    double clip = fmin(1, s->max_norm / (sqrt(sum) + 1e-6)), bias1 = 1 - pow(s->beta1, t), bias2 = 1 - pow(s->beta2, t);
    for (int i = 0; i < N; i++) {
        double g = clip * gradient_of(t, i);
        s->m[i] = s->beta1 * s->m[i] + (1 - s->beta1) * g;
        s->v[i] = s->beta2 * s->v[i] + (1 - s->beta2) * g * g;
        s->w[i] -= s->lr * s->decay * s->w[i];
        s->w[i] -= s->lr * (s->m[i] / bias1) / (sqrt(s->v[i] / bias2) + s->eps);
    }
}

static void twenty_on(struct rt_device *dev, struct twenty *s)
{
    struct rt_error err = {0};
    float w[N], grad[N], mv[2 * N];
    uint32_t words[STEP_WORDS] = {[STEP_LR] = host_bits((float)s->lr), [STEP_MAX_NORM] = host_bits((float)s->max_norm)};
    uint64_t state = 4;
    for (int i = 0; i < N; i++)
        s->w[i] = w[i] = test_uniform(&state, -1, 1);
    struct rt_span partial = test_span(dev, OP_NORM_PARTIALS * 4, NULL);
    struct op_adamw a = {.param = test_span(dev, sizeof w, w),
                         .grad = test_span(dev, sizeof grad, NULL),
                         .mv = test_span(dev, sizeof mv, NULL),
                         .step = test_span(dev, sizeof words, NULL),
                         .n = N,
                         .beta1 = s->beta1,
                         .beta2 = s->beta2,
                         .eps = (float)s->eps,
                         .weight_decay = (float)s->decay};
    for (int t = 1; t <= STEPS; t++) {
        for (int i = 0; i < N; i++)
            grad[i] = gradient_of(t, i);
        words[STEP_BIAS1] = host_bits((float)(1 - pow(s->beta1, t)));
        words[STEP_BIAS2] = host_bits((float)(1 - pow(s->beta2, t)));
        ck_assert_int_eq(rt_upload(dev, a.grad, 0, grad, sizeof grad, &err), RT_OK);
        ck_assert_int_eq(rt_upload(dev, a.step, 0, words, sizeof words, &err), RT_OK);
        ck_assert_msg(op_grad_norm(dev, a.grad, partial, a.step, N, &err) == RT_OK, "%s", err.text);
        ck_assert_msg(op_adamw(dev, &a, &err) == RT_OK, "%s", err.text);
        twenty_step(s, t);
    }
    ck_assert_int_eq(rt_download(dev, a.param, 0, w, sizeof w, &err), RT_OK);
    for (int i = 0; i < N;
         i++) /* twenty steps of at most lr, each known to 1e-6 of itself, on weights below 1 that round each time */
        ck_assert_msg(fabs(w[i] - s->w[i]) <= 2e-6, "%s, w[%d]: want %.9g, got %.9g", rt_device_info(dev)->name, i,
                      s->w[i], w[i]);
    test_check_validation(dev);
    test_release(dev);
}

START_TEST(twenty_steps)
{
    struct rt_device *devices[] = {test_host(), test_vulkan()};
    for (int d = 0; d < 2 && devices[d]; d++)
        for (int decays = 0; decays < 2; decays++) {
            struct twenty s = {
                .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8, .decay = decays * 0.01, .max_norm = 1, .lr = 1e-2};
            twenty_on(devices[d], &s);
        }
}
END_TEST

int main(void)
{
    Suite *s = suite_create("optim");
    TCase *tc = tcase_create("optim");
    tcase_set_timeout(tc, 300);
    tcase_add_test(tc, norm_agrees);
    tcase_add_test(tc, the_reference_says_the_same);
    tcase_add_test(tc, what_is_not_finite_is_skipped);
    tcase_add_test(tc, threads_change_nothing);
    tcase_add_test(tc, adamw_agrees);
    tcase_add_test(tc, twenty_steps);
    suite_add_tcase(s, tc);
    SRunner *runner = srunner_create(s);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
