/* tests/support/op_test.h - the same inputs through an op's double reference and every variant that a device can run.
 *
 * The harness makes random inputs for each binding, runs `ref` in double and each variant in its own type, and compares every binding
 * that the op writes. A case says how large each binding is and how it is filled; the op's own header says what it means. */
#ifndef OP_TEST_H
#define OP_TEST_H

#include "mosld/ops/op.h"
#include "mosld/ops/weight.h"

struct op_case_binding {
    uint64_t n;              /* elements: floats, words; for OP_WEIGHT rows * cols */
    float lo, hi;            /* OP_F32: uniform in [lo, hi); both 0: [-1, 1) */
    const uint32_t *words;   /* OP_U32: given content (n words); NULL: zeros */
    const float *values;     /* OP_F32: given content instead of random */
    enum op_wtype wtype;     /* OP_WEIGHT: packed from random blocks of this type; the reference sees the exact dequantised values */
    uint32_t rows, cols;     /* OP_WEIGHT */
    bool ignore;             /* written, but not to be compared (scratch) */
};

struct op_case {
    const char *label;       /* printed on failure */
    const void *push;
    struct op_case_binding b[OP_MAX_BINDINGS];
    double atol, rtol;       /* |got - want| <= atol + rtol * |want|, elementwise. The test states why. */
    double spread; /* what a variant's rounding of its inputs (op_variant.rounding) makes of an output, at most */
    uint64_t seed;
};

/* The devices that tests run on: the host, and every Vulkan device that the environment MOSLD_TEST_DEVICE names (default: the first
 * Vulkan device; "none" for none), opened once under the validation layer. The Vulkan one is NULL where there is none: the program
 * then counts as skipped (skip.h). */
struct rt_device *test_host(void);
struct rt_device *test_vulkan(void);

/* Runs the case on the host and on Vulkan and fails the running Check test with op, variant, binding, index, wanted and got. Also fails
 * when no host variant exists, when the device's first choice is none, or when the validation layer said anything. The environment MOSLD_TEST_VARIANT=PREFIX leaves out
 * variants of other names. With MOSLD_TEST_VARIANTS=chosen and a Vulkan device, two variants run there and none on the host: the one that the device takes, and the
 * last of the table that it can run, which is the plainest. That is what a clamp of MOSLD_CAPS can change. Words (OP_U32) must be equal. */
void op_test_run(const struct op *op, const struct op_case *c);

/* Pieces of it, for tests of their own making. */
uint64_t test_random(uint64_t *state);                       /* splitmix64 */
float test_uniform(uint64_t *state, float lo, float hi);
/* Random blocks as a file has them, for op_weight_pack: values of about one at most. To be freed. And the bytes of `n` values of them. */
void *test_weight(enum op_wtype type, uint32_t rows, uint32_t cols, uint64_t seed);
uint64_t test_weight_bytes(enum op_wtype type, uint64_t n);
struct rt_span test_span(struct rt_device *dev, uint64_t bytes, const void *data); /* lives until test_release */
void test_release(struct rt_device *dev);                    /* frees all test_spans of the device */
void test_check_validation(struct rt_device *dev);           /* fails when the layer has said anything */

#endif
