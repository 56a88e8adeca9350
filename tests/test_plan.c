/* tests/test_plan.c - the plan of memory is what is really held, needs no more than a config.json, and what it advises fits. */
#include "mosld/bench/shapes.h"
#include "mosld/bench/steps.h"
#include "mosld/model/memory.h"
#include "mosld/train/step.h"
#include "tests/support/op_test.h"
#include "tests/support/program.h"

#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- plan and use ---- */

/* A step of a small model on a device of its own process: all that the device gave, against all that was planned. */
static void held_is_planned(struct rt_device *dev, uint32_t rows, uint32_t length, enum mosld_method method, enum mosld_checkpointing checkpointing)
{
    struct mosld_config config;
    struct mosld_model *model;
    struct mosld_adapter *adapter;
    struct mosld_pass *pass;
    struct mosld_step *step;
    struct mosld_tokens batch;
    struct mosld_memory plan;
    struct rt_statistics held;
    struct rt_error err;
    struct mosld_train_config train = {MOSLD_TRAIN_DEFAULTS, .adapter = mosld_adapter_defaults(method)};
    ck_assert(mosld_shapes_config("tiny", &config, &err) == RT_OK);
    config.num_layers = 6;
    ck_assert_msg(mosld_random_model(dev, &config, OP_W_Q8_0, length, &model, &err) == RT_OK, "%s", err.text);
    ck_assert(mosld_adapter_create(dev, &config, &train.adapter, true, false, &adapter, &err) == RT_OK);
    ck_assert(mosld_bench_tokens(config.vocab_size, rows, length, &batch, &err) == RT_OK);
    struct mosld_pass_params params = {.max_tokens = batch.T, .max_targets = batch.n_targets, .trains = true};
    ck_assert_msg(mosld_pass_create_fitting(model, adapter, &params, checkpointing, &pass, &err) == RT_OK, "%s", err.text);
    mosld_memory_of(model, adapter, pass, &plan);
    ck_assert_uint_eq(plan.recomputed, checkpointing == MOSLD_CHECKPOINT_TRUE ? 5 : 0);
    ck_assert_msg(mosld_adapter_commit(adapter, &err) == RT_OK && mosld_pass_commit(pass, &err) == RT_OK, "%s", err.text);
    ck_assert_msg(mosld_adapter_init(adapter, &err) == RT_OK, "%s", err.text);
    ck_assert_msg(mosld_step_create(pass, &train, &step, &err) == RT_OK, "%s", err.text);
    uint32_t *losses = malloc(8ull * batch.n_targets);
    ck_assert(mosld_step_begin(step, 1, &err) == RT_OK);
    ck_assert_msg(mosld_step_micro(step, &batch, batch.n_targets, losses, &err) == RT_OK, "%s", err.text);
    rt_get_statistics(dev, &held);
    double quotient = (double)held.most_allocated / (double)mosld_memory_total(&plan);
    fprintf(stderr, "%s, %u tokens, %s, %s: planned %.2f MiB, held %.2f MiB\n", rt_device_info(dev)->name, batch.T, mosld_method_names[method],
            checkpointing == MOSLD_CHECKPOINT_TRUE ? "recomputed" : "kept", (double)mosld_memory_total(&plan) / (1 << 20), (double)held.most_allocated / (1 << 20));
    ck_assert_msg(fabs(quotient - 1) < 0.03, "%g times what was planned is held", quotient);
    free(losses);
    mosld_bench_tokens_finish(&batch);
    mosld_step_destroy(&step);
    mosld_pass_destroy(&pass);
    mosld_adapter_destroy(&adapter);
    mosld_model_destroy(&model);
    test_check_validation(dev);
}

static const struct {
    uint32_t rows, length;
    enum mosld_method method;
    enum mosld_checkpointing checkpointing;
} uses[] = {{4, 128, MOSLD_METHOD_LORA, MOSLD_CHECKPOINT_AUTO},   {4, 128, MOSLD_METHOD_MOSLD, MOSLD_CHECKPOINT_TRUE},
            {16, 128, MOSLD_METHOD_MOSLD, MOSLD_CHECKPOINT_AUTO}, {16, 128, MOSLD_METHOD_LORA, MOSLD_CHECKPOINT_TRUE},
            {64, 128, MOSLD_METHOD_LORA, MOSLD_CHECKPOINT_FALSE}, {64, 128, MOSLD_METHOD_MOSLD, MOSLD_CHECKPOINT_TRUE}};
