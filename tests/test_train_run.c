/* tests/test_train_run.c - what a run tells and leaves: run.json as a config file, the plan, metrics, TensorBoard
 * events. */
#include "tests/support/program.h"

#include <check.h>
#include <dirent.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ADAPTER "adapter_model.safetensors"
#define TRAIN   "train --model " STORIES " --device host "

static void make(void)
{
    program_folder_make();
    write_text("t.jsonl",
               "{\"prompt\": \"Tom \", \"completion\": \"is glad.\"}\n{\"text\": \"Lily likes the big red ball.\"}\n"
               "{\"instruction\": \"Say a color.\", \"output\": \"Red.\"}\n");
    write_text("q.jsonl", "{\"question\": \"What is red?\", \"choices\": [\"a ball\", \"the sea\"], \"answer\": 0}\n");
    ck_assert_int_eq(system("mkdir data && cp t.jsonl data/train.jsonl && cp q.jsonl data/validation.jsonl"), 0);
}

static void done(int status) { ck_assert_msg(status == 0, "status %d: %s", status, program_err()); }

static void same_losses(const char *a, const char *b, int n)
{
    for (int i = 0; i < n; i++)
        ck_assert_double_eq(json_line_number(a, i, "loss"), json_line_number(b, i, "loss"));
}

/* ---- configuration ---- */

START_TEST(run_json_is_a_config_file)
{
    static const char *const options[] = {"--max-steps 6", "--preset paper --max-steps 3 --r 4",
                                          "--method lora --lora-dropout 0.1 --target-modules q_proj,down_proj "
                                          "--use-rslora --init-lora-weights gaussian --num-train-epochs 2",
                                          "--num-experts 2,4 --top-k 2 --dropout 0.3 --dropout-on input "
                                          "--router-aux-loss-coef 0.5 --packing --max-length 64 --max-steps 4 "
                                          "--lr-scheduler-type cosine --warmup-ratio 0.25 --weight-decay 0.1 "
                                          "--adam-beta1 0.8 --adam-beta2 0.99 --adam-epsilon 1e-7 --seed 5 "
                                          "--completion-only-loss false --train-sampling-strategy sequential "
                                          "--eval-task v=data --eval-steps 2 --load-best-model-at-end"};
    done(program(TRAIN "--task t=t.jsonl --task q=q.jsonl:0.5 --out a %s", options[_i]));
    done(program("train --config a/run.json --out b"));
    ck_assert(same_bytes("a/" ADAPTER, "b/" ADAPTER));
    ck_assert(same_bytes("a/adapter_config.json", "b/adapter_config.json"));
    same_losses("a/metrics.jsonl", "b/metrics.jsonl", 2);
    /* What it says is what it was made of, but for the folder. */
    size_t size;
    char *x = read_bytes("a/run.json", &size), *y = read_bytes("b/run.json", &size);
    cJSON *p = cJSON_Parse(x), *q = cJSON_Parse(y);
    cJSON *c = cJSON_GetObjectItem(p, "configuration"), *d = cJSON_GetObjectItem(q, "configuration");
    ck_assert_str_eq(cJSON_GetObjectItem(c, "out")->valuestring, "a");
    cJSON_DeleteItemFromObject(c, "out");
    cJSON_DeleteItemFromObject(d, "out");
    ck_assert(cJSON_Compare(c, d, true));
    ck_assert(cJSON_HasObjectItem(p, "mosld_version") && cJSON_HasObjectItem(p, "device") &&
              cJSON_HasObjectItem(p, "plan"));
    cJSON_Delete(p);
    cJSON_Delete(q);
    free(x);
    free(y);
    /* The command line wins, and a resumed run takes it as well. */
    done(program("train --config a/run.json --out c --seed 99 --save-steps 1"));
    ck_assert(!same_bytes("a/" ADAPTER, "c/" ADAPTER));
    done(program("train --config c/run.json --resume-from-checkpoint c/checkpoint-000001"));
}
END_TEST

