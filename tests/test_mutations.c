/* Thousands of damaged files, the same ones each time: no reader may crash, hang or hand out memory that is not the
 * file's. Built with -DMOSLD_SANITIZE=ON, files are read into memory of exactly their size, and any byte read beyond is
 * reported. MOSLD_TEST_MUTATIONS sets how many files of each kind there are. */
#include "mosld/io/file.h"
#include "mosld/io/gguf.h"
#include "mosld/io/json.h"
#include "mosld/io/jsonl.h"
#include "mosld/io/safetensors.h"
#include "mosld/model/model_file.h"
#include "tests/support/io_files.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static uint64_t random_state;
static uint32_t below(uint32_t n) { return n ? io_random(&random_state) % n : 0; }

/* ---- damage ---- */

static void overwrite(struct bytes *b)
{
    static const uint64_t values[] = {0,          1,          UINT64_MAX, 1ull << 63, INT64_MAX, 1ull << 32,
                                      1ull << 62, 0xffffffff, 0x80000000, 31,         33};
    uint64_t value = values[below(sizeof values / sizeof *values)];
    size_t width = (size_t)1 << below(4);
    if (b->size >= width)
        memcpy(b->data + below((uint32_t)(b->size - width + 1)), &value, width);
}

static void insert_or_delete(struct bytes *b)
{
    size_t at = below((uint32_t)b->size + 1), n = 1 + below(16);
    struct bytes out = {0};
    bytes_add(&out, b->data, at);
    if (below(2)) { /* a copy of another place */
        size_t from = below((uint32_t)b->size + 1);
        bytes_add(&out, b->data + from, n < b->size - from ? n : b->size - from);
    } else {
        at = at + n < b->size ? at + n : b->size;
    }
    bytes_add(&out, b->data + at, b->size - at);
    bytes_free(b);
    *b = out;
}

/* Text: one character that means something to JSON, or a number that is hard. */
static void put_text(struct bytes *b)
{
    static const char *const pieces[] = {"{", "}",     "[",    "]", "\"",      ",",    ":",  "\\",
                                         "-", "1e999", "null", "0", "\\u0000", "\xff", "\n", "18446744073709551616"};
    const char *piece = pieces[below(sizeof pieces / sizeof *pieces)];
    size_t n = strlen(piece);
    if (b->size >= n)
        memcpy(b->data + below((uint32_t)(b->size - n + 1)), piece, n);
}

static void damage(struct bytes *b)
{
    for (uint32_t i = 1 + below(4); i > 0; i--) {
        switch (below(6)) {
        case 0: overwrite(b); break;
        case 1: insert_or_delete(b); break;
        case 2: put_text(b); break;
        case 3: b->size = below((uint32_t)b->size + 1); break;
        default:
            if (b->size)
                b->data[below((uint32_t)b->size)] ^= (uint8_t)(1u << below(8));
        }
    }
}

/* ---- looking at all that a reader hands out ---- */

static volatile uint64_t sink; /* so that reads are not optimised away */

static void touch(const void *data, uint64_t size)
{
    for (uint64_t i = 0; i < size; i++)
        sink += ((const uint8_t *)data)[i];
}

static bool walk_safetensors(const char *path, struct rt_error *err)
{
    struct safetensors *s;
    if (safetensors_open(path, &s, err) != RT_OK)
        return false;
    for (size_t i = 0; i < safetensors_count(s); i++) {
        const struct safetensor *t = safetensors_at(s, i);
        ck_assert_ptr_eq(safetensors_find(s, t->name), t);
        touch(t->data, t->bytes);
    }
    for (size_t i = 0; i < safetensors_metadata_count(s); i++) {
        const char *key, *value;
        safetensors_metadata_at(s, i, &key, &value);
        touch(value, strlen(value));
    }
    safetensors_close(&s);
    return true;
}