enum { N_USES = sizeof uses / sizeof *uses };

START_TEST(the_host_holds_what_was_planned)
{
    held_is_planned(test_host(), uses[_i].rows, uses[_i].length, uses[_i].method, uses[_i].checkpointing);
}
END_TEST

START_TEST(vulkan_holds_what_was_planned)
{
    if (test_vulkan())
        held_is_planned(test_vulkan(), uses[_i].rows, uses[_i].length, uses[_i].method, uses[_i].checkpointing);
}
END_TEST

/* ---- the program's plan ---- */

#define PLAN "--plan --json --device host "

static void make(void)
{
    program_folder_make();
    write_text("t.jsonl", "{\"text\": \"Lily likes the big red ball, and Tom likes it too.\"}\n{\"text\": \"Once upon a time there was a dog.\"}\n");
    ck_assert_int_eq(system("mkdir model"), 0);
    write_text("model/config.json",
               "{\"architectures\": [\"LlamaForCausalLM\"], \"model_type\": \"llama\", \"hidden_act\": \"silu\", \"vocab_size\": 4096, "
               "\"hidden_size\": 256, \"intermediate_size\": 1024, \"num_hidden_layers\": 12, \"num_attention_heads\": 8, "
               "\"num_key_value_heads\": 4, \"max_position_embeddings\": 4096, \"rms_norm_eps\": 1e-5, \"rope_theta\": 10000.0, "
               "\"tie_word_embeddings\": true, \"torch_dtype\": \"float16\"}");
}

static double number(const cJSON *json, const char *key)
{
    const cJSON *item = cJSON_GetObjectItem(json, key);
    ck_assert_msg(cJSON_IsNumber(item), "%s is missing: %s %s", key, program_out(), program_err());
    return item->valuedouble;
}

/* The document of a plan that may or may not fit. */
static cJSON *plan(const char *format, const char *more)
{
    char line[1024];
    snprintf(line, sizeof line, format, more);
    int status = program("%s", line);
    ck_assert_msg(status == 0 || status == 4, "%s: status %d: %s", line, status, program_err());
    cJSON *json = cJSON_Parse(program_out());
    ck_assert_msg(json != NULL, "%s: %s", line, program_out());
    ck_assert_int_eq(cJSON_IsTrue(cJSON_GetObjectItem(json, "fits")), status == 0);
    return json;
}

START_TEST(a_config_is_enough)
{
    cJSON *folder = plan("train --model model --max-length 64 " PLAN "%s", ""), *file = plan("train --model model/config.json --max-length 64 " PLAN "%s", "");
    ck_assert(cJSON_Compare(cJSON_GetObjectItem(folder, "total_bytes"), cJSON_GetObjectItem(file, "total_bytes"), true));
    ck_assert_str_eq(cJSON_GetStringValue(cJSON_GetObjectItem(folder, "weights")), "F16");
    /* Two bytes a parameter and the RoPE table; vectors are f32 and hardly count. */
    double weights = number(folder, "weights_bytes"), parameters = number(folder, "parameters");
    ck_assert_double_eq_tol(weights / (2 * parameters), 1, 0.01);
    cJSON *q4 = plan("train --model model --max-length 64 " PLAN "%s", "--weights q4_0");
    ck_assert_double_eq_tol(number(q4, "weights_bytes") / (18.0 / 32 * parameters), 1, 0.02);
    cJSON_Delete(folder), cJSON_Delete(file), cJSON_Delete(q4);
    program_failed_as(program("train --model model --device host --task t=t.jsonl --out run"), 3, "model", NULL); /* to train, weights are needed */
    program_failed_as(program("train --model model --device host --plan"), 2, "--task", NULL);
    program_failed_as(program("train --model model/nothing.json --device host --plan --max-length 64"), 3, "nothing.json", NULL);
    cJSON *generate = plan("generate --model model --context 1000 " PLAN "%s", "");
    ck_assert_double_eq(number(generate, "cache_bytes"), 12.0 * 1024 * 2 * 4 * 32 * 2); /* f16, in blocks of 64 */
    cJSON *serve = plan("serve --model model --max-context 1000 --parallel 3 --cache-type q8_0 " PLAN "%s", "");
    ck_assert_double_eq(number(serve, "cache_bytes"), 12.0 * 3 * 1024 * 2 * 4 * (32 + 2));
    cJSON_Delete(serve);
    cJSON *eval = plan("eval --model model --batch-tokens 512 " PLAN "%s", "");
    ck_assert_double_eq(number(eval, "tokens"), 512);
    cJSON_Delete(generate), cJSON_Delete(eval);
}
END_TEST

