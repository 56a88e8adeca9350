/* shaders/common/matmul.glsl - bindings of the products with a frozen weight, and how an output is stored. */
#include "matmul.h"

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
