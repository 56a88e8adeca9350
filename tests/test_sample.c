/* tests/test_sample.c - sampling against distributions worked out by hand, and against plain sorting on many tokens. */
#include "mosld/generate/sample.h"

#include <check.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { DRAWS = 20000, MANY = 5000 };
static const double probability[] = {0.1, 0.5, 0.25, 0.15};

static uint32_t once(const struct mosld_sample_params *p, const float *logits, uint32_t V, const int32_t *before, uint64_t n, uint64_t draw)
{
    float *copy = malloc(V * sizeof *copy);
    uint32_t token;
    struct rt_error err;
    memcpy(copy, logits, V * sizeof *copy);
    ck_assert_msg(mosld_sample(p, copy, V, before, n, draw, &token, &err) == RT_OK, "%s", err.text);
    free(copy);
    return token;
}

static void four(float logits[4])
{
    for (int v = 0; v < 4; v++)
        logits[v] = (float)log(probability[v]) + 3;
}

/* Shares of 20,000 draws; four standard errors are 0.0142. */
static void shares(const struct mosld_sample_params *p, const double *want)
{
    float logits[4];
    int count[4] = {0};
    four(logits);
    for (uint64_t i = 0; i < DRAWS; i++)
        count[once(p, logits, 4, NULL, 0, i)]++;
    for (int v = 0; v < 4; v++)
        ck_assert_msg(want[v] == 0 ? count[v] == 0 : fabs(count[v] / (double)DRAWS - want[v]) < 0.0145, "token %d: %d of %d, wanted %g", v,
                      count[v], DRAWS, want[v]);
}

#define PARAMS(...) (&(struct mosld_sample_params){MOSLD_SAMPLE_DEFAULTS, __VA_ARGS__})

/* The entropy of 0.1, 0.5, 0.25, 0.15 is 1.2080; surprises are 2.303, 0.693, 1.386, 1.897, so they are off by 1.095, 0.515, 0.178, 0.689:
 * the order is 2, 1, 3, 0. */
START_TEST(typical)
{
    shares(PARAMS(.temperature = 1, .typical_p = 0.2), (double[]){0, 0, 1, 0});
    shares(PARAMS(.temperature = 1, .typical_p = 0.7), (double[]){0, 2 / 3.0, 1 / 3.0, 0});
    shares(PARAMS(.temperature = 1, .typical_p = 0.85), (double[]){0, 5 / 9.0, 2.5 / 9, 1.5 / 9});
    shares(PARAMS(.temperature = 1, .typical_p = 1), probability);
    shares(PARAMS(.temperature = 1, .typical_p = 0), probability);
}
END_TEST

/* top_k 3 leaves 1, 2, 3 with 5/9, 2.5/9, 1.5/9; top_p 0.8 of that leaves 1 and 2; min_p 0.6 of the likeliest leaves 1. */
START_TEST(one_after_the_other)
{
    shares(PARAMS(.temperature = 1, .top_k = 3, .top_p = 0.8), (double[]){0, 2 / 3.0, 1 / 3.0, 0});
    shares(PARAMS(.temperature = 1, .top_k = 3, .top_p = 0.8, .min_p = 0.6), (double[]){0, 1, 0, 0});
    shares(PARAMS(.temperature = 1, .top_k = 1), (double[]){0, 1, 0, 0});
}
END_TEST

START_TEST(bias)
{
    const struct mosld_logit_bias more[] = {{0, (float)log(4)}, {1, -100}}, odd[] = {{-1, 5}, {4, 5}, {1 << 30, 5}};
    shares(PARAMS(.temperature = 1, .logit_bias = more, .n_logit_bias = 2), (double[]){0.5, 0, 0.3125, 0.1875}); /* 0.4, 0, 0.25, 0.15 of 0.8 */
    shares(PARAMS(.temperature = 0, .logit_bias = more, .n_logit_bias = 2), (double[]){1, 0, 0, 0});
    shares(PARAMS(.temperature = 1, .logit_bias = odd, .n_logit_bias = 3), probability); /* no such tokens */
}
END_TEST

