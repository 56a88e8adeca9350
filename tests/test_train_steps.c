/* tests/test_train_steps.c - what a training step sees and does: which rows, alone or packed, with which losses,
 * dropout and learning rate.
 *
 * Losses are compared with logits of each row alone. A step that learns nothing (learning rate 0) leaves the model as
 * it is, so that any step's loss can be told beforehand. */
#include "mosld/io/safetensors.h"
#include "mosld/train/schedule.h"
#include "tests/support/by_hand.h"
#include "tests/support/program.h"

#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define VECTORS MOSLD_SOURCE_DIR "/tests/vectors/"
#define LORA    VECTORS "llama2-lora/adapter"
#define MOSL    VECTORS "llama2-mosl/adapter"
#define MOSLD   VECTORS "llama2-mosld/adapter"
#define TRAIN   "train --model " LLAMA2 " --device host --train-sampling-strategy sequential "

/* Rows of random tokens, of different lengths; labels begin behind a prompt. */
enum { ROWS = 6, VOCAB = 96 };
static int ids[ROWS][32], lengths[ROWS], firsts[ROWS];

static void write_rows(const char *path, int first, int n)
{
    FILE *f = fopen(path, "w");
    ck_assert_ptr_nonnull(f);
    for (int i = first; i < first + n; i++) {
        fprintf(f, "{\"input_ids\": [");
        for (int t = 0; t < lengths[i]; t++)
            fprintf(f, "%s%d", t ? ", " : "", ids[i][t]);
        fprintf(f, "], \"labels\": [");
        for (int t = 0; t < lengths[i]; t++)
            fprintf(f, "%s%d", t ? ", " : "", t < firsts[i] ? -100 : ids[i][t]);
        fprintf(f, "]}\n");
    }
    fclose(f);
}

static void make(void)
{
    unsigned seed = 5;
    program_folder_make();
    for (int i = 0; i < ROWS; i++) {
        lengths[i] = 5 + (i * 11) % 23;
        firsts[i] = 1 + i % 4;
        for (int t = 0; t < lengths[i]; t++)
            ids[i][t] = rand_r(&seed) % VOCAB;
    }
    write_rows("t.jsonl", 0, ROWS);
}

static double row_loss(const char *adapter, int i, int *targets)
{
    *targets = lengths[i] - firsts[i];
    return loss_of(LLAMA2, adapter, ids[i], lengths[i], firsts[i]);
}

static double mean_loss(const char *adapter, int first, int n)
{
    double sum = 0;
    int count = 0, targets;
    for (int i = first; i < first + n; i++) {
        sum += row_loss(adapter, i, &targets);
        count += targets;
    }
    return sum / count;
}

static void close_to(double got, double want, double tolerance, const char *what)
{
    ck_assert_msg(fabs(got - want) <= tolerance * fabs(want), "%s: %.9g, wanted %.9g", what, got, want);
}

static void done(int status) { ck_assert_msg(status == 0, "status %d: %s", status, program_err()); }

/* ---- the learning rate ---- */

START_TEST(schedules_are_those_of_transformers)
{
    /* get_linear_schedule_with_warmup(2, 10) and so on, worked out by hand. */
    static const double linear[] = {0, 0.5, 1, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125, 0};
    static const double cosine[] = {0,
                                    0.5,
                                    1,
                                    0.9619397662556434,
                                    0.8535533905932737,
                                    0.6913417161825449,
                                    0.5,
                                    0.30865828381745514,
                                    0.14644660940672627,
                                    0.03806023374435663,
                                    0};
    for (int i = 0; i <= 10; i++) {
        ck_assert_double_eq_tol(mosld_schedule_factor(MOSLD_LINEAR, (uint64_t)i, 2, 10), linear[i], 1e-15);
        ck_assert_double_eq_tol(mosld_schedule_factor(MOSLD_COSINE, (uint64_t)i, 2, 10), cosine[i], 1e-15);
        ck_assert_double_eq(mosld_schedule_factor(MOSLD_CONSTANT, (uint64_t)i, 2, 10), 1);
        ck_assert_double_eq(mosld_schedule_factor(MOSLD_CONSTANT_WITH_WARMUP, (uint64_t)i, 4, 10), i < 4 ? i / 4.0 : 1);
    }
    ck_assert_double_eq(mosld_schedule_factor(MOSLD_LINEAR, 0, 0, 10), 1);
    ck_assert_double_eq(mosld_schedule_factor(MOSLD_LINEAR, 3, 10, 10), 0.3);
    ck_assert_double_eq(mosld_schedule_factor(MOSLD_COSINE, 5, 20, 10), 0.25);
    ck_assert_uint_eq(mosld_warmup_updates(0, 0, 25), 0);
    ck_assert_uint_eq(mosld_warmup_updates(0, 0.1, 25), 3);
    ck_assert_uint_eq(mosld_warmup_updates(0.1, 0, 25), 3);
    ck_assert_uint_eq(mosld_warmup_updates(7, 0.5, 25), 7);
}
END_TEST

