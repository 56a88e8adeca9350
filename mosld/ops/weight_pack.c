/* mosld/ops/weight_pack.c - from a file's blocks to the layout of weight.h: quants in the order of columns, scales apart.
 *
 * Blocks are taken apart into one number a column and put together as words; nothing is rounded, so a chunk has the values of the file. */
#include "mosld/ops/weight_layout.h"

#include <string.h>

/* 16-bit values, each row padded to a word. */
static void pack_half(uint32_t rows, uint32_t cols, const unsigned char *raw, uint32_t *out)
{
    size_t words = cols / 2 + cols % 2;
    for (size_t r = 0; r < rows; r++, raw += (size_t)cols * 2, out += words) {
        if (cols % 2)
            out[words - 1] = 0;
        memcpy(out, raw, (size_t)cols * 2);
    }
}

/* `bits` of each of 32 / bits numbers from bit `from` on, lowest first. */
static uint32_t join(const unsigned char *q, unsigned bits, unsigned from)
{
    uint32_t word = 0;
    for (unsigned i = 0; i < 32 / bits; i++)
        word |= (uint32_t)(q[i] >> from & ((1u << bits) - 1)) << (i * bits);
    return word;
}

/* 32 numbers as words: `low` bits of each (2 or 4), then `high` of the next (0, 1 or 2). */
static uint32_t *put_block(const unsigned char *q, unsigned low, unsigned high, uint32_t *out)
{
    for (unsigned i = 0; i < 32; i += 32 / low)
        *out++ = join(q + i, low, 0);
    for (unsigned i = 0; high && i < 32; i += 32 / high)
        *out++ = join(q + i, high, low);
    return out;
}

/* ---- blocks of 32 ---- */

static void pack_q8_0(uint64_t blocks, const unsigned char *raw, uint32_t *quants, unsigned char *scales)
{
    for (uint64_t b = 0; b < blocks; b++, raw += 34) {
        memcpy(scales + b * 2, raw, 2);
        memcpy(&quants[b * 8], raw + 2, 32);
    }
}

/* GGUF keeps columns 0..15 of a block in the low nibbles of its 16 bytes and 16..31 in the high ones; here a word has
 * eight neighbouring columns. Its fifth bits, where there are any, already lie in the order of columns. */
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

static void pack_32(uint64_t blocks, unsigned scale_bytes, bool fifth, const unsigned char *raw, uint32_t *quants, unsigned char *scales)
{
    for (uint64_t b = 0; b < blocks; b++, quants += fifth ? 5 : 4) {
        memcpy(scales + b * scale_bytes, raw, scale_bytes);
        raw += scale_bytes;
        if (fifth) {
            memcpy(&quants[4], raw, 4);
            raw += 4;
        }
        pack_nibbles(raw, quants);
        raw += 16;
    }
}

/* ---- blocks of 256: numbers q[256], and the 20 bytes of scales of weight.h ---- */

struct super {
    unsigned char q[OP_W_SUPER];
    unsigned char scales[20];
};

/* Groups of 32 columns lie in 32 neighbouring bytes, four of them one above the other. */
static unsigned two_bits(const unsigned char *raw, int i) { return raw[i / 128 * 32 + i % 32] >> (i % 128 / 32 * 2) & 3u; }

static void take_q2_k(const unsigned char *raw, struct super *s)
{
    memcpy(s->scales, raw + 80, 4);
    memcpy(s->scales + 4, raw, 16);
    for (int i = 0; i < OP_W_SUPER; i++)
        s->q[i] = (unsigned char)two_bits(raw + 16, i);
}

static void take_q3_k(const unsigned char *raw, struct super *s)
{
    const unsigned char *packed = raw + 96;
    memcpy(s->scales, raw + 108, 2);
    memset(s->scales + 2, 0, 2);
    for (int i = 0; i < 16; i++)
        s->scales[4 + i] = (unsigned char)(((packed[i % 8] >> (i / 8 * 4) & 15) | (packed[8 + i % 4] >> (i / 4 * 2) & 3) << 4) - 32);
    for (int i = 0; i < OP_W_SUPER; i++)
        s->q[i] = (unsigned char)(two_bits(raw + 32, i) | (raw[i % 32] >> (i / 32) & 1u) << 2);
}

