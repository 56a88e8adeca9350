/* mosld/generate/sample.c - see sample.h. */
#include "mosld/generate/sample.h"

#include "mosld/ops/mixture.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

struct candidate {
    double p; /* logit first, unnormalised probability later */
    uint32_t token;
};

static enum rt_status check_range(const char *name, double v, double low, bool low_too, double high, bool high_too, struct rt_error *err)
{
    if ((v > low || (low_too && v == low)) && (v < high || (high_too && v == high)))
        return RT_OK;
    return rt_fail(err, RT_USAGE, "%s: %g is not %s %g and %s %g", name, v, low_too ? "at least" : "above", low, high_too ? "at most" : "below", high);
}

enum rt_status mosld_sample_check(const struct mosld_sample_params *s, struct rt_error *err)
{
    RT_TRY(check_range("temperature", s->temperature, 0, true, 100, true, err));
    RT_TRY(check_range("top_p", s->top_p, 0, false, 1, true, err));
    RT_TRY(check_range("min_p", s->min_p, 0, true, 1, false, err));
    RT_TRY(check_range("typical_p", s->typical_p, 0, true, 1, true, err));
    RT_TRY(check_range("repetition_penalty", s->repetition_penalty, 0, false, 10, true, err));
    RT_TRY(check_range("presence_penalty", s->presence_penalty, -100, true, 100, true, err));
    RT_TRY(check_range("frequency_penalty", s->frequency_penalty, -100, true, 100, true, err));
    for (uint32_t i = 0; i < s->n_logit_bias; i++)
        RT_TRY(check_range("logit_bias", s->logit_bias[i].bias, -MOSLD_MAX_LOGIT_BIAS, true, MOSLD_MAX_LOGIT_BIAS, true, err));
    return RT_OK;
}

/* ---- what changes logits ---- */

static void add_bias(const struct mosld_sample_params *s, float *logits, uint32_t V)
{
    for (uint32_t i = 0; i < s->n_logit_bias; i++)
        if ((uint32_t)s->logit_bias[i].token < V)
            logits[s->logit_bias[i].token] += s->logit_bias[i].bias;
}

static enum rt_status penalise(const struct mosld_sample_params *s, float *logits, uint32_t V, const int32_t *before, uint64_t n,
                               uint64_t n_new, struct rt_error *err)
{
    if (s->repetition_penalty == 1 && s->presence_penalty == 0 && s->frequency_penalty == 0)
        return RT_OK;
    uint32_t *seen = calloc(V, sizeof *seen); /* bit 0: anywhere; above: how often in the answer */
    if (!seen)
        return rt_fail(err, RT_NO_MEMORY, "no memory to sample");
    for (uint64_t i = 0; i < n; i++)
        if ((uint32_t)before[i] < V)
            seen[before[i]] = (seen[before[i]] | 1) + (i + n_new >= n ? 2 : 0);
    for (uint64_t i = 0; i < n; i++) {
        uint32_t t = (uint32_t)before[i];
        if (t >= V || !seen[t])
            continue;
        double x = logits[t] > 0 ? logits[t] / s->repetition_penalty : logits[t] * s->repetition_penalty;
        uint32_t times = seen[t] >> 1;
        logits[t] = (float)(x - (times ? s->presence_penalty : 0) - times * s->frequency_penalty);
        seen[t] = 0;
    }
    free(seen);
    return RT_OK;
}

static uint32_t best(const float *logits, uint32_t V)
{
    uint32_t at = 0;
    for (uint32_t v = 1; v < V; v++)
        if (logits[v] > logits[at] || isnan(logits[at]))
            at = v;
    return at;
}

/* ---- which candidates stay ---- */

static int likelier(const void *a, const void *b)
{
    const struct candidate *x = a, *y = b;
    if (x->p != y->p)
        return x->p > y->p ? -1 : 1;
    return x->token < y->token ? -1 : 1;
}

/* Brings the k likeliest to the front, in no order (Hoare's selection). */
static void select_likeliest(struct candidate *c, uint32_t n, uint32_t k)
{
    uint32_t low = 0, high = n;
    while (high - low > 1 && k > low && k < high) {
        struct candidate pivot = c[low + (high - low - 1) / 2];
        uint32_t i = low, j = high - 1;
        for (;;) {
            while (likelier(&c[i], &pivot) < 0)
                i++;
            while (likelier(&pivot, &c[j]) < 0)
                j--;
            if (i >= j)
                break;
            struct candidate t = c[i];
            c[i++] = c[j];
            c[j--] = t;
        }
        uint32_t middle = j + 1; /* everything before it is at least as likely as everything from it on */
        if (k <= middle)
            high = middle;
        else
            low = middle;
    }
}

/* Sorts the k likeliest to the front. The order is total (no two tokens are alike), so the result does not depend on how it came about. */
static void sort_front(struct candidate *c, uint32_t n, uint32_t k)
{
    if (k < n)
        select_likeliest(c, n, k);
    qsort(c, k < n ? k : n, sizeof *c, likelier);
}

static double sum_of(const struct candidate *c, uint32_t n)
{
    double sum = 0;
    for (uint32_t i = 0; i < n; i++)
        sum += c[i].p;
    return sum;
}

/* The smallest set of the likeliest with top_p of the mass. Few candidates hold it as a rule, so sorting begins with few. */
static uint32_t keep_top_p(struct candidate *c, uint32_t n, double top_p)
{
    double sum = sum_of(c, n), mass = 0;
    uint32_t done = 0;
    for (uint32_t k = 256; done < n; k = k > n / 8 ? n : k * 8) {
        k = k < n ? k : n;
        sort_front(c + done, n - done, k - done);
        for (; done < k; done++) {
            if (done > 0 && mass >= top_p * sum)
                return done;
            mass += c[done].p;
        }
    }
    return n;
}

