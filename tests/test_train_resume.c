/* tests/test_train_resume.c - runs that are killed, interrupted, refused or find bad checkpoints: nothing is lost, and
 * the bits stay. */
#include "tests/support/program.h"
#include "tests/support/skip.h"

#include <check.h>
#include <dirent.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define ADAPTER "adapter_model.safetensors"
/* A small mixture with dropout, so that the random bits matter, from rows drawn at random. */
#define OPTIONS \
    "--model " STORIES \
    " --device host --task t=t.jsonl --eval-task v=v.jsonl --per-device-train-batch-size 2 --num-experts 3 --r 4 " \
    "--learning-rate 1e-2 --warmup-steps 3"

static void make(void)
{
    program_folder_make();
    FILE *f = fopen("t.jsonl", "w");
    for (int i = 0; i < 12; i++)
        fprintf(f, "{\"prompt\": \"Day %d. \", \"completion\": \"Tom saw %d birds and was glad.\"}\n", i, i * 7 % 5);
    fclose(f);
    write_text("v.jsonl", "{\"prompt\": \"Day 3. \", \"completion\": \"Tom saw a red bird.\"}\n{\"text\": \"One day, "
                          "Lily went to the park.\"}\n");
}

static int newest_checkpoint(const char *run)
{
    DIR *dir = opendir(run);
    struct dirent *entry;
    int newest = -1, step;
    while (dir && (entry = readdir(dir)))
        if (sscanf(entry->d_name, "checkpoint-%d", &step) == 1 && step > newest)
            newest = step;
    if (dir)
        closedir(dir);
    return newest;
}

static int count_checkpoints(const char *run)
{
    DIR *dir = opendir(run);
    struct dirent *entry;
    int n = 0;
    ck_assert_ptr_nonnull(dir);
    while ((entry = readdir(dir)))
        n += strncmp(entry->d_name, "checkpoint-", 11) == 0;
    closedir(dir);
    return n;
}

static bool has_hidden_remnant(const char *run)
{
    DIR *dir = opendir(run);
    struct dirent *entry;
    bool found = false;
    ck_assert_ptr_nonnull(dir);
    while ((entry = readdir(dir)))
        found = found || strncmp(entry->d_name, ".checkpoint-", 12) == 0 || strstr(entry->d_name, ".tmp") != NULL;
    closedir(dir);
    return found;
}

/* Both files have the same steps, evaluations included, each once and in order, with the same losses; only times
 * differ. */
static void same_metrics(const char *a, const char *b)
{
    int i = 0;
    for (;; i++) {
        cJSON *x = json_line(a, i), *y = json_line(b, i);
        ck_assert_msg(!x == !y, "line %d stands in one of %s and %s alone", i + 1, a, b);
        if (!x)
            break;
        static const char *const keys[] = {"seconds", "tokens_per_second"};
        for (int k = 0; k < 2; k++) {
            cJSON_DeleteItemFromObject(x, keys[k]);
            cJSON_DeleteItemFromObject(y, keys[k]);
        }
        char *p = cJSON_PrintUnformatted(x), *q = cJSON_PrintUnformatted(y);
        ck_assert_str_eq(p, q);
        free(p);
        free(q);
        cJSON_Delete(x);
        cJSON_Delete(y);
    }
    ck_assert_int_gt(i, 0);
}

static bool running(pid_t pid)
{
    siginfo_t info = {0};
    ck_assert_int_eq(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT), 0);
    return info.si_pid == 0;
}

/* ---- killed ---- */

