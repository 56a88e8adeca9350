/* tests/test_serve.c - mosld serve over sockets: OpenAI's API, many clients at once beside slow, broken and vanishing ones, limits, stopping. */
#include "tests/support/program.h"

#include <arpa/inet.h>
#include <check.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static int port;
static pid_t server;

/* ---- the server ---- */

static void train(const char *name, const char *said)
{
    write_text("t.jsonl", "{\"prompt\": \"Tom \", \"completion\": \"%s\"}\n", said);
    int status = program("train --model " STORIES " --device host --task t=t.jsonl --learning-rate 3e-2 --max-steps 6 --num-experts 4 --out %s", name);
    ck_assert_msg(status == 0, "%s", program_err());
}

static void start(const char *options)
{
    server = program_start("serve --model " STORIES " --device host --chat-template llama2 --port 0 --name stories %s", options);
    for (port = 0; !port;) {
        size_t size;
        usleep(10000);
        char *said = path_exists(".err") ? read_bytes(".err", &size) : strdup(""), *at = strstr(said, "listening on http://127.0.0.1:");
        ck_assert_msg(waitpid(server, NULL, WNOHANG) == 0, "it ended: %s", said);
        if (at && strchr(at, '\n'))
            port = atoi(at + strlen("listening on http://127.0.0.1:"));
        free(said);
    }
}

static void stop(void)
{
    kill(server, SIGTERM);
    ck_assert_int_eq(program_wait(server), 0);
}

/* ---- a client ---- */

static int dial(void)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    struct timeval limit = {.tv_sec = 100};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    if (connect(fd, (struct sockaddr *)&at, sizeof at) == 0)
        return fd;
    close(fd);
    return -1;
}

static void put(int fd, const char *text)
{
    for (size_t n = strlen(text); n;) {
        ssize_t m = send(fd, text, n, MSG_NOSIGNAL);
        if (m <= 0)
            return;
        text += m;
        n -= (size_t)m;
    }
}

struct reply {
    int status;
    char *head, *body; /* body without its chunks' framing */
};

static void forget(struct reply *r)
{
    free(r->head);
    *r = (struct reply){0};
}

/* Reads until the other side closes. */
static struct reply take(int fd)
{
    struct reply r = {0};
    size_t n = 0, cap = 1 << 16;
    char *data = malloc(cap + 1);
    for (ssize_t m; (m = recv(fd, data + n, cap - n, 0)) > 0;) {
        n += (size_t)m;
        if (n == cap)
            data = realloc(data, (cap *= 2) + 1);
    }
    close(fd);
    data[n] = 0;
    r.head = data;
    r.body = strstr(data, "\r\n\r\n");
    if (sscanf(data, "HTTP/1.1 %d", &r.status) != 1 || !r.body) {
        r.status = 0;
        r.body = data;
        return r;
    }
    *r.body = 0;
    r.body += 4;
    if (!strcasestr(data, "transfer-encoding: chunked"))
        return r;
    char *to = r.body, *from = r.body, *end;
    for (;;) {
        unsigned long size = strtoul(from, &end, 16);
        if (end == from || strncmp(end, "\r\n", 2) != 0 || !size || end + 2 + size > data + n)
            break;
        memmove(to, end + 2, size);
        to += size;
        from = end + 2 + size + 2;
    }
    *to = 0;
    return r;
}

static struct reply ask_with(const char *method, const char *path, const char *headers, const char *body)
{
    char *text;
    int fd = dial();
    if (fd < 0)
        return (struct reply){.head = strdup(""), .status = -1};
    if (asprintf(&text, "%s %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n%sContent-Length: %zu\r\n\r\n%s", method, path, headers, strlen(body), body) < 0)
        abort();
    put(fd, text);
    free(text);
    return take(fd);
}

static struct reply post(const char *path, const char *body) { return ask_with("POST", path, "Content-Type: application/json\r\n", body); }
static struct reply get(const char *path) { return ask_with("GET", path, "", ""); }

static cJSON *json_of(struct reply r, int status)
{
    ck_assert_msg(r.status == status, "status %d: %s", r.status, r.body);
    cJSON *json = cJSON_Parse(r.body);
    ck_assert_msg(json != NULL, "%s", r.body);
    forget(&r);
    return json;
}

