/* No process is forked here: fork() fails, and what needs it says so. */
#ifndef RT_WINDOWS_WAIT_H
#define RT_WINDOWS_WAIT_H

#include <errno.h>
#include <fcntl.h>
#include <io.h>

static inline int fork(void) { return errno = ENOSYS, -1; }
static inline int pipe(int fds[2]) { return _pipe(fds, 65536, _O_BINARY); }
static inline int kill(pid_t process, int signal) { return (void)process, (void)signal, errno = ENOSYS, -1; }
static inline pid_t waitpid(pid_t process, int *status, int options) { return (void)process, (void)status, (void)options, errno = ENOSYS, -1; }
#define WIFEXITED(status) ((void)(status), 1)
#define WEXITSTATUS(status) (status)
#define WIFSIGNALED(status) ((void)(status), 0)
#define WTERMSIG(status) (status)

#endif
