#version 450
#extension GL_GOOGLE_include_directive : require
/* Rows by index: y[i, :] = x[index[i], :], or with SCATTER y[index[i], :] = x[i, :]. A workgroup copies a row. */
#include "rows.h"

layout(local_size_x = 64) in;

layout(std430, set = 0, binding = 0) readonly buffer XBuffer { float x[]; };
layout(std430, set = 0, binding = 1) readonly buffer IndexBuffer { uint index[]; };
layout(std430, set = 0, binding = 2) writeonly buffer YBuffer { float y[]; };

void main()
{
    for (uint i = gl_WorkGroupID.x; i < p.rows; i += gl_NumWorkGroups.x) {
        uint other = index[i];
        if (other >= p.limit)
            continue;
#ifdef SCATTER
        uint from = i * p.cols, to = other * p.cols;
#else
        uint from = other * p.cols, to = i * p.cols;
#endif
        for (uint c = gl_LocalInvocationID.x; c < p.cols; c += 64)
            y[to + c] = x[from + c];
    }
}
