/* mosld/ops/dropout_stacks.c - dropout of the A of all modules in one launch: equation 2 of the paper once a micro-step.
 *
 *     forward   stacks   = [A mask / (1 - p) ; Wg]       for each module, from the flat vector of values
 *     back      gradient += [d mask / (1 - p) ; dWg]     with the same masks; d stands in the vector of stacks
 *
 * Each module's mask is that of op_dropout_weights (dropout.c). Where its [A ; Wg] lies in the two vectors, a table in device memory says
 * (shaders/dropout_stacks.h). Modules are not many elements each, so that on a GPU a launch a module costs more than what it does. */
#include "mosld/ops/dropout_parts.h"
#include "mosld/ops/mixture.h"
#include "mosld/ops/op.h"
#include "shaders/dropout.h"
#include "shaders/dropout_stacks.h"

enum { X, Y, TABLE, STEP };

static struct dropout_push push_of(const struct dropout_stacks_push *p, const uint32_t *entry)
{
    return (struct dropout_push){.n = entry[DROPOUT_N],
                                 .dropped = entry[DROPOUT_DROPPED],
                                 .x_offset = entry[p->back ? DROPOUT_STACKED : DROPOUT_FLAT],
                                 .y_offset = entry[p->back ? DROPOUT_FLAT : DROPOUT_STACKED],
                                 .module = entry[DROPOUT_MODULE],
                                 .layer = entry[DROPOUT_LAYER],
                                 .site = DROPOUT_SITE_WEIGHTS,
                                 .accumulate = p->back};
}

static void dropout_stacks_ref(void *const *b, const void *push)
{
    const struct dropout_stacks_push *p = push;
    for (uint32_t m = 0; m < p->modules; m++) {
        struct dropout_push one = push_of(p, (const uint32_t *)b[TABLE] + m * DROPOUT_ENTRY);
        dropout_ref((void *[]){b[X], b[Y], b[X], b[STEP]}, &one);
    }
}

static void dropout_stacks_host(struct rt_device *dev, void *const *b, const void *push)
{
    const struct dropout_stacks_push *p = push;
    for (uint32_t m = 0; m < p->modules; m++) {
        struct dropout_push one = push_of(p, (const uint32_t *)b[TABLE] + m * DROPOUT_ENTRY);
        dropout_host(dev, (void *[]){b[X], b[Y], b[X], b[STEP]}, &one);
    }
}

static void grid(const void *push, uint32_t groups[3])
{
    const struct dropout_stacks_push *p = push;
    groups[0] = op_groups(((uint64_t)p->longest + 3) / 4, 128);
    groups[1] = op_groups(p->modules, 1);
}

static const struct op_kernel kernel = {
    .kernel = {"dropout_stacks", sizeof(struct dropout_stacks_push), 4,
               {{"x", RT_READ}, {"y", RT_READ_WRITE_BY_GROUPS}, {"step", RT_READ}, {"table", RT_READ}}},
    .map = {X, Y, STEP, TABLE},
    .grid = grid,
};

static const struct op_variant variants[] = {
    {.name = "host", .kind = RT_HOST, .host = dropout_stacks_host},
    {.name = "vulkan", .kind = RT_VULKAN, .kernels = {&kernel}},
};

/* No more than this: modules may be shorter than the longest. */
static double dropout_stacks_bytes(const void *push)
{
    const struct dropout_stacks_push *p = push;
    return 4.0 * p->longest * p->modules * (2 + (p->back != 0));
}

const struct op op_dropout_stacks_desc = {
    .name = "dropout_stacks",
    .n_bindings = 4,
    .bindings = {{"x", RT_READ, OP_F32}, {"y", RT_READ_WRITE, OP_F32}, {"table", RT_READ, OP_U32}, {"step", RT_READ, OP_U32}},
    .push_size = sizeof(struct dropout_stacks_push),
    .ref = dropout_stacks_ref,
    .bytes = dropout_stacks_bytes,
    .n_variants = OP_COUNT(variants),
    .variants = variants,
};

enum rt_status op_dropout_stacks(struct rt_device *dev, const struct op_dropout_stacks *d, struct rt_error *err)
{
    struct dropout_stacks_push push = {.modules = d->modules, .longest = d->longest, .back = d->back};
    struct rt_span from = d->back ? d->stacks : d->flat, to = d->back ? d->flat : d->stacks;
    return op_launch(dev, &op_dropout_stacks_desc, (struct rt_span[]){from, to, d->table, d->step}, &push, err);
}
