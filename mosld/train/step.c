/* mosld/train/step.c - see step.h. */
#include "mosld/train/step.h"

#include "mosld/ops/optim.h"
#include "runtime/trace.h"
#include "shaders/step.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum rt_status mosld_step_create(struct mosld_pass *pass, const struct mosld_train_config *config,
                                 struct mosld_step **out, struct rt_error *err)
{
    struct mosld_adapter *a = pass->adapter;
    struct mosld_step *s = *out = calloc(1, sizeof *s);
    if (!s)
        return rt_fail(err, RT_NO_MEMORY, "no memory for the optimizer");
    *s = (struct mosld_step){.pass = pass, .config = config};
    s->load = calloc(a->max_experts + 1, sizeof *s->load);
    s->stats = calloc((size_t)a->n_modules * 2 * a->max_experts + 1, sizeof *s->stats);
    if (!s->load || !s->stats)
        return rt_fail(err, RT_NO_MEMORY, "no memory for the optimizer");
    enum rt_status st = rt_arena_create(pass->model->dev, "optimizer scratch", &s->arena, err);
    if (!st)
        st = rt_arena_add(s->arena, OP_NORM_PARTIALS * 4, "gradient norm", &s->partial, err);
    return st ? st : rt_arena_commit(s->arena, err);
}

void mosld_step_destroy(struct mosld_step **step)
{
    if (!step || !*step)
        return;
    rt_arena_destroy(&(*step)->arena);
    free((*step)->load);
    free((*step)->stats);
    free(*step);
    *step = NULL;
}

/* The part of the step block that the program writes. */
static enum rt_status write_block(struct mosld_step *s, double learning_rate, struct rt_error *err)
{
    const struct mosld_train_config *c = s->config;
    double t = (double)(s->updates + 1);
    float f[STEP_DROPOUT + 1] = {0};
    uint32_t words[STEP_DROPOUT + 1];
    f[STEP_LR] = (float)learning_rate;
    f[STEP_BIAS1] = (float)(1 - pow(c->adam_beta1, t));
    f[STEP_BIAS2] = (float)(1 - pow(c->adam_beta2, t));
    f[STEP_MAX_NORM] = (float)c->max_grad_norm;
    f[STEP_DROPOUT] = (float)s->pass->adapter->params.dropout;
    memcpy(words, f, sizeof words);
    words[STEP_SEED_LO] = (uint32_t)c->seed;
    words[STEP_SEED_HI] = (uint32_t)(c->seed >> 32);
    words[STEP_MICRO] = (uint32_t)s->micro;
    return rt_upload(s->pass->model->dev, s->pass->step, 0, words, sizeof words, err);
}

enum rt_status mosld_step_begin(struct mosld_step *s, uint32_t micro_steps, struct rt_error *err)
{
    s->pass->micro_steps = micro_steps;
    s->aux = 0;
    s->n_load = 0;
    memset(s->load, 0, s->pass->adapter->max_experts * sizeof *s->load);
    return rt_fill(s->pass->model->dev, s->pass->adapter->gradient, 0, err);
}

/* Adds the routers' statistics of the micro-batch to the step's sums. */
static enum rt_status collect_statistics(struct mosld_step *s, struct rt_error *err)
{
    struct mosld_adapter *a = s->pass->adapter;
    if (!mosld_has_router(&a->params))
        return RT_OK;
    enum rt_status st =
        rt_download(a->dev, a->stats, 0, s->stats, (uint64_t)a->n_modules * 2 * a->max_experts * 4, err);
    if (st)
        return st;
    uint32_t routers = mosld_adapter_routers(a);
    for (uint32_t i = 0; i < a->n_modules; i++) {
        const struct mosld_adapter_module *m = &a->modules[i];
        const float *f = s->stats + (size_t)i * 2 * a->max_experts, *P = f + m->experts;
        double balance = 0;
        for (uint32_t e = 0; m->experts > 1 && e < m->experts; e++) {
            balance += (double)f[e] * P[e];
            s->load[e] += f[e];
        }
        s->n_load += m->experts > 1;
        if (mosld_module_balances(a, m))
            s->aux += a->params.router_aux_loss_coef * m->experts * balance / ((double)routers * s->pass->micro_steps);
    }
    return RT_OK;
}

enum rt_status mosld_step_micro(struct mosld_step *s, const struct mosld_tokens *batch, uint64_t targets,
                                uint32_t *losses, struct rt_error *err)
{
    struct rt_device *dev = s->pass->model->dev;
    enum rt_status st = write_block(s, 0, err);
    if (!st)
        st = mosld_forward(s->pass, batch, true, err);
    if (!st)
        st = mosld_loss(s->pass, (float)(1.0 / (double)targets), err);
    if (!st)
        st = mosld_backward(s->pass, err);
    if (!st)
        st = rt_download(dev, s->pass->loss, 0, losses, 8ull * batch->n_targets, err);
    if (!st)
        st = collect_statistics(s, err);
    s->micro++;
    return st;
}

static enum rt_status update(struct mosld_step *s, double learning_rate, struct rt_error *err)
{
    const struct mosld_train_config *c = s->config;
    struct mosld_adapter *a = s->pass->adapter;
    enum rt_status st = write_block(s, learning_rate, err);
    if (!st)
        st = rt_segment(a->dev, "optimizer", err);
    if (!st)
        st = op_grad_norm(a->dev, a->gradient, s->partial, s->pass->step, (uint32_t)a->words, err);
    if (!st)
        st = op_adamw(a->dev,
                      &(struct op_adamw){.param = a->values,
                                         .grad = a->gradient,
                                         .mv = a->moments,
                                         .step = s->pass->step,
                                         .n = (uint32_t)a->words,
                                         .beta1 = c->adam_beta1,
                                         .beta2 = c->adam_beta2,
                                         .eps = (float)c->adam_epsilon,
                                         .weight_decay = (float)c->weight_decay},
                      err);
    return st;
}

enum rt_status mosld_step_end(struct mosld_step *s, double learning_rate, float *grad_norm, bool *skipped,
                              struct rt_error *err)
{
    struct mosld_adapter *a = s->pass->adapter;
    uint32_t words[STEP_SKIP + 1];
    unsigned scope = rt_scope_begin(a->dev, "optimizer", -1);
    enum rt_status st = update(s, learning_rate, err);
    rt_scope_end(a->dev, scope);
    if (!st)
        st = rt_download(a->dev, s->pass->step, 0, words, sizeof words, err);
    if (st)
        return st;
    memcpy(grad_norm, &words[STEP_GRAD_NORM], 4);
    *skipped = words[STEP_SKIP] != 0;
    s->updates += !*skipped;
    return RT_OK;
}

double mosld_step_aux_loss(const struct mosld_step *s) { return s->aux; }