static void take_q45_scales(const unsigned char *raw, struct super *s)
{
    const unsigned char *packed = raw + 4;
    memcpy(s->scales, raw, 4);
    for (int i = 0; i < 4; i++) {
        unsigned char *low = s->scales + 4 + 2 * i, *high = s->scales + 12 + 2 * i;
        low[0] = packed[i] & 63;
        low[1] = packed[i + 4] & 63;
        high[0] = (unsigned char)((packed[i + 8] & 15) | packed[i] >> 6 << 4);
        high[1] = (unsigned char)(packed[i + 8] >> 4 | packed[i + 4] >> 6 << 4);
    }
}

static void take_q4_k(const unsigned char *raw, struct super *s)
{
    take_q45_scales(raw, s);
    for (int i = 0; i < OP_W_SUPER; i++)
        s->q[i] = raw[16 + i / 64 * 32 + i % 32] >> (i % 64 / 32 * 4) & 15;
}

static void take_q5_k(const unsigned char *raw, struct super *s)
{
    take_q45_scales(raw, s);
    for (int i = 0; i < OP_W_SUPER; i++)
        s->q[i] = (unsigned char)((raw[48 + i / 64 * 32 + i % 32] >> (i % 64 / 32 * 4) & 15) | (raw[16 + i % 32] >> (i / 32) & 1) << 4);
}

static void take_q6_k(const unsigned char *raw, struct super *s)
{
    memcpy(s->scales, raw + 208, 2);
    memset(s->scales + 2, 0, 2);
    memcpy(s->scales + 4, raw + 192, 16);
    for (int i = 0; i < OP_W_SUPER; i++) {
        int group = i % 128 / 32;
        unsigned low = raw[i / 128 * 64 + group % 2 * 32 + i % 32] >> (group / 2 * 4) & 15u;
        s->q[i] = (unsigned char)(low | two_bits(raw + 128, i) << 4);
    }
}

static void pack_k(uint64_t blocks, size_t raw_bytes, void (*take)(const unsigned char *, struct super *), unsigned low, unsigned high,
                   const unsigned char *raw, uint32_t *quants, unsigned char *scales)
{
    struct super s;
    for (uint64_t b = 0; b < blocks; b++, raw += raw_bytes, scales += sizeof s.scales) {
        take(raw, &s);
        memcpy(scales, s.scales, sizeof s.scales);
        for (int i = 0; i < OP_W_SUPER; i += 32)
            quants = put_block(s.q + i, low, high, quants);
    }
}

void op_weight_pack(enum op_wtype type, uint32_t rows, uint32_t cols, const void *raw, void *out)
{
    struct op_weight_layout layout;
    if (!op_weight_layout(type, rows, cols, &layout) || layout.words == 0)
        return;
    uint32_t *words = out;
    unsigned char *scales = (unsigned char *)(words + layout.scales);
    uint64_t blocks = (uint64_t)rows * (cols / op_wtype_block(type));
    if (type >= OP_W_Q8_0)
        memset(&words[layout.words - 1], 0, 4); /* an odd number of halves leaves half a word of scales */
    switch (type) {
    case OP_W_F32: memcpy(out, raw, layout.words * 4); break;
    case OP_W_F16:
    case OP_W_BF16: pack_half(rows, cols, raw, words); break;
    case OP_W_Q8_0: pack_q8_0(blocks, raw, words, scales); break;
    case OP_W_Q4_0:
    case OP_W_IQ4_NL: pack_32(blocks, 2, false, raw, words, scales); break;
    case OP_W_Q4_1: pack_32(blocks, 4, false, raw, words, scales); break;
    case OP_W_Q5_0: pack_32(blocks, 2, true, raw, words, scales); break;
    case OP_W_Q5_1: pack_32(blocks, 4, true, raw, words, scales); break;
    case OP_W_Q2_K: pack_k(blocks, 84, take_q2_k, 2, 0, raw, words, scales); break;
    case OP_W_Q3_K: pack_k(blocks, 110, take_q3_k, 2, 1, raw, words, scales); break;
    case OP_W_Q4_K: pack_k(blocks, 144, take_q4_k, 4, 0, raw, words, scales); break;
    case OP_W_Q5_K: pack_k(blocks, 176, take_q5_k, 4, 1, raw, words, scales); break;
    default: pack_k(blocks, 210, take_q6_k, 4, 2, raw, words, scales); break;
    }
}
