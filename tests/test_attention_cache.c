/* tests/test_attention_cache.c - generation: appending to the cache and attending over it, a token and a prompt at a
 * time. */
#include "mosld/ops/attention_common.h"
#include "tests/support/attention_case.h"
#include "tests/support/gradient.h"
#include "tests/support/op_test.h"

#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* One token at the start and far on, parts of the keys that end just there, prompts off a tile, more parts than the
 * most. */
static const struct shape {
    uint32_t T, pos0, heads, kv_heads, head_dim;
} shapes[] = {
    {0, 5, 2, 1, 8},    {1, 0, 1, 1, 2},     {1, 255, 9, 3, 64}, {1, 256, 9, 3, 64},
    {3, 700, 4, 1, 66}, {8, 130, 2, 2, 256}, {2, 64, 3, 3, 130}, {9, 0, 2, 1, 128},
    {40, 33, 6, 2, 64}, {70, 0, 2, 2, 20},   {65, 64, 2, 1, 10}, {1, 9000, 2, 1, 4},
};

static const enum op_wtype types[] = {OP_W_F32, OP_W_F16, OP_W_Q8_0};

/* Rows of random numbers in the cache's type, as op_kv_store leaves them. */
static uint32_t *random_cache(const struct attention_push *p, uint32_t rows)
{
    uint32_t n = 2 * p->kv_heads * p->head_dim;
    uint64_t state = 9;
    size_t words = attention_kv_words(p);
    uint32_t *cache = calloc(rows * words + 1, sizeof *cache);
    float *row = calloc(n, sizeof *row);
    for (uint32_t r = 0; r < rows; r++) {
        for (uint32_t i = 0; i < n; i++)
            row[i] = test_uniform(&state, -1, 1);
        op_kv_store((enum op_wtype)p->kv_type, row, n, cache + r * words);
    }
    free(row);
    return cache;
}

/* Tokens at `pos` of the sequences `of` (NULL: all of one); the blocks of all sequences lie in the memory in a mixed order. */
static void run_case(struct attention_push *p, const struct op *op, const uint32_t *of, const uint32_t *pos, uint32_t sequences, uint32_t blocks)
{
    uint32_t n = sequences * blocks, *where = calloc(2 * p->T + n + 1, sizeof *where), step = 7;
    while (n % step == 0)
        step += 2;
    for (uint32_t t = 0; t < p->T; t++) {
        where[2 * t] = 2 * p->T + (of ? of[t] * blocks : 0);
        where[2 * t + 1] = pos ? pos[t] : p->pos0 + t;
    }
    for (uint32_t i = 0; i < n; i++)
        where[2 * p->T + i] = i * step % n;
    p->table = 2 * p->T;
    uint32_t *cache = random_cache(p, n * KV_BLOCK);
    char label[120];
    snprintf(label, sizeof label, "%s, T %u pos0 %u heads %u/%u D %u window %u", op_wtype_name((enum op_wtype)p->kv_type), p->T, p->pos0, p->heads,
             p->kv_heads, p->head_dim, p->window);
    struct op_case c = {.label = label,
                        .push = p,
                        .atol = 4e-6, /* as in test_attention.c: means of values below one, weights good to 2e-6 */
                        .b = {{.n = (uint64_t)p->T * attention_qkv_words(p)},
                              {.n = (uint64_t)n * KV_BLOCK * attention_kv_words(p), .words = cache},
                              {.n = 2ull * p->T + n, .words = where},
                              {.n = (uint64_t)p->T * p->heads * p->head_dim}}};
    op_test_run(op, &c);
    if (op == &op_attention_cache_desc) /* what it stores: to the bit, in every type */
        op_test_run(&op_kv_append_desc, &c);
    free(cache);
    free(where);
}

static void variants_agree_at(uint32_t i, enum op_wtype type, uint32_t window)
{
    const struct shape *s = &shapes[i];
    if (!op_kv_suits(type, s->head_dim))
        return;
    struct attention_push p = {.T = s->T, .heads = s->heads, .kv_heads = s->kv_heads, .head_dim = s->head_dim, .pos0 = s->pos0, .window = window,
                               .kv_type = type, .scale = (float)(1 / sqrt(s->head_dim))};
    run_case(&p, &op_attention_cache_desc, NULL, NULL, 1, op_kv_blocks(s->pos0 + s->T) + 1);
}

