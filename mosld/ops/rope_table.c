/* mosld/ops/rope_table.c - cosines and sines of the rotary embedding, in double and then rounded.
 *
 *     f_i = theta^(-2 i / D),   angle = pos f'_i
 *     default  f' = f
 *     linear   f' = f / factor
 *     llama3   by the wavelength w = 2 pi / f against L = original_max_position_embeddings:
 *                  w < L / high_freq_factor   f' = f                 (it turned many times in training)
 *                  w > L / low_freq_factor    f' = f / factor        (it never turned round once)
 *                  between                    f' = (1 - s) f / factor + s f,   s = (L / w - low) / (high - low)
 */
#include "mosld/ops/rope.h"

#include <math.h>

static double frequency(const struct op_rope_params *r, uint32_t i, uint32_t head_dim)
{
    const double two_pi = 6.283185307179586476925;
    double f = pow(r->theta, -2.0 * i / head_dim);
    if (r->scaling == OP_ROPE_LINEAR)
        return f / r->factor;
    if (r->scaling != OP_ROPE_LLAMA3)
        return f;
    double turns = r->original_max_position_embeddings * f / two_pi; /* L / w */
    if (turns > r->high_freq_factor)
        return f;
    if (turns < r->low_freq_factor)
        return f / r->factor;
    double s = (turns - r->low_freq_factor) / (r->high_freq_factor - r->low_freq_factor);
    return (1 - s) * f / r->factor + s * f;
}

void op_rope_table(const struct op_rope_params *params, uint32_t positions, uint32_t head_dim, float *table)
{
    uint32_t half = head_dim / 2;
    for (uint32_t i = 0; i < half; i++) {
        double f = frequency(params, i, head_dim);
        for (size_t pos = 0; pos < positions; pos++) {
            float *cs = table + (pos * half + i) * 2;
            cs[0] = (float)cos((double)pos * f);
            cs[1] = (float)sin((double)pos * f);
        }
    }
}
