/* mosld/model/forward.c - a batch through the decoder, and through the output head to its loss. */
#include "mosld/model/layer.h"
#include "mosld/model/linear.h"
#include "mosld/model/pass.h"
#include "mosld/ops/loss.h"
#include "mosld/ops/rope.h"
#include "mosld/ops/rows.h"
#include "mosld/ops/swiglu.h"
#include "runtime/trace.h"

/* q, k, v of the layer's input, with bias and q/k norm. */
static enum rt_status project_qkv(struct mosld_pass *p, uint32_t l, struct rt_span x, bool again, struct rt_error *err)
{
    const struct mosld_config *c = &p->model->config;
    const struct mosld_layer *w = &p->model->layers[l];
    struct mosld_layer_state *s = &p->layers[l];
    uint32_t D = c->head_dim, q = c->num_heads * D, kv = c->num_kv_heads * D, stride = q + 2 * kv;
    const uint32_t cols[3] = {0, q, q + kv};
    struct rt_span raw = c->qk_norm ? s->qkv_raw : s->qkv;
    struct linear_output out[3];
    for (int i = 0; i < 3; i++)
        out[i] = (struct linear_output){raw, stride, cols[i], w->bias[i].buffer ? OP_ADD_BIAS : OP_ADD_NONE, w->bias[i]};
    RT_TRY(linear_forward_group(p, l, MOSLD_GROUP_QKV, x, out, again, err));
    if (c->qk_norm) {
        struct op_rmsnorm n = {.x = raw, .w = w->q_norm, .y = s->qkv, .x_stride = stride, .y_stride = stride, .rows = p->T,
                               .heads = c->num_heads, .cols = D, .eps = (float)c->rms_norm_eps};
        RT_TRY(rt_copy(p->model->dev, s->qkv, 0, raw, 0, (uint64_t)p->T * stride * 4, err)); /* the values */
        RT_TRY(IN_MODULE(p->model->dev, "q_norm", op_rmsnorm(p->model->dev, &n, err)));
        n.w = w->k_norm, n.x_col = n.y_col = q, n.heads = c->num_kv_heads;
        RT_TRY(IN_MODULE(p->model->dev, "k_norm", op_rmsnorm(p->model->dev, &n, err)));
    }
    return RT_OK;
}

static enum rt_status rotate(struct mosld_pass *p, uint32_t l, struct rt_error *err)
{
    const struct mosld_config *c = &p->model->config;
    uint32_t D = c->head_dim, heads = c->num_heads + c->num_kv_heads;
    return op_rope(p->model->dev, &(struct op_rope){.x = p->layers[l].qkv, .table = p->model->rope_table, .pos = p->pos, .rows = p->T,
                                                    .stride = (heads + c->num_kv_heads) * D, .heads = heads, .head_dim = D}, err);
}

static enum rt_status attend(struct mosld_pass *p, uint32_t l, struct rt_error *err)
{
    struct op_attention a = layer_attention(p, l);
    RT_TRY(rotate(p, l, err));
    if (!p->params.cache_tokens)
        return op_attention(p->model->dev, &a, err);
    struct op_attention_cache c = {.qkv = a.qkv, .cache = p->layers[l].cache, .where = p->where, .o = a.o, .T = a.T, .pos0 = p->cached,
                                   .table = p->first_table + p->slot * p->table_words, .heads = a.heads, .kv_heads = a.kv_heads, .head_dim = a.head_dim,
                                   .window = mosld_pass_window(p), .type = p->params.cache_type, .scale = a.scale};
    if (p->by_slot)
        c.pos0 = 0;
    RT_TRY(op_kv_append(p->model->dev, &c, err));
    return p->by_slot ? op_attention_slots(p->model->dev, &c, err) : op_attention_cache(p->model->dev, &c, err);
}

/* From h_in to h_mid. `again`: u and l stand. */
static enum rt_status attention_half(struct mosld_pass *p, uint32_t l, bool again, struct rt_error *err)
{
    struct mosld_layer_state *s = &p->layers[l];
    uint32_t d = p->model->config.hidden_size;
    struct op_rmsnorm n = stream_norm(p, s->h_in, p->model->layers[l].input_norm, p->norm_out, p->T);
    RT_TRY(IN_MODULE(p->model->dev, "input_layernorm", op_rmsnorm(p->model->dev, &n, err)));
    RT_TRY(project_qkv(p, l, p->norm_out, again, err));
    RT_TRY(IN_MODULE(p->model->dev, "attention", attend(p, l, err)));
    return linear_forward_group(p, l, MOSLD_GROUP_O, s->o, &(struct linear_output){s->h_mid, d, 0, OP_ADD_RESIDUAL, s->h_in}, again, err);
}

