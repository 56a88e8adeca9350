/* mosld/tune/cases.c - see cases.h: a maker for each op. */
#include "mosld/tune/cases.h"

#include "mosld/ops/attention_common.h"
#include "mosld/ops/choice.h"
#include "mosld/ops/linear_host.h"
#include "mosld/ops/matmul_split.h"
#include "mosld/ops/optim.h"
#include "shaders/cross_entropy.h"
#include "shaders/dropout.h"
#include "shaders/dropout_stacks.h"
#include "shaders/embedding.h"
#include "shaders/gate.h"
#include "shaders/linear_few.h"
#include "shaders/mixture_few.h"
#include "shaders/optim.h"
#include "shaders/rmsnorm.h"
#include "shaders/rope.h"
#include "shaders/rows.h"
#include "shaders/step.h"
#include "shaders/swiglu.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- helpers ---- */

static uint32_t *words(uint64_t n) { return calloc(n + 1, sizeof(uint32_t)); }

static uint32_t float_word(float v)
{
    uint32_t w;
    memcpy(&w, &v, sizeof w);
    return w;
}

static void set_push(struct tune_case *c, const void *push, size_t size) { memcpy(c->push.bytes, push, size); }

static uint32_t up_to(uint32_t n, uint32_t multiple) { return (n + multiple - 1) / multiple * multiple; }

/* A step block as an optimizer step has it. */
static uint32_t *step_words(float dropout)
{
    uint32_t *w = words(STEP_WORDS);
    if (w) {
        w[STEP_LR] = float_word(0.03f);
        w[STEP_BIAS1] = float_word(0.271f);
        w[STEP_BIAS2] = float_word(0.003f);
        w[STEP_MAX_NORM] = float_word(1);
        w[STEP_CLIP] = float_word(0.75f);
        w[STEP_SEED_LO] = 42;
        w[STEP_MICRO] = 7;
        w[STEP_DROPOUT] = float_word(dropout);
    }
    return w;
}

/* ---- products ---- */

/* Of the class's shape: how many tokens, and which side of W is narrow. Quantised weights are a model's own, never narrow. */
static bool make_matmul(struct tune_case *c, uint32_t class_, uint32_t which, bool large)
{
    const bool nn = c->op == &op_matmul_nn_desc || c->op == &op_linear_nn_desc || c->op == &op_matmul_nn_split_desc;
    enum op_wtype type = (enum op_wtype)op_class_wtype(c->op, class_);
    uint32_t shape = class_ % 9, block = op_wtype_block(type);
    if (which > 1 || (which == 1 && large) || (large && shape % 3 && type != OP_W_F32) ||
        (shape % 3 == 2 && block > 128)) /* no such weight */
        return false;
    /* The second small case is off every tile and step. */
    const uint32_t tokens[] = {large ? 4 : 3, large ? 48 : 33, large ? 512 : 65 + 5 * which};
    uint32_t n = large ? 1024 : 192 + 7 * which, k = large ? 1024 : block > 1 ? 256 : 160 + which;
    if (shape % 3 == 1)
        n = large ? 72 : 24 + 3 * which;
    if (shape % 3 == 2)
        k = large ? 64 : 32;
    k = up_to(k, block);
    struct op_weight_layout layout;
    if (!op_weight_layout(type, n, k, &layout))
        return false;
    struct matmul_push p = {.rows = tokens[shape / 3], .n = n, .k = k, .x_stride = nn ? n : k, .y_stride = nn ? k : n, .wtype = type,
                            .scales = (uint32_t)layout.scales, .add = which ? MATMUL_ADD_SELF : MATMUL_ADD_NONE, .scale = 1};
    set_push(c, &p, sizeof p);
    c->b[MATMUL_X] = (struct tune_binding){.n = (uint64_t)p.rows * p.x_stride};
    c->b[MATMUL_W] = (struct tune_binding){.n = (uint64_t)n * k, .wtype = type, .rows = n, .cols = k};
    c->b[MATMUL_Y] = c->b[MATMUL_OTHER] = (struct tune_binding){.n = (uint64_t)p.rows * p.y_stride};
    snprintf(c->label, sizeof c->label, "%u x %u x %u", p.rows, k, n);
    return true;
}

