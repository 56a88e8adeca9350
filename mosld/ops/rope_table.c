/* mosld/ops/rope_table.c - cosines and sines of the rotary embedding, in double and then rounded. */
#include "mosld/ops/rope.h"

#include <math.h>
#include <stddef.h>

void op_rope_table(const double *inv_freq, uint32_t positions, uint32_t head_dim, float *table)
{
    uint32_t half = head_dim / 2;
    for (size_t pos = 0; pos < positions; pos++)
        for (uint32_t i = 0; i < half; i++, table += 2) {
            table[0] = (float)cos((double)pos * inv_freq[i]);
            table[1] = (float)sin((double)pos * inv_freq[i]);
        }
}
