/* tools/kernels_mix.h - what a kernel's hottest loop consists of, counted in the driver's assembly.
 *
 * The hottest loop is taken to be the one with the most multiply-adds of its own (or vector instructions, where there are none), each
 * level of nesting counted eightfold; loops inside of it are left out. Where it branches, the way is counted that has the
 * most multiply-adds, then the one that moves the most, then the shorter one: so a path for the edges of a matrix is not counted. */
#ifndef MOSLD_KERNELS_MIX_H
#define MOSLD_KERNELS_MIX_H

#include <stdbool.h>

struct kernels_mix {
    unsigned vector;       /* instructions of the vector arithmetic, multiply_add among them */
    unsigned multiply_add; /* floating-point multiply-adds, dot products, matrix instructions */
    unsigned matrix;       /* of these: matrix instructions */
    unsigned shared, global, scalar; /* accesses to shared memory and to other memory; scalar instructions */
    unsigned shared_words, global_words; /* that these move, a lane */
    bool loop;             /* false: the kernel has none, and all of it was counted */
    /* Of what the vector units could do if they did multiply-adds alone, what is left when the loop's instructions are issued one
     * after the other, and shared memory and cache move their words as fast as AMD says they do. An estimate: it knows neither
     * stalls nor the caches' misses. 0: no multiply-adds. */
    double share_of_peak;
};

/* Reads assembly as RADV prints it (GCN, RDNA). False where the text is of another kind. */
bool kernels_mix_read(const char *assembly, struct kernels_mix *out);

#endif
