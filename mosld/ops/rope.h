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

enum op_rope_scaling { OP_ROPE_DEFAULT, OP_ROPE_LINEAR, OP_ROPE_LLAMA3 };

struct op_rope_params {
    double theta;
    enum op_rope_scaling scaling;
    double factor;                                     /* linear, llama3 */
    double low_freq_factor, high_freq_factor;          /* llama3 */
    double original_max_position_embeddings;           /* llama3 */
};
/* Fills table [positions, head_dim / 2, 2] with cosine and sine. */
void op_rope_table(const struct op_rope_params *params, uint32_t positions, uint32_t head_dim, float *table);

struct op_rope {
    struct rt_span x, table, pos;
    uint32_t rows, stride, col, heads, head_dim;
    bool inverse;
};
enum rt_status op_rope(struct rt_device *dev, const struct op_rope *r, struct rt_error *err);

#endif
