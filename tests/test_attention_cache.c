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

static void variants_agree_at(uint32_t i)
{
    const struct shape *s = &shapes[i];
    struct attention_push p = {.T = s->T,
                               .heads = s->heads,
                               .kv_heads = s->kv_heads,
                               .head_dim = s->head_dim,
                               .pos0 = s->pos0,
                               .scale = (float)(1 / sqrt(s->head_dim))};
    uint64_t n_qkv = (uint64_t)s->T * attention_qkv_words(&p),
             n_cache = (s->pos0 + s->T + 3ull) * 2 * s->kv_heads * s->head_dim;
    char label[80];
    snprintf(label, sizeof label, "T %u pos0 %u heads %u/%u D %u", s->T, s->pos0, s->heads, s->kv_heads, s->head_dim);
    struct op_case append = {.label = label, .push = &p, .b = {{.n = n_qkv}, {.n = n_cache}}}; /* copies: to the bit */
    op_test_run(&op_kv_append_desc, &append);
    /* As in test_attention.c: means of values below one, weights good to 2e-6. */
    struct op_case attend = {.label = label,
                             .push = &p,
                             .atol = 4e-6,
                             .b = {{.n = n_qkv}, {.n = n_cache}, {.n = (uint64_t)s->T * s->heads * s->head_dim}}};
    op_test_run(&op_attention_cache_desc, &attend);
}

START_TEST(variants_agree)
{
    for (uint32_t i = 0; i < OP_COUNT(shapes); i++)
        variants_agree_at(i);
}
END_TEST

/* One token each of sequences of several lengths, which lie in the cache apart and not in their order. */
START_TEST(slots_agree)
{
    static const struct {
        uint32_t heads, kv_heads, head_dim;
    } forms[] = {{9, 3, 64}, {2, 1, 2}, {4, 4, 130}, {2, 1, 256}};
    enum { T = 6, ROWS = 1400 };
    static const uint32_t where[T][2] = {{1100, 0}, {0, 255}, {257, 256}, {700, 0}, {520, 130}, {703, 391}};
    for (uint32_t i = 0; i < OP_COUNT(forms); i++) {
        struct attention_push p = {.T = T, .heads = forms[i].heads, .kv_heads = forms[i].kv_heads, .head_dim = forms[i].head_dim,
                                   .scale = (float)(1 / sqrt(forms[i].head_dim))};
        uint64_t n_qkv = (uint64_t)T * attention_qkv_words(&p), n_cache = 2ull * ROWS * p.kv_heads * p.head_dim;
        struct op_case append = {.label = "slots", .push = &p, .b = {{.n = n_qkv}, {.n = n_cache}, {.n = 2 * T, .words = where[0]}}};
        op_test_run(&op_kv_append_slots_desc, &append);
        struct op_case attend = {.label = "slots", .push = &p, .atol = 4e-6,
                                 .b = {{.n = n_qkv}, {.n = n_cache}, {.n = 2 * T, .words = where[0]}, {.n = (uint64_t)T * p.heads * p.head_dim}}};
        op_test_run(&op_attention_slots_desc, &attend);
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
    struct rt_span cache = test_span(dev, 4 * T * 2 * HK * D, NULL), piece = test_span(dev, 4 * 30 * ROW, NULL),
                   out = test_span(dev, 4 * 30 * O, NULL);
    const uint32_t lengths[] = {1, 5, 30};
    uint32_t pos = 0;
    for (int k = 0; k < 3; pos += lengths[k++]) {
        struct op_attention_cache c = {.qkv = piece,
                                       .cache = cache,
                                       .o = out,
                                       .T = lengths[k],
                                       .pos0 = pos,
                                       .heads = H,
                                       .kv_heads = HK,
                                       .head_dim = D,
                                       .scale = 0.2f};
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
    struct rt_span s = test_span(dev, 4 * 4 * 32, NULL);
    struct op_attention_cache c =
        {.qkv = s, .cache = s, .o = s, .T = 1, .pos0 = 3, .heads = 1, .kv_heads = 1, .head_dim = 16, .scale = 1};
    ck_assert_int_eq(op_kv_append(dev, &c, &err), RT_OK);
    c.pos0 = 4;
    ck_assert_int_eq(op_kv_append(dev, &c, &err), RT_FAILED);
    ck_assert_ptr_nonnull(strstr(err.text, "cache"));
    ck_assert_int_eq(op_attention_cache(dev, &c, &err), RT_FAILED);
    c.pos0 = UINT32_MAX;
    ck_assert_int_eq(op_attention_cache(dev, &c, &err), RT_FAILED);
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
    tcase_add_test(tc, in_pieces);
    tcase_add_test(tc, what_does_not_fit_is_refused);
    suite_add_tcase(s, tc);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? 1 : 0;
}