static void walk_key(const struct gguf *g, const struct gguf_key *key)
{
    struct gguf_string text, *strings;
    int64_t integer, *integers;
    double number;
    float *floats;
    char *copy;
    size_t n;
    bool flag;
    ck_assert_ptr_eq(gguf_find_key(g, key->name), key);
    if (gguf_get_string(g, key->name, &text, NULL) == RT_OK)
        touch(text.data, text.size);
    if (gguf_dup_string_or_null(g, key->name, &copy, NULL) == RT_OK)
        free(copy);
    gguf_get_integer(g, key->name, INT64_MIN, INT64_MAX, &integer, NULL);
    gguf_get_number(g, key->name, -1e300, 1e300, &number, NULL);
    gguf_get_bool_or(g, key->name, false, &flag, NULL);
    if (gguf_get_strings(g, key->name, &strings, &n, NULL) == RT_OK)
        for (size_t i = 0; i < n; i++)
            touch(strings[i].data, strings[i].size);
    free(strings);
    gguf_get_integers(g, key->name, &integers, &n, NULL);
    free(integers);
    gguf_get_floats(g, key->name, &floats, &n, NULL);
    free(floats);
}

static bool walk_gguf(const char *path, struct rt_error *err)
{
    struct gguf *g;
    if (gguf_open(path, &g, err) != RT_OK)
        return false;
    for (size_t i = 0; i < gguf_key_count(g); i++)
        walk_key(g, gguf_key_at(g, i));
    for (size_t i = 0; i < gguf_tensor_count(g); i++)
        touch(gguf_tensor_at(g, i)->data, gguf_tensor_at(g, i)->bytes);
    gguf_close(&g);
    return true;
}

static bool walk_jsonl(const char *path, struct rt_error *err)
{
    struct jsonl *r;
    cJSON *record;
    uint64_t line;
    enum rt_status st = jsonl_open(path, &r, err);
    while (st == RT_OK && (st = jsonl_next(r, &record, &line, err)) == RT_OK && record)
        cJSON_Delete(record);
    jsonl_close(&r);
    return st == RT_OK;
}

static bool walk_model(const char *path, struct rt_error *err)
{
    struct mosld_model_file *f;
    if (mosld_model_file_open(path, &f, err) != RT_OK)
        return false;
    for (uint32_t i = 0; i < mosld_model_file_count(f); i++) {
        const struct mosld_weight *w = mosld_model_file_at(f, i);
        float *rows = malloc(sizeof *rows * w->rows * w->cols);
        mosld_weight_rows_f32(f, w, 0, w->rows, rows, NULL);
        free(rows);
    }
    mosld_model_file_close(&f);
    return true;
}

static bool walk_folder(const char *path, struct rt_error *err)
{
    (void)path;
    struct mosld_config c;
    return mosld_config_load(io_path("mutated"), &c, err) == RT_OK;
}

/* ---- seeds ---- */

static void seed_safetensors(struct bytes *b)
{
    static const uint8_t data[64];
    const struct safetensors_entry entries[] = {
        {.name = "a", .dtype = DTYPE_F32, .rank = 2, .shape = {3, 4}, .data = data},
        {.name = "bb", .dtype = DTYPE_U8, .rank = 1, .shape = {5}, .data = data},
        {.name = "e", .dtype = DTYPE_F16, .rank = 1, .shape = {0}}};
    const struct safetensors_pair pair = {"format", "pt"};
    struct rt_error err = {0};
    check_ok(safetensors_write(io_path("seed"), entries, 3, &pair, 1, &err), &err);
    char *text;
    check_ok(file_read(io_path("seed"), 1 << 20, &text, &b->size, &err), &err);
    b->data = (uint8_t *)text;
}

static const char *const layer_tensors[] = {"attn_norm", "attn_q",   "attn_k", "attn_v",  "attn_output",
                                            "ffn_norm",  "ffn_gate", "ffn_up", "ffn_down"};

