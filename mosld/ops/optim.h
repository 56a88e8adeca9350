/* mosld/ops/optim.h - AdamW and the gradient's norm over one flat vector: all adapter tensors stand side by side.
 *
 *     grad_norm  step[GRAD_NORM] = |grad|;  step[CLIP] = min(1, max_norm / (|grad| + 1e-6)), 1 when max_norm is 0;
 *                step[SKIP] = 1 when the norm is not finite (tested on exponent bits), else 0
 *     adamw      nothing when step[SKIP]; else g = clip * grad;  m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) g^2;
 *                param -= lr * weight_decay * param;  param -= lr * (m / bias1) / (sqrt(v / bias2) + eps)
 *
 * as torch.optim.AdamW: eps outside the root, decoupled decay. step: the block of shaders/step.h. mv: f32 [2, n]: m,
 * then v. */
#ifndef MOSLD_OPTIM_H
#define MOSLD_OPTIM_H

#include "runtime/rt.h"

struct op;
extern const struct op op_grad_norm_desc, op_adamw_desc;

/* `partial`: scratch of at least OP_NORM_PARTIALS words. A gradient that is not finite, or whose square is not, gives
 * NORM = NaN and CLIP = 0. */
#define OP_NORM_PARTIALS 1024
uint32_t op_grad_norm_chunk(uint32_t n); /* elements that one partial sum covers; it depends on n alone */
enum rt_status op_grad_norm(struct rt_device *dev, struct rt_span grad, struct rt_span partial, struct rt_span step,
                            uint32_t n, struct rt_error *err);

struct op_adamw {
    struct rt_span param, grad, mv, step;
    uint32_t n;
    double beta1, beta2; /* in double, because 1 - 0.999f is off by 1e-5 from what bias2 is made of */
    float eps, weight_decay;
};
enum rt_status op_adamw(struct rt_device *dev, const struct op_adamw *a, struct rt_error *err);

#endif
