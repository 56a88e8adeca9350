/* runtime/os/windows/posix.h - the functions of POSIX and glibc that mosld calls and mingw-w64 lacks.
 *
 * Included in front of every source when the target is Windows (CMakeLists.txt), so that no other file needs to know. They do what
 * mosld asks of them and no more; what differs from POSIX is said beside each. Paths are UTF-8: the manifest asks Windows for that. */
#ifndef RT_WINDOWS_POSIX_H
#define RT_WINDOWS_POSIX_H

#include <direct.h>
#include <fcntl.h>
#include <io.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

typedef unsigned int uint; /* glibc has it too: shaders/push.h */

#define O_CLOEXEC _O_NOINHERIT
#define O_NONBLOCK 0 /* there are no FIFOs among the files */
#define O_DIRECTORY 0x4000000
#define S_ISSOCK(mode) ((void)(mode), 0)

int rt_windows_open(const char *path, int flags, ...); /* with O_DIRECTORY: a descriptor that only fsync and close take */
#define open rt_windows_open
int fsync(int fd);
int rt_windows_mkdir(const char *path, mode_t mode); /* the mode is left to the folder's own rights */
#define mkdir rt_windows_mkdir
int rt_windows_rename(const char *from, const char *to); /* replaces a file, as POSIX does */
#define rename rt_windows_rename
int mkostemp(char *path, int flags);
#define mkstemp(path) mkostemp(path, 0)
static inline int fchmod(int fd, mode_t mode) { return (void)fd, (void)mode, 0; }
static inline mode_t rt_windows_umask(mode_t mask) { return (void)mask, 022; }
#define umask rt_windows_umask
char *realpath(const char *path, char *resolved); /* resolved: NULL */

int setenv(const char *name, const char *value, int overwrite);
int unsetenv(const char *name);

void *memmem(const void *in, size_t in_size, const void *what, size_t what_size);
char *strcasestr(const char *in, const char *what); /* as ASCII has cases */
char *strndup(const char *text, size_t n);
char *strchrnul(const char *text, int c);
char *strsep(char **text, const char *separators);
void *reallocarray(void *old, size_t n, size_t size);
void qsort_r(void *base, size_t n, size_t size, int (*compare)(const void *, const void *, void *), void *arg);
ssize_t getline(char **line, size_t *size, FILE *from);

enum { _SC_NPROCESSORS_ONLN, _SC_PHYS_PAGES, _SC_PAGESIZE };
long sysconf(int name);

typedef struct {
    int count;
} cpu_set_t;
int sched_getaffinity(int process, size_t size, cpu_set_t *set); /* of this process */
#define CPU_COUNT(set) ((set)->count)

#define SIGKILL SIGTERM

#ifndef SA_RESTART
#define SA_RESTART 0
struct sigaction {
    void (*sa_handler)(int);
    int sa_flags;
};
int sigaction(int signal, const struct sigaction *action, struct sigaction *old); /* the handler stays; old: NULL */
#endif

#endif