/* The same with a tail. */
static bool make_linear(struct tune_case *c, uint32_t class_, uint32_t which, bool large)
{
    const bool nn = c->op == &op_linear_nn_desc;
    if (!make_matmul(c, class_, which, large))
        return false;
    struct linear_push p = {.r = large ? 64 : 24 + which, .tail_scale = 0.5f};
    memcpy(&p.m, c->push.bytes, sizeof p.m);
    p.z_stride = p.r;
    set_push(c, &p, sizeof p);
    c->b[LINEAR_Z] = (struct tune_binding){.n = (uint64_t)p.m.rows * p.r};
    c->b[LINEAR_B] = (struct tune_binding){.n = (uint64_t)(nn ? p.m.k : p.m.n) * p.r};
    return true;
}

/* The same in parts. */
static bool make_split(struct tune_case *c, uint32_t class_, uint32_t which, bool large)
{
    const bool nn = c->op == &op_matmul_nn_split_desc;
    if (!make_matmul(c, class_, which, large))
        return false;
    struct matmul_split_push p = {.splits = 3};
    memcpy(&p.m, c->push.bytes, sizeof p.m);
    p.split_sums = matmul_split_terms(nn ? p.m.n : p.m.k, &p.splits);
    set_push(c, &p, sizeof p);
    c->b[MATMUL_PARTS] = (struct tune_binding){.n = (uint64_t)p.splits * p.m.rows * ((nn ? p.m.k : p.m.n) + 3), .compare = TUNE_IGNORE};
    return true;
}

static bool make_tn(struct tune_case *c, uint32_t class_, uint32_t which, bool large)
{
    static const uint32_t sizes[][2] = {{64, 576}, {192, 64}};
    if (which > 1)
        return false;
    struct matmul_tn_push p = {.rows = class_ == 0 ? large ? 48 : 17 : large ? 512 : 101, .a = large ? sizes[which][0] : 33, .b = large ? sizes[which][1] : 65,
                               .scale = 0.5f, .accumulate = which};
    p.x_stride = p.a + 3, p.y_stride = p.b + 1;
    p.splits = class_ == 0 ? 1 : large ? 8 : 3;
    p.split_rows = matmul_split_terms(p.rows, &p.splits);
    set_push(c, &p, sizeof p);
    c->b[0].n = (uint64_t)p.rows * p.x_stride;
    c->b[1].n = (uint64_t)p.rows * p.y_stride;
    c->b[2].n = (uint64_t)p.a * p.b;
    c->b[3] = (struct tune_binding){.n = p.splits * c->b[2].n, .compare = TUNE_IGNORE};
    snprintf(c->label, sizeof c->label, "%u x %u x %u", p.a, p.rows, p.b);
    return true;
}

/* ---- attention: packed sequences; a wide head is the second case ---- */

static struct attention_push attention_of(uint32_t which, bool large)
{
    struct attention_push p = {.T = large ? 512 : 70, .heads = large ? 8 : 4, .kv_heads = large ? 4 : 2, .head_dim = which ? 128 : 64, .scale = 0.125f};
    return p;
}

/* Two sequences, each seeing itself: the words that attention.h describes. */
static uint32_t *segments(uint32_t T)
{
    uint32_t *seg = words(4ull * T), half = (T + 1) / 2;
    for (uint32_t t = 0; seg && t < T; t++) {
        seg[4 * t] = t < half ? 0 : half;
        seg[4 * t + 3] = t < half ? half : T; /* one past the last token that sees it */
    }
    return seg;
}

static bool make_attention(struct tune_case *c, uint32_t class_, uint32_t which, bool large)
{
    struct attention_push p = attention_of(which, large);
    (void)class_;
    if (which > 1)
        return false;
    set_push(c, &p, sizeof p);
    c->b[0].n = (uint64_t)p.T * attention_qkv_words(&p);
    c->b[1] = (struct tune_binding){.n = 4ull * p.T, .words = segments(p.T)};
    c->b[2].n = (uint64_t)p.T * p.heads * p.head_dim;
    c->b[3] = (struct tune_binding){.n = (uint64_t)p.T * attention_stats_words(&p), .compare = TUNE_IGNORE};
    snprintf(c->label, sizeof c->label, "%u tokens, %u heads of %u", p.T, p.heads, p.head_dim);
    return c->b[1].words != NULL;
}