/* The text of a whole answer, or of a stream's pieces; NULL where it did not come to its end. The caller's to free. */
static char *text_of(const struct reply *r, bool chat, bool stream)
{
    char *text = calloc(1, strlen(r->body) + 1);
    bool ended = !stream;
    if (r->status != 200) {
        free(text);
        return NULL;
    }
    for (char *at = r->body; at && *at;) {
        char *next = stream ? strstr(at, "\n\n") : NULL;
        if (next)
            *next = 0;
        const char *from = stream ? at + strlen("data: ") : at;
        if (strcmp(from, "[DONE]") == 0)
            ended = true;
        cJSON *json = cJSON_Parse(from), *choice = cJSON_GetArrayItem(cJSON_GetObjectItem(json, "choices"), 0);
        cJSON *holder = chat ? cJSON_GetObjectItem(choice, stream ? "delta" : "message") : choice;
        cJSON *piece = cJSON_GetObjectItem(holder, chat ? "content" : "text");
        if (cJSON_IsString(piece))
            strcat(text, piece->valuestring);
        cJSON_Delete(json);
        at = next ? next + 2 : NULL;
    }
    if (ended)
        return text;
    free(text);
    return NULL;
}

static char *complete(bool chat, bool stream, const char *fields)
{
    char body[1024];
    snprintf(body, sizeof body, "{%s, \"stream\": %s}", fields, stream ? "true" : "false");
    struct reply r = post(chat ? "/v1/chat/completions" : "/v1/completions", body);
    char *text = text_of(&r, chat, stream);
    forget(&r);
    return text;
}

/* ---- the API ---- */

START_TEST(answers)
{
    train("a", "saw a big dog in the sun.");
    start("--adapter dogs=a --temperature 0 --max-new-tokens 20");
    cJSON *json = json_of(get("/v1/models"), 200), *data = cJSON_GetObjectItem(json, "data");
    ck_assert_int_eq(cJSON_GetArraySize(data), 2);
    ck_assert_str_eq(cJSON_GetObjectItem(cJSON_GetArrayItem(data, 0), "id")->valuestring, "stories");
    ck_assert_str_eq(cJSON_GetObjectItem(cJSON_GetArrayItem(data, 1), "id")->valuestring, "dogs");
    ck_assert_str_eq(cJSON_GetObjectItem(cJSON_GetArrayItem(data, 1), "parent")->valuestring, "stories");
    cJSON_Delete(json);
    cJSON_Delete(json_of(get("/v1/models/dogs"), 200));
    cJSON_Delete(json_of(get("/v1/models/cats"), 404));
    cJSON_Delete(json_of(get("/health"), 200));
    /* The same as the program says, whole and streamed, with and without the adapter. */
    for (int adapter = 0; adapter < 2; adapter++) {
        char fields[200];
        ck_assert_int_eq(program("generate --model " STORIES " --device host --prompt 'Tom was' --max-new-tokens 20 %s", adapter ? "--adapter a" : ""), 0);
        char *want = strdup(program_out());
        want[strlen(want) - 1] = 0;
        snprintf(fields, sizeof fields, "\"prompt\": \"Tom was\", \"model\": \"%s\"", adapter ? "dogs" : "stories");
        for (int stream = 0; stream < 2; stream++) {
            char *got = complete(false, stream, fields);
            ck_assert_ptr_nonnull(got);
            ck_assert_str_eq(got, want);
            free(got);
        }
        free(want);
    }
    json = json_of(post("/v1/chat/completions", "{\"messages\": [{\"role\": \"system\", \"content\": \"Be.\"}, {\"role\": \"user\", \"content\": "
                                                "[{\"type\": \"text\", \"text\": \"Hi\"}]}], \"max_tokens\": 4, \"logprobs\": true, \"top_logprobs\": 2}"),
                   200);
    cJSON *choice = cJSON_GetArrayItem(cJSON_GetObjectItem(json, "choices"), 0);
    ck_assert_str_eq(cJSON_GetObjectItem(choice, "finish_reason")->valuestring, "length");
    ck_assert_int_eq(cJSON_GetArraySize(cJSON_GetObjectItem(cJSON_GetObjectItem(choice, "logprobs"), "content")), 4);
    ck_assert_int_eq(cJSON_GetObjectItem(cJSON_GetObjectItem(json, "usage"), "completion_tokens")->valueint, 4);
    cJSON_Delete(json);
    char *stopped = complete(false, true, "\"prompt\": \"Once upon a time\", \"stop\": [\"girl\"], \"max_tokens\": 40");
    ck_assert_str_eq(stopped, ", there was a little ");
    free(stopped);
    struct reply r = get("/metrics");
    ck_assert_msg(r.status == 200 && strstr(r.body, "mosld_answers_total 6\n") && strstr(r.body, "# TYPE mosld_requests_running gauge"), "%s", r.body);
    forget(&r);
    r = get("/");
    ck_assert(r.status == 200 && strstr(r.body, "<!doctype html>") && strstr(r.body, "</html>"));
    forget(&r);
    stop();
}
END_TEST

