/* tests/support/attention_case.h - segments of a pass for the attention tests. */
#ifndef TEST_ATTENTION_CASE_H
#define TEST_ATTENTION_CASE_H

#include <stdbool.h>
#include <stdint.h>

/* How T tokens are packed. */
enum packing {
    PACK_ONE,    /* one sequence */
    PACK_SHORT,  /* sequences of 1, 2, 3, ... 11 tokens, then again */
    PACK_TWO,    /* two halves */
    PACK_SHARED, /* a prompt of T / 3, then answers of 1 .. 9 tokens that each see the prompt and themselves; then, from
                  * 4/5 T on, one more sequence that sees nothing else */
};

/* seg [T, 4] as mosld/ops/attention.h says; `last` is found by asking every pair. The caller frees it. */
uint32_t *attention_segments(enum packing packing, uint32_t T);

bool attention_sees(const uint32_t *seg, uint32_t t, uint32_t j);

#endif
