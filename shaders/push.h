/* shaders/push.h - one declaration of a parameter block for C and GLSL, so that they cannot drift.
 *
 *     PUSH_BLOCK(rmsnorm_push, uint rows; uint cols; float eps;)
 *
 * is struct rmsnorm_push in C and the push constants `p` in GLSL. 4-byte members only, 128 bytes at most. */
#ifndef MOSLD_PUSH_H
#define MOSLD_PUSH_H

#ifdef VULKAN
#define PUSH_BLOCK(name, members) layout(push_constant, std430) uniform name { members } p;
#else
#include <stdint.h>
#include <sys/types.h> /* uint */
#define PUSH_BLOCK(name, members) struct name { members };
#endif

#endif
