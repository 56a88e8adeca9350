/* tests/test_parity.c - whole small models against PyTorch in float64: logits, gradients of every adapter tensor, twenty steps of training.
 *
 * The vectors in tests/vectors were made by tests/parity/make_vectors.py. Each case runs the program's own commands, on the host and, where
 * there is one, on the Vulkan device under the validation layer. Bounds: logits 1e-4 of the largest; gradients 1e-3 in norm; losses
 * of twenty steps 1e-4. f32 sums of a few hundred terms stay two orders below these; the cases' router choices are nowhere closer
 * than 1e-4, so f32 makes the same ones. */
#include "mosld/io/file.h"
#include "mosld/io/json.h"
#include "mosld/io/jsonl.h"
#include "mosld/io/safetensors.h"
#include "runtime/rt.h"
#include "tests/support/vk_test.h"
#include "tools/commands.h"

#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define VECTORS MOSLD_SOURCE_DIR "/tests/vectors/"

static const char *const families[] = {"llama2", "llama3", "linear", "mistral", "qwen2", "qwen3"};
static const char *const methods[] = {"lora", "mosl", "mosld"};
#define N_CASES 18

static char work[256];

static void make_work(void)
{
    snprintf(work, sizeof work, "/tmp/mosld-parity-XXXXXX");
    ck_assert(mkdtemp(work) != NULL);
}

static void remove_work(void)
{
    char command[300];
    snprintf(command, sizeof command, "rm -rf '%s'", work);
    ck_assert(system(command) == 0);
}

static const char *vulkan_device(void)
{
    static char name[16];
    return vk_test_name(name, sizeof name) ? name : NULL;
}

static int run(int (*command)(int, char **), const char *const *words)
{
    char *argv[64];
    int argc = 0;
    while (words[argc]) {
        argv[argc] = (char *)words[argc];
        argc++;
    }
    argv[argc] = NULL;
    return command(argc, argv);
}

static const char *in(char *out, const char *folder, const char *name)
{
    snprintf(out, 512, "%s/%s", folder, name);
    return out;
}

/* ---- comparing ---- */

static float *values_of(const struct safetensors *s, const char *name, uint64_t *n)
{
    const struct safetensor *t = safetensors_find(s, name);
    ck_assert_msg(t != NULL, "tensor %s is missing", name);
    float *v = malloc(t->elements * 4 + 4);
    dtype_to_f32(t->dtype, t->data, t->elements, v);
    *n = t->elements;
    return v;
}

static void compare_logits(const char *got_path, const char *want_path, const char *want_name, const char *label)
{
    struct safetensors *got, *want;
    struct rt_error err;
    uint64_t n, m;
    ck_assert_msg(safetensors_open(got_path, &got, &err) == RT_OK, "%s", err.text);
    ck_assert_msg(safetensors_open(want_path, &want, &err) == RT_OK, "%s", err.text);
    float *g = values_of(got, "logits", &n), *w = values_of(want, want_name, &m);
    ck_assert_msg(n == m, "%s: %llu logits, wanted %llu", label, (unsigned long long)n, (unsigned long long)m);
    double largest = 0, off = 0;
    for (uint64_t i = 0; i < n; i++) {
        largest = fmax(largest, fabs((double)w[i]));
        off = fmax(off, fabs((double)g[i] - w[i]));
    }
    ck_assert_msg(off <= 1e-4 * largest, "%s: logits are off by %g of the largest, %g", label, off / largest, largest);
    free(g);
    free(w);
    safetensors_close(&got);
    safetensors_close(&want);
}

