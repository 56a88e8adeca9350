/* mosld/bench/ops.c - see ops.h. Each op is a small function that launches it as forward.c, linear.c and backward.c do.
 */
#include "mosld/bench/ops.h"

#include "mosld/bench/steps.h"
#include "mosld/ops/attention.h"
#include "mosld/ops/loss.h"
#include "mosld/ops/matmul.h"
#include "mosld/ops/mixture.h"
#include "mosld/ops/norm.h"
#include "mosld/ops/optim.h"
#include "mosld/ops/rope.h"
#include "mosld/ops/rows.h"
#include "mosld/ops/swiglu.h"
#include "mosld/train/step.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct bench_ops {
    const struct mosld_bench *bench;
    const struct mosld_peaks *peaks;
    struct mosld_model *model;
    struct mosld_adapter *adapter;
    struct mosld_pass *pass;
    struct mosld_step *step;
    struct mosld_train_config config;
    struct mosld_tokens tokens;
    double pairs;   /* of a query and a key that it sees, in the batch */
    uint32_t layer; /* whose turn it is */
    int linear;     /* of the products below */
    struct mosld_bench_op *list;
    uint32_t n, room;
    enum rt_status status;
    struct rt_error *err;
};

static struct mosld_layer *next_layer(struct bench_ops *b)
{
    b->layer = (b->layer + 1) % b->model->config.num_layers;
    return &b->model->layers[b->layer];
}

static const struct op_weight *next_weight(struct bench_ops *b)
{
    return b->linear == MOSLD_LINEARS ? &b->model->head : &next_layer(b)->linear[b->linear];
}

/* Buffers of the pass that a product of this module reads and writes in training. */
static struct rt_span side_in(const struct bench_ops *b)
{
    const struct mosld_layer_state *s = &b->pass->layers[b->layer];
    return b->linear == MOSLD_LINEARS ? b->pass->picked_norm
           : b->linear == MOSLD_O     ? s->o
           : b->linear == MOSLD_DOWN  ? b->pass->act
                                      : b->pass->norm_out;
}

static struct rt_span side_in_gradient(const struct bench_ops *b)
{
    const struct mosld_pass *p = b->pass;
    return b->linear == MOSLD_LINEARS ? p->dpicked
           : b->linear == MOSLD_O     ? p->d_o
           : b->linear == MOSLD_DOWN  ? p->dact
                                      : p->dnorm;
}

/* The output side is a gradient's buffer, so that the pass's own values stay what they are. */
static struct rt_span side_out(const struct bench_ops *b, uint32_t *stride, uint32_t *col)
{
    const struct mosld_config *c = &b->model->config;
    uint32_t q = c->num_heads * c->head_dim, kv = c->num_kv_heads * c->head_dim, F = c->intermediate_size;
    *col = 0;
    switch (b->linear) {
    case MOSLD_Q:
    case MOSLD_K:
    case MOSLD_V:
        *stride = q + 2 * kv;
        *col = b->linear == MOSLD_Q ? 0 : b->linear == MOSLD_K ? q : q + kv;
        return b->pass->dqkv;
    case MOSLD_GATE:
    case MOSLD_UP:
        *stride = 2 * F;
        *col = b->linear == MOSLD_UP ? F : 0;
        return b->pass->dgu;
    case MOSLD_LINEARS: *stride = c->vocab_size; return b->pass->logits;
    default: *stride = c->hidden_size; return b->pass->dh;
    }
}

static uint32_t rows_of(const struct bench_ops *b)
{
    return b->linear == MOSLD_LINEARS ? mosld_pass_slice(b->pass) : b->pass->T;
}

/* ---- products with the frozen weights ---- */

static enum rt_status launch_nt(void *arg, struct rt_error *err)
{
    struct bench_ops *b = arg;
    const struct op_weight *w = next_weight(b);
    struct op_matmul m = {.x = side_in(b), .x_stride = w->cols, .w = w, .rows = rows_of(b), .parts = b->pass->parts};
    m.y = side_out(b, &m.y_stride, &m.y_col);
    return op_matmul_nt(b->model->dev, &m, err);
}

