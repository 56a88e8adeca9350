/* mosld/model/backward.c - gradients from the residual stream's end back to the lowest adapter. */
#include "mosld/model/layer.h"
#include "mosld/model/linear.h"
#include "mosld/model/pass.h"
#include "mosld/ops/rope.h"
#include "mosld/ops/swiglu.h"
#include "runtime/trace.h"

static const struct rt_span nowhere;

/* Whether a group has adapters, so that its input is needed. */
static bool adapts(const struct mosld_pass *p, uint32_t l, int group) { return p->adapter->groups[l][group].n_modules > 0; }

/* Whether anything at or below the given group of layer l learns: if not, its input needs no gradient. */
static bool learns_below(const struct mosld_pass *p, uint32_t l, int group)
{
    if (l > p->adapter->lowest_layer)
        return true;
    for (int g = 0; g < group; g++)
        if (adapts(p, l, g))
            return true;
    return false;
}

/* Backward of a group whose x is a norm of the residual stream: adds to dh what reaches the stream. The norm's output is made again on the way
 * back through the norm, in the place of its gradient, and the stack's gradient comes behind that: unless that one adds to dx, or nothing
 * goes back that far. */
static enum rt_status normed_backward(struct mosld_pass *p, uint32_t l, int group, struct op_rmsnorm n, const struct linear_gradient *dy,
                                      struct rt_error *err)
{
    struct rt_device *dev = p->model->dev;
    struct rt_span dnorm = learns_below(p, l, group) ? p->dnorm : nowhere;
    bool late = dnorm.buffer && !linear_stack_adds(p);
    const char *name = group == MOSLD_GROUP_QKV ? "input_layernorm" : "post_attention_layernorm";
    if (!late && adapts(p, l, group))
        RT_TRY(IN_MODULE(dev, name, op_rmsnorm(dev, &n, err)));
    RT_TRY(linear_backward(p, l, group, dy, dnorm, err));
    if (!late)
        RT_TRY(linear_backward_stack(p, l, group, n.y, dnorm, err));
    if (!dnorm.buffer)
        return RT_OK;
    n.y = dnorm;
    struct op_rmsnorm_bwd bwd = {.n = n, .dx = p->dh, .dx_stride = n.cols, .accumulate = true, .again = late && adapts(p, l, group)};
    RT_TRY(IN_MODULE(dev, name, op_rmsnorm_bwd(dev, &bwd, err)));
    return late ? linear_backward_stack(p, l, group, dnorm, nowhere, err) : RT_OK;
}

/* dh, the gradient of the layer's output, gives that of gate and up where something below learns. SwiGLU's output like a norm's above. */
static enum rt_status down_backward(struct mosld_pass *p, uint32_t l, struct rt_error *err)
{
    struct rt_device *dev = p->model->dev;
    uint32_t d = p->model->config.hidden_size, F = p->model->config.intermediate_size;
    struct rt_span gu = p->layers[l].gu, dact = learns_below(p, l, MOSLD_GROUP_DOWN) ? p->dact : nowhere;
    bool late = dact.buffer && !linear_stack_adds(p);
    if (!late && adapts(p, l, MOSLD_GROUP_DOWN))
        RT_TRY(IN_MODULE(dev, "act_fn", op_swiglu(dev, gu, p->act, p->T, F, err)));
    RT_TRY(linear_backward(p, l, MOSLD_GROUP_DOWN, &(struct linear_gradient){p->dh, d, {0}}, dact, err));
    if (!late)
        RT_TRY(linear_backward_stack(p, l, MOSLD_GROUP_DOWN, p->act, dact, err));
    if (!dact.buffer)
        return RT_OK;
    RT_TRY(IN_MODULE(dev, "act_fn", op_swiglu_bwd(dev, gu, dact, p->dgu, p->T, F, late && adapts(p, l, MOSLD_GROUP_DOWN), err)));
    return late ? linear_backward_stack(p, l, MOSLD_GROUP_DOWN, dact, nowhere, err) : RT_OK;
}

/* dh, the gradient of the layer's output, becomes that of h_mid. */
static enum rt_status mlp_backward(struct mosld_pass *p, uint32_t l, struct rt_error *err)
{
    uint32_t F = p->model->config.intermediate_size;
    RT_TRY(down_backward(p, l, err));
    if (!learns_below(p, l, MOSLD_GROUP_DOWN))
        return RT_OK;
    struct op_rmsnorm n = stream_norm(p, p->layers[l].h_mid, p->model->layers[l].post_norm, p->norm_out, p->T);
    return normed_backward(p, l, MOSLD_GROUP_GATE_UP, n, &(struct linear_gradient){p->dgu, 2 * F, {0, F}}, err);
}

