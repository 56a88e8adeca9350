/* tests/test_adapter_files.c - adapters on disk: what is written, and what is refused when it is read. */
#include "mosld/io/safetensors.h"
#include "tests/support/by_hand.h"
#include "tests/support/program.h"

#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define VECTORS MOSLD_SOURCE_DIR "/tests/vectors/"
#define LORA    VECTORS "llama2-lora/adapter"
#define MOSLD   VECTORS "llama2-mosld/adapter"
#define TENSORS "adapter_model.safetensors"
#define LOGITS  "logits --model " LLAMA2 " --device host --tokens 1,7,30,9,64,2 --out out.safetensors "

static void done(int status) { ck_assert_msg(status == 0, "status %d: %s", status, program_err()); }

static void copy_adapter(const char *from)
{
    char command[600];
    snprintf(command, sizeof command, "rm -rf a && cp -r '%s' a", from);
    ck_assert_int_eq(system(command), 0);
}

static cJSON *read_config(const char *path)
{
    size_t size;
    char *text = read_bytes(path, &size);
    cJSON *json = cJSON_Parse(text);
    ck_assert_ptr_nonnull(json);
    free(text);
    return json;
}

/* ---- the round trip ---- */

START_TEST(what_is_written_is_what_was_read)
{
    static const char *const methods[] = {LORA, VECTORS "llama2-mosl/adapter", MOSLD, VECTORS "qwen3-mosld/adapter"};
    const char *model = _i == 3 ? VECTORS "models/qwen3" : LLAMA2;
    char before[600];
    write_text("t.jsonl", "{\"input_ids\": [1, 5, 9, 3]}\n");
    done(program(
        "train --model %s --device host --task t=t.jsonl --init-adapter %s --learning-rate 0 --max-steps 1 --out run",
        model, methods[_i]));
    snprintf(before, sizeof before, "%s/" TENSORS, methods[_i]);
    ck_assert(files_differ("run/" TENSORS, before) == 0);
    /* And again from mosld's own files: the same bytes. */
    done(program("train --model %s --device host --task t=t.jsonl --init-adapter run --learning-rate 0 --max-steps 1 "
                 "--out again",
                 model));
    ck_assert(same_bytes("run/" TENSORS, "again/" TENSORS));
    ck_assert(same_bytes("run/adapter_config.json", "again/adapter_config.json"));
}
END_TEST

START_TEST(f16_and_bf16_tensors_are_read)
{
    struct safetensors *s;
    struct rt_error err;
    ck_assert_msg(safetensors_open(LORA "/" TENSORS, &s, &err) == RT_OK, "%s", err.text);
    size_t n = safetensors_count(s);
    struct safetensors_entry *entries = calloc(n, sizeof *entries);
    for (size_t i = 0; i < n; i++) {
        const struct safetensor *t = safetensors_at(s, i);
        uint16_t *half = malloc(t->elements * 2);
        for (uint64_t e = 0; e < t->elements; e++) /* the upper half of an f32 is a bf16 */
            memcpy(&half[e], t->data + 4 * e + 2, 2);
        entries[i] = (struct safetensors_entry){
            .name = t->name, .dtype = DTYPE_BF16, .rank = 2, .shape = {t->shape[0], t->shape[1]}, .data = half};
    }
    copy_adapter(LORA);
    ck_assert_msg(safetensors_write("a/" TENSORS, entries, n, NULL, 0, &err) == RT_OK, "%s", err.text);
    for (size_t i = 0; i < n; i++)
        free((void *)entries[i].data);
    free(entries);
    safetensors_close(&s);
    done(program(LOGITS "--adapter " LORA));
    ck_assert_int_eq(rename("out.safetensors", "f32.safetensors"), 0);
    done(program(LOGITS "--adapter a"));
    double off = files_differ("out.safetensors", "f32.safetensors");
    ck_assert_msg(off > 0 && off < 0.02, "logits are off by %g", off);
}
END_TEST

