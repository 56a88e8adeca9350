/* mosld/ops/linear.h - a product with a frozen weight and, where it pays, an adapter's low-rank product in the same sums.
 *
 *     nt  y[t, y_col + o] = add + sum_k x[t, x_col + k] W[o, k] + s sum_i z[t, z_col + i] B[o, i]    y = [x | s z] [W | B]^T
 *     nn  y[t, y_col + k] = add + sum_o x[t, x_col + o] W[o, k] + s sum_i z[t, z_col + i] B[i, k]    dx = [dy | dul] [W ; A, Wg]
 *
 * The output is written once, where two products would write it, read it and write it again. Which of the two is done, the
 * device's choice for the frozen product decides: the variant of that name has the tail where one exists (`tile`, `wide`, `host`: those
 * that GPUs with 6 storage buffers a stage and the host take); otherwise op_matmul runs twice. Sums with and without it differ in
 * the last bits. */
#ifndef MOSLD_LINEAR_OP_H
#define MOSLD_LINEAR_OP_H

#include "mosld/ops/matmul.h"

struct op_linear {
    struct op_matmul m; /* its scale must be 0 or 1 */
    struct rt_span z;   /* f32 [T, z_stride] */
    uint32_t z_stride, z_col;
    const struct op_weight *b; /* f32, in one chunk: nt [rows of W, r], nn [r, columns of W] */
    float scale;               /* s; 0 means 1 */
    bool apart;                /* two products in any case, for tests and measurements */
};

enum rt_status op_linear_nt(struct rt_device *dev, const struct op_linear *l, struct rt_error *err);
enum rt_status op_linear_nn(struct rt_device *dev, const struct op_linear *l, struct rt_error *err);

#endif
