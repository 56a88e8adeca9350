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

/* ---- gates ---- */

static bool has_router(const struct mosld_adapter_group *g) { return g && g->n_modules && g->modules[0]->experts > 1; }

/* The modules of a group have one rank and one number of experts where they have routers: params.c. */
static struct op_gate gate_of(const struct mosld_pass *pass, uint32_t layer, int group, struct rt_span z)
{
    const struct mosld_adapter *a = pass->adapter;
    const struct mosld_adapter_group *g = &a->groups[layer][group];
    const struct mosld_adapter_module *m = g->modules[0];
    return (struct op_gate){.ul = pass->layers[layer].ul[group], .z = z, .rows = pass->T, .ul_stride = mosld_group_stride(g),
                            .u_col = m->row, .l_col = m->row + m->r, .r = m->r, .experts = m->experts, .top_k = a->params.top_k,
                            .modules = g->n_modules, .module_cols = m->r + m->experts, .stats = a->stats,
                            .stats_offset = m->index * 2 * a->max_experts, .stats_stride = 2 * a->max_experts};
}

/* Whether one kernel does gate and product, for a few tokens of generation. */
static bool goes_few(const struct mosld_pass *pass, const struct mosld_adapter_module *m)
{
    return pass->params.cache_tokens && op_mixture_few_takes(pass->T, m->r, m->experts);
}

static enum rt_status make_z(struct mosld_pass *pass, uint32_t layer, int group, bool counts, struct rt_error *err)
{
    const struct mosld_adapter_group *g = group_of(pass, layer, group);
    if (!has_router(g) || goes_few(pass, g->modules[0]))
        return RT_OK;
    struct op_gate gate = gate_of(pass, layer, group, pass->z);
    gate.counts = counts;
    return op_gate(pass->model->dev, &gate, err);
}

enum rt_status linear_gates(struct mosld_pass *pass, uint32_t layer, int group, struct rt_error *err)
{
    return !adapts(pass, layer, group) ? RT_OK : IN_MODULE(pass->model->dev, "lora_A", make_z(pass, layer, group, false, err));
}

/* Where a module's z stands: behind the gate, or u itself where there is one expert. */
struct z_view {
    struct rt_span span;
    uint32_t stride, col;
};

static struct z_view z_of(const struct mosld_pass *pass, const struct mosld_adapter_module *m, struct rt_span ul)
{
    uint32_t width = m->experts * m->r;
    if (m->experts == 1)
        return (struct z_view){ul, mosld_group_stride(m->group), m->row};
    return (struct z_view){pass->z, m->group->n_modules * width, m->row / (m->r + m->experts) * width};
}

/* ---- forward ---- */

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
    return st ? st : make_z(pass, layer, group, pass->training, err);
}

enum rt_status linear_project(struct mosld_pass *pass, uint32_t layer, int group, struct rt_span x, struct rt_error *err)
{
    return !adapts(pass, layer, group) ? RT_OK : IN_MODULE(pass->model->dev, "lora_A", project(pass, layer, group, x, err));
}

