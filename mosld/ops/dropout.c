/* mosld/ops/dropout.c - dropout with a mask that can be drawn again: on the weights of A (equation 2 of the paper), or
 * on an input.
 *
 *     y_i (+)= x_i mask_i / (1 - p)   for i < dropped;      y_i (+)= x_i   for dropped <= i < n
 *
 * mask_i is 1 where word i % 4 of the Philox block of counter (i / 4, module, layer, site) is below (1 - p) 2^32, else
 * 0, or is given. The op is linear in x with a diagonal matrix, so backward is the same op on the gradient. p and the
 * key stand in the step block; p = 0 draws nothing. A given mask is a f32 factor, divided by 1 - p as a drawn one. */
#include "mosld/ops/dropout_parts.h"
#include "mosld/ops/mixture.h"
#include "mosld/ops/op.h"
#include "mosld/ops/philox.h"
#include "shaders/dropout.h"
#include "shaders/step.h"

enum { X, Y, MASK, STEP };

#define BLOCK (4 * PHILOX_LANES)      /* elements whose words are drawn together */
#define ELEMENTS_AN_ITEM (32 * BLOCK) /* that a thread takes at a time */

static void key_of(const uint32_t *step, uint32_t key[2])
{
    key[0] = step[STEP_SEED_LO] ^ step[STEP_MICRO];
    key[1] = step[STEP_SEED_HI];
}

static double ref_mask(const struct dropout_push *p, const uint32_t *step, double drop, uint32_t i)
{
    uint32_t key[2], words[4], counter[4] = {i / 4, p->module, p->layer, p->site};
    key_of(step, key);
    mosld_philox(counter, key, words);
    return words[i % 4] < (uint32_t)((1 - drop) * 4294967296.0);
}

void dropout_ref(void *const *bindings, const void *push)
{
    const struct dropout_push *p = push;
    const double *x = (const double *)bindings[X] + p->x_offset,
                 *mask = (const double *)bindings[MASK] + p->mask_offset;
    double *y = (double *)bindings[Y] + p->y_offset;
    const uint32_t *step = bindings[STEP];
    double drop = host_float(step[STEP_DROPOUT]);
    for (uint32_t i = 0; i < p->n; i++) {
        double factor = 1;
        if (i < p->dropped && p->given)
            factor = mask[i] / (1 - drop);
        else if (i < p->dropped && drop > 0)
            factor = ref_mask(p, step, drop, i) / (1 - drop);
        y[i] = (p->accumulate ? y[i] : 0) + factor * x[i];
    }
}

struct dropout_job {
    const struct dropout_push *p;
    const float *x, *mask;
    float *y;
    float drop, scale;
    uint32_t key[2];
};

/* factor[i] of elements first .. first + BLOCK, first being a multiple of 4. */
HOST_INLINE void draw_factors(const struct dropout_job *job, uint32_t first, float factor[BLOCK])
{
    uint32_t words[4][PHILOX_LANES], threshold = philox_threshold(job->drop);
    float scale = job->scale;
    philox_lanes(first / 4, job->p->module, job->p->layer, job->p->site, job->key, words);
    for (uint32_t i = 0; i < PHILOX_LANES; i++) { /* written out, so that gcc interleaves registers */
        factor[4 * i] = words[0][i] < threshold ? scale : 0;
        factor[4 * i + 1] = words[1][i] < threshold ? scale : 0;
        factor[4 * i + 2] = words[2][i] < threshold ? scale : 0;
        factor[4 * i + 3] = words[3][i] < threshold ? scale : 0;
    }
}

HOST_INLINE void apply(const float *restrict x, const float *restrict factor, float *restrict y, uint32_t n,
                       bool accumulate)
{
    if (accumulate)
        for (uint32_t i = 0; i < n; i++)
            y[i] += x[i] * factor[i];
    else
        for (uint32_t i = 0; i < n; i++)
            y[i] = x[i] * factor[i];
}

MOSLD_CLONES static void dropout_elements(const struct dropout_job *job, uint32_t begin, uint32_t end)
{
    const struct dropout_push *p = job->p;
    float factor[BLOCK];
    for (uint32_t first = begin, n; first < end; first += n) {
        n = end - first < BLOCK ? end - first : BLOCK;
        if (first < p->dropped && p->dropped - first < n)
            n = p->dropped - first;
        if (first < p->dropped && !p->given && job->drop > 0)
            draw_factors(job, first, factor);
        else
            for (uint32_t i = 0; i < BLOCK; i++)
                factor[i] = first < p->dropped && p->given && i < n ? job->mask[first + i] * job->scale : 1;
        apply(job->x + first, factor, job->y + first, n, p->accumulate);
    }
}

static void dropout_item(void *arg, int item, int worker)
{
    const struct dropout_job *job = arg;
    uint64_t begin = (uint64_t)item * ELEMENTS_AN_ITEM, end = begin + ELEMENTS_AN_ITEM;
    dropout_elements(job, (uint32_t)begin, end < job->p->n ? (uint32_t)end : job->p->n);
    (void)worker;
}

