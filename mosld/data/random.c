/* mosld/data/random.c - see random.h. */
#include "mosld/data/random.h"

static uint64_t mix(uint64_t z)
{
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

struct data_random data_random_from(uint64_t seed, uint64_t stream, uint64_t index)
{
    return (struct data_random){
        mix(mix(mix(seed + 0x9e3779b97f4a7c15u) ^ (stream + 0x632be59bd9b4e019u)) ^ (index + 0xd1342543de82ef95u))};
}

uint64_t data_random_next(struct data_random *r)
{
    r->state += 0x9e3779b97f4a7c15u;
    return mix(r->state);
}

uint64_t data_random_below(struct data_random *r, uint64_t n)
{
    /* Numbers from the incomplete last round of n would come more often: they are drawn again. */
    uint64_t limit = UINT64_MAX - UINT64_MAX % n, x;
    do {
        x = data_random_next(r);
    } while (x >= limit);
    return x % n;
}

void data_random_permutation(struct data_random *r, uint32_t *out, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        uint32_t j = (uint32_t)data_random_below(r, (uint64_t)i + 1);
        out[i] = out[j];
        out[j] = i;
    }
}
