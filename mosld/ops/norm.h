/* mosld/ops/norm.h - RMSNorm, forward and backward; of whole rows and of each head (Qwen3's q and k norm).
 *
 *     y[t, h, :] = x[t, h, :] * r * w,    r = 1 / sqrt(mean_c x[t, h, c]^2 + eps)
 *     dx        += r * (dy * w - x * r^2 * mean_c(dy * w * x))         w is frozen: no dw
 *
 * A row of x has `heads` groups of `cols` values from x_col on, contiguous; w: [cols]. Forward may run in place. */
#ifndef MOSLD_NORM_H
#define MOSLD_NORM_H

#include "runtime/rt.h"

struct op_rmsnorm {
    struct rt_span x, w, y; /* y: the output of forward, the incoming gradient dy of backward */
    uint32_t x_stride, x_col, y_stride, y_col;
    uint32_t rows, heads, cols; /* rows: T; heads: 1 for a whole row */
    float eps;
};
enum rt_status op_rmsnorm(struct rt_device *dev, const struct op_rmsnorm *n, struct rt_error *err);

/* dx has the shape, stride and col given here. accumulate: dx is added to (the residual stream brings it a second gradient), else
 * set. dx may be y itself when strides and cols are the same and accumulate is false. again: n.y holds dy before, and the norm's output behind it, for
 * who needs that a second time; dx is another matrix then. */
struct op_rmsnorm_bwd {
    struct op_rmsnorm n;
    struct rt_span dx;
    uint32_t dx_stride, dx_col;
    bool accumulate, again;
};
enum rt_status op_rmsnorm_bwd(struct rt_device *dev, const struct op_rmsnorm_bwd *b, struct rt_error *err);

#endif