/* The plan of a model that is there is that of its config. */
START_TEST(weights_make_no_difference)
{
    ck_assert_int_eq(system("mkdir bare && cp " LLAMA2 "/config.json bare/"), 0);
    cJSON *whole = plan("train --model " LLAMA2 " --max-length 32 --weights f32 " PLAN "%s", ""), *bare = plan("train --model bare --max-length 32 --weights f32 " PLAN "%s", "");
    ck_assert_double_eq(number(whole, "total_bytes"), number(bare, "total_bytes"));
    cJSON_Delete(whole), cJSON_Delete(bare);
}
END_TEST

/* As many layers are kept as fit: one fewer recomputed does not. */
START_TEST(the_limit_picks_the_layers)
{
    char text[64];
    cJSON *kept = plan("train --model model --max-length 128 --no-gradient-checkpointing " PLAN "%s", "");
    cJSON *least = plan("train --model model --max-length 128 --gradient-checkpointing " PLAN "%s", "");
    double most = number(kept, "total_bytes"), fewest = number(least, "total_bytes"), before = -1;
    ck_assert_double_eq(number(kept, "recomputed_layers"), 0);
    ck_assert_double_eq(number(least, "recomputed_layers"), 11);
    ck_assert(number(least, "recompute_share") > 0.2 && number(least, "recompute_share") < 0.35);
    for (int i = 0; i <= 10; i++) {
        double limit = fewest + (most - fewest) * i / 10.0;
        snprintf(text, sizeof text, "--memory-limit %.9f", ceil(limit) / 1048576);
        cJSON *json = plan("train --model model --max-length 128 " PLAN "%s", text);
        double recomputed = number(json, "recomputed_layers"), total = number(json, "total_bytes"), a_layer = (most - fewest) / 11;
        ck_assert_msg(total <= limit + 1 && (recomputed == 0 || total + 1.001 * a_layer > limit), "limit %g: %g layers are recomputed, %g bytes", limit, recomputed, total);
        ck_assert(before < 0 || recomputed <= before);
        before = recomputed;
        cJSON_Delete(json);
    }
    ck_assert_double_eq(before, 0);
    cJSON_Delete(kept), cJSON_Delete(least);
}
END_TEST

/* Each piece of advice, taken, fits; and it is the largest value that does. */
START_TEST(what_is_advised_fits)
{
    static const char *const commands[] = {
        "train --model model --max-length 512 --memory-limit 130 --no-gradient-checkpointing " PLAN "%s",
        "train --model model --max-length 512 --memory-limit 500 --no-gradient-checkpointing " PLAN "%s",
        "train --model model --max-length 512 --memory-limit 40 " PLAN "%s",
        "train --model model --max-length 2048 --memory-limit 25 " PLAN "%s",
        "generate --model model --context 2000 --memory-limit 40 " PLAN "%s",
        "generate --model model --context 2000 --memory-limit 20 " PLAN "%s",
        "eval --model model --batch-tokens 4096 --max-length 512 --memory-limit 45 " PLAN "%s",
    };
    static const char *const kinds[] = {"--gradient-checkpointing", "--per-device-train-batch-size", "--max-length", "--weights", "--max-context", "--batch-tokens", "--cache-type"};
    enum { KINDS = sizeof kinds / sizeof *kinds };
    bool seen[KINDS] = {0};
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
        cJSON *json = plan(commands[i], ""), *item;
        ck_assert_msg(cJSON_IsFalse(cJSON_GetObjectItem(json, "fits")), "%s", commands[i]);
        cJSON_ArrayForEach(item, cJSON_GetObjectItem(json, "fits_with"))
        {
            const char *options = cJSON_GetStringValue(cJSON_GetObjectItem(item, "options"));
            cJSON *taken = plan(commands[i], options);
            ck_assert_msg(cJSON_IsTrue(cJSON_GetObjectItem(taken, "fits")), "%s with %s does not fit", commands[i], options);
            ck_assert_double_eq_tol(number(taken, "total_bytes") / 1048576, number(item, "mib"), 1e-6);
            cJSON_Delete(taken);
            for (int k = 0; k < KINDS; k++)
                seen[k] |= strstr(options, kinds[k]) != NULL;
            const char *last = strrchr(options, ' ');
            if (strncmp(options, "--max-length", 12) == 0 || strncmp(options, "--max-context", 13) == 0 || strncmp(options, "--batch-tokens", 14) == 0) {
                char next[64];
                snprintf(next, sizeof next, "%.*s %d", (int)(last - options), options, atoi(last) + 1);
                taken = plan(commands[i], next);
                ck_assert_msg(cJSON_IsFalse(cJSON_GetObjectItem(taken, "fits")), "%s: %s fits as well", commands[i], next);
                cJSON_Delete(taken);
            }
        }
        cJSON_Delete(json);
    }
    for (int k = 0; k < KINDS; k++)
        ck_assert_msg(seen[k], "%s was never advised", kinds[k]);
    program_failed_as(program("train --model model --max-length 512 --memory-limit 1 --device host --plan"), 4, "MiB", NULL);
    ck_assert_ptr_nonnull(strstr(program_out(), "Nothing makes this model fit"));
}
END_TEST

