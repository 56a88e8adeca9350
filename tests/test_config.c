/* Model configs: what config.json and GGUF metadata give, and everything that must be refused. */
#include "mosld/io/file.h"
#include "mosld/io/gguf.h"
#include "mosld/io/json.h"
#include "mosld/model/config.h"
#include "tests/support/io_files.h"

#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static const char base[] =
    "{'architectures':['LlamaForCausalLM'],'model_type':'llama','vocab_size':100,'hidden_size':48,"
    "'intermediate_size':72,'num_hidden_layers':2,'num_attention_heads':6,'num_key_value_heads':2,"
    "'max_position_embeddings':512,'rms_norm_eps':1e-5,'rope_theta':10000.0,'hidden_act':'silu',"
    "'tie_word_embeddings':true,'bos_token_id':1,'eos_token_id':2,'torch_dtype':'bfloat16',"
    "'attention_bias':false,'mlp_bias':false,'rope_scaling':null,'pretraining_tp':1}";

static const char *folder(void) { return io_path("model"); }

/* Writes config.json: the base with the members of `changes` put over it; where that is the string "-", taken out. */
static void write_config(const char *changes)
{
    char *base_text = io_quoted(base), *changes_text = io_quoted(changes);
    cJSON *json = cJSON_Parse(base_text), *over = cJSON_Parse(changes_text), *item;
    free(base_text);
    free(changes_text);
    ck_assert(json && over);
    cJSON_ArrayForEach(item, over) {
        cJSON_DeleteItemFromObjectCaseSensitive(json, item->string);
        if (!cJSON_IsString(item) || strcmp(item->valuestring, "-") != 0)
            cJSON_AddItemToObject(json, item->string, cJSON_Duplicate(item, true));
    }
    char *text = cJSON_Print(json);
    mkdir(folder(), 0700);
    io_write_text(io_path("model/config.json"), text);
    remove(io_path("model/generation_config.json"));
    cJSON_free(text);
    cJSON_Delete(json);
    cJSON_Delete(over);
}

static void load(const char *changes, struct mosld_config *c)
{
    struct rt_error err = {0};
    write_config(changes);
    check_ok(mosld_config_load(folder(), c, &err), &err);
}

START_TEST(a_llama_config)
{
    struct mosld_config c;
    load("{}", &c);
    ck_assert_int_eq(c.arch, MOSLD_LLAMA);
    ck_assert(c.vocab_size == 100 && c.hidden_size == 48 && c.intermediate_size == 72 && c.num_layers == 2);
    ck_assert(c.num_heads == 6 && c.num_kv_heads == 2 && c.head_dim == 8 && c.max_positions == 512 &&
              c.declared_positions == 512);
    ck_assert(c.rms_norm_eps == 1e-5 && c.rope_theta == 10000 && c.rope == MOSLD_ROPE_DEFAULT && c.tie_word_embeddings);
    ck_assert(!c.qkv_bias && !c.qk_norm && c.sliding_window == 0 && c.bos_id == 1 && c.n_eos == 1 && c.eos_id[0] == 2);
    ck_assert_str_eq(c.dtype, "bfloat16");
    uint64_t layer = 48 * 48 * 2 + 48 * 16 * 2 + 48 * 72 * 3 + 96;
    ck_assert_uint_eq(mosld_config_parameters(&c), 2 * layer + 100 * 48 + 48);
    load("{'tie_word_embeddings':'-','num_key_value_heads':'-','architectures':'-','rope_theta':'-',"
         "'dtype':'float16','max_position_embeddings':'-','rms_norm_eps':'-','bos_token_id':null,"
         "'eos_token_id':null}", &c);
    ck_assert(!c.tie_word_embeddings && c.num_kv_heads == 6 && c.rope_theta == 10000 && c.max_positions == 2048 &&
              c.rms_norm_eps == 1e-6);
    ck_assert(c.bos_id == -1 && c.n_eos == 0);
    ck_assert_str_eq(c.dtype, "float16");
    ck_assert_uint_eq(mosld_config_parameters(&c), 2 * (layer + 48 * 32 * 2) + 2 * 100 * 48 + 48);
}
END_TEST

