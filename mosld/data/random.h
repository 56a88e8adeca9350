/* mosld/data/random.h - the generator that orders the data: splitmix64, seeded by a key, so that any place of a run can
 * be made again without what came before it. Nothing secret: it only has to be the same on every machine. */
#ifndef MOSLD_DATA_RANDOM_H
#define MOSLD_DATA_RANDOM_H

#include <stddef.h>
#include <stdint.h>

struct data_random {
    uint64_t state;
};

/* Streams with different keys have nothing to do with each other. */
struct data_random data_random_from(uint64_t seed, uint64_t stream, uint64_t index);

uint64_t data_random_next(struct data_random *r);

/* A number below `n` (not 0), each equally likely. */
uint64_t data_random_below(struct data_random *r, uint64_t n);

/* A random order of 0 .. n - 1 (Fisher and Yates). */
void data_random_permutation(struct data_random *r, uint32_t *out, uint32_t n);

#endif