/* From h_mid to gate and up. */
static enum rt_status gate_and_up(struct mosld_pass *p, uint32_t l, bool again, struct rt_error *err)
{
    struct mosld_layer_state *s = &p->layers[l];
    uint32_t F = p->model->config.intermediate_size;
    struct op_rmsnorm n = stream_norm(p, s->h_mid, p->model->layers[l].post_norm, p->norm_out, p->T);
    RT_TRY(IN_MODULE(p->model->dev, "post_attention_layernorm", op_rmsnorm(p->model->dev, &n, err)));
    const struct linear_output out[2] = {{.y = s->gu, .stride = 2 * F}, {.y = s->gu, .stride = 2 * F, .col = F}};
    return linear_forward_group(p, l, MOSLD_GROUP_GATE_UP, p->norm_out, out, again, err);
}

static enum rt_status layer_forward(struct mosld_pass *p, uint32_t l, struct rt_span h_next, struct rt_error *err)
{
    struct mosld_layer_state *s = &p->layers[l];
    uint32_t d = p->model->config.hidden_size;
    RT_TRY(rt_segment(p->model->dev, p->model->layers[l].forward_label, err));
    if (l < p->sharing)
        p->standing = l;
    RT_TRY(attention_half(p, l, false, err));
    RT_TRY(gate_and_up(p, l, false, err));
    RT_TRY(IN_MODULE(p->model->dev, "act_fn", op_swiglu(p->model->dev, s->gu, p->act, p->T, p->model->config.intermediate_size, err)));
    return linear_forward_group(p, l, MOSLD_GROUP_DOWN, p->act, &(struct linear_output){h_next, d, 0, OP_ADD_RESIDUAL, s->h_mid}, false, err);
}

enum rt_status layer_recompute(struct mosld_pass *p, uint32_t l, struct rt_error *err)
{
    RT_TRY(rt_segment(p->model->dev, p->model->layers[l].forward_label, err));
    p->standing = l;
    RT_TRY(attention_half(p, l, true, err));
    return gate_and_up(p, l, true, err);
}

static enum rt_status embed(struct mosld_pass *p, struct rt_error *err)
{
    unsigned scope = rt_scope_begin(p->model->dev, "embedding", -1);
    enum rt_status st = linear_draw_masks(p, err);
    if (!st)
        st = IN_MODULE(p->model->dev, "embed_tokens", op_embedding(p->model->dev, p->tokens, &p->model->embed, p->layers[0].h_in, p->T, err));
    rt_scope_end(p->model->dev, scope);
    return st;
}

static enum rt_status decoder(struct mosld_pass *p, struct rt_error *err)
{
    enum rt_status st = embed(p, err);
    uint32_t layers = p->model->config.num_layers;
    for (uint32_t l = 0; l < layers && !st; l++) {
        unsigned scope = rt_scope_begin(p->model->dev, "layer", l);
        rt_scope_begin(p->model->dev, "forward", -1);
        st = layer_forward(p, l, l + 1 < layers ? p->layers[l + 1].h_in : p->h_out, err);
        rt_scope_end(p->model->dev, scope);
    }
    return st;
}

enum rt_status mosld_forward(struct mosld_pass *p, const struct mosld_tokens *b, bool training, struct rt_error *err)
{
    struct rt_device *dev = p->model->dev;
    if (b->T > p->params.max_tokens || b->n_targets > p->params.max_targets)
        return rt_fail(err, RT_FAILED, "a batch of %u tokens and %u targets does not fit the pass, which was planned for %u and %u", b->T,
                       b->n_targets, p->params.max_tokens, p->params.max_targets);
    p->T = b->T;
    p->n_targets = b->n_targets;
    p->training = training;
    RT_TRY(rt_upload(dev, p->tokens, 0, b->tokens, 4ull * b->T, err));
    RT_TRY(rt_upload(dev, p->pos, 0, b->pos, 4ull * b->T, err));
    RT_TRY(rt_upload(dev, p->seg, 0, b->seg, 16ull * b->T, err));
    RT_TRY(rt_upload(dev, p->target_row, 0, b->target_row, 4ull * b->n_targets, err));
    RT_TRY(rt_upload(dev, p->target, 0, b->target, 4ull * b->n_targets, err));
    return decoder(p, err);
}

