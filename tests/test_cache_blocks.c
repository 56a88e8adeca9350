/* tests/test_cache_blocks.c - the engine's cache in blocks: several sequences share a small one, beginnings are shared, windows give blocks back, and each sequence
 * has the logits that one pass over all of it has, in every type of cache.
 *
 * Bound for f32: 1e-4 of the largest logit, as in test_engine.c. f16 and q8_0 round keys and values (2^-11 of each, a 254th of a block's largest): bounds where they are used. */
#include "mosld/bench/shapes.h"
#include "mosld/generate/engine.h"
#include "tests/support/op_test.h"

#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { V = 200, LENGTH = 300, WINDOW = 100 };

static struct rt_error err;
#define OK(call) ck_assert_msg((call) == RT_OK, "%s", err.text)

static struct mosld_model *open_model(struct rt_device *dev, uint32_t window)
{
    struct mosld_config c = {.vocab_size = V, .hidden_size = 64, .intermediate_size = 96, .num_layers = 3, .num_heads = 4, .num_kv_heads = 2, .head_dim = 32,
                             .max_positions = 512, .declared_positions = 512, .sliding_window = window, .slides_everywhere = window > 0, .rms_norm_eps = 1e-5,
                             .rope_theta = 10000, .rope = MOSLD_ROPE_DEFAULT, .bos_id = -1};
    struct mosld_model *m;
    OK(mosld_random_model(dev, &c, OP_W_F32, 512, &m, &err));
    return m;
}

static int32_t token_of(uint32_t sequence, uint32_t t) { return (int32_t)((sequence * 37 + t * t * 11 + t * 5) % V); }

/* The logits [LENGTH, V] in one pass without a cache, in which each token sees the last `window` (0: all). */
static float *whole(struct mosld_model *m, const int32_t *ids, uint32_t window)
{
    struct mosld_pass *pass;
    uint32_t pos[LENGTH], seg[LENGTH][4];
    OK(mosld_pass_create(m, NULL, &(struct mosld_pass_params){.max_tokens = LENGTH, .max_targets = LENGTH}, &pass, &err));
    OK(mosld_pass_commit(pass, &err));
    for (uint32_t t = 0; t < LENGTH; t++) {
        pos[t] = t;
        seg[t][0] = window && t >= window ? t - window + 1 : 0;
        seg[t][1] = seg[t][2] = 0;
        seg[t][3] = LENGTH;
    }
    OK(mosld_forward(pass, &(struct mosld_tokens){.T = LENGTH, .tokens = (const uint32_t *)ids, .pos = pos, .seg = seg[0]}, false, &err));
    float *logits = malloc(sizeof *logits * LENGTH * V);
    OK(mosld_logits(pass, pos, LENGTH, logits, &err));
    mosld_pass_destroy(&pass);
    return logits;
}

static float far_off(const float *got, const float *want)
{
    float most = 0, off = 0;
    for (uint32_t v = 0; v < V; v++) {
        most = fmaxf(most, fabsf(want[v]));
        off = fmaxf(off, fabsf(got[v] - want[v]));
    }
    return off / most;
}

static const struct {
    enum op_wtype type;
    float bound;
} types[] = {{OP_W_F32, 1e-4f}, {OP_W_F16, 1e-3f}, {OP_W_Q8_0, 2e-2f}};

struct sequence {
    int32_t ids[LENGTH];
    float *want;
    uint32_t slot, done, reused;
};

static void begin(struct sequence *s, struct mosld_model *m, uint32_t number, uint32_t shared, uint32_t window)
{
    memset(s, 0, sizeof *s);
    for (uint32_t t = 0; t < LENGTH; t++)
        s->ids[t] = token_of(t < shared ? 0 : number, t);
    s->want = whole(m, s->ids, window);
}

/* n more tokens of it; the logits of the last are as they should be. */
static void go_on(struct mosld_engine *e, struct sequence *s, uint32_t n, float bound)
{
    float got[V];
    OK(mosld_engine_step(e, &(struct mosld_engine_item){s->slot, s->ids + s->done, n, got}, 1, &err));
    s->done += n;
    ck_assert_uint_eq(mosld_engine_cached(e, s->slot), s->done);
    float off = far_off(got, s->want + (size_t)(s->done - 1) * V);
    ck_assert_msg(off <= bound, "at %u: off by %g of the largest logit", s->done, off);
}

static void take(struct mosld_engine *e, struct sequence *s, uint32_t n)
{
    ck_assert(mosld_engine_acquire(e, MOSLD_ENGINE_NO_ADAPTER, s->ids, n, &s->slot, &s->reused));
    s->done = s->reused;
}

static struct mosld_engine *open_engine(struct mosld_model *m, uint32_t slots, uint32_t blocks, enum op_wtype type)
{
    struct mosld_engine *e;
    OK(mosld_engine_create(&(struct mosld_engine_params){.model = m, .slots = slots, .context = LENGTH, .piece = 40, .blocks = blocks, .cache_type = type}, &e, &err));
    OK(mosld_engine_commit(e, &err));
    return e;
}

/* ---- a window ---- */

