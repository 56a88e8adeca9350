/* mosld/model/linear.c - a linear module with its adapter: see linear.h; the mathematics is in docs/mosld.md. */
#include "mosld/model/linear.h"

#include "mosld/ops/linear.h"
#include "mosld/ops/linear_few.h"
#include "mosld/ops/mixture.h"

#include <math.h>

static struct mosld_adapter_group *group_of(const struct mosld_pass *pass, uint32_t layer, int group)
{
    return pass->adapter ? &pass->adapter->groups[layer][group] : NULL;
}

static bool adapts(const struct mosld_pass *pass, uint32_t layer, int group)
{
    return pass->adapter && pass->adapter->groups[layer][group].n_modules > 0;
}

static struct mosld_adapter_module *module_of(const struct mosld_pass *pass, uint32_t layer, int group, enum mosld_linear linear)
{
    struct mosld_adapter_group *g = group_of(pass, layer, group);
    for (uint32_t i = 0; g && i < g->n_modules; i++)
        if (g->modules[i]->linear == linear)
            return g->modules[i];
    return NULL;
}

static bool drops(const struct mosld_pass *pass, enum mosld_dropout_on on)
{
    const struct mosld_adapter *a = pass->adapter;
    return pass->training && a->params.dropout_on == on && (a->params.dropout > 0 || a->given_mask);
}

static struct op_weight stack_of(const struct mosld_pass *pass, const struct mosld_adapter_group *g)
{
    return mosld_adapter_stack(pass->adapter, g, drops(pass, MOSLD_DROPOUT_A));
}

/* u of each module from its own dropped x (the stack's product has filled the columns from the undropped x: l is right, u is replaced). */
static enum rt_status project_dropped(struct mosld_pass *pass, uint32_t layer, struct mosld_adapter_group *g, struct rt_span x,
                                      struct rt_span ul, struct rt_error *err)
{
    struct rt_device *dev = pass->model->dev;
    enum rt_status st = RT_OK;
    for (uint32_t i = 0; i < g->n_modules && !st; i++) {
        struct mosld_adapter_module *m = g->modules[i];
        st = op_dropout_input(dev, &(struct op_dropout_input){.x = x, .y = pass->dropped, .step = pass->step, .rows = pass->T,
                                                              .cols = m->d_in, .layer = layer, .module = m->linear}, err);
        struct op_weight A = mosld_adapter_a(pass->adapter, m);
        if (!st)
            st = op_matmul_nt(dev, &(struct op_matmul){.x = pass->dropped, .x_stride = m->d_in, .w = &A, .y = ul,
                                                       .y_stride = mosld_group_stride(g), .y_col = m->row, .rows = pass->T}, err);
    }
    return st;
}

static enum rt_status project(struct mosld_pass *pass, uint32_t layer, int group, struct rt_span x, struct rt_error *err)
{
    struct mosld_adapter_group *g = group_of(pass, layer, group);
    struct rt_device *dev = pass->model->dev;
    struct rt_span ul = pass->layers[layer].ul[group];
    struct op_weight stack = stack_of(pass, g);
    enum rt_status st = op_matmul_nt(dev, &(struct op_matmul){.x = x, .x_stride = g->d_in, .w = &stack, .y = ul,
                                                              .y_stride = mosld_group_stride(g), .rows = pass->T}, err);
    if (!st && drops(pass, MOSLD_DROPOUT_INPUT))
        st = project_dropped(pass, layer, g, x, ul, err);
    for (uint32_t i = 0; i < g->n_modules && !st && pass->training; i++) {
        struct mosld_adapter_module *m = g->modules[i];
        if (m->experts > 1)
            st = op_router_stats(dev, &(struct op_router_stats){.ul = ul, .stats = pass->adapter->stats, .rows = pass->T,
                                                                .ul_stride = mosld_group_stride(g), .l_col = m->row + m->r,
                                                                .experts = m->experts, .top_k = pass->adapter->params.top_k,
                                                                .stats_offset = m->index * 2 * pass->adapter->max_experts}, err);
    }
    return st;
}

enum rt_status linear_project(struct mosld_pass *pass, uint32_t layer, int group, struct rt_span x, struct rt_error *err)
{
    return !adapts(pass, layer, group) ? RT_OK : IN_MODULE(pass->model->dev, "lora_A", project(pass, layer, group, x, err));
}