/* A whole model: one layer, everything of width 32, Q8_0 matrices. */
static void seed_gguf(struct bytes *b)
{
    enum { TENSORS = 11, F32 = 0, Q8_0 = 8 };
    build_begin(b, 3, TENSORS, 10);
    build_key_string(b, "general.architecture", "llama");
    build_key_u32(b, "llama.embedding_length", 32);
    build_key_u32(b, "llama.block_count", 1);
    build_key_u32(b, "llama.feed_forward_length", 32);
    build_key_u32(b, "llama.attention.head_count", 2);
    build_key_u32(b, "llama.context_length", 64);
    build_key_f32(b, "llama.attention.layer_norm_rms_epsilon", 1e-5f);
    build_key_u32(b, "general.alignment", 32);
    build_key_array(b, "tokenizer.ggml.tokens", 8, 2);
    build_string(b, "a");
    build_string(b, "b");
    build_key_array(b, "tokenizer.ggml.scores", 6, 2);
    bytes_f32(b, 0);
    bytes_f32(b, 1);
    uint64_t offset = 0, matrix[] = {32, 32}, embed[] = {32, 2}, vector[] = {32};
    for (int i = 0; i < TENSORS; i++) {
        char name[64];
        bool norm = i == 1 || i == 2 || i == 7;
        if (i < 2)
            snprintf(name, sizeof name, "%s", i == 0 ? "token_embd.weight" : "output_norm.weight");
        else
            snprintf(name, sizeof name, "blk.0.%s.weight", layer_tensors[i - 2]);
        build_tensor(b, name, norm ? 1 : 2, norm ? vector : i == 0 ? embed : matrix, norm ? F32 : Q8_0, offset);
        offset += norm ? 128 : i == 0 ? 96 : 1088;
    }
    bytes_align(b, 32);
    while (offset-- > 0)
        bytes_u8(b, 0);
}

static void seed_jsonl(struct bytes *b)
{
    const char *text = "[{'prompt':'a \\u00e9 \\ud83d\\ude00',"
                       "'completion':'x\\n'},\n {'messages':[{'role':'user','n':-1.5e3}]},\r\n{}]\n";
    char *quoted = io_quoted(text);
    bytes_add(b, quoted, strlen(quoted));
    free(quoted);
}

static void seed_config(struct bytes *b)
{
    const char *text =
        "{'architectures':['Qwen2ForCausalLM'],'vocab_size':100,'hidden_size':48,'intermediate_size':72,"
        "'num_hidden_layers':2,'num_attention_heads':6,'num_key_value_heads':2,'max_position_embeddings':512,"
        "'rope_scaling':{'type':'llama3','factor':8,'low_freq_factor':1,'high_freq_factor':4,"
        "'original_max_position_embeddings':64},'eos_token_id':[2,3]}";
    char *quoted = io_quoted(text);
    bytes_add(b, quoted, strlen(quoted));
    free(quoted);
}

static const struct {
    const char *file;
    void (*seed)(struct bytes *);
    bool (*walk)(const char *path, struct rt_error *err);
} kinds[] = {
    {"m.safetensors", seed_safetensors, walk_safetensors},
    {"m.gguf", seed_gguf, walk_gguf},
    {"model.gguf", seed_gguf, walk_model},
    {"m.jsonl", seed_jsonl, walk_jsonl},
    {"mutated/config.json", seed_config, walk_folder},
};
enum { N_KINDS = sizeof kinds / sizeof *kinds };

START_TEST(damaged_files_are_survived)
{
    const char *wanted = getenv("MOSLD_TEST_MUTATIONS");
    int count = wanted ? atoi(wanted) : 3000, accepted = 0;
    struct bytes seed = {0};
    kinds[_i].seed(&seed);
    mkdir(io_path("mutated"), 0700);
    char path[256];
    snprintf(path, sizeof path, "%s", io_path(kinds[_i].file));
    struct rt_error err = {0};
    io_write(path, seed.data, seed.size);
    ck_assert_msg(kinds[_i].walk(path, &err), "the seed itself is refused: %s", err.text);
    random_state = 1 + (uint64_t)_i;
    for (int k = 0; k < count; k++) {
        struct bytes b = {0};
        bytes_add(&b, seed.data, seed.size);
        damage(&b);
        io_write(path, b.data ? b.data : (uint8_t *)"", b.size);
        bytes_free(&b);
        err = (struct rt_error){0};
        bool good = kinds[_i].walk(path, &err);
        accepted += good;
        if (!good) {
            ck_assert_int_eq(err.status, RT_BAD_FILE);
            ck_assert_msg(strstr(err.text, io_folder()) != NULL, "no file is named: %s", err.text);
        }
    }
    bytes_free(&seed);
    ck_assert_int_lt(accepted, count); /* most damage is seen */
}
END_TEST

int main(void)
{
    io_folder();
    Suite *suite = suite_create("mutations");
    TCase *tc = tcase_create("readers");
    tcase_set_timeout(tc, 600);
    tcase_add_loop_test(tc, damaged_files_are_survived, 0, N_KINDS);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