START_TEST(killed_at_any_moment_it_goes_on_to_the_same_bits)
{
    unsigned seed = 20 + (unsigned)_i;
    int kills = 0;
    const char *extra =
        _i ? "--save-total-limit 2 --load-best-model-at-end --eval-steps 3" : "--gradient-accumulation-steps 2";
    ck_assert_int_eq(program("train " OPTIONS " %s --max-steps 40 --out whole", extra), 0);
    for (;;) {
        int begin = newest_checkpoint("run"), wanted = begin + 1 + rand_r(&seed) % 6;
        pid_t pid = program_start("train " OPTIONS " %s --max-steps 40 --save-steps 1 --out run %s", extra,
                                  begin > 0 ? "--resume-from-checkpoint last" : "--overwrite-output-dir");
        while (running(pid) && newest_checkpoint("run") < wanted)
            usleep(300);
        usleep(rand_r(&seed) % 12000);
        bool killed = running(pid) && kill(pid, SIGKILL) == 0;
        int status = program_wait(pid);
        if (!killed || status == 0) {
            ck_assert_msg(status == 0, "status %d: %s", status, program_err());
            break;
        }
        kills++;
    }
    ck_assert_msg(kills >= 4, "%d kills test little", kills);
    ck_assert(same_bytes("whole/" ADAPTER, "run/" ADAPTER));
    same_metrics("whole/metrics.jsonl", "run/metrics.jsonl");
    ck_assert(!has_hidden_remnant("run"));
    /* Going on with what is finished changes nothing. */
    ck_assert_int_eq(
        program("train " OPTIONS " %s --max-steps 40 --save-steps 1 --out run --resume-from-checkpoint last", extra),
        0);
    ck_assert(same_bytes("whole/" ADAPTER, "run/" ADAPTER));
    same_metrics("whole/metrics.jsonl", "run/metrics.jsonl");
}
END_TEST

/* ---- interrupted ---- */

/* Starts a run and interrupts it when it has logged a step. */
static void interrupt_run(const char *options)
{
    pid_t pid = program_start("train " OPTIONS " %s --out run", options);
    while (running(pid) &&
           (!path_exists("run/metrics.jsonl") || isnan(json_line_number("run/metrics.jsonl", 1, "step"))))
        usleep(500);
    kill(pid, SIGINT);
    program_failed_as(program_wait(pid), 130, "interrupted after step", "--resume-from-checkpoint last", NULL);
    ck_assert_int_gt(newest_checkpoint("run"), 0);
}

START_TEST(interrupted_it_leaves_a_checkpoint_and_goes_on)
{
    /* With an evaluation after each step, an interrupt always comes when one is due: the resumed run makes it. */
    static const char *const options[] = {"--max-steps 400", "--max-steps 120 --eval-steps 1 --load-best-model-at-end"};
    interrupt_run(options[_i]);
    ck_assert_int_eq(program("train " OPTIONS " %s --out run --resume-from-checkpoint last", options[_i]), 0);
    ck_assert_int_eq(program("train " OPTIONS " %s --out whole", options[_i]), 0);
    ck_assert(same_bytes("whole/" ADAPTER, "run/" ADAPTER));
    same_metrics("whole/metrics.jsonl", "run/metrics.jsonl");
}
END_TEST

START_TEST(terminated_is_the_same_as_interrupted)
{
    pid_t pid = program_start("train " OPTIONS " --max-steps 2000 --out run");
    while (running(pid) && !path_exists("run/metrics.jsonl"))
        usleep(500);
    kill(pid, SIGTERM);
    ck_assert_int_eq(program_wait(pid), 130);
    ck_assert_int_gt(newest_checkpoint("run"), 0);
}
END_TEST

/* ---- the folder ---- */

START_TEST(two_processes_in_one_folder)
{
    pid_t pid = program_start("train " OPTIONS " --max-steps 100000 --out run");
    while (running(pid) && !path_exists("run/metrics.jsonl"))
        usleep(500);
    /* Its output goes beside, so that the other's stays. */
    char line[1024];
    snprintf(line, sizeof line, "'%s' train " OPTIONS " --max-steps 5 --out run --overwrite-output-dir 2>second.err",
             MOSLD_PROGRAM);
    ck_assert_int_eq(system(line), 2 << 8);
    size_t size;
    char *text = read_bytes("second.err", &size);
    ck_assert_ptr_nonnull(strstr(text, "another mosld"));
    free(text);
    ck_assert(running(pid));
    kill(pid, SIGINT);
    ck_assert_int_eq(program_wait(pid), 130);
}
END_TEST

