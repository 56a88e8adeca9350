/* shaders/swiglu.h - parameters of swiglu and swiglu_bwd. */
#include "push.h"

PUSH_BLOCK(swiglu_push, uint T; uint F;)