START_TEST(refusals)
{
    static const struct {
        const char *body, *want;
    } bad[] = {
        {"", "body"}, {"{", "body"}, {"[]", "object"}, {"null", "object"}, {"{}", "prompt"}, {"{\"prompt\": 5}", "prompt"}, {"{\"prompt\": []}", "prompt"},
        {"{\"prompt\": [1, \"a\"]}", "prompt"}, {"{\"prompt\": [1, 999999]}", "vocabulary"}, {"{\"prompt\": [-1]}", "prompt"},
        {"{\"prompt\": \"x\", \"temperature\": -1}", "temperature"}, {"{\"prompt\": \"x\", \"temperature\": \"hot\"}", "temperature"},
        {"{\"prompt\": \"x\", \"top_p\": 0}", "top_p"}, {"{\"prompt\": \"x\", \"max_tokens\": 0}", "max_tokens"},
        {"{\"prompt\": \"x\", \"max_tokens\": 1.5}", "max_tokens"}, {"{\"prompt\": \"x\", \"max_tokens\": 1e99}", "max_tokens"},
        {"{\"prompt\": \"x\", \"stop\": [\"\"]}", "stop"}, {"{\"prompt\": \"x\", \"stop\": {}}", "stop"}, {"{\"prompt\": \"x\", \"n\": 2}", "n:"},
        {"{\"prompt\": \"x\", \"logit_bias\": {\"a\": 1}}", "logit_bias"}, {"{\"prompt\": \"x\", \"logit_bias\": {\"5\": 1000}}", "logit_bias"},
        {"{\"prompt\": \"x\", \"stream\": 1}", "stream"}, {"{\"prompt\": \"x\", \"seed\": \"a\"}", "seed"}, {"{\"prompt\": \"x\", \"echo\": true}", "echo"},
        {"{\"prompt\": \"x\", \"response_format\": {\"type\": \"json_object\"}}", "response_format"}, {"{\"prompt\": \"\\u0000\"}", "u0000"},
        {"{\"prompt\": \"x\", \"model\": 5}", "model"}, {"{\"prompt\": \"x\", \"logprobs\": 99}", "logprobs"},
    };
    static const char *const chats[] = {"{}", "{\"messages\": []}", "{\"messages\": [1]}", "{\"messages\": [{\"role\": \"user\"}, 5]}",
                                        "{\"messages\": [{\"role\": \"pirate\", \"content\": \"x\"}]}", "{\"messages\": [{\"role\": \"assistant\", \"content\": \"x\"}]}",
                                        "{\"messages\": [{\"role\": \"user\", \"content\": 5}]}",
                                        "{\"messages\": [{\"role\": \"user\", \"content\": [{\"type\": \"image_url\"}]}]}",
                                        "{\"messages\": [{\"role\": \"user\", \"content\": \"x\"}], \"tools\": [{}]}"};
    start("--api-key secret --max-body 0.02");
#define KEY "Authorization: Bearer secret\r\n"
#define TYPE "Content-Type: application/json\r\n"
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct reply r = ask_with("POST", "/v1/completions", KEY TYPE, bad[i].body);
        ck_assert_msg(r.status == 400 && strstr(r.body, bad[i].want), "%s: %d %s", bad[i].body, r.status, r.body);
        cJSON_Delete(json_of(r, 400));
    }
    for (size_t i = 0; i < sizeof chats / sizeof *chats; i++)
        cJSON_Delete(json_of(ask_with("POST", "/v1/chat/completions", KEY TYPE, chats[i]), 400));
    char *large = calloc(1, 60000);
    memset(large, 'x', 59999);
    cJSON_Delete(json_of(ask_with("POST", "/v1/completions", KEY TYPE, large), 413));
    snprintf(large, 60000, "{\"prompt\": \"%0*d\"}", 15000, 1);
    cJSON_Delete(json_of(ask_with("POST", "/v1/completions", KEY TYPE, large), 400)); /* longer than the context */
    free(large);
    cJSON_Delete(json_of(ask_with("POST", "/v1/completions", TYPE, "{}"), 401));
    cJSON_Delete(json_of(ask_with("POST", "/v1/completions", TYPE "Authorization: Bearer secrer\r\n", "{}"), 401));
    cJSON_Delete(json_of(ask_with("POST", "/v1/completions", TYPE "Authorization: Bearer \r\n", "{}"), 401));
    cJSON_Delete(json_of(get("/v1/models"), 401));
    cJSON_Delete(json_of(get("/metrics"), 401));
    cJSON_Delete(json_of(get("/health"), 200));
    cJSON_Delete(json_of(ask_with("POST", "/v1/completions", KEY "Content-Type: text/plain\r\n", "{}"), 415));
    cJSON_Delete(json_of(ask_with("GET", "/v1/completions", KEY, ""), 405));
    cJSON_Delete(json_of(ask_with("DELETE", "/health", KEY, ""), 405));
    cJSON_Delete(json_of(get("/nothing"), 404));
    cJSON_Delete(json_of(ask_with("POST", "/v1/completions", KEY TYPE, "{\"prompt\": \"x\", \"model\": \"gpt-4\"}"), 404));
    int fd = dial();
    put(fd, "GET /health HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n"); /* a name that was made point here */
    cJSON_Delete(json_of(take(fd), 403));
    stop();
    program_failed_as(program("serve --model " STORIES " --device host --port 99999"), 2, "--port", NULL);
    program_failed_as(program("serve --model " STORIES " --device host --host 'no such host'"), 2, "--host", NULL);
    program_failed_as(program("serve --model " STORIES " --device host --adapter x=a --adapter x=b"), 2, "taken", NULL);
    program_failed_as(program("serve --model " STORIES " --device host --adapter nowhere"), 3, "nowhere", NULL);
}
END_TEST

