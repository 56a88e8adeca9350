/* tests/test_attention.c - attention over packed sequences: differences of the reference, then every variant, forward
 * and backward. */
#include "mosld/ops/attention_common.h"
#include "tests/support/attention_case.h"
#include "tests/support/gradient.h"
#include "tests/support/op_test.h"

#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Nothing, one token, off every tile, heads of 64, 80, 96, 128 and 256 and off them, all ratios of heads, a real layer; the
 * last has more items than a grid has groups. */
static const struct shape {
    uint32_t T, heads, kv_heads, head_dim;
    enum packing packing;
} shapes[] = {
    {0, 2, 1, 8, PACK_ONE},         {1, 1, 1, 2, PACK_ONE},       {33, 3, 1, 10, PACK_ONE},
    {70, 4, 2, 66, PACK_SHARED},    {65, 2, 2, 130, PACK_SHORT},  {40, 2, 1, 256, PACK_TWO},
    {64, 2, 2, 128, PACK_SHARED},   {151, 9, 3, 64, PACK_SHARED}, {140, 2, 1, 64, PACK_ONE},
    {70, 2, 1, 80, PACK_SHARED},    {100, 3, 1, 96, PACK_SHARED}, {257, 512, 512, 2, PACK_SHORT},
};

static struct attention_push push_of(const struct shape *s)
{
    return (struct attention_push){.T = s->T,
                                   .heads = s->heads,
                                   .kv_heads = s->kv_heads,
                                   .head_dim = s->head_dim,
                                   .scale = (float)(1 / sqrt(s->head_dim))};
}

/* One pass through the references, in double. */
struct truth {
    struct attention_push p;
    uint64_t n_qkv, n_o, n_stats;
    uint32_t *seg, *stats;
    double *qkv, *o, *d_o, *dqkv;
};

static void round_to_float(double *x, uint64_t n)
{
    for (uint64_t i = 0; i < n; i++)
        x[i] = (float)x[i];
}

static struct truth make_truth(const struct shape *s, double size)
{
    struct truth t = {.p = push_of(s), .seg = attention_segments(s->packing, s->T)};
    t.n_qkv = (uint64_t)s->T * attention_qkv_words(&t.p);
    t.n_o = (uint64_t)s->T * s->heads * s->head_dim;
    t.n_stats = (uint64_t)s->T * attention_stats_words(&t.p);
    t.stats = calloc(t.n_stats + 1, sizeof *t.stats);
    t.qkv = test_doubles(t.n_qkv, s->T, size);
    t.o = test_doubles(t.n_o, 1, 1);
    t.d_o = test_doubles(t.n_o, s->T + 1, 1);
    t.dqkv = test_doubles(t.n_qkv, 2, 1);
    round_to_float(t.qkv, t.n_qkv);
    round_to_float(t.d_o, t.n_o);
    op_attention_desc.ref((void *[]){t.qkv, t.seg, t.o, t.stats}, &t.p);
    op_attention_bwd_desc.ref((void *[]){t.qkv, t.o, t.d_o, t.stats, t.dqkv}, &t.p);
    return t;
}

static void free_truth(struct truth *t)
{
    free(t->seg), free(t->stats), free(t->qkv), free(t->o), free(t->d_o), free(t->dqkv);
}

static float *floats_of(const double *x, uint64_t n)
{
    float *f = malloc((n + 1) * sizeof *f);
    for (uint64_t i = 0; i < n; i++)
        f[i] = (float)x[i];
    return f;
}

START_TEST(gradient_is_the_slope)
{
    const struct shape s[] = {{7, 4, 2, 4, PACK_SHARED}, {6, 3, 3, 2, PACK_TWO}, {5, 2, 1, 2, PACK_ONE}};
    struct truth t = make_truth(&s[_i], 1);
    double *o = test_doubles(t.n_o, 3, 1);
    uint32_t *stats = calloc(t.n_stats, sizeof *stats);
    struct gradient_check c = {.op = &op_attention_desc,
                               .bindings = (void *[]){t.qkv, t.seg, o, stats},
                               .push = &t.p,
                               .input = 0,
                               .output = 2,
                               .n_input = t.n_qkv,
                               .n_output = t.n_o,
                               .d_output = t.d_o,
                               .d_input = t.dqkv};
    test_gradient("attention", &c, 1e-8);
    free(o), free(stats);
    free_truth(&t);
}
END_TEST