/* Logits 2, 1.9, -1, -3 and what was there: the prompt 0 0 2, the answer 0 1 1. */
START_TEST(penalties)
{
    const int32_t before[] = {0, 0, 2, 0, 1, 1};
    static const struct {
        double repetition, presence, frequency;
        float want[4];
    } cases[] = {
        {2, 0, 0, {1, 0.95f, -2, -3}},            /* wherever it was: halved, or doubled below 0 */
        {1, 0.5, 0, {1.5f, 1.4f, -1, -3}},        /* once for each token of the answer; the prompt's 2 is free */
        {1, 0, 0.5, {1.5f, 0.9f, -1, -3}},        /* as often as the answer has it */
        {2, 0.25, 0.5, {0.25f, -0.3f, -2, -3}},   /* all: 1 - 0.25 - 0.5; 0.95 - 0.25 - 1 */
        {1, -1, 0, {3, 2.9f, -1, -3}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        float logits[] = {2, 1.9f, -1, -3};
        uint32_t token;
        struct rt_error err;
        ck_assert(mosld_sample(PARAMS(.repetition_penalty = cases[i].repetition, .presence_penalty = cases[i].presence,
                                      .frequency_penalty = cases[i].frequency),
                               logits, 4, before, 6, 3, &token, &err) == RT_OK);
        for (int v = 0; v < 4; v++)
            ck_assert_msg(fabsf(logits[v] - cases[i].want[v]) < 1e-5f, "case %zu, token %d: %g, wanted %g", i, v, logits[v], cases[i].want[v]);
    }
}
END_TEST

/* ---- many tokens ---- */

static float many[MANY];

static int larger(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return many[x] != many[y] ? (many[x] > many[y] ? -1 : 1) : x < y ? -1 : 1;
}

/* Which tokens can come: those that plain sorting leaves, and all of them when the draws are enough. Logits come in equal groups too. */
START_TEST(selection_is_sorting)
{
    static const uint32_t ks[] = {1, 2, 3, 40, 255, 256, 257, 2000, MANY - 1, MANY};
    uint32_t order[MANY];
    srand48(_i);
    for (uint32_t v = 0; v < MANY; v++) {
        many[v] = (float)(_i % 2 ? drand48() * 4 : floor(drand48() * 8));
        order[v] = v;
    }
    qsort(order, MANY, sizeof *order, larger);
    for (size_t i = 0; i < sizeof ks / sizeof *ks; i++) {
        bool allowed[MANY] = {false}, top_p_allowed[MANY] = {false};
        double sum = 0, mass = 0, top_p = 0.05 + 0.1 * (double)i;
        for (uint32_t j = 0; j < ks[i]; j++)
            allowed[order[j]] = true;
        for (uint32_t j = 0; j < MANY; j++)
            sum += exp(many[order[j]]);
        for (uint32_t j = 0; j < MANY && (j == 0 || mass < top_p * sum); j++) {
            top_p_allowed[order[j]] = true;
            mass += exp(many[order[j]]);
        }
        for (uint64_t draw = 0; draw < 60; draw++) {
            uint32_t t = once(PARAMS(.temperature = 2, .top_k = ks[i], .seed = i), many, MANY, NULL, 0, draw);
            ck_assert_msg(allowed[t], "top_k %u gave a token that is not among them", ks[i]);
            t = once(PARAMS(.temperature = 1, .top_p = top_p, .seed = i), many, MANY, NULL, 0, draw);
            ck_assert_msg(top_p_allowed[t], "top_p %g gave a token that is not among them", top_p);
        }
    }
}
END_TEST

START_TEST(a_seed_says_it_all)
{
    int differ = 0;
    for (uint32_t v = 0; v < MANY; v++)
        many[v] = (float)sin(v);
    for (uint64_t draw = 0; draw < 50; draw++) {
        uint32_t a = once(PARAMS(.temperature = 1, .top_p = 0.9, .seed = 7), many, MANY, NULL, 0, draw),
                 b = once(PARAMS(.temperature = 1, .top_p = 0.9, .seed = 7), many, MANY, NULL, 0, draw),
                 c = once(PARAMS(.temperature = 1, .top_p = 0.9, .seed = 8), many, MANY, NULL, 0, draw);
        ck_assert_uint_eq(a, b);
        differ += a != c;
    }
    ck_assert_int_gt(differ, 40);
}
END_TEST

/* ---- log-probabilities ---- */

START_TEST(logprobs)
{
    float logits[4];
    struct mosld_logprob top[6];
    four(logits);
    float chosen = mosld_logprobs(logits, 4, 3, top, 3);
    ck_assert(fabs(chosen - log(0.15)) < 1e-5);
    static const int order[] = {1, 2, 3};
    for (int i = 0; i < 3; i++) {
        ck_assert_int_eq(top[i].token, order[i]);
        ck_assert(fabs(top[i].logprob - log(probability[order[i]])) < 1e-5);
    }
    mosld_logprobs(logits, 4, 0, top, 6); /* more than there are */
    ck_assert_int_eq(top[3].token, 0);
    ck_assert(fabs(mosld_logprobs(logits, 4, 1, NULL, 0) - log(0.5)) < 1e-5);
    const float equal[] = {1, 1, 1, 1};
    mosld_logprobs(equal, 4, 0, top, 2);
    ck_assert(top[0].token == 0 && top[1].token == 1); /* the lower id first */
}
END_TEST

START_TEST(ranges)
{
    static const struct mosld_logit_bias far[] = {{1, 101}}, no_number[] = {{1, NAN}};
    const struct {
        struct mosld_sample_params p;
        const char *name;
    } bad[] = {
        {*PARAMS(.temperature = -1), "temperature"},        {*PARAMS(.temperature = NAN), "temperature"},
        {*PARAMS(.top_p = 0), "top_p"},                     {*PARAMS(.top_p = 1.1), "top_p"},
        {*PARAMS(.min_p = 1), "min_p"},                     {*PARAMS(.typical_p = -0.1), "typical_p"},
        {*PARAMS(.typical_p = 2), "typical_p"},             {*PARAMS(.repetition_penalty = 0), "repetition_penalty"},
        {*PARAMS(.presence_penalty = 1e9), "presence"},     {*PARAMS(.frequency_penalty = NAN), "frequency"},
        {*PARAMS(.logit_bias = far, .n_logit_bias = 1), "logit_bias"},
        {*PARAMS(.logit_bias = no_number, .n_logit_bias = 1), "logit_bias"},
    };
    struct rt_error err;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        ck_assert_int_eq(mosld_sample_check(&bad[i].p, &err), RT_USAGE);
        ck_assert_msg(strstr(err.text, bad[i].name) != NULL, "%s: %s", bad[i].name, err.text);
    }
    ck_assert_int_eq(mosld_sample_check(PARAMS(.temperature = 0.7, .top_k = 40, .min_p = 0.05), &err), RT_OK);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("sample");
    TCase *tc = tcase_create("sample");
    tcase_set_timeout(tc, 120);
    tcase_add_test(tc, typical);
    tcase_add_test(tc, one_after_the_other);
    tcase_add_test(tc, bias);
    tcase_add_test(tc, penalties);
    tcase_add_loop_test(tc, selection_is_sorting, 0, 4);
    tcase_add_test(tc, a_seed_says_it_all);
    tcase_add_test(tc, logprobs);
    tcase_add_test(tc, ranges);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