static struct op_gate gate_of(const struct mosld_pass *pass, const struct mosld_adapter_module *m, struct rt_span ul, struct rt_span z)
{
    return (struct op_gate){.ul = ul, .z = z, .rows = pass->T, .ul_stride = mosld_group_stride(m->group), .u_col = m->row,
                            .l_col = m->row + m->r, .r = m->r, .experts = m->experts, .top_k = pass->adapter->params.top_k};
}

/* Where z stands: behind the gate, or u itself where there is one expert. */
struct z_view {
    struct rt_span span;
    uint32_t stride, col;
};

static enum rt_status make_z(struct mosld_pass *pass, const struct mosld_adapter_module *m, struct rt_span ul, struct z_view *z,
                             struct rt_error *err)
{
    if (m->experts == 1) {
        *z = (struct z_view){ul, mosld_group_stride(m->group), m->row};
        return RT_OK;
    }
    *z = (struct z_view){pass->z, m->experts * m->r, 0};
    struct op_gate gate = gate_of(pass, m, ul, pass->z);
    return op_gate(pass->model->dev, &gate, err);
}

static enum rt_status module_forward(struct mosld_pass *pass, uint32_t layer, int group, enum mosld_linear linear, struct rt_span x,
                                     const struct linear_output *out, struct rt_error *err)
{
    struct rt_device *dev = pass->model->dev;
    const struct op_weight *w = &pass->model->layers[layer].linear[linear];
    struct op_matmul product = {.x = x, .x_stride = w->cols, .w = w, .y = out->y, .y_stride = out->stride, .y_col = out->col, .rows = pass->T,
                                .add = out->add, .other = out->other, .parts = pass->parts};
    struct mosld_adapter_module *m = module_of(pass, layer, group, linear);
    if (!m)
        return op_matmul_nt(dev, &product, err);
    struct op_weight b = mosld_adapter_b(pass->adapter, m);
    if (pass->params.cache_tokens && op_mixture_few_takes(pass->T, m->r, m->experts)) {
        enum rt_status st = op_matmul_nt(dev, &product, err);
        return st ? st : op_mixture_few(dev, &(struct op_mixture_few){
            .gate = gate_of(pass, m, pass->layers[layer].ul[group], (struct rt_span){0}), .b = op_weight_chunk(&b, 0)->span, .y = out->y,
            .cols = m->d_out, .y_stride = out->stride, .y_col = out->col, .scale = (float)m->scale}, err);
    }
    struct z_view z;
    enum rt_status st = make_z(pass, m, pass->layers[layer].ul[group], &z, err);
    return st ? st : op_linear_nt(dev, &(struct op_linear){.m = product, .z = z.span, .z_stride = z.stride, .z_col = z.col, .b = &b,
                                                           .scale = (float)m->scale}, err);
}

enum rt_status linear_forward(struct mosld_pass *pass, uint32_t layer, int group, enum mosld_linear linear, struct rt_span x,
                              const struct linear_output *out, struct rt_error *err)
{
    return IN_MODULE(pass->model->dev, mosld_linear_names[linear], module_forward(pass, layer, group, linear, x, out, err));
}

/* ---- a group at once ---- */

static const struct {
    enum mosld_linear first;
    uint32_t n;
    const char *name; /* in profiles */
} members[MOSLD_GROUPS] = {[MOSLD_GROUP_QKV] = {MOSLD_Q, 3, "qkv_proj"}, [MOSLD_GROUP_O] = {MOSLD_O, 1, "o_proj"},
                           [MOSLD_GROUP_GATE_UP] = {MOSLD_GATE, 2, "gate_up_proj"}, [MOSLD_GROUP_DOWN] = {MOSLD_DOWN, 1, "down_proj"}};

