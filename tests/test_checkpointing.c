/* tests/test_checkpointing.c - layers that are computed again in backward give the gradients, losses and routers' statistics that kept ones
 * give, bit for bit, and take less memory. */
#include "mosld/bench/shapes.h"
#include "mosld/bench/steps.h"
#include "mosld/model/pass.h"
#include "mosld/train/step.h"
#include "tests/support/op_test.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LAYERS = 5 };

static struct mosld_model *model_of(struct rt_device *dev, bool qk_norm)
{
    struct mosld_config config;
    struct mosld_model *model;
    struct rt_error err;
    ck_assert(mosld_shapes_config("tiny", &config, &err) == RT_OK);
    config.num_layers = LAYERS;
    config.qk_norm = qk_norm;
    ck_assert_msg(mosld_random_model(dev, &config, OP_W_F32, 64, &model, &err) == RT_OK, "%s", err.text);
    return model;
}

/* What training leaves of one micro-step. */
struct outcome {
    uint64_t n_gradient, n_stats, n_losses, planned;
    uint32_t *gradient, *stats, *losses;
};

static void finish(struct outcome *o)
{
    free(o->gradient);
    free(o->stats);
    free(o->losses);
}

/* Puts the adapter's modules out of use in the layers below `lowest`. */
static void bare_below(struct mosld_adapter *a, uint32_t lowest)
{
    for (uint32_t l = 0; l < lowest; l++)
        for (int g = 0; g < MOSLD_GROUPS; g++)
            a->groups[l][g].n_modules = 0;
    a->lowest_layer = lowest;
}

static struct outcome run(struct mosld_model *model, const struct mosld_adapter_params *params, uint32_t lowest, uint32_t recomputed)
{
    struct rt_device *dev = model->dev;
    struct rt_error err;
    struct mosld_tokens batch;
    struct mosld_adapter *a;
    struct mosld_pass *pass;
    struct mosld_step *step;
    struct mosld_train_config config = {MOSLD_TRAIN_DEFAULTS, .adapter = *params};
    ck_assert(mosld_bench_tokens(model->config.vocab_size, 3, 13, &batch, &err) == RT_OK);
    ck_assert_msg(mosld_adapter_create(dev, &model->config, params, true, false, &a, &err) == RT_OK, "%s", err.text);
    bare_below(a, lowest);
    struct mosld_pass_params pp = {.max_tokens = batch.T, .max_targets = batch.n_targets, .max_slice = 16, .recomputed = recomputed, .trains = true};
    ck_assert_msg(mosld_pass_create(model, a, &pp, &pass, &err) == RT_OK, "%s", err.text);
    ck_assert_msg(mosld_adapter_commit(a, &err) == RT_OK && mosld_pass_commit(pass, &err) == RT_OK, "%s", err.text);
    struct outcome o = {.n_gradient = a->words, .n_stats = (uint64_t)a->n_modules * 2 * a->max_experts, .n_losses = 2ull * batch.n_targets,
                        .planned = mosld_pass_planned(pass)};
    float *values = malloc(a->words * 4);
    uint64_t state = 3; /* B too, so that A and the router have a gradient */
    for (uint64_t i = 0; i < a->words; i++)
        values[i] = test_uniform(&state, -0.1f, 0.1f);
    ck_assert(rt_upload(dev, a->values, 0, values, a->words * 4, &err) == RT_OK);
    free(values);
    ck_assert_msg(mosld_step_create(pass, &config, &step, &err) == RT_OK, "%s", err.text);
    ck_assert(mosld_step_begin(step, 1, &err) == RT_OK);
    o.gradient = malloc(o.n_gradient * 4), o.stats = malloc(o.n_stats * 4), o.losses = malloc(o.n_losses * 4);
    ck_assert_msg(mosld_step_micro(step, &batch, batch.n_targets, o.losses, &err) == RT_OK, "%s", err.text);
    ck_assert(rt_download(dev, a->gradient, 0, o.gradient, o.n_gradient * 4, &err) == RT_OK);
    ck_assert(rt_download(dev, a->stats, 0, o.stats, o.n_stats * 4, &err) == RT_OK);
    mosld_step_destroy(&step);
    mosld_pass_destroy(&pass);
    mosld_adapter_destroy(&a);
    mosld_bench_tokens_finish(&batch);
    return o;
}

