/* tests/test_engine.c - several sequences at once: each has the logits that it has alone, whatever runs beside it; prefixes are found again; what does
 * not fit is refused.
 *
 * Bound: 1e-4 of the largest logit, as in test_parity.c: sums of a few hundred f32 terms in another order. On the host, steps of one token each are the same
 * bits as alone. */
#include "mosld/adapter/adapter_file.h"
#include "mosld/generate/engine.h"
#include "mosld/model/model_file.h"
#include "tests/support/op_test.h"

#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define VECTORS MOSLD_SOURCE_DIR "/tests/vectors/"
enum { CONTEXT = 48, SLOTS = 5, ADAPTERS = 2, LENGTH = 30 };

static struct rt_error err;
#define OK(call) ck_assert_msg((call) == RT_OK, "%s", err.text)

struct world {
    struct mosld_model_file *file;
    struct mosld_model *model;
    struct mosld_adapter *adapters[ADAPTERS];
    uint32_t V;
};

static void open_world(struct rt_device *dev, struct world *w)
{
    static const char *const folders[ADAPTERS] = {VECTORS "llama3-mosl/adapter", VECTORS "llama3-lora/adapter"};
    OK(mosld_model_file_open(VECTORS "models/llama3", &w->file, &err));
    OK(mosld_model_create(dev, w->file, 64, MOSLD_WEIGHTS_AS_FILE, &w->model, &err));
    OK(mosld_model_load(w->model, w->file, &err));
    w->V = w->model->config.vocab_size;
    for (int i = 0; i < ADAPTERS; i++) {
        struct mosld_adapter_params params;
        OK(mosld_adapter_read_params(folders[i], &params, &err));
        OK(mosld_adapter_create(dev, &w->model->config, &params, false, false, &w->adapters[i], &err));
        if (i == 0) /* the other one is read as it was trained */
            OK(mosld_adapter_for_generation(w->adapters[i], &err));
        OK(mosld_adapter_commit(w->adapters[i], &err));
        OK(mosld_adapter_read(w->adapters[i], folders[i], &err));
    }
}

static void close_world(struct world *w)
{
    for (int i = 0; i < ADAPTERS; i++)
        mosld_adapter_destroy(&w->adapters[i]);
    mosld_model_destroy(&w->model);
    mosld_model_file_close(&w->file);
}

static struct mosld_engine *open_engine(const struct world *w, uint32_t slots, uint32_t piece)
{
    struct mosld_engine *e;
    OK(mosld_engine_create(&(struct mosld_engine_params){.model = w->model, .adapters = w->adapters, .n_adapters = ADAPTERS, .slots = slots,
                                                         .context = CONTEXT, .piece = piece}, &e, &err));
    ck_assert_uint_gt(mosld_engine_planned(e), 0);
    OK(mosld_engine_commit(e, &err));
    return e;
}

/* Sequence i: its tokens, its adapter, and how much of it is prompt. */
static int32_t token_of(const struct world *w, uint32_t i, uint32_t t) { return (int32_t)((i * 131 + t * t * 7 + t * 3 + 1) % w->V); }
static uint32_t adapter_of(uint32_t i) { return i % 3 == 2 ? MOSLD_ENGINE_NO_ADAPTER : i % 3; }
static uint32_t prompt_of(uint32_t i) { return 1 + 5 * i; }

/* Logits [LENGTH, V] of sequence i in one pass of its own. */
static float *alone(const struct world *w, uint32_t i)
{
    uint32_t tokens[LENGTH], rows[LENGTH], adapter = adapter_of(i);
    struct mosld_pass *pass;
    OK(mosld_pass_create(w->model, adapter < ADAPTERS ? w->adapters[adapter] : NULL,
                         &(struct mosld_pass_params){.max_tokens = LENGTH, .max_targets = LENGTH, .cache_tokens = CONTEXT}, &pass, &err));
    OK(mosld_pass_commit(pass, &err));
    for (uint32_t t = 0; t < LENGTH; t++)
        tokens[rows[t] = t] = (uint32_t)token_of(w, i, t);
    OK(mosld_forward_cached(pass, tokens, LENGTH, &err));
    float *logits = malloc(sizeof *logits * LENGTH * w->V);
    OK(mosld_logits(pass, rows, LENGTH, logits, &err));
    mosld_pass_destroy(&pass);
    return logits;
}

