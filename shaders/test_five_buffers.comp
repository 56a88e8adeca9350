// Five storage buffers, 20 KiB of shared memory and 256 invocations: each more than the floor of Vulkan guarantees.
#version 450
layout(local_size_x = 256) in;
layout(std430, binding = 0) readonly buffer A { float a[]; };
layout(std430, binding = 1) readonly buffer B { float b[]; };
layout(std430, binding = 2) readonly buffer C { float c[]; };
layout(std430, binding = 3) readonly buffer D { float d[]; };
layout(std430, binding = 4) writeonly buffer E { float e[]; };
shared float tile[5120];

void main()
{
    uint i = gl_LocalInvocationIndex;
    for (uint k = i; k < 5120; k += 256)
        tile[k] = a[i] + b[i] + c[i] + d[i];
    barrier();
    e[i] = tile[(i + 1) % 256 + 4864];
}