static struct op_linear_few few_of(const struct mosld_pass *pass, uint32_t layer, int group, struct rt_span x, const struct linear_output *out)
{
    struct op_linear_few f = {.x = x, .y = out->y, .other = out->other, .rows = pass->T, .y_stride = out->stride, .add = out->add,
                              .n_parts = members[group].n};
    struct mosld_adapter_group *g = group_of(pass, layer, group);
    uint64_t b0 = 0;
    if (g && g->n_modules) {
        const struct mosld_adapter *a = pass->adapter;
        f.ul = pass->layers[layer].ul[group], f.ul_stride = mosld_group_stride(g), f.stack_rows = g->rows, f.top_k = a->params.top_k;
        f.stack = mosld_adapter_part(a->values, g->offset, (uint64_t)g->rows * g->d_in);
        f.transposed = a->is_transposed;
        const struct mosld_adapter_module *first = g->modules[0], *last = g->modules[g->n_modules - 1];
        b0 = f.transposed ? first->transposed_offset : first->b_offset;
        uint64_t end = (f.transposed ? last->transposed_offset : last->b_offset) + (uint64_t)last->d_out * last->experts * last->r;
        f.b = mosld_adapter_part(f.transposed ? a->transposed : a->values, b0, end - b0);
    }
    for (uint32_t i = 0; i < f.n_parts; i++) {
        enum mosld_linear linear = members[group].first + i;
        const struct mosld_adapter_module *m = module_of(pass, layer, group, linear);
        f.part[i] = (struct op_linear_few_part){.w = &pass->model->layers[layer].linear[linear], .y_col = out[i].col, .bias = out[i].other};
        if (m) {
            f.part[i].r = m->r, f.part[i].experts = m->experts, f.part[i].u_col = m->row, f.part[i].scale = (float)m->scale;
            f.part[i].b_offset = (f.transposed ? m->transposed_offset : m->b_offset) - b0;
        }
    }
    f.x_stride = f.part[0].w->cols;
    return f;
}

/* What adapter `a` adds to rows first .. end - 1 of a group's outputs, a few at a time. */
static enum rt_status add_adapter(struct mosld_pass *pass, struct mosld_adapter *a, uint32_t layer, int group, struct rt_span x, const struct linear_output *out,
                                  uint32_t first, uint32_t end, struct rt_error *err)
{
    if (!a || a->groups[layer][group].n_modules == 0)
        return RT_OK;
    RT_TRY(mosld_adapter_transpose(a, err));
    pass->adapter = a;
    struct op_linear_few few = few_of(pass, layer, group, x, out);
    pass->adapter = NULL;
    few.alone = true;
    few.add = OP_ADD_NONE;
    for (few.first = first; few.first < end; few.first += few.rows) {
        few.rows = end - few.first < LINEAR_FEW_ROWS ? end - few.first : LINEAR_FEW_ROWS;
        RT_TRY(IN_MODULE(pass->model->dev, members[group].name, op_linear_few(pass->model->dev, &few, err)));
    }
    return RT_OK;
}

static enum rt_status add_adapters(struct mosld_pass *pass, uint32_t layer, int group, struct rt_span x, const struct linear_output *out, struct rt_error *err)
{
    const struct mosld_slot_token *t = pass->mixed;
    for (uint32_t first = 0, end = 0; t && first < pass->T; first = end) {
        while (end < pass->T && t[end].adapter == t[first].adapter)
            end++;
        RT_TRY(add_adapter(pass, t[first].adapter, layer, group, x, out, first, end, err));
    }
    return RT_OK;
}

bool mosld_pass_mixes(struct mosld_pass *pass, struct mosld_adapter *adapter)
{
    struct mosld_adapter *before = pass->adapter;
    bool mixes = true;
    pass->adapter = adapter;
    for (uint32_t l = 0; l < adapter->layers && mixes; l++)
        for (int g = 0; g < MOSLD_GROUPS && mixes; g++) {
            struct op_linear_few few = few_of(pass, l, g, pass->norm_out, (struct linear_output[3]){{.y = pass->norm_out}});
            few.alone = true, few.rows = 1;
            mixes = few.stack_rows == 0 || op_linear_few_takes(pass->model->dev, &few);
        }
    pass->adapter = before;
    return mixes;
}

/* The products with the model's weights, and the adapter that all rows have. */
static enum rt_status forward_group(struct mosld_pass *pass, uint32_t layer, int group, struct rt_span x, const struct linear_output *out, bool again,
                                    struct rt_error *err)
{
    if (pass->params.cache_tokens && pass->T <= LINEAR_FEW_ROWS) {
        if (pass->adapter)
            RT_TRY(mosld_adapter_transpose(pass->adapter, err));
        struct op_linear_few few = few_of(pass, layer, group, x, out);
        if (op_linear_few_takes(pass->model->dev, &few))
            return IN_MODULE(pass->model->dev, members[group].name, op_linear_few(pass->model->dev, &few, err));
    }
    if (!again)
        RT_TRY(linear_project(pass, layer, group, x, err));
    for (uint32_t i = 0; i < members[group].n; i++)
        RT_TRY(linear_forward(pass, layer, group, members[group].first + i, x, &out[i], err));
    return RT_OK;
}

