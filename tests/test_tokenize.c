/* tests/test_tokenize.c - the command mosld tokenize: what it prints, and its exit status. */
#include "mosld/io/file.h"
#include "tests/support/text_test.h"
#include "tools/commands.h"

#include <check.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static char *folder;

static void set_up(void)
{
    static const char *const merges[] = {"h i", NULL};
    char *json = recipe_json(&(struct tokenizer_recipe){
        .merges = merges, .added_tokens = "[{\"id\":257,\"content\":\"<s>\",\"special\":true}]"});
    folder = make_folder();
    write_text_file(folder, "tokenizer.json", json, strlen(json));
    write_text_file(folder, "tokenizer_config.json", "{\"bos_token\":\"<s>\"}", 19);
    write_text_file(folder, "text.txt", "hi\xFF\n", 4);
    write_text_file(folder, "in", "hi hi", 5);
    free(json);
}

static void tear_down(void)
{
    remove_folder(folder);
}

/* Runs the command in a process of its own, with folder/in as its input. Returns its exit status; *out and *err are
 * what it printed, to be freed. */
static int run(const char *const *args, char **out, char **err)
{
    char *argv[16] = {(char *)"tokenize"};
    int argc = 1, status;
    size_t size;
    for (; args[argc - 1]; argc++)
        argv[argc] = (char *)args[argc - 1];
    ck_assert_int_eq(chdir(folder), 0);
    pid_t child = fork();
    if (child == 0) {
        int to_out = open("out", O_CREAT | O_TRUNC | O_WRONLY, 0600),
            to_err = open("err", O_CREAT | O_TRUNC | O_WRONLY, 0600);
        if (dup2(open("in", O_RDONLY), 0) < 0 || dup2(to_out, 1) < 0 || dup2(to_err, 2) < 0)
            _exit(99);
        status = cmd_tokenize(argc, argv);
        fflush(NULL);
        _exit(status);
    }
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert(WIFEXITED(status));
    ck_assert_int_eq(file_read("out", 1 << 20, out, &size, NULL), RT_OK);
    ck_assert_int_eq(file_read("err", 1 << 20, err, &size, NULL), RT_OK);
    return WEXITSTATUS(status);
}

#define MODEL "--model", "."
static const struct {
    const char *args[10];
    int status;
    const char *out; /* all of standard output */
    const char *err; /* must stand on standard error */
} rows[] = {
    {{MODEL, "--text", "hi <s>"}, 0, "256 32 257\n", ""},
    {{MODEL, "--text", "hi <s>", "--no-special"}, 0, "256 32 60 115 62\n", ""},
    {{MODEL, "--text", "hi", "--add-bos"}, 0, "257 256\n", ""},
    {{MODEL, "--text", "hi", "--no-bos"}, 0, "256\n", ""},
    {{MODEL, "--text", ""}, 0, "\n", ""},
    {{MODEL, "--text=hi a", "--json"}, 0, "{\"ids\":[256,32,97],\"pieces\":[\"hi\",\"\xC4\xA0\",\"a\"]}\n", ""},
    {{MODEL, "--file", "text.txt"}, 0, "256 239 191 189 10\n", ""},
    {{MODEL}, 0, "256 32 256\n", ""}, /* standard input */
    {{MODEL, "--decode", "256 32,256, 257"}, 0, "hi hi<s>\n", ""},
    {{MODEL, "--decode", "256 255", "--json"}, 0, "{\"ids\":[256,255],\"text\":\"hi\xEF\xBF\xBD\"}\n", ""},
    {{MODEL, "--decode", ""}, 0, "\n", ""},
    {{MODEL, "--decode", "1 x"}, 2, "", "'x'"},
    {{MODEL, "--decode", "-1"}, 2, "", "'-1'"},
    {{MODEL, "--decode", "258"}, 2, "", "258"},
    {{MODEL, "--decode", "99999999999"}, 2, "", "99999999999"},
    {{MODEL, "--text", "a", "--file", "text.txt"}, 2, "", "exclude"},
    {{MODEL, "--text"}, 2, "", "--text needs a value"},
    {{MODEL, "--bogus"}, 2, "", "--bogus"},
    {{MODEL, "stray"}, 2, "", "stray"},
    {{"--text", "a"}, 2, "", "--model"},
    {{MODEL, "--file", "none.txt"}, 3, "", "none.txt"},
    {{"--model", "./nothing.gguf", "--text", "a"}, 3, "", "nothing.gguf"},
    {{"--model", "text.txt", "--text", "a"}, 3, "", "text.txt"},
};

START_TEST(prints_and_exits)
{
    char *out, *err;
    int status = run(rows[_i].args, &out, &err);
    ck_assert_msg(status == rows[_i].status, "status %d, want %d: %s", status, rows[_i].status, err);
    ck_assert_str_eq(out, rows[_i].out);
    ck_assert_msg(strstr(err, rows[_i].err) != NULL, "%s", err);
    free(out);
    free(err);
}
END_TEST

START_TEST(help_is_no_error)
{
    char *out, *err;
    ck_assert_int_eq(run((const char *const[]){"--help", NULL}, &out, &err), 0);
    ck_assert_ptr_nonnull(strstr(out, "--decode"));
    ck_assert_str_eq(err, "");
    free(out);
    free(err);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("mosld tokenize");
    TCase *tc = tcase_create("command");
    tcase_add_checked_fixture(tc, set_up, tear_down);
    tcase_add_loop_test(tc, prints_and_exits, 0, sizeof rows / sizeof *rows);
    tcase_add_test(tc, help_is_no_error);
    suite_add_tcase(s, tc);
    SRunner *runner = srunner_create(s);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
