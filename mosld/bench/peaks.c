/* mosld/bench/peaks.c - see peaks.h. */
#include "mosld/bench/peaks.h"

#include "mosld/ops/host_blas.h"
#include "mosld/ops/matmul.h"
#include "shaders/bench.h"

#include <stdlib.h>
#include <string.h>

#define COPY_BYTES \
    (64u << 20) /* beyond the caches of most processors; a quarter where the device's bindings or a cube are small */
#define FMA_GROUPS 256

static const struct rt_kernel fma_kernel = {"bench_fma", sizeof(struct bench_push), 1, {{"y", RT_WRITE}}};
static const struct rt_kernel copy_kernel = {"bench_copy",
                                             sizeof(struct bench_push),
                                             2,
                                             {{"x", RT_READ}, {"y", RT_WRITE}}};
static const struct rt_kernel empty_kernel = {"bench_empty", sizeof(struct bench_push), 1, {{"x", RT_READ}}};

struct peaks {
    const struct mosld_bench *bench;
    struct rt_device *dev;
    struct rt_span x, w, y, from, to, sums;
    struct op_weight weight;
    uint32_t cube, repeat;
    float *blas; /* host: three cubes a thread */
};

/* ---- what is launched ---- */

static enum rt_status launch_product(void *arg, struct rt_error *err)
{
    struct peaks *p = arg;
    return op_matmul_nt(p->dev,
                        &(struct op_matmul){.x = p->x,
                                            .x_stride = p->cube,
                                            .w = &p->weight,
                                            .y = p->y,
                                            .y_stride = p->cube,
                                            .rows = p->cube},
                        err);
}

static void blas_item(void *arg, int item, int worker)
{
    struct peaks *p = arg;
    int n = (int)p->cube;
    size_t cube = (size_t)n * (size_t)n;
    float *a = p->blas + 3 * cube * (size_t)item;
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, n, n, n, 1, a, n, a + cube, n, 0, a + 2 * cube, n);
    (void)worker;
}

static enum rt_status launch_blas(void *arg, struct rt_error *err)
{
    struct peaks *p = arg;
    (void)err;
    rt_parallel(p->dev, rt_host_threads(p->dev), blas_item, p);
    return RT_OK;
}

static enum rt_status launch_fma(void *arg, struct rt_error *err)
{
    struct peaks *p = arg;
    double flops = 2.0 * 4 * BENCH_CHAINS * BENCH_GROUP * FMA_GROUPS * p->repeat;
    return rt_dispatch(p->dev, &fma_kernel, &p->sums, &(struct bench_push){.repeat = p->repeat, .value = 1e-4f},
                       (uint32_t[]){FMA_GROUPS, 1, 1}, flops, err);
}

static void copy_item(void *arg, int item, int worker)
{
    struct peaks *p = arg;
    uint64_t part = p->from.size / 16;
    memcpy((char *)rt_host_ptr(p->to) + part * (uint64_t)item, (char *)rt_host_ptr(p->from) + part * (uint64_t)item,
           part);
    (void)worker;
}

static enum rt_status launch_copy(void *arg, struct rt_error *err)
{
    struct peaks *p = arg;
    if (rt_device_kind(p->dev) == RT_HOST) {
        rt_parallel(p->dev, 16, copy_item, p);
        return RT_OK;
    }
    struct bench_push push = {.n = (uint32_t)(p->from.size / 16)};
    uint32_t groups = push.n / BENCH_GROUP / 4;
    return rt_dispatch(p->dev, &copy_kernel, (struct rt_span[]){p->from, p->to}, &push,
                       (uint32_t[]){groups > 65535 ? 65535 : groups, 1, 1}, 0, err);
}

static void no_item(void *arg, int item, int worker) { (void)arg, (void)item, (void)worker; }

static enum rt_status launch_nothing(void *arg, struct rt_error *err)
{
    struct peaks *p = arg;
    if (rt_device_kind(p->dev) == RT_VULKAN)
        return rt_dispatch(p->dev, &empty_kernel, &p->x, &(struct bench_push){0}, (uint32_t[]){1, 1, 1}, 0, err);
    rt_parallel(p->dev, rt_host_threads(p->dev), no_item, NULL);
    return RT_OK;
}

static enum rt_status launch_and_wait(void *arg, struct rt_error *err)
{
    struct peaks *p = arg;
    enum rt_status st = launch_nothing(p, err);
    return st ? st : rt_finish(p->dev, err);
}

/* ---- memory ---- */