struct surprise {
    double off;
    struct candidate c;
};

static bool less_off(const struct surprise *x, const struct surprise *y)
{
    return x->off != y->off ? x->off < y->off : likelier(&x->c, &y->c) < 0;
}

/* Lets s[i] sink in a heap of n, whose first is the least off. */
static void sink(struct surprise *s, uint32_t i, uint32_t n)
{
    struct surprise moved = s[i];
    while (2 * (uint64_t)i + 1 < n) {
        uint32_t child = 2 * i + 1;
        child += child + 1 < n && less_off(&s[child + 1], &s[child]);
        if (!less_off(&s[child], &moved))
            break;
        s[i] = s[child];
        i = child;
    }
    s[i] = moved;
}

/* Locally typical sampling: those whose -log p is nearest to the entropy, up to typical_p of the mass. */
static enum rt_status keep_typical(struct candidate *c, uint32_t *n, double typical_p, struct rt_error *err)
{
    struct surprise *s = malloc(*n * sizeof *s);
    double sum = sum_of(c, *n), entropy = 0, mass = 0;
    if (!s)
        return rt_fail(err, RT_NO_MEMORY, "no memory to sample");
    for (uint32_t i = 0; i < *n; i++) {
        s[i] = (struct surprise){c[i].p > 0 ? log(c[i].p / sum) : -INFINITY, c[i]};
        if (c[i].p > 0)
            entropy -= c[i].p / sum * s[i].off;
    }
    for (uint32_t i = 0; i < *n; i++)
        s[i].off = c[i].p > 0 ? fabs(-s[i].off - entropy) : INFINITY;
    for (uint32_t i = *n / 2; i-- > 0;)
        sink(s, i, *n);
    uint32_t kept = 0, left = *n; /* as a rule few are kept, so they are taken one by one */
    while (left > 0 && (kept == 0 || mass < typical_p * sum)) {
        mass += s[0].c.p;
        c[kept++] = s[0].c;
        s[0] = s[--left];
        sink(s, 0, left);
    }
    *n = kept;
    free(s);
    return RT_OK;
}

static uint32_t keep_min_p(struct candidate *c, uint32_t n, double min_p)
{
    double largest = 0;
    uint32_t kept = 0;
    for (uint32_t i = 0; i < n; i++)
        largest = c[i].p > largest ? c[i].p : largest;
    for (uint32_t i = 0; i < n; i++)
        if (c[i].p >= min_p * largest)
            c[kept++] = c[i];
    return kept;
}

static enum rt_status keep(const struct mosld_sample_params *s, struct candidate *c, uint32_t *n, struct rt_error *err)
{
    double largest = c[0].p;
    if (s->top_k && s->top_k < *n) {
        sort_front(c, *n, s->top_k);
        *n = s->top_k;
    }
    for (uint32_t i = 0; i < *n; i++)
        largest = c[i].p > largest ? c[i].p : largest;
    for (uint32_t i = 0; i < *n; i++)
        c[i].p = exp((c[i].p - largest) / s->temperature);
    if (s->top_p < 1)
        *n = keep_top_p(c, *n, s->top_p);
    if (s->min_p > 0)
        *n = keep_min_p(c, *n, s->min_p);
    return s->typical_p > 0 && s->typical_p < 1 ? keep_typical(c, n, s->typical_p, err) : RT_OK;
}

/* ---- the draw ---- */

static uint32_t draw_one(const struct mosld_sample_params *s, const struct candidate *c, uint32_t n, uint64_t draw)
{
    const uint32_t key[2] = {(uint32_t)s->seed, (uint32_t)(s->seed >> 32)},
                   counter[4] = {(uint32_t)draw, (uint32_t)(draw >> 32), 0, 4};
    uint32_t bits[4];
    mosld_philox(counter, key, bits);
    double u = (bits[0] * 4294967296.0 + bits[1]) / 18446744073709551616.0 * sum_of(c, n);
    uint32_t i = 0;
    while (i + 1 < n && u >= c[i].p)
        u -= c[i++].p;
    return c[i].token;
}

enum rt_status mosld_sample(const struct mosld_sample_params *s, float *logits, uint32_t V, const int32_t *before,
                            uint64_t n_before, uint64_t draw, uint32_t *token, struct rt_error *err)
{
    add_bias(s, logits, V);
    RT_TRY(penalise(s, logits, V, before, n_before, draw < n_before ? draw : n_before, err));
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
    enum rt_status st = keep(s, c, &n, err);
    if (!st)
        *token = draw_one(s, c, n, draw);
    free(c);
    return st;
}

float mosld_logprobs(const float *logits, uint32_t V, uint32_t token, struct mosld_logprob *top, uint32_t n)
{
    double largest = -INFINITY, sum = 0;
    n = n < V ? n : V;
    for (uint32_t v = 0; v < V; v++)
        largest = logits[v] > largest ? logits[v] : largest;
    for (uint32_t v = 0; v < V; v++)
        sum += isfinite(logits[v]) ? exp(logits[v] - largest) : 0;
    double log_sum = largest + log(sum);
    uint32_t kept = 0; /* insertion: n is small */
    for (uint32_t v = 0; v < V && n; v++) {
        float p = (float)(logits[v] - log_sum);
        if (isnan(p) || (kept == n && !(p > top[n - 1].logprob)))
            continue;
        uint32_t i = kept < n ? kept++ : n - 1;
        for (; i > 0 && p > top[i - 1].logprob; i--)
            top[i] = top[i - 1];
        top[i] = (struct mosld_logprob){(int32_t)v, p};
    }
    return (float)(logits[token] - log_sum);
}