/* PEFT refuses keys that it does not know, and its tensors have these names. */
START_TEST(lora_is_plain_peft)
{
    static const char *const known[] = {
        "peft_type",      "task_type",      "base_model_name_or_path", "r",
        "lora_alpha",     "lora_dropout",   "target_modules",          "bias",
        "fan_in_fan_out", "inference_mode", "init_lora_weights",       "modules_to_save",
        "use_rslora"};
    static const char *const options[] = {"--method lora", "--method mosld --num-experts 1 --top-k 1 --dropout 0"};
    write_text("t.jsonl", "{\"input_ids\": [1, 5, 9, 3]}\n");
    done(program("train --model " LLAMA2 " --device host --task t=t.jsonl --max-steps 1 --out run %s", options[_i]));
    cJSON *json = read_config("run/adapter_config.json"), *item;
    cJSON_ArrayForEach(item, json)
    {
        bool found = false;
        for (size_t k = 0; k < sizeof known / sizeof *known; k++)
            found = found || strcmp(item->string, known[k]) == 0;
        ck_assert_msg(found, "PEFT does not know %s", item->string);
    }
    ck_assert_str_eq(cJSON_GetObjectItem(json, "peft_type")->valuestring, "LORA");
    ck_assert(cJSON_IsArray(cJSON_GetObjectItem(json, "target_modules")));
    ck_assert_str_eq(cJSON_GetObjectItem(json, "base_model_name_or_path")->valuestring, LLAMA2);
    cJSON_Delete(json);
    uint64_t n;
    free(tensor_of("run/" TENSORS, "base_model.model.model.layers.1.self_attn.v_proj.lora_A.weight", &n));
    ck_assert_uint_eq(n, 8 * 48);
    free(tensor_of("run/" TENSORS, "base_model.model.model.layers.1.self_attn.v_proj.lora_B.weight", &n));
    ck_assert_uint_eq(n, 24 * 8);
}
END_TEST

START_TEST(a_mixture_has_its_own_keys)
{
    write_text("t.jsonl", "{\"input_ids\": [1, 5, 9, 3]}\n");
    done(program("train --model " LLAMA2 " --device host --task t=t.jsonl --max-steps 1 --out run --num-experts 3,1 "
                                         "--top-k 1 --target-modules k_proj --r 4"));
    cJSON *json = read_config("run/adapter_config.json");
    ck_assert_str_eq(cJSON_GetObjectItem(json, "peft_type")->valuestring, "MOSLD");
    ck_assert_str_eq(cJSON_GetObjectItem(json, "method")->valuestring, "mosld");
    ck_assert_int_eq(cJSON_GetArraySize(cJSON_GetObjectItem(json, "num_experts")), 2);
    ck_assert_int_eq(cJSON_GetObjectItem(json, "top_k")->valueint, 1);
    cJSON_Delete(json);
    /* Three experts with a router in the first layer; one, with neither, in the second. */
    static const struct {
        const char *name;
        uint64_t n;
    } want[] = {{"0.self_attn.k_proj.lora_A.weight", 4 * 48},   {"0.self_attn.k_proj.lora_router.weight", 3 * 48},
                {"0.self_attn.k_proj.lora_B.0.weight", 24 * 4}, {"0.self_attn.k_proj.lora_B.2.weight", 24 * 4},
                {"1.self_attn.k_proj.lora_A.weight", 4 * 48},   {"1.self_attn.k_proj.lora_B.weight", 24 * 4}};
    for (size_t i = 0; i < sizeof want / sizeof *want; i++) {
        char name[200];
        uint64_t n;
        snprintf(name, sizeof name, "base_model.model.model.layers.%s", want[i].name);
        free(tensor_of("run/" TENSORS, name, &n));
        ck_assert_uint_eq(n, want[i].n);
    }
    done(program(LOGITS "--adapter run"));
}
END_TEST

/* ---- adapter_config.json ---- */