START_TEST(the_program_follows_the_schedule)
{
    done(program(TRAIN "--task t=t.jsonl --out run --method lora --max-steps 10 --warmup-ratio 0.2 --lr-scheduler-type "
                       "cosine --learning-rate 0.01"));
    static const double cosine[] = {0, 0.005, 0.01, 0.009619397662556434};
    for (int i = 0; i < 4; i++)
        ck_assert_double_eq_tol(json_line_number("run/metrics.jsonl", i, "learning_rate"), cosine[i], 1e-15);
    /* Rate 0 at the first step leaves the model as it was: with B zero, that is the model alone. */
    ck_assert_double_eq(json_line_number("run/metrics.jsonl", 0, "loss"),
                        json_line_number("run/metrics.jsonl", 1, "loss"));
    ck_assert_double_ne(json_line_number("run/metrics.jsonl", 1, "loss"),
                        json_line_number("run/metrics.jsonl", 2, "loss"));
}
END_TEST

/* ---- which rows, and what they see ---- */

START_TEST(rows_of_a_batch_do_not_see_each_other)
{
    /* 6 rows in one pass, far below the model's 128 positions; packed; one a pass: always the mean over all targets,
     * prompts left out. */
    static const char *const ways[] = {"--per-device-train-batch-size 6",
                                       "--packing --per-device-train-batch-size 1 --max-length 128",
                                       "--per-device-train-batch-size 1 --gradient-accumulation-steps 6",
                                       "--per-device-train-batch-size 4 --gradient-accumulation-steps 2"};
    double want = mean_loss(LORA, 0, ROWS);
    for (int w = 0; w < 4; w++) {
        done(program(TRAIN "--task t=t.jsonl --init-adapter " LORA
                           " --out run%d --max-steps 1 --dump-gradients g%d.safetensors %s",
                     w, w, ways[w]));
        char path[64];
        snprintf(path, sizeof path, "run%d/metrics.jsonl", w);
        close_to(json_line_number(path, 0, "loss"), want, 1e-5, ways[w]);
        snprintf(path, sizeof path, "g%d.safetensors", w);
        double off = files_differ(path, "g0.safetensors");
        ck_assert_msg(off < 1e-5, "%s: gradients are off by %g", ways[w], off);
    }
}
END_TEST

START_TEST(accumulation_is_a_larger_batch)
{
    done(program(TRAIN "--task t=t.jsonl --init-adapter " LORA
                       " --out a --max-steps 12 --per-device-train-batch-size 4 --learning-rate 1e-3"));
    done(program(TRAIN "--task t=t.jsonl --init-adapter " LORA
                       " --out b --max-steps 12 --per-device-train-batch-size 2 --gradient-accumulation-steps 2 "
                       "--learning-rate 1e-3"));
    for (int i = 0; i < 12; i++)
        close_to(json_line_number("b/metrics.jsonl", i, "loss"), json_line_number("a/metrics.jsonl", i, "loss"), 1e-5,
                 "loss");
    double off = files_differ("b/adapter_model.safetensors", "a/adapter_model.safetensors");
    ck_assert_msg(off < 1e-5, "adapters are off by %g", off);
}
END_TEST

