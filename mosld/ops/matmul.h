/* mosld/ops/matmul.h - products with a frozen weight of any type, and the reduction over tokens for adapter gradients.
 *
 *     nt  y[t, y_col + o]  = add + scale * sum_k x[t, x_col + k] W[o, k]       forward,  y = x W^T
 *     nn  y[t, y_col + k]  = add + scale * sum_o x[t, x_col + o] W[o, k]       backward, dx = dy W
 *     tn  w[a, b]          = add + scale * sum_t x[t, x_col + a] y[t, y_col + b]   dB = s dy^T z,  dA = du^T x
 *
 * W: op_weight [rows, cols]; x, y: f32. `add` says what the sum is added to. Sums are in f32, in an order that depends on shapes
 * alone. A weight of several chunks is several launches, which nn accumulates. */
#ifndef MOSLD_MATMUL_H
#define MOSLD_MATMUL_H

#include "mosld/ops/weight.h"

enum op_add {
    OP_ADD_NONE,     /* nothing: the output is overwritten */
    OP_ADD_SELF,     /* the output's old value: it accumulates */
    OP_ADD_BIAS,     /* nt only: bias[o], f32 [rows of W] */
    OP_ADD_RESIDUAL, /* another matrix of the output's shape, stride and col: residual[t, y_col + o] */
};

struct op_matmul {
    struct rt_span x;
    uint32_t x_stride, x_col;
    const struct op_weight *w; /* nt, nn */
    struct rt_span y;
    uint32_t y_stride, y_col;
    uint32_t rows; /* T */
    float scale;   /* 0 means 1 */
    enum op_add add;
    struct rt_span other; /* of OP_ADD_BIAS or OP_ADD_RESIDUAL */
    struct rt_span parts; /* scratch for sums that are split to fill a GPU, op_matmul_parts_bytes or any size; without: they are not */
    uint32_t splits;      /* 0: chosen. For tests and measurements */
};

/* Bytes of scratch that products on this device can use for split sums; 0: it has no use for them. What it holds is dead when the product is done. */
uint64_t op_matmul_parts_bytes(const struct rt_device *dev);

enum rt_status op_matmul_nt(struct rt_device *dev, const struct op_matmul *m, struct rt_error *err);
enum rt_status op_matmul_nn(struct rt_device *dev, const struct op_matmul *m, struct rt_error *err);

struct op_matmul_tn {
    struct rt_span x, y; /* x: [T, >= x_col + a], y: [T, >= y_col + b] */
    uint32_t x_stride, x_col, y_stride, y_col;
    struct rt_span w; /* [a, b] f32, dense, starting at word w_offset of the span */
    uint32_t w_offset;
    uint32_t a, b, rows; /* rows: T */
    float scale;         /* 0 means 1 */
    bool accumulate;
    struct rt_span parts; /* as of op_matmul */
    uint32_t splits;
};
enum rt_status op_matmul_tn(struct rt_device *dev, const struct op_matmul_tn *m, struct rt_error *err);

#endif