/* Every tensor's difference in norm, relative. */
static void compare_tensors(const char *got_path, const char *want_path, double tolerance, const char *label)
{
    struct safetensors *got, *want;
    struct rt_error err;
    ck_assert_msg(safetensors_open(got_path, &got, &err) == RT_OK, "%s", err.text);
    ck_assert_msg(safetensors_open(want_path, &want, &err) == RT_OK, "%s", err.text);
    ck_assert_uint_eq(safetensors_count(got), safetensors_count(want));
    for (size_t i = 0; i < safetensors_count(want); i++) {
        const char *name = safetensors_at(want, i)->name;
        uint64_t n, m;
        float *g = values_of(got, name, &n), *w = values_of(want, name, &m);
        double difference = 0, norm = 0;
        ck_assert_uint_eq(n, m);
        for (uint64_t j = 0; j < n; j++) {
            difference += ((double)g[j] - w[j]) * ((double)g[j] - w[j]);
            norm += (double)w[j] * w[j];
        }
        ck_assert_msg(norm > 0, "%s: %s is all zero, which tests nothing", label, name);
        ck_assert_msg(sqrt(difference) <= tolerance * sqrt(norm), "%s: %s is off by %g of its norm %g", label, name, sqrt(difference / norm), sqrt(norm));
        free(g);
        free(w);
    }
    safetensors_close(&got);
    safetensors_close(&want);
}

static void compare_series(const cJSON *want, const char *key, const double *got, int n, double tolerance, double floor, const char *label)
{
    const cJSON *list = json_find(want, key);
    ck_assert_int_eq(cJSON_GetArraySize(list), n);
    for (int i = 0; i < n; i++) {
        double w = cJSON_GetArrayItem(list, i)->valuedouble;
        ck_assert_msg(fabs(got[i] - w) <= tolerance * fabs(w) + floor, "%s: %s of step %d is %.9g, wanted %.9g", label, key, i + 1, got[i], w);
    }
}

static void compare_metrics(const char *path, const cJSON *want, const char *label)
{
    struct jsonl *r;
    struct rt_error err;
    cJSON *line;
    uint64_t number;
    double loss[20], aux[20], norm[20];
    int n = 0;
    ck_assert_msg(jsonl_open(path, &r, &err) == RT_OK, "%s", err.text);
    while (jsonl_next(r, &line, &number, &err) == RT_OK && line && n < 20) {
        ck_assert(json_number(line, "loss", path, -1e9, 1e9, &loss[n], &err) == RT_OK);
        ck_assert(json_number_or(line, "aux_loss", path, -1e9, 1e9, 0, &aux[n], &err) == RT_OK);
        ck_assert(json_number(line, "grad_norm", path, 0, 1e9, &norm[n], &err) == RT_OK);
        n++;
        cJSON_Delete(line);
    }
    jsonl_close(&r);
    ck_assert_int_eq(n, 20);
    compare_series(want, "loss", loss, 20, 1e-4, 0, label);
    compare_series(want, "aux_loss", aux, 20, 1e-4, 1e-9, label);
    compare_series(want, "grad_norm", norm, 20, 1e-3, 0, label);
}

/* ---- one case on one device ---- */

static void check_logits(const char *device, const char *model, const char *adapter, const char *tokens, const char *want, const char *name,
                         const char *label)
{
    char out[512];
    in(out, work, "logits.safetensors");
    const char *words[] = {"logits", "--model", model, "--device", device, "--tokens", tokens, "--out", out, adapter ? "--adapter" : NULL, adapter, NULL};
    ck_assert_msg(run(cmd_logits, words) == 0, "%s: mosld logits failed", label);
    compare_logits(out, want, name, label);
}