static void slide(struct rt_device *dev, enum op_wtype type, float bound)
{
    struct mosld_model *m = open_model(dev, WINDOW);
    struct sequence s;
    begin(&s, m, 1, 0, WINDOW);
    struct sequence full;
    begin(&full, m, 1, 0, 0);
    ck_assert_msg(far_off(full.want + (LENGTH - 1) * V, s.want + (LENGTH - 1) * V) > 4 * bound, "the window makes no difference"); /* so that the test could fail */
    free(full.want);
    uint32_t few = mosld_engine_slot_blocks(&m->config, LENGTH, 40);
    ck_assert_uint_eq(few, 5); /* all need 5 as well: 300 tokens */
    struct mosld_engine *e = open_engine(m, 1, few, type);
    take(e, &s, 250);
    go_on(e, &s, 250, bound);
    for (int i = 0; i < 12; i++)
        go_on(e, &s, 1, bound);
    go_on(e, &s, 30, bound);
    /* 292 tokens; the next sees from 193 on: 3 blocks have been left, and 2 are held. */
    ck_assert_uint_eq(mosld_engine_room(e), few - 2);
    mosld_engine_truncate(e, s.slot, 280); /* what its next would see is partly gone */
    ck_assert_uint_eq(mosld_engine_cached(e, s.slot), 0);
    ck_assert_uint_eq(mosld_engine_room(e), few);
    s.done = 0;
    go_on(e, &s, LENGTH, bound);
    mosld_engine_destroy(&e);
    free(s.want);
    mosld_model_destroy(&m);
    test_check_validation(dev);
}

START_TEST(windows)
{
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        slide(test_host(), types[i].type, types[i].bound);
        if (test_vulkan())
            slide(test_vulkan(), types[i].type, types[i].bound);
    }
}
END_TEST

/* ---- a small pool ---- */

static void share_out(struct rt_device *dev, enum op_wtype type, float bound)
{
    struct mosld_model *m = open_model(dev, 0);
    struct mosld_engine *e = open_engine(m, 4, 6, type); /* of 64 tokens */
    struct sequence s[3];
    for (uint32_t i = 0; i < 3; i++) {
        begin(&s[i], m, 1 + i, 0, 0);
        take(e, &s[i], 100);
        go_on(e, &s[i], 100, bound); /* two blocks each */
    }
    ck_assert_uint_eq(mosld_engine_room(e), 0);
    ck_assert_uint_eq(mosld_engine_needs(e, s[0].slot, 28), 0);
    ck_assert_uint_eq(mosld_engine_needs(e, s[0].slot, 29), 1);
    go_on(e, &s[0], 28, bound);
    float got[V];
    struct mosld_engine_item more = {s[0].slot, s[0].ids + s[0].done, 1, got};
    ck_assert_int_eq(mosld_engine_step(e, &more, 1, &err), RT_NO_MEMORY);
    ck_assert_ptr_nonnull(strstr(err.text, "room for 0"));
    ck_assert_uint_eq(mosld_engine_cached(e, s[0].slot), s[0].done); /* nothing has run */
    mosld_engine_truncate(e, s[1].slot, 0);                          /* held back */
    go_on(e, &s[0], 1, bound);
    mosld_engine_release(e, s[2].slot); /* its cache goes when there is need: now two are needed and one is free */
    ck_assert_uint_eq(mosld_engine_room(e), 3);
    s[1].done = 0;
    go_on(e, &s[1], 120, bound);
    go_on(e, &s[0], 64, bound);
    take(e, &s[2], 100);
    ck_assert_uint_eq(s[2].reused, 0);
    mosld_engine_release(e, s[0].slot);
    mosld_engine_release(e, s[1].slot);
    go_on(e, &s[2], LENGTH, bound);
    for (uint32_t i = 0; i < 3; i++)
        free(s[i].want);
    mosld_engine_destroy(&e);
    ck_assert_int_eq(mosld_engine_create(&(struct mosld_engine_params){.model = m, .slots = 2, .context = LENGTH, .blocks = 4}, &e, &err), RT_USAGE);
    mosld_engine_destroy(&e);
    mosld_model_destroy(&m);
    test_check_validation(dev);
}

START_TEST(a_small_pool)
{
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        share_out(test_host(), types[i].type, types[i].bound);
        if (test_vulkan())
            share_out(test_vulkan(), types[i].type, types[i].bound);
    }
}
END_TEST

/* ---- beginnings that are shared ---- */

