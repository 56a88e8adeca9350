#version 450
#extension GL_GOOGLE_include_directive : require
/* y = x W^T for few tokens, or few columns with long sums, where tiles would leave a GPU idle: a workgroup makes 4 columns of 8 tokens. Its invocations take 4 neighbouring sums
 * each in turn, so that W streams through once, and their partial sums are added as a tree. */
#include "common/matmul.glsl"

layout(local_size_x = 64) in;

#define COLUMN_4(c, k) weight_4_or_0(c, k)
#define STORE(t, c, sum) store(t, c, sum)
#include "common/matmul_columns.glsl"

void main()
{
    for (uint t0 = gl_WorkGroupID.y * TOKENS; t0 < p.rows; t0 += gl_NumWorkGroups.y * TOKENS)
        for (uint c0 = gl_WorkGroupID.x * COLUMNS; c0 < p.n; c0 += gl_NumWorkGroups.x * COLUMNS)
            make_columns(t0, c0);
}