static void check_training(const char *device, const char *model, const char *folder, const cJSON *want, const char *label)
{
    char adapter[512], masks[512], task[520], data[512], gradients[512], want_gradients[512], want_final[512], out[512], metrics[560], final[560];
    in(adapter, folder, "adapter");
    in(masks, folder, "masks.safetensors");
    snprintf(task, sizeof task, "t=%s", in(data, folder, "train.jsonl"));
    in(gradients, work, "gradients.safetensors");
    in(out, work, "run");
    char clip[32];
    double norm = 0;
    struct rt_error err;
    ck_assert(json_number(json_find(want, "options"), "max_grad_norm", label, 0, 100, &norm, &err) == RT_OK);
    snprintf(clip, sizeof clip, "%g", norm);
    const char *words[] = {"train", "--model", model, "--device", device, "--task", task, "--init-adapter", adapter, "--out", out,
                           "--per-device-train-batch-size", "2", "--gradient-accumulation-steps", "2", "--max-steps", "20", "--learning-rate", "5e-3",
                           "--lr-scheduler-type", "constant", "--weight-decay", "0.01", "--max-grad-norm", clip, "--train-sampling-strategy", "sequential",
                           "--dump-gradients", gradients, "--overwrite-output-dir", file_is_regular(masks) ? "--dropout-mask" : NULL, masks, NULL};
    ck_assert_msg(run(cmd_train, words) == 0, "%s: mosld train failed", label);
    compare_tensors(gradients, in(want_gradients, folder, "gradients.safetensors"), 1e-3, label);
    compare_metrics(in(metrics, out, "metrics.jsonl"), want, label);
    /* Kept for the small cases. After twenty updates of the size of the learning rate, single numbers whose gradient is near zero may
     * part; norms do not. */
    if (file_is_regular(in(want_final, folder, "final.safetensors")))
        compare_tensors(in(final, out, "adapter_model.safetensors"), want_final, 1e-3, label);
}

static void check_case(const char *device, const char *family, const char *method)
{
    char folder[512], model[512], adapter[512], path[512], want[512], label[64], tokens[2048] = "";
    snprintf(label, sizeof label, "%s-%s on %s", family, method, device);
    snprintf(folder, sizeof folder, VECTORS "%s-%s", family, method);
    snprintf(model, sizeof model, VECTORS "models/%s", family);
    struct rt_error err;
    cJSON *expected;
    const cJSON *item;
    ck_assert_msg(json_read_file(in(path, folder, "expected.json"), 1 << 20, &expected, &err) == RT_OK, "%s", err.text);
    cJSON_ArrayForEach(item, json_find(expected, "tokens"))
        snprintf(tokens + strlen(tokens), sizeof tokens - strlen(tokens), "%s%d", *tokens ? "," : "", item->valueint);
    in(want, folder, "logits.safetensors");
    check_logits(device, model, NULL, tokens, want, "base", label);
    check_logits(device, model, in(adapter, folder, "adapter"), tokens, want, "adapter", label);
    check_training(device, model, folder, expected, label);
    cJSON_Delete(expected);
}

START_TEST(host_agrees_with_pytorch)
{
    check_case("host", families[_i % 6], methods[_i / 6]);
}
END_TEST

START_TEST(vulkan_agrees_with_pytorch)
{
    const char *device = vulkan_device();
    if (!device)
        return;
    setenv("MOSLD_VALIDATE", "1", 1);
    check_case(device, families[_i % 6], methods[_i / 6]);
}
END_TEST

/* The same small model as GGUF in every weight type that mosld runs. */
static const char *const quants[] = {"f32", "f16", "bf16", "q8_0", "q4_0", "q4_1"};

static void check_quant(const char *device, const char *type)
{
    char model[512], label[64];
    snprintf(model, sizeof model, VECTORS "models/quant-%s.gguf", type);
    snprintf(label, sizeof label, "quant-%s on %s", type, device);
    check_logits(device, model, NULL, "1,0,95,7,7,31,64,2,50,18,33", VECTORS "quant/logits.safetensors", type, label);
}

START_TEST(gguf_types_agree_with_pytorch)
{
    check_quant("host", quants[_i]);
    if (vulkan_device()) {
        setenv("MOSLD_VALIDATE", "1", 1);
        check_quant(vulkan_device(), quants[_i]);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("parity");
    TCase *tc = tcase_create("pytorch");
    tcase_add_checked_fixture(tc, make_work, remove_work);
    tcase_set_timeout(tc, 300);
    tcase_add_loop_test(tc, host_agrees_with_pytorch, 0, N_CASES);
    tcase_add_loop_test(tc, vulkan_agrees_with_pytorch, 0, N_CASES);
    tcase_add_loop_test(tc, gguf_types_agree_with_pytorch, 0, 6);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
