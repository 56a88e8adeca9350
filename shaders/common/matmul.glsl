/* shaders/common/matmul.glsl - bindings of the products with a frozen weight, and how an output is stored. */
#ifdef TAIL
#include "linear.h"
#elif !defined(FEW) /* there p is a part of something larger: linear_few.comp */
#include "matmul.h"
#endif

#define WEIGHT_BINDING 1
#include "common/weight.glsl"

layout(std430, set = 0, binding = 0) readonly buffer XBuffer { float x[]; };
layout(std430, set = 0, binding = 2) buffer YBuffer { float y[]; };
layout(std430, set = 0, binding = 3) readonly buffer OtherBuffer { float other[]; };

/* Output of token t in column c, counted from y_col. */
void store(uint t, uint c, float sum)
{
    uint at = t * p.y_stride + p.y_col + c;
    float v = p.scale * sum;
    /* Drivers on the processor execute every branch, masked, so there is one load for two cases. */
    if (p.add == MATMUL_ADD_SELF)
        v += y[at];
    else if (p.add != MATMUL_ADD_NONE)
        v += other[p.add == MATMUL_ADD_BIAS ? p.bias_col + c : at];
    y[at] = v;
}

/* The same buffers, four values at a time. */
layout(std430, set = 0, binding = 0) readonly buffer XBuffer4 { vec4 x4[]; };
layout(std430, set = 0, binding = 2) buffer YBuffer4 { vec4 y4[]; };
layout(std430, set = 0, binding = 3) readonly buffer OtherBuffer4 { vec4 other4[]; };

bool can_store_vectors() { return ((p.y_stride | p.y_col | (p.add == MATMUL_ADD_BIAS ? p.bias_col : 0)) & 3u) == 0u; }

/* Outputs of token t in columns c .. c + 3, all there; c is a multiple of 4, and can_store_vectors(). */
void store_4(uint t, uint c, vec4 sum)
{
    uint at = (t * p.y_stride + p.y_col + c) / 4;
    vec4 v = p.scale * sum;
    if (p.add == MATMUL_ADD_SELF)
        v += y4[at];
    else if (p.add != MATMUL_ADD_NONE)
        v += other4[p.add == MATMUL_ADD_BIAS ? (p.bias_col + c) / 4 : at];
    y4[at] = v;
}