/* Statistics that fit random values are a forward pass's, which the reference makes; for time any will do. */
static bool make_attention_bwd(struct tune_case *c, uint32_t class_, uint32_t which, bool large)
{
    struct attention_push p = attention_of(which, large);
    (void)class_;
    if (which > 1)
        return false;
    uint64_t n_qkv = (uint64_t)p.T * attention_qkv_words(&p), n_o = (uint64_t)p.T * p.heads * p.head_dim, n_stats = (uint64_t)p.T * attention_stats_words(&p);
    set_push(c, &p, sizeof p);
    c->b[0].n = c->b[4].n = n_qkv;
    c->b[1].n = c->b[2].n = n_o;
    c->b[3] = (struct tune_binding){.n = n_stats, .words = words(n_stats), .compare = TUNE_IGNORE};
    uint32_t *seg = segments(p.T), *stats = c->b[3].words;
    struct tune_case forward = {.op = &op_attention_desc, .push = c->push, .b = {{.n = n_qkv}, {.n = 0}, {.n = n_o}}};
    struct tune_content qkv = {0}, o = {0};
    bool made = seg && stats;
    for (uint32_t t = 0; made && t < p.T; t++)
        memcpy(stats + (uint64_t)t * attention_stats_words(&p), seg + 4ull * t, 16);
    if (made && !large) { /* the same stream of random values as binding 0 of this case will have */
        made = tune_content_make(&forward, 0, true, &qkv) && tune_content_make(&forward, 2, true, &o);
        if (made)
            op_attention_desc.ref((void *[]){qkv.ref, seg, o.ref, stats}, &p);
    }
    tune_content_finish(&qkv);
    tune_content_finish(&o);
    free(seg);
    snprintf(c->label, sizeof c->label, "%u tokens, %u heads of %u", p.T, p.heads, p.head_dim);
    return made;
}

/* A cache of a type that some rows of random keys and values fill. */
static uint32_t *cache_words(const struct attention_push *p, uint32_t rows)
{
    uint32_t n = 2 * p->kv_heads * p->head_dim, state = 5;
    uint32_t *w = words(rows * (uint64_t)attention_kv_words(p));
    float *row = calloc(n, sizeof *row);
    for (uint32_t r = 0; w && row && r < rows; r++) {
        for (uint32_t i = 0; i < n; i++)
            row[i] = (float)(state = state * 1664525u + 1013904223u) / 2147483648.0f - 1;
        op_kv_store((enum op_wtype)p->kv_type, row, n, w + r * attention_kv_words(p));
    }
    free(row);
    return w;
}

/* The cache's bindings: `tables` of blocks that stand in the memory from the last to the first. */
static bool set_cache(struct tune_case *c, struct attention_push *p, uint32_t tables, uint32_t blocks, const uint32_t *pos)
{
    uint32_t *where = words(2ull * p->T + (uint64_t)tables * blocks), n = tables * blocks;
    for (uint32_t t = 0; where && t < p->T; t++) {
        where[2 * t] = 2 * p->T + (tables > 1 ? t * blocks : 0);
        where[2 * t + 1] = pos ? pos[t] : p->pos0 + t;
    }
    for (uint32_t i = 0; where && i < n; i++)
        where[2 * p->T + i] = n - 1 - i;
    p->table = 2 * p->T;
    set_push(c, p, sizeof *p);
    c->b[0].n = (uint64_t)p->T * attention_qkv_words(p);
    c->b[1] = (struct tune_binding){.n = (uint64_t)n * KV_BLOCK * attention_kv_words(p), .words = cache_words(p, n * KV_BLOCK)};
    c->b[2] = (struct tune_binding){.n = 2ull * p->T + n, .words = where};
    c->b[3].n = (uint64_t)p->T * p->heads * p->head_dim; /* not there in kv_append */
    return where && c->b[1].words;
}

static const enum op_wtype cache_types[] = {OP_W_F32, OP_W_F16, OP_W_Q8_0};

