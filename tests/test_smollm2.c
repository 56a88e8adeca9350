/* tests/test_smollm2.c - SmolLM2-135M-Instruct as GGUF (Q4_1) against PyTorch in float64 on the same dequantised weights: logits, and the
 * sixty-four likeliest tokens behind each of three prompts.
 *
 * Runs where the environment variable MOSLD_TEST_SMOLLM2 names the file, as tools/test.sh sets it; else it is skipped. The vectors were made by
 * tests/parity/make_smollm2.py. */
#include "mosld/io/json.h"
#include "mosld/io/safetensors.h"
#include "tools/commands.h"

#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define VECTORS MOSLD_SOURCE_DIR "/tests/vectors/smollm2/"

static cJSON *expected;
static char work[64];

static void begin(void)
{
    struct rt_error err;
    ck_assert_msg(json_read_file(VECTORS "expected.json", 1 << 24, &expected, &err) == RT_OK, "%s", err.text);
    snprintf(work, sizeof work, "/tmp/mosld-smollm2-XXXXXX");
    ck_assert(mkdtemp(work) != NULL);
}

static void end(void)
{
    char command[128];
    cJSON_Delete(expected);
    snprintf(command, sizeof command, "rm -rf '%s'", work);
    ck_assert(system(command) == 0);
}

static const cJSON *prompt(int i) { return cJSON_GetArrayItem(json_find(expected, "prompts"), i); }

static void ids_text(const cJSON *ids, char *text, size_t size)
{
    const cJSON *id;
    text[0] = 0;
    cJSON_ArrayForEach(id, ids)
        snprintf(text + strlen(text), size - strlen(text), "%s%d", *text ? "," : "", id->valueint);
}

static void *copy_of(const struct safetensors *s, const char *name, enum dtype dtype, uint64_t *n)
{
    const struct safetensor *t = safetensors_find(s, name);
    ck_assert_msg(t && t->dtype == dtype, "%s is missing", name);
    void *copy = malloc(t->bytes);
    memcpy(copy, t->data, t->bytes);
    *n = t->elements;
    return copy;
}

/* The last four positions at 1,024 indices of the vocabulary, and the best token of each. */
START_TEST(logits)
{
    char out[128], ids[4096], name[16];
    struct safetensors *got, *want;
    struct rt_error err;
    uint64_t n, m, k;
    snprintf(out, sizeof out, "%s/logits.safetensors", work);
    ids_text(json_find(prompt(_i), "ids"), ids, sizeof ids);
    char *argv[] = {"logits", "--model", getenv("MOSLD_TEST_SMOLLM2"), "--device", "host", "--tokens", ids, "--out", out, NULL};
    ck_assert_int_eq(cmd_logits(9, argv), 0);
    ck_assert_msg(safetensors_open(out, &got, &err) == RT_OK, "%s", err.text);
    ck_assert_msg(safetensors_open(VECTORS "logits.safetensors", &want, &err) == RT_OK, "%s", err.text);
    snprintf(name, sizeof name, "prompt%d", _i);
    float *g = copy_of(got, "logits", DTYPE_F32, &n), *w = copy_of(want, name, DTYPE_F32, &m);
    int32_t *indices = copy_of(want, "indices", DTYPE_I32, &k);
    uint64_t V = safetensors_find(got, "logits")->shape[1], T = safetensors_find(got, "logits")->shape[0];
    double off = 0, largest = 0;
    for (uint64_t p = 0; p < 4; p++) {
        const float *row = g + (T - 4 + p) * V;
        uint64_t best = 0;
        for (uint64_t v = 1; v < V; v++)
            best = row[v] > row[best] ? v : best;
        ck_assert_int_eq((int)best, cJSON_GetArrayItem(json_find(prompt(_i), "argmax"), (int)p)->valueint);
        largest = fmax(largest, cJSON_GetArrayItem(json_find(prompt(_i), "largest"), (int)p)->valuedouble);
        for (uint64_t j = 0; j < k; j++)
            off = fmax(off, fabs((double)row[indices[j]] - w[p * k + j]));
    }
    ck_assert_msg(off <= 1e-4 * largest, "logits are off by %g of the largest, %g", off / largest, largest);
    fprintf(stderr, "prompt %d: logits are off by %.1e of the largest\n", _i, off / largest);
    free(g);
    free(w);
    free(indices);
    safetensors_close(&got);
    safetensors_close(&want);
}
END_TEST

/* The program's own greedy generation, with its cache: tokens from --json. */
START_TEST(greedy)
{
    char command[8192], line[65536];
    const char *text = json_find(prompt(_i), "text")->valuestring;
    char path[128];
    snprintf(path, sizeof path, "%s/prompt.txt", work);
    FILE *f = fopen(path, "wb");
    ck_assert(f && fwrite(text, 1, strlen(text), f) == strlen(text) && fclose(f) == 0);
    /* printf %s. keeps the newlines at the end of the prompt that $() would cut; the dot is taken off again */
    snprintf(command, sizeof command, "p=$(cat '%s'; printf .); '%s' generate --model '%s' --device host --prompt \"${p%%.}\" --max-new-tokens 64 "
             "--json 2>/dev/null", path, MOSLD_PROGRAM, getenv("MOSLD_TEST_SMOLLM2"));
    FILE *run = popen(command, "r");
    ck_assert(run && fgets(line, sizeof line, run) && pclose(run) == 0);
    struct rt_error err;
    cJSON *json;
    ck_assert_msg(json_parse(line, strlen(line), "output", 1, &json, &err) == RT_OK, "%s", err.text);
    const cJSON *got = json_find(json, "tokens"), *want = json_find(prompt(_i), "greedy");
    ck_assert_int_eq(cJSON_GetArraySize(want), 64);
    for (int i = 0; i < cJSON_GetArraySize(got); i++)
        ck_assert_msg(cJSON_GetArrayItem(got, i)->valueint == cJSON_GetArrayItem(want, i)->valueint, "prompt %d: token %d is %d, wanted %d", _i, i,
                      cJSON_GetArrayItem(got, i)->valueint, cJSON_GetArrayItem(want, i)->valueint);
    ck_assert_int_eq(cJSON_GetArraySize(got), 64);
    cJSON_Delete(json);
}
END_TEST

int main(void)
{
    if (!getenv("MOSLD_TEST_SMOLLM2")) {
        fprintf(stderr, "SKIPPED: MOSLD_TEST_SMOLLM2 does not name SmolLM2-135M-Instruct.Q4_1.gguf\n");
        return 77;
    }
    Suite *suite = suite_create("smollm2");
    TCase *tc = tcase_create("pytorch");
    tcase_add_checked_fixture(tc, begin, end);
    tcase_set_timeout(tc, 300);
    tcase_add_loop_test(tc, logits, 0, 3);
    tcase_add_loop_test(tc, greedy, 0, 3);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
