/* tests/test_export.c - a LoRA out and in again: exported, merged, with sizes that differ by module; what is refused. */
#include "mosld/io/gguf.h"
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
#define TENSORS "adapter_model.safetensors"

static const int ids[] = {1, 7, 30, 9, 64, 2};
enum { N_IDS = sizeof ids / sizeof *ids };

static void done(int status) { ck_assert_msg(status == 0, "status %d: %s", status, program_err()); }

/* Largest difference of two models' logits, over the largest logit. */
static double apart(const char *model, const char *adapter, const char *other_model, const char *other_adapter)
{
    int V, W;
    float *a = logits_of(model, adapter, ids, N_IDS, &V), *b = logits_of(other_model, other_adapter, ids, N_IDS, &W);
    double off = 0, most = 0;
    ck_assert_int_eq(V, W);
    for (int i = 0; i < N_IDS * V; i++) {
        off = fmax(off, fabs((double)a[i] - b[i]));
        most = fmax(most, fabs((double)b[i]));
    }
    free(a);
    free(b);
    return off / most;
}

/* ---- merged ---- */

static const struct {
    const char *model, *adapter, *dtype;
    double limit; /* rounding of f32 sums in another order; of f16's and bf16's weights; of a scale a block */
} merges[] = {
    {VECTORS "models/llama2", LORA, "f32", 1e-5},
    {VECTORS "models/llama2", LORA, "f16", 3e-3},
    {VECTORS "models/qwen3", VECTORS "qwen3-lora/adapter", "bf16", 3e-2},
    {VECTORS "models/llama3.gguf", VECTORS "llama3-lora/adapter", "f32", 1e-5},
    {VECTORS "models/qwen2.gguf", VECTORS "qwen2-lora/adapter", "f16", 3e-3},
    {VECTORS "models/qwen3.gguf", VECTORS "qwen3-lora/adapter", "q8_0", 3e-2},
};

START_TEST(merged_is_the_model_with_its_adapter)
{
    const char *model = merges[_i].model;
    done(program("export --adapter %s --model %s --to merged --out m%s --dtype %s", merges[_i].adapter, model,
                 strstr(model, ".gguf") ? ".gguf" : "", merges[_i].dtype));
    const char *merged = strstr(model, ".gguf") ? "m.gguf" : "m";
    double off = apart(merged, NULL, model, merges[_i].adapter), moved = apart(model, NULL, model, merges[_i].adapter);
    ck_assert_msg(off < merges[_i].limit, "%s: off by %g", merges[_i].dtype, off);
    ck_assert_msg(moved > 3 * merges[_i].limit, "the adapter moves the logits by %g only: nothing is shown", moved);
}
END_TEST

START_TEST(merged_keeps_what_it_does_not_change)
{
    struct gguf *before, *after;
    struct rt_error err;
    done(program("export --adapter %s --model %s --to merged --out m.gguf", VECTORS "llama3-lora/adapter", VECTORS "models/llama3.gguf"));
    ck_assert_msg(gguf_open(VECTORS "models/llama3.gguf", &before, &err) == RT_OK, "%s", err.text);
    ck_assert_msg(gguf_open("m.gguf", &after, &err) == RT_OK, "%s", err.text);
    ck_assert_uint_eq(gguf_key_count(before), gguf_key_count(after));
    for (size_t i = 0; i < gguf_key_count(before); i++)
        ck_assert_str_eq(gguf_key_at(before, i)->name, gguf_key_at(after, i)->name);
    ck_assert_uint_eq(gguf_tensor_count(before), gguf_tensor_count(after));
    for (size_t i = 0; i < gguf_tensor_count(before); i++) {
        const struct gguf_tensor *t = gguf_tensor_at(before, i), *u = gguf_tensor_at(after, i);
        bool target = strstr(t->name, "attn_q") || strstr(t->name, "attn_v");
        ck_assert_str_eq(t->name, u->name);
        ck_assert_int_eq(t->dtype, u->dtype);
        ck_assert_msg((memcmp(t->data, u->data, t->bytes) != 0) == target, "%s", t->name);
    }
    gguf_close(&before);
    gguf_close(&after);
}
END_TEST

/* ---- PEFT ---- */

START_TEST(peft_folder_is_the_adapter)
{
    done(program("export --adapter " LORA " --to peft --out p --model elsewhere"));
    ck_assert(files_differ("p/" TENSORS, LORA "/" TENSORS) == 0);
    size_t size;
    char *config = read_bytes("p/adapter_config.json", &size);
    ck_assert_ptr_nonnull(strstr(config, "elsewhere"));
    free(config);
    done(program("export --adapter p --to peft --out h --dtype f16"));
    double off = apart(LLAMA2, "h", LLAMA2, LORA);
    ck_assert_msg(off > 0 && off < 3e-3, "off by %g", off);
}
END_TEST

