/* shaders/optim.h - the parameters of grad_norm and adamw, for C and GLSL. See mosld/ops/optim.h.
 *
 * rest1 = 1 - beta1 and rest2 = 1 - beta2, made in double: in float 1 - 0.999 is off by 1e-5. */
#ifndef MOSLD_SHADER_OPTIM_H
#define MOSLD_SHADER_OPTIM_H

#include "push.h"

#define GRAD_NORM_THREADS 128

PUSH_BLOCK(optim_push, uint n; uint chunk; float beta1; float rest1; float beta2; float rest2; float eps;
           float weight_decay;)

#endif
