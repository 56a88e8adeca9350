#version 450
#extension GL_GOOGLE_include_directive : require
/* All modules of a group for a few tokens, and the skinny product of its adapters: mosld/ops/linear_few.c. A workgroup makes 4 columns of 8 tokens, as in
 * matmul_nt_vec.comp; they are of one part, or of the stack. PLAIN: there are no adapters. */
#define FEW
#define p few
#include "linear_few.h"
#undef p

/* The part at hand, as the pieces of matmul.glsl know a product. */
struct Part {
    uint rows, n, k, x_stride, x_col, y_stride, y_col, w_offset, scales, add, bias_col;
    float scale;
} p;
uint part_word;
bool of_stack;
#define WEIGHT_WORD(at) weight_buffer.words[part_word + (at)]
#define MATMUL_ADD_NONE 0
#define MATMUL_ADD_SELF 1
#define MATMUL_ADD_BIAS 2
#include "common/matmul.glsl"
#ifndef PLAIN
layout(std430, set = 0, binding = 4) readonly buffer StackBuffer { float stack[]; };
layout(std430, set = 0, binding = 5) buffer UlBuffer { float ul[]; };
#endif

layout(local_size_x = 64) in;

vec4 column_4_or_0(uint c, uint k)
{
#ifndef PLAIN
    if (of_stack) {
        vec4 v = vec4(0.0);
        for (uint i = 0; i < 4 && c < p.n && k + i < p.k; i++)
            v[i] = stack[c * p.k + k + i];
        return v;
    }
#endif
    return weight_4_or_0(c, k);
}

void put(uint t, uint c, float sum)
{
#ifndef PLAIN
    if (of_stack) {
        ul[t * few.ul_stride + c] = sum;
        return;
    }
#endif
    store(t, c, sum);
}

#define COLUMN_4(c, k) column_4_or_0(c, k)
#define STORE(t, c, sum) put(t, c, sum)
#include "common/matmul_columns.glsl"

/* Words of the quants of a row, behind which scales begin. */
uint quant_words()
{
#if WTYPE == 3
    return few.k / 4;
#elif WTYPE > 3
    return few.k / 32 * BLOCK_WORDS;
#else
    return 0;
#endif
}

void main()
{
    p.rows = few.rows, p.k = few.k, p.x_stride = few.x_stride, p.x_col = few.first * few.x_stride, p.y_stride = few.y_stride, p.scale = 1.0, p.w_offset = 0;
    p.add = few.how >> LINEAR_FEW_ADD_SHIFT & 3u;
    uint ends[LINEAR_FEW_PARTS + 1], end = 0;
    bool alone = (few.how & LINEAR_FEW_ALONE) != 0;
    for (uint i = 0; i < LINEAR_FEW_PARTS; i++) {
        end += alone ? 0 : (few.n[i] + COLUMNS - 1) / COLUMNS;
        ends[i] = end;
    }
    end += (few.stack_rows + COLUMNS - 1) / COLUMNS;
    for (uint g = gl_WorkGroupID.x; g < end; g += gl_NumWorkGroups.x) {
        uint i = 0, first = 0;
        while (i < LINEAR_FEW_PARTS && g >= ends[i])
            first = ends[i++];
        of_stack = i == LINEAR_FEW_PARTS;
        p.n = of_stack ? few.stack_rows : few.n[i];
        if (!of_stack) {
            p.y_col = few.y_col[i] + few.first * few.y_stride, p.bias_col = few.bias[i];
            p.scales = few.n[i] * quant_words();
            part_word = few.w[i];
        }
        make_columns(0, (g - first) * COLUMNS);
    }
}
