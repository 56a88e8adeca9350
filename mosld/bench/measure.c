/* mosld/bench/measure.c - see measure.h. */
#include "mosld/bench/measure.h"

#include <stdlib.h>
#include <time.h>

#define SAMPLES       7
#define MOST_LAUNCHES 100000

double mosld_bench_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double mosld_bench_median(double *values, uint32_t n)
{
    qsort(values, n, sizeof *values, compare);
    return (values[(n - 1) / 2] + values[n / 2]) / 2;
}

enum rt_status mosld_bench_progress(const struct mosld_bench *bench, const char *what, uint32_t done, uint32_t of,
                                    struct rt_error *err)
{
    if (bench->on_progress)
        bench->on_progress(bench->user, what, done, of);
    return bench->stop && *bench->stop ? rt_fail(err, RT_INTERRUPTED, "interrupted while measuring %s", what) : RT_OK;
}

/* Seconds that `n` launches take, all together. */
static enum rt_status sample(const struct mosld_bench *bench, mosld_launch_fn *launch, void *arg, uint64_t n,
                             double *seconds, struct rt_error *err)
{
    double begin = mosld_bench_now();
    enum rt_status st = RT_OK;
    for (uint64_t i = 0; i < n && !st; i++)
        st = launch(arg, err);
    if (!st)
        st = rt_finish(bench->dev, err);
    *seconds = mosld_bench_now() - begin;
    return st;
}

enum rt_status mosld_measure(const struct mosld_bench *bench, mosld_launch_fn *launch, void *arg,
                             struct mosld_times *out, struct rt_error *err)
{
    double times[SAMPLES], spent = 0, seconds, each;
    *out = (struct mosld_times){0};
    enum rt_status st = sample(bench, launch, arg, 1, &seconds, err);
    if (!st) /* how many launches make a sample is found with a second one, since the first may have built a pipeline */
        st = sample(bench, launch, arg, 1, &each, err);
    uint64_t n = 1;
    if (!st && each > 0 && each * SAMPLES < bench->seconds)
        n = (uint64_t)(bench->seconds / (each * SAMPLES)) + 1;
    n = n > MOST_LAUNCHES ? MOST_LAUNCHES : n;
    while (!st && out->samples < SAMPLES && (out->samples == 0 || spent < bench->seconds)) {
        st = sample(bench, launch, arg, n, &seconds, err);
        spent += seconds;
        times[out->samples++] = seconds / (double)n;
        out->launches += n;
    }
    if (st)
        return st;
    out->median = mosld_bench_median(times, out->samples);
    out->best = times[0];
    return RT_OK;
}
