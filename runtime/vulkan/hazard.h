/* runtime/vulkan/hazard.h - which commands need a barrier before them, from the byte ranges that they declare.
 *
 * Pure C: no Vulkan in here, so that it is tested without a device. The tracker holds what was read and written since the
 * last barrier. A command whose ranges meet a write (RAW, WAW) or write what was read (WAR) needs one barrier, which orders
 * everything before against everything after, so that the tracker starts empty again. It stays valid from one command
 * buffer or submission to the next, since a barrier reaches over all earlier work of the queue. */
#ifndef RT_VULKAN_HAZARD_H
#define RT_VULKAN_HAZARD_H

#include <stdbool.h>
#include <stdint.h>

enum hazard_stage { HAZARD_COMPUTE = 1, HAZARD_TRANSFER = 2 };

struct hazard_access {
    const void *buffer;   /* its identity */
    uint64_t begin, end;  /* bytes [begin, end); empty ranges meet nothing */
    bool write;           /* else read; something that does both is given as a write */
};

/* So many ranges are told apart; one more asks for a barrier, which is always right and only costs time. */
#define HAZARD_MAX 1024

struct hazard { /* zeroed: nothing has been touched yet */
    struct hazard_access entries[HAZARD_MAX];
    unsigned n;
    unsigned stages;       /* of all entries */
    unsigned write_stages; /* of those that write */
    bool disabled;         /* never asks for a barrier: how the tests plant a missing one */
};

struct hazard_barrier {
    unsigned src_stages;       /* enum hazard_stage: what has to be waited for */
    unsigned src_write_stages; /* ... and of these, whose writes have to become visible; 0 after reads alone */
};

/* Enters a command that makes `n` (at most 64) accesses in `stage`. True: a barrier, described in *out, must come before the
 * command; the tracker takes it as done. Accesses of one command do not conflict with each other. */
bool hazard_command(struct hazard *h, enum hazard_stage stage, const struct hazard_access *accesses, unsigned n,
                    struct hazard_barrier *out);

/* The buffer is gone (and the device idle): its address may return as another one. */
void hazard_forget(struct hazard *h, const void *buffer);

#endif