static void same(const char *what, const uint32_t *got, const uint32_t *want, uint64_t n, const char *name, uint32_t lowest, uint32_t recomputed)
{
    for (uint64_t i = 0; i < n; i++)
        ck_assert_msg(got[i] == want[i], "%s, adapters from layer %u, %u recomputed: %s %llu has the bits %08x, want %08x", name, lowest,
                      recomputed, what, (unsigned long long)i, got[i], want[i]);
}

static bool any(const uint32_t *words, uint64_t n)
{
    for (uint64_t i = 0; i < n; i++)
        if (words[i])
            return true;
    return false;
}

static void compare(struct mosld_model *model, const char *name, const struct mosld_adapter_params *params, uint32_t lowest)
{
    struct outcome want = run(model, params, lowest, 0);
    uint64_t before = want.planned;
    ck_assert(any(want.gradient, want.n_gradient));
    for (uint32_t recomputed = 1; recomputed < LAYERS - lowest; recomputed++) {
        struct outcome got = run(model, params, lowest, recomputed);
        same("gradient", got.gradient, want.gradient, want.n_gradient, name, lowest, recomputed);
        same("loss", got.losses, want.losses, want.n_losses, name, lowest, recomputed);
        same("statistic", got.stats, want.stats, want.n_stats, name, lowest, recomputed);
        ck_assert_msg(got.planned < before, "%s: %u recomputed layers take %llu bytes, one less %llu", name, recomputed,
                      (unsigned long long)got.planned, (unsigned long long)before);
        before = got.planned;
        finish(&got);
    }
    struct outcome all = run(model, params, lowest, MOSLD_RECOMPUTE_ALL);
    same("gradient", all.gradient, want.gradient, want.n_gradient, name, lowest, MOSLD_RECOMPUTE_ALL);
    ck_assert_uint_eq(all.planned, before);
    finish(&all);
    finish(&want);
}

static void on_device(struct rt_device *dev, bool qk_norm)
{
    struct mosld_model *model = model_of(dev, qk_norm);
    struct mosld_adapter_params lora = mosld_adapter_defaults(MOSLD_METHOD_LORA), mosld = mosld_adapter_defaults(MOSLD_METHOD_MOSLD);
    lora.dropout = 0.3, lora.dropout_on = MOSLD_DROPOUT_INPUT;
    mosld.dropout = 0.3;
    mosld.n_num_experts = 1, mosld.num_experts[0] = 4;
    compare(model, "lora, q and v, dropout on the input", &lora, 0);
    compare(model, "mosld, q and v", &mosld, 2);
    memset(mosld.targets, 1, sizeof mosld.targets);
    memset(lora.targets, 1, sizeof lora.targets);
    compare(model, "mosld, all linear", &mosld, 0);
    compare(model, "lora, all linear, dropout on the input", &lora, 1);
    memset(mosld.targets, 0, sizeof mosld.targets);
    mosld.targets[MOSLD_DOWN] = true;
    compare(model, "mosld, down alone", &mosld, 0);
    test_check_validation(dev);
    mosld_model_destroy(&model);
}

START_TEST(the_host_gets_the_same_bits)
{
    on_device(test_host(), false);
    on_device(test_host(), true);
}
END_TEST

START_TEST(vulkan_gets_the_same_bits)
{
    if (test_vulkan())
        on_device(test_vulkan(), _i);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("checkpointing");
    TCase *tc = tcase_create("bits");
    tcase_set_timeout(tc, 600);
    tcase_add_test(tc, the_host_gets_the_same_bits);
    tcase_add_loop_test(tc, vulkan_gets_the_same_bits, 0, 2);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