/* A token and a prompt for each type of the cache. */
static bool make_cache(struct tune_case *c, uint32_t class_, uint32_t which, bool large)
{
    (void)class_;
    if (which >= 2 * OP_COUNT(cache_types))
        return false;
    struct attention_push p = attention_of(0, large);
    p.kv_type = cache_types[which / 2];
    p.head_dim = up_to(p.head_dim, p.kv_type == OP_W_Q8_0 ? 32 : 2);
    p.T = which % 2 ? large ? 128 : 37 : 1;
    p.pos0 = large ? 500 : 41;
    snprintf(c->label, sizeof c->label, "%u tokens behind %u, %s", p.T, p.pos0, op_wtype_name(cache_types[which / 2]));
    return set_cache(c, &p, 1, op_kv_blocks(p.pos0 + p.T), NULL);
}

/* Sequences of their own in one cache, a token of each. */
static bool make_slots(struct tune_case *c, uint32_t class_, uint32_t which, bool large)
{
    (void)class_;
    if (which >= OP_COUNT(cache_types))
        return false;
    struct attention_push p = attention_of(0, large);
    uint32_t rows = large ? 500 : 70, pos[8];
    p.kv_type = cache_types[which];
    p.head_dim = up_to(p.head_dim, p.kv_type == OP_W_Q8_0 ? 32 : 2);
    p.T = large ? 8 : 3;
    for (uint32_t t = 0; t < p.T; t++)
        pos[t] = rows - 1 - 7 * t;
    snprintf(c->label, sizeof c->label, "%u sequences of %u, %s", p.T, rows, op_wtype_name(cache_types[which]));
    return set_cache(c, &p, p.T, op_kv_blocks(rows), pos);
}

/* ---- the mixture ---- */

static struct gate_push gate_of(bool large)
{
    return (struct gate_push){.rows = large ? 512 : 33, .ul_stride = 40, .u_col = 0, .l_col = 8, .r = 8, .experts = 8, .top_k = 2, .modules = 2, .module_cols = 16, .stats_offset = 3,
                              .stats_stride = 16};
}

static bool make_gate(struct tune_case *c, uint32_t class_, uint32_t which, bool large)
{
    struct gate_push p = gate_of(large);
    (void)class_;
    p.counts = which;
    set_push(c, &p, sizeof p);
    c->b[0].n = (uint64_t)p.rows * p.ul_stride;
    c->b[1].n = (uint64_t)p.rows * p.modules * p.experts * p.r;
    c->b[2].n = which ? p.stats_offset + (uint64_t)p.modules * p.stats_stride : 1;
    snprintf(c->label, sizeof c->label, "%u x %u x %u of %u%s", p.rows, p.modules, p.experts, p.r, which ? ", counted" : "");
    return which < 2;
}

static bool make_mixture_few(struct tune_case *c, uint32_t class_, uint32_t which, bool large)
{
    struct mixture_few_push p = {.rows = which ? 4 : 1, .cols = large ? 1024 : 67, .ul_stride = 40, .u_col = 0, .l_col = 8, .r = 8, .experts = 8, .top_k = 2,
                                 .scale = 2};
    (void)class_;
    p.y_stride = p.cols + 3, p.y_col = 2;
    set_push(c, &p, sizeof p);
    c->b[0].n = (uint64_t)p.rows * p.ul_stride;
    c->b[1].n = (uint64_t)p.cols * p.experts * p.r;
    c->b[2].n = (uint64_t)p.rows * p.y_stride;
    snprintf(c->label, sizeof c->label, "%u x %u", p.rows, p.cols);
    return which < 2;
}

static bool make_linear_few(struct tune_case *c, uint32_t class_, uint32_t which, bool large)
{
    enum op_wtype type = (enum op_wtype)op_class_wtype(c->op, class_);
    uint32_t k = large ? 2048 : 256, n = large ? 2048 : 67, r = 8, experts = 8;
    struct linear_few_push p = {.rows = which ? 4 : 1, .k = k, .x_stride = k, .y_stride = n, .ul_stride = r + experts, .how = type};
    p.n[0] = n, p.scale[0] = 2;
    if (which < 2)
        p.stack_rows = r + experts, p.mix[0] = r | experts << 16 | 2u << 24;
    p.how |= which == 0 ? LINEAR_FEW_TRANSPOSED : 0;
    set_push(c, &p, sizeof p);
    c->b[0].n = (uint64_t)p.rows * k;
    c->b[1] = (struct tune_binding){.n = (uint64_t)n * k, .wtype = type, .rows = n, .cols = k};
    c->b[2].n = c->b[3].n = (uint64_t)p.rows * n;
    c->b[4].n = (uint64_t)p.ul_stride * k;
    c->b[5].n = (uint64_t)p.rows * p.ul_stride;
    c->b[6].n = (uint64_t)n * r * experts;
    snprintf(c->label, sizeof c->label, "%u x %u%s", p.rows, n, which < 2 ? " with an adapter" : "");
    return which < 3;
}