/* Where new tokens stand: their ids, positions and places in the cache from token `first` on, at most PIECE of them. */
enum { PIECE = 256 };
struct places {
    uint32_t id[PIECE], pos[PIECE], where[PIECE][2], n;
};

static enum rt_status upload_places(struct mosld_pass *p, const struct places *a, uint32_t first, struct rt_error *err)
{
    struct rt_device *dev = p->model->dev;
    RT_TRY(rt_upload(dev, p->tokens, 4ull * first, a->id, 4ull * a->n, err));
    RT_TRY(rt_upload(dev, p->pos, 4ull * first, a->pos, 4ull * a->n, err));
    return rt_upload(dev, p->where, 8ull * first, a->where, 8ull * a->n, err);
}

static enum rt_status upload_table(struct mosld_pass *p, uint32_t slot, struct rt_error *err)
{
    if (!p->table_changed[slot])
        return RT_OK;
    uint64_t at = (uint64_t)slot * p->table_words;
    RT_TRY(rt_upload(p->model->dev, p->where, 4 * (p->first_table + at), p->tables + at, 4ull * p->table_words, err));
    p->table_changed[slot] = false;
    return RT_OK;
}

enum rt_status mosld_forward_cached(struct mosld_pass *p, const uint32_t *tokens, uint32_t T, struct rt_error *err)
{
    if (T > p->params.max_tokens || T > p->params.cache_tokens - p->cached)
        return rt_fail(err, RT_FAILED, "%u more tokens do not fit the cache of %u, which holds %u", T, p->params.cache_tokens, p->cached);
    p->T = T;
    p->training = false;
    RT_TRY(upload_table(p, p->slot, err));
    for (uint32_t i = 0; i < T; i += PIECE) {
        struct places a = {.n = T - i < PIECE ? T - i : PIECE};
        for (uint32_t j = 0; j < a.n; j++) {
            a.id[j] = tokens[i + j];
            a.pos[j] = a.where[j][1] = p->cached + i + j;
            a.where[j][0] = p->first_table + p->slot * p->table_words;
        }
        RT_TRY(upload_places(p, &a, i, err));
    }
    RT_TRY(decoder(p, err));
    p->cached += T;
    return RT_OK;
}

enum rt_status mosld_forward_slots(struct mosld_pass *p, const struct mosld_slot_token *tokens, uint32_t n, struct rt_error *err)
{
    if (n > p->params.max_tokens || n > p->params.slots || p->params.slots < 2)
        return rt_fail(err, RT_FAILED, "%u sequences at once do not fit a pass of %u tokens and %u slots", n, p->params.max_tokens,
                       p->params.slots);
    for (uint32_t i = 0; i < n; i += PIECE) {
        struct places a = {.n = n - i < PIECE ? n - i : PIECE};
        for (uint32_t j = 0; j < a.n; j++) {
            const struct mosld_slot_token *t = &tokens[i + j];
            if (t->slot >= p->params.slots || t->pos >= p->params.cache_tokens)
                return rt_fail(err, RT_FAILED, "slot %u, position %u: there are %u slots of %u tokens", t->slot, t->pos, p->params.slots,
                               p->params.cache_tokens);
            a.id[j] = t->token;
            a.pos[j] = a.where[j][1] = t->pos;
            a.where[j][0] = p->first_table + t->slot * p->table_words;
            RT_TRY(upload_table(p, t->slot, err));
        }
        RT_TRY(upload_places(p, &a, i, err));
    }
    p->T = n;
    p->training = false;
    p->by_slot = true;
    p->adapter = n ? tokens[0].adapter : NULL;
    for (uint32_t i = 1; i < n && !p->mixed; i++)
        p->mixed = tokens[i].adapter != tokens[0].adapter ? tokens : NULL;
    if (p->mixed)
        p->adapter = NULL;
    enum rt_status st = decoder(p, err);
    p->by_slot = false;
    p->mixed = NULL;
    return st;
}

/* ---- the output head ---- */

static struct rt_span rows_of(struct rt_span span, uint32_t row, uint32_t rows, uint32_t cols, uint32_t *skip)
{
    /* A span begins at a multiple of 64 words; what is left of the row's offset is a column of a matrix with stride `cols`. */
    uint64_t word = (uint64_t)row * cols, begin = word & ~63ull;
    *skip = (uint32_t)(word - begin);
    return rt_span_part(span, begin * 4, ((uint64_t)rows * cols + *skip) * 4);
}