static enum rt_status launch_nn(void *arg, struct rt_error *err)
{
    struct bench_ops *b = arg;
    const struct op_weight *w = next_weight(b);
    struct op_matmul m = {.y = side_in_gradient(b), .y_stride = w->cols, .w = w, .rows = rows_of(b), .parts = b->pass->parts};
    m.x = side_out(b, &m.x_stride, &m.x_col);
    return op_matmul_nn(b->model->dev, &m, err);
}

/* ---- the adapter of the lowest target in each layer's q k v group, or of the first group that has one ---- */

static const struct mosld_adapter_module *next_module(struct bench_ops *b)
{
    next_layer(b);
    for (int g = 0; g < MOSLD_GROUPS; g++)
        if (b->adapter->groups[b->layer][g].n_modules)
            return b->adapter->groups[b->layer][g].modules[0];
    return NULL; /* not reached: an adapter has targets in every layer */
}

static struct rt_span ul_of(const struct bench_ops *b, const struct mosld_adapter_module *m)
{
    return b->pass->layers[b->layer].ul[m->group - b->adapter->groups[b->layer]];
}

static const struct mosld_adapter_module *module_in_turn(struct bench_ops *b, struct rt_span *ul, uint32_t *stride)
{
    const struct mosld_adapter_module *m = next_module(b);
    b->linear = m->linear;
    *ul = ul_of(b, m);
    *stride = mosld_group_stride(m->group);
    return m;
}

static enum rt_status launch_project(void *arg, struct rt_error *err)
{
    struct bench_ops *b = arg;
    struct op_matmul m = {.rows = b->pass->T};
    const struct mosld_adapter_module *module = module_in_turn(b, &m.y, &m.y_stride);
    struct op_weight stack = mosld_adapter_stack(b->adapter, module->group, false);
    m.w = &stack, m.x = side_in(b), m.x_stride = stack.cols;
    return op_matmul_nt(b->model->dev, &m, err);
}

static enum rt_status launch_zb(void *arg, struct rt_error *err)
{
    struct bench_ops *b = arg;
    struct rt_span ul;
    uint32_t stride;
    struct op_weight B = mosld_adapter_b(b->adapter, module_in_turn(b, &ul, &stride));
    struct op_matmul m =
        {.x = b->pass->z, .x_stride = B.cols, .w = &B, .rows = b->pass->T, .add = OP_ADD_SELF, .scale = 1e-6f};
    m.y = side_out(b, &m.y_stride, &m.y_col);
    return op_matmul_nt(b->model->dev, &m, err);
}

static enum rt_status launch_dz(void *arg, struct rt_error *err)
{
    struct bench_ops *b = arg;
    struct rt_span ul;
    uint32_t stride;
    struct op_weight B = mosld_adapter_b(b->adapter, module_in_turn(b, &ul, &stride));
    struct op_matmul m = {.y = b->pass->z, .y_stride = B.cols, .w = &B, .rows = b->pass->T};
    m.x = side_out(b, &m.x_stride, &m.x_col);
    return op_matmul_nn(b->model->dev, &m, err);
}

static enum rt_status launch_db(void *arg, struct rt_error *err)
{
    struct bench_ops *b = arg;
    struct rt_span ul;
    uint32_t stride;
    const struct mosld_adapter_module *module = module_in_turn(b, &ul, &stride);
    uint32_t cols = module->experts * module->r;
    struct op_matmul_tn m = {.y = b->pass->z,
                             .y_stride = cols,
                             .a = module->d_out,
                             .b = cols,
                             .rows = b->pass->T,
                             .w = mosld_adapter_part(b->adapter->gradient, module->b_offset,
                                                     (uint64_t)module->d_out * cols),
                             .parts = b->pass->parts};
    m.x = side_out(b, &m.x_stride, &m.x_col);
    return op_matmul_tn(b->model->dev, &m, err);
}