START_TEST(bad_configurations)
{
    static const struct {
        const char *adapter, *key, *value, *want; /* value NULL: the key is taken away */
    } bad[] = {
        {LORA, "r", "0", "\"r\""},
        {LORA, "r", "-1", "\"r\""},
        {LORA, "r", "1e9", "\"r\""},
        {LORA, "r", "1.5", "\"r\""},
        {LORA, "r", "\"8\"", "\"r\""},
        {LORA, "r", NULL, "\"r\""},
        {LORA, "r", "5", "[5, 48]"},
        {LORA, "lora_alpha", "\"nan\"", "lora_alpha"},
        {LORA, "lora_alpha", "0", "lora_alpha"},
        {LORA, "lora_alpha", "-16", "lora_alpha"},
        {LORA, "lora_alpha", "1e400", "lora_alpha"},
        {LORA, "lora_alpha", NULL, "lora_alpha"},
        {LORA, "lora_dropout", "1.0", "dropout"},
        {LORA, "lora_dropout", "1.5", "dropout"},
        {LORA, "lora_dropout", "-0.1", "dropout"},
        {LORA, "target_modules", "[]", "target_modules"},
        {LORA, "target_modules", "[\"query\"]", "query"},
        {LORA, "target_modules", "\".*(q_proj\"", "regular expression"},
        {LORA, "target_modules", "\".*q_proj\"", "tensors"},
        {LORA, "target_modules", "\".*\"", "lm_head"},
        {LORA, "target_modules", "\"no_such\"", "no linear module"},
        {LORA, "target_modules", "\"(.+)+[!?]\"", "too much work"},
        {LORA, "target_modules", "[\"lm_head\"]", "lm_head"},
        {LORA, "target_modules", "[\"proj\"]", "proj"},
        {LORA, "exclude_modules", "[\"q_proj\"]", "tensors"},
        {LORA, "exclude_modules", "[1]", "exclude_modules"},
        {LORA, "target_modules", "[1]", "target_modules"},
        {LORA, "target_modules", "null", "target_modules"},
        {LORA, "target_modules", "[\"q_proj\"]", "tensors"},
        {LORA, "peft_type", "\"IA3\"", "IA3"},
        {LORA, "peft_type", "\"PREFIX_TUNING\"", "PREFIX_TUNING"},
        {LORA, "peft_type", NULL, "peft_type"},
        {LORA, "peft_type", "7", "peft_type"},
        {LORA, "use_dora", "true", "use_dora"},
        {LORA, "use_dora", "\"yes\"", "use_dora"},
        {LORA, "bias", "\"all\"", "bias"},
        {LORA, "fan_in_fan_out", "true", "fan_in_fan_out"},
        {LORA, "lora_bias", "true", "lora_bias"},
        {LORA, "modules_to_save", "[\"lm_head\"]", "modules_to_save"},
        {LORA, "rank_pattern", "{\"q_proj\": 2}", "[2, 48]"},
        {LORA, "rank_pattern", "{\"q_proj\": 0}", "rank_pattern"},
        {LORA, "rank_pattern", "{\"q_proj\": 2.5}", "rank_pattern"},
        {LORA, "rank_pattern", "{\"q_proj\": \"2\"}", "rank_pattern"},
        {LORA, "rank_pattern", "{\"q_proj\": 1e9}", "rank_pattern"},
        {LORA, "rank_pattern", "{\"[\": 4}", "regular expression"},
        {LORA, "rank_pattern", "[4]", "rank_pattern"},
        {LORA, "alpha_pattern", "{\"q_proj\": -4}", "alpha_pattern"},
        {LORA, "layers_to_transform", "[0]", "tensors"},
        {LORA, "layers_to_transform", "[-1]", "layers_to_transform"},
        {LORA, "layers_to_transform", "\"0\"", "layers_to_transform"},
        {MOSLD, "rank_pattern", "{\"q_proj\": 2}", "LORA adapters only"},
        {LORA, "init_lora_weights", "\"pissa_niter_4\"", "pissa"},
        {LORA, "init_lora_weights", "\"olora\"", "olora"},
        {MOSLD, "num_experts", "0", "num_experts"},
        {MOSLD, "num_experts", "1000", "num_experts"},
        {MOSLD, "num_experts", "[]", "num_experts"},
        {MOSLD, "num_experts", "[4, -1]", "num_experts"},
        {MOSLD, "num_experts", "\"4\"", "num_experts"},
        {MOSLD, "num_experts", NULL, "num_experts"},
        {MOSLD, "num_experts", "1", "lora_B"},
        {MOSLD, "top_k", "0", "top_k"},
        {MOSLD, "top_k", "60", "top_k"},
        {MOSLD, "top_k", NULL, "top_k"},
        {MOSLD, "method", "\"molora\"", "method"},
        {MOSLD, "method", NULL, "method"},
        {MOSLD, "dropout", "1", "dropout"},
        {MOSLD, "dropout_on", "\"B\"", "dropout_on"},
        {MOSLD, "peft_type", "\"LORA\"", ""},
        {MOSLD, "router_aux_loss_coef", "-1", "router_aux_loss_coef"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char label[200];
        copy_adapter(bad[i].adapter);
        cJSON *json = read_config("a/adapter_config.json");
        cJSON_DeleteItemFromObject(json, bad[i].key);
        char *rest = cJSON_PrintUnformatted(json);
        write_text("a/adapter_config.json", bad[i].value ? "{\"%s\": %s, %s" : "{%.0s%.0s%s", bad[i].key,
                   bad[i].value ? bad[i].value : "", rest + 1);
        free(rest);
        cJSON_Delete(json);
        snprintf(label, sizeof label, "%s %s", bad[i].key, bad[i].value ? bad[i].value : "missing");
        int status = program(LOGITS "--adapter a");
        ck_assert_msg(status == 3 && strstr(program_err(), bad[i].want) && strstr(program_err(), "a/adapter_"),
                      "%s: status %d: %s", label, status, program_err());
        ck_assert(!path_exists("out.safetensors"));
    }
}
END_TEST

START_TEST(layers_that_the_model_has_not)
{
    copy_adapter(LORA);
    write_text("a/adapter_config.json", "{\"peft_type\": \"LORA\", \"r\": 4, \"lora_alpha\": 8, \"target_modules\": [\"q_proj\"], \"layers_to_transform\": 99}");
    program_failed_as(program(LOGITS "--adapter a"), 3, "adapter_config.json", "none of the model's 2 layers", NULL);
}
END_TEST

START_TEST(no_configuration_at_all)
{
    static const char *const texts[] = {"",           "{",           "[]", "null", "{\"peft_type\": \"LORA\"",
                                        "\xff\xfe{}", "{\"a\": 1} x"};
    copy_adapter(LORA);
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        write_text("a/adapter_config.json", "%s", texts[i]);
        program_failed_as(program(LOGITS "--adapter a"), 3, "a/adapter_config.json", NULL);
    }
    ck_assert_int_eq(system("rm a/adapter_config.json"), 0);
    program_failed_as(program(LOGITS "--adapter a"), 3, "a/adapter_config.json", NULL);
    program_failed_as(program(LOGITS "--adapter nowhere"), 3, "nowhere", NULL);
    program_failed_as(program(LOGITS "--adapter ''"), 3, "adapter_config.json", NULL);
    write_text("file", "x");
    program_failed_as(program(LOGITS "--adapter file"), 3, "file", NULL);
}
END_TEST

