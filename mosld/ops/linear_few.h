/* mosld/ops/linear_few.h - all linear modules that read the same x, with their adapters, for a few tokens, as in generation.
 *
 *     ul[t, :]            = x [A ; Wg]^T                                                  the group's stack, once
 *     y[t, y_col_i + o]   = add + x W_i^T + s_i sum_{e: g_e > 0} g_e u_i B_ie^T           for each module i = 0 .. n_parts - 1
 *
 * with g the gate of mixture.h from the l_i behind u_i; a module of one expert has no router (l, g = 1). For a single token what an adapter costs is launches and the bytes of its
 * matrices: here a group is one launch on the host and two on Vulkan (one without an adapter), and of B the chosen experts alone are read.
 *
 * There is no backward: training has many tokens, and goes through op_gate and the products. The sums are those of op_matmul_nt and, where B is not transposed, op_mixture_few: on the host to the bit. */
#ifndef MOSLD_LINEAR_FEW_H
#define MOSLD_LINEAR_FEW_H

#include "mosld/ops/matmul.h"
#include "shaders/linear_few.h"

struct op;
extern const struct op op_linear_few_desc;

struct op_linear_few_part {
    const struct op_weight *w; /* [n, k], in one chunk */
    uint32_t y_col;
    struct rt_span bias;       /* f32 [n], of OP_ADD_BIAS */
    uint32_t r, experts;       /* r 0: no adapter; experts 1: no router */
    uint32_t u_col;            /* in ul; the router's logits follow at u_col + r */
    uint64_t b_offset;         /* words into `b` */
    float scale;
};

struct op_linear_few {
    struct rt_span x;          /* f32 [>= first + rows, x_stride], k columns */
    struct rt_span y;          /* f32 [>= first + rows, y_stride] */
    struct rt_span other;      /* of OP_ADD_RESIDUAL: like y */
    struct rt_span ul;         /* f32 [rows, ul_stride]; written. Needs no memory where no part has an adapter */
    struct rt_span stack, b;   /* f32: [stack_rows, k]; and the parts' B */
    uint32_t first, rows;      /* of x, y and other */
    uint32_t x_stride, y_stride, ul_stride, stack_rows, top_k;
    enum op_add add;           /* OP_ADD_NONE, OP_ADD_BIAS (all parts) or OP_ADD_RESIDUAL */
    bool alone;                /* no products with W: what the adapters give is added to y, for rows that another adapter's neighbours have in one product */
    bool transposed;           /* B lies as [E r, n], not as [n, E r] */
    uint32_t n_parts;          /* 1 .. LINEAR_FEW_PARTS; those behind the first may be fewer than three */
    struct op_linear_few_part part[LINEAR_FEW_PARTS];
};

/* Whether the device takes it in one go: at most LINEAR_FEW_ROWS tokens; weights (and biases) that one binding can cover; LINEAR_FEW_MOST columns of z a module; on Vulkan also
 * weights of one type, and a device for which a variant pays. */
bool op_linear_few_takes(struct rt_device *dev, const struct op_linear_few *l);
/* RT_FAILED where it does not, or where something does not lie in its memory. */
enum rt_status op_linear_few(struct rt_device *dev, const struct op_linear_few *l, struct rt_error *err);

#endif