START_TEST(the_other_families)
{
    struct mosld_config c;
    load("{'architectures':['Qwen2ForCausalLM'],'model_type':'qwen2','use_sliding_window':false,"
         "'sliding_window':16,'max_window_layers':0,'layer_types':['full_attention','full_attention']}", &c);
    ck_assert(c.arch == MOSLD_QWEN2 && c.qkv_bias && !c.qk_norm && c.max_positions == 512);
    load("{'architectures':['Qwen3ForCausalLM'],'model_type':'qwen3','num_attention_heads':16,"
         "'num_key_value_heads':8,'head_dim':128,'hidden_size':1024}",
         &c); /* 16 x 128 is not 1024 */
    ck_assert(c.arch == MOSLD_QWEN3 && c.qk_norm && !c.qkv_bias && c.head_dim == 128);
    load("{'architectures':['Qwen3ForCausalLM'],'model_type':'qwen3','head_dim':'-'}", &c);
    ck_assert_uint_eq(c.head_dim, 128); /* its class's default */
    load("{'architectures':['MistralForCausalLM'],'model_type':'mistral','sliding_window':null,'head_dim':null}", &c);
    ck_assert(c.arch == MOSLD_MISTRAL && c.max_positions == 512 && c.sliding_window == 0 && c.head_dim == 8);
    load("{'architectures':['MistralForCausalLM'],'model_type':'mistral','sliding_window':128}", &c);
    ck_assert(c.max_positions == 128 && c.sliding_window == 128 && c.declared_positions == 512);
    load("{'architectures':['MistralForCausalLM'],'model_type':'mistral','max_position_embeddings':32768}", &c);
    ck_assert(c.max_positions == 4096 && c.sliding_window == 4096); /* its class's default */
    load("{'architectures':['MistralForCausalLM'],'model_type':'mistral','sliding_window':4096}", &c);
    ck_assert(c.max_positions == 512 && c.sliding_window == 0);
    load("{'architectures':['Qwen2ForCausalLM'],'model_type':'qwen2','use_sliding_window':true,"
         "'sliding_window':64,'max_window_layers':1,'layer_types':['full_attention','sliding_attention']}", &c);
    ck_assert(c.max_positions == 64 && c.sliding_window == 64);
    load("{'architectures':['Qwen2ForCausalLM'],'model_type':'qwen2','use_sliding_window':true,"
         "'sliding_window':64,'max_window_layers':2}", &c);
    ck_assert_uint_eq(c.max_positions, 512);
}
END_TEST

/* Llama 3.2's numbers; frequencies as Transformers computes them (rope_utils, float64). */
#define LLAMA3 "'factor':32.0,'low_freq_factor':1.0,'high_freq_factor':4.0,'original_max_position_embeddings':8192"

START_TEST(rope_scaling_old_and_new)
{
    static const char *const same[] = {
        "{'head_dim':64,'rope_theta':500000.0,'rope_scaling':{'rope_type':'llama3'," LLAMA3 "}}",
        "{'head_dim':64,'rope_theta':500000.0,'rope_scaling':{'type':'llama3'," LLAMA3 "}}",
        "{'head_dim':64,'rope_theta':'-','rope_parameters':{'rope_theta':500000.0,'rope_type':'llama3'," LLAMA3 "}}",
        "{'head_dim':64,'rope_parameters':{'full_attention':{'rope_theta':500000.0,'rope_type':'llama3'," LLAMA3 "}}}",
    };
    struct mosld_config c;
    double f[32];
    for (size_t i = 0; i < sizeof same / sizeof *same; i++) {
        load(same[i], &c);
        ck_assert(c.rope == MOSLD_ROPE_LLAMA3 && c.rope_theta == 500000 && c.rope_factor == 32 &&
                  c.rope_original_positions == 8192);
        mosld_config_inv_freq(&c, f);
        ck_assert(f[0] == 1);
        ck_assert_double_eq_tol(f[1], pow(500000, -1 / 32.0), 1e-15);        /* short waves stay */
        ck_assert_double_eq_tol(f[31], pow(500000, -31 / 32.0) / 32, 1e-18); /* long ones are slowed */
        double wave = 2 * M_PI * pow(500000, 16 / 32.0), smooth = (8192 / wave - 1) / 3;
        ck_assert(wave > 8192 / 4.0 && wave < 8192);
        ck_assert_double_eq_tol(f[16], ((1 - smooth) / 32 + smooth) * pow(500000, -16 / 32.0), 1e-15);
    }
    load("{'rope_scaling':{'type':'linear','factor':4}}", &c);
    ck_assert(c.rope == MOSLD_ROPE_LINEAR && c.rope_factor == 4);
    mosld_config_inv_freq(&c, f);
    ck_assert(f[0] == 0.25 && fabs(f[2] - 0.25 * 0.01) < 1e-15);
    load("{'rope_parameters':{'rope_type':'default','rope_theta':77}}", &c);
    ck_assert(c.rope == MOSLD_ROPE_DEFAULT && c.rope_theta == 77);
}
END_TEST

