/* mosld/ops/weight.c - the layout of frozen weights: sizes and chunks. Reading:
 * weight_read.c; repacking: weight_pack.c. */
#include "mosld/ops/weight.h"

#include "mosld/ops/weight_layout.h"

#include <stdlib.h>
#include <string.h>

/* In the order of enum op_wtype. */
static const struct {
    const char *name;
    uint16_t block;       /* columns that share a scale */
    uint16_t words;       /* 32-bit words of 32 columns of quants; of plain types, of a row of 32 */
    uint16_t scale_halves; /* of a block */
} kinds[OP_W_TYPES] = {
    {"f32", 1, 32, 0},   {"f16", 1, 16, 0},   {"bf16", 1, 16, 0},    {"q8_0", 32, 8, 1},   {"q4_0", 32, 4, 1},
    {"q4_1", 32, 4, 2},  {"q5_0", 32, 5, 1},  {"q5_1", 32, 5, 2},    {"iq4_nl", 32, 4, 1}, {"q2_k", 256, 2, 10},
    {"q3_k", 256, 3, 10}, {"q4_k", 256, 4, 10}, {"q5_k", 256, 5, 10}, {"q6_k", 256, 6, 10},
};

const char *op_wtype_name(enum op_wtype type) { return (unsigned)type < OP_W_TYPES ? kinds[type].name : "unknown"; }
uint32_t op_wtype_block(enum op_wtype type) { return (unsigned)type < OP_W_TYPES ? kinds[type].block : 1; }

struct op_weight op_weight_f32(struct rt_span span, uint32_t rows, uint32_t cols)
{
    return (struct op_weight){.type = OP_W_F32, .rows = rows, .cols = cols, .n_chunks = 1, .one = {span, 0, rows}};
}

const struct op_weight_chunk *op_weight_chunk(const struct op_weight *w, uint32_t i)
{
    return w->chunks ? &w->chunks[i] : &w->one;
}

/* ---- sizes ---- */

static uint64_t row_words(enum op_wtype type, uint64_t cols)
{
    switch (type) {
    case OP_W_F32: return cols;
    case OP_W_F16:
    case OP_W_BF16: return cols / 2 + cols % 2;
    default: return cols / OP_W_BLOCK * kinds[type].words;
    }
}

bool op_weight_layout(enum op_wtype type, uint64_t rows, uint64_t cols, struct op_weight_layout *out)
{
    uint64_t quants, halves, words;
    *out = (struct op_weight_layout){0};
    if ((unsigned)type >= OP_W_TYPES || cols % kinds[type].block)
        return false;
    uint64_t row_scales = cols / kinds[type].block * kinds[type].scale_halves;
    if (__builtin_mul_overflow(rows, row_words(type, cols), &quants) || __builtin_mul_overflow(rows, row_scales, &halves) ||
        __builtin_add_overflow(quants, halves / 2 + halves % 2, &words) || words > UINT64_MAX / 4)
        return false;
    *out = (struct op_weight_layout){
        .row_words = row_words(type, cols), .scales = quants, .row_scales = row_scales, .words = words};
    return true;
}

uint64_t op_weight_bytes(enum op_wtype type, uint64_t rows, uint64_t cols)
{
    struct op_weight_layout layout;
    return op_weight_layout(type, rows, cols, &layout) ? layout.words * 4 : 0;
}

struct op_weight_part op_weight_part(enum op_wtype type, uint32_t rows, uint32_t cols, uint32_t row0, uint32_t n)
{
    struct op_weight_layout l;
    if (!op_weight_layout(type, rows, cols, &l))
        return (struct op_weight_part){0};
    return (struct op_weight_part){row0 * l.row_words * 4, n * l.row_words * 4, l.scales * 4 + row0 * l.row_scales * 2,
                                   (n * l.row_scales + 1) / 2 * 4};
}

/* ---- chunks ---- */

/* The most rows of which a chunk fits `limit` bytes; 0 when not even one does. */
static uint64_t rows_below(enum op_wtype type, uint64_t rows, uint64_t cols, uint64_t limit)
{
    uint64_t low = 0, high = rows;
    while (low < high) {
        uint64_t mid = low + (high - low + 1) / 2;
        if (op_weight_bytes(type, mid, cols) <= limit)
            low = mid;
        else
            high = mid - 1;
    }
    return low;
}

enum rt_status op_weight_plan(struct rt_device *dev, struct rt_arena *arena, enum op_wtype type, uint32_t rows,
                              uint32_t cols, const char *label, struct op_weight *w, struct rt_error *err)
{
    *w = (struct op_weight){.type = type, .rows = rows, .cols = cols};
    const struct rt_limits *limits = &rt_device_info(dev)->limits;
    uint64_t limit = limits->max_range < limits->max_buffer ? limits->max_range : limits->max_buffer;
    /* Kernels count words in 32 bits. */
    if (limit > (uint64_t)UINT32_MAX * 4)
        limit = (uint64_t)UINT32_MAX * 4;
    if (rows == 0 || cols == 0 || op_weight_bytes(type, rows, cols) == 0)
        return rt_fail(err, RT_BAD_FILE, "%s: a %s matrix of %u x %u is not supported%s", label, op_wtype_name(type),
                       rows, cols, rows && cols ? ": rows of quantised types are whole blocks" : "");
    uint64_t most = rows_below(type, rows, cols, limit);
    if (most == 0)
        return rt_fail(err, RT_NO_DEVICE, "%s: one row of %u %s values exceeds the %llu bytes that %s can bind", label,
                       cols, op_wtype_name(type), (unsigned long long)limit, rt_device_info(dev)->name);
    /* Chunks of about the same size: launches of about the same length. */
    uint64_t count = (rows + most - 1) / most, each = (rows + count - 1) / count;
    w->chunks = calloc(count, sizeof *w->chunks);
    if (!w->chunks)
        return rt_fail(err, RT_NO_MEMORY, "%s: no memory for a list of %llu pieces", label, (unsigned long long)count);
    enum rt_status st = RT_OK;
    for (uint64_t row0 = 0; row0 < rows && !st; row0 += each) {
        struct op_weight_chunk *c = &w->chunks[w->n_chunks++];
        c->row0 = (uint32_t)row0;
        c->rows = (uint32_t)(rows - row0 < each ? rows - row0 : each);
        st = rt_arena_add(arena, op_weight_bytes(type, c->rows, cols), label, &c->span, err);
    }
    if (st)
        op_weight_finish(w);
    return st;
}

void op_weight_finish(struct op_weight *w)
{
    if (!w)
        return;
    free(w->chunks);
    *w = (struct op_weight){0};
}
