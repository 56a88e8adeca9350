/* tests/test_cli_chat.c - mosld chat at a terminal: a pseudo-terminal that types and reads, as a person would. */
#include "tests/support/program.h"
#include "tests/support/skip.h"
#include "tools/wrap.h"

#include <check.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

static int terminal = -1;
static pid_t child;
static char seen[1 << 20];
static size_t n_seen;

/* A bare chroot has no pseudo-terminals. */
static bool has_terminals(void)
{
    int fd = posix_openpt(O_RDWR | O_NOCTTY);
    bool has = fd >= 0 && grantpt(fd) == 0 && unlockpt(fd) == 0;
    if (fd >= 0)
        close(fd);
    return has;
}

static void start(const char *max_new_tokens, const char *adapter)
{
    terminal = posix_openpt(O_RDWR | O_NOCTTY);
    ck_assert(terminal >= 0 && grantpt(terminal) == 0 && unlockpt(terminal) == 0);
    const char *name = ptsname(terminal);
    n_seen = 0;
    child = fork();
    if (child == 0) {
        setsid();
        int fd = open(name, O_RDWR); /* becomes the controlling terminal, so that Ctrl-C is a signal */
        struct winsize size = {.ws_row = 30, .ws_col = 80};
        ioctl(fd, TIOCSWINSZ, &size);
        for (int i = 0; i < 3; i++)
            dup2(fd, i);
        setenv("HOME", ".", 1);
        unsetenv("XDG_STATE_HOME");
        setenv("TERM", "xterm", 1);
        execl(MOSLD_PROGRAM, "mosld", "chat", "--model", STORIES, "--device", "host", "--chat-template", "llama2", "--max-new-tokens",
              max_new_tokens, adapter ? "--adapter" : NULL, adapter, NULL);
        _exit(99);
    }
    ck_assert_int_gt(child, 0);
}

/* Reads until the text has come, behind `from`; returns where it ends. */
static size_t expect(const char *text, size_t from)
{
    time_t give_up = time(NULL) + 60;
    for (;;) {
        const char *at = n_seen > from ? memmem(seen + from, n_seen - from, text, strlen(text)) : NULL;
        if (at)
            return (size_t)(at - seen) + strlen(text);
        struct pollfd fd = {.fd = terminal, .events = POLLIN};
        ck_assert_msg(time(NULL) < give_up, "waited for '%s', saw '%.*s'", text, (int)(n_seen - from), seen + from);
        if (poll(&fd, 1, 1000) > 0) {
            ssize_t n = read(terminal, seen + n_seen, sizeof seen - n_seen - 1);
            ck_assert_msg(n > 0, "it ended while '%s' was waited for: '%.*s'", text, (int)(n_seen - from), seen + from);
            n_seen += (size_t)n;
        }
    }
}

/* The editor prints its prompt before it takes the terminal over; what a person types later, a test might type in between. */
static void wait_for_editor(void)
{
#if defined HAVE_LIBEDIT
    struct termios now;
    for (int i = 0; i < 6000 && tcgetattr(terminal, &now) == 0 && (now.c_lflag & ICANON); i++)
        usleep(10000);
#endif
}

static void press(const char *text) { ck_assert_int_eq(write(terminal, text, strlen(text)), (int)strlen(text)); }

static void type(const char *text)
{
    wait_for_editor();
    press(text);
}

/* Until nothing has come for two seconds: whatever Ctrl-C met has then been dealt with. */
static void settle(size_t from)
{
    struct pollfd fd = {.fd = terminal, .events = POLLIN};
    while (poll(&fd, 1, 2000) > 0) {
        ssize_t n = read(terminal, seen + n_seen, sizeof seen - n_seen - 1);
        ck_assert_msg(n > 0, "it ended: '%.*s'", (int)(n_seen - from), seen + from);
        n_seen += (size_t)n;
    }
}

static void ends_with(int status)
{
    int how;
    time_t give_up = time(NULL) + 60;
    while (waitpid(child, &how, WNOHANG) == 0) {
        struct pollfd fd = {.fd = terminal, .events = POLLIN};
        ck_assert_msg(time(NULL) < give_up, "it does not end; it said '%.*s'", (int)n_seen, seen);
        if (poll(&fd, 1, 100) > 0 && n_seen < sizeof seen - 1) {
            ssize_t n = read(terminal, seen + n_seen, sizeof seen - n_seen - 1);
            n_seen += n > 0 ? (size_t)n : 0;
        }
    }
    close(terminal);
    ck_assert_msg(WIFEXITED(how) && WEXITSTATUS(how) == status, "status %d", how);
}

