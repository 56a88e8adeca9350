/* Models on disk: the same weights from a Hugging Face folder and from GGUF, and what must be refused; mosld inspect
 * over them. */
#include "mosld/io/json.h"
#include "mosld/io/safetensors.h"
#include "mosld/model/model_file.h"
#include "tests/support/io_files.h"

#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>

#define MODELS MOSLD_SOURCE_DIR "/tests/vectors/models/"

static float *rows_f32(const struct mosld_model_file *f, const struct mosld_weight *w)
{
    struct rt_error err = {0};
    float *rows = calloc((size_t)w->rows * w->cols, sizeof *rows);
    uint32_t first = w->rows / 3; /* in two pieces, which must meet */
    check_ok(mosld_weight_rows_f32(f, w, 0, first, rows, &err), &err);
    check_ok(mosld_weight_rows_f32(f, w, first, w->rows - first, rows + (size_t)first * w->cols, &err), &err);
    return rows;
}

static struct mosld_model_file *open_model(const char *path)
{
    struct rt_error err = {0};
    struct mosld_model_file *f;
    check_ok(mosld_model_file_open(path, &f, &err), &err);
    return f;
}

static const char *const pairs[] = {"linear", "llama3", "qwen2", "qwen3"};

START_TEST(both_formats_give_the_same_weights)
{
    char path[300];
    snprintf(path, sizeof path, MODELS "%s", pairs[_i]);
    struct mosld_model_file *hf = open_model(path);
    snprintf(path, sizeof path, MODELS "%s.gguf", pairs[_i]);
    struct mosld_model_file *gguf = open_model(path);
    ck_assert(mosld_model_file_gguf(gguf) && !mosld_model_file_gguf(hf));
    ck_assert_uint_eq(mosld_model_file_count(hf), mosld_model_file_count(gguf));
    bool permuted = false;
    for (uint32_t i = 0; i < mosld_model_file_count(hf); i++) {
        const struct mosld_weight *a = mosld_model_file_at(hf, i), *b = mosld_model_file_find(gguf, a->name);
        ck_assert_ptr_nonnull(b);
        ck_assert(mosld_model_file_find(hf, a->name) == a);
        ck_assert(a->rows == b->rows && a->cols == b->cols && !a->permuted);
        permuted = permuted || b->permuted;
        float *x = rows_f32(hf, a), *y = rows_f32(gguf, b);
        ck_assert_msg(memcmp(x, y, sizeof *x * a->rows * a->cols) == 0, "%s: %s differs", pairs[_i], a->name);
        free(x);
        free(y);
    }
    const struct mosld_config *c = mosld_model_file_config(hf), *d = mosld_model_file_config(gguf);
    ck_assert_int_eq(permuted, c->arch == MOSLD_LLAMA);
    double f[MOSLD_MAX_HEAD_DIM / 2], g[MOSLD_MAX_HEAD_DIM / 2];
    mosld_config_inv_freq(c, f);
    mosld_config_inv_freq(d, g);
    for (uint32_t i = 0; i < c->head_dim / 2; i++)
        ck_assert_double_le(fabs(f[i] - g[i]), 2e-7 * f[i]); /* GGUF has theta and divisors as f32 */
    ck_assert(c->num_kv_heads == d->num_kv_heads && c->head_dim == d->head_dim &&
              c->tie_word_embeddings == d->tie_word_embeddings);
    ck_assert(c->vocab_size == d->vocab_size && c->max_positions == d->max_positions && c->qkv_bias == d->qkv_bias &&
              c->qk_norm == d->qk_norm);
    mosld_model_file_close(&hf);
    mosld_model_file_close(&gguf);
}
END_TEST

