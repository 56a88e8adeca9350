/* shaders/test_push.h - parameters of the shaders that only the runtime's tests run. */
#ifndef MOSLD_TEST_PUSH_H
#define MOSLD_TEST_PUSH_H

#include "push.h"

PUSH_BLOCK(test_push, uint n; uint repeat; float value;)

#endif
