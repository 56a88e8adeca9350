/* tests/test_pull.c - mosld pull from a hub that a Python script plays (skipped, aloud, where there is no python3): the cache's layout, what is
 * fetched, going on after breaks, hashes, refusals; and models found in the cache by name. */
#include "tests/support/program.h"

#include <check.h>
#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define COMMIT "0123456789abcdef0123456789abcdef01234567"
#define CACHE  "home/hub/"
enum { LARGE = 256 * 3000 };

static pid_t hub;

static void setup(void)
{
    int out[2];
    char line[32] = "";
    program_folder_make();
    ck_assert_int_eq(pipe(out), 0);
    hub = fork();
    if (hub == 0) {
        dup2(out[1], 1);
        close(out[0]);
        execlp("python3", "python3", MOSLD_SOURCE_DIR "/tests/support/fake_hub.py", NULL);
        _exit(99);
    }
    close(out[1]);
    FILE *f = fdopen(out[0], "r");
    ck_assert_ptr_nonnull(fgets(line, sizeof line, f));
    fclose(f);
    char endpoint[64];
    snprintf(endpoint, sizeof endpoint, "http://127.0.0.1:%d", atoi(line));
    setenv("HF_ENDPOINT", endpoint, 1);
    setenv("HF_HOME", "home", 1);
    setenv("no_proxy", "*", 1);
    unsetenv("HF_TOKEN");
    unsetenv("HF_HUB_CACHE");
    unsetenv("HF_HUB_OFFLINE");
}

static void teardown(void)
{
    kill(hub, SIGKILL);
    waitpid(hub, NULL, 0);
    program_folder_remove();
}

static void done(int status) { ck_assert_msg(status == 0, "status %d: %s", status, program_err()); }

static int files_in(const char *folder)
{
    int n = 0;
    DIR *dir = opendir(folder);
    for (struct dirent *e; dir && (e = readdir(dir));)
        n += e->d_name[0] != '.';
    if (dir)
        closedir(dir);
    return n;
}

static int log_lines(const char *pattern)
{
    size_t size;
    int n = 0;
    if (!path_exists("hub.log"))
        return 0;
    char *log = read_bytes("hub.log", &size);
    for (char *at = log; (at = strstr(at, pattern)); at++)
        n++;
    free(log);
    return n;
}

/* What the script serves under a name of its own. */
static void check_large(const char *path, const char *file)
{
    size_t size;
    char *data = read_bytes(path, &size);
    ck_assert_uint_eq(size, LARGE + strlen(file));
    for (int i = 0; i < LARGE; i++)
        ck_assert_uint_eq((unsigned char)data[i], i % 256);
    ck_assert_str_eq(data + LARGE, file);
    free(data);
}

START_TEST(a_folder)
{
    setenv("HF_TOKEN", "good", 1);
    done(program("pull good/hf"));
    ck_assert_str_eq(program_out(), CACHE "models--good--hf/snapshots/" COMMIT "\n");
    ck_assert_int_eq(files_in(CACHE "models--good--hf/snapshots/" COMMIT), 3); /* not the README, nor other forms of the weights */
    ck_assert_int_eq(files_in(CACHE "models--good--hf/blobs"), 3);
    check_large(CACHE "models--good--hf/snapshots/" COMMIT "/model.safetensors", "model.safetensors");
    char link[200];
    ssize_t n = readlink(CACHE "models--good--hf/snapshots/" COMMIT "/config.json", link, sizeof link - 1);
    ck_assert_int_gt((int)n, 0);
    ck_assert_int_eq(strncmp(link, "../../blobs/", 12), 0);
    size_t size;
    char *ref = read_bytes(CACHE "models--good--hf/refs/main", &size);
    ck_assert_str_eq(ref, COMMIT);
    free(ref);
    /* The token goes to the hub, and not to where it leads. */
    ck_assert_int_gt(log_lines(" token"), 4);
    ck_assert_int_eq(log_lines("GET /cdn/good/hf/model.safetensors - none"), 1);
    /* What is there is not fetched again. */
    done(program("pull good/hf"));
    ck_assert_int_eq(log_lines("/cdn/"), 1);
    done(program("pull good/shards --revision v1"));
    ck_assert_int_eq(files_in(CACHE "models--good--shards/snapshots/" COMMIT), 4);
    ck_assert(path_exists(CACHE "models--good--shards/refs/v1"));
    done(program("pull renamed/new"));
}
END_TEST

