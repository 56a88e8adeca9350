/* mosld/ops/grad_norm.c - the norm of all gradients, and what the optimizer is to do with it.
 *
 *     norm = sqrt(sum_i grad_i^2);   clip = min(1, max_norm / (norm + 1e-6)), 1 when max_norm is 0
 *     skip = the norm is not finite
 *
 * grad: [n]; partial: a sum a chunk of `chunk` elements, at most OP_NORM_PARTIALS; step: see shaders/step.h. The chunks
 * depend on n alone, so the bits do not depend on the number of threads. A gradient whose square is beyond f32 (1.8e19)
 * counts as not finite. Then GRAD_NORM is NaN and CLIP is 0. n = 0 is a norm of 0. */
#include "mosld/ops/host_math.h"
#include "mosld/ops/op.h"
#include "mosld/ops/optim.h"
#include "shaders/optim.h"
#include "shaders/step.h"

#include <math.h>

enum { GRAD, PARTIAL, STEP };

#define CHUNK_MIN 4096u
#define QUIET_NAN 0x7fc00000u

static bool finite_bits(float value) { return (host_bits(value) & 0x7f800000u) != 0x7f800000u; }

/* Writes what follows from the sum of squares. */
static void write_step(uint32_t *step, double sum)
{
    bool good = finite_bits((float)sum);
    double norm = sqrt(sum), max_norm = host_float(step[STEP_MAX_NORM]);
    double clip = max_norm > 0 ? fmin(1, max_norm / (norm + 1e-6)) : 1;
    step[STEP_GRAD_NORM] = good ? host_bits((float)norm) : QUIET_NAN;
    step[STEP_CLIP] = good ? host_bits((float)clip) : 0;
    step[STEP_SKIP] = !good;
}

static void grad_norm_ref(void *const *bindings, const void *push)
{
    const struct optim_push *p = push;
    const double *grad = bindings[GRAD];
    double sum = 0;
    for (uint32_t i = 0; i < p->n; i++)
        sum += grad[i] * grad[i];
    write_step(bindings[STEP], sum);
}

/* ---- host ---- */

#define LANES 16 /* partial sums: fixed, so that every version adds in the same order */

struct norm_job {
    const struct optim_push *p;
    const float *grad;
    float *partial;
};

MOSLD_CLONES static float sum_of_squares(const float *g, size_t n)
{
    float s[LANES] = {0}, sum = 0;
    size_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (uint32_t j = 0; j < LANES; j++)
            s[j] += g[i + j] * g[i + j];
    for (; i < n; i++)
        sum += g[i] * g[i];
    for (uint32_t j = 0; j < LANES; j++)
        sum += s[j];
    return sum;
}

static void norm_item(void *arg, int item, int worker)
{
    const struct norm_job *job = arg;
    size_t begin = (size_t)item * job->p->chunk, end = begin + job->p->chunk;
    job->partial[item] = sum_of_squares(job->grad + begin, (end < job->p->n ? end : job->p->n) - begin);
    (void)worker;
}

static uint32_t chunks_of(const struct optim_push *p) { return (uint32_t)(((uint64_t)p->n + p->chunk - 1) / p->chunk); }

static void grad_norm_host(struct rt_device *dev, void *const *bindings, const void *push)
{
    struct norm_job job = {push, bindings[GRAD], bindings[PARTIAL]};
    uint32_t chunks = chunks_of(job.p);
    double sum = 0;
    rt_parallel(dev, (int)chunks, norm_item, &job);
    for (uint32_t i = 0; i < chunks; i++)
        sum += job.partial[i];
    write_step(bindings[STEP], sum);
}

/* ---- Vulkan ---- */

static void group_a_chunk(const void *push, uint32_t groups[3]) { groups[0] = chunks_of(push); }

static void one_group(const void *push, uint32_t groups[3])
{
    groups[0] = 1;
    (void)push;
}

static const struct op_kernel partials = {
    .kernel = {"grad_norm_partial", sizeof(struct optim_push), 2, {{"grad", RT_READ}, {"partial", RT_WRITE_BY_GROUPS}}},
    .map = {GRAD, PARTIAL},
    .grid = group_a_chunk,
};

static const struct op_kernel finish = {
    .kernel = {"grad_norm", sizeof(struct optim_push), 2, {{"partial", RT_READ}, {"step", RT_READ_WRITE}}},
    .map = {PARTIAL, STEP},
    .grid = one_group,
};

static const struct op_variant variants[] = {
    {.name = "host", .kind = RT_HOST, .host = grad_norm_host},
    {.name = "vulkan", .kind = RT_VULKAN, .kernels = {&partials, &finish}},
};

static double grad_norm_bytes(const void *push)
{
    const struct optim_push *p = push;
    return 4.0 * p->n;
}

const struct op op_grad_norm_desc = {
    .name = "grad_norm",
    .n_bindings = 3,
    .bindings = {{"grad", RT_READ, OP_F32}, {"partial", RT_WRITE, OP_F32}, {"step", RT_READ_WRITE, OP_U32}},
    .push_size = sizeof(struct optim_push),
    .ref = grad_norm_ref,
    .bytes = grad_norm_bytes,
    .n_variants = OP_COUNT(variants),
    .variants = variants,
};

uint32_t op_grad_norm_chunk(uint32_t n)
{
    uint32_t chunk = (uint32_t)(((uint64_t)n + OP_NORM_PARTIALS - 1) / OP_NORM_PARTIALS);
    return chunk > CHUNK_MIN ? chunk : CHUNK_MIN;
}

enum rt_status op_grad_norm(struct rt_device *dev, struct rt_span grad, struct rt_span partial, struct rt_span step,
                            uint32_t n, struct rt_error *err)
{
    struct optim_push push = {.n = n, .chunk = op_grad_norm_chunk(n)};
    return op_launch(dev, &op_grad_norm_desc, (struct rt_span[]){grad, partial, step}, &push, err);
}