void dropout_host(struct rt_device *dev, void *const *bindings, const void *push)
{
    const struct dropout_push *p = push;
    const uint32_t *step = bindings[STEP];
    struct dropout_job job = {.p = p,
                              .x = (const float *)bindings[X] + p->x_offset,
                              .y = (float *)bindings[Y] + p->y_offset,
                              .drop = host_float(step[STEP_DROPOUT]),
                              .scale = 1};
    if (p->given)
        job.mask = (const float *)bindings[MASK] + p->mask_offset;
    if (job.drop > 0)
        job.scale = 1 / (1 - job.drop);
    key_of(step, job.key);
    rt_parallel(dev, (int)(((uint64_t)p->n + ELEMENTS_AN_ITEM - 1) / ELEMENTS_AN_ITEM), dropout_item, &job);
}

static void grid(const void *push, uint32_t groups[3])
{
    const struct dropout_push *p = push;
    uint64_t blocks = ((uint64_t)p->dropped + 3) / 4, copies = p->n - p->dropped;
    groups[0] = op_groups(blocks > copies ? blocks : copies, 128);
}

static bool is_given(const void *push) { return ((const struct dropout_push *)push)->given != 0; }
static bool is_drawn(const void *push) { return !is_given(push); }

static const struct op_kernel drawn = {
    .kernel = {"dropout", sizeof(struct dropout_push), 3, {{"x", RT_READ}, {"y", RT_READ_WRITE_BY_GROUPS}, {"step", RT_READ}}},
    .map = {X, Y, STEP},
    .grid = grid,
};

static const struct op_kernel given = {
    .kernel = {"dropout.given", sizeof(struct dropout_push), 4,
               {{"x", RT_READ}, {"y", RT_READ_WRITE_BY_GROUPS}, {"step", RT_READ}, {"mask", RT_READ}}},
    .map = {X, Y, STEP, MASK},
    .grid = grid,
};

static const struct op_variant variants[] = {
    {.name = "host", .kind = RT_HOST, .host = dropout_host},
    {.name = "vulkan", .kind = RT_VULKAN, .applies = is_drawn, .kernels = {&drawn}},
    {.name = "vulkan.given", .kind = RT_VULKAN, .applies = is_given, .kernels = {&given}},
};

static double dropout_bytes(const void *push)
{
    const struct dropout_push *p = push;
    return 4.0 * p->n * (2 + (p->accumulate != 0) + (p->given != 0));
}

const struct op op_dropout_desc = {
    .name = "dropout",
    .n_bindings = 4,
    .bindings = {{"x", RT_READ, OP_F32},
                 {"y", RT_READ_WRITE, OP_F32},
                 {"mask", RT_READ, OP_F32},
                 {"step", RT_READ, OP_U32}},
    .push_size = sizeof(struct dropout_push),
    .ref = dropout_ref,
    .bytes = dropout_bytes,
    .n_variants = OP_COUNT(variants),
    .variants = variants,
};

static enum rt_status too_large(uint64_t rows, uint64_t cols, struct rt_error *err)
{
    return rt_fail(err, RT_NO_MEMORY, "dropout of %llu rows of %llu elements: more than 2^32 elements at once",
                   (unsigned long long)rows, (unsigned long long)cols);
}

enum rt_status op_dropout_weights(struct rt_device *dev, const struct op_dropout_weights *d, struct rt_error *err)
{
    uint64_t rows = (uint64_t)d->r + d->experts, n;
    if (__builtin_mul_overflow(rows, (uint64_t)d->cols, &n) || n > UINT32_MAX)
        return too_large(rows, d->cols, err);
    struct dropout_push push = {.n = (uint32_t)n,
                                .dropped = d->r * d->cols,
                                .x_offset = d->x_offset,
                                .y_offset = d->y_offset,
                                .mask_offset = d->given ? d->mask_offset : 0,
                                .module = d->module,
                                .layer = d->layer,
                                .site = DROPOUT_SITE_WEIGHTS,
                                .given = d->given,
                                .accumulate = d->accumulate};
    struct rt_span mask = d->given ? d->mask : d->step; /* unread then: any span will do, and a null one too */
    return op_launch(dev, &op_dropout_desc, (struct rt_span[]){d->x, d->y, mask, d->step}, &push, err);
}

enum rt_status op_dropout_input(struct rt_device *dev, const struct op_dropout_input *d, struct rt_error *err)
{
    uint64_t n = (uint64_t)d->rows * d->cols;
    if (n > UINT32_MAX)
        return too_large(d->rows, d->cols, err);
    struct dropout_push push = {.n = (uint32_t)n, .dropped = (uint32_t)n, .module = d->module, .layer = d->layer,
                                .site = DROPOUT_SITE_INPUT, .accumulate = d->accumulate};
    return op_launch(dev, &op_dropout_desc, (struct rt_span[]){d->x, d->y, d->step, d->step}, &push, err);
}