static enum rt_status launch_da(void *arg, struct rt_error *err)
{
    struct bench_ops *b = arg;
    struct rt_span ul;
    uint32_t stride;
    const struct mosld_adapter_group *g = module_in_turn(b, &ul, &stride)->group;
    struct op_matmul_tn m = {.x = b->pass->dul,
                             .x_stride = stride,
                             .y = side_in(b),
                             .y_stride = g->d_in,
                             .a = g->rows,
                             .b = g->d_in,
                             .rows = b->pass->T,
                             .w = mosld_adapter_part(b->adapter->gradient, g->offset, (uint64_t)g->rows * g->d_in),
                             .parts = b->pass->parts};
    return op_matmul_tn(b->model->dev, &m, err);
}

static enum rt_status launch_dx(void *arg, struct rt_error *err)
{
    struct bench_ops *b = arg;
    struct rt_span ul;
    uint32_t stride;
    struct op_weight stack = mosld_adapter_stack(b->adapter, module_in_turn(b, &ul, &stride)->group, false);
    return op_matmul_nn(b->model->dev,
                        &(struct op_matmul){.x = b->pass->dul,
                                            .x_stride = stride,
                                            .w = &stack,
                                            .y = side_in_gradient(b),
                                            .y_stride = stack.cols,
                                            .rows = b->pass->T,
                                            .add = OP_ADD_SELF,
                                            .scale = 1e-6f},
                        err);
}

/* Of all modules of the group in turn. */
static struct op_gate gate_in_turn(struct bench_ops *b)
{
    const struct mosld_adapter *a = b->adapter;
    struct op_gate g = {.z = b->pass->z, .rows = b->pass->T, .top_k = a->params.top_k, .counts = true, .stats = a->stats};
    const struct mosld_adapter_module *m = module_in_turn(b, &g.ul, &g.ul_stride)->group->modules[0];
    g.u_col = m->row, g.l_col = m->row + m->r, g.r = m->r, g.experts = m->experts;
    g.modules = m->group->n_modules, g.module_cols = m->r + m->experts;
    g.stats_offset = m->index * 2 * a->max_experts, g.stats_stride = 2 * a->max_experts;
    return g;
}

static enum rt_status launch_gate(void *arg, struct rt_error *err)
{
    struct bench_ops *b = arg;
    struct op_gate g = gate_in_turn(b);
    return op_gate(b->model->dev, &g, err);
}

static enum rt_status launch_gate_bwd(void *arg, struct rt_error *err)
{
    struct bench_ops *b = arg;
    struct op_gate_bwd g = {.g = gate_in_turn(b), .dul = b->pass->dul, .balance = 1e-6f};
    return op_gate_bwd(b->model->dev, &g, err);
}

static enum rt_status launch_dropout(void *arg, struct rt_error *err)
{
    struct bench_ops *b = arg;
    struct mosld_adapter *a = b->adapter;
    return op_dropout_stacks(b->model->dev, &(struct op_dropout_stacks){.flat = a->values, .stacks = a->masked, .table = a->masked_table,
                                                                        .step = b->pass->step, .modules = a->n_modules,
                                                                        .longest = a->masked_longest}, err);
}

/* ---- the rest of a layer ---- */

static struct op_rmsnorm norm_in_turn(struct bench_ops *b)
{
    struct mosld_layer *w = next_layer(b);
    uint32_t d = b->model->config.hidden_size;
    return (struct op_rmsnorm){.x = b->pass->layers[b->layer].h_in,
                               .w = w->input_norm,
                               .y = b->pass->norm_out,
                               .x_stride = d,
                               .y_stride = d,
                               .rows = b->pass->T,
                               .heads = 1,
                               .cols = d,
                               .eps = (float)b->model->config.rms_norm_eps};
}

static enum rt_status launch_rmsnorm(void *arg, struct rt_error *err)
{
    struct bench_ops *b = arg;
    struct op_rmsnorm n = norm_in_turn(b);
    return op_rmsnorm(b->model->dev, &n, err);
}

static enum rt_status norm_backward(struct bench_ops *b, bool again, struct rt_error *err)
{
    struct op_rmsnorm n = norm_in_turn(b);
    n.y = b->pass->dnorm; /* never a function of dh, so dh grows by the same amount each time and stays finite */
    return op_rmsnorm_bwd(b->model->dev,
                          &(struct op_rmsnorm_bwd){.n = n, .dx = b->pass->dh, .dx_stride = n.cols, .accumulate = true, .again = again},
                          err);
}

