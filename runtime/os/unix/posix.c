/* What posix.h beside it declares. */
#include "runtime/os/unix/posix.h"

#include <errno.h>
#undef qsort_r

/* The comparison that qsort below is working with. It calls back on the thread that called it, and no comparison of mosld sorts. */
static _Thread_local struct {
    int (*compare)(const void *, const void *, void *);
    void *arg;
} sorting;

static int compare_with_argument(const void *a, const void *b) { return sorting.compare(a, b, sorting.arg); }

void rt_unix_qsort_r(void *base, size_t n, size_t size, int (*compare)(const void *, const void *, void *), void *arg)
{
    sorting.compare = compare, sorting.arg = arg;
    qsort(base, n, size, compare_with_argument);
}

#ifdef reallocarray
void *rt_unix_reallocarray(void *old, size_t n, size_t size)
{
    size_t bytes;
    if (__builtin_mul_overflow(n, size, &bytes)) {
        errno = ENOMEM;
        return NULL;
    }
    return realloc(old, bytes);
}
#endif

#ifdef __APPLE__
void *rt_unix_memrchr(const void *in, int c, size_t n)
{
    const unsigned char *at = in;
    while (n-- > 0)
        if (at[n] == (unsigned char)c)
            return (void *)(at + n);
    return NULL;
}
#endif
