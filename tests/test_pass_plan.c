/* tests/test_pass_plan.c - what a pass asks for: no [T, vocabulary] logits, no [T, T] probabilities, and what is asked for is what is taken. */
#include "mosld/model/pass.h"
#include "tests/support/op_test.h"

#include <check.h>
#include <math.h>
#include <stdio.h>

/* SmolLM2-135M's shapes; nothing is loaded. */
static struct mosld_model model_of(struct rt_device *dev)
{
    return (struct mosld_model){.dev = dev,
                                .config = {.vocab_size = 49152, .hidden_size = 576, .intermediate_size = 1536, .num_layers = 30, .num_heads = 9,
                                           .num_kv_heads = 3, .head_dim = 64, .max_positions = 8192, .rms_norm_eps = 1e-5}};
}

static struct mosld_pass *plan(struct mosld_model *model, struct mosld_adapter *adapter, uint32_t T)
{
    struct mosld_pass *pass;
    struct rt_error err;
    struct mosld_pass_params params = {.max_tokens = T, .max_targets = T, .trains = true};
    ck_assert_msg(mosld_pass_create(model, adapter, &params, &pass, &err) == RT_OK, "%s", err.text);
    return pass;
}

static struct mosld_adapter *adapter_for(struct mosld_model *model)
{
    struct mosld_adapter_params params = mosld_adapter_defaults(MOSLD_METHOD_MOSLD);
    struct mosld_adapter *adapter;
    struct rt_error err;
    ck_assert_msg(mosld_adapter_create(model->dev, &model->config, &params, true, false, &adapter, &err) == RT_OK, "%s", err.text);
    return adapter;
}

START_TEST(the_plan_has_no_square_and_no_full_logits)
{
    struct mosld_model model = model_of(test_host());
    struct mosld_adapter *adapter = adapter_for(&model);
    static const uint64_t T[3] = {512, 2048, 8192};
    uint64_t bytes[3];
    for (int i = 0; i < 3; i++) {
        struct mosld_pass *pass = plan(&model, adapter, (uint32_t)T[i]);
        bytes[i] = rt_arena_planned(pass->activations) + rt_arena_planned(pass->scratch);
        fprintf(stderr, "%5llu tokens: %.0f MiB\n", (unsigned long long)T[i], (double)bytes[i] / (1 << 20));
        mosld_pass_destroy(&pass);
    }
    /* Each token costs the same, however many there are: one [T, T] matrix of one head would already make the second slope 6 % steeper. */
    double first = (double)(bytes[1] - bytes[0]) / (double)(T[1] - T[0]), second = (double)(bytes[2] - bytes[1]) / (double)(T[2] - T[1]);
    ck_assert_msg(fabs(second / first - 1) < 0.005, "a token costs %g bytes among few, %g among many", first, second);
    /* And what does not grow with T is far below [T, V] logits, 1.5 GiB: one slice of them, and little else. */
    double constant = (double)bytes[2] - second * (double)T[2];
    ck_assert_msg(constant < 8192.0 * 49152 * 4 / 8, "%g bytes do not grow with T", constant);
    mosld_adapter_destroy(&adapter);
}
END_TEST

START_TEST(what_is_planned_is_what_is_taken)
{
    struct rt_device *devices[2] = {test_host(), test_vulkan()};
    struct rt_error err;
    for (int d = 0; d < 2 && devices[d]; d++) {
        struct mosld_model model = model_of(devices[d]);
        model.config.num_layers = 2;
        struct mosld_adapter *adapter = adapter_for(&model);
        struct mosld_pass *pass = plan(&model, adapter, 64);
        ck_assert_msg(mosld_adapter_commit(adapter, &err) == RT_OK && mosld_pass_commit(pass, &err) == RT_OK, "%s", err.text);
        struct rt_arena *arenas[3] = {adapter->arena, pass->activations, pass->scratch};
        for (int i = 0; i < 3; i++) {
            double planned = (double)rt_arena_planned(arenas[i]), taken = (double)rt_arena_allocated(arenas[i]);
            ck_assert_msg(planned > 0 && taken >= planned && taken <= 1.03 * planned, "planned %g, took %g", planned, taken);
        }
        mosld_pass_destroy(&pass);
        mosld_adapter_destroy(&adapter);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("pass_plan");
    TCase *tc = tcase_create("memory");
    tcase_set_timeout(tc, 120);
    tcase_add_test(tc, the_plan_has_no_square_and_no_full_logits);
    tcase_add_test(tc, what_is_planned_is_what_is_taken);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
