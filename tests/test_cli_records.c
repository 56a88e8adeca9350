/* tests/test_cli_records.c - task files that are good in odd ways, and bad ones, as train and eval meet them. */
#include "tests/support/program.h"

#include <check.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define ON    "--model " STORIES " --device host "
#define TRAIN "train " ON "--out run --overwrite-output-dir --max-steps 2 "

static void done(int status) { ck_assert_msg(status == 0, "status %d: %s", status, program_err()); }

/* Rows and loss of a file as eval has them. */
static double loss_of_file(const char *file, int rows)
{
    cJSON *json = program_json(program("eval " ON "--task t=%s --json", file)),
          *task = cJSON_GetArrayItem(cJSON_GetObjectItem(json, "tasks"), 0);
    double loss = cJSON_GetObjectItem(task, "loss")->valuedouble;
    ck_assert_int_eq(cJSON_GetObjectItem(task, "rows")->valueint, rows);
    cJSON_Delete(json);
    return loss;
}

/* ---- odd, and fine ---- */

START_TEST(the_same_rows_in_every_dress)
{
#define TOM  "{\"text\": \"Tom saw a dog.\"}"
#define LILY "{\"prompt\": \"Lily\", \"completion\": \" ran.\"}"
    static const char plain[] = TOM "\n" LILY "\n";
    static const char *const dresses[] = {
        ("\xef\xbb\xbf" TOM "\n" LILY "\n"),      /* a byte order mark */
        (TOM "\r\n" LILY "\r\n"),                 /* CRLF */
        ("\n\n" TOM "\n   \n\t\n" LILY "\n\n"),   /* blank lines */
        (TOM "\n" LILY),                          /* no last newline */
        ("[" TOM ", " LILY "]"),                  /* one array */
        ("{\"text\": \"\\u0054om saw a dog.\", \"id\": 7, \"meta\": {\"a\": [1]}}\n" LILY "\n"), /* more keys */
    };
    write_text("plain.jsonl", "%s", plain);
    double want = loss_of_file("plain.jsonl", 2);
    for (size_t i = 0; i < sizeof dresses / sizeof *dresses; i++) {
        write_text("t.jsonl", "%s", dresses[i]);
        ck_assert_double_eq(loss_of_file("t.jsonl", 2), want);
        done(program(TRAIN "--task t=t.jsonl"));
    }
}
END_TEST

START_TEST(duplicates_few_rows_and_large_batches)
{
    write_text("t.jsonl", "{\"text\": \"Tom saw a dog.\"}\n{\"text\": \"Tom saw a dog.\"}\n");
    loss_of_file("t.jsonl", 2);
    done(program(TRAIN "--task t=t.jsonl --per-device-train-batch-size 64 --gradient-accumulation-steps 8"));
    ck_assert(isfinite(json_line_number("run/metrics.jsonl", 1, "loss")));
}
END_TEST

/* Rows longer than the context are cut and counted; where nothing is left to learn, they are left out and counted. */
START_TEST(long_rows_are_cut_and_told)
{
    FILE *f = fopen("t.jsonl", "w");
    for (int row = 0; row < 3; row++) {
        fprintf(f, "{\"prompt\": \"");
        for (int i = 0; i < (row == 2 ? 400 : 1); i++)
            fprintf(f, "Tom saw a dog. ");
        fprintf(f, "\", \"completion\": \"");
        for (int i = 0; i < (row == 1 ? 400 : 1); i++)
            fprintf(f, "Lily ran to the park. ");
        fprintf(f, "\"}\n");
    }
    fclose(f);
    done(program(TRAIN "--task t=t.jsonl --max-length 64"));
    ck_assert_msg(strstr(program_err(), "t: ") && strstr(program_err(), "cut to 64 tokens"), "%s", program_err());
    ck_assert(isfinite(json_line_number("run/metrics.jsonl", 1, "loss")));
    done(program("eval " ON "--task t=t.jsonl"));
    ck_assert_msg(strstr(program_err(), "512 tokens"), "%s", program_err());
}
END_TEST

START_TEST(a_batch_whose_tokens_are_all_masked)
{
    write_text("t.jsonl", "{\"input_ids\": [1, 5, 9], \"labels\": [-100, -100, -100]}\n{\"input_ids\": [1, 5, 9]}\n");
    done(program(TRAIN "--task t=t.jsonl --per-device-train-batch-size 1 --train-sampling-strategy sequential"));
    ck_assert(isfinite(json_line_number("run/metrics.jsonl", 0, "loss")) &&
              isfinite(json_line_number("run/metrics.jsonl", 1, "loss")));
    write_text("t.jsonl", "{\"input_ids\": [1, 5, 9], \"labels\": [-100, -100, -100]}\n");
    program_failed_as(program(TRAIN "--task t=t.jsonl"), 3, "t.jsonl", NULL);
}
END_TEST