/* Raw rows are the file's blocks in Hugging Face's order: dequantised they are the f32 rows. */
START_TEST(raw_rows_are_the_same_rows)
{
    static const char *const types[] = {"f32", "f16", "bf16", "q8_0", "q4_0", "q4_1"};
    char path[300];
    snprintf(path, sizeof path, MODELS "quant-%s.gguf", types[_i]);
    struct mosld_model_file *f = open_model(path);
    for (uint32_t i = 0; i < mosld_model_file_count(f); i++) {
        const struct mosld_weight *w = mosld_model_file_at(f, i);
        struct rt_error err = {0};
        float *want = rows_f32(f, w), *got = calloc((size_t)w->rows * w->cols, sizeof *got);
        uint8_t *raw = malloc(w->rows * w->row_bytes);
        check_ok(mosld_weight_rows(f, w, 0, w->rows, raw, &err), &err);
        for (uint32_t r = 0; r < w->rows; r++)
            dtype_to_f32(w->dtype, raw + r * w->row_bytes, w->cols, got + (size_t)r * w->cols);
        ck_assert_int_eq(memcmp(want, got, sizeof *got * w->rows * w->cols), 0);
        ck_assert_int_eq(mosld_weight_rows(f, w, w->rows, 1, raw, &err), RT_FAILED);
        ck_assert_int_eq(mosld_weight_rows(f, w, 1, UINT32_MAX, raw, &err), RT_FAILED);
        free(want);
        free(got);
        free(raw);
    }
    mosld_model_file_close(&f);
}
END_TEST

/* ---- a folder made here, with one thing changed ---- */

enum { VOCAB = 10, HIDDEN = 8, FFN = 12, KV = 4, MAX_ENTRIES = 16 };
static float zeros[128];

static const char tiny_config[] =
    "{'architectures':['LlamaForCausalLM'],'vocab_size':10,'hidden_size':8,'intermediate_size':12,"
    "'num_hidden_layers':1,'num_attention_heads':2,'num_key_value_heads':1,'max_position_embeddings':16,"
    "'tie_word_embeddings':%s}";

#define L "model.layers.0."
static const struct safetensors_entry tiny[] = {
    {"model.embed_tokens.weight", DTYPE_F32, 2, {VOCAB, HIDDEN}, zeros},
    {L "input_layernorm.weight", DTYPE_F32, 1, {HIDDEN}, zeros},
    {L "self_attn.q_proj.weight", DTYPE_F16, 2, {HIDDEN, HIDDEN}, zeros},
    {L "self_attn.k_proj.weight", DTYPE_BF16, 2, {KV, HIDDEN}, zeros},
    {L "self_attn.v_proj.weight", DTYPE_F32, 2, {KV, HIDDEN}, zeros},
    {L "self_attn.o_proj.weight", DTYPE_F32, 2, {HIDDEN, HIDDEN}, zeros},
    {L "post_attention_layernorm.weight", DTYPE_F32, 1, {HIDDEN}, zeros},
    {L "mlp.gate_proj.weight", DTYPE_F32, 2, {FFN, HIDDEN}, zeros},
    {L "mlp.up_proj.weight", DTYPE_F32, 2, {FFN, HIDDEN}, zeros},
    {L "mlp.down_proj.weight", DTYPE_F32, 2, {HIDDEN, FFN}, zeros},
    {"model.norm.weight", DTYPE_F32, 1, {HIDDEN}, zeros},
    {"lm_head.weight", DTYPE_F32, 2, {VOCAB, HIDDEN}, zeros},
};
enum { N_TINY = sizeof tiny / sizeof *tiny };

/* `change` replaces the entry of its name, or is added. `without`: a name to leave out. */
static const char *write_tiny(bool tied, const char *without, const struct safetensors_entry *change)
{
    struct safetensors_entry entries[MAX_ENTRIES];
    size_t n = 0;
    bool replaced = change == NULL;
    for (size_t i = 0; i < N_TINY; i++) {
        if (without && strcmp(tiny[i].name, without) == 0)
            continue;
        bool here = change && strcmp(tiny[i].name, change->name) == 0;
        entries[n++] = here ? *change : tiny[i];
        replaced = replaced || here;
    }
    if (!replaced)
        entries[n++] = *change;
    char config[600];
    snprintf(config, sizeof config, tiny_config, tied ? "true" : "false");
    const char *folder = io_path("tiny");
    mkdir(folder, 0700);
    io_write_json(io_path("tiny/config.json"), config);
    struct rt_error err = {0};
    check_ok(safetensors_write(io_path("tiny/model.safetensors"), entries, n, NULL, 0, &err), &err);
    return folder;
}

