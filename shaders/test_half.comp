// Needs 16-bit storage and arithmetic, so that a clamp can take them away. x[i] = 2 x[i].
#version 450
#extension GL_EXT_shader_16bit_storage : require
#extension GL_EXT_shader_explicit_arithmetic_types_float16 : require
layout(local_size_x = 64) in;
layout(std430, binding = 0) buffer X { float16_t x[]; };

void main()
{
    x[gl_GlobalInvocationID.x] = x[gl_GlobalInvocationID.x] * float16_t(2.0);
}