/* The rows are read before the run begins: what happens to the file then changes nothing. */
START_TEST(a_file_that_is_changed_during_the_run)
{
    static const char rows[] = "{\"text\": \"Tom saw a dog.\"}\n{\"text\": \"Lily ran to the park.\"}\n{\"text\": "
                               "\"One day, it was sunny.\"}\n";
    write_text("t.jsonl", "%s", rows);
    done(program("train " ON "--task t=t.jsonl --out whole --max-steps 300 --per-device-train-batch-size 1"));
    pid_t pid = program_start("train " ON "--task t=t.jsonl --out run --max-steps 300 --per-device-train-batch-size 1");
    while (!path_exists("run/metrics.jsonl"))
        usleep(500);
    ck_assert_int_eq(truncate("t.jsonl", 3), 0);
    done(program_wait(pid));
    ck_assert(same_bytes("whole/adapter_model.safetensors", "run/adapter_model.safetensors"));
}
END_TEST

/* ---- bad ---- */

START_TEST(bad_rows_are_named_by_file_and_line)
{
    static const struct {
        const char *row, *want;
    } bad[] = {
        {"{\"text\": \"a\"", "line 2"},
        {"{\"text\": \"a\"} x", "line 2"},
        {"nonsense", "line 2"},
        {"{}", "line 2"},
        {"[]", "line 2"},
        {"7", "line 2"},
        {"{'text': 'a'}", "line 2"},
        {"{\"text\": 7}", "text"},
        {"{\"text\": [\"a\"]}", "text"},
        {"{\"prompt\": \"a\"}", "completion"},
        {"{\"prompt\": \"a\", \"completion\": 7}", "completion"},
        {"{\"instruction\": \"a\"}", "output"},
        {"{\"instruction\": 1, \"output\": \"a\"}", "instruction"},
        {"{\"messages\": []}", "messages"},
        {"{\"messages\": {}}", "messages"},
        {"{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}]}", "assistant"},
        {"{\"messages\": [{\"role\": \"wizard\", \"content\": \"a\"}]}", "wizard"},
        {"{\"messages\": [{\"role\": \"user\"}]}", "content"},
        {"{\"messages\": [{\"role\": \"user\", \"content\": null}, {\"role\": \"assistant\", \"content\": \"a\"}]}",
         "content"},
        {"{\"messages\": [\"hello\"]}", "message 1"},
        {"{\"messages\": [{\"role\": \"tool\", \"content\": \"a\"}]}", "tool"},
        {"{\"messages\": [{\"role\": \"user\", \"content\": [{\"type\": \"text\"}]}]}", "content"},
        {"{\"conversations\": [{\"from\": \"human\"}]}", "value"},
        {"{\"conversations\": [{\"from\": \"alien\", \"value\": \"a\"}]}", "alien"},
        {"{\"question\": \"a\", \"choices\": [], \"answer\": 0}", "choices"},
        {"{\"question\": \"a\", \"choices\": [\"b\"], \"answer\": 0}", "choices"},
        {"{\"question\": \"a\", \"choices\": [\"b\", \"\"], \"answer\": 0}", "choice"},
        {"{\"question\": \"a\", \"choices\": [\"b\", \"c\"]}", "answer"},
        {"{\"question\": \"a\", \"choices\": [\"b\", \"c\"], \"answer\": 2}", "answer"},
        {"{\"question\": \"a\", \"choices\": [\"b\", \"c\"], \"answer\": \"C\"}", "answer"},
        {"{\"question\": \"a\", \"choices\": [\"b\", \"c\"], \"answer\": -1}", "answer"},
        {"{\"question\": \"a\", \"choices\": [\"b\", \"c\"], \"answer\": 0.5}", "answer"},
        {"{\"question\": \"a\", \"choices\": \"b\", \"answer\": 0}", "choices"},
        {"{\"choices\": [\"b\", \"c\"], \"answer\": 0}", "line 2"},
        {"{\"input_ids\": []}", "input_ids"},
        {"{\"input_ids\": [-1]}", "input_ids"},
        {"{\"input_ids\": [1, 512]}", "512"},
        {"{\"input_ids\": [1.5]}", "input_ids"},
        {"{\"input_ids\": [1, 2], \"labels\": [1]}", "labels"},
        {"{\"input_ids\": [1, 2], \"labels\": [1, -5]}", "labels"},
        {"{\"input_ids\": \"1 2\"}", "input_ids"},
        {"{\"text\": \"\xff\xfe\"}", "line 2"},
        {"{\"text\": \"\xed\xa0\x80\"}", "line 2"},
        {"{\"text\": \"\\ud800\"}", "line 2"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        for (int command = 0; command < 2; command++) {
            write_text("t.jsonl", "{\"text\": \"Tom saw a dog.\"}\n%s\n{\"text\": \"Lily ran.\"}\n", bad[i].row);
            int status = command ? program("eval " ON "--task t=t.jsonl") : program(TRAIN "--task t=t.jsonl");
            ck_assert_msg(status == 3 && strstr(program_err(), "t.jsonl") && strstr(program_err(), "line 2") &&
                              strstr(program_err(), bad[i].want),
                          "%s: status %d: %s", bad[i].row, status, program_err());
            ck_assert_str_eq(program_out(), "");
        }
    ck_assert(!path_exists("run"));
}
END_TEST

START_TEST(bad_files)
{
    static const char *const texts[] = {
        "", "\n\n  \n", "\xef\xbb\xbf", "[]", "[{\"text\": \"a\"}", "[7]", "[{\"text\": \"a\"}] x"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        write_text("t.jsonl", "%s", texts[i]);
        program_failed_as(program("eval " ON "--task t=t.jsonl"), 3, "t.jsonl", NULL);
        program_failed_as(program(TRAIN "--task t=t.jsonl"), 3, "t.jsonl", NULL);
    }
    write_bytes("nul.jsonl", "{\"text\": \"a\0b\"}\n", 16);
    program_failed_as(program("eval " ON "--task t=nul.jsonl"), 3, "nul.jsonl", "line 1", NULL);
    program_failed_as(program("eval " ON "--task t=none.jsonl"), 3, "none.jsonl", NULL);
    ck_assert_int_eq(mkdir("folder", 0777), 0);
    program_failed_as(program("eval " ON "--task t=folder"), 3, "folder", "valid", NULL);
    program_failed_as(program(TRAIN "--task t=folder"), 3, "folder", "train.jsonl", NULL);
    ck_assert_int_eq(mkfifo("pipe", 0666), 0);
    program_failed_as(program("eval " ON "--task t=pipe"), 3, "pipe", NULL);
    program_failed_as(program("eval " ON "--task t=/dev/zero"), 3, "/dev/zero", NULL);
    write_text("t.jsonl", "{\"text\": \"Tom saw a dog.\"}\n");
    write_text("v.jsonl", "%s", "");
    program_failed_as(program(TRAIN "--task t=t.jsonl --eval-task v=v.jsonl"), 3, "v.jsonl", NULL);
    ck_assert(!path_exists("run"));
}
END_TEST

/* A line of 100 MB, and JSON nested a hundred thousand deep: refused or read, never a crash. */
START_TEST(monsters)
{
    size_t size = 100u << 20;
    char *line = malloc(size);
    ck_assert_ptr_nonnull(line);
    memset(line, 'x', size);
    memcpy(line, "{\"nothing\": \"", 13);
    memcpy(line + size - 3, "\"}\n", 3);
    write_bytes("long.jsonl", line, size);
    program_failed_as(program("eval " ON "--task t=long.jsonl"), 3, "long.jsonl", "line 1", NULL);
    memset(line, '[', 200000);
    write_bytes("deep.jsonl", line, 200000);
    program_failed_as(program("eval " ON "--task t=deep.jsonl"), 3, "deep.jsonl", NULL);
    free(line);
}
END_TEST

/* Conversations need a template, and say so with the option that gives one. */
START_TEST(conversations_without_a_template)
{
    write_text("t.jsonl", "{\"messages\": [{\"role\": \"user\", \"content\": \"Hi\"}, {\"role\": \"assistant\", "
                          "\"content\": \"Hello.\"}]}\n");
    program_failed_as(program(TRAIN "--task t=t.jsonl"), 3, "t.jsonl", "--chat-template", NULL);
    done(program(TRAIN "--task t=t.jsonl --chat-template llama2"));
    /* The assistant first, and a system message in the middle, are not what a template takes. */
    write_text("t.jsonl", "{\"messages\": [{\"role\": \"assistant\", \"content\": \"Hello.\"}]}\n");
    int status = program(TRAIN "--task t=t.jsonl --chat-template llama2");
    ck_assert_msg(status == 3 && strstr(program_err(), "line 1"), "status %d: %s", status, program_err());
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("cli_records");
    TCase *tc = tcase_create("records");
    tcase_add_checked_fixture(tc, program_folder_make, program_folder_remove);
    tcase_set_timeout(tc, 180);
    tcase_add_test(tc, the_same_rows_in_every_dress);
    tcase_add_test(tc, duplicates_few_rows_and_large_batches);
    tcase_add_test(tc, long_rows_are_cut_and_told);
    tcase_add_test(tc, a_batch_whose_tokens_are_all_masked);
    tcase_add_test(tc, a_file_that_is_changed_during_the_run);
    tcase_add_test(tc, bad_rows_are_named_by_file_and_line);
    tcase_add_test(tc, bad_files);
    tcase_add_test(tc, monsters);
    tcase_add_test(tc, conversations_without_a_template);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
