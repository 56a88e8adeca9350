/* A lock on a whole file, dropped with its descriptor. */
#ifndef RT_WINDOWS_FILE_H
#define RT_WINDOWS_FILE_H

#define LOCK_EX 2
#define LOCK_NB 4
int flock(int fd, int operation); /* LOCK_EX | LOCK_NB alone; errno EWOULDBLOCK where another process has it */

#endif