/* d_o becomes d(q k v) before RoPE. */
static enum rt_status unattend(struct mosld_pass *p, uint32_t l, struct rt_error *err)
{
    const struct mosld_config *c = &p->model->config;
    uint32_t D = c->head_dim, heads = c->num_heads + c->num_kv_heads;
    struct op_attention_bwd bwd = {.a = layer_attention(p, l), .d_o = p->d_o, .dqkv = p->dqkv};
    RT_TRY(op_attention_bwd(p->model->dev, &bwd, err));
    return op_rope(p->model->dev, &(struct op_rope){.x = p->dqkv, .table = p->model->rope_table, .pos = p->pos, .rows = p->T,
                                                    .stride = (heads + c->num_kv_heads) * D, .heads = heads, .head_dim = D, .inverse = true}, err);
}

/* And that of the projections' outputs, in place. */
static enum rt_status qk_norm_backward(struct mosld_pass *p, uint32_t l, struct rt_error *err)
{
    const struct mosld_config *c = &p->model->config;
    struct rt_device *dev = p->model->dev;
    const struct mosld_layer *w = &p->model->layers[l];
    uint32_t D = c->head_dim, q = c->num_heads * D, stride = q + 2 * c->num_kv_heads * D;
    struct op_rmsnorm n = {.x = p->layers[l].qkv_raw, .w = w->q_norm, .y = p->dqkv, .x_stride = stride, .y_stride = stride, .rows = p->T,
                           .heads = c->num_heads, .cols = D, .eps = (float)c->rms_norm_eps};
    struct op_rmsnorm_bwd b = {.n = n, .dx = p->dqkv, .dx_stride = stride};
    RT_TRY(IN_MODULE(dev, "q_norm", op_rmsnorm_bwd(dev, &b, err)));
    b.n.w = w->k_norm, b.n.x_col = b.n.y_col = b.dx_col = q, b.n.heads = c->num_kv_heads;
    return IN_MODULE(dev, "k_norm", op_rmsnorm_bwd(dev, &b, err));
}

/* dh, the gradient of h_mid, becomes that of h_in, where something below learns. */
static enum rt_status attention_backward(struct mosld_pass *p, uint32_t l, struct rt_error *err)
{
    const struct mosld_config *c = &p->model->config;
    struct rt_device *dev = p->model->dev;
    struct mosld_layer_state *s = &p->layers[l];
    uint32_t d = c->hidden_size, D = c->head_dim, q = c->num_heads * D, kv = c->num_kv_heads * D, stride = q + 2 * kv;
    struct rt_span d_o = learns_below(p, l, MOSLD_GROUP_O) ? p->d_o : nowhere;
    RT_TRY(linear_backward(p, l, MOSLD_GROUP_O, &(struct linear_gradient){p->dh, d, {0}}, d_o, err));
    RT_TRY(linear_backward_stack(p, l, MOSLD_GROUP_O, s->o, d_o, err));
    if (!d_o.buffer)
        return RT_OK;
    RT_TRY(IN_MODULE(dev, "attention", unattend(p, l, err)));
    if (c->qk_norm)
        RT_TRY(qk_norm_backward(p, l, err));
    struct op_rmsnorm n = stream_norm(p, s->h_in, p->model->layers[l].input_norm, p->norm_out, p->T);
    return normed_backward(p, l, MOSLD_GROUP_QKV, n, &(struct linear_gradient){p->dqkv, stride, {0, q, q + kv}}, err);
}

static enum rt_status layer_backward(struct mosld_pass *p, uint32_t l, struct rt_error *err)
{
    RT_TRY(rt_segment(p->model->dev, p->model->layers[l].backward_label, err));
    RT_TRY(mlp_backward(p, l, err));
    return learns_below(p, l, MOSLD_GROUP_GATE_UP) ? attention_backward(p, l, err) : RT_OK;
}

enum rt_status mosld_backward(struct mosld_pass *p, struct rt_error *err)
{
    enum rt_status st = RT_OK;
    for (uint32_t l = p->model->config.num_layers; l-- > p->adapter->lowest_layer && !st;) {
        unsigned scope = rt_scope_begin(p->model->dev, "layer", l);
        if (l < p->sharing && l != p->standing) {
            unsigned again = rt_scope_begin(p->model->dev, "recompute", -1);
            st = layer_recompute(p, l, err);
            rt_scope_end(p->model->dev, again);
        }
        rt_scope_begin(p->model->dev, "backward", -1);
        if (!st)
            st = layer_backward(p, l, err);
        rt_scope_end(p->model->dev, scope);
    }
    if (st)
        return st;
    unsigned scope = rt_scope_begin(p->model->dev, "dropout", -1);
    st = linear_end_masks(p, err);
    rt_scope_end(p->model->dev, scope);
    return st;
}
