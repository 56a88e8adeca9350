/* tests/support/attention_case.c - see attention_case.h. */
#include "tests/support/attention_case.h"

#include <stdlib.h>

bool attention_sees(const uint32_t *seg, uint32_t t, uint32_t j)
{
    const uint32_t *s = seg + 4 * (uint64_t)t;
    return (s[0] <= j && j <= t) || (s[1] <= j && j < s[2]);
}

static uint32_t next_length(enum packing packing, uint32_t T, uint32_t begin, uint32_t n)
{
    switch (packing) {
    case PACK_ONE:
        return T;
    case PACK_TWO:
        return (T + 1) / 2;
    case PACK_SHORT:
        return n % 11 + 1;
    default:
        return begin == 0 ? T / 3 : begin >= T / 5 * 4 ? T : n % 9 + 1;
    }
}

uint32_t *attention_segments(enum packing packing, uint32_t T)
{
    uint32_t *seg = calloc(4 * (uint64_t)T + 4, sizeof *seg);
    for (uint32_t begin = 0, n = 0; begin < T; n++) {
        uint32_t length = next_length(packing, T, begin, n), prompt = T / 3;
        length = length == 0 ? 1 : length;
        bool shares = packing == PACK_SHARED && begin >= prompt && prompt > 0 && begin > 0 && begin < T / 5 * 4;
        uint32_t t = begin;
        for (; t < T && t < begin + length; t++) {
            seg[4 * t] = begin;
            seg[4 * t + 1] = 0;
            seg[4 * t + 2] = shares ? prompt : 0;
        }
        begin = t;
    }
    for (uint32_t t = 0; t < T; t++)
        for (uint32_t j = 0; j <= t; j++)
            if (attention_sees(seg, t, j))
                seg[4 * j + 3] = t + 1;
    return seg;
}
