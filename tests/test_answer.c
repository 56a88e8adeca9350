/* tests/test_answer.c - what ends an answer and what of its text may be printed: stop texts wherever tokens are cut, end tokens, lengths;
 * and the program's options for them. */
#include "mosld/generate/answer.h"
#include "mosld/generate/sample.h"
#include "mosld/text/tokenizer.h"
#include "tests/support/program.h"

#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define GENERATE "generate --model " STORIES " --device host "

static struct mosld_tokenizer *tokenizer;
static uint32_t V;

static void setup(void)
{
    struct rt_error err;
    program_folder_make();
    ck_assert_msg(mosld_tokenizer_open(STORIES, &tokenizer, &err) == RT_OK, "%s", err.text);
    V = (uint32_t)mosld_tokenizer_vocab_size(tokenizer);
}

static void teardown(void)
{
    mosld_tokenizer_close(tokenizer);
    program_folder_remove();
}

static struct mosld_answer *open_answer(const struct mosld_answer_params *params)
{
    struct mosld_answer *a;
    struct rt_error err;
    const int32_t prompt[] = {1, 5};
    ck_assert_msg(mosld_answer_create(tokenizer, prompt, 2, params, &a, &err) == RT_OK, "%s", err.text);
    return a;
}

/* Logits that make `token` the only choice. */
static void give(struct mosld_answer *a, int32_t token)
{
    struct rt_error err;
    float *logits = calloc(V, sizeof *logits);
    logits[token] = 50;
    ck_assert_msg(mosld_answer_next(a, logits, V, &err) == RT_OK, "%s", err.text);
    free(logits);
}

/* The text's tokens, a letter each as far as the vocabulary has letters. */
static void give_text(struct mosld_answer *a, const char *text)
{
    for (const char *p = text; *p && !a->done; p++) {
        char piece[4] = {*p == ' ' ? '\xe2' : *p};
        if (*p == ' ')
            memcpy(piece, "\xe2\x96\x81", 3); /* U+2581 */
        int32_t id = mosld_tokenizer_find(tokenizer, piece, *p == ' ' ? 3 : 1);
        ck_assert_msg(id >= 0, "no token for '%c'", *p);
        give(a, id);
    }
}

#define BASE .sampling = {MOSLD_SAMPLE_DEFAULTS}, .context = 100, .continues = true

/* A full context: the first tokens and the newer half of the others are what the model sees next. */
START_TEST(a_full_context_is_shifted)
{
    struct mosld_answer *a = open_answer(&(struct mosld_answer_params){.sampling = {MOSLD_SAMPLE_DEFAULTS}, .context = 9, .shift = true, .keep = 3});
    struct rt_error err;
    for (int32_t t = 10; t < 17; t++) {
        ck_assert(!a->done);
        ck_assert_ptr_eq(a->seen, a->ids);
        give(a, t);
    }
    give(a, 17); /* prompt 1 5, then 10 .. 17: ten, of which nine fit */
    static const int32_t after[] = {1, 5, 10, 15, 16, 17};
    ck_assert(!a->done);
    ck_assert_uint_eq(a->n_seen, 6);
    ck_assert_mem_eq(a->seen, after, sizeof after);
    ck_assert_uint_eq(a->dropped, 4);
    ck_assert_uint_eq(a->n_ids, 10); /* the answer has all of it */
    ck_assert_int_eq(a->ids[9], 17);
    for (int32_t t = 20; t < 40; t++)
        give(a, t);
    ck_assert_uint_eq(a->n_ids, a->n_seen + a->dropped);
    ck_assert_uint_le(a->n_seen, 9);
    ck_assert_int_eq(a->seen[2], 10);
    ck_assert_int_eq(a->seen[a->n_seen - 1], 39);
    mosld_answer_destroy(&a);
    a = open_answer(&(struct mosld_answer_params){.sampling = {MOSLD_SAMPLE_DEFAULTS}, .context = 4, .keep = 3});
    for (int32_t t = 10; t < 13; t++)
        give(a, t);
    ck_assert(a->done && a->stop == MOSLD_ANSWER_CONTEXT);
    mosld_answer_destroy(&a);
    const int32_t prompt[] = {1, 5};
    ck_assert_int_eq(mosld_answer_create(tokenizer, prompt, 2, &(struct mosld_answer_params){.sampling = {MOSLD_SAMPLE_DEFAULTS}, .context = 4, .shift = true, .keep = 4},
                                         &a, &err), RT_USAGE);
    ck_assert_ptr_nonnull(strstr(err.text, "kept"));
}
END_TEST