START_TEST(end_tokens_come_from_both_files)
{
    struct mosld_config c;
    struct rt_error err = {0};
    write_config("{'eos_token_id':[2,3]}");
    io_write_json(io_path("model/generation_config.json"), "{'eos_token_id':[3,9]}");
    check_ok(mosld_config_load(folder(), &c, &err), &err);
    ck_assert(c.n_eos == 3 && c.eos_id[0] == 2 && c.eos_id[1] == 3 && c.eos_id[2] == 9);
    io_write_json(io_path("model/generation_config.json"), "{'eos_token_id':100}");
    check_refused(mosld_config_load(folder(), &c, &err), &err, "generation_config.json", "eos_token_id");
    io_write_json(io_path("model/generation_config.json"), "{");
    check_refused(mosld_config_load(folder(), &c, &err), &err, "generation_config.json", "too early");
}
END_TEST

static const struct {
    const char *changes, *words;
} bad[] = {
    {"{'architectures':'-','model_type':'-'}", "neither"},
    {"{'architectures':['GemmaForCausalLM'],'model_type':'gemma'}", "GemmaForCausalLM is not supported"},
    {"{'architectures':['SmolLM3ForCausalLM'],'model_type':'smollm3'}", "SmolLM3ForCausalLM"},
    {"{'architectures':'-','model_type':'mixtral'}", "mixtral is not supported"},
    {"{'model_type':'qwen2'}", "'model_type' says qwen2"},
    {"{'architectures':'LlamaForCausalLM'}", "'architectures'"},
    {"{'architectures':[1]}", "'architectures'"},
    {"{'vocab_size':0}", "'vocab_size' is 0"},
    {"{'vocab_size':'100'}", "'vocab_size' is '100'"},
    {"{'vocab_size':1e9}", "'vocab_size'"},
    {"{'vocab_size':'-'}", "'vocab_size' is missing"},
    {"{'hidden_size':-48}", "'hidden_size' is -48"},
    {"{'hidden_size':1000000000}", "'hidden_size'"},
    {"{'hidden_size':48.5}", "'hidden_size' is 48.5"},
    {"{'hidden_size':50}", "no multiple of the 6 attention heads"},
    {"{'intermediate_size':0}", "'intermediate_size'"},
    {"{'num_hidden_layers':0}", "'num_hidden_layers'"},
    {"{'num_hidden_layers':1e9}", "'num_hidden_layers'"},
    {"{'num_attention_heads':0}", "'num_attention_heads'"},
    {"{'num_key_value_heads':0}", "'num_key_value_heads'"},
    {"{'num_key_value_heads':4}", "no multiple of 4 key-value heads"},
    {"{'head_dim':7}", "head size is 7"},
    {"{'head_dim':1024}", "'head_dim'"},
    {"{'head_dim':0}", "'head_dim' is 0"},
    {"{'max_position_embeddings':0}", "'max_position_embeddings'"},
    {"{'rms_norm_eps':0}", "'rms_norm_eps'"},
    {"{'rms_norm_eps':5}", "'rms_norm_eps' is 5"},
    {"{'rope_theta':0}", "'rope_theta'"},
    {"{'hidden_act':'gelu'}", "'hidden_act' is gelu"},
    {"{'tie_word_embeddings':1}", "'tie_word_embeddings'"},
    {"{'attention_bias':true}", "'attention_bias' is true"},
    {"{'mlp_bias':true}", "'mlp_bias' is true"},
    {"{'num_local_experts':8}", "'num_local_experts' is 8"},
    {"{'partial_rotary_factor':0.75}", "'partial_rotary_factor' is 0.75"},
    {"{'attn_logit_softcapping':50}", "'attn_logit_softcapping'"},
    {"{'logits_scaling':8}", "'logits_scaling'"},
    {"{'no_rope_layers':[1,0]}", "'no_rope_layers'"},
    {"{'quantization_config':{'quant_method':'gptq'}}", "(gptq)"},
    {"{'layer_types':['full_attention','sliding_attention']}", "'layer_types' has sliding_attention"},
    {"{'layer_types':['linear_attention']}", "'layer_types' has linear_attention"},
    {"{'rope_scaling':{'type':'yarn','factor':4}}", "yarn is not supported"},
    {"{'rope_scaling':{'rope_type':'longrope','short_factor':[1]}}", "longrope is not supported"},
    {"{'rope_scaling':{'rope_type':'dynamic','factor':2}}", "dynamic is not supported"},
    {"{'rope_scaling':'linear'}", "'rope_scaling'"},
    {"{'rope_scaling':{'type':7}}", "'type' is 7"},
    {"{'rope_scaling':{'type':'linear'}}", "'factor' is missing"},
    {"{'rope_scaling':{'type':'linear','factor':0.5}}", "'factor' is 0.5"},
    {"{'rope_scaling':{'type':'linear','factor':[1,2]}}", "'factor' is an array"},
    {"{'rope_scaling':{'type':'llama3','factor':8}}", "'low_freq_factor' is missing"},
    {"{'rope_scaling':{'type':'llama3','factor':8,'low_freq_factor':4,'high_freq_factor':4,"
     "'original_max_position_embeddings':8}}",
     "must be above"},
    {"{'rope_scaling':{'type':'linear','factor':2},'rope_parameters':{'rope_type':'default'}}",
     "'rope_parameters' says default"},
    {"{'rope_parameters':{'rope_type':'default','partial_rotary_factor':0.25}}", "'partial_rotary_factor'"},
    {"{'bos_token_id':100}", "'bos_token_id'"},
    {"{'eos_token_id':-1}", "'eos_token_id'"},
    {"{'eos_token_id':'2'}", "'eos_token_id'"},
    {"{'eos_token_id':[2,'3']}", "'eos_token_id'"},
    {"{'eos_token_id':[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17]}", "more than 16 end tokens"},
};
enum { N_BAD = sizeof bad / sizeof *bad };