START_TEST(variants_agree)
{
    static const uint32_t windows[] = {0, 1, 50, 300};
    for (uint32_t i = 0; i < OP_COUNT(shapes); i++)
        for (uint32_t t = 0; t < OP_COUNT(types); t++)
            for (uint32_t w = 0; w < (i < 9 ? OP_COUNT(windows) : 1); w++)
                variants_agree_at(i, types[t], windows[w]);
}
END_TEST

/* One token each of sequences of several lengths. */
START_TEST(slots_agree)
{
    static const struct {
        uint32_t heads, kv_heads, head_dim;
    } forms[] = {{9, 3, 64}, {2, 1, 2}, {4, 4, 130}, {2, 1, 256}};
    enum { T = 6 };
    static const uint32_t of[T] = {5, 0, 1, 2, 4, 3}, pos[T] = {0, 255, 256, 0, 130, 391};
    for (uint32_t i = 0; i < OP_COUNT(forms); i++)
        for (uint32_t t = 0; t < OP_COUNT(types); t++)
            for (uint32_t window = 0; window < 200 && op_kv_suits(types[t], forms[i].head_dim); window += 100) {
                struct attention_push p = {.T = T, .heads = forms[i].heads, .kv_heads = forms[i].kv_heads, .head_dim = forms[i].head_dim,
                                           .kv_type = types[t], .window = window, .scale = (float)(1 / sqrt(forms[i].head_dim))};
                run_case(&p, &op_attention_slots_desc, of, pos, T, op_kv_blocks(392));
            }
}
END_TEST

/* What rounds with difficulty: halves' ties, the smallest and the largest, blocks of zeros, of one number, of numbers whose scale is a subnormal half. */
START_TEST(what_is_stored)
{
    enum { T = 3, D = 64 };
    float qkv[T][3 * D] = {0};
    uint64_t state = 3;
    static const float hard[] = {0, -0.0f, 1, 1 + 0x1p-11f, 1 + 0x3p-11f, 0x1p-24f, 0x1p-25f, 0x1.8p-24f, 65519, 65520, 1e30f, -1e30f, 0x1.ffep-15f, 0x1.fffp-15f};
    for (uint32_t i = 0; i < 2 * D; i++) {
        qkv[0][D + i] = hard[i % OP_COUNT(hard)];
        qkv[1][D + i] = i < 32 ? 0 : i < 64 ? test_uniform(&state, -1e-3f, 1e-3f) : i < 96 ? (float)((int)i - 80) * 0.5f : test_uniform(&state, -1e-6f, 1e-6f);
        qkv[2][D + i] = i < 64 ? (float)(2 * (int)i - 63) * 0.5f / 127 : -3.5f;
    }
    for (uint32_t t = 0; t < OP_COUNT(types); t++) {
        struct attention_push p = {.T = T, .heads = 1, .kv_heads = 1, .head_dim = D, .kv_type = types[t]};
        const uint32_t where[2 * T + 2] = {6, 2, 6, 66, 6, 1, 1, 0};
        struct op_case c = {.label = op_wtype_name(types[t]), .push = &p,
                            .b = {{.n = T * 3 * D, .values = qkv[0]}, {.n = 2 * KV_BLOCK * attention_kv_words(&p)}, {.n = 2 * T + 2, .words = where}}};
        op_test_run(&op_kv_append_desc, &c);
    }
}
END_TEST

