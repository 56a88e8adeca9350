/* mosld/bench/measure.h - how long a piece of work takes on a device, by the wall clock.
 *
 * Work is launched as often as a sample of some length needs, with rt_finish behind it, and several samples are taken:
 * the best says what the device can do, the median what it did. Nothing here judges a number: machines are noisy, so
 * ratios are taken between what one process measured. */
#ifndef MOSLD_BENCH_MEASURE_H
#define MOSLD_BENCH_MEASURE_H

#include "runtime/rt.h"

#include <signal.h>

/* What all measurements of a run share. */
struct mosld_bench {
    struct rt_device *dev;
    double seconds; /* that one measurement may take, about; a single launch may take longer */
    void (*on_progress)(void *user, const char *what, uint32_t done, uint32_t of); /* may be NULL */
    void *user;
    uint32_t n_counters; /* hardware counters that the user of `dev` has chosen; each op is counted after it was measured */
    const volatile sig_atomic_t *stop; /* may be NULL; not 0: RT_INTERRUPTED at the next measurement */
};

struct mosld_times {
    double best, median; /* seconds a launch */
    uint32_t samples;
    uint64_t launches; /* of all samples */
};

/* Appends one launch of the work to what the device is to do; on the host it has run when it returns. */
typedef enum rt_status mosld_launch_fn(void *arg, struct rt_error *err);

/* Launches once unmeasured (pipelines are built, pages are touched), then measures. */
enum rt_status mosld_measure(const struct mosld_bench *bench, mosld_launch_fn *launch, void *arg,
                             struct mosld_times *out, struct rt_error *err);

double mosld_bench_now(void);                          /* seconds of a clock that only goes forward */
double mosld_bench_median(double *values, uint32_t n); /* sorts the values; n >= 1 */
/* Says how far the run is; RT_INTERRUPTED when the user asked to stop. */
enum rt_status mosld_bench_progress(const struct mosld_bench *bench, const char *what, uint32_t done, uint32_t of,
                                    struct rt_error *err);

#endif
