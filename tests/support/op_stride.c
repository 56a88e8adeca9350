/* tests/support/op_stride.c - see op_stride.h. */
#include "tests/support/op_stride.h"

#include <check.h>
#include <stdlib.h>

#define MAX_VARIANTS 16

/* Kernels made here. A device knows a kernel by its address, so none is freed or used again for another op. */
struct made {
    struct made *next;
    struct op_kernel kernels[MAX_VARIANTS][OP_MAX_KERNELS];
};
static struct made *all_made;

static uint32_t limit; /* a grid function gets the push block alone */

static void cut_grid(const void *push, uint32_t groups[3])
{
    groups[0] = limit;
    (void)push;
}

void op_test_run_strided(const struct op *op, const struct op_case *c)
{
    struct made *made = calloc(1, sizeof *made);
    struct op_variant variants[MAX_VARIANTS];
    struct op cut = *op;
    ck_assert(made && op->n_variants <= MAX_VARIANTS);
    made->next = all_made;
    all_made = made;
    for (uint32_t i = 0; i < op->n_variants; i++) {
        variants[i] = op->variants[i];
        for (int k = 0; k < OP_MAX_KERNELS && variants[i].kernels[k]; k++) {
            made->kernels[i][k] = *variants[i].kernels[k];
            made->kernels[i][k].grid = cut_grid;
            /* Without the promise of a group an item, which this grid breaks. */
            for (uint32_t b = 0; b < variants[i].kernels[k]->kernel.n_bindings; b++)
                made->kernels[i][k].kernel.bindings[b].access &= RT_READ_WRITE;
            variants[i].kernels[k] = &made->kernels[i][k];
        }
    }
    cut.variants = variants;
    for (limit = 1; limit <= 2; limit++)
        op_test_run(&cut, c);
}