/* The second of two packed sequences gives what it gives alone, and an answer behind a shared prompt what it gives
 * right behind it. */
START_TEST(segments_do_not_see_each_other)
{
    enum { T = 9, D = 4, ROW = 3 * D };
    struct attention_push p = {.T = T, .heads = 1, .kv_heads = 1, .head_dim = D, .scale = 0.5f};
    double *qkv = test_doubles(T * ROW, 1, 1), o[T * D], alone[T * D], joined[T * ROW];
    uint32_t stats[T * 6];
    /* tokens 0..2 a prompt, 3..4 one answer, 5..8 another */
    const uint32_t seg[T * 4] = {0, 0, 0, 9, 0, 0, 0, 9, 0, 0, 0, 9, 3, 0, 3, 5, 3, 0,
                                 3, 5, 5, 0, 3, 9, 5, 0, 3, 9, 5, 0, 3, 9, 5, 0, 3, 9};
    op_attention_desc.ref((void *[]){qkv, (void *)seg, o, stats}, &p);
    memcpy(joined, qkv, 3 * ROW * sizeof *qkv);
    memcpy(joined + 3 * ROW, qkv + 5 * ROW, 4 * ROW * sizeof *qkv);
    const uint32_t plain[7 * 4] = {0};
    p.T = 7;
    op_attention_desc.ref((void *[]){joined, (void *)plain, alone, stats}, &p);
    for (int i = 0; i < 3 * D; i++)
        ck_assert_double_eq_tol(o[i], alone[i], 1e-14);
    for (int i = 0; i < 4 * D; i++)
        ck_assert_double_eq_tol(o[5 * D + i], alone[3 * D + i], 1e-14);
    free(qkv);
}
END_TEST

/* o is a mean of values below one. Scores of a few units are sums of head_dim products, off by a few 1e-7; the
 * exponential of Vulkan may be off by 3 + 2 |x| units of 6e-8, so by 1.5e-6 at x = -10. */
static void forward_agrees_at(const struct shape *s)
{
    struct truth t = make_truth(s, 1);
    float *qkv = floats_of(t.qkv, t.n_qkv);
    char label[80];
    snprintf(label, sizeof label, "T %u heads %u/%u D %u", t.p.T, t.p.heads, t.p.kv_heads, t.p.head_dim);
    struct op_case c = {.label = label,
                        .push = &t.p,
                        .atol = 4e-6,
                        .spread = 2, /* scores are sums of up to 128 products, by 1 / sqrt(128): off by half the rounding; v and p by that */
                        .b = {{.n = t.n_qkv, .values = qkv},
                              {.n = 4ull * t.p.T, .words = t.seg},
                              {.n = t.n_o},
                              {.n = t.n_stats, .ignore = true}}};
    op_test_run(&op_attention_desc, &c);
    free(qkv);
    free_truth(&t);
}

START_TEST(forward_agrees)
{
    for (uint32_t i = 0; i < OP_COUNT(shapes); i++)
        forward_agrees_at(&shapes[i]);
}
END_TEST

/* Gradients are sums of up to 151 x 3 terms, each with the relative error of a weight (above). */
static void backward_agrees_at(const struct shape *s)
{
    struct truth t = make_truth(s, 1);
    float *qkv = floats_of(t.qkv, t.n_qkv), *o = floats_of(t.o, t.n_o), *d_o = floats_of(t.d_o, t.n_o);
    char label[80];
    snprintf(label, sizeof label, "T %u heads %u/%u D %u", t.p.T, t.p.heads, t.p.kv_heads, t.p.head_dim);
    struct op_case c = {.label = label,
                        .push = &t.p,
                        .atol = 1e-5,
                        .rtol = 4e-6,
                        .b = {{.n = t.n_qkv, .values = qkv},
                              {.n = t.n_o, .values = o},
                              {.n = t.n_o, .values = d_o},
                              {.n = t.n_stats, .words = t.stats, .ignore = true},
                              {.n = t.n_qkv}}};
    op_test_run(&op_attention_bwd_desc, &c);
    free(qkv), free(o), free(d_o);
    free_truth(&t);
}

