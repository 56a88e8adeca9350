/* mosld/ops/weight.c - the layout of frozen weights: sizes, chunks, and repacking from a file's blocks. Reading:
 * weight_read.c. */
#include "mosld/ops/weight.h"

#include "mosld/ops/weight_layout.h"

#include <stdlib.h>
#include <string.h>

const char *op_wtype_name(enum op_wtype type)
{
    static const char *const names[OP_W_TYPES] = {"f32", "f16", "bf16", "q8_0", "q4_0", "q4_1"};
    return (unsigned)type < OP_W_TYPES ? names[type] : "unknown";
}

struct op_weight op_weight_f32(struct rt_span span, uint32_t rows, uint32_t cols)
{
    return (struct op_weight){.type = OP_W_F32, .rows = rows, .cols = cols, .n_chunks = 1, .one = {span, 0, rows}};
}

const struct op_weight_chunk *op_weight_chunk(const struct op_weight *w, uint32_t i)
{
    return w->chunks ? &w->chunks[i] : &w->one;
}

/* ---- sizes ---- */

static bool cols_fit(enum op_wtype type, uint64_t cols)
{
    return (unsigned)type < OP_W_TYPES && (type < OP_W_Q8_0 || cols % OP_W_BLOCK == 0);
}

static uint64_t row_words(enum op_wtype type, uint64_t cols)
{
    switch (type) {
    case OP_W_F32: return cols;
    case OP_W_F16:
    case OP_W_BF16: return cols / 2 + cols % 2;
    case OP_W_Q8_0: return cols / 4;
    default: return cols / 8;
    }
}

bool op_weight_layout(enum op_wtype type, uint64_t rows, uint64_t cols, struct op_weight_layout *out)
{
    uint64_t quants, blocks = 0, scales = 0, words;
    *out = (struct op_weight_layout){0};
    if (!cols_fit(type, cols) || __builtin_mul_overflow(rows, row_words(type, cols), &quants))
        return false;
    if (type >= OP_W_Q8_0) {
        if (__builtin_mul_overflow(rows, cols / OP_W_BLOCK, &blocks))
            return false;
        scales = type == OP_W_Q4_1 ? blocks : blocks / 2 + blocks % 2;
    }
    if (__builtin_add_overflow(quants, scales, &words) || words > UINT64_MAX / 4)
        return false;
    *out = (struct op_weight_layout){.row_words = row_words(type, cols), .scales = quants, .words = words};
    return true;
}

uint64_t op_weight_bytes(enum op_wtype type, uint64_t rows, uint64_t cols)
{
    struct op_weight_layout layout;
    return op_weight_layout(type, rows, cols, &layout) ? layout.words * 4 : 0;
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
                       rows, cols, rows && cols ? ": quantised rows are multiples of 32 values" : "");
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

/* ---- repacking ---- */

/* 16-bit values, each row padded to a word. */
static void pack_half(uint32_t rows, uint32_t cols, const unsigned char *raw, uint32_t *out)
{
    size_t words = row_words(OP_W_F16, cols);
    for (size_t r = 0; r < rows; r++, raw += (size_t)cols * 2, out += words) {
        if (cols % 2)
            out[words - 1] = 0;
        memcpy(out, raw, (size_t)cols * 2);
    }
}

static void pack_q8_0(uint64_t blocks, const unsigned char *raw, uint32_t *quants, unsigned char *scales)
{
    for (uint64_t b = 0; b < blocks; b++, raw += 34) {
        memcpy(scales + b * 2, raw, 2);
        memcpy(&quants[b * 8], raw + 2, 32);
    }
}

/* GGUF keeps columns 0..15 of a block in the low nibbles of its 16 bytes and 16..31 in the high ones; here a word has
 * eight neighbouring columns. */
static void pack_nibbles(const unsigned char *q, uint32_t *out)
{
    for (int w = 0; w < 4; w++) {
        uint32_t word = 0;
        for (int j = 0; j < 8; j++) {
            int col = w * 8 + j;
            word |= (uint32_t)(q[col % 16] >> (col / 16 * 4) & 15) << (4 * j);
        }
        out[w] = word;
    }
}

static void pack_q4(uint64_t blocks, unsigned scale_bytes, const unsigned char *raw, uint32_t *quants,
                    unsigned char *scales)
{
    for (uint64_t b = 0; b < blocks; b++, raw += scale_bytes + 16) {
        memcpy(scales + b * scale_bytes, raw, scale_bytes);
        pack_nibbles(raw + scale_bytes, &quants[b * 4]);
    }
}

void op_weight_pack(enum op_wtype type, uint32_t rows, uint32_t cols, const void *raw, void *out)
{
    struct op_weight_layout layout;
    if (!op_weight_layout(type, rows, cols, &layout) || layout.words == 0)
        return;
    uint32_t *words = out;
    uint64_t blocks = (uint64_t)rows * (cols / OP_W_BLOCK);
    if (type >= OP_W_Q8_0)
        memset(&words[layout.words - 1], 0, 4); /* an odd number of blocks leaves half a word of scales */
    switch (type) {
    case OP_W_F32: memcpy(out, raw, layout.words * 4); break;
    case OP_W_F16:
    case OP_W_BF16: pack_half(rows, cols, raw, words); break;
    case OP_W_Q8_0: pack_q8_0(blocks, raw, words, (unsigned char *)(words + layout.scales)); break;
    case OP_W_Q4_0: pack_q4(blocks, 2, raw, words, (unsigned char *)(words + layout.scales)); break;
    default: pack_q4(blocks, 4, raw, words, (unsigned char *)(words + layout.scales)); break;
    }
}