START_TEST(every_row_is_trained_the_first_too)
{
    double want[ROWS], got[ROWS];
    int targets;
    for (int i = 0; i < ROWS; i++)
        want[i] = row_loss(LORA, i, &targets) / targets;
    done(program(TRAIN "--task t=t.jsonl --init-adapter " LORA
                       " --out run --learning-rate 0 --num-train-epochs 1 --per-device-train-batch-size 1"));
    for (int i = 0; i < ROWS; i++)
        close_to(json_line_number("run/metrics.jsonl", i, "loss"), want[i], 1e-5, "loss of a row");
    /* In random order they are the same rows, each once, in another order in each epoch. */
    done(program("train --model " LLAMA2 " --device host --task t=t.jsonl --init-adapter " LORA
                 " --out random --learning-rate 0 --num-train-epochs 2 --per-device-train-batch-size 1"));
    bool moved = false, differs = false;
    for (int epoch = 0; epoch < 2; epoch++)
        for (int i = 0; i < ROWS; i++) {
            int found = 0;
            for (int j = 0; j < ROWS; j++) {
                got[j] = json_line_number("random/metrics.jsonl", epoch * ROWS + j, "loss");
                found += fabs(got[j] - want[i]) <= 1e-5 * want[i];
            }
            ck_assert_int_eq(found, 1);
            moved = moved || fabs(got[i] - want[i]) > 1e-5 * want[i];
            differs = differs || got[i] != json_line_number("random/metrics.jsonl", i, "loss");
        }
    ck_assert(moved && differs);
    /* A last micro-batch with fewer rows is trained too, and a batch larger than the data is all of it. */
    done(program(TRAIN "--task t=t.jsonl --init-adapter " LORA
                       " --out four --learning-rate 0 --num-train-epochs 1 --per-device-train-batch-size 4"));
    close_to(json_line_number("four/metrics.jsonl", 0, "loss"), mean_loss(LORA, 0, 4), 1e-5, "the first four");
    close_to(json_line_number("four/metrics.jsonl", 1, "loss"), mean_loss(LORA, 4, 2), 1e-5, "the last two");
    done(program(TRAIN "--task t=t.jsonl --init-adapter " LORA
                       " --out all --learning-rate 0 --num-train-epochs 1 --per-device-train-batch-size 100"));
    close_to(json_line_number("all/metrics.jsonl", 0, "loss"), mean_loss(LORA, 0, ROWS), 1e-5, "all");
}
END_TEST

START_TEST(evaluation_is_the_mean_over_targets)
{
    write_rows("v.jsonl", 1, 3);
    done(program(TRAIN
                 "--task t=t.jsonl --eval-task v=v.jsonl --eval-task w=t.jsonl --eval-limit 2 --init-adapter " MOSL
                 " --out run --learning-rate 0 --max-steps 4 --eval-steps 2"));
    cJSON *line = json_line("run/metrics.jsonl", 2), *tasks = cJSON_GetObjectItem(line, "eval_task_loss");
    double v = mean_loss(MOSL, 1, 2), w = mean_loss(MOSL, 0, 2);
    close_to(cJSON_GetObjectItem(tasks, "v")->valuedouble, v, 1e-5, "v");
    close_to(cJSON_GetObjectItem(tasks, "w")->valuedouble, w, 1e-5, "w");
    close_to(cJSON_GetObjectItem(line, "eval_loss")->valuedouble, (v + w) / 2, 1e-5, "mean of tasks");
    ck_assert_double_eq(cJSON_GetObjectItem(line, "step")->valuedouble, 2);
    cJSON_Delete(line);
}
END_TEST

/* ---- where an adapter starts ---- */

static void check_start(const char *path, const char *name, int r, bool gaussian)
{
    uint64_t n;
    float *a = tensor_of(path, name, &n), largest = 0;
    double square = 0;
    for (uint64_t i = 0; i < n; i++) {
        largest = fmaxf(largest, fabsf(a[i]));
        square += (double)a[i] * a[i];
    }
    double bound = 1 / sqrt((double)n / r), deviation = sqrt(square / (double)n);
    if (gaussian) /* std 1 / r; four standard errors of a few hundred draws */
        ck_assert_msg(fabs(deviation * r - 1) < 4 / sqrt(2.0 * (double)n), "%s: standard deviation %g", name,
                      deviation);
    else
        ck_assert_msg(largest <= bound && largest > 0.97 * bound && fabs(deviation / bound - 0.5774) < 0.08,
                      "%s: up to %g of %g, std %g", name, largest, bound, deviation);
    free(a);
}