/* Shown with the reason where it is a LoRA that mosld does not run; an error that names it where it is another family's. */
START_TEST(inspecting)
{
    copy_adapter(LORA);
    done(program("inspect a"));
    ck_assert_ptr_null(strstr(program_out(), "reason"));
    write_text("a/adapter_config.json", "{\"peft_type\": \"LORA\", \"r\": 4, \"lora_alpha\": 8, \"target_modules\": [\"q_proj\"], \"use_dora\": true}");
    done(program("inspect a"));
    ck_assert_ptr_nonnull(strstr(program_out(), "use_dora"));
    ck_assert_ptr_nonnull(strstr(program_out(), "reason"));
    write_text("a/adapter_config.json", "{\"peft_type\": \"LOHA\", \"r\": 4}");
    program_failed_as(program("inspect a"), 3, "LOHA", "a/adapter_config.json", NULL);
}
END_TEST

/* What mosld does not need and PEFT writes is passed over. */
START_TEST(peft_writes_more_keys)
{
    copy_adapter(LORA);
    cJSON *json = read_config("a/adapter_config.json");
    char *rest = cJSON_PrintUnformatted(json);
    write_text(
        "a/adapter_config.json",
        "{\"alora_invocation_tokens\": null, \"arrow_config\": null, \"auto_mapping\": null, \"corda_config\": null, "
        "\"eva_config\": null, "
        "\"ensure_weight_tying\": false, \"exclude_modules\": null, \"layer_replication\": null, \"layers_pattern\": "
        "null, \"layers_to_transform\": null, "
        "\"loftq_config\": {}, \"lora_bias\": false, \"megatron_config\": null, \"megatron_core\": \"megatron.core\", "
        "\"peft_version\": \"0.18.0\", "
        "\"qalora_group_size\": 16, \"rank_pattern\": {}, \"alpha_pattern\": {}, \"revision\": null, "
        "\"target_parameters\": null, "
        "\"trainable_token_indices\": null, \"use_dora\": false, \"use_qalora\": false, \"modules_to_save\": null, %s",
        rest + 1);
    free(rest);
    cJSON_Delete(json);
    done(program(LOGITS "--adapter a"));
    ck_assert_int_eq(rename("out.safetensors", "more.safetensors"), 0);
    done(program(LOGITS "--adapter " LORA));
    ck_assert(same_bytes("out.safetensors", "more.safetensors"));
}
END_TEST

/* ---- tensors ---- */

/* Copies the adapter's tensors with the one that has `part` in its name changed: 0 left out, 1 transposed, 2 a NaN in
 * it, 3 another name, 4 one more, of a name that no module has, 5 as integers. */