static void compare(const float *got, const float *want, uint32_t V, uint32_t sequence, uint32_t t)
{
    float most = 0, off = 0;
    for (uint32_t v = 0; v < V; v++) {
        most = fmaxf(most, fabsf(want[v]));
        off = fmaxf(off, fabsf(got[v] - want[v]));
    }
    ck_assert_msg(off <= 1e-4f * most, "sequence %u, token %u: logits of up to %g are off by %g", sequence, t, most, off);
}

/* Five sequences begin in different steps with prompts of different lengths, two adapters and none, and go on together. */
static void run_together(struct rt_device *dev)
{
    struct world w = {0};
    open_world(dev, &w);
    struct mosld_engine *e = open_engine(&w, SLOTS, 8);
    float *want[SLOTS], *got = malloc(sizeof *got * SLOTS * w.V);
    uint32_t slot[SLOTS], done[SLOTS] = {0}, reused, left = SLOTS;
    for (uint32_t i = 0; i < SLOTS; i++)
        want[i] = alone(&w, i);
    for (uint32_t step = 0; left > 0; step++) {
        struct mosld_engine_item items[SLOTS];
        int32_t tokens[SLOTS][LENGTH];
        uint32_t n = 0, of[SLOTS];
        for (uint32_t i = 0; i < SLOTS && i <= step / 2; i++) {
            if (done[i] == LENGTH)
                continue;
            uint32_t m = done[i] ? 1 : prompt_of(i);
            for (uint32_t t = 0; t < m; t++)
                tokens[i][t] = token_of(&w, i, done[i] + t);
            if (!done[i]) {
                ck_assert(mosld_engine_acquire(e, adapter_of(i), tokens[i], m, &slot[i], &reused));
                ck_assert_uint_eq(reused, 0);
            }
            of[n] = i;
            items[n] = (struct mosld_engine_item){.slot = slot[i], .tokens = tokens[i], .n = m, .logits = i == 3 && step % 2 ? NULL : got + n * w.V};
            n++;
        }
        OK(mosld_engine_step(e, items, n, &err));
        for (uint32_t k = 0; k < n; k++) {
            uint32_t i = of[k];
            done[i] += items[k].n;
            ck_assert_uint_eq(mosld_engine_cached(e, slot[i]), done[i]);
            if (items[k].logits)
                compare(items[k].logits, want[i] + (size_t)(done[i] - 1) * w.V, w.V, i, done[i] - 1);
            if (done[i] == LENGTH) {
                mosld_engine_release(e, slot[i]);
                left--;
            }
        }
    }
    ck_assert_uint_eq(mosld_engine_free_slots(e), SLOTS);
    for (uint32_t i = 0; i < SLOTS; i++)
        free(want[i]);
    free(got);
    mosld_engine_destroy(&e);
    close_world(&w);
    test_check_validation(dev);
}

START_TEST(sequences_are_as_alone)
{
    run_together(test_host());
    if (test_vulkan())
        run_together(test_vulkan());
}
END_TEST

/* The logits of a sequence with an f16 cache are near those with f32: rounding moves each key and value by at most 2^-11 of it, in every layer, so a few 2^-11 of the
 * largest logit are the most; but not the same to the bit. (q8_0 is for heads of whole 32s: test_cache_blocks.c.) */
static float distance(const struct world *w, enum op_wtype type, uint32_t piece)
{
    struct mosld_engine *e;
    OK(mosld_engine_create(&(struct mosld_engine_params){.model = w->model, .adapters = w->adapters, .n_adapters = ADAPTERS, .slots = 2, .context = CONTEXT,
                                                         .piece = piece, .cache_type = type}, &e, &err));
    OK(mosld_engine_commit(e, &err));
    float *want = alone(w, 0), *got = malloc(sizeof *got * w->V), most = 0, off = 0;
    int32_t tokens[LENGTH];
    uint32_t slot, reused;
    for (uint32_t t = 0; t < LENGTH; t++)
        tokens[t] = token_of(w, 0, t);
    ck_assert(mosld_engine_acquire(e, 0, tokens, LENGTH, &slot, &reused));
    OK(mosld_engine_step(e, &(struct mosld_engine_item){slot, tokens, LENGTH - 1, NULL}, 1, &err));
    OK(mosld_engine_step(e, &(struct mosld_engine_item){slot, tokens + LENGTH - 1, 1, got}, 1, &err));
    for (uint32_t v = 0; v < w->V; v++) {
        float x = want[(size_t)(LENGTH - 1) * w->V + v];
        most = fmaxf(most, fabsf(x));
        off = fmaxf(off, fabsf(x - got[v]));
    }
    free(want);
    free(got);
    mosld_engine_destroy(&e);
    return off / most;
}