enum rt_status linear_forward_group(struct mosld_pass *pass, uint32_t layer, int group, struct rt_span x, const struct linear_output *out, bool again,
                                    struct rt_error *err)
{
    RT_TRY(forward_group(pass, layer, group, x, out, again, err));
    return add_adapters(pass, layer, group, x, out, err);
}

/* The factor in front of f_e in dloss/dp: coef * E / (routers * micro-steps * T); 0 where the balance loss does not act. */
static float balance_of(const struct mosld_pass *pass, const struct mosld_adapter_module *m)
{
    const struct mosld_adapter *a = pass->adapter;
    uint32_t routers = mosld_adapter_routers(a);
    if (!routers || !mosld_module_balances(a, m))
        return 0;
    return (float)(a->params.router_aux_loss_coef * m->experts / ((double)routers * pass->micro_steps * pass->T));
}

static enum rt_status adapter_backward(struct mosld_pass *pass, const struct mosld_adapter_module *m, struct rt_span ul, struct rt_span dy,
                                       uint32_t dy_stride, uint32_t dy_col, struct rt_error *err)
{
    struct rt_device *dev = pass->model->dev;
    struct mosld_adapter *a = pass->adapter;
    float scale = (float)m->scale;
    struct op_weight b = mosld_adapter_b(a, m);
    struct z_view z;
    enum rt_status st = make_z(pass, m, ul, &z, err);
    if (!st) /* dB_e = s dy^T (g_e u), all experts at once */
        st = op_matmul_tn(dev, &(struct op_matmul_tn){.x = dy, .x_stride = dy_stride, .x_col = dy_col, .y = z.span, .y_stride = z.stride,
                                                      .y_col = z.col, .w = mosld_adapter_part(a->gradient, m->b_offset, (uint64_t)b.rows * b.cols),
                                                      .a = b.rows, .b = b.cols, .rows = pass->T, .scale = scale, .accumulate = true,
                                                      .parts = pass->parts}, err);
    if (st)
        return st;
    uint32_t stride = mosld_group_stride(m->group);
    if (m->experts == 1)
        return op_matmul_nn(dev, &(struct op_matmul){.x = dy, .x_stride = dy_stride, .x_col = dy_col, .w = &b, .y = pass->dul,
                                                     .y_stride = stride, .y_col = m->row, .rows = pass->T, .scale = scale}, err);
    st = op_matmul_nn(dev, &(struct op_matmul){.x = dy, .x_stride = dy_stride, .x_col = dy_col, .w = &b, .y = pass->dz,
                                               .y_stride = b.cols, .rows = pass->T, .scale = scale}, err);
    if (st)
        return st;
    struct op_gate_bwd bwd = {.g = gate_of(pass, m, ul, pass->dz), .dul = pass->dul, .stats = a->stats,
                              .stats_offset = m->index * 2 * a->max_experts, .balance = balance_of(pass, m)};
    return op_gate_bwd(dev, &bwd, err);
}

/* Whether this is the module whose dx brings the whole group's dul [A ; Wg] with it: the last, when all of dul is made. With
 * dropout on the input, each A reads an x of its own: dropped_gradient. */
static bool brings_tail(const struct mosld_pass *pass, const struct mosld_adapter_group *g, enum mosld_linear linear)
{
    bool last = linear == MOSLD_V || linear == MOSLD_O || linear == MOSLD_UP || linear == MOSLD_DOWN;
    return last && g && g->n_modules && !drops(pass, MOSLD_DROPOUT_INPUT);
}

static enum rt_status module_backward(struct mosld_pass *pass, uint32_t layer, int group, enum mosld_linear linear, struct rt_span dy,
                                      uint32_t dy_stride, uint32_t dy_col, struct rt_span dx, bool accumulate, struct rt_error *err)
{
    struct rt_device *dev = pass->model->dev;
    struct mosld_adapter_module *m = module_of(pass, layer, group, linear);
    enum rt_status st = m ? adapter_backward(pass, m, pass->layers[layer].ul[group], dy, dy_stride, dy_col, err) : RT_OK;
    if (st || !dx.buffer)
        return st;
    const struct op_weight *w = &pass->model->layers[layer].linear[linear];
    struct op_matmul product = {.x = dy, .x_stride = dy_stride, .x_col = dy_col, .w = w, .y = dx, .y_stride = w->cols, .rows = pass->T,
                                .add = accumulate ? OP_ADD_SELF : OP_ADD_NONE, .parts = pass->parts};
    struct mosld_adapter_group *g = group_of(pass, layer, group);
    if (!brings_tail(pass, g, linear))
        return op_matmul_nn(dev, &product, err);
    struct op_weight stack = stack_of(pass, g);
    return op_linear_nn(dev, &(struct op_linear){.m = product, .z = pass->dul, .z_stride = mosld_group_stride(g), .b = &stack}, err);
}