static void change_tensor(const char *part, int how)
{
    struct safetensors *s;
    struct rt_error err;
    ck_assert_msg(safetensors_open(MOSLD "/" TENSORS, &s, &err) == RT_OK, "%s", err.text);
    size_t n = 0;
    struct safetensors_entry entries[128];
    static float damaged[1 << 16];
    bool found = false;
    ck_assert_uint_lt(safetensors_count(s), 120);
    for (size_t i = 0; i < safetensors_count(s); i++) {
        const struct safetensor *t = safetensors_at(s, i);
        struct safetensors_entry e = {
            .name = t->name, .dtype = t->dtype, .rank = t->rank, .shape = {t->shape[0], t->shape[1]}, .data = t->data};
        bool this = !found && strstr(t->name, part) != NULL;
        found = found || this;
        if (this && how == 0)
            continue;
        if (this && how == 1) {
            e.shape[0] = t->shape[1];
            e.shape[1] = t->shape[0];
        } else if (this && how == 2) {
            memcpy(damaged, t->data, t->elements * 4);
            damaged[t->elements - 1] = NAN;
            e.data = damaged;
        } else if (this && how == 3) {
            e.name = "base_model.model.model.layers.9.self_attn.q_proj.lora_A.weight";
        } else if (this && how == 5) {
            e.dtype = DTYPE_I32;
        }
        entries[n++] = e;
        if (this && how == 4) {
            e.name = "base_model.model.model.layers.0.mlp.up_proj.lora_C.weight";
            entries[n++] = e;
        }
    }
    ck_assert(found);
    copy_adapter(MOSLD);
    ck_assert_msg(safetensors_write("a/" TENSORS, entries, n, NULL, 0, &err) == RT_OK, "%s", err.text);
    safetensors_close(&s);
}

START_TEST(bad_tensors)
{
    static const char *const wants[] = {"is missing", "make it [", "not finite", "is missing", "tensors where", "I32"};
    static const char *const parts[] = {"0.self_attn.q_proj.lora_A", "lora_router", "lora_B.1"};
    for (int how = 0; how < 6; how++)
        for (int p = 0; p < 3; p++) {
            change_tensor(parts[p], how);
            program_failed_as(program(LOGITS "--adapter a"), 3, "a/" TENSORS, wants[how], NULL);
        }
}
END_TEST

START_TEST(bad_tensor_files)
{
    size_t size;
    char *data = read_bytes(LORA "/" TENSORS, &size);
    copy_adapter(LORA);
    static const size_t lengths[] = {0, 7, 8, 100, 2000};
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        write_bytes("a/" TENSORS, data, lengths[i]);
        program_failed_as(program(LOGITS "--adapter a"), 3, "a/" TENSORS, NULL);
    }
    write_bytes("a/" TENSORS, data, size - 1);
    program_failed_as(program(LOGITS "--adapter a"), 3, "a/" TENSORS, NULL);
    free(data);
    ck_assert_int_eq(system("rm a/" TENSORS), 0);
    program_failed_as(program(LOGITS "--adapter a"), 3, "a/" TENSORS, NULL);
    /* An adapter of another model. */
    program_failed_as(program(LOGITS "--adapter " VECTORS "qwen3-lora/adapter"), 3, TENSORS, NULL);
}
END_TEST

/* Every command that takes an adapter refuses it in the same way. */
START_TEST(every_command_refuses_it)
{
    write_text("t.jsonl", "{\"text\": \"Tom is glad.\"}\n");
    copy_adapter(LORA);
    write_text("a/adapter_config.json", "{\"peft_type\": \"IA3\"}");
    static const char *const commands[] = {"eval --task t=t.jsonl --adapter a", "generate --prompt Tom --adapter a",
                                           "perplexity --text t.jsonl --adapter a",
                                           "train --task t=t.jsonl --out run --init-adapter a",
                                           "logits --tokens 1,2 --out o --adapter a"};
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++)
        program_failed_as(program("%s --model " STORIES " --device host", commands[i]), 3, "a/adapter_config.json",
                          "IA3", NULL);
    ck_assert(!path_exists("run/metrics.jsonl"));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("adapter_files");
    TCase *tc = tcase_create("files");
    tcase_add_checked_fixture(tc, program_folder_make, program_folder_remove);
    tcase_set_timeout(tc, 120);
    tcase_add_loop_test(tc, what_is_written_is_what_was_read, 0, 4);
    tcase_add_test(tc, f16_and_bf16_tensors_are_read);
    tcase_add_loop_test(tc, lora_is_plain_peft, 0, 2);
    tcase_add_test(tc, a_mixture_has_its_own_keys);
    tcase_add_test(tc, bad_configurations);
    tcase_add_test(tc, layers_that_the_model_has_not);
    tcase_add_test(tc, no_configuration_at_all);
    tcase_add_test(tc, inspecting);
    tcase_add_test(tc, peft_writes_more_keys);
    tcase_add_test(tc, bad_tensors);
    tcase_add_test(tc, bad_tensor_files);
    tcase_add_test(tc, every_command_refuses_it);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