static bool make_gate_bwd(struct tune_case *c, uint32_t class_, uint32_t which, bool large)
{
    struct gate_push p = gate_of(large);
    (void)class_;
    p.balance = which ? 0.25f : 0;
    set_push(c, &p, sizeof p);
    c->b[0].n = c->b[2].n = (uint64_t)p.rows * p.ul_stride;
    c->b[1].n = (uint64_t)p.rows * p.modules * p.experts * p.r;
    c->b[3] = (struct tune_binding){.n = p.stats_offset + (uint64_t)p.modules * p.stats_stride, .lo = 0, .hi = 1};
    snprintf(c->label, sizeof c->label, "%u x %u x %u of %u%s", p.rows, p.modules, p.experts, p.r, which ? ", balanced" : "");
    return which < 2;
}

static bool make_dropout(struct tune_case *c, uint32_t class_, uint32_t which, bool large)
{
    struct dropout_push p = {.n = large ? 16 * 576 : 700, .dropped = large ? 8 * 576 : 333, .module = 3, .layer = 5, .given = which};
    (void)class_;
    set_push(c, &p, sizeof p);
    c->b[0] = (struct tune_binding){.n = p.n, .lo = 0.5f, .hi = 1};
    c->b[1].n = p.n;
    c->b[2] = (struct tune_binding){.n = which ? p.n : 1, .lo = 0.5f, .hi = 1}; /* a mask that keeps all */
    c->b[3] = (struct tune_binding){.n = STEP_WORDS, .words = step_words(0.25f)};
    snprintf(c->label, sizeof c->label, "%u%s", p.n, which ? ", mask given" : "");
    return which < 2 && c->b[3].words;
}

static bool make_dropout_stacks(struct tune_case *c, uint32_t class_, uint32_t which, bool large)
{
    enum { MODULES = 3 };
    uint32_t n = large ? 16 * 576 : 701;
    struct dropout_stacks_push p = {.modules = MODULES, .longest = n, .back = which};
    (void)class_;
    set_push(c, &p, sizeof p);
    c->b[0] = (struct tune_binding){.n = (uint64_t)MODULES * (n + 3), .lo = 0.5f, .hi = 1};
    c->b[1].n = (uint64_t)MODULES * (n + 3);
    c->b[2] = (struct tune_binding){.n = MODULES * DROPOUT_ENTRY, .words = words(MODULES * DROPOUT_ENTRY)};
    c->b[3] = (struct tune_binding){.n = STEP_WORDS, .words = step_words(0.25f)};
    for (uint32_t m = 0; c->b[2].words && m < MODULES; m++)
        memcpy(c->b[2].words + m * DROPOUT_ENTRY, (uint32_t[]){m * (n + 3), m * (n + 2), n - m, n / 2, m, 3}, 6 * sizeof(uint32_t));
    snprintf(c->label, sizeof c->label, "%d x %u%s", MODULES, n, which ? ", back" : "");
    return which < 2 && c->b[2].words && c->b[3].words;
}

/* ---- loss and optimizer ---- */

static bool make_cross_entropy(struct tune_case *c, uint32_t class_, uint32_t which, bool large)
{
    struct cross_entropy_push p = {.n = large ? 64 : 5, .V = large ? 49152 : 259, .grad_scale = 0.125f};
    (void)class_;
    set_push(c, &p, sizeof p);
    c->b[0] = (struct tune_binding){.n = (uint64_t)p.n * p.V, .lo = -8, .hi = 8};
    c->b[1] = (struct tune_binding){.n = p.n, .words = words(p.n)};
    for (uint32_t i = 0; c->b[1].words && i < p.n; i++)
        c->b[1].words[i] = i * 53 % p.V;
    c->b[2] = (struct tune_binding){.n = 2ull * p.n, .compare = TUNE_IGNORE};
    snprintf(c->label, sizeof c->label, "%u x %u", p.n, p.V);
    return which == 0 && c->b[1].words;
}