START_TEST(a_folder_with_a_run_is_kept)
{
    ck_assert_int_eq(program("train " OPTIONS " --max-steps 4 --save-steps 2 --out run"), 0);
    write_text("run/notes.txt", "mine");
    ck_assert_int_eq(system("cp -r run before"), 0);
    program_failed_as(program("train " OPTIONS " --max-steps 6 --out run"), 2, "run holds a run already",
                      "--overwrite-output-dir", NULL);
    ck_assert_int_eq(system("diff -r run before"), 0);
    /* A command that fails before its first step takes nothing away either. */
    program_failed_as(
        program("train " OPTIONS " --max-steps 6 --out run --overwrite-output-dir --init-adapter nowhere"), 3,
        "nowhere", NULL);
    program_failed_as(
        program("train " OPTIONS " --max-steps 6 --out run --overwrite-output-dir --dropout-mask t.jsonl"), 3,
        "t.jsonl", NULL);
    ck_assert_int_eq(system("diff -r run before"), 0);
    ck_assert_int_eq(program("train " OPTIONS " --max-steps 3 --save-steps 3 --out run --overwrite-output-dir"), 0);
    ck_assert_int_eq(newest_checkpoint("run"), 3);
    ck_assert_int_eq(count_checkpoints("run"), 1);
    ck_assert(path_exists("run/notes.txt"));
    ck_assert_int_eq((int)json_line_number("run/metrics.jsonl", 2, "step"), 3);
    /* The last line is the evaluation at the end. */
    ck_assert(!isnan(json_line_number("run/metrics.jsonl", 3, "eval_loss")) && !json_line("run/metrics.jsonl", 4));
}
END_TEST

START_TEST(resuming_elsewhere)
{
    ck_assert_int_eq(program("train " OPTIONS " --max-steps 6 --save-steps 3 --out whole"), 0);
    ck_assert_int_eq(
        program("train " OPTIONS " --max-steps 6 --out new --resume-from-checkpoint whole/checkpoint-000003"), 0);
    ck_assert(same_bytes("whole/" ADAPTER, "new/" ADAPTER));
    ck_assert_int_eq((int)json_line_number("new/metrics.jsonl", 0, "step"), 4);
    /* A third folder's run is not mixed with it. */
    program_failed_as(
        program("train " OPTIONS " --max-steps 6 --out new --resume-from-checkpoint whole/checkpoint-000003"), 2,
        "new holds a run", NULL);
    program_failed_as(program("train " OPTIONS " --max-steps 6 --out none --resume-from-checkpoint last"), 2,
                      "resume_from_checkpoint", "none", NULL);
    ck_assert(!path_exists("none"));
    program_failed_as(
        program("train " OPTIONS " --max-steps 6 --out whole --resume-from-checkpoint whole/checkpoint-000004"), 3,
        "checkpoint-000004", NULL);
    /* From an earlier checkpoint the later ones are made again. */
    ck_assert_int_eq(
        program("train " OPTIONS
                " --max-steps 6 --save-steps 3 --out whole --resume-from-checkpoint whole/checkpoint-000003"),
        0);
    same_metrics("whole/metrics.jsonl", "whole/metrics.jsonl");
    ck_assert_int_eq(newest_checkpoint("whole"), 6);
    ck_assert(same_bytes("whole/" ADAPTER, "new/" ADAPTER));
}
END_TEST

/* ---- bad checkpoints ---- */

START_TEST(damaged_checkpoints)
{
    static const char *const files[] = {"adapter_model.safetensors", "optimizer.safetensors", "trainer_state.json",
                                        "adapter_config.json"};
    ck_assert_int_eq(program("train " OPTIONS " --max-steps 4 --save-steps 2 --out run"), 0);
    for (int f = 0; f < 4; f++) {
        char path[128];
        size_t size;
        snprintf(path, sizeof path, "run/checkpoint-000004/%s", files[f]);
        char *data = read_bytes(path, &size);
        for (int way = 0; way < 4; way++) {
            if (way == 0)
                write_bytes(path, data, size / 2);
            else if (way == 1)
                write_bytes(path, data, 0);
            else if (way == 2)
                ck_assert_int_eq(unlink(path), 0);
            else { /* one bit, of a number */
                size_t at = f == 2 ? (size_t)(strstr(data, "\"optimizer_updates\":") + 21 - data) : size - 5;
                data[at] ^= 1;
                write_bytes(path, data, size);
                data[at] ^= 1;
            }
            program_failed_as(
                program("train " OPTIONS " --max-steps 4 --save-steps 2 --out run --resume-from-checkpoint last"), 3,
                "checkpoint-000004", files[f], NULL);
        }
        write_bytes(path, data, size);
        free(data);
    }
    ck_assert_int_eq(program("train " OPTIONS " --max-steps 4 --save-steps 2 --out run --resume-from-checkpoint last"),
                     0);
    ck_assert_int_eq(symlink("nothing", "run/checkpoint-000009"), 0);
    program_failed_as(program("train " OPTIONS " --max-steps 4 --out run --resume-from-checkpoint last"), 3,
                      "checkpoint-000009", NULL);
}
END_TEST