START_TEST(bad_config_files)
{
    static const struct {
        const char *text, *want;
    } bad[] = {{"{", "c.json"},
               {"[]", "JSON object"},
               {"{\"learning_rte\": 1}", "learning_rate"},
               {"{\"learning_rate\": \"fast\"}", "learning_rate"},
               {"{\"seed\": 1.5}", "seed"},
               {"{\"seed\": 1, \"seed\": 2}", "seed"},
               {"{\"method\": \"molora\"}", "method"},
               {"{\"overwrite_output_dir\": true}", "overwrite_output_dir"},
               {"{\"eval_task\": [1]}", "eval_task"},
               {"{\"configuration\": {\"rr\": 1}}", "rr"}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        write_text("c.json", "%s", bad[i].text);
        program_failed_as(program(TRAIN "--task t=t.jsonl --out run --config c.json"), 3, "c.json", bad[i].want, NULL);
    }
    program_failed_as(program(TRAIN "--task t=t.jsonl --out run --config none.json"), 3, "none.json", NULL);
    ck_assert(!path_exists("run"));
    write_text(
        "c.json",
        "{\"model\": \"%s\", \"device\": \"host\", \"task\": [\"t=t.jsonl\"], \"out\": \"run\", \"max_steps\": 2}",
        STORIES);
    done(program("train --config c.json"));
    ck_assert(path_exists("run/" ADAPTER));
}
END_TEST

START_TEST(the_papers_preset)
{
    done(program(TRAIN "--task t=t.jsonl --out run --preset paper --max-steps 1"));
    size_t size;
    char *text = read_bytes("run/adapter_config.json", &size);
    cJSON *json = cJSON_Parse(text), *experts = cJSON_GetObjectItem(json, "num_experts");
    ck_assert_double_eq(cJSON_GetObjectItem(json, "r")->valuedouble, 8);
    ck_assert_double_eq(cJSON_GetObjectItem(json, "lora_alpha")->valuedouble, 16);
    ck_assert_double_eq(cJSON_GetObjectItem(json, "top_k")->valuedouble, 2);
    ck_assert_double_eq(cJSON_GetObjectItem(json, "dropout")->valuedouble, 0.1);
    ck_assert_str_eq(cJSON_GetObjectItem(json, "dropout_on")->valuestring, "A");
    ck_assert_int_eq(cJSON_GetArraySize(experts), 4);
    for (int i = 0; i < 4; i++)
        ck_assert_int_eq(cJSON_GetArrayItem(experts, i)->valueint, 8 - 2 * i);
    cJSON_Delete(json);
    free(text);
}
END_TEST

/* ---- the plan ---- */

START_TEST(a_plan_runs_nothing)
{
    program_failed_as(program(TRAIN "--task t=t.jsonl --plan --max-steps 7 --memory-limit 1 --device 'host (' --r 64 --target-modules all-linear"), 4,
                      "7 steps", "memory ", "may use 1 MiB", NULL);
    ck_assert_ptr_nonnull(strstr(program_out(), "does not fit"));
    /* What was planned for would not fit that device: it was not asked for. */
    program_failed_as(program(TRAIN "--task t=t.jsonl --max-steps 7 --memory-limit 1 --device 'host (' --r 64 "
                                    "--target-modules all-linear --out run"),
                      4, "MiB", NULL);
    done(program(TRAIN "--task t=t.jsonl --plan --max-steps 7 --out never"));
    ck_assert_ptr_nonnull(strstr(program_out(), ": fits"));
    ck_assert(!path_exists("never"));
}
END_TEST

/* ---- metrics ---- */