static bool make_adamw(struct tune_case *c, uint32_t class_, uint32_t which, bool large)
{
    struct optim_push p = {.n = large ? 2000000 : 1029, .beta1 = 0.9f, .rest1 = 0.1f, .beta2 = 0.999f, .rest2 = 0.001f, .eps = 1e-8f, .weight_decay = 0.1f};
    (void)class_;
    set_push(c, &p, sizeof p);
    c->b[0].n = c->b[1].n = p.n;
    c->b[2] = (struct tune_binding){.n = 2ull * p.n, .lo = 0.01f, .hi = 1};
    c->b[3] = (struct tune_binding){.n = STEP_WORDS, .words = step_words(0)};
    snprintf(c->label, sizeof c->label, "%u", p.n);
    return which == 0 && c->b[3].words;
}

static bool make_grad_norm(struct tune_case *c, uint32_t class_, uint32_t which, bool large)
{
    struct optim_push p = {.n = large ? 2000000 : 1029};
    (void)class_;
    p.chunk = op_grad_norm_chunk(p.n);
    set_push(c, &p, sizeof p);
    c->b[0].n = p.n;
    c->b[1] = (struct tune_binding){.n = OP_NORM_PARTIALS, .compare = TUNE_IGNORE};
    c->b[2] = (struct tune_binding){.n = STEP_WORDS, .words = step_words(0), .compare = TUNE_STEP};
    snprintf(c->label, sizeof c->label, "%u", p.n);
    return which == 0 && c->b[2].words;
}

/* ---- rows ---- */

static bool make_rmsnorm(struct tune_case *c, uint32_t class_, uint32_t which, bool large)
{
    struct rmsnorm_push p = {.rows = large ? 512 : 9, .heads = 1, .cols = large ? 576 : 101 + which * 27, .eps = 1e-5f, .accumulate = which, .again = which};
    (void)class_;
    p.x_stride = p.y_stride = p.dx_stride = p.cols;
    set_push(c, &p, sizeof p);
    c->b[0].n = c->b[2].n = (uint64_t)p.rows * p.cols;
    c->b[1].n = p.cols;
    c->b[3].n = (uint64_t)p.rows * p.cols; /* not there in rmsnorm */
    snprintf(c->label, sizeof c->label, "%u x %u", p.rows, p.cols);
    return which < (large ? 1 : 2);
}

static bool make_rope(struct tune_case *c, uint32_t class_, uint32_t which, bool large)
{
    struct rope_push p = {.rows = large ? 512 : 9, .heads = 6, .head_dim = 64, .stride = 6 * 64 + 8, .sign = which ? -1 : 1};
    (void)class_;
    set_push(c, &p, sizeof p);
    c->b[0].n = (uint64_t)p.rows * p.stride;
    c->b[1].n = 50ull * p.head_dim; /* a table of 50 positions; any numbers do as sines */
    c->b[2] = (struct tune_binding){.n = p.rows, .words = words(p.rows)};
    for (uint32_t i = 0; c->b[2].words && i < p.rows; i++)
        c->b[2].words[i] = i * 7 % 50;
    snprintf(c->label, sizeof c->label, "%u x %u heads of %u", p.rows, p.heads, p.head_dim);
    return which < (large ? 1 : 2) && c->b[2].words;
}

static bool make_swiglu(struct tune_case *c, uint32_t class_, uint32_t which, bool large)
{
    struct swiglu_push p = {.T = large ? 512 : 7, .F = large ? 1536 : 132 + which, .again = which};
    uint64_t n = (uint64_t)p.T * p.F;
    (void)class_;
    set_push(c, &p, sizeof p);
    c->b[0] = (struct tune_binding){.n = 2 * n, .lo = -8, .hi = 8};
    c->b[1].n = n;
    c->b[2].n = 2 * n; /* not there in swiglu */
    snprintf(c->label, sizeof c->label, "%u x %u", p.T, p.F);
    return which < (large ? 1 : 2);
}

