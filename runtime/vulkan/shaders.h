/* runtime/vulkan/shaders.h - the SPIR-V of every variant in shaders/manifest.txt, embedded by cmake/shaders.cmake. */
#ifndef RT_VULKAN_SHADERS_H
#define RT_VULKAN_SHADERS_H

#include <stddef.h>
#include <stdint.h>

struct rt_shader {
    const char *name;
    const uint32_t *words;
    size_t n_words;
};

extern const struct rt_shader rt_shaders[]; /* rt_n_shaders of them, sorted by name */
extern const size_t rt_n_shaders;
extern const char rt_shaders_id[]; /* 16 hexadecimal digits: changes with any of them */

#endif
