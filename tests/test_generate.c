/* tests/test_generate.c - generated text: against whole passes without a cache, against a known story, and what ends
 * it. */
#include "mosld/generate/sample.h"
#include "tests/support/by_hand.h"
#include "tests/support/program.h"

#include <check.h>
#include <fcntl.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define GENERATE "generate --model " STORIES " --device host "

enum { MOST = 600 };
struct answer {
    char text[4096], stop[16];
    int tokens[MOST], n;
};

static int ints(const cJSON *list, int *out)
{
    int n = 0;
    const cJSON *item;
    cJSON_ArrayForEach(item, list)
    {
        ck_assert_int_lt(n, MOST);
        out[n++] = item->valueint;
    }
    return n;
}

static struct answer parse_answer(const cJSON *json)
{
    struct answer a;
    snprintf(a.text, sizeof a.text, "%s", cJSON_GetObjectItem(json, "text")->valuestring);
    snprintf(a.stop, sizeof a.stop, "%s", cJSON_GetObjectItem(json, "stop")->valuestring);
    a.n = ints(cJSON_GetObjectItem(json, "tokens"), a.tokens);
    return a;
}

/* `options` are those of generate, the prompt among them. */
static struct answer generate(const char *options)
{
    cJSON *json = program_json(program(GENERATE "--json %s", options));
    struct answer a = parse_answer(json);
    cJSON_Delete(json);
    return a;
}

static int tokenize(const char *text, int *out)
{
    write_text(".text", "%s", text);
    cJSON *json = program_json(program("tokenize --model " STORIES " --json --file .text"));
    int n = ints(cJSON_GetObjectItem(json, "ids"), out);
    cJSON_Delete(json);
    return n;
}

/* ---- against whole passes ---- */

/* Each generated token is the likeliest behind all before it, as one pass over everything without a cache has it. Where
 * two logits are closer than rounding, either will do. The cache is f32: what the other types change is in test_engine.c. */
static void check_greedy(const char *adapter, const char *prompt, int new_tokens, const char *more)
{
    char options[4096];
    int ids[MOST], n = tokenize(prompt, ids), V, close = 0;
    snprintf(options, sizeof options, "%s%s --cache-type f32 --prompt '%s' --max-new-tokens %d %s", adapter ? "--adapter " : "",
             adapter ? adapter : "", prompt, new_tokens, more);
    struct answer a = generate(options);
    ck_assert_msg(a.n == new_tokens || strcmp(a.stop, "end") == 0, "%d tokens, %s", a.n, a.stop);
    ck_assert_int_ge(a.n, 8);
    memcpy(ids + n, a.tokens, (size_t)a.n * sizeof *ids);
    float *logits = logits_of(STORIES, adapter, ids, n + a.n, &V);
    for (int i = n; i < n + a.n; i++) {
        const float *row = logits + (size_t)(i - 1) * (size_t)V;
        int best = 0;
        for (int v = 1; v < V; v++)
            best = row[v] > row[best] ? v : best;
        close += best != ids[i];
        ck_assert_msg(row[best] - row[ids[i]] <= 1e-4f * fabsf(row[best]),
                      "token %d: %d, but %d is likelier: %g and %g", i - n, ids[i], best, row[ids[i]], row[best]);
    }
    ck_assert_int_le(close, 1);
    free(logits);
}

/* An adapter that has learned something, so that B is not zero. */
static void train(const char *options)
{
    write_text("t.jsonl", "{\"prompt\": \"Tom \", \"completion\": \"saw a big dog in the sun.\"}\n{\"prompt\": \"One "
                          "day\", \"completion\": \", the end.\"}\n");
    int status = program("train --model " STORIES
                         " --device host --task t=t.jsonl --learning-rate 1e-2 --max-steps 3 --out adapter %s",
                         options);
    ck_assert_msg(status == 0, "%s", program_err());
}

START_TEST(greedy_is_the_likeliest_of_a_whole_pass)
{
    static const char *const methods[] = {"", "--method lora --lora-dropout 0.1", "--method mosl --num-experts 4",
                                          "--method mosld --num-experts 2,3,4 --target-modules all-linear"};
    if (_i)
        train(methods[_i]);
    check_greedy(_i ? "adapter" : NULL, "Once upon a time", 40, "");
    check_greedy(_i ? "adapter" : NULL, "Lily and Tom", 20, "--context 64");
}
END_TEST

