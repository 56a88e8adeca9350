/* shaders/swiglu.h - parameters of swiglu and swiglu_bwd; again is backward's alone. */
#include "push.h"

PUSH_BLOCK(swiglu_push, uint T; uint F; uint again;)
