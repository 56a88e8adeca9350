/* tests/test_cli_eval.c - mosld eval and perplexity against numbers worked out from logits, one sequence a choice. */
#include "tests/support/by_hand.h"
#include "tests/support/program.h"

#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ON    "--model " STORIES " --device host "
#define EVAL  "eval " ON

enum { QUESTIONS = 6, MOST_CHOICES = 4, MOST = 600 };
static const struct {
    const char *context, *question, *choices[MOST_CHOICES];
    int n, answer;
} questions[QUESTIONS] = {
    {NULL, "What did Lily see?", {"a big red ball", "algebra", "the"}, 3, 0},
    {NULL, "Who was happy?", {"the dog and the cat and the bird", "Tom", "zzz", "x y"}, 4, 0},
    {"Tom has a hat.", "What does Tom have?", {"a car", "a hat"}, 2, 1},
    {NULL, "Where did they play?", {"qwertyuiop", "in the park", "in"}, 3, 1},
    {NULL, "What is in the sky?", {"the sun", "a very long and winding road that leads to your door", "mud"}, 3, 2},
    {NULL, "Why?", {"because it was a sunny day and the birds sang", "k"}, 2, 0},
};

static void write_questions(const char *path, int first, int n)
{
    FILE *f = fopen(path, "w");
    ck_assert_ptr_nonnull(f);
    for (int i = first; i < first + n; i++) {
        fprintf(f, "{");
        if (questions[i].context)
            fprintf(f, "\"context\": \"%s\", ", questions[i].context);
        fprintf(f, "\"question\": \"%s\", \"choices\": [", questions[i].question);
        for (int c = 0; c < questions[i].n; c++)
            fprintf(f, "%s\"%s\"", c ? ", " : "", questions[i].choices[c]);
        if (i % 2)
            fprintf(f, "], \"answer\": %d}\n", questions[i].answer);
        else
            fprintf(f, "], \"answer\": \"%c\"}\n", 'A' + questions[i].answer);
    }
    fclose(f);
}

static void make(void)
{
    program_folder_make();
    write_questions("q.jsonl", 0, QUESTIONS);
}

static void done(int status) { ck_assert_msg(status == 0, "status %d: %s", status, program_err()); }

static double number(const cJSON *json, const char *key)
{
    const cJSON *item = cJSON_GetObjectItem(json, key);
    ck_assert_msg(cJSON_IsNumber(item), "%s is missing", key);
    return item->valuedouble;
}

static void close_to(double got, double want, double tolerance, const char *what)
{
    ck_assert_msg(fabs(got - want) <= tolerance * fabs(want), "%s: %.9g, wanted %.9g", what, got, want);
}

static int tokenize(const char *text, int *out)
{
    int n = 0;
    write_text(".text", "%s", text);
    cJSON *json = program_json(program("tokenize --model " STORIES " --json --file .text")), *item;
    cJSON_ArrayForEach(item, cJSON_GetObjectItem(json, "ids"))
        out[n++] = item->valueint;
    cJSON_Delete(json);
    return n;
}

/* The log-likelihood of a choice behind its question, in a sequence of its own. */
static double likelihood(const char *adapter, int q, int c, int *targets)
{
    char prompt[1000], whole[1200];
    int ids[MOST], prompt_ids[MOST], n, n_prompt;
    snprintf(prompt, sizeof prompt, "%s%sQuestion: %s\nAnswer:", questions[q].context ? questions[q].context : "",
             questions[q].context ? "\n" : "", questions[q].question);
    snprintf(whole, sizeof whole, "%s %s", prompt, questions[q].choices[c]);
    n = tokenize(whole, ids);
    n_prompt = tokenize(prompt, prompt_ids);
    for (int i = 0; i < n_prompt; i++)
        ck_assert_int_eq(ids[i], prompt_ids[i]);
    *targets = n - n_prompt;
    return -loss_of(STORIES, adapter, ids, n, n_prompt);
}

struct truth {
    bool right[QUESTIONS], right_norm[QUESTIONS];
    double acc, acc_norm, loss;
};