/* A file's tensors with the first `keep` rows of A and columns of B of one module: rank 2 there, 4 elsewhere. */
static void lower_rank(const char *module, uint64_t keep)
{
    struct safetensors *s;
    struct rt_error err;
    ck_assert_msg(safetensors_open(LORA "/" TENSORS, &s, &err) == RT_OK, "%s", err.text);
    size_t n = safetensors_count(s);
    struct safetensors_entry *entries = calloc(n, sizeof *entries);
    static float b[1 << 14];
    for (size_t i = 0; i < n; i++) {
        const struct safetensor *t = safetensors_at(s, i);
        entries[i] = (struct safetensors_entry){.name = t->name, .dtype = t->dtype, .rank = 2, .shape = {t->shape[0], t->shape[1]}, .data = t->data};
        if (!strstr(t->name, module))
            continue;
        if (strstr(t->name, "lora_A")) {
            entries[i].shape[0] = keep;
            continue;
        }
        for (uint64_t row = 0; row < t->shape[0]; row++)
            memcpy(b + row * keep, t->data + row * t->shape[1] * 4, keep * 4);
        entries[i].shape[1] = keep;
        entries[i].data = b;
    }
    ck_assert_msg(safetensors_write("a/" TENSORS, entries, n, NULL, 0, &err) == RT_OK, "%s", err.text);
    free(entries);
    safetensors_close(&s);
}

/* Patterns of rank and alpha, read, run, merged, written and read again: always the same model. Merging adds s B A module by module in
 * its own code, so it is a second opinion about what the engine runs. */
START_TEST(ranks_and_alphas_by_module)
{
    static const char every[] = "[\"q_proj\",\"k_proj\",\"v_proj\",\"o_proj\",\"gate_proj\",\"up_proj\",\"down_proj\"]";
    static const struct {
        const char *rslora, *alphas;
    } cases[] = {{"false", "{}"}, {"false", "{\"k_proj\": 3, \"layers.1.mlp.*\": 5}"}, {"true", "{\"layers.0.self_attn.q_proj\": 30}"}};
    ck_assert_int_eq(system("mkdir a"), 0);
    lower_rank("layers.1.self_attn.v_proj", 2);
    write_text("a/adapter_config.json",
               "{\"peft_type\": \"LORA\", \"r\": 4, \"lora_alpha\": 8, \"target_modules\": %s, \"use_rslora\": %s, "
               "\"rank_pattern\": {\"layers.1.self_attn.v_proj\": 2}, \"alpha_pattern\": %s}",
               every, cases[_i].rslora, cases[_i].alphas);
    done(program("export --adapter a --model " LLAMA2 " --to merged --out m --dtype f32"));
    double off = apart("m", NULL, LLAMA2, "a");
    ck_assert_msg(off < 1e-5, "merged: off by %g", off);
    done(program("export --adapter a --to peft --out b"));
    ck_assert(apart(LLAMA2, "b", LLAMA2, "a") == 0);
    ck_assert_msg(apart(LLAMA2, LORA, LLAMA2, "a") > 1e-3, "the patterns change nothing");
    /* Trained on, they stay what they are. */
    write_text("t.jsonl", "{\"input_ids\": [1, 5, 9, 3]}\n");
    done(program("train --model " LLAMA2 " --device host --task t=t.jsonl --init-adapter a --learning-rate 0 --max-steps 1 --out run"));
    ck_assert(apart(LLAMA2, "run", LLAMA2, "a") == 0);
}
END_TEST

/* ---- llama.cpp ---- */

static float *gguf_values(const struct gguf *g, const char *name)
{
    const struct gguf_tensor *t = gguf_find_tensor(g, name);
    ck_assert_msg(t != NULL, "%s is not there", name);
    float *values = malloc(t->elements * 4);
    dtype_to_f32(t->dtype, t->data, t->elements, values);
    return values;
}