START_TEST(backward_agrees)
{
    for (uint32_t i = 0; i < OP_COUNT(shapes); i++)
        backward_agrees_at(&shapes[i]);
}
END_TEST

/* ---- through the public functions, forward and then backward, with what is kept between them ---- */

struct chain {
    float *o, *dqkv;
    uint32_t *stats;
};

static struct chain run_chain(struct rt_device *dev, const struct truth *t)
{
    struct rt_error err = {0};
    float *qkv = floats_of(t->qkv, t->n_qkv), *d_o = floats_of(t->d_o, t->n_o);
    struct chain c = {malloc(4 * t->n_o), malloc(4 * t->n_qkv), malloc(4 * t->n_stats)};
    struct op_attention a = {
        .qkv = test_span(dev, 4 * t->n_qkv, qkv),
        .seg = test_span(dev, 16ull * t->p.T, t->seg),
        .o = test_span(dev, 4 * t->n_o, NULL),
        .stats = test_span(dev, 4 * t->n_stats, NULL),
        .T = t->p.T,
        .heads = t->p.heads,
        .kv_heads = t->p.kv_heads,
        .head_dim = t->p.head_dim,
        .scale = t->p.scale,
    };
    struct op_attention_bwd b = {a, test_span(dev, 4 * t->n_o, d_o), test_span(dev, 4 * t->n_qkv, NULL)};
    ck_assert(rt_fill(dev, a.o, 0x7fc00000, &err) == RT_OK); /* NaN: nothing may be read before it is written */
    ck_assert(rt_fill(dev, b.dqkv, 0x7fc00000, &err) == RT_OK);
    ck_assert_msg(op_attention(dev, &a, &err) == RT_OK, "%s", err.text);
    ck_assert_msg(op_attention_bwd(dev, &b, &err) == RT_OK, "%s", err.text);
    ck_assert(rt_download(dev, a.o, 0, c.o, 4 * t->n_o, &err) == RT_OK);
    ck_assert(rt_download(dev, b.dqkv, 0, c.dqkv, 4 * t->n_qkv, &err) == RT_OK);
    ck_assert(rt_download(dev, a.stats, 0, c.stats, 4 * t->n_stats, &err) == RT_OK);
    test_check_validation(dev);
    test_release(dev);
    free(qkv), free(d_o);
    return c;
}

static void free_chain(struct chain *c) { free(c->o), free(c->dqkv), free(c->stats); }

static void compare_chain(struct rt_device *dev, const struct truth *t, double tolerance)
{
    struct chain c = run_chain(dev, t);
    for (uint64_t i = 0; i < t->n_o; i++)
        ck_assert_msg(fabs(c.o[i] - t->o[i]) <= tolerance * (1 + fabs(t->o[i])), "o[%d]: want %g, got %g", (int)i,
                      t->o[i], c.o[i]);
    for (uint64_t i = 0; i < t->n_qkv; i++)
        ck_assert_msg(fabs(c.dqkv[i] - t->dqkv[i]) <= 4 * tolerance * (1 + fabs(t->dqkv[i])),
                      "dqkv[%d]: want %g, got %g", (int)i, t->dqkv[i], c.dqkv[i]);
    uint32_t words = attention_stats_words(&t->p);
    for (uint64_t i = 0; i < t->n_stats; i++)
        if (i % words < 4) {
            ck_assert_uint_eq(c.stats[i], t->stats[i]);
        } else {
            float want, got;
            memcpy(&want, &t->stats[i], 4);
            memcpy(&got, &c.stats[i], 4);
            ck_assert_msg(fabsf(got - want) <= tolerance * (1 + fabsf(want)), "stats[%d]: want %g, got %g", (int)i,
                          want, got);
        }
    free_chain(&c);
}

static void on_both(const struct truth *t, double tolerance)
{
    compare_chain(test_host(), t, tolerance);
    if (test_vulkan())
        compare_chain(test_vulkan(), t, tolerance);
}

START_TEST(chain_agrees)
{
    /* The last takes more than 65,535 turns of an invocation's loops, where llvmpipe would cut a sum off. */
    const struct shape s[] = {{90, 6, 2, 32, PACK_SHARED}, {50, 2, 1, 96, PACK_TWO}, {290, 16, 1, 256, PACK_ONE}};
    for (uint32_t i = 0; i < OP_COUNT(s); i++) {
        struct truth t = make_truth(&s[i], 1);
        on_both(&t, 4e-6);
        free_truth(&t);
    }
}
END_TEST