static struct truth work_out(const char *adapter)
{
    struct truth t = {.acc = 0};
    int targets, all = 0;
    for (int q = 0; q < QUESTIONS; q++) {
        int best = 0, best_norm = 0;
        double top = -INFINITY, top_norm = -INFINITY;
        for (int c = 0; c < questions[q].n; c++) {
            double l = likelihood(adapter, q, c, &targets), norm = l / (double)strlen(questions[q].choices[c]);
            if (l > top)
                top = l, best = c;
            if (norm > top_norm)
                top_norm = norm, best_norm = c;
            if (c == questions[q].answer) {
                t.loss -= l;
                all += targets;
            }
        }
        t.right[q] = best == questions[q].answer;
        t.right_norm[q] = best_norm == questions[q].answer;
        t.acc += t.right[q] / (double)QUESTIONS;
        t.acc_norm += t.right_norm[q] / (double)QUESTIONS;
    }
    t.loss /= all;
    return t;
}

static void train(void)
{
    done(program("train " ON "--task q=q.jsonl --learning-rate 1e-2 --max-steps 12 --num-experts 3 --out adapter"));
}

/* ---- questions ---- */

START_TEST(questions_score_as_one_sequence_a_choice)
{
    if (_i)
        train();
    struct truth want = work_out(_i ? "adapter" : NULL);
    ck_assert_msg(want.acc != want.acc_norm || _i, "acc and acc_norm are the same, which tests little");
    /* In one pass, and a question a pass. */
    static const char *const budgets[] = {"", "--batch-tokens 1"};
    for (int b = 0; b < 2; b++) {
        cJSON *json = program_json(
            program(EVAL "--task q=q.jsonl --json --out full.json %s %s", budgets[b], _i ? "--adapter adapter" : ""));
        const cJSON *task = cJSON_GetArrayItem(cJSON_GetObjectItem(json, "tasks"), 0);
        ck_assert_str_eq(cJSON_GetObjectItem(task, "name")->valuestring, "q");
        ck_assert_double_eq(number(task, "rows"), QUESTIONS);
        close_to(number(task, "acc"), want.acc, 1e-9, "acc");
        close_to(number(task, "acc_norm"), want.acc_norm, 1e-9, "acc_norm");
        close_to(number(task, "acc_stderr"), sqrt(want.acc * (1 - want.acc) / (QUESTIONS - 1)), 1e-9, "acc_stderr");
        close_to(number(task, "acc_norm_stderr"), sqrt(want.acc_norm * (1 - want.acc_norm) / (QUESTIONS - 1)), 1e-9,
                 "acc_norm_stderr");
        close_to(number(task, "loss"), want.loss, 1e-5, "loss of the right choices");
        close_to(number(task, "perplexity"), exp(want.loss), 1e-4, "perplexity");
        close_to(number(json, "average_acc_norm"), want.acc_norm, 1e-9, "average_acc_norm");
        cJSON_Delete(json);
        size_t size;
        char *text = read_bytes("full.json", &size);
        json = cJSON_Parse(text);
        const cJSON *list = cJSON_GetObjectItem(cJSON_GetArrayItem(cJSON_GetObjectItem(json, "tasks"), 0), "questions");
        ck_assert_int_eq(cJSON_GetArraySize(list), QUESTIONS);
        for (int q = 0; q < QUESTIONS; q++) {
            const cJSON *triple = cJSON_GetArrayItem(list, q);
            ck_assert_int_eq(cJSON_GetArrayItem(triple, 0)->valueint, q + 1);
            ck_assert_int_eq(cJSON_GetArrayItem(triple, 1)->valueint, want.right[q]);
            ck_assert_int_eq(cJSON_GetArrayItem(triple, 2)->valueint, want.right_norm[q]);
        }
        cJSON_Delete(json);
        free(text);
    }
}
END_TEST

/* Right by acc_norm, question by question, of a file that eval wrote. */
static void right_of(const char *path, bool *right)
{
    size_t size;
    char *text = read_bytes(path, &size);
    cJSON *json = cJSON_Parse(text),
          *list = cJSON_GetObjectItem(cJSON_GetArrayItem(cJSON_GetObjectItem(json, "tasks"), 0), "questions");
    for (int q = 0; q < QUESTIONS; q++)
        right[q] = cJSON_GetArrayItem(cJSON_GetArrayItem(list, q), 2)->valueint != 0;
    cJSON_Delete(json);
    free(text);
}

