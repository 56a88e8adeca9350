/* shaders/common/matmul_parts.glsl - bindings of a product whose sums are split: as common/matmul.glsl, but the outputs are parts. */
#include "matmul_split.h"

#define WEIGHT_BINDING 1
#include "common/weight.glsl"

layout(std430, set = 0, binding = 0) readonly buffer XBuffer { float x[]; };
layout(std430, set = 0, binding = 0) readonly buffer XBuffer4 { vec4 x4[]; };
layout(std430, set = 0, binding = 2) writeonly buffer PartsBuffer { vec4 parts[]; };