enum rt_status linear_backward(struct mosld_pass *pass, uint32_t layer, int group, enum mosld_linear linear, struct rt_span dy,
                               uint32_t dy_stride, uint32_t dy_col, struct rt_span dx, bool accumulate, struct rt_error *err)
{
    return IN_MODULE(pass->model->dev, mosld_linear_names[linear], module_backward(pass, layer, group, linear, dy, dy_stride, dy_col, dx, accumulate, err));
}

/* The stack's gradient, for columns [row, row + rows) of dul, from x: straight into the gradient vector where A is used as it is. */
static enum rt_status stack_gradient(struct mosld_pass *pass, struct mosld_adapter_group *g, struct rt_span x, struct rt_error *err)
{
    struct rt_device *dev = pass->model->dev;
    struct mosld_adapter *a = pass->adapter;
    bool masked = drops(pass, MOSLD_DROPOUT_A);
    struct rt_span to = masked ? pass->dstack : mosld_adapter_part(a->gradient, g->offset, (uint64_t)g->rows * g->d_in);
    enum rt_status st = op_matmul_tn(dev, &(struct op_matmul_tn){.x = pass->dul, .x_stride = mosld_group_stride(g), .y = x, .y_stride = g->d_in,
                                                                 .w = to, .a = g->rows, .b = g->d_in, .rows = pass->T, .accumulate = !masked,
                                                                 .parts = pass->parts}, err);
    for (uint32_t i = 0; i < g->n_modules && masked && !st; i++) {
        struct mosld_adapter_module *m = g->modules[i];
        uint32_t offset = m->row * m->d_in;
        uint64_t n = (uint64_t)g->rows * g->d_in;
        st = op_dropout_weights(dev, &(struct op_dropout_weights){
            .x = pass->dstack, .x_offset = offset, .y = mosld_adapter_part(a->gradient, g->offset, n), .y_offset = offset,
            .mask = a->given_mask ? mosld_adapter_part(a->mask, g->masked_offset, n) : pass->step, .mask_offset = offset, .step = pass->step,
            .r = m->r, .experts = m->experts > 1 ? m->experts : 0, .cols = m->d_in, .layer = m->layer, .module = m->linear,
            .given = a->given_mask, .accumulate = true}, err);
    }
    return st;
}

/* With dropout on the input, A's rows read each module's own dropped x: dA = du^T drop(x), and dx += drop(du A). */
static enum rt_status dropped_gradient(struct mosld_pass *pass, struct mosld_adapter_group *g, struct rt_span x, struct rt_span dx,
                                       struct rt_error *err)
{
    struct rt_device *dev = pass->model->dev;
    struct mosld_adapter *a = pass->adapter;
    uint32_t stride = mosld_group_stride(g);
    enum rt_status st = RT_OK;
    for (uint32_t i = 0; i < g->n_modules && !st; i++) {
        struct mosld_adapter_module *m = g->modules[i];
        struct rt_span block = mosld_adapter_part(a->gradient, g->offset, (uint64_t)g->rows * g->d_in);
        struct op_dropout_input drop = {.x = x, .y = pass->dropped, .step = pass->step, .rows = pass->T, .cols = m->d_in,
                                        .layer = m->layer, .module = m->linear};
        struct op_matmul_tn dA = {.x = pass->dul, .x_stride = stride, .x_col = m->row, .y = pass->dropped, .y_stride = m->d_in, .w = block,
                                  .w_offset = m->row * m->d_in, .a = m->r, .b = m->d_in, .rows = pass->T, .accumulate = true,
                                  .parts = pass->parts};
        struct op_matmul_tn dWg = dA;
        dWg.x_col += m->r, dWg.w_offset += m->r * m->d_in, dWg.a = m->experts, dWg.y = x;
        st = op_dropout_input(dev, &drop, err);
        if (!st)
            st = op_matmul_tn(dev, &dA, err);
        if (!st && m->experts > 1)
            st = op_matmul_tn(dev, &dWg, err);
        if (st || !dx.buffer)
            continue;
        struct op_weight A = mosld_adapter_a(a, m), Wg = mosld_adapter_router(a, m);
        st = op_matmul_nn(dev, &(struct op_matmul){.x = pass->dul, .x_stride = stride, .x_col = m->row, .w = &A, .y = pass->dropped,
                                                   .y_stride = m->d_in, .rows = pass->T}, err);
        drop.x = pass->dropped, drop.y = dx, drop.accumulate = true;
        if (!st)
            st = op_dropout_input(dev, &drop, err);
        if (!st && m->experts > 1)
            st = op_matmul_nn(dev, &(struct op_matmul){.x = pass->dul, .x_stride = stride, .x_col = m->row + m->r, .w = &Wg, .y = dx,
                                                       .y_stride = m->d_in, .rows = pass->T, .add = OP_ADD_SELF}, err);
    }
    return st;
}

