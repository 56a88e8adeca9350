/* mosld/tune/cases.h - for every op and class of parameters a small problem to check variants by, and one of a model's size to time them.
 *
 * A newcomer's op gets a row in cases.c: what its bindings hold. Data is drawn from the case's seed, so that every variant and the
 * double reference see the same. */
#ifndef MOSLD_TUNE_CASES_H
#define MOSLD_TUNE_CASES_H

#include "mosld/ops/op.h"
#include "mosld/ops/weight.h"

enum tune_compare {
    TUNE_COMPARE,  /* every element: floats by value, words by bits */
    TUNE_IGNORE,   /* scratch, or words that are no numbers */
    TUNE_STEP,     /* a step block: the gradient's norm and what it is clipped by */
};

struct tune_binding {
    uint64_t n;            /* elements; of an OP_WEIGHT rows * cols */
    float lo, hi;          /* OP_F32: uniform in [lo, hi); both 0: [-1, 1) */
    uint32_t *words;       /* OP_U32: content, owned; NULL: zeros */
    enum op_wtype wtype;   /* OP_WEIGHT */
    uint32_t rows, cols;
    enum tune_compare compare; /* of what the op writes */
};

struct tune_case {
    const struct op *op;
    char label[64];
    union {
        unsigned char bytes[128];
        uint32_t words[32];
    } push;
    struct tune_binding b[OP_MAX_BINDINGS];
};

/* Case `which` (from 0) of the class, small or large. False behind the last, where the op has no case, or there is no memory. */
bool tune_case_make(const struct op *op, uint32_t class_, uint32_t which, bool large, struct tune_case *out);
void tune_case_finish(struct tune_case *c);

/* The content of a binding, both malloc'ed: bytes as the device has them, and the doubles or words that the reference reads. False: no
 * memory. Binding i of the case draws from its own stream of `seed`. */
struct tune_content {
    void *device, *ref;
    uint64_t bytes; /* on the device */
};
bool tune_content_make(const struct tune_case *c, uint32_t i, bool with_ref, struct tune_content *out);
void tune_content_finish(struct tune_content *content);

#endif
