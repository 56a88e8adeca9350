/* tests/test_cli_commands.c - every command as it is typed: help, wrong options, wrong files, devices, and what goes to
 * which output. */
#include "tests/support/program.h"
#include "tests/support/skip.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const commands[] = {"devices",    "train",  "eval",    "generate",
                                       "perplexity", "logits", "bench", "inspect", "tokenize",
                                       "chat", "export", "pull", "serve"};
#define N_COMMANDS ((int)(sizeof commands / sizeof *commands))

/* A whole command of each kind that runs a model, but for the model. */
static const char *const whole[] = {"train --task t=t.jsonl --out run --max-steps 1", "eval --task t=t.jsonl",
                                    "generate --prompt Tom --max-new-tokens 3", "perplexity --text t.jsonl",
                                    "chat --prompt Tom --chat-template llama2 --max-new-tokens 3",
                                    "logits --tokens 1,2 --out out.safetensors"}; /* last: its result is a file */
#define N_WHOLE ((int)(sizeof whole / sizeof *whole))

static void make(void)
{
    program_folder_make();
    write_text("t.jsonl", "{\"text\": \"Tom saw a big dog.\"}\n");
}

static void lines_fit(const char *text, size_t most)
{
    for (const char *line = text; *line; line += strcspn(line, "\n") + 1) {
        ck_assert_msg(strcspn(line, "\n") <= most, "more than %zu columns: %.*s", most, (int)strcspn(line, "\n"), line);
        if (!line[strcspn(line, "\n")])
            break;
    }
}

/* ---- help ---- */

START_TEST(help_fits_a_terminal)
{
    for (int c = -1; c < N_COMMANDS; c++)
        for (int brief = 0; brief < 2; brief++) {
            ck_assert_int_eq(program("%s %s", c < 0 ? "" : commands[c], brief ? "-h" : "--help"), 0);
            ck_assert_str_eq(program_err(), "");
            ck_assert_ptr_nonnull(strstr(program_out(), "usage: mosld"));
            lines_fit(program_out(), 80);
            ck_assert_msg(strlen(program_out()) > 60 && program_out()[strlen(program_out()) - 1] == '\n', "%s",
                          program_out());
            for (int i = 0; c < 0 && i < N_COMMANDS; i++)
                ck_assert_ptr_nonnull(strstr(program_out(), commands[i]));
        }
    ck_assert_int_eq(program("--version"), 0);
    ck_assert_str_eq(program_out(), "mosld " MOSLD_VERSION "\n");
    program_failed_as(program("%s", ""), 2, "usage: mosld", NULL);
    program_failed_as(program("trian"), 2, "trian", "--help", NULL);
    /* Asked for, it comes before anything that is missing or wrong. */
    ck_assert_int_eq(program("train --model nowhere --help"), 0);
}
END_TEST

/* ---- options ---- */

