/* There is nothing to wait for where there is no child and no line editor. */
#ifndef RT_WINDOWS_POLL_H
#define RT_WINDOWS_POLL_H

#include <errno.h>

#define POLLIN 1
struct pollfd {
    int fd;
    short events, revents;
};
static inline int poll(struct pollfd *fds, unsigned long n, int milliseconds) { return (void)fds, (void)n, (void)milliseconds, errno = ENOSYS, -1; }

#endif