static enum rt_status launch_rmsnorm_bwd(void *arg, struct rt_error *err) { return norm_backward(arg, false, err); }
static enum rt_status launch_rmsnorm_again(void *arg, struct rt_error *err) { return norm_backward(arg, true, err); }

static enum rt_status launch_rope(void *arg, struct rt_error *err)
{
    struct bench_ops *b = arg;
    const struct mosld_config *c = &b->model->config;
    return op_rope(b->model->dev,
                   &(struct op_rope){.x = b->pass->dqkv,
                                     .table = b->model->rope_table,
                                     .pos = b->pass->pos,
                                     .rows = b->pass->T,
                                     .stride = (c->num_heads + 2 * c->num_kv_heads) * c->head_dim,
                                     .heads = c->num_heads + c->num_kv_heads,
                                     .head_dim = c->head_dim},
                   err);
}

static enum rt_status launch_swiglu(void *arg, struct rt_error *err)
{
    struct bench_ops *b = arg;
    next_layer(b);
    return op_swiglu(b->model->dev, b->pass->layers[b->layer].gu, b->pass->act, b->pass->T,
                     b->model->config.intermediate_size, err);
}

static enum rt_status launch_swiglu_bwd(void *arg, struct rt_error *err)
{
    struct bench_ops *b = arg;
    next_layer(b);
    return op_swiglu_bwd(b->model->dev, b->pass->layers[b->layer].gu, b->pass->dact, b->pass->dgu, b->pass->T,
                         b->model->config.intermediate_size, false, err);
}

static struct op_attention attention_in_turn(struct bench_ops *b)
{
    const struct mosld_config *c = &b->model->config;
    next_layer(b);
    const struct mosld_layer_state *s = &b->pass->layers[b->layer];
    return (struct op_attention){.qkv = s->qkv,
                                 .seg = b->pass->seg,
                                 .o = s->o,
                                 .stats = s->stats,
                                 .T = b->pass->T,
                                 .heads = c->num_heads,
                                 .kv_heads = c->num_kv_heads,
                                 .head_dim = c->head_dim,
                                 .scale = (float)(1 / sqrt((double)c->head_dim))};
}

static enum rt_status launch_attention(void *arg, struct rt_error *err)
{
    struct bench_ops *b = arg;
    struct op_attention a = attention_in_turn(b);
    return op_attention(b->model->dev, &a, err);
}

static enum rt_status launch_attention_bwd(void *arg, struct rt_error *err)
{
    struct bench_ops *b = arg;
    struct op_attention_bwd a = {.a = attention_in_turn(b), .d_o = b->pass->d_o, .dqkv = b->pass->dqkv};
    return op_attention_bwd(b->model->dev, &a, err);
}

/* ---- once a step ---- */

static enum rt_status launch_embedding(void *arg, struct rt_error *err)
{
    struct bench_ops *b = arg;
    return op_embedding(b->model->dev, b->pass->tokens, &b->model->embed, b->pass->dh, b->pass->T, err);
}

static enum rt_status launch_gather(void *arg, struct rt_error *err)
{
    struct bench_ops *b = arg;
    return op_gather_rows(b->model->dev, b->pass->h_out, b->pass->target_row, b->pass->picked, b->tokens.n_targets,
                          b->model->config.hidden_size, err);
}

static enum rt_status launch_scatter(void *arg, struct rt_error *err)
{
    struct bench_ops *b = arg;
    return op_scatter_rows(b->model->dev, b->pass->dpicked, b->pass->target_row, b->pass->dh, b->tokens.n_targets,
                           b->model->config.hidden_size, err);
}

static enum rt_status launch_cross_entropy(void *arg, struct rt_error *err)
{
    struct bench_ops *b = arg;
    return op_cross_entropy(b->model->dev,
                            &(struct op_cross_entropy){.logits = b->pass->logits,
                                                       .targets = b->pass->target,
                                                       .loss = b->pass->loss,
                                                       .n = mosld_pass_slice(b->pass),
                                                       .V = b->model->config.vocab_size,
                                                       .grad_scale = 1e-3f},
                            err);
}