/* ---- many at once ---- */

enum { CLIENTS = 200, KINDS = 12 };
static char fields[KINDS][300], *alone[KINDS];
static atomic_int wrong, unanswered;

static void *client(void *user)
{
    int i = (int)(size_t)user, kind = i * 7 % KINDS;
    char *text = complete(false, true, fields[kind]);
    if (!text)
        unanswered++;
    else if (strcmp(text, alone[kind]) != 0)
        wrong++;
    free(text);
    return NULL;
}

/* One of those that servers meet: half a header for ever, rubbish, a body that never comes, an answer that is never read, one who leaves. */
static void *nuisance(void *user)
{
    static const char *const said[] = {
        "GET /hea", "\x16\x03\x01\x02garbage\r\n\r\n", "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{\"pro",
        "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 70\r\n\r\n{\"prompt\": \"Tom\", \"stream\": true, \"max_tokens\": 400, \"temperature\": 2.0}",
        "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 71\r\n\r\n{\"prompt\": \"Tom\", \"stream\": false, \"max_tokens\": 400, \"temperature\": 2.0}"};
    int i = (int)(size_t)user, fd = dial();
    if (fd < 0)
        return NULL;
    put(fd, said[i % 5]);
    usleep(i % 5 == 4 ? 20000 : 2000000);
    close(fd);
    return NULL;
}

static long resident_kib(pid_t pid)
{
    char path[64], line[256];
    long kib = 0;
    snprintf(path, sizeof path, "/proc/%d/status", (int)pid);
    FILE *f = fopen(path, "r");
    while (f && fgets(line, sizeof line, f))
        sscanf(line, "VmRSS: %ld", &kib);
    if (f)
        fclose(f);
    return kib;
}

static void crowd(void)
{
    pthread_t threads[CLIENTS], others[20];
    for (size_t i = 0; i < 20; i++)
        ck_assert_int_eq(pthread_create(&others[i], NULL, nuisance, (void *)i), 0);
    for (size_t i = 0; i < CLIENTS; i++)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, client, (void *)i), 0);
    for (size_t i = 0; i < CLIENTS; i++)
        pthread_join(threads[i], NULL);
    for (size_t i = 0; i < 20; i++)
        pthread_join(others[i], NULL);
    ck_assert_msg(wrong == 0 && unanswered == 0, "of %d, %d were not answered and %d said something else than alone", CLIENTS, (int)unanswered, (int)wrong);
}