START_TEST(a_tiny_model_opens)
{
    struct mosld_model_file *f = open_model(write_tiny(false, NULL, NULL));
    ck_assert_uint_eq(mosld_model_file_count(f), N_TINY);
    ck_assert_str_eq(mosld_model_file_at(f, 0)->name, "model.embed_tokens.weight");
    ck_assert_str_eq(mosld_model_file_at(f, N_TINY - 1)->name, "lm_head.weight");
    const struct mosld_weight *norm = mosld_model_file_find(f, "model.norm.weight");
    ck_assert(norm->rows == 1 && norm->cols == HIDDEN && norm->row_bytes == 32);
    ck_assert_ptr_null(mosld_model_file_find(f, L "self_attn.q_proj.bias"));
    ck_assert_uint_eq(mosld_model_file_bytes(f), 4 * (2 * 80 + 3 * 8 + 32 + 64 + 3 * 96) + 2 * (64 + 32));
    mosld_model_file_close(&f);
    f = open_model(write_tiny(true, NULL, NULL)); /* tied: the head in the file is not used, as in Transformers */
    ck_assert_ptr_null(mosld_model_file_find(f, "lm_head.weight"));
    mosld_model_file_close(&f);
    f = open_model(write_tiny(true, "lm_head.weight", NULL));
    mosld_model_file_close(&f);
    const struct safetensors_entry buffer = {L "self_attn.rotary_emb.inv_freq", DTYPE_F32, 1, {2}, zeros};
    f = open_model(write_tiny(false, NULL, &buffer));
    mosld_model_file_close(&f);
}
END_TEST

static const struct {
    const char *without;
    struct safetensors_entry change;
    const char *words;
} faults[] = {
    {"lm_head.weight", {.name = NULL}, "lm_head.weight is missing"},
    {L "mlp.up_proj.weight", {.name = NULL}, L "mlp.up_proj.weight is missing"},
    {"model.norm.weight", {.name = NULL}, "model.norm.weight is missing"},
    {NULL,
     {"model.norm.weight", DTYPE_F32, 1, {9}, zeros},
     "model.norm.weight has the shape [9], the config asks for [8]"},
    {NULL, {"model.norm.weight", DTYPE_F32, 2, {1, 8}, zeros}, "has the shape [1, 8]"},
    {NULL,
     {L "self_attn.k_proj.weight", DTYPE_F32, 2, {8, 4}, zeros},
     "has the shape [8, 4], the config asks for [4, 8]"},
    {NULL, {L "self_attn.k_proj.weight", DTYPE_F32, 1, {32}, zeros}, "has the shape [32]"},
    {NULL, {L "self_attn.q_proj.bias", DTYPE_F32, 1, {8}, zeros}, "q_proj.bias, which a llama model"},
    {NULL, {L "self_attn.q_norm.weight", DTYPE_F32, 1, {0}, zeros}, "q_norm.weight, which"},
    {NULL,
     {"model.layers.1.input_layernorm.weight", DTYPE_F32, 1, {8}, zeros},
     "model.layers.1.input_layernorm.weight, which"},
    {NULL, {L "mlp.up_proj.weight", DTYPE_I8, 2, {FFN, HIDDEN}, zeros}, "has the type I8"},
    {NULL, {L "mlp.up_proj.weight", DTYPE_F8_E4M3, 2, {FFN, HIDDEN}, zeros}, "has the type F8_E4M3"},
    {NULL, {L "mlp.up_proj.weight", DTYPE_F64, 2, {1, 1}, zeros}, "has the shape [1, 1]"},
};
enum { N_FAULTS = sizeof faults / sizeof *faults };

