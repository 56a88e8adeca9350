/* shaders/dropout_stacks.h - dropout of the A of all modules at once, for C and GLSL. See mosld/ops/dropout_stacks.c.
 *
 * A table of DROPOUT_ENTRY words a module says where its [A ; Wg] begins in two vectors, how much of it is dropped, and what its masks are
 * drawn by. `longest` is the most elements of a module. */
#ifndef MOSLD_SHADER_DROPOUT_STACKS_H
#define MOSLD_SHADER_DROPOUT_STACKS_H

#include "push.h"

#define DROPOUT_FLAT    0 /* the first word in the vector of values, or of gradients */
#define DROPOUT_STACKED 1 /* and in that of the stacks */
#define DROPOUT_N       2 /* words of [A ; Wg] */
#define DROPOUT_DROPPED 3 /* words of A */
#define DROPOUT_LAYER   4
#define DROPOUT_MODULE  5
#define DROPOUT_ENTRY   8

PUSH_BLOCK(dropout_stacks_push, uint modules; uint longest; uint back;)

#endif
