/* runtime/host/host.c - the host device: plain memory and a pool of threads. It needs no driver. */
#include "runtime/backend.h"

#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct host_scratch {
    void *block; /* as malloc gave it */
    void *memory;
    size_t size;
};

struct host_device {
    struct rt_device base;
    int threads;
    pthread_t *workers; /* threads - 1 of them; the caller is worker 0 */
    int started;
    struct host_scratch *scratch; /* one a worker */

    pthread_mutex_t lock; /* for those that sleep */
    pthread_cond_t wake, idle;
    uint64_t generation; /* of the work below; atomic */
    int running;         /* workers that have not finished this generation; atomic */
    int sleeping;        /* workers that wait for `wake`; atomic, changed under the lock */
    int waiting;         /* 1: the caller waits for `idle`; atomic, changed under the lock */
    bool stop;           /* atomic */
    void (*fn)(void *arg, int item, int worker);
    void *arg;
    int items;
    int next; /* next item; atomic */
};

struct host_worker {
    struct host_device *host;
    int index;
};

struct host_buffer {
    struct rt_buffer base;
    unsigned char *memory;
};

static struct host_device *host_of(const struct rt_device *dev) { return (struct host_device *)(uintptr_t)dev; }

/* ---- threads ---- */

static void take_items(struct host_device *host, int worker)
{
    for (;;) {
        int item = __atomic_fetch_add(&host->next, 1, __ATOMIC_RELAXED);
        if (item >= host->items)
            return;
        host->fn(host->arg, item, worker);
    }
}

/* One token of a small model is some two hundred regions of 5 to 50 microseconds with hardly anything between them, and putting a thread to sleep and waking
 * it takes as long as one of them. So whoever waits looks for a while first: about 30 microseconds, which a training step does not notice. The order of
 * each store before the load that it pairs with (generation and sleeping, running and waiting) is what keeps a wake-up from being lost. */
#define LOOKS 2000

