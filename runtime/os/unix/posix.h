/* runtime/os/unix/posix.h - the functions of POSIX and glibc that mosld calls and the C libraries of macOS or Android lack.
 *
 * Included in front of every source when the target is one of them (CMakeLists.txt), so that no other file needs to know. They do what
 * glibc's do. (What Windows lacks: ../windows/posix.h.) */
#ifndef RT_UNIX_POSIX_H
#define RT_UNIX_POSIX_H

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* macOS has one of that name whose arguments stand in another order; Android has it from API level 36 on. */
#define qsort_r rt_unix_qsort_r
void rt_unix_qsort_r(void *base, size_t n, size_t size, int (*compare)(const void *, const void *, void *), void *arg);

#if defined(__APPLE__) || __ANDROID_API__ < 29
#define reallocarray rt_unix_reallocarray
void *rt_unix_reallocarray(void *old, size_t n, size_t size); /* NULL with errno ENOMEM where n * size is too much */
#endif

#ifdef __APPLE__
#define memrchr rt_unix_memrchr
void *rt_unix_memrchr(const void *in, int c, size_t n);

/* There is no affinity to ask for: all processors that are on. */
typedef struct {
    int count;
} cpu_set_t;
static inline int sched_getaffinity(int process, size_t size, cpu_set_t *set)
{
    (void)process, (void)size;
    set->count = (int)sysconf(_SC_NPROCESSORS_ONLN);
    return set->count > 0 ? 0 : -1;
}
#define CPU_COUNT(set) ((set)->count)
#endif

#endif