/* A sequence in pieces of 1, 5 and 30 tokens gives what it gives in one pass. */
static void run_in_pieces(struct rt_device *dev)
{
    enum { T = 36, H = 4, HK = 2, D = 32, ROW = (H + 2 * HK) * D, O = H * D };
    static float qkv[T * ROW], o[T * O], piece_o[30 * O];
    struct rt_error err = {0};
    uint64_t state = 5;
    for (int i = 0; i < T * ROW; i++)
        qkv[i] = test_uniform(&state, -1, 1);
    uint32_t *seg = attention_segments(PACK_ONE, T);
    struct op_attention a = {.qkv = test_span(dev, sizeof qkv, qkv),
                             .seg = test_span(dev, 16 * T, seg),
                             .o = test_span(dev, sizeof o, NULL),
                             .stats = test_span(dev, 4 * T * (4 + 2 * H), NULL),
                             .T = T,
                             .heads = H,
                             .kv_heads = HK,
                             .head_dim = D,
                             .scale = 0.2f};
    ck_assert_msg(op_attention(dev, &a, &err) == RT_OK, "%s", err.text);
    ck_assert(rt_download(dev, a.o, 0, o, sizeof o, &err) == RT_OK);
    static const uint32_t table[] = {0};
    struct rt_span cache = test_span(dev, 4 * KV_BLOCK * 2 * HK * D, NULL), where = test_span(dev, 4 * (2 * T + 1), NULL), piece = test_span(dev, 4 * 30 * ROW, NULL),
                   out = test_span(dev, 4 * 30 * O, NULL);
    const uint32_t lengths[] = {1, 5, 30};
    uint32_t pos = 0;
    for (int k = 0; k < 3; pos += lengths[k++]) {
        struct op_attention_cache c = {.qkv = piece,
                                       .cache = cache,
                                       .where = where,
                                       .table = 2 * T,
                                       .o = out,
                                       .T = lengths[k],
                                       .pos0 = pos,
                                       .heads = H,
                                       .kv_heads = HK,
                                       .head_dim = D,
                                       .scale = 0.2f};
        uint32_t places[2 * T];
        for (uint32_t t = 0; t < lengths[k]; t++) {
            places[2 * t] = 2 * T;
            places[2 * t + 1] = pos + t;
        }
        ck_assert(rt_upload(dev, where, 0, places, 8ull * lengths[k], &err) == RT_OK);
        ck_assert(rt_upload(dev, where, 8 * T, table, 4, &err) == RT_OK);
        ck_assert(rt_upload(dev, piece, 0, qkv + (size_t)pos * ROW, 4ull * lengths[k] * ROW, &err) == RT_OK);
        ck_assert_msg(op_kv_append(dev, &c, &err) == RT_OK, "%s", err.text);
        ck_assert_msg(op_attention_cache(dev, &c, &err) == RT_OK, "%s", err.text);
        ck_assert(rt_download(dev, out, 0, piece_o, 4ull * lengths[k] * O, &err) == RT_OK);
        for (uint32_t i = 0; i < lengths[k] * O; i++)
            ck_assert_float_eq_tol(piece_o[i], o[pos * O + i], 4e-6f);
    }
    test_check_validation(dev);
    test_release(dev);
    free(seg);
}

START_TEST(in_pieces)
{
    run_in_pieces(test_host());
    if (test_vulkan())
        run_in_pieces(test_vulkan());
}
END_TEST

START_TEST(what_does_not_fit_is_refused)
{
    struct rt_device *dev = test_host();
    struct rt_error err = {0};
    struct rt_span s = test_span(dev, 4 * 64 * 32, NULL), where = test_span(dev, 4 * 3, (const uint32_t[]){2, 63, 0});
    struct op_attention_cache c = {.qkv = s, .cache = s, .where = where, .o = s, .T = 1, .pos0 = 63, .table = 2, .heads = 1, .kv_heads = 1,
                                   .head_dim = 16, .scale = 1};
    ck_assert_int_eq(op_kv_append(dev, &c, &err), RT_OK);
    ck_assert_int_eq(op_attention_cache(dev, &c, &err), RT_OK);
    c.pos0 = 64; /* a block more than the table has */
    ck_assert_int_eq(op_attention_cache(dev, &c, &err), RT_FAILED);
    ck_assert_ptr_nonnull(strstr(err.text, "2 blocks"));
    c.pos0 = UINT32_MAX;
    ck_assert_int_eq(op_attention_cache(dev, &c, &err), RT_FAILED);
    c.pos0 = 0;
    c.type = OP_W_Q8_0; /* heads of 16 */
    ck_assert_int_eq(op_kv_append(dev, &c, &err), RT_FAILED);
    ck_assert_ptr_nonnull(strstr(err.text, "q8_0"));
    c.type = OP_W_Q4_0;
    ck_assert_int_eq(op_attention_slots(dev, &c, &err), RT_FAILED);
    test_release(dev);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("attention_cache");
    TCase *tc = tcase_create("all");
    tcase_set_timeout(tc, 120);
    tcase_add_test(tc, variants_agree);
    tcase_add_test(tc, slots_agree);
    tcase_add_test(tc, what_is_stored);
    tcase_add_test(tc, in_pieces);
    tcase_add_test(tc, what_does_not_fit_is_refused);
    suite_add_tcase(s, tc);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? 1 : 0;
}