static void types_are_near(struct rt_device *dev)
{
    struct world w = {0};
    open_world(dev, &w);
    for (uint32_t piece = 8; piece <= 64; piece += 56) {
        ck_assert_float_lt(distance(&w, OP_W_F32, piece), 1e-4f);
        float half = distance(&w, OP_W_F16, piece);
        ck_assert_msg(half > 0 && half < 2e-3f, "f16: %g of the largest logit", half);
    }
    struct mosld_engine *e; /* heads of 8 */
    ck_assert_int_eq(mosld_engine_create(&(struct mosld_engine_params){.model = w.model, .cache_type = OP_W_Q8_0}, &e, &err), RT_USAGE);
    ck_assert_ptr_nonnull(strstr(err.text, "heads of whole 32s"));
    mosld_engine_destroy(&e);
    close_world(&w);
    test_check_validation(dev);
}

START_TEST(cache_types)
{
    types_are_near(test_host());
    if (test_vulkan())
        types_are_near(test_vulkan());
}
END_TEST

/* On the host: what a sequence gets does not depend on who else runs, to the bit. */
START_TEST(bits_are_as_alone)
{
    const bool mixed = _i; /* with other adapters, and none, beside it */
    struct world w = {0};
    open_world(test_host(), &w);
    struct mosld_engine *e = open_engine(&w, SLOTS, 0), *one = open_engine(&w, 1, 0);
    float *a = malloc(sizeof *a * w.V), *b = malloc(sizeof *b * w.V * SLOTS);
    uint32_t slot[SLOTS], single, reused;
    for (uint32_t i = 0; i < SLOTS; i++) {
        int32_t first = token_of(&w, i, 0);
        ck_assert(mosld_engine_acquire(e, mixed ? adapter_of(i + 1) : 0, &first, 1, &slot[i], &reused));
    }
    int32_t first = token_of(&w, 2, 0);
    ck_assert(mosld_engine_acquire(one, 0, &first, 1, &single, &reused)); /* adapter_of(2 + 1) is 0 as well */
    for (uint32_t t = 0; t < 20; t++) {
        int32_t tokens[SLOTS];
        struct mosld_engine_item items[SLOTS];
        for (uint32_t i = 0; i < SLOTS; i++) {
            tokens[i] = token_of(&w, i, t);
            items[i] = (struct mosld_engine_item){slot[i], &tokens[i], 1, b + i * w.V};
        }
        OK(mosld_engine_step(e, items, SLOTS, &err));
        OK(mosld_engine_step(one, &(struct mosld_engine_item){single, &tokens[2], 1, a}, 1, &err));
        ck_assert_msg(memcmp(a, b + 2 * w.V, w.V * sizeof *a) == 0, "token %u", t);
    }
    free(a);
    free(b);
    mosld_engine_destroy(&e);
    mosld_engine_destroy(&one);
    close_world(&w);
}
END_TEST