static void begin_alike(struct rt_device *dev, enum op_wtype type, float bound)
{
    struct mosld_model *m = open_model(dev, 0);
    struct mosld_engine *e = open_engine(m, 3, 0, type);
    uint32_t all = mosld_engine_room(e);
    struct sequence s[3];
    for (uint32_t i = 0; i < 3; i++)
        begin(&s[i], m, 4 + i, 150, 0); /* 150 tokens alike, two blocks and some */
    take(e, &s[0], 200);
    ck_assert_uint_eq(s[0].reused, 0);
    go_on(e, &s[0], 200, bound);
    ck_assert_uint_eq(mosld_engine_room(e), all - 4);
    take(e, &s[1], 200); /* while the first still runs */
    ck_assert_uint_eq(s[1].reused, 128);
    ck_assert_uint_ne(s[1].slot, s[0].slot);
    go_on(e, &s[1], 60, bound);
    ck_assert_uint_eq(mosld_engine_room(e), all - 5); /* one of its own */
    go_on(e, &s[0], 10, bound);
    mosld_engine_truncate(e, s[1].slot, 100); /* in a block that both have: not written over */
    ck_assert_uint_eq(mosld_engine_cached(e, s[1].slot), 64);
    s[1].done = 64;
    go_on(e, &s[1], 150, bound);
    go_on(e, &s[0], 20, bound);
    mosld_engine_release(e, s[0].slot);
    mosld_engine_release(e, s[1].slot);
    take(e, &s[2], 200); /* the beginning alone is shared, so that neither of the two loses its rest */
    ck_assert_uint_eq(s[2].reused, 128);
    go_on(e, &s[2], 100, bound);
    mosld_engine_release(e, s[2].slot);
    take(e, &s[0], 260);
    ck_assert_uint_eq(s[0].reused, 230);
    go_on(e, &s[0], 30, bound);
    for (uint32_t i = 0; i < 3; i++)
        free(s[i].want);
    mosld_engine_destroy(&e);
    mosld_model_destroy(&m);
    test_check_validation(dev);
}

START_TEST(beginnings_are_shared)
{
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        begin_alike(test_host(), types[i].type, types[i].bound);
        if (test_vulkan())
            begin_alike(test_vulkan(), types[i].type, types[i].bound);
    }
}
END_TEST

/* ---- what fits ---- */

/* What is held after a prompt and some tokens is what was planned, within 3 %. */
static void hold(struct rt_device *dev)
{
    struct rt_statistics before, after;
    rt_get_statistics(dev, &before);
    struct mosld_model *m = open_model(dev, 0);
    struct sequence s;
    begin(&s, m, 1, 0, 0);
    struct mosld_engine *e = open_engine(m, 3, 0, OP_W_F16);
    take(e, &s, 200);
    go_on(e, &s, 200, 1e-3f);
    go_on(e, &s, 1, 1e-3f);
    rt_get_statistics(dev, &after);
    double planned = (double)(rt_arena_planned(m->arena) + mosld_engine_planned(e)), held = (double)after.allocated - (double)before.allocated;
    ck_assert_msg(fabs(held / planned - 1) < 0.03, "%s: %g bytes are held, %g were planned", rt_device_info(dev)->name, held, planned);
    free(s.want);
    mosld_engine_destroy(&e);
    mosld_model_destroy(&m);
}

START_TEST(what_was_planned_is_held)
{
    hold(test_host());
    if (test_vulkan())
        hold(test_vulkan());
}
END_TEST

START_TEST(what_fits_is_chosen)
{
    struct mosld_model *m = open_model(test_host(), 0);
    struct mosld_engine_params p = {.model = m, .slots = 4, .context = LENGTH, .piece = 40, .cache_type = OP_W_Q8_0};
    struct mosld_engine_fit fit;
    struct mosld_engine *e;
    OK(mosld_engine_fit(&p, LENGTH, UINT64_MAX, &fit, &err));
    ck_assert_uint_eq(fit.context, LENGTH);
    ck_assert_uint_eq(fit.blocks, 20);
    ck_assert_uint_eq(fit.block_bytes, 64 * 3 * (2 * 2 * 32 + 2 * 2 * 2)); /* bytes, and a half for each 32 */
    p.blocks = fit.blocks;
    OK(mosld_engine_create(&p, &e, &err));
    ck_assert_double_eq_tol((double)mosld_engine_planned(e) / (double)(fit.other_bytes + 20 * fit.block_bytes), 1, 1e-3);
    mosld_engine_destroy(&e);
    OK(mosld_engine_fit(&p, 64, fit.other_bytes + 7 * fit.block_bytes, &fit, &err)); /* fewer than all sequences need, enough for one */
    ck_assert_uint_eq(fit.context, LENGTH);
    ck_assert_uint_eq(fit.blocks, 7);
    OK(mosld_engine_fit(&p, 64, fit.other_bytes + 3 * fit.block_bytes, &fit, &err)); /* a shorter context */
    ck_assert_uint_eq(fit.context, 192);
    ck_assert_uint_eq(fit.blocks, 3);
    OK(mosld_engine_fit(&p, 256, 0, &fit, &err)); /* nothing fits: the least, and the caller sees */
    ck_assert_uint_eq(fit.context, 256);
    ck_assert_uint_eq(fit.blocks, 4);
    mosld_model_destroy(&m);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("cache_blocks");
    TCase *tc = tcase_create("all");
    tcase_set_timeout(tc, 300);
    tcase_add_test(tc, windows);
    tcase_add_test(tc, a_small_pool);
    tcase_add_test(tc, beginnings_are_shared);
    tcase_add_test(tc, what_fits_is_chosen);
    tcase_add_test(tc, what_was_planned_is_held);
    suite_add_tcase(s, tc);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? 1 : 0;
}