/* A prompt of more tokens than go through the model at a time. */
START_TEST(a_long_prompt_runs_in_pieces)
{
    char prompt[2000] = "";
    int ids[MOST];
    for (int i = 0; i < 30; i++)
        snprintf(prompt + strlen(prompt), sizeof prompt - strlen(prompt), "Day %d: Lily saw a big red ball. ", i);
    int n = tokenize(prompt, ids);
    ck_assert_msg(n > 300 && n < 490, "%d tokens", n);
    prompt[strlen(prompt) - 1] = 0;
    check_greedy(NULL, prompt, 20, "");
}
END_TEST

START_TEST(the_story_is_known)
{
    size_t size;
    int want[MOST];
    char *text = read_bytes(MOSLD_SOURCE_DIR "/tests/vectors/stories260K/expected.json", &size);
    cJSON *json = cJSON_Parse(text);
    int n = ints(cJSON_GetObjectItem(json, "greedy_ids"), want);
    struct answer a = generate("--prompt '' --max-new-tokens 200");
    ck_assert_int_ge(n, 200);
    ck_assert_int_eq(a.n, 200);
    for (int i = 0; i < 200; i++)
        ck_assert_msg(a.tokens[i] == want[i], "token %d is %d, wanted %d", i, a.tokens[i], want[i]);
    static const char begin[] = "Once upon a time, there was a little girl named Lily. She loved to play outside in "
                                "the park. One day, she saw a big, red ball.";
    ck_assert_msg(strncmp(a.text, begin, sizeof begin - 1) == 0, "%s", a.text);
    ck_assert_str_eq(a.stop, "length");
    /* Without --json the text alone goes to standard output, and nothing to standard error. */
    ck_assert_int_eq(program(GENERATE "--prompt 'Once upon a time' --max-new-tokens 27"), 0);
    ck_assert_str_eq(program_out(), ", there was a little girl named Lily. She loved to play outside in the park.\n");
    ck_assert_str_eq(program_err(), "");
    cJSON_Delete(json);
    free(text);
}
END_TEST

/* ---- sampling ---- */

START_TEST(sampling_through_the_program)
{
    static const char *const greedy[] = {"--temperature 1 --top-k 1", "--temperature 1 --top-p 1e-6",
                                         "--temperature 1 --min-p 0.999999", "--temperature 1e-4", ""};
    struct answer want = generate("--prompt Lily --max-new-tokens 30 --temperature 0");
    for (int i = 0; i < 5; i++) {
        char options[200];
        snprintf(options, sizeof options, "--prompt Lily --max-new-tokens 30 %s", greedy[i]);
        struct answer got = generate(options);
        ck_assert_msg(strcmp(got.text, want.text) == 0, "%s: %s", greedy[i], got.text);
    }
    struct answer a = generate("--prompt Lily --max-new-tokens 30 --temperature 1 --seed 3"),
                  b = generate("--prompt Lily --max-new-tokens 30 --temperature 1 --seed 3"),
                  c = generate("--prompt Lily --max-new-tokens 30 --temperature 1 --seed 4");
    ck_assert_str_eq(a.text, b.text);
    ck_assert_str_ne(a.text, c.text);
    ck_assert_str_ne(a.text, want.text);
    /* A penalty keeps it from saying the same again. */
    struct answer penalised = generate("--prompt Lily --max-new-tokens 60 --repetition-penalty 5"),
                  plain = generate("--prompt Lily --max-new-tokens 60");
    int twice = 0, plain_twice = 0;
    for (int i = 0; i < 60; i++)
        for (int j = 0; j < i; j++) {
            twice += i < penalised.n && penalised.tokens[i] == penalised.tokens[j];
            plain_twice += i < plain.n && plain.tokens[i] == plain.tokens[j];
        }
    ck_assert_int_lt(twice, plain_twice / 4);
}
END_TEST

static uint32_t sample_once(const struct mosld_sample_params *p, const float *logits, uint32_t V, uint64_t draw)
{
    float copy[8];
    uint32_t token;
    struct rt_error err;
    memcpy(copy, logits, V * sizeof *copy);
    ck_assert_msg(mosld_sample(p, copy, V, NULL, 0, draw, &token, &err) == RT_OK, "%s", err.text);
    return token;
}

