/* shaders/dropout.h - the parameters of dropout, for C and GLSL. See mosld/ops/dropout.c.
 *
 * The first `dropped` of n elements are dropped, the others copied. `site` is the last word of Philox's counter. */
#ifndef MOSLD_SHADER_DROPOUT_H
#define MOSLD_SHADER_DROPOUT_H

#include "push.h"

#define DROPOUT_SITE_WEIGHTS 0
#define DROPOUT_SITE_INPUT 1

PUSH_BLOCK(dropout_push, uint n; uint dropped; uint x_offset; uint y_offset; uint mask_offset; uint module; uint layer;
           uint site; uint given; uint accumulate;)

#endif
