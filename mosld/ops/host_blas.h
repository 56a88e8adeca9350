/* mosld/ops/host_blas.h - the BLAS as the host variants use it: one thread a call, since the ops share out the work
 * themselves. */
#ifndef MOSLD_HOST_BLAS_H
#define MOSLD_HOST_BLAS_H

#include <cblas.h>
#include <stdbool.h>

/* Called before rt_parallel, by the device's own thread. */
static inline void host_blas_alone(void)
{
#ifdef HAVE_OPENBLAS_SET_NUM_THREADS
    static bool done;
    if (!done)
        openblas_set_num_threads(1);
    done = true;
#endif
}

#endif
