/* mosld/ops/loss.h - cross entropy over a slice of target tokens, forward and backward in one pass, in place.
 *
 * logits: [n, V]; targets: u32 [rows], each < V; loss: words [rows, 2], both read and written from row row0 on:
 *     loss[row0 + i, 0] = log sum_v exp(logits[i, v]) - logits[i, target]
 *     logits[i, v]      = grad_scale * (softmax(logits[i])_v - [v = target])         where grad_scale is not 0
 *     loss[row0 + i, 1] = the lowest index of the largest logit (u32)
 * grad_scale is 1 / (all target tokens of the optimizer step): the loss is their mean, not a mean of means. */
#ifndef MOSLD_LOSS_H
#define MOSLD_LOSS_H

#include "runtime/rt.h"

struct op;
extern const struct op op_cross_entropy_desc;

struct op_cross_entropy {
    struct rt_span logits, targets, loss; /* loss: 32-bit words [rows, 2]: the loss (f32), then `best` (u32) */
    uint32_t n, V, row0;
    float grad_scale;
};
enum rt_status op_cross_entropy(struct rt_device *dev, const struct op_cross_entropy *c, struct rt_error *err);

#endif
