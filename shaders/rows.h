/* shaders/rows.h - the parameters of gather_rows and scatter_rows, for C and GLSL: `rows` rows of `cols` are moved;
 * `limit` is how many rows the indexed matrix has, and an index beyond it moves nothing. See mosld/ops/rows.h. */
#ifndef MOSLD_SHADER_ROWS_H
#define MOSLD_SHADER_ROWS_H

#include "push.h"

PUSH_BLOCK(rows_push, uint rows; uint cols; uint limit;)

#endif