/* A later prompt with the same beginning and adapter finds its cache, less at least one token; another adapter's does not count. */
START_TEST(prefixes_are_reused)
{
    struct world w = {0};
    open_world(test_host(), &w);
    struct mosld_engine *e = open_engine(&w, 2, 8);
    int32_t prompt[20];
    for (uint32_t t = 0; t < 20; t++)
        prompt[t] = token_of(&w, 0, t);
    uint32_t slot, again, reused;
    float *want = alone(&w, 0), *got = malloc(sizeof *got * w.V);
    ck_assert(mosld_engine_acquire(e, 0, prompt, 12, &slot, &reused));
    OK(mosld_engine_step(e, &(struct mosld_engine_item){slot, prompt, 12, got}, 1, &err));
    ck_assert_mem_eq(mosld_engine_tokens(e, slot), prompt, 12 * sizeof *prompt);
    mosld_engine_release(e, slot);
    ck_assert(mosld_engine_acquire(e, 1, prompt, 20, &again, &reused));
    ck_assert_uint_eq(reused, 0);
    ck_assert_uint_ne(again, slot); /* the slot that was never used goes first */
    mosld_engine_release(e, again);
    ck_assert(mosld_engine_acquire(e, 0, prompt, 20, &again, &reused));
    ck_assert_uint_eq(again, slot);
    ck_assert_uint_eq(reused, 12);
    OK(mosld_engine_step(e, &(struct mosld_engine_item){again, prompt + 12, 8, got}, 1, &err));
    compare(got, want + (size_t)19 * w.V, w.V, 0, 19);
    mosld_engine_release(e, again);
    ck_assert(mosld_engine_acquire(e, 0, prompt, 20, &again, &reused)); /* the very same: its last token runs again */
    ck_assert_uint_eq(reused, 19);
    OK(mosld_engine_step(e, &(struct mosld_engine_item){again, prompt + 19, 1, got}, 1, &err));
    compare(got, want + (size_t)19 * w.V, w.V, 0, 19);
    mosld_engine_truncate(e, again, 5);
    ck_assert_uint_eq(mosld_engine_cached(e, again), 5);
    OK(mosld_engine_step(e, &(struct mosld_engine_item){again, prompt + 5, 15, got}, 1, &err));
    compare(got, want + (size_t)19 * w.V, w.V, 0, 19);
    free(want);
    free(got);
    mosld_engine_destroy(&e);
    close_world(&w);
}
END_TEST

START_TEST(what_does_not_fit_is_refused)
{
    struct world w = {0};
    open_world(test_host(), &w);
    struct mosld_engine *e = open_engine(&w, 2, 8);
    int32_t prompt[CONTEXT + 1] = {0}, bad = (int32_t)w.V;
    uint32_t a, b, c, reused;
    ck_assert(!mosld_engine_acquire(e, 7, prompt, 1, &a, &reused));
    ck_assert(!mosld_engine_acquire(e, 0, prompt, 0, &a, &reused));
    ck_assert(mosld_engine_acquire(e, 0, prompt, 1, &a, &reused));
    ck_assert(mosld_engine_acquire(e, 0, prompt, 1, &b, &reused));
    ck_assert(!mosld_engine_acquire(e, 0, prompt, 1, &c, &reused));
    ck_assert_int_eq(mosld_engine_step(e, &(struct mosld_engine_item){a, prompt, CONTEXT + 1, NULL}, 1, &err), RT_USAGE);
    ck_assert_ptr_nonnull(strstr(err.text, "context of 48"));
    ck_assert_int_eq(mosld_engine_step(e, &(struct mosld_engine_item){a, &bad, 1, NULL}, 1, &err), RT_USAGE);
    ck_assert_ptr_nonnull(strstr(err.text, "vocabulary"));
    struct mosld_engine_item twice[2] = {{a, prompt, 1, NULL}, {a, prompt, 1, NULL}};
    ck_assert_int_eq(mosld_engine_step(e, twice, 2, &err), RT_USAGE);
    OK(mosld_engine_step(e, &(struct mosld_engine_item){a, prompt, CONTEXT, NULL}, 1, &err)); /* to the last token */
    ck_assert_int_eq(mosld_engine_step(e, &(struct mosld_engine_item){a, prompt, 1, NULL}, 1, &err), RT_USAGE);
    mosld_engine_release(e, b);
    ck_assert_int_eq(mosld_engine_step(e, &(struct mosld_engine_item){b, prompt, 1, NULL}, 1, &err), RT_USAGE);
    mosld_engine_destroy(&e);
    struct mosld_engine_params params = {.model = w.model, .context = 65};
    ck_assert_int_eq(mosld_engine_create(&params, &e, &err), RT_USAGE);
    mosld_engine_destroy(&e);
    close_world(&w);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("engine");
    TCase *tc = tcase_create("all");
    tcase_set_timeout(tc, 300);
    tcase_add_test(tc, sequences_are_as_alone);
    tcase_add_test(tc, cache_types);
    tcase_add_loop_test(tc, bits_are_as_alone, 0, 2);
    tcase_add_test(tc, prefixes_are_reused);
    tcase_add_test(tc, what_does_not_fit_is_refused);
    suite_add_tcase(s, tc);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? 1 : 0;
}
