/* shaders/rope.h - parameters of rope (mosld/ops/rope.h). sign: 1 forward, -1 inverse. */
#include "push.h"

PUSH_BLOCK(rope_push, uint rows; uint stride; uint col; uint heads; uint head_dim; float sign;)