START_TEST(what_does_not_fit_is_refused)
{
    const char *folder = write_tiny(false, faults[_i].without, faults[_i].change.name ? &faults[_i].change : NULL);
    struct rt_error err = {0};
    struct mosld_model_file *f;
    check_refused(mosld_model_file_open(folder, &f, &err), &err, folder, faults[_i].words);
    ck_assert_ptr_null(f);
}
END_TEST

START_TEST(values_must_be_finite)
{
    float bad[VOCAB * HIDDEN] = {0};
    bad[3 * HIDDEN + 5] = NAN;
    const struct safetensors_entry change = {"model.embed_tokens.weight", DTYPE_F32, 2, {VOCAB, HIDDEN}, bad};
    struct mosld_model_file *f = open_model(write_tiny(false, NULL, &change));
    const struct mosld_weight *w = mosld_model_file_at(f, 0);
    struct rt_error err = {0};
    float rows[VOCAB * HIDDEN];
    check_ok(mosld_weight_rows_f32(f, w, 0, 3, rows, &err), &err);
    check_refused(mosld_weight_rows_f32(f, w, 0, VOCAB, rows, &err), &err, "tiny", "in row 3 near column 5");
    check_refused(mosld_weight_rows(f, w, 3, 1, rows, &err), &err, "tiny", "not finite");
    mosld_model_file_close(&f);
}
END_TEST

/* A GGUF of one layer whose embedding, and nothing else, is there: `type` with rows of 256. */
static void write_gguf_embedding(const char *path, uint32_t type, size_t bytes)
{
    struct bytes b = {0};
    build_begin(&b, 3, 1, 7);
    build_key_string(&b, "general.architecture", "llama");
    build_key_u32(&b, "llama.embedding_length", 256);
    build_key_u32(&b, "llama.block_count", 1);
    build_key_u32(&b, "llama.feed_forward_length", 256);
    build_key_u32(&b, "llama.attention.head_count", 4);
    build_key_u32(&b, "llama.context_length", 64);
    build_key_f32(&b, "llama.attention.layer_norm_rms_epsilon", 1e-5f);
    build_tensor(&b, "token_embd.weight", 2, (uint64_t[]){256, 1}, type, 0);
    bytes_align(&b, 32);
    for (size_t i = 0; i < bytes; i++)
        bytes_u8(&b, 0);
    io_write(path, b.data, b.size);
    bytes_free(&b);
}

START_TEST(gguf_types_and_names)
{
    const char *path = io_path("embedding.gguf");
    struct rt_error err = {0};
    struct mosld_model_file *f;
    write_gguf_embedding(path, 23, 136);
    check_refused(mosld_model_file_open(path, &f, &err), &err, path,
                  "token_embd.weight has the type IQ4_XS, which mosld does not run; it runs F32");
    write_gguf_embedding(path, 12, 144);
    check_refused(mosld_model_file_open(path, &f, &err), &err, path, "the tensor blk.0.attn_norm.weight is missing");
    write_gguf_embedding(path, 2, 144);
    check_refused(mosld_model_file_open(path, &f, &err), &err, path, "the tensor blk.0.attn_norm.weight is missing");
}
END_TEST

/* ---- mosld inspect ---- */

/* What the program prints; *status is its exit status. The caller frees. */
static char *run_inspect(const char *arguments, int *status)
{
    char command[1200], *text = calloc(1, 1 << 20);
    snprintf(command, sizeof command, "%s inspect %s 2>&1", MOSLD_PROGRAM, arguments);
    FILE *pipe = popen(command, "r");
    ck_assert_ptr_nonnull(pipe);
    ck_assert(fread(text, 1, (1 << 20) - 1, pipe) > 0);
    *status = WEXITSTATUS(pclose(pipe));
    return text;
}

static void expect_inspect(const char *arguments, int status, const char *words)
{
    int got;
    char *text = run_inspect(arguments, &got);
    ck_assert_msg(got == status && strstr(text, words), "mosld inspect %s: exit %d, wanted %d and '%s': %s", arguments,
                  got, status, words, text);
    free(text);
}