START_TEST(two_hundred_streams)
{
    static const char *const prompts[] = {"Once upon a time", "Tom was", "The dog", "One day, a little girl named Lily found a needle in her room"},
                             *const models[] = {"stories", "one", "two"};
    train("a", "saw a big dog in the sun.");
    train("b", "went to the park with his mom and dad.");
    start("--adapter one=a --adapter two=b --parallel 8");
    for (int k = 0; k < KINDS; k++) {
        snprintf(fields[k], sizeof fields[k], "\"prompt\": \"%s\", \"model\": \"%s\", \"max_tokens\": %d, \"temperature\": %s, \"seed\": %d", prompts[k % 4],
                 models[k % 3], 3 + 9 * (k % 5), k % 2 ? "0.8" : "0", k);
        alone[k] = complete(false, true, fields[k]);
        ck_assert_ptr_nonnull(alone[k]);
    }
    ck_assert_str_ne(alone[0], alone[4]); /* the same prompt through another adapter */
    crowd();
    long before = resident_kib(server);
    for (int i = 0; i < 4; i++)
        crowd();
    long after = resident_kib(server);
#ifdef __SANITIZE_ADDRESS__ /* keeps what was freed, and looks for leaks itself when the server ends */
    (void)before, (void)after;
#else
    ck_assert_msg(after < before + 3072, "800 requests left %ld KiB", after - before);
#endif
    for (int k = 0; k < KINDS; k++)
        free(alone[k]);
    stop();
}
END_TEST

/* ---- limits ---- */

#define LONG "{\"prompt\": \"Once upon a time\", \"max_tokens\": 450, \"stream\": true, \"temperature\": 1.5}"

static int begin_stream(const char *body)
{
    char text[1024];
    int fd = dial();
    snprintf(text, sizeof text, "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s",
             strlen(body), body);
    put(fd, text);
    return fd;
}

START_TEST(a_full_queue)
{
    start("--parallel 1 --max-queue 2");
    int fds[40], ok = 0, refused = 0;
    for (int i = 0; i < 40; i++)
        fds[i] = begin_stream(LONG);
    for (int i = 0; i < 40; i++) {
        struct reply r = take(fds[i]);
        ok += r.status == 200;
        refused += r.status == 429 && strcasestr(r.head, "retry-after:") != NULL;
        forget(&r);
    }
    ck_assert_msg(ok >= 1 && refused >= 1 && ok + refused == 40, "%d answered, %d refused", ok, refused);
    stop();
}
END_TEST

START_TEST(time_limits)
{
    start("--parallel 1 --timeout 0.001");
    int first = begin_stream(LONG), second = begin_stream(LONG);
    struct reply a = take(first), b = take(second);
    /* What had begun ends early, as an answer; what waited is told so. */
    ck_assert_msg(a.status == 503 || (a.status == 200 && strstr(a.body, "\"length\"")), "%d %s", a.status, a.body);
    ck_assert_msg(b.status == 503 || (b.status == 200 && strstr(b.body, "\"length\"")), "%d %s", b.status, b.body);
    forget(&a);
    forget(&b);
    stop();
}
END_TEST

START_TEST(stopping)
{
    start("--parallel 1");
    int running = begin_stream(LONG);
    char byte;
    ck_assert_int_eq((int)recv(running, &byte, 1, 0), 1); /* it has begun */
    kill(server, SIGTERM);
    struct reply r = take(running);
    ck_assert_msg(strstr(r.body, "[DONE]") != NULL, "the answer was cut off: %s", r.body); /* (without its first byte there is no status) */
    forget(&r);
    ck_assert_int_eq(program_wait(server), 0);
    ck_assert_int_lt(dial(), 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("serve");
    TCase *tc = tcase_create("serve");
    tcase_add_checked_fixture(tc, program_folder_make, program_folder_remove);
    tcase_set_timeout(tc, 400);
#ifdef HAVE_LIBMICROHTTPD
    tcase_add_test(tc, answers);
    tcase_add_test(tc, refusals);
    tcase_add_test(tc, two_hundred_streams);
    tcase_add_test(tc, a_full_queue);
    tcase_add_test(tc, time_limits);
    tcase_add_test(tc, stopping);
#else
    fprintf(stderr, "skipped: built without libmicrohttpd\n");
    return 77;
#endif
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
