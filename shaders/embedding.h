/* shaders/embedding.h - the parameters of embedding, for C and GLSL: rows tokens; one chunk of W, its rows row0 ..
 * row0 + n of k columns, from word w_offset on (f32 alone), with scales from word `scales` on. See mosld/ops/rows.h.
 * */
#ifndef MOSLD_SHADER_EMBEDDING_H
#define MOSLD_SHADER_EMBEDDING_H

#include "push.h"

PUSH_BLOCK(embedding_push, uint rows; uint row0; uint n; uint k; uint w_offset; uint scales; uint wtype;)

#endif