START_TEST(gained_and_lost)
{
    bool before[QUESTIONS], after[QUESTIONS];
    int gained = 0, lost = 0, right = 0;
    done(program(EVAL "--task q=q.jsonl --out before.json"));
    train();
    cJSON *json =
        program_json(program(EVAL "--task q=q.jsonl --adapter adapter --out after.json --against before.json --json"));
    const cJSON *task = cJSON_GetArrayItem(cJSON_GetObjectItem(json, "tasks"), 0);
    right_of("before.json", before);
    right_of("after.json", after);
    for (int q = 0; q < QUESTIONS; q++) {
        gained += after[q] && !before[q];
        lost += before[q] && !after[q];
        right += before[q];
    }
    ck_assert_msg(gained > 0, "nothing was gained, which tests little");
    ck_assert_double_eq(number(task, "gained"), gained);
    ck_assert_double_eq(number(task, "lost"), lost);
    close_to(number(task, "acc_norm_before"), right / (double)QUESTIONS, 1e-9, "acc_norm_before");
    cJSON_Delete(json);
    /* The other way round, gains are losses; a table says the same. */
    json = program_json(program(EVAL "--task q=q.jsonl --against after.json --json"));
    task = cJSON_GetArrayItem(cJSON_GetObjectItem(json, "tasks"), 0);
    ck_assert_double_eq(number(task, "gained"), lost);
    ck_assert_double_eq(number(task, "lost"), gained);
    cJSON_Delete(json);
    char text[32];
    snprintf(text, sizeof text, "+%d/-%d", lost, gained);
    done(program(EVAL "--task q=q.jsonl --against after.json"));
    ck_assert_ptr_nonnull(strstr(program_out(), text));
    write_text("bad.json", "{\"tasks\": 3}");
    program_failed_as(program(EVAL "--task q=q.jsonl --against bad.json"), 3, "bad.json", "tasks", NULL);
    program_failed_as(program(EVAL "--task q=q.jsonl --against q.jsonl"), 3, "q.jsonl", NULL);
    program_failed_as(program(EVAL "--task q=q.jsonl --against none.json"), 3, "none.json", NULL);
    program_failed_as(program(EVAL "--task q=q.jsonl --out /proc/x/y.json"), 1, "/proc/x", NULL);
}
END_TEST

START_TEST(limit_and_several_tasks)
{
    write_text(
        "t.jsonl",
        "{\"text\": \"Lily and Tom went to the park.\"}\n{\"prompt\": \"Tom\", \"completion\": \" was glad.\"}\n");
    cJSON *json = program_json(program(EVAL "--task q=q.jsonl --task t=t.jsonl --limit 2 --json"));
    const cJSON *q = cJSON_GetArrayItem(cJSON_GetObjectItem(json, "tasks"), 0),
                *t = cJSON_GetArrayItem(cJSON_GetObjectItem(json, "tasks"), 1);
    ck_assert_double_eq(number(q, "rows"), 2);
    ck_assert_double_eq(number(t, "rows"), 2);
    ck_assert(!cJSON_HasObjectItem(t, "acc") && number(t, "loss") > 0);
    close_to(number(json, "average_acc"), number(q, "acc"), 1e-9, "average over tasks with choices");
    /* The same as a file of the first two alone. */
    write_questions("two.jsonl", 0, 2);
    cJSON *two = program_json(program(EVAL "--task q=two.jsonl --json"));
    ck_assert_double_eq(number(cJSON_GetArrayItem(cJSON_GetObjectItem(two, "tasks"), 0), "loss"), number(q, "loss"));
    cJSON_Delete(two);
    cJSON_Delete(json);
    done(program(EVAL "--task q=q.jsonl --task t=t.jsonl --task z=q.jsonl --limit 2"));
    ck_assert_ptr_nonnull(strstr(program_out(), "average"));
}
END_TEST

