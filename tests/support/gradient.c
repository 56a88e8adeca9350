/* tests/support/gradient.c - see gradient.h. */
#include "tests/support/gradient.h"

#include "tests/support/op_test.h"

#include <check.h>
#include <math.h>
#include <stdlib.h>

static double loss_at(const struct gradient_check *c, uint64_t i, double x)
{
    ((double *)c->bindings[c->input])[i] = x;
    c->op->ref(c->bindings, c->push);
    double loss = 0;
    for (uint64_t j = 0; j < c->n_output; j++)
        loss += c->d_output[j] * ((const double *)c->bindings[c->output])[j];
    return loss;
}

void test_gradient(const char *label, const struct gradient_check *c, double tolerance)
{
    const double h = 1e-5;
    for (uint64_t i = 0; i < c->n_input; i++) {
        double x = ((const double *)c->bindings[c->input])[i];
        double slope = (loss_at(c, i, x + h) - loss_at(c, i, x - h)) / (2 * h);
        ((double *)c->bindings[c->input])[i] = x;
        ck_assert_msg(fabs(slope - c->d_input[i]) <= tolerance * (1 + fabs(slope)),
                      "%s: gradient %llu is %.12g by differences, backward says %.12g", label, (unsigned long long)i,
                      slope, c->d_input[i]);
    }
}

double *test_doubles(uint64_t n, uint64_t seed, double size)
{
    double *x = malloc((n + 1) * sizeof *x);
    for (uint64_t i = 0; i < n; i++)
        x[i] = size * (2.0 * (double)(test_random(&seed) >> 11) / (double)(1ull << 53) - 1);
    return x;
}
