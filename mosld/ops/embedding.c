/* mosld/ops/embedding.c - y[t, :] = W[tokens[t], :], rows of a frozen weight of any type as f32.
 *
 * tokens: u32 [rows], W: one chunk [n, k] whose first row is row0, y: [rows, k]. A token whose row is in another chunk
 * leaves its row of y as it is. W is frozen, so there is no backward. */
#include "mosld/ops/matmul_common.h"
#include "mosld/ops/rows_common.h"

#include <string.h>

enum { TOKENS, W, Y };

static void embedding_ref(void *const *b, const void *push)
{
    const struct embedding_push *p = push;
    const uint32_t *tokens = b[TOKENS];
    const double *w = (const double *)b[W] + p->w_offset;
    double *y = b[Y];
    for (uint64_t t = 0; t < p->rows; t++) {
        uint32_t row = tokens[t] - p->row0;
        for (uint64_t c = 0; c < p->k && row < p->n; c++)
            y[t * p->k + c] = w[(uint64_t)row * p->k + c];
    }
}

static void embedding_host(struct rt_device *dev, void *const *b, const void *push)
{
    (void)dev; /* a few rows: not worth waking threads */
    const struct embedding_push *p = push;
    const uint32_t *tokens = b[TOKENS];
    for (size_t t = 0; t < p->rows; t++) {
        uint32_t row = tokens[t] - p->row0;
        if (row < p->n)
            op_weight_unpack(p->wtype, p->n, p->k, (const uint32_t *)b[W] + p->w_offset, row, 1,
                             (float *)b[Y] + t * p->k);
    }
}

static void group_a_row(const void *push, uint32_t groups[3])
{
    groups[0] = op_groups(((const struct embedding_push *)push)->rows, 1);
}

#define EMBEDDING_TYPE(type, number, unused)                                                                                   \
    static bool is_##type(const void *push) { return ((const struct embedding_push *)push)->wtype == (number); }       \
    static const struct op_kernel kernel_##type = {                                                                    \
        .kernel = {"embedding." #type,                                                                                 \
                   sizeof(struct embedding_push),                                                                      \
                   3,                                                                                                  \
                   {{"tokens", RT_READ}, {"w", RT_READ}, {"y", RT_WRITE_BY_GROUPS}}},                                            \
        .map = {TOKENS, W, Y},                                                                                         \
        .grid = group_a_row,                                                                                           \
    };
OP_W_EACH(EMBEDDING_TYPE, OP_W_NOTHING, unused)

#define EMBEDDING_VARIANT(type, number, unused)                                                                        \
    {                                                                                                                  \
        .name = #type, .kind = RT_VULKAN, .applies = is_##type, .wtypes = 1u << (number),                              \
        .kernels = { &kernel_##type },                                                                                 \
    }
static const struct op_variant variants[] = {
    {.name = "host", .kind = RT_HOST, .host = embedding_host},
    OP_W_EACH(EMBEDDING_VARIANT, OP_W_COMMA, unused),
};

static double embedding_bytes(const void *push)
{
    const struct embedding_push *p = push;
    return p->rows * (4.0 * p->k + (double)op_weight_bytes((enum op_wtype)p->wtype, 1, p->k));
}

const struct op op_embedding_desc = {
    .name = "embedding",
    .n_bindings = 3,
    .bindings = {{"tokens", RT_READ, OP_U32}, {"w", RT_READ, OP_WEIGHT}, {"y", RT_WRITE, OP_F32}},
    .push_size = sizeof(struct embedding_push),
    .ref = embedding_ref,
    .bytes = embedding_bytes,
    .n_variants = OP_COUNT(variants),
    .variants = variants,
};

enum rt_status op_embedding(struct rt_device *dev, struct rt_span tokens, const struct op_weight *w, struct rt_span y,
                            uint32_t T, struct rt_error *err)
{
    const char *name = op_embedding_desc.name;
    enum rt_status st = op_check_rows(name, "tokens", tokens, T, 1, 0, 1, err);
    if (!st)
        st = op_check_rows(name, "y", y, T, w->cols, 0, w->cols, err);
    for (uint32_t i = 0; i < w->n_chunks && T && !st; i++) {
        const struct op_weight_chunk *c = op_weight_chunk(w, i);
        struct op_weight_layout layout;
        st = op_weight_check(name, w, c, &layout, err);
        struct embedding_push p = {
            .rows = T,
            .row0 = c->row0,
            .n = c->rows,
            .k = w->cols,
            .w_offset = w->offset,
            .scales = (uint32_t)layout.scales,
            .wtype = w->type,
        };
        if (!st)
            st = op_launch(dev, &op_embedding_desc, (struct rt_span[]){tokens, c->span, y}, &p, err);
    }
    return st;
}