/* `modules` of 1: the gate of one of them alone. */
static struct op_gate gate_alone(const struct mosld_pass *pass, uint32_t layer, int group, const struct mosld_adapter_module *m)
{
    struct op_gate gate = gate_of(pass, layer, group, (struct rt_span){0});
    gate.u_col = m->row, gate.l_col = m->row + m->r, gate.modules = 1;
    return gate;
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
    if (goes_few(pass, m)) {
        enum rt_status st = op_matmul_nt(dev, &product, err);
        return st ? st : op_mixture_few(dev, &(struct op_mixture_few){
            .gate = gate_alone(pass, layer, group, m), .b = op_weight_chunk(&b, 0)->span, .y = out->y,
            .cols = m->d_out, .y_stride = out->stride, .y_col = out->col, .scale = (float)m->scale}, err);
    }
    struct z_view z = z_of(pass, m, pass->layers[layer].ul[group]);
    return op_linear_nt(dev, &(struct op_linear){.m = product, .z = z.span, .z_stride = z.stride, .z_col = z.col, .b = &b,
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
    RT_TRY(again ? linear_gates(pass, layer, group, err) : linear_project(pass, layer, group, x, err));
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

/* ---- backward ---- */

/* The factor in front of f_e in dloss/dp: coef * E / (routers * micro-steps * T); 0 where the balance loss does not act. */
static float balance_of(const struct mosld_pass *pass, const struct mosld_adapter_module *m)
{
    const struct mosld_adapter *a = pass->adapter;
    uint32_t routers = mosld_adapter_routers(a);
    if (!routers || !mosld_module_balances(a, m))
        return 0;
    return (float)(a->params.router_aux_loss_coef * m->experts / ((double)routers * pass->micro_steps * pass->T));
}

/* dz = s dy Bcat of a module; with one expert that is du. */
static enum rt_status z_gradient(struct mosld_pass *pass, const struct mosld_adapter_module *m, struct rt_span dy, uint32_t stride, uint32_t col,
                                 struct rt_error *err)
{
    struct op_weight b = mosld_adapter_b(pass->adapter, m);
    struct z_view to = z_of(pass, m, pass->dul);
    return op_matmul_nn(pass->model->dev, &(struct op_matmul){.x = dy, .x_stride = stride, .x_col = col, .w = &b, .y = to.span,
                                                              .y_stride = to.stride, .y_col = to.col, .rows = pass->T,
                                                              .scale = (float)m->scale}, err);
}

/* dB_e = s dy^T (g_e u), all experts at once. */
static enum rt_status b_gradient(struct mosld_pass *pass, const struct mosld_adapter_module *m, struct rt_span ul, struct rt_span dy,
                                 uint32_t stride, uint32_t col, struct rt_error *err)
{
    uint32_t width = m->experts * m->r;
    struct z_view z = z_of(pass, m, ul);
    return op_matmul_tn(pass->model->dev, &(struct op_matmul_tn){
        .x = dy, .x_stride = stride, .x_col = col, .y = z.span, .y_stride = z.stride, .y_col = z.col, .a = m->d_out, .b = width,
        .w = mosld_adapter_part(pass->adapter->gradient, m->b_offset, (uint64_t)m->d_out * width), .rows = pass->T,
        .scale = (float)m->scale, .accumulate = true, .parts = pass->parts}, err);
}

static uint32_t col_of(const struct mosld_adapter_module *m, int group, const struct linear_gradient *dy)
{
    return dy->col[m->linear - members[group].first];
}

/* dul, and dB. The gates' backward turns dz into z, so dB comes behind it. */
static enum rt_status adapter_backward(struct mosld_pass *pass, uint32_t layer, int group, const struct linear_gradient *dy, struct rt_error *err)
{
    struct mosld_adapter_group *g = group_of(pass, layer, group);
    struct rt_span ul = pass->layers[layer].ul[group];
    struct rt_device *dev = pass->model->dev;
    for (uint32_t i = 0; i < g->n_modules; i++) {
        const struct mosld_adapter_module *m = g->modules[i];
        RT_TRY(IN_MODULE(dev, mosld_linear_names[m->linear], z_gradient(pass, m, dy->dy, dy->stride, col_of(m, group, dy), err)));
    }
    if (has_router(g)) {
        struct op_gate_bwd bwd = {.g = gate_of(pass, layer, group, pass->z), .dul = pass->dul, .balance = balance_of(pass, g->modules[0])};
        RT_TRY(IN_MODULE(dev, "lora_A", op_gate_bwd(dev, &bwd, err)));
    }
    for (uint32_t i = 0; i < g->n_modules; i++) {
        const struct mosld_adapter_module *m = g->modules[i];
        RT_TRY(IN_MODULE(dev, mosld_linear_names[m->linear], b_gradient(pass, m, ul, dy->dy, dy->stride, col_of(m, group, dy), err)));
    }
    return RT_OK;
}

/* dx (+)= dy W0 of one module. The last brings the whole group's dul [A ; Wg] with it. With dropout on the input, each A reads an x of its
 * own: dropped_gradient. */
static enum rt_status input_gradient(struct mosld_pass *pass, uint32_t layer, int group, uint32_t i, const struct linear_gradient *dy,
                                     struct rt_span dx, struct rt_error *err)
{
    struct rt_device *dev = pass->model->dev;
    const struct op_weight *w = &pass->model->layers[layer].linear[members[group].first + i];
    struct op_matmul product = {.x = dy->dy, .x_stride = dy->stride, .x_col = dy->col[i], .w = w, .y = dx, .y_stride = w->cols, .rows = pass->T,
                                .add = i ? OP_ADD_SELF : OP_ADD_NONE, .parts = pass->parts};
    if (!adapts(pass, layer, group) || i + 1 < members[group].n || drops(pass, MOSLD_DROPOUT_INPUT))
        return op_matmul_nn(dev, &product, err);
    struct mosld_adapter_group *g = group_of(pass, layer, group);
    struct op_weight stack = stack_of(pass, g);
    return op_linear_nn(dev, &(struct op_linear){.m = product, .z = pass->dul, .z_stride = mosld_group_stride(g), .b = &stack}, err);
}

enum rt_status linear_backward(struct mosld_pass *pass, uint32_t layer, int group, const struct linear_gradient *dy, struct rt_span dx,
                               struct rt_error *err)
{
    if (adapts(pass, layer, group))
        RT_TRY(adapter_backward(pass, layer, group, dy, err));
    for (uint32_t i = 0; dx.buffer && i < members[group].n; i++)
        RT_TRY(IN_MODULE(pass->model->dev, mosld_linear_names[members[group].first + i], input_gradient(pass, layer, group, i, dy, dx, err)));
    return RT_OK;
}

/* The stack's gradient from dul and x: straight into the gradient vector where A is used as it is; else in the place of the masked stack, which
 * nothing of this micro-step reads any more, until linear_end_masks. */
static enum rt_status stack_gradient(struct mosld_pass *pass, struct mosld_adapter_group *g, struct rt_span x, struct rt_error *err)
{
    struct mosld_adapter *a = pass->adapter;
    bool masked = drops(pass, MOSLD_DROPOUT_A);
    uint64_t n = (uint64_t)g->rows * g->d_in;
    struct rt_span to = masked ? mosld_adapter_part(a->masked, g->masked_offset, n) : mosld_adapter_part(a->gradient, g->offset, n);
    return op_matmul_tn(pass->model->dev, &(struct op_matmul_tn){
        .x = pass->dul, .x_stride = mosld_group_stride(g), .y = x, .y_stride = g->d_in, .w = to, .a = g->rows, .b = g->d_in,
        .rows = pass->T, .accumulate = !masked, .parts = pass->parts}, err);
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

bool linear_stack_adds(const struct mosld_pass *pass) { return drops(pass, MOSLD_DROPOUT_INPUT); }

static enum rt_status backward_stack(struct mosld_pass *pass, uint32_t layer, int group, struct rt_span x, struct rt_span dx, struct rt_error *err)
{
    struct mosld_adapter_group *g = group_of(pass, layer, group);
    if (drops(pass, MOSLD_DROPOUT_INPUT))
        return dropped_gradient(pass, g, x, dx, err);
    return stack_gradient(pass, g, x, err);
}

enum rt_status linear_backward_stack(struct mosld_pass *pass, uint32_t layer, int group, struct rt_span x, struct rt_span dx,
                                     struct rt_error *err)
{
    return !adapts(pass, layer, group) ? RT_OK : IN_MODULE(pass->model->dev, "lora_A", backward_stack(pass, layer, group, x, dx, err));
}

/* With given masks, module by module. */
static enum rt_status given_masks(struct mosld_pass *pass, bool back, struct rt_error *err)
{
    struct mosld_adapter *a = pass->adapter;
    for (uint32_t i = 0; i < a->n_modules; i++) {
        struct mosld_adapter_module *m = &a->modules[i];
        struct mosld_adapter_group *g = m->group;
        uint64_t n = (uint64_t)g->rows * g->d_in;
        uint32_t offset = m->row * m->d_in;
        struct rt_span flat = mosld_adapter_part(back ? a->gradient : a->values, g->offset, n);
        struct rt_span stack = mosld_adapter_part(a->masked, g->masked_offset, n);
        RT_TRY(op_dropout_weights(pass->model->dev, &(struct op_dropout_weights){
            .x = back ? stack : flat, .x_offset = offset, .y = back ? flat : stack, .y_offset = offset,
            .mask = mosld_adapter_part(a->mask, g->masked_offset, n), .mask_offset = offset, .step = pass->step, .r = m->r,
            .experts = m->experts > 1 ? m->experts : 0, .cols = m->d_in, .layer = m->layer, .module = m->linear, .given = true,
            .accumulate = back}, err));
    }
    return RT_OK;
}

static enum rt_status masks(struct mosld_pass *pass, bool back, struct rt_error *err)
{
    struct mosld_adapter *a = pass->adapter;
    if (!a || !drops(pass, MOSLD_DROPOUT_A))
        return RT_OK;
    if (a->given_mask)
        return given_masks(pass, back, err);
    return op_dropout_stacks(pass->model->dev, &(struct op_dropout_stacks){
        .flat = back ? a->gradient : a->values, .stacks = a->masked, .table = a->masked_table, .step = pass->step, .modules = a->n_modules,
        .longest = a->masked_longest, .back = back}, err);
}

enum rt_status linear_draw_masks(struct mosld_pass *pass, struct rt_error *err)
{
    return IN_MODULE(pass->model->dev, "lora_A", masks(pass, false, err));
}

enum rt_status linear_end_masks(struct mosld_pass *pass, struct rt_error *err)
{
    return IN_MODULE(pass->model->dev, "lora_A", masks(pass, true, err));
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