START_TEST(stop_texts)
{
    static const struct {
        const char *said, *stops[2], *text, *stop;
        size_t safe; /* after all of it was said, where it goes on */
    } cases[] = {
        {"the end of it", {"end"}, "the ", "end", 4},
        {"the enemy", {"end"}, "the enemy", NULL, 9},
        {"the en", {"end"}, "the en", NULL, 4},         /* may still become it */
        {"aabaab", {"aab"}, "", "aab", 0},
        {"aaab", {"aab"}, "a", "aab", 1},               /* a false start, and the right one within it */
        {"abcabd", {"abd", "c"}, "ab", "c", 2},         /* the first one that comes */
        {"one two", {"e t", "xyz"}, "on", "e t", 2},    /* over a space */
        {"abab", {"abac"}, "abab", NULL, 2},            /* "aba" was a beginning, now "ab" is */
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct mosld_answer *a = open_answer(&(struct mosld_answer_params){BASE, .stops = cases[i].stops, .n_stops = cases[i].stops[1] ? 2 : 1});
        char out[64] = "";
        give_text(a, cases[i].said);
        ck_assert_msg(a->done == (cases[i].stop != NULL), "%s: %s", cases[i].said, a->text);
        if (cases[i].stop)
            ck_assert_str_eq(a->stop_text, cases[i].stop);
        ck_assert_msg(a->safe == cases[i].safe, "%s: %zu may be printed, not %zu", cases[i].said, a->safe, cases[i].safe);
        memcpy(out, a->text, a->safe);
        struct rt_error err;
        ck_assert(mosld_answer_stop(a, &err) == RT_OK);
        ck_assert_str_eq(a->text, cases[i].text);
        ck_assert_uint_eq(a->safe, a->len);
        ck_assert_int_eq(a->stop, cases[i].stop ? MOSLD_ANSWER_END : MOSLD_ANSWER_ASKED);
        ck_assert_msg(strncmp(a->text, out, strlen(out)) == 0, "'%s' was printed and is not in '%s'", out, a->text);
        mosld_answer_destroy(&a);
    }
}
END_TEST

/* What was ever safe stays the beginning of the text. */
START_TEST(what_is_printed_is_never_taken_back)
{
    static const char *const stops[] = {"abab", "bb"};
    srand48(1);
    for (int round = 0; round < 300; round++) {
        struct mosld_answer *a = open_answer(&(struct mosld_answer_params){BASE, .stops = stops, .n_stops = 2});
        char printed[64] = "";
        for (int i = 0; i < 20 && !a->done; i++) {
            give_text(a, (const char *[]){"a", "b", "c"}[(int)(drand48() * 2.2)]);
            ck_assert(a->safe <= a->len && strncmp(a->text, printed, strlen(printed)) == 0 && a->safe >= strlen(printed));
            memcpy(printed, a->text, a->safe);
            printed[a->safe] = 0;
        }
        ck_assert(strstr(a->text, "abab") == NULL && strstr(a->text, "bb") == NULL);
        mosld_answer_destroy(&a);
    }
}
END_TEST

START_TEST(ends)
{
    const int32_t end = 7;
    struct rt_error err;
    struct mosld_answer *a = open_answer(&(struct mosld_answer_params){BASE, .ends = &end, .n_ends = 1});
    give_text(a, "ab");
    give(a, 7);
    ck_assert(a->done && a->stop == MOSLD_ANSWER_END && mosld_answer_tokens(a) == 2 && !a->stop_text);
    mosld_answer_destroy(&a);
    a = open_answer(&(struct mosld_answer_params){BASE, .max_new_tokens = 3});
    give_text(a, "abcdef");
    ck_assert(a->done && a->stop == MOSLD_ANSWER_LENGTH);
    ck_assert_str_eq(a->text, "abc");
    mosld_answer_destroy(&a);
    struct mosld_answer_params few = {BASE};
    few.context = 4;
    a = open_answer(&few);
    give_text(a, "abcdef");
    ck_assert(a->done && a->stop == MOSLD_ANSWER_CONTEXT && mosld_answer_tokens(a) == 3); /* four in the context, one that follows */
    mosld_answer_destroy(&a);
    few.context = 1;
    ck_assert_int_eq(mosld_answer_create(tokenizer, (const int32_t[]){1, 5}, 2, &few, &a, &err), RT_USAGE);
    ck_assert_ptr_null(a);
    ck_assert_int_eq(mosld_answer_create(tokenizer, NULL, 0, &few, &a, &err), RT_USAGE);
    ck_assert_int_eq(mosld_answer_create(tokenizer, (const int32_t[]){1}, 1, &(struct mosld_answer_params){BASE, .stops = (const char *[]){""}, .n_stops = 1}, &a, &err), RT_USAGE);
}
END_TEST