START_TEST(no_two_modules_start_alike)
{
    done(program(TRAIN "--task t=t.jsonl --out run --learning-rate 0 --max-steps 1 --target-modules all-linear "
                       "--num-experts 3 --r 4 %s",
                 _i ? "--init-lora-weights gaussian" : ""));
    const char *path = "run/adapter_model.safetensors";
    struct safetensors *s;
    struct rt_error err;
    ck_assert_msg(safetensors_open(path, &s, &err) == RT_OK, "%s", err.text);
    ck_assert_uint_eq(safetensors_count(s), 2 * 7 * 5); /* 2 layers, 7 modules: A, router, 3 B */
    for (size_t i = 0; i < safetensors_count(s); i++) {
        const struct safetensor *t = safetensors_at(s, i);
        const float *a = (const float *)t->data;
        if (strstr(t->name, "lora_B")) {
            for (uint64_t e = 0; e < t->elements; e++)
                ck_assert_float_eq(a[e], 0);
            continue;
        }
        if (strstr(t->name, "lora_A"))
            check_start(path, t->name, 4, _i == 1);
        for (size_t j = 0; j < i; j++) {
            const struct safetensor *other = safetensors_at(s, j);
            ck_assert_msg(strstr(other->name, "lora_B") || memcmp(t->data, other->data, 32) != 0, "%s starts as %s",
                          t->name, other->name);
        }
    }
    safetensors_close(&s);
    done(program(TRAIN "--task t=t.jsonl --out seed --learning-rate 0 --max-steps 1 --target-modules all-linear "
                       "--num-experts 3 --r 4 --seed 43"));
    ck_assert(!same_bytes(path, "seed/adapter_model.safetensors"));
}
END_TEST

START_TEST(module_names_match_whole_names)
{
    static const char *const wrong[] = {"q",       "proj",  "self_attn.q_proj", "Q_proj", "output",
                                        "q_proj.", "model", "lm_head",          ""};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        program_failed_as(program(TRAIN "--task t=t.jsonl --out run --target-modules '%s'", wrong[i]), 2, "target",
                          NULL);
    ck_assert(!path_exists("run"));
    static const char *const names[] = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"};
    for (int m = 0; m < 7; m++) {
        struct safetensors *s;
        struct rt_error err;
        done(program(
            TRAIN "--task t=t.jsonl --out run --overwrite-output-dir --max-steps 1 --method lora --target-modules %s",
            names[m]));
        ck_assert_msg(safetensors_open("run/adapter_model.safetensors", &s, &err) == RT_OK, "%s", err.text);
        ck_assert_uint_eq(safetensors_count(s), 4); /* A and B in 2 layers */
        for (size_t i = 0; i < 4; i++)
            ck_assert_ptr_nonnull(strstr(safetensors_at(s, i)->name, names[m]));
        safetensors_close(&s);
    }
}
END_TEST

/* ---- dropout ---- */

/* Two tasks of one and the same row, in one pass: their losses, under an adapter whose B are not zero. */
static void twins(const char *options, double *a, double *b)
{
    write_rows("a.jsonl", 1, 1);
    write_rows("b.jsonl", 1, 1);
    done(program(
        TRAIN
        "--task a=a.jsonl --task b=b.jsonl --per-device-train-batch-size 2 --learning-rate 0 --max-steps 1 --out twins "
        "--overwrite-output-dir %s",
        options));
    cJSON *line = json_line("twins/metrics.jsonl", 0), *tasks = cJSON_GetObjectItem(line, "task_loss");
    *a = cJSON_GetObjectItem(tasks, "a")->valuedouble;
    *b = cJSON_GetObjectItem(tasks, "b")->valuedouble;
    cJSON_Delete(line);
}

/* An adapter folder as another, with another dropout in its configuration. */
static void with_dropout(const char *from, const char *to, double dropout)
{
    char command[1024], path[128];
    size_t size;
    snprintf(command, sizeof command, "rm -rf %s && cp -r '%s' %s", to, from, to);
    ck_assert_int_eq(system(command), 0);
    snprintf(path, sizeof path, "%s/adapter_config.json", to);
    char *text = read_bytes(path, &size);
    cJSON *json = cJSON_Parse(text);
    free(text);
    cJSON_SetNumberValue(cJSON_GetObjectItem(json, cJSON_HasObjectItem(json, "dropout") ? "dropout" : "lora_dropout"),
                         dropout);
    text = cJSON_Print(json);
    write_text(path, "%s", text);
    free(text);
    cJSON_Delete(json);
}

