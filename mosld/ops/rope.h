/* mosld/ops/rope.h - rotary position embedding in place, half-split layout (Hugging Face's), and its backward, the inverse.
 *
 *     for i < D/2, with c, s = table[pos[t], i]:   a = x[t, h, i], b = x[t, h, i + D/2]
 *     forward:  x[.., i] = a c - b s;  x[.., i + D/2] = b c + a s           inverse: s negated
 *
 * x: [T, stride], `heads` heads of D from `col` on (q and k stand side by side, so one call does both). pos: u32 [T].
 * table: f32 [positions, D/2, 2], made by op_rope_table on the host in double, since a device's sine may be off by 2^-11. */
#ifndef MOSLD_ROPE_H
#define MOSLD_ROPE_H

#include "runtime/rt.h"

/* Fills table [positions, head_dim / 2, 2] with the cosine and sine of pos * inv_freq[i]. Whatever scaling a model has is in inv_freq
 * [head_dim / 2] already. */
void op_rope_table(const double *inv_freq, uint32_t positions, uint32_t head_dim, float *table);

struct op_rope {
    struct rt_span x, table, pos;
    uint32_t rows, stride, col, heads, head_dim;
    bool inverse;
};
enum rt_status op_rope(struct rt_device *dev, const struct op_rope *r, struct rt_error *err);

#endif