static enum rt_status group_backward(struct mosld_pass *pass, uint32_t layer, int group, struct rt_span x, struct rt_span dx,
                                     struct rt_error *err)
{
    struct mosld_adapter_group *g = group_of(pass, layer, group);
    if (drops(pass, MOSLD_DROPOUT_INPUT))
        return dropped_gradient(pass, g, x, dx, err);
    return stack_gradient(pass, g, x, err);
}

enum rt_status linear_backward_group(struct mosld_pass *pass, uint32_t layer, int group, struct rt_span x, struct rt_span dx,
                                     struct rt_error *err)
{
    return !adapts(pass, layer, group) ? RT_OK : IN_MODULE(pass->model->dev, "lora_A", group_backward(pass, layer, group, x, dx, err));
}

static enum rt_status draw_masks(struct mosld_pass *pass, struct rt_error *err)
{
    struct mosld_adapter *a = pass->adapter;
    enum rt_status st = RT_OK;
    if (!a || !drops(pass, MOSLD_DROPOUT_A))
        return RT_OK;
    for (uint32_t i = 0; i < a->n_modules && !st; i++) {
        struct mosld_adapter_module *m = &a->modules[i];
        struct mosld_adapter_group *g = m->group;
        uint64_t n = (uint64_t)g->rows * g->d_in;
        uint32_t offset = m->row * m->d_in;
        st = op_dropout_weights(pass->model->dev, &(struct op_dropout_weights){
            .x = mosld_adapter_part(a->values, g->offset, n), .x_offset = offset,
            .y = mosld_adapter_part(a->masked, g->masked_offset, n), .y_offset = offset,
            .mask = a->given_mask ? mosld_adapter_part(a->mask, g->masked_offset, n) : pass->step, .mask_offset = offset, .step = pass->step,
            .r = m->r, .experts = m->experts > 1 ? m->experts : 0, .cols = m->d_in, .layer = m->layer, .module = m->linear,
            .given = a->given_mask}, err);
    }
    return st;
}

enum rt_status linear_draw_masks(struct mosld_pass *pass, struct rt_error *err)
{
    return IN_MODULE(pass->model->dev, "lora_A", draw_masks(pass, err));
}

/* ---- norm and attention ---- */

struct op_rmsnorm stream_norm(const struct mosld_pass *p, struct rt_span x, struct rt_span w, struct rt_span y, uint32_t rows)
{
    uint32_t d = p->model->config.hidden_size;
    return (struct op_rmsnorm){.x = x, .w = w, .y = y, .x_stride = d, .y_stride = d, .rows = rows, .heads = 1, .cols = d,
                               .eps = (float)p->model->config.rms_norm_eps};
}

struct op_attention layer_attention(const struct mosld_pass *p, uint32_t layer)
{
    const struct mosld_config *c = &p->model->config;
    const struct mosld_layer_state *s = &p->layers[layer];
    return (struct op_attention){.qkv = s->qkv, .seg = p->seg, .o = s->o, .stats = s->stats, .T = p->T, .heads = c->num_heads,
                                 .kv_heads = c->num_kv_heads, .head_dim = c->head_dim,
                                 .scale = (float)(1 / sqrt((double)c->head_dim))};
}
