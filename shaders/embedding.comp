#version 450
#extension GL_GOOGLE_include_directive : require
/* y[t, :] = W[tokens[t], :] where this chunk of W has the row: a workgroup copies a row, four columns an invocation. */
#include "embedding.h"

#define WEIGHT_BINDING 1
#include "common/weight.glsl"

layout(local_size_x = 64) in;

layout(std430, set = 0, binding = 0) readonly buffer TokenBuffer { uint tokens[]; };
layout(std430, set = 0, binding = 2) writeonly buffer YBuffer { float y[]; };

void main()
{
    for (uint t = gl_WorkGroupID.x; t < p.rows; t += gl_NumWorkGroups.x) {
        uint row = tokens[t] - p.row0; /* wraps below row0 */
        if (row >= p.n)
            continue;
        for (uint c = gl_LocalInvocationID.x * 4; c < p.k; c += 256) {
            vec4 v = weight_4_or_0(row, c);
            for (uint j = 0; j < 4 && c + j < p.k; j++)
                y[t * p.k + c + j] = v[j];
        }
    }
}
