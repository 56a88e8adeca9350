/* What mosld uses of mmap: whole files, read-only. */
#ifndef RT_WINDOWS_MMAN_H
#define RT_WINDOWS_MMAN_H

#include <stddef.h>
#include <sys/types.h>

#define PROT_READ 1
#define MAP_PRIVATE 2
#define MAP_FAILED ((void *)-1)
#define MADV_DONTNEED 4
#define MADV_SEQUENTIAL 2
#define MADV_WILLNEED 3
void *mmap(void *at, size_t size, int protection, int flags, int fd, long long offset); /* at: NULL, offset: 0 */
int munmap(void *at, size_t size);
static inline int madvise(void *at, size_t size, int advice) { return (void)at, (void)size, (void)advice, 0; }

#endif