static enum rt_status launch_grad_norm(void *arg, struct rt_error *err)
{
    struct bench_ops *b = arg;
    return op_grad_norm(b->model->dev, b->adapter->gradient, b->step->partial, b->pass->step,
                        (uint32_t)b->adapter->words, err);
}

static enum rt_status launch_adamw(void *arg, struct rt_error *err)
{
    struct bench_ops *b = arg;
    const struct mosld_train_config *c = &b->config;
    return op_adamw(b->model->dev,
                    &(struct op_adamw){.param = b->adapter->values,
                                       .grad = b->adapter->gradient,
                                       .mv = b->adapter->moments,
                                       .step = b->pass->step,
                                       .n = (uint32_t)b->adapter->words,
                                       .beta1 = c->adam_beta1,
                                       .beta2 = c->adam_beta2,
                                       .eps = (float)c->adam_epsilon},
                    err);
}

/* ---- the list ---- */

/* One launch behind those that were timed, so that pipelines are built. An op that adds to what it has read before adds 1e-6 of it once a pass:
 * other values, the same work. */
static enum rt_status count(struct bench_ops *b, mosld_launch_fn *launch, struct mosld_bench_op *op, struct rt_error *err)
{
    struct rt_device *dev = b->bench->dev;
    op->counters = calloc(b->bench->n_counters, sizeof *op->counters);
    if (!op->counters)
        return rt_fail(err, RT_NO_MEMORY, "no memory for %u hardware counters", b->bench->n_counters);
    RT_TRY(rt_counters_begin(dev, err));
    enum rt_status st = launch(b, err), ended = rt_counters_end(dev, op->counters, st ? NULL : err);
    return st ? st : ended;
}

void mosld_bench_ops_free(struct mosld_bench_op *list, uint32_t n)
{
    for (uint32_t i = 0; list && i < n; i++)
        free(list[i].counters);
    free(list);
}

/* Measures one op and appends it. After a failure it does nothing, so that the list below reads as a list. */
static void add(struct bench_ops *b, const char *name, mosld_launch_fn *launch, double flops, double bytes,
                double calls, const char *shape, ...) RT_PRINTF(7, 8);

static void add(struct bench_ops *b, const char *name, mosld_launch_fn *launch, double flops, double bytes,
                double calls, const char *shape, ...)
{
    va_list args;
    if (b->status || b->n == b->room)
        return;
    struct mosld_bench_op *op = &b->list[b->n];
    *op = (struct mosld_bench_op){.flops = flops, .bytes = bytes, .calls = (uint32_t)calls};
    snprintf(op->name, sizeof op->name, "%s", name);
    va_start(args, shape);
    vsnprintf(op->shape, sizeof op->shape, shape, args);
    va_end(args);
    b->status = mosld_bench_progress(b->bench, name, b->n, b->room, b->err);
    if (!b->status)
        b->status = mosld_measure(b->bench, launch, b, &op->times, b->err);
    if (!b->status && b->bench->n_counters)
        b->status = count(b, launch, op, b->err);
    if (b->status)
        return;
    double by_flops = flops / b->peaks->flops, by_bytes = bytes / b->peaks->copy_bytes;
    op->memory_bound = by_bytes > by_flops;
    op->bound = op->memory_bound ? by_bytes : by_flops;
    op->share = op->bound / op->times.best;
    b->n++;
}

static void add_products(struct bench_ops *b)
{
    static const char *const names[] = {"q", "k", "v", "o", "gate", "up", "down", "head"};
    for (b->linear = 0; b->linear <= MOSLD_LINEARS; b->linear++) {
        int linear = b->linear;
        const struct op_weight *w = next_weight(b);
        uint32_t rows = rows_of(b), slices = (b->tokens.n_targets + rows - 1) / rows;
        double calls = linear == MOSLD_LINEARS ? slices : b->model->config.num_layers,
               flops = 2.0 * rows * w->rows * w->cols;
        double bytes = 4.0 * rows * (w->rows + w->cols) + (double)op_weight_bytes(w->type, w->rows, w->cols);
        char name[24];
        snprintf(name, sizeof name, "%s: y = x W'", names[linear]);
        add(b, name, launch_nt, flops, bytes, calls, "%u x %u x %u %s", rows, w->cols, w->rows, op_wtype_name(w->type));
        snprintf(name, sizeof name, "%s: dx = dy W", names[linear]);
        add(b, name, launch_nn, flops, bytes, calls, "%u x %u x %u %s", rows, w->rows, w->cols, op_wtype_name(w->type));
    }
}