START_TEST(bad_configs_are_refused)
{
    struct mosld_config c;
    struct rt_error err = {0};
    write_config(bad[_i].changes);
    check_refused(mosld_config_load(folder(), &c, &err), &err, "model/config.json: ", bad[_i].words);
}
END_TEST

START_TEST(no_config_at_all)
{
    struct mosld_config c;
    struct rt_error err = {0};
    mkdir(folder(), 0700);
    remove(io_path("model/config.json"));
    check_refused(mosld_config_load(folder(), &c, &err), &err, "model/config.json", "cannot be opened");
    io_write_text(io_path("model/config.json"), "[]");
    check_refused(mosld_config_load(folder(), &c, &err), &err, "model/config.json", "must be a JSON object");
    check_refused(mosld_config_load("/nowhere", &c, &err), &err, "/nowhere", "cannot be opened");
}
END_TEST

/* ---- GGUF ---- */

struct gguf_case {
    const char *arch;
    const char *skip;            /* a key to leave out */
    const char *key;             /* a key to add or replace */
    enum { AS_U32, AS_F32, AS_STRING, AS_ARRAY } as;
    double value;
    const char *text;
    const char *words;           /* NULL: good */
};

static void add_u32(struct bytes *b, const struct gguf_case *c, uint64_t *n, const char *key, uint32_t value)
{
    if ((c->skip && strcmp(c->skip, key) == 0) || (c->key && strcmp(c->key, key) == 0))
        return;
    build_key_u32(b, key, value);
    ++*n;
}

