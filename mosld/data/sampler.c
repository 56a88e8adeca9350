/* mosld/data/sampler.c - see sampler.h.
 *
 * The order of an epoch is made when its first row is asked for, and kept until another epoch is. */
#include "mosld/data/sampler.h"

#include "mosld/data/random.h"

#include <math.h>
#include <stdlib.h>

enum { STREAM_EPOCH, STREAM_TASK }; /* STREAM_TASK + task: the passes over that task's rows */

struct sampled_task {
    uint32_t rows;
    uint32_t quota; /* rows an epoch */
};

struct mosld_sampler {
    uint32_t n_tasks;
    struct sampled_task *tasks;
    enum mosld_sampling sampling;
    uint64_t seed;
    uint32_t epoch_rows;
    uint64_t epoch;          /* whose order is in `order` */
    struct mosld_row *order; /* [epoch_rows] */
    uint32_t *shuffle;       /* [epoch_rows] */
    uint32_t *pass;          /* [most rows of a task] */
};

static enum rt_status set_quotas(struct mosld_sampler *s, const struct mosld_sampler_params *params,
                                 struct rt_error *err)
{
    uint64_t total = 0;
    for (uint32_t i = 0; i < s->n_tasks; i++) {
        double weight = params->weights ? params->weights[i] : 1.0;
        if (!isfinite(weight) || weight <= 0)
            return rt_fail(err, RT_USAGE, "task %u: a weight of %g; it must be above 0", i, weight);
        double quota = round(weight * params->rows[i]);
        if (quota > INT32_MAX)
            return rt_fail(err, RT_USAGE, "task %u: weight %g x %u rows is too much for an epoch", i, weight,
                           params->rows[i]);
        s->tasks[i].rows = params->rows[i];
        s->tasks[i].quota = params->rows[i] == 0 ? 0 : quota < 1 ? 1 : (uint32_t)quota;
        total += s->tasks[i].quota;
    }
    if (total == 0)
        return rt_fail(err, RT_USAGE, "there are no rows to train on");
    if (total > INT32_MAX)
        return rt_fail(err, RT_USAGE, "an epoch of %llu rows is too long; smaller weights help",
                       (unsigned long long)total);
    s->epoch_rows = (uint32_t)total;
    return RT_OK;
}

/* Puts the next `quota` rows of a task into out: those from place epoch x quota of the endless row of passes over the
 * task. */
static void draw_task(struct mosld_sampler *s, uint32_t task, uint64_t epoch, struct mosld_row *out)
{
    const struct sampled_task *t = &s->tasks[task];
    uint64_t place = epoch * t->quota, drawn = UINT64_MAX;
    for (uint32_t j = 0; j < t->quota; j++, place++) {
        uint64_t pass = place / t->rows;
        uint32_t row = (uint32_t)(place % t->rows);
        if (s->sampling == MOSLD_SAMPLING_RANDOM) {
            if (pass != drawn) {
                struct data_random r = data_random_from(s->seed, STREAM_TASK + task, pass);
                data_random_permutation(&r, s->pass, t->rows);
                drawn = pass;
            }
            row = s->pass[row];
        }
        out[j] = (struct mosld_row){task, row};
    }
}

static void make_epoch(struct mosld_sampler *s, uint64_t epoch)
{
    struct mosld_row *at = s->order;
    for (uint32_t i = 0; i < s->n_tasks; at += s->tasks[i].quota, i++)
        draw_task(s, i, epoch, at);
    if (s->sampling == MOSLD_SAMPLING_RANDOM) {
        struct data_random r = data_random_from(s->seed, STREAM_EPOCH, epoch);
        data_random_permutation(&r, s->shuffle, s->epoch_rows);
    } else {
        for (uint32_t i = 0; i < s->epoch_rows; i++)
            s->shuffle[i] = i;
    }
    s->epoch = epoch;
}

enum rt_status mosld_sampler_create(const struct mosld_sampler_params *params, struct mosld_sampler **out,
                                    struct rt_error *err)
{
    enum rt_status st = RT_NO_MEMORY;
    uint32_t most = 1;
    *out = NULL;
    struct mosld_sampler *s = calloc(1, sizeof *s);
    if (!s)
        goto no_memory;
    s->n_tasks = params->n_tasks;
    s->sampling = params->sampling;
    s->seed = params->seed;
    s->tasks = calloc(s->n_tasks ? s->n_tasks : 1, sizeof *s->tasks);
    if (!s->tasks)
        goto no_memory;
    st = set_quotas(s, params, err);
    if (st != RT_OK)
        goto fail;
    for (uint32_t i = 0; i < s->n_tasks; i++)
        most = s->tasks[i].rows > most ? s->tasks[i].rows : most;
    s->order = calloc(s->epoch_rows, sizeof *s->order);
    s->shuffle = calloc(s->epoch_rows, sizeof *s->shuffle);
    s->pass = calloc(most, sizeof *s->pass);
    if (!s->order || !s->shuffle || !s->pass)
        goto no_memory;
    make_epoch(s, 0);
    *out = s;
    return RT_OK;
no_memory:
    st = rt_fail(err, RT_NO_MEMORY, "no memory for the order of the rows");
fail:
    mosld_sampler_destroy(&s);
    return st;
}

void mosld_sampler_destroy(struct mosld_sampler **s)
{
    if (!*s)
        return;
    free((*s)->tasks);
    free((*s)->order);
    free((*s)->shuffle);
    free((*s)->pass);
    free(*s);
    *s = NULL;
}

uint64_t mosld_sampler_epoch_rows(const struct mosld_sampler *s)
{
    return s->epoch_rows;
}

struct mosld_row mosld_sampler_at(struct mosld_sampler *s, uint64_t index)
{
    uint64_t epoch = index / s->epoch_rows;
    if (epoch != s->epoch)
        make_epoch(s, epoch);
    return s->order[s->shuffle[index % s->epoch_rows]];
}