/* Scores of hundreds: exp would overflow without the running maximum. A score of 300 is known to 2e-5, so weights are
 * too; gradients of size 100 come from differences of terms that large. */
START_TEST(sharp_scores)
{
    const struct shape s = {80, 2, 1, 64, PACK_ONE};
    struct truth t = make_truth(&s, 12);
    double most = 0;
    for (uint64_t i = 0; i < t.n_stats; i++) {
        float lse;
        memcpy(&lse, &t.stats[i], 4);
        if (i % attention_stats_words(&t.p) >= 4 && i % attention_stats_words(&t.p) < 6)
            most = lse > most ? lse : most;
    }
    ck_assert_msg(most > 100, "the scores are not sharp: %g", most);
    on_both(&t, 2e-4);
    free_truth(&t);
}
END_TEST

/* The bits do not depend on how many threads share the work. */
START_TEST(threads_do_not_matter)
{
    const struct shape s = {400, 6, 2, 16, PACK_SHARED};
    struct truth t = make_truth(&s, 1);
    struct chain want = {0};
    for (int threads = 1; threads <= 5; threads += 2) {
        struct rt_error err = {0};
        struct rt_device *dev = NULL;
        ck_assert(rt_device_open(&(struct rt_device_params){.name = "host", .threads = threads}, &dev, &err) == RT_OK);
        struct chain got = run_chain(dev, &t);
        if (threads == 1) {
            want = got;
        } else {
            ck_assert_mem_eq(got.o, want.o, 4 * t.n_o);
            ck_assert_mem_eq(got.dqkv, want.dqkv, 4 * t.n_qkv);
            ck_assert_mem_eq(got.stats, want.stats, 4 * t.n_stats);
            free_chain(&got);
        }
        rt_device_close(&dev);
    }
    free_chain(&want);
    free_truth(&t);
}
END_TEST

START_TEST(what_does_not_fit_is_refused)
{
    struct rt_device *dev = test_host();
    struct rt_error err = {0};
    struct rt_span s = test_span(dev, 4 * 4096, NULL);
    struct op_attention a =
        {.qkv = s, .seg = s, .o = s, .stats = s, .T = 1, .heads = 4, .kv_heads = 3, .head_dim = 8, .scale = 1};
    ck_assert_int_eq(op_attention(dev, &a, &err), RT_FAILED);
    ck_assert_ptr_nonnull(strstr(err.text, "evenly"));
    a.kv_heads = 0;
    ck_assert_int_eq(op_attention(dev, &a, &err), RT_FAILED);
    a.kv_heads = 2, a.head_dim = 9;
    ck_assert_int_eq(op_attention(dev, &a, &err), RT_FAILED);
    a.head_dim = 258;
    ck_assert_int_eq(op_attention(dev, &a, &err), RT_FAILED);
    a.head_dim = 8, a.T = 100;
    ck_assert_int_eq(op_attention(dev, &a, &err), RT_FAILED);
    ck_assert_ptr_nonnull(strstr(err.text, "qkv"));
    ck_assert_int_eq(op_attention_bwd(dev, &(struct op_attention_bwd){a, s, s}, &err), RT_FAILED);
    test_release(dev);
}
END_TEST

static TCase *case_of(Suite *s, const char *name)
{
    TCase *tc = tcase_create(name);
    tcase_set_timeout(tc, 240);
    suite_add_tcase(s, tc);
    return tc;
}

int main(void)
{
    Suite *s = suite_create("attention");
    /* Cases of their own, for CK_RUN_CASE=forward where a driver is slow. */
    TCase *forward = case_of(s, "forward"), *backward = case_of(s, "backward"), *rest = case_of(s, "rest");
    tcase_add_test(forward, forward_agrees);
    tcase_add_test(backward, backward_agrees);
    tcase_add_loop_test(rest, gradient_is_the_slope, 0, 3);
    tcase_add_test(rest, segments_do_not_see_each_other);
    tcase_add_test(rest, chain_agrees);
    tcase_add_test(rest, sharp_scores);
    tcase_add_test(rest, threads_do_not_matter);
    tcase_add_test(rest, what_does_not_fit_is_refused);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? 1 : 0;
}