START_TEST(dropout_of_a_is_one_mask_for_the_pass)
{
    int targets;
    double a, b, plain = row_loss(MOSLD, 1, &targets) / (lengths[1] - firsts[1]), again, other;
    with_dropout(MOSLD, "none", 0);
    with_dropout(MOSLD, "half", 0.5);
    twins("--init-adapter none", &a, &b);
    close_to(a, plain, 1e-5, "without dropout");
    twins("--init-adapter half", &a, &b);
    ck_assert_msg(fabs(a - plain) > 1e-4 * plain, "dropout does nothing: %.9g", a);
    close_to(a, b, 1e-6, "the same row in the same pass");
    twins("--init-adapter half", &again, &b);
    ck_assert_double_eq(a, again);
    twins("--init-adapter half --seed 43", &other, &b);
    ck_assert_double_ne(a, other);
}
END_TEST

START_TEST(lora_dropout_is_on_the_input)
{
    int targets;
    double a, b, plain = row_loss(LORA, 1, &targets) / (lengths[1] - firsts[1]), again, b_again;
    with_dropout(LORA, "half", 0.5);
    twins("--init-adapter half", &a, &b);
    ck_assert_msg(fabs(a - plain) > 1e-4 * plain && fabs(b - plain) > 1e-4 * plain, "dropout does nothing: %.9g", a);
    ck_assert_msg(fabs(a - b) > 1e-4 * a, "two rows have the same mask: %.9g and %.9g", a, b);
    twins("--init-adapter half", &again, &b_again);
    ck_assert_double_eq(a, again);
    ck_assert_double_eq(b, b_again);
    /* The options reach it too: from the start values, losses part as soon as B has moved. */
    static const char *const options[] = {"--method lora", "--method lora --lora-dropout 0.5",
                                          "--method lora --dropout 0.5"};
    double loss[3];
    for (int i = 0; i < 3; i++) {
        done(program(TRAIN "--task t=t.jsonl --out run --overwrite-output-dir --max-steps 4 --learning-rate 1e-2 %s",
                     options[i]));
        loss[i] = json_line_number("run/metrics.jsonl", 3, "loss");
    }
    ck_assert_double_ne(loss[0], loss[1]);
    ck_assert_double_eq(loss[1], loss[2]);
}
END_TEST

START_TEST(each_step_draws_its_own_mask)
{
    with_dropout(_i ? LORA : MOSLD, "half", 0.5);
    write_rows("one.jsonl", 2, 1);
    done(program(TRAIN "--task t=one.jsonl --init-adapter half --learning-rate 0 --max-steps 4 --out run"));
    for (int i = 0; i < 4; i++)
        for (int j = 0; j < i; j++)
            ck_assert_double_ne(json_line_number("run/metrics.jsonl", i, "loss"),
                                json_line_number("run/metrics.jsonl", j, "loss"));
}
END_TEST

/* ---- steps that overflow ---- */

/* The adapter of the vectors with other values in every A, and in every B. */
static void write_filled(const char *dir, float a, float b)
{
    char command[600], path[64];
    size_t size;
    snprintf(command, sizeof command, "cp -r '" LORA "' %s", dir);
    ck_assert_int_eq(system(command), 0);
    snprintf(path, sizeof path, "%s/adapter_model.safetensors", dir);
    struct safetensors *s;
    struct rt_error err;
    ck_assert_msg(safetensors_open(path, &s, &err) == RT_OK, "%s", err.text);
    char *data = read_bytes(path, &size);
    uint64_t header;
    memcpy(&header, data, 8);
    for (size_t i = 0; i < safetensors_count(s); i++) {
        const struct safetensor *t = safetensors_at(s, i), *first = safetensors_at(s, 0);
        const uint8_t *base = first->data;
        for (size_t j = 1; j < safetensors_count(s); j++)
            base = safetensors_at(s, j)->data < base ? safetensors_at(s, j)->data : base;
        for (uint64_t e = 0; e < t->elements; e++)
            memcpy(data + 8 + header + (t->data - base) + 4 * e, strstr(t->name, "lora_B") ? &b : &a, 4);
    }
    safetensors_close(&s);
    write_bytes(path, data, size);
    free(data);
}