START_TEST(other_options_than_the_checkpoint)
{
    static const char *const changed[] = {"--learning-rate 2e-2",
                                          "--seed 7",
                                          "--lora-alpha 3",
                                          "--use-rslora",
                                          "--r 2",
                                          "--num-experts 4",
                                          "--top-k 1",
                                          "--method mosl",
                                          "--dropout 0.2",
                                          "--dropout-on input",
                                          "--target-modules q_proj",
                                          "--weight-decay 0.1",
                                          "--per-device-train-batch-size 3",
                                          "--max-steps 5",
                                          "--packing",
                                          "--lr-scheduler-type cosine",
                                          "--router-aux-loss-coef 0.02",
                                          "--train-sampling-strategy sequential",
                                          "--weights bf16",
                                          "--completion-only-loss false",
                                          "--max-length 9",
                                          "--task t=t.jsonl:2"};
    ck_assert_int_eq(program("train " OPTIONS " --max-steps 4 --save-steps 2 --out run"), 0);
    ck_assert_int_eq(system("cp -r run before"), 0);
    for (size_t i = 0; i < sizeof changed / sizeof *changed; i++) {
        bool task = strncmp(changed[i], "--task", 6) == 0;
        int status = program("train " OPTIONS " --max-steps 4 %s --out run --resume-from-checkpoint last",
                             task ? "--task u=v.jsonl" : changed[i]);
        ck_assert_msg(status == 2, "%s: status %d: %s", changed[i], status, program_err());
        ck_assert_ptr_nonnull(strstr(program_err(), "trainer_state.json belongs to a run with other options"));
    }
    /* Another model of the same shape, and other rows under the same name. */
    program_failed_as(
        program("train " OPTIONS " --max-steps 4 --model %s --out run --resume-from-checkpoint last", LLAMA2), 3,
        "tokenizer", NULL);
    write_text("t.jsonl", "{\"prompt\": \"Day 1. \", \"completion\": \"Tom saw nothing.\"}\n");
    program_failed_as(program("train " OPTIONS " --max-steps 4 --out run --resume-from-checkpoint last"), 2,
                      "other task data", NULL);
    ck_assert_int_eq(system("diff -r run before"), 0);
}
END_TEST

/* ---- nowhere to write ---- */

START_TEST(a_folder_that_cannot_be_written)
{
    write_text("file", "x");
    program_failed_as(program("train " OPTIONS " --max-steps 2 --out file"), 1, "file", NULL);
    program_failed_as(program("train " OPTIONS " --max-steps 2 --out file/run"), 1, "file", NULL);
    program_failed_as(program("train " OPTIONS " --max-steps 2 --out /proc/run"), 1, "/proc/run", NULL);
    size_t size;
    char *text = read_bytes("file", &size);
    ck_assert_str_eq(text, "x");
    free(text);
}
END_TEST