START_TEST(a_conversation)
{
    start("6", NULL);
    size_t at = expect("/help lists", 0);
    at = expect("> ", at);
    type("/help\r");
    at = expect("Ctrl-C stops an answer", at);
    at = expect("> ", at);
    type("/nonsense\r");
    at = expect("there is no command /nonsense", at);
    type("/adapter nowhere\r");
    at = expect("there is no adapter nowhere", at);
    type("/system Be brief.\r");
    at = expect("a new conversation", at);
    type("/stats\r");
    at = expect("speeds are told", at);
    type("Hello\r");
    at = expect("tokens of prompt", at);
    type("Hello again\r");
    at = expect("was cached", at);
    type("/retry\r");
    at = expect("tokens of prompt", at);
    type("/save said.jsonl\r");
    at = expect("5 messages in said.jsonl", at);
    cJSON *json = json_line("said.jsonl", 0);
    const cJSON *messages = cJSON_GetObjectItem(json, "messages");
    static const char *const roles[] = {"system", "user", "assistant", "user", "assistant"};
    for (int i = 0; i < 5; i++)
        ck_assert_str_eq(cJSON_GetObjectItem(cJSON_GetArrayItem(messages, i), "role")->valuestring, roles[i]);
    ck_assert_str_eq(cJSON_GetObjectItem(cJSON_GetArrayItem(messages, 3), "content")->valuestring, "Hello again");
    cJSON_Delete(json);
    type("/reset\r");
    at = expect("a new conversation", at);
    type("/quit\r");
    ends_with(0);
}
END_TEST

START_TEST(interrupts)
{
    start("400", NULL);
    size_t at = expect("> ", 0);
    type("Hello\r");
    at = expect("\n", at);
    usleep(30000);
    press("\003");
    at = expect("> ", at); /* the answer was stopped, or had ended: it is asked again, and has not gone */
    settle(at);
    type("/stats\r"); /* had it ended, this was the first Ctrl-C of two: anything else forgets it */
    at = expect("speeds are", at);
    at = expect("> ", at);
    type("\003");
    at = expect("Ctrl-C again", at);
    type("/stats\r");
    at = expect("speeds are", at);
    at = expect("> ", at);
    type("\003");
    at = expect("Ctrl-C again", at);
    at = expect("> ", at);
    usleep(300000);
    type("\003");
    ends_with(0);
    start("5", NULL);
    expect("> ", 0);
    type("\004");
    ends_with(0);
}
END_TEST

#if defined HAVE_LIBEDIT
START_TEST(editing_and_history)
{
    start("3", NULL);
    size_t at = expect("> ", 0);
    type("stats\001/\r"); /* Ctrl-A: to the beginning */
    at = expect("speeds are told", at);
    type("/quit\r");
    ends_with(0);
    ck_assert(path_exists(".local/state/mosld/chat_history"));
    start("3", NULL);
    at = expect("> ", 0);
    type("\033[A\033[A\r"); /* up, up: the line of the program before */
    at = expect("speeds are told", at);
    type("\004");
    ends_with(0);
}
END_TEST
#endif

/* Lines end between words: in 24 columns no line is longer, and no word is cut that would fit. */
START_TEST(wrapping)
{
    static const struct {
        const char *pieces[6], *want;
    } cases[] = {
        {{"one two three four five six", NULL}, "one two three four five\nsix"},
        {{"one two th", "ree fo", "ur fiv", "e six", NULL}, "one two three four five\nsix"},
        {{"a\n    code(x);\n", "b", NULL}, "a\n    code(x);\nb"},
        {{"an averylongwordthatisnotbrokenatall x", NULL}, "an\naverylongwordthatisnotbrokenatall\nx"},
        {{"123456789 123456789 1234", NULL}, "123456789 123456789 1234"},
        {{"123456789 123456789 12345", NULL}, "123456789 123456789\n12345"},
        {{"\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4 123456789 12345678", " x", NULL}, "\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4 123456789 12345678\nx"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *out;
        size_t n;
        struct wrap w = {.to = open_memstream(&out, &n), .width = 24};
        for (int k = 0; cases[i].pieces[k]; k++)
            wrap_text(&w, cases[i].pieces[k], strlen(cases[i].pieces[k]));
        wrap_flush(&w);
        fclose(w.to);
        ck_assert_str_eq(out, cases[i].want);
        free(out);
    }
}
END_TEST

START_TEST(adapters)
{
    write_text("t.jsonl", "{\"prompt\": \"Tom \", \"completion\": \"saw a big dog in the sun.\"}\n");
    ck_assert_msg(program("train --model " STORIES " --device host --task t=t.jsonl --learning-rate 1e-2 --max-steps 3 --out one") == 0, "%s", program_err());
    ck_assert_int_eq(system("cp -r one two"), 0);
    start("5", "first=one");
    size_t at = expect("> ", 0);
    type("/adapter\r");
    at = expect("* first", at);
    type("/adapter none\r");
    type("/adapter\r");
    at = expect("* none", at);
    type("/adapter two\r");
    type("/adapter\r");
    at = expect("* two", at);
    type("Hello\r");
    type("/quit\r");
    ends_with(0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("cli_chat");
    TCase *tc = tcase_create("terminal");
    tcase_add_checked_fixture(tc, program_folder_make, program_folder_remove);
    tcase_set_timeout(tc, 180);
    tcase_add_test(tc, wrapping);
    if (has_terminals()) {
        tcase_add_test(tc, a_conversation);
        tcase_add_test(tc, interrupts);
#if defined HAVE_LIBEDIT
        tcase_add_test(tc, editing_and_history);
#endif
        tcase_add_test(tc, adapters);
    } else {
        test_skipped("what needs a terminal: this system has no pseudo-terminals (is /dev/pts mounted?)");
    }
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
