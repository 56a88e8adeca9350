/* mosld/ops/adamw.c - one step of AdamW over one flat vector, as torch.optim.AdamW does it.
 *
 *     g = clip grad;   m = b1 m + (1 - b1) g;   v = b2 v + (1 - b2) g^2
 *     w = w - lr decay w - lr (m / bias1) / (sqrt(v / bias2) + eps)
 *
 * param, grad: [n]; mv: [2, n], m and then v; lr, bias1 = 1 - b1^t, bias2, clip and skip stand in the step block
 * (shaders/step.h). With skip nothing changes. */
#include "mosld/ops/host_math.h"
#include "mosld/ops/op.h"
#include "mosld/ops/optim.h"
#include "shaders/optim.h"
#include "shaders/step.h"

#include <math.h>

enum { PARAM, GRAD, MV, STEP };

#define ELEMENTS_AN_ITEM 16384 /* that a thread takes at a time */

static void adamw_ref(void *const *bindings, const void *push)
{
    const struct optim_push *p = push;
    double *w = bindings[PARAM], *m = bindings[MV], *v = m + p->n;
    const double *grad = bindings[GRAD];
    const uint32_t *step = bindings[STEP];
    double lr = host_float(step[STEP_LR]), clip = host_float(step[STEP_CLIP]);
    double bias1 = host_float(step[STEP_BIAS1]), bias2 = host_float(step[STEP_BIAS2]);
    for (uint32_t i = 0; !step[STEP_SKIP] && i < p->n; i++) {
        double g = clip * grad[i];
        m[i] = p->beta1 * m[i] + p->rest1 * g;
        v[i] = p->beta2 * v[i] + p->rest2 * g * g;
        w[i] -= lr * p->weight_decay * w[i];
        w[i] -= lr * (m[i] / bias1) / (sqrt(v[i] / bias2) + p->eps);
    }
}

struct adamw_job {
    const struct optim_push *p;
    float *param, *m, *v;
    const float *grad;
    float lr, decay, clip, bias1, bias2;
};

MOSLD_CLONES static void adamw_elements(const struct adamw_job *job, size_t begin, size_t end)
{
    float *restrict w = job->param, *restrict m = job->m, *restrict v = job->v;
    const float *restrict grad = job->grad;
    const struct adamw_job j = *job; /* in registers: what is stored below cannot change it */
    const struct optim_push p = *job->p;
    for (size_t i = begin; i < end; i++) {
        float g = j.clip * grad[i];
        m[i] = p.beta1 * m[i] + p.rest1 * g;
        v[i] = p.beta2 * v[i] + p.rest2 * (g * g);
        float kept = w[i] - j.decay * w[i];
        w[i] = kept - j.lr * (m[i] / j.bias1) / (__builtin_sqrtf(v[i] / j.bias2) + p.eps);
    }
}

static void adamw_item(void *arg, int item, int worker)
{
    const struct adamw_job *job = arg;
    size_t begin = (size_t)item * ELEMENTS_AN_ITEM, end = begin + ELEMENTS_AN_ITEM;
    adamw_elements(job, begin, end < job->p->n ? end : job->p->n);
    (void)worker;
}

static void adamw_host(struct rt_device *dev, void *const *bindings, const void *push)
{
    const struct optim_push *p = push;
    const uint32_t *step = bindings[STEP];
    struct adamw_job job = {.p = p,
                            .param = bindings[PARAM],
                            .m = bindings[MV],
                            .v = (float *)bindings[MV] + p->n,
                            .grad = bindings[GRAD],
                            .lr = host_float(step[STEP_LR]),
                            .clip = host_float(step[STEP_CLIP]),
                            .bias1 = host_float(step[STEP_BIAS1]),
                            .bias2 = host_float(step[STEP_BIAS2])};
    if (step[STEP_SKIP])
        return;
    job.decay = job.lr * p->weight_decay;
    rt_parallel(dev, (int)(((uint64_t)p->n + ELEMENTS_AN_ITEM - 1) / ELEMENTS_AN_ITEM), adamw_item, &job);
}

static void grid(const void *push, uint32_t groups[3])
{
    groups[0] = op_groups(((const struct optim_push *)push)->n, 128);
}

static const struct op_kernel kernel = {
    .kernel = {"adamw",
               sizeof(struct optim_push),
               4,
               {{"param", RT_READ_WRITE_BY_GROUPS}, {"grad", RT_READ}, {"mv", RT_READ_WRITE_BY_GROUPS}, {"step", RT_READ}}},
    .map = {PARAM, GRAD, MV, STEP},
    .grid = grid,
};

static const struct op_variant variants[] = {
    {.name = "host", .kind = RT_HOST, .host = adamw_host},
    {.name = "vulkan", .kind = RT_VULKAN, .kernels = {&kernel}},
};

static double adamw_bytes(const void *push)
{
    const struct optim_push *p = push;
    return 28.0 * p->n; /* parameter and both moments read and written, the gradient read */
}

const struct op op_adamw_desc = {
    .name = "adamw",
    .n_bindings = 4,
    .bindings = {{"param", RT_READ_WRITE, OP_F32},
                 {"grad", RT_READ, OP_F32},
                 {"mv", RT_READ_WRITE, OP_F32},
                 {"step", RT_READ, OP_U32}},
    .push_size = sizeof(struct optim_push),
    .ref = adamw_ref,
    .bytes = adamw_bytes,
    .n_variants = OP_COUNT(variants),
    .variants = variants,
};

enum rt_status op_adamw(struct rt_device *dev, const struct op_adamw *a, struct rt_error *err)
{
    struct optim_push push = {.n = a->n,
                              .beta1 = (float)a->beta1,
                              .rest1 = (float)(1 - a->beta1),
                              .beta2 = (float)a->beta2,
                              .rest2 = (float)(1 - a->beta2),
                              .eps = a->eps,
                              .weight_decay = a->weight_decay};
    return op_launch(dev, &op_adamw_desc, (struct rt_span[]){a->param, a->grad, a->mv, a->step}, &push, err);
}
