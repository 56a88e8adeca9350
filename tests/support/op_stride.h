/* tests/support/op_stride.h - kernels run with far fewer groups than they ask for.
 *
 * A kernel strides over what its grid of at most 65,535 groups does not cover, which only tensors of hundreds of
 * megabytes would show. Here each grid is cut to `groups` groups, so small ones show it. */
#ifndef OP_STRIDE_H
#define OP_STRIDE_H

#include "tests/support/op_test.h"

/* op_test_run with the first dimension of every grid cut to 1 and then to 2 groups. Only for ops whose kernels stride over it. */
void op_test_run_strided(const struct op *op, const struct op_case *c);

#endif