static enum rt_status make(struct peaks *p, struct rt_arena **arena, struct rt_error *err)
{
    uint64_t cube = 4ull * p->cube * p->cube, copy = COPY_BYTES;
    if (copy > rt_device_info(p->dev)->limits.max_range || p->cube < 512)
        copy /= 4;
    RT_TRY(rt_arena_create(p->dev, "bench", arena, err));
    RT_TRY(rt_arena_add(*arena, cube, "x", &p->x, err));
    RT_TRY(rt_arena_add(*arena, cube, "w", &p->w, err));
    RT_TRY(rt_arena_add(*arena, cube, "y", &p->y, err));
    RT_TRY(rt_arena_add(*arena, copy, "source", &p->from, err));
    RT_TRY(rt_arena_add(*arena, copy, "target", &p->to, err));
    RT_TRY(rt_arena_add(*arena, 16ull * BENCH_GROUP * FMA_GROUPS, "sums", &p->sums, err));
    RT_TRY(rt_arena_commit(*arena, err));
    p->weight = op_weight_f32(p->w, p->cube, p->cube);
    RT_TRY(rt_fill(p->dev, p->x, 0x3f000000, err)); /* 0.5: zeros are faster than numbers on some devices */
    RT_TRY(rt_fill(p->dev, p->w, 0x3c23d70a, err)); /* 0.01 */
    if (rt_device_kind(p->dev) != RT_HOST)
        return RT_OK;
    size_t floats = 3 * (size_t)p->cube * p->cube * (size_t)rt_host_threads(p->dev);
    p->blas = malloc(floats * sizeof *p->blas);
    for (size_t i = 0; p->blas && i < floats; i++)
        p->blas[i] = 0.5f;
    return p->blas ? RT_OK : rt_fail(err, RT_NO_MEMORY, "no memory to measure the BLAS with");
}

/* ---- measuring ---- */

static enum rt_status measure_arithmetic(struct peaks *p, struct mosld_peaks *out, struct rt_error *err)
{
    struct mosld_times t;
    double n = p->cube, cube = 2 * n * n * n;
    RT_TRY(mosld_bench_progress(p->bench, "the device's arithmetic", 0, 3, err));
    RT_TRY(mosld_measure(p->bench, launch_product, p, &t, err));
    out->product = cube / t.best;
    if (rt_device_kind(p->dev) == RT_HOST) {
        host_blas_alone();
        RT_TRY(mosld_measure(p->bench, launch_blas, p, &t, err));
        out->blas = cube * rt_host_threads(p->dev) / t.best;
    } else { /* rounds enough for about 10 ms at the rate of the product, and not for seconds where the product is far
                below the peak */
        double round = 2.0 * 4 * BENCH_CHAINS * BENCH_GROUP * FMA_GROUPS, rounds = out->product * 0.01 / round;
        p->repeat = rounds < 16 ? 16 : rounds > 1e6 ? 1000000 : (uint32_t)rounds;
        RT_TRY(mosld_measure(p->bench, launch_fma, p, &t, err));
        out->registers = round * p->repeat / t.best;
    }
    out->flops = out->product > out->blas ? out->product : out->blas;
    out->flops = out->registers > out->flops ? out->registers : out->flops;
    return RT_OK;
}

static enum rt_status measure(struct peaks *p, struct mosld_peaks *out, struct rt_error *err)
{
    struct mosld_times t;
    RT_TRY(measure_arithmetic(p, out, err));
    RT_TRY(mosld_bench_progress(p->bench, "the device's memory", 1, 3, err));
    RT_TRY(mosld_measure(p->bench, launch_copy, p, &t, err));
    out->copy_size = p->from.size;
    out->copy_bytes = 2 * (double)p->from.size / t.best;
    RT_TRY(mosld_bench_progress(p->bench, "the device's launches", 2, 3, err));
    RT_TRY(mosld_measure(p->bench, launch_nothing, p, &t, err));
    out->launch_seconds = t.best;
    RT_TRY(mosld_measure(p->bench, launch_and_wait, p, &t, err));
    out->submit_seconds = t.best;
    return RT_OK;
}

enum rt_status mosld_bench_peaks(const struct mosld_bench *bench, uint32_t cube, struct mosld_peaks *out,
                                 struct rt_error *err)
{
    struct peaks p = {.bench = bench, .dev = bench->dev, .cube = cube ? cube : 1024};
    struct rt_arena *arena = NULL;
    *out = (struct mosld_peaks){.cube = p.cube};
    enum rt_status st = make(&p, &arena, err);
    if (!st)
        st = measure(&p, out, err);
    rt_arena_destroy(&arena);
    free(p.blas);
    return st;
}
