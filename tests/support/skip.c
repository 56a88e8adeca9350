/* tests/support/skip.c - see skip.h. */
#include "tests/support/skip.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

/* Check runs each test in a child, which tells the program through a shared page; it is set up before main. */
static atomic_int *skipped;
static pid_t program;

static void at_exit(int status, void *unused)
{
    (void)unused;
    if (status == 0 && getpid() == program && atomic_load(skipped)) {
        fflush(NULL);
        _exit(TEST_SKIPPED_STATUS);
    }
}

__attribute__((constructor)) static void set_up(void)
{
    program = getpid();
    void *page = mmap(NULL, sizeof *skipped, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED || on_exit(at_exit, NULL) != 0) {
        perror("tests/support/skip.c");
        abort();
    }
    skipped = page;
}

void test_skipped(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fputs("SKIPPED: ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
    atomic_store(skipped, 1);
}
