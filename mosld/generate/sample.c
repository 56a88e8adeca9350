/* mosld/generate/sample.c - see sample.h. */
#include "mosld/generate/sample.h"

#include "mosld/ops/mixture.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct candidate {
    double p; /* logit first, probability later */
    uint32_t token;
};

enum rt_status mosld_sample_check(const struct mosld_sample_params *s, struct rt_error *err)
{
    if (!(s->temperature >= 0 && s->temperature <= 100))
        return rt_fail(err, RT_USAGE, "temperature: %g is not between 0 and 100", s->temperature);
    if (!(s->top_p > 0 && s->top_p <= 1))
        return rt_fail(err, RT_USAGE, "top_p: %g is not above 0 and at most 1", s->top_p);
    if (!(s->min_p >= 0 && s->min_p < 1))
        return rt_fail(err, RT_USAGE, "min_p: %g is not in [0, 1)", s->min_p);
    if (!(s->repetition_penalty > 0 && s->repetition_penalty <= 10))
        return rt_fail(err, RT_USAGE, "repetition_penalty: %g is not above 0 and at most 10", s->repetition_penalty);
    return RT_OK;
}

static void penalise(const struct mosld_sample_params *s, float *logits, uint32_t V, const int32_t *before, uint64_t n,
                     unsigned char *seen)
{
    for (uint64_t i = 0; i < n; i++) {
        uint32_t t = (uint32_t)before[i];
        if (t >= V || seen[t])
            continue;
        seen[t] = 1;
        logits[t] = (float)(logits[t] > 0 ? logits[t] / s->repetition_penalty : logits[t] * s->repetition_penalty);
    }
}

static uint32_t best(const float *logits, uint32_t V)
{
    uint32_t at = 0;
    for (uint32_t v = 1; v < V; v++)
        if (logits[v] > logits[at] || isnan(logits[at]))
            at = v;
    return at;
}

static int likelier(const void *a, const void *b)
{
    const struct candidate *x = a, *y = b;
    if (x->p != y->p)
        return x->p > y->p ? -1 : 1;
    return x->token < y->token ? -1 : 1;
}

/* How many of the sorted candidates stay. Their p become unnormalised probabilities, exp(logit - largest). */
static uint32_t keep(const struct mosld_sample_params *s, struct candidate *c, uint32_t n)
{
    double largest = c[0].p, sum = 0, mass = 0;
    if (s->top_k && s->top_k < n)
        n = s->top_k;
    for (uint32_t i = 0; i < n; i++) {
        c[i].p = exp((c[i].p - largest) / s->temperature);
        sum += c[i].p;
    }
    for (uint32_t i = 0; i < n; i++) {
        if (i > 0 && (mass >= s->top_p * sum || c[i].p < s->min_p))
            return i;
        mass += c[i].p;
    }
    return n;
}

enum rt_status mosld_sample(const struct mosld_sample_params *s, float *logits, uint32_t V, const int32_t *before,
                            uint64_t n_before, uint64_t draw, uint32_t *token, struct rt_error *err)
{
    if (s->repetition_penalty != 1) {
        unsigned char *seen = calloc(V, 1);
        if (!seen)
            return rt_fail(err, RT_NO_MEMORY, "no memory to sample");
        penalise(s, logits, V, before, n_before, seen);
        free(seen);
    }
    *token = best(logits, V);
    if (!isfinite(logits[*token]))
        return rt_fail(err, RT_FAILED, "the model's output is not finite: the weights or the adapter are damaged");
    if (s->temperature == 0)
        return RT_OK;
    struct candidate *c = malloc(V * sizeof *c);
    if (!c)
        return rt_fail(err, RT_NO_MEMORY, "no memory to sample");
    uint32_t n = 0;
    for (uint32_t v = 0; v < V; v++)
        if (isfinite(logits[v]))
            c[n++] = (struct candidate){logits[v], v};
    qsort(c, n, sizeof *c, likelier);
    n = keep(s, c, n);
    double sum = 0;
    for (uint32_t i = 0; i < n; i++)
        sum += c[i].p;
    const uint32_t key[2] = {(uint32_t)s->seed, (uint32_t)(s->seed >> 32)},
                   counter[4] = {(uint32_t)draw, (uint32_t)(draw >> 32), 0, 4};
    uint32_t bits[4];
    mosld_philox(counter, key, bits);
    double u = (bits[0] * 4294967296.0 + bits[1]) / 18446744073709551616.0 * sum;
    uint32_t i = 0;
    while (i + 1 < n && u >= c[i].p)
        u -= c[i++].p;
    *token = c[i].token;
    free(c);
    return RT_OK;
}