START_TEST(a_disk_that_is_full)
{
    ck_assert_int_eq(mkdir("disk", 0777), 0);
    if (mount("none", "disk", "tmpfs", 0, "size=400k") != 0) {
        test_skipped("no small file system can be mounted here");
        return;
    }
    /* Each checkpoint takes about 150 KiB. What fits is whole, what does not leaves nothing behind. */
    int status = program("train " OPTIONS " --max-steps 12 --save-steps 1 --out disk/run");
    int newest = newest_checkpoint("disk/run");
    bool remnant = has_hidden_remnant("disk/run"), adapter = path_exists("disk/run/" ADAPTER);
    int resumed = 0;
    if (newest > 0) {
        ck_assert_int_eq(system("cp -r disk/run run"), 0);
        char *error = strdup(program_err());
        resumed = program("train " OPTIONS " --max-steps 12 --out run --resume-from-checkpoint last");
        ck_assert_msg(strstr(error, "No space left") != NULL, "%s", error);
        free(error);
    }
    ck_assert_int_eq(umount("disk"), 0);
    ck_assert_int_eq(status, 1);
    ck_assert_int_gt(newest, 0);
    ck_assert(!remnant && !adapter);
    ck_assert_msg(resumed == 0, "%s", program_err());
}
END_TEST

/* ---- which are kept ---- */

START_TEST(save_total_limit_keeps_the_newest)
{
    ck_assert_int_eq(program("train " OPTIONS " --max-steps 7 --save-steps 2 --save-total-limit 2 --out run"), 0);
    ck_assert_int_eq(count_checkpoints("run"), 2);
    ck_assert(path_exists("run/checkpoint-000006") && path_exists("run/checkpoint-000007"));
    ck_assert_int_eq(program("train " OPTIONS " --max-steps 7 --out none"), 0);
    ck_assert_int_eq(count_checkpoints("none"), 0);
}
END_TEST

START_TEST(the_best_is_what_is_left)
{
    /* The model knows this sentence well, and a large learning rate on other rows makes it worse at it: the first
     * evaluation is the best. */
    write_text("v.jsonl", "{\"text\": \"Once upon a time, there was a little girl named Lily.\"}\n");
    ck_assert_int_eq(program("train " OPTIONS " --learning-rate 3e-2 --lr-scheduler-type constant_with_warmup "
                                              "--max-steps 6 --eval-steps 2 --save-steps 1 --save-total-limit 1 "
                             "--load-best-model-at-end --out run"),
                     0);
    double best = INFINITY, loss;
    int best_step = 0, evaluations = 0;
    for (int i = 0; !isnan(json_line_number("run/metrics.jsonl", i, "step")); i++) {
        loss = json_line_number("run/metrics.jsonl", i, "eval_loss");
        evaluations += !isnan(loss);
        if (loss < best) {
            best = loss;
            best_step = (int)json_line_number("run/metrics.jsonl", i, "step");
        }
    }
    ck_assert_int_eq(evaluations, 3);
    ck_assert_msg(best_step && best_step < 6, "the best step is %d, which tests nothing", best_step);
    char path[128];
    snprintf(path, sizeof path, "run/checkpoint-%06d/" ADAPTER, best_step);
    ck_assert(same_bytes(path, "run/" ADAPTER));
    ck_assert(!same_bytes("run/checkpoint-000006/" ADAPTER, "run/" ADAPTER));
    ck_assert_int_eq(count_checkpoints("run"), 2); /* the newest, and the best beside it */
    program_failed_as(program("train --model " STORIES " --task t=t.jsonl --out x --load-best-model-at-end"), 2,
                      "load_best_model_at_end", NULL);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("train_resume");
    TCase *tc = tcase_create("runs");
    tcase_add_checked_fixture(tc, make, program_folder_remove);
    tcase_set_timeout(tc, 240);
    tcase_add_loop_test(tc, killed_at_any_moment_it_goes_on_to_the_same_bits, 0, 2);
    tcase_add_loop_test(tc, interrupted_it_leaves_a_checkpoint_and_goes_on, 0, 2);
    tcase_add_test(tc, terminated_is_the_same_as_interrupted);
    tcase_add_test(tc, two_processes_in_one_folder);
    tcase_add_test(tc, a_folder_with_a_run_is_kept);
    tcase_add_test(tc, resuming_elsewhere);
    tcase_add_test(tc, damaged_checkpoints);
    tcase_add_test(tc, other_options_than_the_checkpoint);
    tcase_add_test(tc, a_folder_that_cannot_be_written);
    tcase_add_test(tc, a_disk_that_is_full);
    tcase_add_test(tc, save_total_limit_keeps_the_newest);
    tcase_add_test(tc, the_best_is_what_is_left);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