START_TEST(metrics_have_their_fields)
{
    done(program(TRAIN "--task t=t.jsonl --task q=q.jsonl --eval-task v=data --out run --max-steps 4 "
                       "--per-device-train-batch-size 4 --num-experts 3"));
    static const char *const numbers[] = {"step",      "epoch",  "loss",    "aux_loss",         "learning_rate",
                                          "grad_norm", "tokens", "seconds", "tokens_per_second"};
    for (int i = 0; i < 4; i++) {
        cJSON *line = json_line("run/metrics.jsonl", i), *load = cJSON_GetObjectItem(line, "routing"),
              *tasks = cJSON_GetObjectItem(line, "task_loss"), *e;
        for (size_t k = 0; k < sizeof numbers / sizeof *numbers; k++)
            ck_assert_msg(cJSON_IsNumber(cJSON_GetObjectItem(line, numbers[k])), "%s of line %d", numbers[k], i);
        ck_assert_int_eq(cJSON_GetObjectItem(line, "step")->valueint, i + 1);
        ck_assert_double_eq_tol(cJSON_GetObjectItem(line, "epoch")->valuedouble, i + 1,
                                1e-9); /* 4 rows a step are an epoch */
        ck_assert(cJSON_GetObjectItem(line, "tokens")->valuedouble > 30);
        ck_assert(cJSON_GetObjectItem(line, "aux_loss")->valuedouble >
                  0.009); /* 0.01 where the load is even, more elsewhere */
        double sum = 0;
        ck_assert_int_eq(cJSON_GetArraySize(load), 3);
        cJSON_ArrayForEach(e, load)
            sum += e->valuedouble;
        ck_assert_double_eq_tol(sum, 1, 1e-5);
        ck_assert(cJSON_IsNumber(cJSON_GetObjectItem(tasks, "t")) && cJSON_IsNumber(cJSON_GetObjectItem(tasks, "q")));
        cJSON_Delete(line);
    }
    cJSON *last = json_line("run/metrics.jsonl", 4);
    ck_assert(cJSON_IsNumber(cJSON_GetObjectItem(cJSON_GetObjectItem(last, "eval_task_loss"), "v")));
    cJSON_Delete(last);
    /* lora has no router. */
    done(program(TRAIN "--task t=t.jsonl --out lora --max-steps 1 --method lora"));
    cJSON *line = json_line("lora/metrics.jsonl", 0);
    ck_assert(!cJSON_HasObjectItem(line, "aux_loss") && !cJSON_HasObjectItem(line, "routing"));
    cJSON_Delete(line);
}
END_TEST

START_TEST(the_end_in_json)
{
    cJSON *json = program_json(program(TRAIN "--task t=t.jsonl --eval-task v=data --out run --max-steps 3 --json"));
    ck_assert_str_eq(cJSON_GetObjectItem(json, "out")->valuestring, "run");
    ck_assert_int_eq(cJSON_GetObjectItem(json, "steps")->valueint, 3);
    ck_assert_double_eq(cJSON_GetObjectItem(json, "loss")->valuedouble,
                        json_line_number("run/metrics.jsonl", 2, "loss"));
    ck_assert_double_eq(cJSON_GetObjectItem(json, "eval_loss")->valuedouble,
                        json_line_number("run/metrics.jsonl", 3, "eval_loss"));
    ck_assert_double_eq(cJSON_GetObjectItem(json, "skipped_steps")->valuedouble, 0);
    cJSON_Delete(json);
    /* A finished run, gone on with, has nothing left to do and no last loss; it says what it has. */
    done(program(TRAIN "--task t=t.jsonl --out again --max-steps 3 --save-steps 3"));
    json = program_json(program(
        TRAIN "--task t=t.jsonl --out again --max-steps 3 --save-steps 3 --resume-from-checkpoint last --json"));
    ck_assert(cJSON_IsNull(cJSON_GetObjectItem(json, "loss")));
    cJSON_Delete(json);
}
END_TEST

/* ---- TensorBoard ---- */

/* CRC-32C by a table, which is not how the program does it. */
static uint32_t crc32c(const unsigned char *p, size_t n)
{
    uint32_t table[256], crc = 0xffffffffu;
    for (uint32_t i = 0; i < 256; i++) {
        table[i] = i;
        for (int k = 0; k < 8; k++)
            table[i] = table[i] & 1 ? 0x82f63b78u ^ table[i] >> 1 : table[i] >> 1;
    }
    for (size_t i = 0; i < n; i++)
        crc = table[(crc ^ p[i]) & 255] ^ crc >> 8;
    return ~crc;
}

static uint32_t masked(const unsigned char *p, size_t n)
{
    uint32_t crc = crc32c(p, n);
    return ((crc >> 15) | (crc << 17)) + 0xa282ead8u;
}

static uint64_t little(const unsigned char *p, int bytes)
{
    uint64_t v = 0;
    for (int i = 0; i < bytes; i++)
        v |= (uint64_t)p[i] << 8 * i;
    return v;
}

static uint64_t varint(const unsigned char **p)
{
    uint64_t v = 0;
    for (int shift = 0;; shift += 7) {
        unsigned char b = *(*p)++;
        v |= (uint64_t)(b & 0x7f) << shift;
        if (!(b & 0x80))
            return v;
    }
}