/* On the rows as the GGUF model has them, W + alpha / r lora_b lora_a is the merged model's tensor: what llama.cpp computes. */
START_TEST(gguf_adapter_fits_the_gguf_model)
{
    static const char *const families[] = {"llama3", "qwen2"};
    char name[100], model[300], adapter[300];
    struct gguf *base, *lora, *sum;
    struct rt_error err;
    double alpha;
    snprintf(model, sizeof model, VECTORS "models/%s.gguf", families[_i]);
    snprintf(adapter, sizeof adapter, VECTORS "%s-lora/adapter", families[_i]);
    done(program("export --adapter %s --model %s --to gguf --out l.gguf", adapter, model));
    done(program("export --adapter %s --model %s --to merged --out m.gguf --dtype f32", adapter, model));
    ck_assert(gguf_open(model, &base, &err) == RT_OK && gguf_open("l.gguf", &lora, &err) == RT_OK && gguf_open("m.gguf", &sum, &err) == RT_OK);
    ck_assert(gguf_get_number(lora, "adapter.lora.alpha", 0, 1e9, &alpha, &err) == RT_OK);
    struct gguf_string type;
    ck_assert(gguf_get_string(lora, "general.type", &type, &err) == RT_OK && type.size == 7 && memcmp(type.data, "adapter", 7) == 0);
    for (size_t i = 0; i < gguf_tensor_count(lora); i += 2) {
        const struct gguf_tensor *a = gguf_tensor_at(lora, i), *b = gguf_tensor_at(lora, i + 1);
        uint64_t r = a->dims[1], d_in = a->dims[0], d_out = b->dims[1];
        ck_assert_uint_eq(b->dims[0], r);
        snprintf(name, sizeof name, "%.*s", (int)(strlen(a->name) - strlen(".lora_a")), a->name);
        float *va = gguf_values(lora, a->name), *vb = gguf_values(lora, b->name), *w = gguf_values(base, name), *m = gguf_values(sum, name);
        for (uint64_t row = 0; row < d_out; row++)
            for (uint64_t col = 0; col < d_in; col++) {
                double want = w[row * d_in + col];
                for (uint64_t k = 0; k < r; k++)
                    want += alpha / (double)r * vb[row * r + k] * va[k * d_in + col];
                double off = fabs(want - m[row * d_in + col]);
                ck_assert_msg(off < 1e-5, "%s [%d, %d]: off by %g", name, (int)row, (int)col, off);
            }
        free(va);
        free(vb);
        free(w);
        free(m);
    }
    gguf_close(&base);
    gguf_close(&lora);
    gguf_close(&sum);
}
END_TEST

/* ---- what is refused ---- */

START_TEST(refusals)
{
    program_failed_as(program("export --adapter " VECTORS "llama2-mosld/adapter --to merged --out m --model " LLAMA2), 2, "mixture",
                      "mosld_transformers.py", "--method lora", NULL);
    program_failed_as(program("export --adapter " VECTORS "llama2-mosld/adapter --to peft --out m"), 2, "mixture", NULL);
    program_failed_as(program("export --adapter " LORA " --to gguf --out m.gguf --model " VECTORS "models/qwen3"), 3, "another model's", NULL);
    program_failed_as(program("export --adapter " LORA " --to merged --out m --model " VECTORS "models/qwen3.gguf"), 3, "another model's", NULL);
    program_failed_as(program("export --adapter " LORA " --to merged --out m"), 3, "--model", NULL);
    program_failed_as(program("export --adapter " LORA " --to merged --out m --dtype q8_0 --model " LLAMA2), 2, "Q8_0", NULL);
    program_failed_as(program("export --adapter " LORA " --to peft --out m --dtype q8_0"), 2, "--dtype", NULL);
    program_failed_as(program("export --adapter nowhere --to peft --out m"), 3, "nowhere", NULL);
    program_failed_as(program("export --adapter " LORA " --to peft"), 2, "--out", NULL);
    ck_assert(!path_exists("m") && !path_exists("m.gguf"));
    done(program("export --adapter " LORA " --to peft --out p"));
    program_failed_as(program("export --adapter " LORA " --to peft --out p"), 2, "--overwrite", NULL);
    done(program("export --adapter " LORA " --to peft --out p --overwrite"));
    program_failed_as(program("export --adapter p --to peft --out p --overwrite"), 2, "itself", NULL);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("export");
    TCase *tc = tcase_create("export");
    tcase_add_checked_fixture(tc, program_folder_make, program_folder_remove);
    tcase_set_timeout(tc, 120);
    tcase_add_loop_test(tc, merged_is_the_model_with_its_adapter, 0, sizeof merges / sizeof *merges);
    tcase_add_test(tc, merged_keeps_what_it_does_not_change);
    tcase_add_test(tc, peft_folder_is_the_adapter);
    tcase_add_loop_test(tc, ranks_and_alphas_by_module, 0, 3);
    tcase_add_loop_test(tc, gguf_adapter_fits_the_gguf_model, 0, 2);
    tcase_add_test(tc, refusals);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