/* Shares of 20,000 draws; four standard errors are 0.014. */
static void check_shares(const struct mosld_sample_params *p, const double *want)
{
    const double probability[] = {0.1, 0.5, 0.25, 0.15};
    float logits[4];
    int count[4] = {0};
    for (int v = 0; v < 4; v++)
        logits[v] = (float)log(probability[v]) + 3;
    for (int i = 0; i < 20000; i++)
        count[sample_once(p, logits, 4, (uint64_t)i)]++;
    for (int v = 0; v < 4; v++)
        ck_assert_msg(want[v] == 0 ? count[v] == 0 : fabs(count[v] / 20000.0 - want[v]) < 0.0145,
                      "token %d: %d of 20000, wanted %g", v, count[v], want[v]);
}

START_TEST(sampling_has_the_right_shares)
{
    check_shares(&(struct mosld_sample_params){MOSLD_SAMPLE_DEFAULTS, .temperature = 1, .seed = 1},
                 (double[]){0.1, 0.5, 0.25, 0.15});
    check_shares(&(struct mosld_sample_params){MOSLD_SAMPLE_DEFAULTS, .temperature = 1, .top_k = 2, .seed = 1},
                 (double[]){0, 2 / 3.0, 1 / 3.0, 0});
    check_shares(&(struct mosld_sample_params){MOSLD_SAMPLE_DEFAULTS, .temperature = 1, .top_p = 0.7, .seed = 2},
                 (double[]){0, 2 / 3.0, 1 / 3.0, 0});
    check_shares(&(struct mosld_sample_params){MOSLD_SAMPLE_DEFAULTS, .temperature = 1, .top_p = 0.8, .seed = 2},
                 (double[]){0, 5 / 9.0, 2.5 / 9, 1.5 / 9});
    check_shares(&(struct mosld_sample_params){MOSLD_SAMPLE_DEFAULTS, .temperature = 1, .min_p = 0.25, .seed = 3},
                 (double[]){0, 5 / 9.0, 2.5 / 9, 1.5 / 9});
    check_shares(&(struct mosld_sample_params){MOSLD_SAMPLE_DEFAULTS, .temperature = 0.5, .seed = 4},
                 (double[]){0.01 / 0.345, 0.25 / 0.345, 0.0625 / 0.345, 0.0225 / 0.345}); /* probabilities squared */
    check_shares(&(struct mosld_sample_params){MOSLD_SAMPLE_DEFAULTS, .temperature = 0}, (double[]){0, 1, 0, 0});
}
END_TEST

START_TEST(logits_that_are_no_numbers)
{
    struct mosld_sample_params greedy = {MOSLD_SAMPLE_DEFAULTS}, warm = {MOSLD_SAMPLE_DEFAULTS, .temperature = 1};
    const float some[] = {NAN, -INFINITY, 1, 0.5f}, none[] = {NAN, NAN, -INFINITY, NAN};
    uint32_t token;
    struct rt_error err;
    float copy[4];
    ck_assert_uint_eq(sample_once(&greedy, some, 4, 0), 2);
    for (uint64_t i = 0; i < 50; i++)
        ck_assert_uint_ge(sample_once(&warm, some, 4, i), 2);
    memcpy(copy, none, sizeof copy);
    ck_assert_int_eq(mosld_sample(&greedy, copy, 4, NULL, 0, 0, &token, &err), RT_FAILED);
    const float ties[] = {0, 2, 2, 2};
    ck_assert_uint_eq(sample_once(&greedy, ties, 4, 0), 1); /* the lowest id */
}
END_TEST

/* ---- text ---- */

static bool is_utf8(const char *s)
{
    for (const unsigned char *p = (const unsigned char *)s; *p;) {
        int more = *p < 0x80                 ? 0
                   : *p >= 0xc2 && *p < 0xe0 ? 1
                   : *p >= 0xe0 && *p < 0xf0 ? 2
                   : *p >= 0xf0 && *p < 0xf5 ? 3
                                             : -1;
        if (more < 0)
            return false;
        for (p++; more > 0; more--, p++)
            if ((*p & 0xc0) != 0x80)
                return false;
    }
    return true;
}

/* At a temperature of 100 every token is about as likely, the single bytes among them; wherever it is cut, no half
 * character comes out. */