static void add_case(struct bytes *b, const struct gguf_case *c, uint64_t *n)
{
    if (!c->key)
        return;
    ++*n;
    if (c->as == AS_U32) {
        build_key_u32(b, c->key, (uint32_t)c->value);
    } else if (c->as == AS_F32) {
        build_key_f32(b, c->key, (float)c->value);
    } else if (c->as == AS_STRING) {
        build_key_string(b, c->key, c->text);
    } else {
        build_key_array(b, c->key, 4, 2);
        bytes_u32(b, 2);
        bytes_u32(b, 4);
    }
}

/* Metadata of a llama of 2 layers, with the case's key, and an embedding [100, 48]. */
static void write_gguf(const struct gguf_case *c, const char *path)
{
    struct bytes b = {0}, keys = {0};
    uint64_t n = 0;
    const char *eps = "llama.attention.layer_norm_rms_epsilon";
    if (!c->skip || strcmp(c->skip, "general.architecture") != 0) {
        build_key_string(&keys, "general.architecture", c->arch ? c->arch : "llama");
        n++;
    }
    add_u32(&keys, c, &n, "llama.embedding_length", 48);
    add_u32(&keys, c, &n, "llama.block_count", 2);
    add_u32(&keys, c, &n, "llama.feed_forward_length", 72);
    add_u32(&keys, c, &n, "llama.attention.head_count", 6);
    add_u32(&keys, c, &n, "llama.attention.head_count_kv", 2);
    add_u32(&keys, c, &n, "llama.context_length", 512);
    if ((!c->skip || strcmp(c->skip, eps) != 0) && (!c->key || strcmp(c->key, eps) != 0)) {
        build_key_f32(&keys, eps, 1e-5f);
        n++;
    }
    add_u32(&keys, c, &n, "tokenizer.ggml.bos_token_id", 1);
    add_u32(&keys, c, &n, "tokenizer.ggml.eos_token_id", 2);
    add_case(&keys, c, &n);
    build_begin(&b, 3, 1, n);
    bytes_add(&b, keys.data, keys.size);
    build_tensor(&b, "token_embd.weight", 2, (uint64_t[]){48, 100}, 0, 0);
    bytes_align(&b, 32);
    b.data = realloc(b.data, b.size + 100 * 48 * 4);
    memset(b.data + b.size, 0, 100 * 48 * 4);
    b.size += 100 * 48 * 4;
    io_write(path, b.data, b.size);
    bytes_free(&b);
    bytes_free(&keys);
}