/* logits of target rows [first, first + n) */
static enum rt_status head_slice(struct mosld_pass *p, uint32_t first, uint32_t n, struct rt_error *err)
{
    const struct mosld_config *c = &p->model->config;
    uint32_t skip;
    struct rt_span x = rows_of(p->picked_norm, first, n, c->hidden_size, &skip);
    struct op_matmul product = {.x = x, .x_stride = c->hidden_size, .x_col = skip, .w = &p->model->head, .y = p->logits, .y_stride = c->vocab_size,
                                .rows = n};
    return IN_MODULE(p->model->dev, "lm_head", op_matmul_nt(p->model->dev, &product, err));
}

static enum rt_status pick_rows(struct mosld_pass *p, uint32_t n, struct rt_error *err)
{
    RT_TRY(op_gather_rows(p->model->dev, p->h_out, p->target_row, p->picked, n, p->model->config.hidden_size, err));
    struct op_rmsnorm norm = stream_norm(p, p->picked, p->model->norm, p->picked_norm, n);
    return IN_MODULE(p->model->dev, "norm", op_rmsnorm(p->model->dev, &norm, err));
}

static enum rt_status loss_and_gradient(struct mosld_pass *p, float grad_scale, struct rt_error *err)
{
    const struct mosld_config *c = &p->model->config;
    struct rt_device *dev = p->model->dev;
    uint32_t n = p->n_targets, d = c->hidden_size;
    RT_TRY(pick_rows(p, n, err));
    for (uint32_t first = 0; first < n; first += p->params.max_slice) {
        uint32_t rows = n - first < p->params.max_slice ? n - first : p->params.max_slice, skip;
        RT_TRY(rt_segment(dev, "output head", err));
        RT_TRY(head_slice(p, first, rows, err));
        struct op_cross_entropy loss = {.logits = p->logits, .targets = p->target, .loss = p->loss, .n = rows, .V = c->vocab_size, .row0 = first,
                                        .grad_scale = grad_scale};
        RT_TRY(IN_MODULE(dev, "loss", op_cross_entropy(dev, &loss, err)));
        if (grad_scale != 0) {
            struct rt_span dx = rows_of(p->dpicked, first, rows, d, &skip);
            struct op_matmul product = {.x = p->logits, .x_stride = c->vocab_size, .w = &p->model->head, .y = dx, .y_stride = d, .y_col = skip,
                                        .rows = rows, .parts = p->parts};
            RT_TRY(IN_MODULE(dev, "lm_head", op_matmul_nn(dev, &product, err)));
        }
    }
    if (grad_scale == 0)
        return RT_OK;
    struct op_rmsnorm_bwd bwd = {.n = stream_norm(p, p->picked, p->model->norm, p->dpicked, n), .dx = p->dpicked, .dx_stride = d};
    RT_TRY(IN_MODULE(dev, "norm", op_rmsnorm_bwd(dev, &bwd, err)));
    RT_TRY(rt_fill(dev, rt_span_part(p->dh, 0, 4ull * p->T * d), 0, err));
    return op_scatter_rows(dev, p->dpicked, p->target_row, p->dh, n, d, err);
}

enum rt_status mosld_loss(struct mosld_pass *p, float grad_scale, struct rt_error *err)
{
    unsigned scope = rt_scope_begin(p->model->dev, "output head", -1);
    enum rt_status st = loss_and_gradient(p, grad_scale, err);
    rt_scope_end(p->model->dev, scope);
    return st;
}

static enum rt_status logits_of(struct mosld_pass *p, const uint32_t *rows, uint32_t n, struct rt_error *err)
{
    RT_TRY(rt_upload(p->model->dev, p->target_row, 0, rows, 4ull * n, err));
    RT_TRY(pick_rows(p, n, err));
    return head_slice(p, 0, n, err);
}

enum rt_status mosld_logits(struct mosld_pass *p, const uint32_t *rows, uint32_t n, float *out, struct rt_error *err)
{
    if (n > p->params.max_slice)
        return rt_fail(err, RT_FAILED, "%u rows of logits do not fit the slice of %u", n, p->params.max_slice);
    unsigned scope = rt_scope_begin(p->model->dev, "output head", -1);
    enum rt_status st = logits_of(p, rows, n, err);
    rt_scope_end(p->model->dev, scope);
    return st ? st : rt_download(p->model->dev, p->logits, 0, out, 4ull * n * p->model->config.vocab_size, err);
}