START_TEST(streamed_text_is_whole_utf8)
{
    bool special = false;
    for (int n = 1; n <= 40; n += 3) {
        ck_assert_int_eq(program(GENERATE "--prompt Tom --temperature 100 --seed 8 --max-new-tokens %d", n), 0);
        ck_assert_msg(is_utf8(program_out()), "%s", program_out());
        char *plain = strdup(program_out()), options[100];
        special = special || strpbrk(plain, "\xef\xc3\xe2") != NULL;
        snprintf(options, sizeof options, "--prompt Tom --temperature 100 --seed 8 --max-new-tokens %d", n);
        struct answer a = generate(options);
        plain[strlen(plain) - 1] = 0; /* the newline at the end */
        ck_assert_str_eq(plain, a.text);
        free(plain);
    }
    ck_assert_msg(special, "only ASCII came out, which tests nothing");
}
END_TEST

/* ---- what ends it ---- */

/* The model with another end token: the full stop, which it says often (its own it was never taught). */
static void write_model_that_ends_with(const char *path, int end)
{
    static const char key[] = "tokenizer.ggml.eos_token_id";
    size_t size;
    char *data = read_bytes(STORIES, &size), *at = memmem(data, size, key, sizeof key - 1);
    ck_assert_ptr_nonnull(at);
    const uint32_t type = 4, token = (uint32_t)end; /* GGUF's u32 */
    at += sizeof key - 1;
    ck_assert(memcmp(at, &type, 4) == 0);
    memcpy(at + 4, &token, 4);
    write_bytes(path, data, size);
    free(data);
}

START_TEST(it_stops_at_the_end_token)
{
    struct answer whole = generate("--prompt 'Once upon a time' --max-new-tokens 40");
    enum { FULL_STOP = 426 };
    int before = 0;
    while (before < whole.n && whole.tokens[before] != FULL_STOP)
        before++;
    ck_assert_int_lt(before, whole.n);
    write_model_that_ends_with("m.gguf", FULL_STOP);
    cJSON *json = program_json(
        program("generate --model m.gguf --device host --json --prompt 'Once upon a time' --max-new-tokens 40"));
    struct answer a = parse_answer(json);
    ck_assert_str_eq(a.stop, "end");
    ck_assert_int_eq(a.n, before); /* the end token itself is not said */
    ck_assert_str_eq(a.text, ", there was a little girl named Lily");
    cJSON_Delete(json);
}
END_TEST

/* With --context-shift it goes on; the token behind a shift is the likeliest behind what is left, as one pass over that has it. */
START_TEST(it_goes_on_where_the_context_is_shifted)
{
    enum { CONTEXT = 32, KEEP = 4, TOKENS = 60 };
    int seen[MOST], n = tokenize("Once upon a time", seen), V, dropped = 0;
    static const char *const types[] = {"f32", "f16"};
    for (int type = 0; type < 2; type++) {
        cJSON *json = program_json(program(GENERATE "--json --prompt 'Once upon a time' --context 32 --context-shift --max-new-tokens 60 --logit-bias 2=-100 --cache-type %s", types[type]));
        struct answer a = parse_answer(json);
        ck_assert_str_eq(a.stop, "length");
        ck_assert_int_eq(a.n, TOKENS);
        ck_assert_int_gt(cJSON_GetObjectItem(json, "dropped_tokens")->valueint, 0);
        n = tokenize("Once upon a time", seen);
        dropped = 0;
        for (int i = 0; i < a.n; i++) {
            if (n <= CONTEXT && (i == a.n - 1 || n < KEEP + (CONTEXT - KEEP) / 2 + 3) && type == 0 && dropped) { /* just behind a shift, and the last */
                float *logits = logits_of(STORIES, NULL, seen, n, &V), *row = logits + (size_t)(n - 1) * (size_t)V;
                for (int v = 0; v < V; v++)
                    ck_assert_msg(v == 2 || row[v] - row[a.tokens[i]] <= 1e-4f * fabsf(row[v]), "token %d: %d, but %d is likelier", i, a.tokens[i], v);
                free(logits);
            }
            seen[n++] = a.tokens[i];
            if (n > CONTEXT && i < a.n - 1) {
                int drop = (n - KEEP + 1) / 2;
                memmove(seen + KEEP, seen + KEEP + drop, (size_t)(n - KEEP - drop) * sizeof *seen);
                n -= drop;
                dropped += drop;
            }
        }
        ck_assert_int_eq(cJSON_GetObjectItem(json, "dropped_tokens")->valueint, dropped);
        cJSON_Delete(json);
    }
}
END_TEST

