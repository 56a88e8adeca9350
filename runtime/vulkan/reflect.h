/* runtime/vulkan/reflect.h - what a SPIR-V module asks of a device, and what it does to its bindings, read from its words.
 * Pure C. Modules come from our own compiler run, yet every read is checked against the module's end. */
#ifndef RT_VULKAN_REFLECT_H
#define RT_VULKAN_REFLECT_H

#include "runtime/rt.h"

#include <stddef.h>

struct reflection {
    uint32_t caps;         /* enum rt_cap that its capabilities need */
    uint32_t subgroup_ops; /* VkSubgroupFeatureFlags that they need */
    bool int16;            /* needs shaderInt16 */
    uint32_t unknown_capability; /* number of a SPIR-V capability that no device is ever asked for; 0: none */
    uint32_t local_size[3];
    uint32_t shared_bytes;
    uint32_t push_bytes;
    uint32_t n_bindings;    /* highest binding of set 0, plus 1 */
    uint8_t access[32];     /* of each binding, enum rt_access: what the code really does; 0: not used */
    bool other_sets;        /* uses a descriptor set other than 0, or a binding of 32 or more */
};

/* False when the words are no module that this can read; *out is then zero. */
bool reflect_spirv(const uint32_t *words, size_t n_words, struct reflection *out);

/* Gives the specialisation constant with this SpecId (32 bits) another default in the module's own words; nothing where there is none. */
void reflect_set_constant(uint32_t *words, size_t n_words, uint32_t spec_id, uint32_t value);

#endif
