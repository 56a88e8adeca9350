/* runtime/vulkan/heaps.h - which memory a buffer comes from: decided from what a driver lists and from nothing else, so that the layouts of
 * devices that are not at hand are tested as tables (tests/test_heaps.c). Sizes are bytes.
 *
 * Device memory is taken from the largest device-local heap, whatever stands first: drivers list windows of 16 to 256 MiB as heaps of
 * their own. Where the host sees all of it (memory that both share; a GPU with resizable BAR) the type that is visible is taken, and what is
 * uploaded is written in place. */
#ifndef RT_VULKAN_HEAPS_H
#define RT_VULKAN_HEAPS_H

#include "runtime/rt.h"

#include <stdbool.h>
#include <vulkan/vulkan_core.h>

enum heap_use {
    HEAP_DEVICE, /* arenas: kernels read and write it */
    HEAP_STAGING /* mapped; the host writes it and reads it */
};

struct heap_view {
    const VkPhysicalDeviceMemoryProperties *memory;
    VkDeviceSize left[VK_MAX_MEMORY_HEAPS]; /* that the driver would still give this program; 0: it does not say */
    bool unified;                           /* heap_unified */
    bool map;                               /* device memory may be written in place (MOSLD_CAPS=-mapped: not) */
    uint64_t host_memory;                   /* of the machine; UINT64_MAX: not known */
};

/* Whether device and host share one memory: an integrated or CPU device with memory that both see. */
bool heap_unified(enum rt_class class_, const VkPhysicalDeviceMemoryProperties *memory);

/* The types of `allowed` (a mask) that serve `size` bytes, best first, into `out`; returns how many. One that has no room left by the
 * driver's own account comes behind all that have, for the account may be wrong; one whose whole heap is smaller is left out. */
unsigned heap_rank(const struct heap_view *view, uint32_t allowed, enum heap_use use, uint64_t size, uint32_t out[VK_MAX_MEMORY_TYPES]);

/* Whether buffers of HEAP_DEVICE in this type are mapped and written in place. */
bool heap_maps(const struct heap_view *view, uint32_t type);

/* What a run may plan with: what is left of the heap that device memory comes from first; of all heaps that serve where memory is unified
 * (drivers cut one memory into several), and no more than the machine has. */
uint64_t heap_available(const struct heap_view *view);

#endif