START_TEST(it_stops_where_the_context_is_full)
{
    int ids[MOST], n = tokenize("Once upon a time", ids);
    struct answer a = generate("--prompt 'Once upon a time' --context 16 --max-new-tokens 100");
    ck_assert_str_eq(a.stop, "context");
    ck_assert_int_eq(n + a.n, 17); /* sixteen in the context, and one that follows them */
    program_failed_as(program(GENERATE "--prompt 'Once upon a time there was a cat and a dog and a bird' --context 8"),
                      2, "context", "8 fit", NULL);
    program_failed_as(program(GENERATE "--prompt x --context 513"), 2, "--max-context", "512", NULL);
    a = generate("--prompt 'Once upon a time' --max-new-tokens 1000");
    ck_assert_str_eq(a.stop, "context");
    ck_assert_int_eq(n + a.n, 513);
}
END_TEST

START_TEST(conversations)
{
    program_failed_as(program(GENERATE "--chat --prompt Hi"), 2, "--chat-template", NULL);
    program_failed_as(program(GENERATE "--chat --prompt Hi --chat-template nonsense"), 2, "nonsense", "llama2", NULL);
    program_failed_as(program(GENERATE "--prompt Hi --system Be"), 2, "--system", NULL);
    program_failed_as(program(GENERATE), 2, "--prompt", NULL);
    cJSON *json = program_json(program(GENERATE "--chat --chat-template llama2 --prompt Hi --max-new-tokens 5 --json"));
    struct answer once = parse_answer(json);
    ck_assert_int_eq(once.n, 5);
    cJSON_Delete(json);
    write_text("in", "Hi\n\nAnd you\r\n");
    json = program_json(program(GENERATE "--chat --chat-template llama2 --max-new-tokens 5 --json < in"));
    ck_assert_int_eq(cJSON_GetArraySize(json), 2); /* an empty line says nothing */
    struct answer first = parse_answer(cJSON_GetArrayItem(json, 0));
    ck_assert_str_eq(first.text, once.text);
    ck_assert(cJSON_GetObjectItem(cJSON_GetArrayItem(json, 1), "prompt_tokens")->valuedouble >
              cJSON_GetObjectItem(cJSON_GetArrayItem(json, 0), "prompt_tokens")->valuedouble + 5);
    cJSON_Delete(json);
    ck_assert_int_eq(program(GENERATE "--chat --chat-template llama2 --max-new-tokens 5 < /dev/null"), 0);
    ck_assert_str_eq(program_out(), "");
}
END_TEST

/* A conversation that waits for its next message. */
START_TEST(interrupted)
{
    ck_assert_int_eq(mkfifo("in", 0666), 0);
    pid_t pid = program_start(GENERATE "--chat --chat-template llama2 --max-new-tokens 5 < in");
    int in = open("in", O_WRONLY); /* returns when the shell has opened the other end */
    ck_assert_int_ge(in, 0);
    ck_assert_int_eq((int)write(in, "Hi\n", 3), 3);
    size_t size = 0;
    while (!size) { /* until it has answered */
        usleep(1000);
        char *out = read_bytes(".out", &size);
        size = out[0] && out[size - 1] == '\n';
        free(out);
    }
    kill(pid, SIGINT);
    program_failed_as(program_wait(pid), 130, "interrupted", NULL);
    close(in);
}
END_TEST

START_TEST(output_that_cannot_be_written)
{
    program_failed_as(program(GENERATE "--prompt Hi --max-new-tokens 3 > /dev/full"), 1, "standard output", NULL);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("generate");
    TCase *tc = tcase_create("generate");
    tcase_add_checked_fixture(tc, program_folder_make, program_folder_remove);
    tcase_set_timeout(tc, 120);
    tcase_add_loop_test(tc, greedy_is_the_likeliest_of_a_whole_pass, 0, 4);
    tcase_add_test(tc, a_long_prompt_runs_in_pieces);
    tcase_add_test(tc, the_story_is_known);
    tcase_add_test(tc, sampling_through_the_program);
    tcase_add_test(tc, sampling_has_the_right_shares);
    tcase_add_test(tc, logits_that_are_no_numbers);
    tcase_add_test(tc, streamed_text_is_whole_utf8);
    tcase_add_test(tc, it_stops_at_the_end_token);
    tcase_add_test(tc, it_goes_on_where_the_context_is_shifted);
    tcase_add_test(tc, it_stops_where_the_context_is_full);
    tcase_add_test(tc, conversations);
    tcase_add_test(tc, interrupted);
    tcase_add_test(tc, output_that_cannot_be_written);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