static void add_adapter(struct bench_ops *b)
{
    const struct mosld_adapter_module *m = next_module(b);
    double T = b->pass->T, R = m->group->rows, in = m->d_in, out = m->d_out, z = m->experts * m->r, E = m->experts;
    double groups = 0, modules = b->adapter->n_modules;
    for (uint32_t l = 0; l < b->adapter->layers; l++)
        for (int g = 0; g < MOSLD_GROUPS; g++)
            groups += b->adapter->groups[l][g].n_modules > 0;
    add(b, "ul = x [A; Wg]'", launch_project, 2 * T * R * in, 4 * (T * (R + in) + R * in), groups, "%g x %g x %g", T,
        in, R);
    add(b, "dx += dul [A; Wg]", launch_dx, 2 * T * R * in, 4 * (T * (R + 2 * in) + R * in), groups, "%g x %g x %g", T,
        R, in);
    add(b, "dA, dWg = dul' x", launch_da, 2 * T * R * in, 4 * (T * (R + in) + R * in), groups, "%g x %g x %g", R, T,
        in);
    add(b, "y += s z B'", launch_zb, 2 * T * z * out, 4 * (T * (z + 2 * out) + z * out), modules, "%g x %g x %g", T, z,
        out);
    add(b, "dz = s dy B", launch_dz, 2 * T * z * out, 4 * (T * (z + out) + z * out), modules, "%g x %g x %g", T, out,
        z);
    add(b, "dB = s dy' z", launch_db, 2 * T * z * out, 4 * (T * (z + out) + z * out), modules, "%g x %g x %g", out, T,
        z);
    if (m->experts == 1)
        return;
    double M = m->group->n_modules; /* one launch serves the group */
    add(b, "gate", launch_gate, 0, 4 * T * M * (m->r + E + z), groups, "%g x %g x %g of %u", T, M, E, m->r);
    add(b, "gate_bwd", launch_gate_bwd, 0, 4 * T * M * (2 * (m->r + E) + 2 * z), groups, "%g x %g x %g of %u", T, M, E, m->r);
    if (b->adapter->masked.buffer)
        add(b, "dropout of A", launch_dropout, 0, 8 * (m->r + E) * in * modules, 2, "%g x %g x %g", modules, m->r + E, in);
}

static void add_layer(struct bench_ops *b)
{
    const struct mosld_config *c = &b->model->config;
    double T = b->pass->T, d = c->hidden_size, F = c->intermediate_size, D = c->head_dim, H = c->num_heads,
           Hk = c->num_kv_heads, L = c->num_layers;
    double qkv = (H + 2 * Hk) * D;
    add(b, "attention", launch_attention, 4 * b->pairs * H * D, 4 * T * (qkv + H * D + H + 8), L, "%g x %g heads of %g",
        T, H, D);
    add(b, "attention_bwd", launch_attention_bwd, 10 * b->pairs * H * D, 4 * T * (2 * qkv + 2 * H * D + 2 * H), L,
        "%g x %g heads of %g", T, H, D);
    add(b, "rmsnorm", launch_rmsnorm, 0, 8 * T * d, 2 * L + 1, "%g x %g", T, d);
    add(b, "rmsnorm_bwd", launch_rmsnorm_bwd, 0, 16 * T * d, L, "%g x %g", T, d);
    add(b, "rmsnorm_bwd and y", launch_rmsnorm_again, 0, 20 * T * d, L, "%g x %g", T, d);
    add(b, "rope", launch_rope, 0, 8 * T * (H + Hk) * D, 2 * L, "%g x %g heads of %g", T, H + Hk, D);
    add(b, "swiglu", launch_swiglu, 0, 12 * T * F, L, "%g x %g", T, F);
    add(b, "swiglu_bwd", launch_swiglu_bwd, 0, 20 * T * F, L, "%g x %g", T, F);
}