struct event {
    uint64_t step;
    char tag[128], version[32];
    float value;
};

/* A protocol buffer message, as deep as it goes: Event, Summary, Value. */
static void parse_event(const unsigned char *p, const unsigned char *end, int depth, struct event *e)
{
    while (p < end) {
        uint64_t key = varint(&p), field = key >> 3, size;
        switch (key & 7) {
        case 0: size = varint(&p); if (depth == 0 && field == 2) e->step = size; break;
        case 1: p += 8; break;
        case 5: {
            uint32_t bits = (uint32_t)little(p, 4);
            if (depth == 2 && field == 2)
                memcpy(&e->value, &bits, 4);
            p += 4;
            break;
        }
        case 2:
            size = varint(&p);
            ck_assert(size <= (uint64_t)(end - p));
            if (depth == 0 && field == 3)
                snprintf(e->version, sizeof e->version, "%.*s", (int)size, (const char *)p);
            else if (depth == 2 && field == 1)
                snprintf(e->tag, sizeof e->tag, "%.*s", (int)size, (const char *)p);
            else
                parse_event(p, p + size, depth + 1, e);
            p += size;
            break;
        default: ck_abort_msg("wire type %d", (int)(key & 7));
        }
    }
    ck_assert(p == end);
}

static void event_path(const char *run, char *path, size_t size)
{
    DIR *dir = opendir(run);
    struct dirent *entry;
    path[0] = 0;
    ck_assert_ptr_nonnull(dir);
    while ((entry = readdir(dir)))
        if (strncmp(entry->d_name, "events.out.tfevents.", 20) == 0)
            snprintf(path, size, "%s/%s", run, entry->d_name);
    closedir(dir);
    ck_assert(path[0]);
}

START_TEST(tensorboard_can_read_the_events)
{
    ck_assert_uint_eq(crc32c((const unsigned char *)"123456789", 9), 0xe3069283u); /* the check value of CRC-32C */
    done(program(TRAIN "--task t=t.jsonl --eval-task v=data --out run --max-steps 3 --num-experts 2"));
    char path[512];
    size_t size;
    event_path("run", path, sizeof path);
    char *data = read_bytes(path, &size);
    const unsigned char *p = (const unsigned char *)data, *end = p + size;
    int records = 0, losses = 0, routing = 0, evaluations = 0;
    while (p < end) {
        ck_assert_int_ge(end - p, 12);
        uint64_t n = little(p, 8);
        ck_assert_uint_eq(little(p + 8, 4), masked(p, 8));
        ck_assert(n <= (uint64_t)(end - p) - 16);
        ck_assert_uint_eq(little(p + 12 + n, 4), masked(p + 12, n));
        struct event e = {.value = NAN};
        parse_event(p + 12, p + 12 + n, 0, &e);
        if (records++ == 0)
            ck_assert_str_eq(e.version, "brain.Event:2");
        else if (strcmp(e.tag, "train/loss") == 0) {
            losses++;
            ck_assert_uint_eq(e.step, (uint64_t)losses);
            ck_assert_float_eq(e.value, (float)json_line_number("run/metrics.jsonl", losses - 1, "loss"));
        }
        routing += strncmp(e.tag, "routing/expert_", 15) == 0;
        evaluations += strcmp(e.tag, "eval/loss/v") == 0;
        p += 16 + n;
    }
    ck_assert_int_eq(losses, 3);
    ck_assert_int_eq(routing, 6);
    ck_assert_int_eq(evaluations, 1);
    free(data);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("train_run");
    TCase *tc = tcase_create("run");
    tcase_add_checked_fixture(tc, make, program_folder_remove);
    tcase_set_timeout(tc, 120);
    tcase_add_loop_test(tc, run_json_is_a_config_file, 0, 4);
    tcase_add_test(tc, bad_config_files);
    tcase_add_test(tc, the_papers_preset);
    tcase_add_test(tc, a_plan_runs_nothing);
    tcase_add_test(tc, metrics_have_their_fields);
    tcase_add_test(tc, the_end_in_json);
    tcase_add_test(tc, tensorboard_can_read_the_events);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