static bool make_rows(struct tune_case *c, uint32_t class_, uint32_t which, bool large)
{
    struct rows_push p = {.rows = large ? 256 : 5, .cols = large ? 576 : 67, .limit = large ? 512 : 9};
    bool gather = strcmp(c->op->name, "gather_rows") == 0;
    uint64_t dense = (uint64_t)p.rows * p.cols, indexed = (uint64_t)p.limit * p.cols;
    (void)class_;
    set_push(c, &p, sizeof p);
    c->b[0].n = gather ? indexed : dense;
    c->b[1] = (struct tune_binding){.n = p.rows, .words = words(p.rows)};
    for (uint32_t i = 0; c->b[1].words && i < p.rows; i++)
        c->b[1].words[i] = p.limit - 1 - i;
    c->b[2].n = gather ? dense : indexed;
    snprintf(c->label, sizeof c->label, "%u x %u", p.rows, p.cols);
    return which == 0 && c->b[1].words;
}

/* A case a weight type. */
static bool make_embedding(struct tune_case *c, uint32_t class_, uint32_t which, bool large)
{
    (void)class_;
    if (which >= OP_W_TYPES)
        return false;
    enum op_wtype type = (enum op_wtype)which;
    struct embedding_push p = {.rows = large ? 512 : 7, .n = large ? 4096 : 40, .k = up_to(large ? 576 : 96, op_wtype_block(type)), .wtype = type};
    struct op_weight_layout layout;
    if (!op_weight_layout(type, p.n, p.k, &layout))
        return false;
    p.scales = (uint32_t)layout.scales;
    set_push(c, &p, sizeof p);
    c->b[0] = (struct tune_binding){.n = p.rows, .words = words(p.rows)};
    for (uint32_t i = 0; c->b[0].words && i < p.rows; i++)
        c->b[0].words[i] = i * 11 % p.n;
    c->b[1] = (struct tune_binding){.n = (uint64_t)p.n * p.k, .wtype = type, .rows = p.n, .cols = p.k};
    c->b[2].n = (uint64_t)p.rows * p.k;
    snprintf(c->label, sizeof c->label, "%u x %u %s", p.rows, p.k, op_wtype_name(type));
    return c->b[0].words != NULL;
}

/* ---- the table ---- */

static const struct {
    const char *op;
    bool (*make)(struct tune_case *c, uint32_t class_, uint32_t which, bool large);
} makers[] = {
    {"adamw", make_adamw},
    {"attention", make_attention},
    {"attention_bwd", make_attention_bwd},
    {"kv_append", make_cache},
    {"attention_cache", make_cache},
    {"attention_slots", make_slots},
    {"cross_entropy", make_cross_entropy},
    {"dropout", make_dropout},
    {"dropout_stacks", make_dropout_stacks},
    {"embedding", make_embedding},
    {"gate", make_gate},
    {"gate_bwd", make_gate_bwd},
    {"grad_norm", make_grad_norm},
    {"linear_few", make_linear_few},
    {"linear_nn", make_linear},
    {"linear_nt", make_linear},
    {"matmul_nn", make_matmul},
    {"matmul_nn_split", make_split},
    {"matmul_nt", make_matmul},
    {"matmul_nt_split", make_split},
    {"matmul_tn", make_tn},
    {"mixture_few", make_mixture_few},
    {"rmsnorm", make_rmsnorm},
    {"rmsnorm_bwd", make_rmsnorm},
    {"rope", make_rope},
    {"swiglu", make_swiglu},
    {"swiglu_bwd", make_swiglu},
    {"gather_rows", make_rows},
    {"scatter_rows", make_rows},
};

bool tune_case_make(const struct op *op, uint32_t class_, uint32_t which, bool large, struct tune_case *out)
{
    *out = (struct tune_case){.op = op};
    for (size_t i = 0; i < sizeof makers / sizeof *makers; i++)
        if (strcmp(makers[i].op, op->name) == 0 && makers[i].make(out, class_, which, large))
            return true;
    tune_case_finish(out);
    return false;
}

void tune_case_finish(struct tune_case *c)
{
    for (int i = 0; i < OP_MAX_BINDINGS; i++)
        free(c->b[i].words);
    *c = (struct tune_case){0};
}
