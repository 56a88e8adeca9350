/* runtime/vulkan/divide.h - a kernel whose grid may be dispatched in parts.
 *
 * Kernels stride over what a grid of at most 65,535 groups a dimension leaves over: for (i = group; i < n; i += number of groups). In a part of a grid
 * the built-in number of groups is the part's, so the stride would be wrong. Where the grid is as promised
 * (RT_WRITE_BY_GROUPS), the constant 65,535 does instead: a dimension of fewer groups has no second turn, and one of 65,535 has that very stride. The
 * same pipeline then serves whole and divided dispatches, so that how work is cut never shows in the bits. Pure C. */
#ifndef RT_VULKAN_DIVIDE_H
#define RT_VULKAN_DIVIDE_H

#include <stddef.h>
#include <stdint.h>

/* The module with that constant in place of the built-in, malloc'ed; NULL where it cannot be made (SPIR-V before 1.4, a module that this does
 * not understand, no memory): the kernel then runs in one piece. */
uint32_t *divide_spirv(const uint32_t *words, size_t n, size_t *n_out);

#endif