START_TEST(rows_without_choices_give_loss)
{
    int ids[MOST], prompt[MOST];
    write_text("t.jsonl", "{\"prompt\": \"Lily had a cat.\", \"completion\": \" The cat was big.\"}\n{\"text\": \"One "
                          "day, Tom saw a frog.\"}\n");
    int n = tokenize("Lily had a cat. The cat was big.", ids), begin = tokenize("Lily had a cat.", prompt);
    ids[n++] = 2; /* the end token */
    double sum = loss_of(STORIES, NULL, ids, n, begin);
    int count = n - begin;
    n = tokenize("One day, Tom saw a frog.", ids);
    cJSON *json = program_json(program(EVAL "--task t=t.jsonl --json"));
    const cJSON *task = cJSON_GetArrayItem(cJSON_GetObjectItem(json, "tasks"), 0);
    int more = (int)number(task, "target_tokens") - count;
    ck_assert_msg(more == n - 1 || more == n, "%d targets of %d tokens of text", more, n);
    if (more == n)
        ids[n++] = 2;
    sum += loss_of(STORIES, NULL, ids, n, 1);
    close_to(number(task, "loss"), sum / (count + more), 1e-5, "loss");
    close_to(number(task, "perplexity"), exp(sum / (count + more)), 1e-4, "perplexity");
    cJSON_Delete(json);
}
END_TEST

START_TEST(letters_as_answers)
{
    cJSON *json = program_json(program(EVAL "--task q=q.jsonl --choice-format letter --json"));
    const cJSON *task = cJSON_GetArrayItem(cJSON_GetObjectItem(json, "tasks"), 0);
    close_to(number(task, "acc"), number(task, "acc_norm"), 1e-12, "one character each: acc_norm is acc");
    cJSON_Delete(json);
}
END_TEST

/* ---- perplexity ---- */

START_TEST(perplexity_is_the_exponential_of_the_loss)
{
    static const char text[] = "Once upon a time, there was a little girl named Lily. She had a red ball. She liked to "
                               "play with it in the park.";
    int ids[MOST], n;
    write_text("p.txt", "%s", text);
    if (_i)
        train();
    const char *adapter = _i ? "adapter" : NULL;
    n = tokenize(text, ids);
    cJSON *json = program_json(program("perplexity " ON "--text p.txt --json %s", _i ? "--adapter adapter" : ""));
    double loss = loss_of(STORIES, adapter, ids, n, 1) / (n - 1);
    close_to(number(json, "loss"), loss, 1e-5, "loss");
    close_to(number(json, "perplexity"), exp(loss), 1e-4, "perplexity");
    ck_assert_double_eq(number(json, "tokens"), n - 1);
    cJSON_Delete(json);
    /* Windows of 16 do not see each other. */
    double sum = 0;
    int count = 0;
    for (int first = 0; first + 1 < n; first += 16) {
        int m = n - first < 16 ? n - first : 16;
        sum += loss_of(STORIES, adapter, ids + first, m, 1);
        count += m - 1;
    }
    json = program_json(program("perplexity " ON "--text p.txt --context 16 --json %s", _i ? "--adapter adapter" : ""));
    close_to(number(json, "loss"), sum / count, 1e-5, "loss in windows");
    ck_assert_double_eq(number(json, "tokens"), count);
    cJSON_Delete(json);
}
END_TEST

START_TEST(perplexity_of_bad_text)
{
    write_text("empty.txt", "%s", "");
    program_failed_as(program("perplexity " ON "--text empty.txt"), 3, "empty.txt", NULL);
    program_failed_as(program("perplexity " ON "--text none.txt"), 3, "none.txt", NULL);
    program_failed_as(program("perplexity " ON "--text /tmp"), 3, "/tmp", NULL);
    program_failed_as(program("perplexity --model " LLAMA2 " --device host --text empty.txt"), 3, "tokenizer", NULL);
    write_bytes("bad.txt", "\xff\xfe\x00oops", 7);
    int status = program("perplexity " ON "--text bad.txt");
    ck_assert_msg(status == 0 || status == 3, "status %d: %s", status, program_err());
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("cli_eval");
    TCase *tc = tcase_create("eval");
    tcase_add_checked_fixture(tc, make, program_folder_remove);
    tcase_set_timeout(tc, 120);
    tcase_add_loop_test(tc, questions_score_as_one_sequence_a_choice, 0, 2);
    tcase_add_test(tc, gained_and_lost);
    tcase_add_test(tc, limit_and_several_tasks);
    tcase_add_test(tc, rows_without_choices_give_loss);
    tcase_add_test(tc, letters_as_answers);
    tcase_add_loop_test(tc, perplexity_is_the_exponential_of_the_loss, 0, 2);
    tcase_add_test(tc, perplexity_of_bad_text);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