static const struct gguf_case gguf_cases[] = {
    {.words = NULL},
    {.key = "llama.rope.scaling.type", .as = AS_STRING, .text = "none"},
    {.key = "llama.rope.dimension_count", .value = 8},
    {.key = "llama.expert_count", .value = 0},
    {.key = "llama.vocab_size", .value = 32000}, /* the embedding's rows count */
    {.skip = "llama.attention.head_count_kv"},
    {.skip = "general.architecture", .words = "general.architecture is missing"},
    {.arch = "gemma2", .words = "gemma2 is not supported"},
    {.arch = "qwen2moe", .words = "qwen2moe is not supported"},
    {.skip = "llama.block_count", .words = "llama.block_count is missing"},
    {.skip = "llama.embedding_length", .words = "llama.embedding_length is missing"},
    {.skip = "llama.feed_forward_length", .words = "llama.feed_forward_length is missing"},
    {.skip = "llama.context_length", .words = "llama.context_length is missing"},
    {.skip = "llama.attention.head_count", .words = "llama.attention.head_count is missing"},
    {.skip = "llama.attention.layer_norm_rms_epsilon", .words = "epsilon is missing"},
    {.key = "llama.attention.head_count", .value = 0, .words = "llama.attention.head_count is 0"},
    {.key = "llama.attention.head_count_kv", .as = AS_ARRAY, .words = "an array of u32"},
    {.key = "llama.attention.head_count_kv", .value = 4, .words = "no multiple of 4"},
    {.key = "llama.block_count", .value = 4e9, .words = "llama.block_count is 4000000000"},
    {.key = "llama.embedding_length", .as = AS_F32, .value = 48, .words = "of type f32"},
    {.key = "llama.embedding_length", .value = 50, .words = "no multiple of the 6"},
    {.key = "llama.attention.layer_norm_rms_epsilon", .as = AS_F32, .value = 0, .words = "epsilon is 0"},
    {.key = "llama.rope.freq_base", .as = AS_F32, .value = -1, .words = "freq_base is -1"},
    {.key = "llama.rope.dimension_count", .value = 6, .words = "partial rotary"},
    {.key = "llama.rope.scaling.type", .as = AS_STRING, .text = "yarn", .words = "yarn"},
    {.key = "llama.rope.scaling.type", .as = AS_STRING, .text = "linear", .words = "rope.scale_linear is missing"},
    {.key = "llama.attention.value_length", .value = 16, .words = "keys have 8 elements a head and values 16"},
    {.key = "llama.expert_count", .value = 8, .words = "a mixture of experts"},
    {.key = "split.no", .value = 2, .words = "is part 3 of a model: give the first"},
    {.key = "general.type", .as = AS_STRING, .text = "adapter", .words = "general.type is adapter"},
    {.key = "tokenizer.ggml.bos_token_id", .value = 100, .words = "bos_token_id is 100"},
};
enum { N_GGUF = sizeof gguf_cases / sizeof *gguf_cases };

START_TEST(gguf_configs)
{
    const struct gguf_case *k = &gguf_cases[_i];
    const char *path = io_path("config.gguf");
    write_gguf(k, path);
    struct mosld_config c;
    struct rt_error err = {0};
    enum rt_status st = mosld_config_load(path, &c, &err);
    if (k->words) {
        check_refused(st, &err, path, k->words);
        return;
    }
    check_ok(st, &err);
    ck_assert(c.arch == MOSLD_LLAMA && c.vocab_size == 100 && c.hidden_size == 48 && c.num_layers == 2 &&
              c.intermediate_size == 72);
    ck_assert(c.num_heads == 6 && c.num_kv_heads == (k->skip ? 6 : 2) && c.head_dim == 8 && c.max_positions == 512);
    ck_assert(c.rms_norm_eps == 1e-5f && c.rope_theta == 10000 && c.rope == MOSLD_ROPE_DEFAULT);
    ck_assert(c.tie_word_embeddings && c.bos_id == 1 && c.n_eos == 1 && c.eos_id[0] == 2);
}
END_TEST

START_TEST(gguf_linear_scaling_and_window)
{
    struct mosld_config c;
    struct rt_error err = {0};
    const char *path = io_path("linear.gguf");
    write_gguf(&(struct gguf_case){.key = "llama.rope.scale_linear", .as = AS_F32, .value = 4}, path);
    check_ok(mosld_config_load(path, &c, &err), &err);
    ck_assert(c.rope == MOSLD_ROPE_LINEAR && c.rope_factor == 4);
    write_gguf(&(struct gguf_case){.key = "llama.attention.sliding_window", .value = 64}, path);
    check_ok(mosld_config_load(path, &c, &err), &err);
    ck_assert(c.max_positions == 64 && c.sliding_window == 64 && c.declared_positions == 512);
}
END_TEST

int main(void)
{
    io_folder();
    Suite *suite = suite_create("config");
    TCase *tc = tcase_create("configs");
    tcase_set_timeout(tc, 60);
    tcase_add_test(tc, a_llama_config);
    tcase_add_test(tc, the_other_families);
    tcase_add_test(tc, rope_scaling_old_and_new);
    tcase_add_test(tc, end_tokens_come_from_both_files);
    tcase_add_loop_test(tc, bad_configs_are_refused, 0, N_BAD);
    tcase_add_test(tc, no_config_at_all);
    tcase_add_loop_test(tc, gguf_configs, 0, N_GGUF);
    tcase_add_test(tc, gguf_linear_scaling_and_window);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
