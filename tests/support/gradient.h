/* tests/support/gradient.h - whether a backward reference is the gradient of the forward one, by central differences in
 * double. */
#ifndef TEST_GRADIENT_H
#define TEST_GRADIENT_H

#include "mosld/ops/op.h"

struct gradient_check {
    const struct op *op;   /* forward; out of place: its output does not depend on what the output held */
    void *const *bindings; /* as its `ref` takes them; inputs come back unchanged, the output holds anything */
    const void *push;
    uint32_t input, output; /* bindings of double */
    uint64_t n_input, n_output;
    const double *d_output; /* [n_output]: L = <d_output, output> */
    const double *d_input;  /* [n_input]: what backward says dL/dinput is */
};

/* Fails the running test where (L(x + h) - L(x - h)) / 2h is off by more than `tolerance` (1 + |gradient|), h = 1e-5.
 * For functions of order one the differences themselves are good to about 1e-9: h^2 of truncation and 1e-16 / h of
 * rounding. */
void test_gradient(const char *label, const struct gradient_check *check, double tolerance);

double *test_doubles(uint64_t n, uint64_t seed, double size); /* uniform in [-size, size); the caller frees them */

#endif