static inline void look_again(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* Returns when there is a generation behind `seen`, or the device is closed. */
static void await_work(struct host_device *host, uint64_t seen)
{
    for (int i = 0; i < LOOKS; i++, look_again())
        if (__atomic_load_n(&host->generation, __ATOMIC_ACQUIRE) != seen || __atomic_load_n(&host->stop, __ATOMIC_ACQUIRE))
            return;
    pthread_mutex_lock(&host->lock);
    __atomic_add_fetch(&host->sleeping, 1, __ATOMIC_SEQ_CST);
    while (!__atomic_load_n(&host->stop, __ATOMIC_SEQ_CST) && __atomic_load_n(&host->generation, __ATOMIC_SEQ_CST) == seen)
        pthread_cond_wait(&host->wake, &host->lock);
    __atomic_sub_fetch(&host->sleeping, 1, __ATOMIC_SEQ_CST);
    pthread_mutex_unlock(&host->lock);
}

static void await_workers(struct host_device *host)
{
    for (int i = 0; i < LOOKS; i++, look_again())
        if (__atomic_load_n(&host->running, __ATOMIC_ACQUIRE) == 0)
            return;
    pthread_mutex_lock(&host->lock);
    __atomic_store_n(&host->waiting, 1, __ATOMIC_SEQ_CST);
    while (__atomic_load_n(&host->running, __ATOMIC_SEQ_CST) > 0)
        pthread_cond_wait(&host->idle, &host->lock);
    __atomic_store_n(&host->waiting, 0, __ATOMIC_SEQ_CST);
    pthread_mutex_unlock(&host->lock);
}

static void *worker_main(void *arg)
{
    struct host_worker me = *(struct host_worker *)arg;
    free(arg);
    for (uint64_t seen = 0;; seen++) { /* a generation begins when all workers have ended the one before: none is missed */
        await_work(me.host, seen);
        if (__atomic_load_n(&me.host->stop, __ATOMIC_ACQUIRE))
            return NULL;
        take_items(me.host, me.index);
        if (__atomic_sub_fetch(&me.host->running, 1, __ATOMIC_SEQ_CST) == 0 && __atomic_load_n(&me.host->waiting, __ATOMIC_SEQ_CST)) {
            pthread_mutex_lock(&me.host->lock);
            pthread_cond_signal(&me.host->idle);
            pthread_mutex_unlock(&me.host->lock);
        }
    }
}

void rt_parallel(struct rt_device *dev, int items, void (*fn)(void *arg, int item, int worker), void *arg)
{
    struct host_device *host = host_of(dev);
    if (host->started == 0 || items <= 1) {
        for (int i = 0; i < items; i++)
            fn(arg, i, 0);
        return;
    }
    host->fn = fn;
    host->arg = arg;
    host->items = items;
    host->next = 0;
    __atomic_store_n(&host->running, host->started, __ATOMIC_SEQ_CST);
    __atomic_add_fetch(&host->generation, 1, __ATOMIC_SEQ_CST);
    if (__atomic_load_n(&host->sleeping, __ATOMIC_SEQ_CST)) {
        pthread_mutex_lock(&host->lock);
        pthread_cond_broadcast(&host->wake);
        pthread_mutex_unlock(&host->lock);
    }
    take_items(host, 0);
    await_workers(host);
}

int rt_host_threads(const struct rt_device *dev) { return host_of(dev)->threads; }

void *rt_host_scratch(struct rt_device *dev, int worker, size_t size)
{
    struct host_scratch *s = &host_of(dev)->scratch[worker];
    if (s->size >= size)
        return s->memory;
    free(s->block);
    size_t rounded = (size + 4095) & ~(size_t)4095;
    s->block = rounded < size || rounded > SIZE_MAX - 64 ? NULL : malloc(rounded + 64);
    s->memory = s->block ? (unsigned char *)s->block + 64 - ((uintptr_t)s->block & 63) : NULL;
    s->size = s->memory ? rounded : 0;
    return s->memory;
}

/* ---- memory ---- */

static enum rt_status buffer_create(struct rt_device *dev, uint64_t size, const char *label, struct rt_buffer **out,
                                    struct rt_error *err)
{
    struct host_buffer *b = calloc(1, sizeof *b);
    /* A large calloc is fresh zero pages: memory that is never touched costs nothing. The margin aligns to a cache line. */
    unsigned char *raw = b && size <= SIZE_MAX - 64 && !rt_allocation_fails(dev) ? calloc(1, (size_t)size + 64) : NULL;
    if (!raw) {
        free(b);
        return rt_fail(err, RT_NO_MEMORY, "no %.1f MiB of memory left for %s: use a smaller batch or length",
                       (double)size / (1 << 20), label);
    }
    size_t shift = 64 - (uintptr_t)raw % 64;
    raw[shift - 1] = (unsigned char)shift; /* how far back the allocation begins; 1 .. 64 */
    b->memory = raw + shift;
    b->base = (struct rt_buffer){.dev = dev, .size = size};
    rt_allocated(dev, (int64_t)size);
    *out = &b->base;
    return RT_OK;
}

static void buffer_destroy(struct rt_buffer *buffer)
{
    struct host_buffer *b = (struct host_buffer *)buffer;
    rt_allocated(buffer->dev, -(int64_t)buffer->size);
    free(b->memory - b->memory[-1]);
    free(b);
}

void *rt_host_ptr(struct rt_span span)
{
    return span.buffer ? ((struct host_buffer *)span.buffer)->memory + span.offset : NULL;
}

static uint64_t reserve(const struct rt_device *dev)
{
    (void)dev;
    return 0;
}

static enum rt_status write_begin(struct rt_device *dev, struct rt_span to, void **at, struct rt_error *err)
{
    (void)dev, (void)err;
    *at = rt_host_ptr(to);
    return RT_OK;
}

static enum rt_status write_end(struct rt_device *dev, struct rt_span to, struct rt_error *err)
{
    (void)dev, (void)to, (void)err;
    return RT_OK;
}

static enum rt_status upload(struct rt_device *dev, struct rt_span to, uint64_t offset, const void *data, uint64_t size,
                             struct rt_error *err)
{
    (void)dev, (void)err;
    memcpy((unsigned char *)rt_host_ptr(to) + offset, data, size);
    return RT_OK;
}

static enum rt_status download(struct rt_device *dev, struct rt_span from, uint64_t offset, void *data, uint64_t size,
                               struct rt_error *err)
{
    (void)dev, (void)err;
    memcpy(data, (unsigned char *)rt_host_ptr(from) + offset, size);
    return RT_OK;
}

static enum rt_status copy(struct rt_device *dev, struct rt_span to, uint64_t to_offset, struct rt_span from,
                           uint64_t from_offset, uint64_t size, struct rt_error *err)
{
    (void)dev, (void)err;
    memmove((unsigned char *)rt_host_ptr(to) + to_offset, (unsigned char *)rt_host_ptr(from) + from_offset, size);
    return RT_OK;
}

static enum rt_status fill(struct rt_device *dev, struct rt_span to, uint32_t word, struct rt_error *err)
{
    (void)dev, (void)err;
    uint32_t *p = rt_host_ptr(to);
    if (word == 0)
        memset(p, 0, to.size);
    else
        for (uint64_t i = 0; i < to.size / 4; i++)
            p[i] = word;
    return RT_OK;
}

/* ---- what only Vulkan has ---- */

static bool kernel_supported(const struct rt_device *dev, const struct rt_kernel *kernel)
{
    (void)dev, (void)kernel;
    return false;
}

static enum rt_status kernels_prepare(struct rt_device *dev, const struct rt_kernel *const *kernels, size_t count,
                                      struct rt_error *err)
{
    (void)dev, (void)kernels, (void)count, (void)err;
    return RT_OK;
}

static enum rt_status kernel_describe(struct rt_device *dev, const struct rt_kernel *kernel, struct rt_kernel_description *out,
                                      struct rt_error *err)
{
    (void)out;
    return rt_fail(err, RT_NO_DEVICE, "kernel %s cannot run on %s: the host runs C functions", kernel->name, dev->info.name);
}

static enum rt_status dispatch(struct rt_device *dev, const struct rt_kernel *kernel, const struct rt_span *spans,
                               const void *push, const uint32_t groups[3], double flops, struct rt_error *err)
{
    (void)dev, (void)spans, (void)push, (void)groups, (void)flops;
    return rt_fail(err, RT_FAILED, "kernel %s: the host device runs no shaders", kernel->name);
}

static enum rt_status segment(struct rt_device *dev, const char *label, struct rt_error *err)
{
    (void)dev, (void)label, (void)err;
    return RT_OK;
}

static enum rt_status finish(struct rt_device *dev, struct rt_error *err)
{
    (void)dev, (void)err;
    return RT_OK;
}

static unsigned validation_messages(const struct rt_device *dev, const char **last)
{
    (void)dev;
    if (last)
        *last = "";
    return 0;
}

static void statistics(const struct rt_device *dev, struct rt_statistics *out)
{
    (void)dev;
    *out = (struct rt_statistics){0};
}

/* ---- opening and closing ---- */

static void host_close(struct rt_device *dev)
{
    struct host_device *host = host_of(dev);
    pthread_mutex_lock(&host->lock);
    __atomic_store_n(&host->stop, true, __ATOMIC_SEQ_CST);
    pthread_cond_broadcast(&host->wake);
    pthread_mutex_unlock(&host->lock);
    for (int i = 0; i < host->started; i++)
        pthread_join(host->workers[i], NULL);
    for (int i = 0; host->scratch && i < host->threads; i++)
        free(host->scratch[i].block);
    pthread_mutex_destroy(&host->lock);
    pthread_cond_destroy(&host->wake);
    pthread_cond_destroy(&host->idle);
    free(host->scratch);
    free(host->workers);
    free(host);
}

static const struct rt_backend host_backend = {
    .close = host_close,
    .buffer_create = buffer_create,
    .buffer_destroy = buffer_destroy,
    .reserve = reserve,
    .write_begin = write_begin,
    .write_end = write_end,
    .upload = upload,
    .download = download,
    .copy = copy,
    .fill = fill,
    .kernel_supported = kernel_supported,
    .kernels_prepare = kernels_prepare,
    .kernel_describe = kernel_describe,
    .dispatch = dispatch,
    .segment = segment,
    .finish = finish,
    .validation_messages = validation_messages,
    .statistics = statistics,
};

static int usable_processors(void)
{
    cpu_set_t set;
    int n = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : (int)sysconf(_SC_NPROCESSORS_ONLN);
    return n > 0 ? n : 1;
}

/* The processor's name as the kernel tells it. */
static void processor_name(char *out, size_t size)
{
    snprintf(out, size, "host processor");
    FILE *f = fopen("/proc/cpuinfo", "r");
    char line[512];
    while (f && fgets(line, sizeof line, f)) {
        char *colon = strchr(line, ':');
        if (strncmp(line, "model name", 10) == 0 && colon) {
            line[strcspn(line, "\n")] = 0;
            snprintf(out, size, "%s", colon + 2);
            break;
        }
    }
    if (f)
        fclose(f);
}

void rt_host_describe(struct rt_device_info *out)
{
    *out = (struct rt_device_info){.kind = RT_HOST, .class_ = RT_CLASS_CPU};
    char processor[200];
    processor_name(processor, sizeof processor);
    snprintf(out->name, sizeof out->name, "host (%s)", processor);
    snprintf(out->driver, sizeof out->driver, "%d threads", usable_processors());
    long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
    uint64_t memory = pages > 0 && page > 0 ? (uint64_t)pages * (uint64_t)page : 0;
    out->limits = (struct rt_limits){
        .max_range = UINT64_MAX / 2, .max_buffer = UINT64_MAX / 2, .max_allocation = UINT64_MAX / 2, .memory = memory,
        .offset_align = 64, .max_storage_buffers = RT_MAX_BINDINGS, .max_push = 256, .subgroup_size = 1,
    };
}

enum rt_status rt_host_open(const struct rt_device_params *params, struct rt_device **out, struct rt_error *err)
{
    if (params && params->counters)
        return rt_fail(err, RT_NO_DEVICE, "the host device has no hardware counters that mosld could read: they need a Vulkan device with "
                       "VK_KHR_performance_query. On the host take perf");
    struct host_device *host = calloc(1, sizeof *host);
    if (!host)
        return rt_fail(err, RT_NO_MEMORY, "no memory for the host device");
    rt_host_describe(&host->base.info);
    host->base.backend = &host_backend;
    pthread_mutex_init(&host->lock, NULL);
    pthread_cond_init(&host->wake, NULL);
    pthread_cond_init(&host->idle, NULL);
    host->threads = params && params->threads > 0 ? params->threads : usable_processors();
    snprintf(host->base.info.driver, sizeof host->base.info.driver, "%d threads", host->threads);
    host->scratch = calloc((size_t)host->threads, sizeof *host->scratch);
    host->workers = calloc((size_t)host->threads, sizeof *host->workers);
    if (!host->scratch || !host->workers)
        goto no_memory;
    for (int i = 1; i < host->threads; i++) {
        struct host_worker *w = malloc(sizeof *w);
        if (!w)
            goto no_memory;
        *w = (struct host_worker){host, i};
        if (pthread_create(&host->workers[host->started], NULL, worker_main, w) != 0) {
            free(w);
            break; /* fewer threads do the same work */
        }
        host->started++;
    }
    *out = &host->base;
    return RT_OK;
no_memory:
    host_close(&host->base);
    return rt_fail(err, RT_NO_MEMORY, "no memory for the host device's threads");
}
