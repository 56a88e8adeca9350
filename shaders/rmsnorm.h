/* shaders/rmsnorm.h - parameters of rmsnorm and rmsnorm_bwd (mosld/ops/norm.h); y is dy in backward, dx_*,
 * accumulate and again are backward's alone. */
#include "push.h"

PUSH_BLOCK(rmsnorm_push, uint x_stride; uint x_col; uint y_stride; uint y_col; uint rows; uint heads; uint cols;
           float eps; uint dx_stride; uint dx_col; uint accumulate; uint again;)
