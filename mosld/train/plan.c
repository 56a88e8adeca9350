/* mosld/train/plan.c - see plan.h. */
#include "mosld/train/plan.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct growing {
    struct mosld_plan *plan;
    uint64_t cap_micro, cap_steps;
    struct rt_error *err;
};

static enum rt_status grow(void **array, uint64_t *cap, uint64_t need, size_t size, struct rt_error *err)
{
    if (need <= *cap)
        return RT_OK;
    uint64_t cap2 = *cap ? *cap * 2 : 256;
    cap2 = cap2 < need ? need : cap2;
    void *p = cap2 > SIZE_MAX / size ? NULL : realloc(*array, cap2 * size);
    if (!p)
        return rt_fail(err, RT_NO_MEMORY, "no memory for the plan of %llu batches", (unsigned long long)need);
    *array = p;
    *cap = cap2;
    return RT_OK;
}

static enum rt_status add_micro(struct growing *g, struct mosld_micro_batch m)
{
    struct mosld_plan *p = g->plan;
    enum rt_status st = grow((void **)&p->micro, &g->cap_micro, p->n_micro + 1, sizeof *p->micro, g->err);
    if (st)
        return st;
    p->micro[p->n_micro++] = m;
    if (m.tokens > p->most_tokens)
        p->most_tokens = m.tokens;
    return RT_OK;
}

/* Ends the current step: what comes next begins another. */
static enum rt_status end_step(struct growing *g)
{
    struct mosld_plan *p = g->plan;
    enum rt_status st = grow((void **)&p->step_begin, &g->cap_steps, p->steps + 2, sizeof *p->step_begin, g->err);
    if (!st)
        p->step_begin[++p->steps] = p->n_micro;
    return st;
}

/* Cuts `rows` rows from place `first` on, until the plan has `most` steps. */
static enum rt_status plan_rows(struct growing *g, struct mosld_sampler *s, const struct mosld_plan_params *params,
                                uint64_t first, uint64_t rows, uint64_t most)
{
    struct mosld_micro_batch m = {.first = first};
    uint32_t in_step = 0;
    enum rt_status st = RT_OK;
    for (uint64_t i = 0; i <= rows && !st && g->plan->steps < most; i++) {
        uint32_t length = i < rows ? params->length(params->user, mosld_sampler_at(s, first + i)) : 0;
        bool full =
            m.rows > 0 &&
            (i == rows || (params->tokens ? m.tokens + (uint64_t)length > params->tokens : m.rows == params->rows));
        if (full) {
            st = add_micro(g, m);
            m = (struct mosld_micro_batch){.first = first + i};
            if (!st && (++in_step == params->accumulate || i == rows)) {
                st = end_step(g);
                in_step = 0;
            }
        }
        m.rows++;
        m.tokens += length;
    }
    return st;
}

enum rt_status mosld_plan_create(struct mosld_sampler *s, const struct mosld_plan_params *params,
                                 struct mosld_plan *out, struct rt_error *err)
{
    *out = (struct mosld_plan){.epoch_rows = mosld_sampler_epoch_rows(s)};
    struct growing g = {.plan = out, .err = err};
    enum rt_status st = grow((void **)&out->step_begin, &g.cap_steps, 1, sizeof *out->step_begin, err);
    if (st)
        return st;
    out->step_begin[0] = 0;
    if (out->epoch_rows == 0)
        return rt_fail(err, RT_USAGE, "there is nothing to train on: no task has a usable row");
    double rows_left = params->max_steps ? INFINITY : params->epochs * (double)out->epoch_rows;
    uint64_t most = params->max_steps ? params->max_steps : UINT64_MAX;
    for (uint64_t first = 0; !st && rows_left >= 0.5 && out->steps < most; first += out->epoch_rows) {
        uint64_t rows = rows_left < (double)out->epoch_rows ? (uint64_t)llround(rows_left) : out->epoch_rows;
        st = plan_rows(&g, s, params, first, rows, most);
        rows_left -= (double)rows;
    }
    if (!st && out->n_micro) {
        const struct mosld_micro_batch *last = &out->micro[out->n_micro - 1];
        out->epochs = (double)(last->first + last->rows) / (double)out->epoch_rows;
    }
    if (!st && out->steps == 0)
        st = rt_fail(err, RT_USAGE, "num_train_epochs: %g of %llu rows is no step", params->epochs,
                     (unsigned long long)out->epoch_rows);
    return st;
}

void mosld_plan_finish(struct mosld_plan *plan)
{
    free(plan->micro);
    free(plan->step_begin);
    *plan = (struct mosld_plan){0};
}
