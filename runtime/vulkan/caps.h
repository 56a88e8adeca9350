/* runtime/vulkan/caps.h - MOSLD_CAPS: making the engine believe that a device can do less than it can.
 *
 *     MOSLD_CAPS=minimal                                    the floor: only what Vulkan 1.2 guarantees
 *     MOSLD_CAPS=-fp16,-subgroup,shared=16384,range=134217728
 *
 *     MOSLD_CAPS=subgroup=16                                every pipeline is built for subgroups of 16
 *
 * -WORD takes a capability away, NAME=VALUE lowers a limit (a larger value than the device's changes nothing). subgroup=N is no limit but forces
 * one of the sizes that the device offers (rt_limits.subgroup_sizes); a device that does not offer it is left out, by name. Pure C. */
#ifndef RT_VULKAN_CAPS_H
#define RT_VULKAN_CAPS_H

#include "runtime/rt.h"

struct caps_clamp {
    uint32_t keep; /* mask over enum rt_cap */
    bool int16;    /* shaderInt16 may be used */
    bool joined;   /* a processor's driver takes one timestamp between two kernels, else two as a GPU does */
    bool mapped;   /* device memory that the host sees may be written directly, else always through staging */
    uint32_t subgroup; /* the size that is forced; 0: the driver's choice */
    bool unified;  /* memory that device and host share may be taken for that; else it is as if it were a GPU's with resizable BAR */
    struct rt_limits limits; /* upper bounds; offset_align is a lower bound */
};

/* Reads `text` (NULL or empty: no clamp). RT_USAGE names the unknown word, or the value that is none. */
enum rt_status caps_parse(const char *text, struct caps_clamp *out, struct rt_error *err);

void caps_apply(const struct caps_clamp *clamp, struct rt_device_info *info);

#endif