START_TEST(single_files)
{
    done(program("pull good/one"));
    ck_assert_str_eq(program_out(), CACHE "models--good--one/snapshots/" COMMIT "/m.Q4_0.gguf\n");
    check_large(CACHE "models--good--one/snapshots/" COMMIT "/m.Q4_0.gguf", "m.Q4_0.gguf");
    program_failed_as(program("pull good/many"), 2, "a.gguf, b.gguf, deep/er/c.gguf", NULL);
    done(program("pull good/many:deep/er/c.gguf"));
    check_large(CACHE "models--good--many/snapshots/" COMMIT "/deep/er/c.gguf", "deep/er/c.gguf");
    ck_assert_int_eq(files_in(CACHE "models--good--many/blobs"), 1);
    done(program("pull good/split:s-00001-of-00002.gguf"));
    ck_assert_int_eq(files_in(CACHE "models--good--split/snapshots/" COMMIT), 2);
    done(program("pull good/mirror")); /* its ETag is no hash: the length is checked */
    setenv("HF_HUB_CACHE", "elsewhere", 1);
    done(program("pull good/one"));
    ck_assert(path_exists("elsewhere/models--good--one/refs/main"));
}
END_TEST

START_TEST(breaks)
{
    static const char *const repos[] = {"bad/broken", "bad/norange"};
    for (int i = 0; i < 2; i++) {
        char path[200];
        done(program("pull %s", repos[i]));
        snprintf(path, sizeof path, CACHE "models--bad--%s/snapshots/" COMMIT "/m.gguf", repos[i] + 4);
        check_large(path, "m.gguf");
    }
    ck_assert_int_eq(log_lines("GET /cdn/bad/broken/m.gguf bytes=100001- "), 1); /* it went on where it broke */
    ck_assert_int_eq(log_lines("GET /cdn/bad/broken/m.gguf -"), 1);
    done(program("pull bad/busy")); /* 503 twice, then well */
    program_failed_as(program("pull bad/down"), 1, "500", NULL);
    /* A download that an earlier run left half done. */
    size_t size;
    char *whole = read_bytes(CACHE "models--bad--busy/snapshots/" COMMIT "/m.gguf", &size), link[200] = "", partial[300];
    ck_assert_int_gt((int)readlink(CACHE "models--bad--busy/snapshots/" COMMIT "/m.gguf", link, sizeof link - 1), 12);
    ck_assert_int_eq(system("rm -rf " CACHE "models--bad--busy && mkdir -p " CACHE "models--bad--busy/blobs"), 0);
    snprintf(partial, sizeof partial, CACHE "models--bad--busy/blobs/%s.incomplete", link + 12);
    write_bytes(partial, whole, 1234);
    done(program("pull bad/busy"));
    check_large(CACHE "models--bad--busy/snapshots/" COMMIT "/m.gguf", "m.gguf");
    ck_assert_int_eq(log_lines("GET /cdn/bad/busy/m.gguf bytes=1234-"), 1);
    free(whole);
}
END_TEST

START_TEST(damage)
{
    program_failed_as(program("pull bad/hash"), 1, "damaged", "m.gguf", NULL);
    ck_assert_int_eq(files_in(CACHE "models--bad--hash/blobs"), 0);
    ck_assert(!path_exists(CACHE "models--bad--hash/refs/main"));
    done(program("pull bad/hash")); /* the second time it comes whole */
    program_failed_as(program("pull bad/smallhash"), 1, "config.json", "damaged", NULL);
    program_failed_as(program("pull bad/short"), 1, "bytes", NULL);
    program_failed_as(program("pull bad/long"), 1, "m.gguf", NULL);
    program_failed_as(program("pull bad/etag"), 1, "m.gguf", NULL);
    program_failed_as(program("pull bad/noetag"), 1, "ETag", NULL);
    program_failed_as(program("pull bad/sha"), 1, "sha", NULL);
    program_failed_as(program("pull bad/traversal"), 1, "no path below a folder", NULL);
    ck_assert(!path_exists(CACHE "models--bad--traversal/refs/main") && system("find . -name '*evil*' | grep -q .") != 0);
}
END_TEST