static void add_ends(struct bench_ops *b)
{
    const struct mosld_config *c = &b->model->config;
    double T = b->pass->T, d = c->hidden_size, n = b->tokens.n_targets, slice = mosld_pass_slice(b->pass),
           words = (double)b->adapter->words;
    double row = (double)op_weight_bytes(b->model->embed.type, 1, c->hidden_size);
    add(b, "cross_entropy", launch_cross_entropy, 0, 8 * slice * c->vocab_size, ceil(n / slice), "%g x %u", slice,
        c->vocab_size);
    add(b, "embedding", launch_embedding, 0, T * (4 * d + row), 1, "%g x %g %s", T, d,
        op_wtype_name(b->model->embed.type));
    add(b, "gather", launch_gather, 0, 8 * n * d, 1, "%g x %g", n, d);
    add(b, "scatter", launch_scatter, 0, 8 * n * d, 1, "%g x %g", n, d);
    add(b, "grad_norm", launch_grad_norm, 0, 4 * words, 1, "%g", words);
    add(b, "adamw", launch_adamw, 0, 28 * words, 1, "%g", words);
}

/* A pass and an adapter that have run one step, so that buffers hold what they hold in training. */
static enum rt_status prepare(struct bench_ops *b, const struct mosld_adapter_params *params, uint32_t rows,
                              uint32_t length)
{
    struct rt_error *err = b->err;
    float norm;
    bool skipped;
    RT_TRY(mosld_bench_tokens(b->model->config.vocab_size, rows, length, &b->tokens, err));
    b->pairs = (double)rows * length * (length + 1.0) / 2;
    b->config = (struct mosld_train_config){MOSLD_TRAIN_DEFAULTS, .adapter = *params};
    RT_TRY(mosld_adapter_create(b->model->dev, &b->model->config, params, true, false, &b->adapter, err));
    RT_TRY(mosld_pass_create(b->model, b->adapter,
                             &(struct mosld_pass_params){.max_tokens = b->tokens.T,
                                                         .max_targets = b->tokens.n_targets,
                                                         .trains = true},
                             &b->pass, err));
    RT_TRY(mosld_adapter_commit(b->adapter, err));
    RT_TRY(mosld_adapter_init(b->adapter, err));
    RT_TRY(mosld_pass_commit(b->pass, err));
    RT_TRY(mosld_step_create(b->pass, &b->config, &b->step, err));
    uint32_t *losses = calloc(b->tokens.n_targets, 2 * sizeof *losses);
    b->room = 64;
    b->list = calloc(b->room, sizeof *b->list);
    enum rt_status st = losses && b->list ? RT_OK : rt_fail(err, RT_NO_MEMORY, "no memory for the measured times");
    if (!st)
        st = mosld_step_begin(b->step, 1, err);
    if (!st)
        st = mosld_step_micro(b->step, &b->tokens, b->tokens.n_targets, losses, err);
    if (!st)
        st = mosld_step_end(b->step, 1e-4, &norm, &skipped, err);
    free(losses);
    return st;
}

enum rt_status mosld_bench_ops(const struct mosld_bench *bench, struct mosld_model *model,
                               const struct mosld_adapter_params *adapter, uint32_t rows, uint32_t length,
                               const struct mosld_peaks *peaks, struct mosld_bench_op **out, uint32_t *n,
                               struct rt_error *err)
{
    struct bench_ops b = {.bench = bench, .peaks = peaks, .model = model, .err = err};
    *out = NULL;
    *n = 0;
    b.status = length > model->positions
                   ? rt_fail(err, RT_USAGE, "tokens: rows of %u tokens, and the model is laid out for %u", length,
                             model->positions)
                   : prepare(&b, adapter, rows, length);
    if (!b.status) {
        add_products(&b);
        add_adapter(&b);
        add_layer(&b);
        add_ends(&b);
    }
    if (b.status)
        mosld_bench_ops_free(b.list, b.room);
    else
        *out = b.list, *n = b.n;
    mosld_step_destroy(&b.step);
    mosld_pass_destroy(&b.pass);
    mosld_adapter_destroy(&b.adapter);
    mosld_bench_tokens_finish(&b.tokens);
    return b.status;
}
