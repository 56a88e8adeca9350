/* mosld/ops/swiglu.h - h = silu(g) u, and its backward.
 *
 * gu: [T, 2 F]: gate, then up, side by side. h, dh: [T, F]. dgu: [T, 2 F], overwritten.
 * again: dh holds h behind it, for who needs that a second time.
 *     h = g sigmoid(g) u;   du = dh g sigmoid(g);   dg = dh u sigmoid(g) (1 + g (1 - sigmoid(g))) */
#ifndef MOSLD_SWIGLU_H
#define MOSLD_SWIGLU_H

#include "runtime/rt.h"

enum rt_status op_swiglu(struct rt_device *dev, struct rt_span gu, struct rt_span h, uint32_t T, uint32_t F, struct rt_error *err);
enum rt_status op_swiglu_bwd(struct rt_device *dev, struct rt_span gu, struct rt_span dh, struct rt_span dgu, uint32_t T, uint32_t F,
                             bool again, struct rt_error *err);

#endif