/* 600 tokens, so that everything grows; the log-probability of a logit of 50 among zeros is -(V - 1) e^-50, as good as 0. */
START_TEST(logprobs_of_every_token)
{
    struct mosld_answer_params params = {BASE, .logprobs = true, .top_logprobs = 2};
    params.context = 2000;
    struct mosld_answer *a = open_answer(&params);
    for (int i = 0; i < 600; i++)
        give(a, 300 + i % 100);
    for (int i = 0; i < 600; i++) {
        ck_assert(fabsf(a->logprobs[i]) < 1e-6f);
        ck_assert_int_eq(a->top[2 * i].token, 300 + i % 100);
        ck_assert(fabsf(a->top[2 * i + 1].logprob + 50) < 1e-3f);
    }
    mosld_answer_destroy(&a);
}
END_TEST

/* ---- the program ---- */

static char *text_of(const char *options, const char *key, char *stop)
{
    cJSON *json = program_json(program(GENERATE "--json --prompt 'Once upon a time' --max-new-tokens 40 %s", options));
    char *text = strdup(cJSON_GetObjectItem(json, key)->valuestring);
    strcpy(stop, cJSON_GetObjectItem(json, "stop")->valuestring);
    cJSON_Delete(json);
    return text;
}

START_TEST(options_of_the_program)
{
    char stop[20], *whole = text_of("", "text", stop), *cut = text_of("--stop 'girl na' --stop zzz", "text", stop);
    ck_assert_str_eq(stop, "end");
    ck_assert_ptr_nonnull(strstr(whole, "girl na"));
    ck_assert_uint_eq(strlen(cut), (size_t)(strstr(whole, "girl na") - whole));
    ck_assert_int_eq(strncmp(whole, cut, strlen(cut)), 0);
    ck_assert_int_eq(program(GENERATE "--prompt 'Once upon a time' --max-new-tokens 40 --stop 'girl na'"), 0);
    ck_assert_msg(strncmp(program_out(), cut, strlen(cut)) == 0 && strcmp(program_out() + strlen(cut), "\n") == 0, "printed '%s'", program_out());
    free(whole);
    free(cut);
    program_failed_as(program(GENERATE "--prompt x --stop ''"), 2, "--stop", NULL);
    program_failed_as(program(GENERATE "--prompt x --logit-bias 5"), 2, "--logit-bias", NULL);
    program_failed_as(program(GENERATE "--prompt x --logit-bias 5=1x"), 2, "--logit-bias", NULL);
    program_failed_as(program(GENERATE "--prompt x --logit-bias 5=1000"), 2, "logit_bias", NULL);
    program_failed_as(program(GENERATE "--prompt x --logprobs 3"), 2, "--json", NULL);
    program_failed_as(program(GENERATE "--prompt x --adapter a --adapter b"), 2, "--adapter", NULL);
    /* A bias decides it; log-probabilities say what the model itself thinks. */
    cJSON *json = program_json(program(GENERATE "--json --prompt Tom --max-new-tokens 3 --logit-bias 300=100 --logprobs 2"));
    const cJSON *token, *top;
    cJSON_ArrayForEach(token, cJSON_GetObjectItem(json, "logprobs"))
    {
        ck_assert_int_eq(cJSON_GetObjectItem(token, "id")->valueint, 300);
        top = cJSON_GetObjectItem(token, "top");
        ck_assert_int_eq(cJSON_GetArraySize(top), 2);
        ck_assert(cJSON_GetObjectItem(cJSON_GetArrayItem(top, 0), "logprob")->valuedouble >=
                  cJSON_GetObjectItem(cJSON_GetArrayItem(top, 1), "logprob")->valuedouble);
        ck_assert(cJSON_GetObjectItem(token, "logprob")->valuedouble < -1);
    }
    cJSON_Delete(json);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("answer");
    TCase *tc = tcase_create("answer");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_set_timeout(tc, 120);
    tcase_add_test(tc, a_full_context_is_shifted);
    tcase_add_test(tc, stop_texts);
    tcase_add_test(tc, what_is_printed_is_never_taken_back);
    tcase_add_test(tc, ends);
    tcase_add_test(tc, logprobs_of_every_token);
    tcase_add_test(tc, options_of_the_program);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
