/* shaders/cross_entropy.h - the parameters of cross entropy, for C and GLSL. See mosld/ops/loss.h. */
#ifndef MOSLD_SHADER_CROSS_ENTROPY_H
#define MOSLD_SHADER_CROSS_ENTROPY_H

#include "push.h"

PUSH_BLOCK(cross_entropy_push, uint n; uint V; uint row0; float grad_scale;)

#endif