START_TEST(inspect_shows_what_is_there)
{
    int status;
    char *text = run_inspect(MODELS "qwen2 --json --tensors", &status);
    ck_assert_int_eq(status, 0);
    cJSON *json = cJSON_Parse(text);
    ck_assert_ptr_nonnull(json);
    ck_assert(cJSON_IsTrue(json_find(json, "runs")));
    struct mosld_model_file *f = open_model(MODELS "qwen2");
    ck_assert_uint_eq((uint64_t)json_find(json, "parameters")->valuedouble,
                      mosld_config_parameters(mosld_model_file_config(f)));
    ck_assert_int_eq(cJSON_GetArraySize(json_find(json, "tensors")), (int)mosld_model_file_count(f));
    mosld_model_file_close(&f);
    cJSON_Delete(json);
    free(text);
    expect_inspect(MODELS "quant-q4_1.gguf", 0, "Q4_1");
    expect_inspect(MOSLD_SOURCE_DIR "/tests/vectors/llama2-mosl/adapter", 0, "peft_type");
    expect_inspect(MODELS "qwen2/model.safetensors --tensors", 0, "model.layers.1.self_attn.q_proj.bias");
    write_gguf_embedding(io_path("listed.gguf"), 23, 136);
    expect_inspect(io_path("listed.gguf"), 0, "IQ4_XS, which mosld does not run");
}
END_TEST

/* A name from a file neither breaks the JSON nor reaches the terminal as it is. */
START_TEST(inspect_guards_against_names)
{
    struct bytes b = {0};
    build_begin(&b, 3, 1, 1);
    build_key_string(&b, "key\x1b\xff", "\x1b[2J\xc3");
    build_tensor(&b, "name\x1b[31m\xff", 1, (uint64_t[]){1}, 0, 0);
    bytes_align(&b, 32);
    bytes_f32(&b, 1);
    const char *path = io_path("hostile.gguf");
    io_write(path, b.data, b.size);
    bytes_free(&b);
    char arguments[600];
    int status;
    snprintf(arguments, sizeof arguments, "%s --tensors", path);
    char *text = run_inspect(arguments, &status);
    ck_assert_int_eq(status, 0);
    ck_assert_ptr_null(strchr(text, '\x1b'));
    ck_assert_ptr_nonnull(strstr(text, "name\\x1b[31m?"));
    free(text);
    snprintf(arguments, sizeof arguments, "%s --tensors --json", path);
    text = run_inspect(arguments, &status);
    cJSON *json;
    struct rt_error err = {0};
    check_ok(json_parse(text, strlen(text), "output", 1, &json, &err), &err);
    cJSON_Delete(json);
    free(text);
}
END_TEST

START_TEST(inspect_refuses)
{
    expect_inspect("", 2, "mosld inspect PATH");
    expect_inspect("a b", 2, "inspect");
    expect_inspect("--nonsense a", 2, "nonsense");
    expect_inspect("/nowhere", 3, "/nowhere");
    mkdir(io_path("hollow"), 0700);
    expect_inspect(io_path("hollow"), 3, "has no config.json");
    io_write_text(io_path("bad.gguf"), "GGUF");
    expect_inspect(io_path("bad.gguf"), 3, "ends within");
}
END_TEST

int main(void)
{
    io_folder();
    Suite *suite = suite_create("model_file");
    TCase *tc = tcase_create("models");
    tcase_set_timeout(tc, 120);
    tcase_add_loop_test(tc, both_formats_give_the_same_weights, 0, 4);
    tcase_add_loop_test(tc, raw_rows_are_the_same_rows, 0, 6);
    tcase_add_test(tc, a_tiny_model_opens);
    tcase_add_loop_test(tc, what_does_not_fit_is_refused, 0, N_FAULTS);
    tcase_add_test(tc, values_must_be_finite);
    tcase_add_test(tc, gguf_types_and_names);
    tcase_add_test(tc, inspect_shows_what_is_there);
    tcase_add_test(tc, inspect_guards_against_names);
    tcase_add_test(tc, inspect_refuses);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