/* ---- a run under a limit ---- */

#define RUN "train --model " STORIES " --device host --task t=t.jsonl --max-steps 3 --packing --max-length 64 --save-steps 0 "

START_TEST(a_run_under_a_limit_leaves_the_same_bits)
{
    ck_assert_int_eq(program(RUN "--out kept --no-gradient-checkpointing"), 0);
    ck_assert_int_eq(program(RUN "--out all --gradient-checkpointing"), 0);
    ck_assert_ptr_nonnull(strstr(program_err(), "recomputed 4 of 5"));
    cJSON *kept = plan("train --model " STORIES " --max-length 64 --task t=t.jsonl --packing --max-steps 3 --no-gradient-checkpointing " PLAN "%s", "");
    cJSON *all = plan("train --model " STORIES " --max-length 64 --task t=t.jsonl --packing --max-steps 3 --gradient-checkpointing " PLAN "%s", "");
    double limit = (number(kept, "total_bytes") + number(all, "total_bytes")) / 2 / 1048576;
    ck_assert_int_eq(program(RUN "--out some --memory-limit %.6f", limit), 0);
    ck_assert_ptr_nonnull(strstr(program_err(), "recomputed "));
    ck_assert_ptr_null(strstr(program_err(), "recomputed 4 of 5"));
    ck_assert(same_bytes("kept/adapter_model.safetensors", "all/adapter_model.safetensors"));
    ck_assert(same_bytes("kept/adapter_model.safetensors", "some/adapter_model.safetensors"));
    cJSON_Delete(kept), cJSON_Delete(all);
}
END_TEST

/* Whichever piece of memory is not given: a sentence, the plan, status 4; and the run can be begun again. */
START_TEST(memory_runs_out_at_every_place)
{
    int k = 1, status;
    for (;; k++) {
        char fault[32];
        snprintf(fault, sizeof fault, "no-memory@%d", k);
        setenv("MOSLD_FAULT", fault, 1);
        status = program(RUN "--overwrite-output-dir --out run");
        if (status == 0)
            break;
        ck_assert_msg(status == 4 && strstr(program_err(), "MiB of memory left") && strstr(program_err(), "  activations") &&
                          strstr(program_err(), "  total "),
                      "piece %d: status %d: %s", k, status, program_err());
        ck_assert_int_lt(k, 20);
    }
    ck_assert_int_ge(k, 5); /* weights, adapter, activations, scratch at least */
    setenv("MOSLD_FAULT", "no-memory@1", 1);
    program_failed_as(program("generate --model " STORIES " --device host --prompt Tom"), 4, "  activations", NULL);
    program_failed_as(program("eval --model " STORIES " --device host --task t=t.jsonl"), 4, "  activations", NULL);
    unsetenv("MOSLD_FAULT");
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("plan");
    TCase *tc = tcase_create("use");
    tcase_set_timeout(tc, 600);
    tcase_add_loop_test(tc, the_host_holds_what_was_planned, 0, N_USES);
    tcase_add_loop_test(tc, vulkan_holds_what_was_planned, 0, N_USES);
    suite_add_tcase(suite, tc);
    tc = tcase_create("program");
    tcase_set_timeout(tc, 300);
    tcase_add_checked_fixture(tc, make, program_folder_remove);
    tcase_add_test(tc, a_config_is_enough);
    tcase_add_test(tc, weights_make_no_difference);
    tcase_add_test(tc, the_limit_picks_the_layers);
    tcase_add_test(tc, what_is_advised_fits);
    tcase_add_test(tc, a_run_under_a_limit_leaves_the_same_bits);
    tcase_add_test(tc, memory_runs_out_at_every_place);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
