// The sum of one float an invocation over the workgroup, as a tree in shared memory: one order on every device, and no
// subgroup operations. GROUP (a power of two) is the workgroup's size. Every invocation calls it and gets the sum.
#ifndef GROUP_SUM_GLSL
#define GROUP_SUM_GLSL

shared float group_sum_parts[GROUP];

float group_sum(float value)
{
    uint i = gl_LocalInvocationIndex;
    group_sum_parts[i] = value;
    barrier();
    for (uint width = GROUP / 2; width > 0; width /= 2) {
        if (i < width)
            group_sum_parts[i] += group_sum_parts[i + width];
        barrier();
    }
    float sum = group_sum_parts[0];
    barrier(); // before the parts are written again
    return sum;
}

#endif