START_TEST(wrong_options)
{
    static const struct {
        const char *line, *want;
    } bad[] = {
        {"train --learnin-rate 1", "--learning-rate"},
        {"train --nonsense", "--nonsense"},
        {"eval --tsk x", "--task"},
        {"generate -x", "-x"},
        {"train stray", "stray"},
        {"train --model", "--model"},
        {"train --model m --task t=t", "--out"},
        {"train --model m --out o", "--task"},
        {"train --task t=t --out o", "--model"},
        {"eval --model m", "--task"},
        {"eval --task t=t", "--model"},
        {"generate --prompt x", "--model"},
        {"perplexity --model m", "--text"},
        {"perplexity --text t", "--model"},
        {"logits --model m --tokens 1", "--out"},
        {"logits --out o", "--model"},
        {"tokenize --text x", "--model"},
        {"inspect", "PATH"},
        {"devices --nonsense", "--nonsense"},
        {"devices stray", "stray"},
        {"tokenize --nonsense", "--nonsense"},
        {"inspect a b", "b"},
        {"train --r 0", "--r"},
        {"train --r 257", "--r"},
        {"train --r eight", "--r"},
        {"train --r 8.5", "--r"},
        {"train --r ''", "--r"},
        {"train --learning-rate fast", "--learning-rate"},
        {"train --learning-rate -1", "--learning-rate"},
        {"train --learning-rate nan", "--learning-rate"},
        {"train --learning-rate inf", "--learning-rate"},
        {"train --learning-rate 1e400", "--learning-rate"},
        {"train --method molora", "--method"},
        {"train --lr-scheduler-type polynomial", "--lr-scheduler-type"},
        {"train --num-experts 0", "--num-experts"},
        {"train --num-experts 2,x", "--num-experts"},
        {"train --num-experts ,", "--num-experts"},
        {"train --seed -1", "--seed"},
        {"train --seed 1e30", "--seed"},
        {"train --packing=maybe", "--packing"},
        {"train --max-length 1", "--max-length"},
        {"train --dropout 1", "--dropout"},
        {"train --config a --config b", "--config"},
        {"train --no-model", "--no-model"},
        {"train --threads 100000", "--threads"},
        {"train --weights q4", "--weights"},
        {"generate --temperature -1", "--temperature"},
        {"generate --top-k -1", "--top-k"},
        {"generate --max-new-tokens 0", "--max-new-tokens"},
        {"eval --limit -5", "--limit"},
        {"eval --choice-format words", "--choice-format"},
        {"perplexity --context 1", "--context"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        int status = program("%s", bad[i].line);
        ck_assert_msg(status == 2 && strstr(program_err(), bad[i].want), "%s: status %d: %s", bad[i].line, status,
                      program_err());
        ck_assert_str_eq(program_out(), "");
    }
}
END_TEST

START_TEST(options_that_do_not_go_together)
{
#define ON "--model " STORIES " --device host "
    static const struct {
        const char *line, *want;
    } bad[] = {
        {"generate " ON "--prompt x --top-p 0", "top_p"},
        {"generate " ON "--prompt x --min-p 1", "min_p"},
        {"generate " ON "--prompt x --repetition-penalty 0", "repetition_penalty"},
        {"logits " ON "--out o", "--tokens"},
        {"logits " ON "--out o --tokens 1 --text x", "--tokens"},
        {"logits " ON "--out o --tokens x", "--tokens"},
        {"logits " ON "--out o --tokens ''", "--tokens"},
        {"logits " ON "--out o --tokens -1", "--tokens"},
        {"logits " ON "--out o --tokens 512", "512"},
        {"logits " ON "--out o --tokens 99999999999", "--tokens"},
        {"eval " ON "--task t", "'t'"},
        {"eval " ON "--task =t.jsonl", "task"},
        {"eval " ON "--task t=", "task"},
        {"eval " ON "--task t=t.jsonl --max-length 513", "max_length"},
        {"train " ON "--task t=t.jsonl --task t=t.jsonl --out run", "t"},
        {"train " ON "--task t=t.jsonl --out run --method lora --num-experts 4", "num_experts"},
        {"train " ON "--task t=t.jsonl --out run --top-k 9", "top_k"},
        {"train " ON "--task t=t.jsonl --out run --method mosl --dropout 0.1", "dropout"},
        {"train " ON "--task t=t.jsonl --out run --gradient-checkpointing=maybe", "gradient-checkpointing"},
        {"train " ON "--task t=t.jsonl --out run --num-train-epochs 1e-6", "num_train_epochs"},
        {"train " ON "--task t=t.jsonl --out run --load-best-model-at-end", "load_best_model_at_end"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        int status = program("%s", bad[i].line);
        ck_assert_msg(status == 2 && strstr(program_err(), bad[i].want), "%s: status %d: %s", bad[i].line, status,
                      program_err());
    }
    ck_assert(!path_exists("run"));
    ck_assert(!path_exists("o"));
}
END_TEST

/* ---- files ---- */

START_TEST(models_that_are_missing_or_damaged)
{
    size_t size;
    char *data = read_bytes(STORIES, &size);
    write_bytes("cut.gguf", data, size / 2);
    write_bytes("header.gguf", data, 24);
    free(data);
    write_text("empty.gguf", "%s", "");
    write_text("text.gguf", "this is no model");
    ck_assert_int_eq(system("mkdir empty broken && cp -r " LLAMA2 " cut && cp " LLAMA2
                            "/model.safetensors broken && echo '{\"a\": ' > broken/config.json && "
                            "truncate -s 5000 cut/model.safetensors"),
                     0);
    static const char *const models[] = {"nowhere", "cut.gguf", "header.gguf", "empty.gguf", "text.gguf",
                                         "empty",   "broken",   "cut",         "t.jsonl",    "/dev/null"};
    for (int c = 0; c < N_WHOLE; c++)
        for (size_t m = 0; m < sizeof models / sizeof *models; m++) {
            int status = program("%s --device host --model %s", whole[c], models[m]);
            ck_assert_msg(status == 3 && strstr(program_err(), models[m]), "%s --model %s: status %d: %s", whole[c],
                          models[m], status, program_err());
        }
    for (size_t m = 0; m < sizeof models / sizeof *models; m++) {
        int status = program("inspect %s", models[m]);
        /* What can be shown is shown, with the reason why it does not run. */
        bool told = status == 3 ? strstr(program_err(), models[m]) != NULL
                                : status == 0 && strstr(program_out(), "reason ") && strstr(program_out(), models[m]);
        ck_assert_msg(told, "inspect %s: status %d: %s%s", models[m], status, program_err(), program_out());
    }
    ck_assert(!path_exists("run") && !path_exists("out.safetensors"));
    for (int c = 0; c < N_WHOLE; c++)
        program_failed_as(program("%s --device host --model ''", whole[c]), 2, "--model", NULL);
}
END_TEST

/* A folder without a tokenizer serves tasks of ids, and says what is missing for text. */
START_TEST(a_model_without_a_tokenizer)
{
    write_text("ids.jsonl", "{\"input_ids\": [1, 2, 3, 4]}\n");
    cJSON_Delete(program_json(program("eval --device host --model " LLAMA2 " --task t=ids.jsonl --json")));
    for (int c = 0; c < N_WHOLE - 1; c++)
        program_failed_as(program("%s --device host --model " LLAMA2, whole[c]), 3, "tokenizer", NULL);
}
END_TEST

/* ---- devices ---- */

START_TEST(devices_by_name)
{
    for (int c = 0; c < N_WHOLE; c++) {
        program_failed_as(program("%s --model " STORIES " --device zebra", whole[c]), 2, "--device zebra", "host (",
                          NULL);
        program_failed_as(program("%s --model " STORIES " --device 77", whole[c]), 2, "77", "host (", NULL);
    }
    cJSON *json = program_json(program("devices --json")), *device;
    bool host = false;
    cJSON_ArrayForEach(device, cJSON_GetObjectItem(json, "devices"))
        host = host || strcmp(cJSON_GetObjectItem(device, "kind")->valuestring, "host") == 0;
    ck_assert(host);
    cJSON_Delete(json);
    program_failed_as(program("generate --prompt Tom --model " STORIES " --device 'host (' --memory-limit 0.01"), 4,
                      "MiB", NULL);
}
END_TEST

/* ---- outputs ---- */

START_TEST(results_and_words_go_apart)
{
    for (int json = 0; json < 2; json++)
        for (int c = 0; c < N_WHOLE; c++) {
            bool is_logits = c == N_WHOLE - 1, is_train = c == 0;
            if (is_logits && json)
                continue; /* its result is a file */
            if (is_train)
                ck_assert_int_eq(system("rm -rf run"), 0);
            int status = program("%s --model " STORIES " --device host %s", whole[c], json ? "--json" : "");
            ck_assert_msg(status == 0, "%s: %s", whole[c], program_err());
            ck_assert(!strstr(program_out(), "\r") && !strstr(program_err(), "\r") && !strstr(program_err(), "\033"));
            if (json)
                cJSON_Delete(program_json(status));
            else if (is_logits || is_train)
                ck_assert_str_eq(program_out(), "");
            else
                ck_assert_ptr_nonnull(strchr(program_out(), '\n'));
        }
    static const char *const more[] = {"inspect " STORIES, "inspect run", "tokenize --text Tom --model " STORIES,
                                       "tokenize --decode 1,403 --model " STORIES, "devices"};
    for (size_t i = 0; i < sizeof more / sizeof *more; i++) {
        cJSON_Delete(program_json(program("%s --json", more[i])));
        ck_assert_str_eq(program_err(), "");
    }
}
END_TEST

/* Tables and headers too fit 80 columns where the names that they show are short. */
START_TEST(tables_fit_a_terminal)
{
    ck_assert_int_eq(system("cp " STORIES " m.gguf"), 0);
    write_text("q.jsonl", "{\"question\": \"What is red?\", \"choices\": [\"a ball\", \"the sea\"], \"answer\": 0}\n");
    ck_assert_int_eq(program("train --model m.gguf --device host --task birds=t.jsonl --task arc-challenge=q.jsonl "
                             "--eval-task v=q.jsonl --out run "
                             "--target-modules all-linear --max-steps 2"),
                     0);
    for (const char *line = strstr(program_err(), "  adapter"); line && *line && strncmp(line, "The adapter", 11) != 0;
         line = strchr(line, '\n') + 1)
        ck_assert_msg(strcspn(line, "\n") <= 80, "%.*s", (int)strcspn(line, "\n"), line);
    ck_assert_int_eq(
        program(
            "eval --model m.gguf --device host --task birds=t.jsonl --task arc-challenge=q.jsonl --out before.json"),
        0);
    lines_fit(program_out(), 80);
    ck_assert_int_eq(program("eval --model m.gguf --device host --task birds=t.jsonl --task arc-challenge=q.jsonl "
                             "--adapter run --against before.json"),
                     0);
    lines_fit(program_out(), 80);
}
END_TEST

/* On a terminal of 80 columns: script(1) makes one. Nothing that is written over may be wider than it is. */
START_TEST(the_progress_line_fits)
{
    if (system("script -qec true /dev/null >/dev/null 2>&1") != 0) { /* not there, or no terminals to be had */
        test_skipped("script(1) cannot make a terminal here");
        return;
    }
    char line[2048];
    snprintf(line, sizeof line,
             "script -qec \"stty cols 80; '%s' train --model " STORIES " --device host --task t=t.jsonl --eval-task "
             "a_name_that_is_rather_long_for_a_task_of_a_test_but_may_be_given_all_the_same=t.jsonl --out run "
             "--max-steps 40 "
             "--eval-steps 10\" screen >/dev/null 2>&1 </dev/null",
             MOSLD_PROGRAM);
    ck_assert_int_eq(system(line), 0);
    size_t size;
    char *text = read_bytes("screen", &size);
    int redrawn = 0;
    for (char *part = text; (part = strchr(part, '\r')); part++) {
        size_t width = strcspn(part + 1, "\r\n\033");
        if (part[1] == '\n' || width == 0)
            continue;
        redrawn++;
        ck_assert_msg(width <= 79, "%zu columns: %.*s", width, (int)width, part + 1);
    }
    ck_assert_int_gt(redrawn, 20);
    free(text);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("cli_commands");
    TCase *tc = tcase_create("commands");
    tcase_add_checked_fixture(tc, make, program_folder_remove);
    tcase_set_timeout(tc, 120);
    tcase_add_test(tc, help_fits_a_terminal);
    tcase_add_test(tc, wrong_options);
    tcase_add_test(tc, options_that_do_not_go_together);
    tcase_add_test(tc, models_that_are_missing_or_damaged);
    tcase_add_test(tc, a_model_without_a_tokenizer);
    tcase_add_test(tc, devices_by_name);
    tcase_add_test(tc, results_and_words_go_apart);
    tcase_add_test(tc, tables_fit_a_terminal);
    tcase_add_test(tc, the_progress_line_fits);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