START_TEST(refusals)
{
    static const char *const names[] = {"", "a/b/c", "../x", "/etc/passwd", "a/..", "-x/y", "a/b:", "a/b:../c", "a/b:/c", "a/b:c/../d", "a b/c", "a/b\\c"};
    program_failed_as(program("pull"), 2, "ORG/NAME", NULL);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        ck_assert_msg(program("pull -- '%s'", names[i]) == 2, "%s: %s", names[i], program_err());
    program_failed_as(program("pull good/one --revision ../x"), 2, "--revision", NULL);
    program_failed_as(program("pull no/such"), 3, "no/such", "404", NULL);
    program_failed_as(program("pull good/one --revision v9"), 3, "404", NULL);
    program_failed_as(program("pull good/one:missing.gguf"), 3, "missing.gguf", NULL);
    program_failed_as(program("pull bad/nothing"), 3, "nothing that mosld runs", NULL);
    program_failed_as(program("pull gated/model"), 3, "HF_TOKEN", NULL);
    setenv("HF_TOKEN", "wrong", 1);
    program_failed_as(program("pull gated/model"), 3, "token allows", NULL);
    unsetenv("HF_TOKEN");
    ck_assert_int_eq(system("mkdir -p home && echo good > home/token"), 0);
    done(program("pull gated/model"));
    setenv("HF_HUB_OFFLINE", "1", 1);
    program_failed_as(program("pull good/one"), 2, "HF_HUB_OFFLINE", NULL);
    unsetenv("HF_HUB_OFFLINE");
    setenv("HF_ENDPOINT", "file:///etc", 1);
    program_failed_as(program("pull good/one"), 2, "HF_ENDPOINT", NULL);
    setenv("HF_ENDPOINT", "http://127.0.0.1:1", 1);
    program_failed_as(program("pull good/one"), 1, "127.0.0.1", NULL);
}
END_TEST

START_TEST(models_by_name)
{
    ck_assert_int_eq(system("mkdir -p home/hub/models--x--stories/snapshots/abc home/hub/models--x--stories/refs home/hub/models--x--folder/snapshots/abc "
                            "home/hub/models--x--folder/refs && printf abc > home/hub/models--x--stories/refs/main && printf abc > home/hub/models--x--folder/refs/main"),
                     0);
    ck_assert_int_eq(symlink(STORIES, "home/hub/models--x--stories/snapshots/abc/stories.gguf"), 0);
    ck_assert_int_eq(system("ln -s " LLAMA2 "/* home/hub/models--x--folder/snapshots/abc/"), 0);
    done(program("generate --model x/stories --device host --prompt 'Once upon a time' --max-new-tokens 3"));
    ck_assert_str_eq(program_out(), ", there was\n");
    done(program("generate --model x/stories:stories.gguf --device host --prompt 'Once upon a time' --max-new-tokens 3"));
    done(program("logits --model x/folder --device host --tokens 1,2,3 --out o.safetensors"));
    program_failed_as(program("generate --model x/stories:other.gguf --device host --prompt x"), 3, "mosld pull x/stories:other.gguf", NULL);
    program_failed_as(program("generate --model x/nothing --device host --prompt x"), 3, "mosld pull x/nothing", NULL);
    ck_assert_int_eq(symlink(STORIES, "home/hub/models--x--stories/snapshots/abc/again.gguf"), 0);
    program_failed_as(program("generate --model x/stories --device host --prompt x"), 3, "several GGUF files", NULL);
    ck_assert_int_eq(system("mkdir -p x && cp -rL home/hub/models--x--folder/snapshots/abc x/stories"), 0); /* a folder of that name comes first */
    done(program("logits --model x/stories --device host --tokens 1,2,3 --out o.safetensors"));
}
END_TEST

int main(void)
{
#if !defined HAVE_LIBCURL || !defined HAVE_LIBCRYPTO
    fprintf(stderr, "skipped: built without libcurl or libcrypto\n");
    return 77;
#endif
    if (system("python3 -c 'import http.server'") != 0) {
        fprintf(stderr, "skipped: there is no python3 to play a hub\n");
        return 77;
    }
    Suite *suite = suite_create("pull");
    TCase *tc = tcase_create("pull");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_set_timeout(tc, 180);
    tcase_add_test(tc, a_folder);
    tcase_add_test(tc, single_files);
    tcase_add_test(tc, breaks);
    tcase_add_test(tc, damage);
    tcase_add_test(tc, refusals);
    tcase_add_test(tc, models_by_name);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