START_TEST(a_step_that_is_not_finite_is_skipped_and_counted)
{
    /* While B is zero an A of any size adds nothing, and the first step is a good one. It makes B large too, and from then on the
     * scores of attention, with both in them twice, are beyond f32. Unclipped, or the step would be lost in Adam's epsilon. */
    write_filled("large", 1e18f, 0);
    cJSON *json = program_json(program(TRAIN "--task t=t.jsonl --out run --init-adapter large --learning-rate 100 "
                                             "--max-grad-norm 0 --max-steps 5 --warmup-steps 0 --json"));
    ck_assert_double_eq(cJSON_GetObjectItem(json, "skipped_steps")->valuedouble, 4);
    ck_assert(cJSON_IsNull(cJSON_GetObjectItem(json, "loss")));
    cJSON_Delete(json);
    ck_assert_ptr_nonnull(strstr(program_err(), "4 of 5 steps were skipped"));
    for (int i = 0; i < 5; i++) {
        cJSON *line = json_line("run/metrics.jsonl", i);
        ck_assert_int_eq(cJSON_IsTrue(cJSON_GetObjectItem(line, "skipped")), i > 0);
        ck_assert_int_eq(cJSON_IsNull(cJSON_GetObjectItem(line, "loss")), i > 0);
        /* The schedule stands where it was. */
        ck_assert_double_eq_tol(cJSON_GetObjectItem(line, "learning_rate")->valuedouble, i ? 80 : 100, 1e-10);
        cJSON_Delete(line);
    }
}
END_TEST

START_TEST(skipped_steps_change_nothing_and_are_counted_over_resumes)
{
    write_filled("huge", 0.1f, 3e38f); /* B at the end of f32's range: finite, but no product with it is */
    done(program(TRAIN "--task t=t.jsonl --out run --init-adapter huge --max-steps 5 --save-steps 1 --warmup-steps 2"));
    ck_assert(files_differ("run/adapter_model.safetensors", "huge/adapter_model.safetensors") == 0);
    ck_assert(same_bytes("run/checkpoint-000001/optimizer.safetensors", "run/checkpoint-000005/optimizer.safetensors"));
    ck_assert_double_eq(json_line_number("run/metrics.jsonl", 4, "learning_rate"),
                        0); /* still the first step of the warm-up */
    cJSON *json = program_json(program(
        TRAIN "--task t=t.jsonl --out run --init-adapter huge --max-steps 5 --save-steps 1 --warmup-steps 2 --json "
              "--resume-from-checkpoint run/checkpoint-000003"));
    ck_assert_double_eq(cJSON_GetObjectItem(json, "skipped_steps")->valuedouble, 5);
    cJSON_Delete(json);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("train_steps");
    TCase *tc = tcase_create("steps");
    tcase_add_checked_fixture(tc, make, program_folder_remove);
    tcase_set_timeout(tc, 120);
    tcase_add_test(tc, schedules_are_those_of_transformers);
    tcase_add_test(tc, the_program_follows_the_schedule);
    tcase_add_test(tc, rows_of_a_batch_do_not_see_each_other);
    tcase_add_test(tc, accumulation_is_a_larger_batch);
    tcase_add_test(tc, every_row_is_trained_the_first_too);
    tcase_add_test(tc, evaluation_is_the_mean_over_targets);
    tcase_add_loop_test(tc, no_two_modules_start_alike, 0, 2);
    tcase_add_test(tc, module_names_match_whole_names);
    tcase_add_test(tc, dropout_of_a_is_one_mask_for_the_pass);
    tcase_add_test(tc, lora_dropout_is_on_the_input);
    tcase_add_loop_test(tc, each_step_draws_its_own_mask, 0, 2);
    tcase_add_test(tc, a_step_that_is_not_finite_is_skipped_and_counted);
    tcase_add_test(tc, skipped_steps_change_nothing_and_are_counted_over_resumes);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
