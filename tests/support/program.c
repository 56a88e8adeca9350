/* tests/support/program.c - see program.h. */
#include "tests/support/program.h"

#include <check.h>
#include <fcntl.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static char folder[256], mosld_path[512], *out_text, *err_text;

void program_folder_make_for(const char *mosld)
{
    snprintf(mosld_path, sizeof mosld_path, "%s", mosld);
    const char *tmp = getenv("TMPDIR");
    snprintf(folder, sizeof folder, "%s/mosld-program-XXXXXX", tmp ? tmp : "/tmp");
    ck_assert_ptr_nonnull(mkdtemp(folder));
    ck_assert_int_eq(chdir(folder), 0);
}

void program_cache_make(void)
{
    const char *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    char mesa[512];
    snprintf(mesa, sizeof mesa, cache ? "%s" : "%s/.cache", cache ? cache : home ? home : "");
    setenv("MESA_SHADER_CACHE_DIR", mesa, 0); /* where Mesa has its kernels already: a minute's compiling */
    char *here = getcwd(NULL, 0);
    setenv("XDG_CACHE_HOME", here, 1);
    free(here);
}

void program_folder_remove(void)
{
    char command[300];
    snprintf(command, sizeof command, "rm -rf '%s'", folder);
    ck_assert_int_eq(chdir("/"), 0);
    ck_assert_int_eq(system(command), 0);
    free(out_text);
    free(err_text);
    out_text = err_text = NULL;
}

static pid_t start(const char *format, va_list args)
{
    char line[8192];
    int n = snprintf(line, sizeof line, "exec '%s' ", mosld_path);
    n += vsnprintf(line + n, sizeof line - (size_t)n, format, args);
    ck_assert_int_lt(n, (int)sizeof line);
    pid_t pid = fork();
    ck_assert_int_ge(pid, 0);
    if (pid == 0) {
        int out = open(".out", O_WRONLY | O_CREAT | O_TRUNC, 0666),
            err = open(".err", O_WRONLY | O_CREAT | O_TRUNC, 0666);
        dup2(out, 1);
        dup2(err, 2);
        execl("/bin/sh", "sh", "-c", line, (char *)NULL);
        _exit(127);
    }
    return pid;
}

pid_t program_start(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    pid_t pid = start(format, args);
    va_end(args);
    return pid;
}

int program_wait(pid_t pid)
{
    int status;
    size_t size;
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    free(out_text);
    free(err_text);
    out_text = read_bytes(".out", &size);
    err_text = read_bytes(".err", &size);
    ck_assert_msg(!strstr(err_text, "runtime error:") && !strstr(err_text, "Sanitizer"), "%s", err_text);
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

int program(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    pid_t pid = start(format, args);
    va_end(args);
    return program_wait(pid);
}

const char *program_out(void) { return out_text; }
const char *program_err(void) { return err_text; }

void program_failed_as(int got, int status, ...)
{
    va_list args;
    const char *text;
    ck_assert_msg(got == status, "exit status %d, wanted %d: %s", got, status, err_text);
    va_start(args, status);
    while ((text = va_arg(args, const char *)))
        ck_assert_msg(strstr(err_text, text) != NULL, "'%s' is not in: %s", text, err_text);
    va_end(args);
}

cJSON *program_json(int got)
{
    const char *end;
    ck_assert_msg(got == 0, "exit status %d: %s", got, err_text);
    cJSON *json = cJSON_ParseWithOpts(out_text, &end, false);
    ck_assert_msg(json != NULL, "not JSON: %s", out_text);
    ck_assert_msg(strspn(end, " \n") == strlen(end), "behind the document: %s", end);
    return json;
}

void write_bytes(const char *path, const void *data, size_t size)
{
    FILE *f = fopen(path, "wb");
    ck_assert_msg(f != NULL, "%s cannot be written", path);
    ck_assert_uint_eq(fwrite(data, 1, size, f), size);
    ck_assert_int_eq(fclose(f), 0);
}

void write_text(const char *path, const char *format, ...)
{
    static char text[1 << 16];
    va_list args;
    va_start(args, format);
    int n = vsnprintf(text, sizeof text, format, args);
    va_end(args);
    ck_assert_int_lt(n, (int)sizeof text);
    write_bytes(path, text, (size_t)n);
}

char *read_bytes(const char *path, size_t *size)
{
    FILE *f = fopen(path, "rb");
    struct stat st;
    ck_assert_msg(f != NULL, "%s cannot be read", path);
    ck_assert_int_eq(fstat(fileno(f), &st), 0);
    char *data = malloc((size_t)st.st_size + 1);
    ck_assert_ptr_nonnull(data);
    *size = fread(data, 1, (size_t)st.st_size, f);
    data[*size] = 0;
    fclose(f);
    return data;
}

bool same_bytes(const char *a, const char *b)
{
    size_t n, m;
    char *x = read_bytes(a, &n), *y = read_bytes(b, &m);
    bool same = n == m && memcmp(x, y, n) == 0;
    free(x);
    free(y);
    return same;
}

bool path_exists(const char *path) { return access(path, F_OK) == 0; }

cJSON *json_line(const char *path, int i)
{
    size_t size;
    char *text = read_bytes(path, &size), *line = text;
    for (; line && i > 0; i--) {
        line = strchr(line, '\n');
        line += line != NULL;
    }
    cJSON *json = line && *line ? cJSON_Parse(line) : NULL;
    ck_assert_msg(!line || !*line || json, "%s: bad line: %s", path, line);
    free(text);
    return json;
}

double json_line_number(const char *path, int i, const char *key)
{
    cJSON *json = json_line(path, i);
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(json, key);
    double value = cJSON_IsNumber(item) ? item->valuedouble : NAN;
    cJSON_Delete(json);
    return value;
}
