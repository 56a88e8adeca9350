/* mosld/ops/linear_host.h - what linear.c and matmul_host.c share; for these files alone. */
#ifndef MOSLD_LINEAR_HOST_H
#define MOSLD_LINEAR_HOST_H

#include "mosld/ops/matmul_common.h"
#include "shaders/linear.h"

extern const struct op op_linear_nt_desc, op_linear_nn_desc;

/* The bindings behind those of the product. */
enum { LINEAR_Z = MATMUL_OTHER + 1, LINEAR_B };

void linear_host_nt(struct rt_device *dev, void *const *bindings, const void *push);
void linear_host_nn(struct rt_device *dev, void *const *bindings, const void *push);

#endif
