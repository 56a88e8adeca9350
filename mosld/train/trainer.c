/* mosld/train/trainer.c - the course of a run: plan, start, steps, end. See trainer.h. */
#include "mosld/train/trainer.h"

#include "mosld/adapter/adapter_file.h"
#include "mosld/ops/op.h"
#include "mosld/train/run.h"
#include "runtime/trace.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* ---- the plan ---- */

static uint32_t row_length(const void *user, struct mosld_row row)
{
    const struct mosld_run *run = user;
    return mosld_batch_row_tokens(run->params->tasks[row.task].examples, row.row);
}

static enum rt_status make_sampler(struct mosld_run *run, struct rt_error *err)
{
    uint32_t n = run->params->n_tasks;
    uint32_t *rows = calloc(n, sizeof *rows);
    double *weights = calloc(n, sizeof *weights);
    enum rt_status st = rows && weights ? RT_OK : rt_fail(err, RT_NO_MEMORY, "no memory for the tasks");
    for (uint32_t i = 0; i < n && !st; i++) {
        rows[i] = (uint32_t)run->params->tasks[i].examples->n;
        weights[i] = run->params->tasks[i].weight > 0 ? run->params->tasks[i].weight : 1;
    }
    if (!st)
        st = mosld_sampler_create(&(struct mosld_sampler_params){.n_tasks = n,
                                                                 .rows = rows,
                                                                 .weights = weights,
                                                                 .seed = run->config->seed,
                                                                 .sampling = run->config->sequential
                                                                                 ? MOSLD_SAMPLING_SEQUENTIAL
                                                                                 : MOSLD_SAMPLING_RANDOM},
                                  &run->sampler, err);
    free(rows);
    free(weights);
    return st;
}

static uint64_t micro_targets(struct mosld_run *run, const struct mosld_micro_batch *m)
{
    uint64_t n = 0;
    for (uint32_t i = 0; i < m->rows; i++) {
        struct mosld_row row = mosld_sampler_at(run->sampler, m->first + i);
        n += mosld_batch_row_targets(run->params->tasks[row.task].examples, row.row);
    }
    return n;
}

/* How large the largest batch of training and of evaluation is. */
static enum rt_status measure(struct mosld_run *run, struct rt_error *err)
{
    const struct mosld_train_params *p = run->params;
    run->most_tokens = run->plan.most_tokens;
    for (uint64_t i = 0; i < run->plan.n_micro; i++) {
        uint64_t n = micro_targets(run, &run->plan.micro[i]);
        if (n > run->most_targets)
            run->most_targets = (uint32_t)n;
    }
    for (uint32_t t = 0; t < p->n_eval_tasks; t++)
        if (p->eval_tasks[t].examples->counts.longest > run->most_tokens)
            run->most_tokens = p->eval_tasks[t].examples->counts.longest;
    run->eval_plans = calloc(p->n_eval_tasks + 1, sizeof *run->eval_plans);
    if (!run->eval_plans)
        return rt_fail(err, RT_NO_MEMORY, "no memory for the evaluation's plan");
    for (uint32_t t = 0; t < p->n_eval_tasks; t++) {
        struct mosld_batch_plan *plan = &run->eval_plans[t];
        const struct mosld_examples *ex = p->eval_tasks[t].examples;
        RT_TRY(mosld_batch_plan_create(ex, 0, run->most_tokens, plan, err));
        for (uint32_t b = 0; b < plan->n_batches; b++) {
            uint64_t n = 0;
            for (uint32_t i = plan->first[b]; i < plan->first[b + 1]; i++)
                n += mosld_batch_row_targets(ex, plan->order[i]);
            if (n > run->most_targets)
                run->most_targets = (uint32_t)n;
        }
    }
    return RT_OK;
}

/* A plan that is more than the device has is told, and not begun. */
static enum rt_status check_memory(const struct mosld_run *run, const struct mosld_memory *memory, struct rt_error *err)
{
    const double mib = 1 << 20;
    uint64_t has = rt_device_info(run->params->model->dev)->limits.memory, needs = mosld_memory_total(memory);
    if (needs <= has)
        return RT_OK;
    return rt_fail(err, RT_NO_MEMORY, "the run needs %.0f MiB and may use %.0f MiB of the device", ceil((double)needs / mib),
                   floor((double)has / mib));
}

static enum rt_status make_plan(struct mosld_run *run, struct rt_error *err)
{
    const struct mosld_train_config *c = run->config;
    RT_TRY(make_sampler(run, err));
    RT_TRY(mosld_plan_create(
        run->sampler,
        &(struct mosld_plan_params){.rows = c->per_device_train_batch_size,
                                    .accumulate = c->gradient_accumulation_steps,
                                    .tokens = c->packing ? (uint64_t)c->per_device_train_batch_size * c->max_length : 0,
                                    .epochs = c->num_train_epochs,
                                    .max_steps = c->max_steps,
                                    .length = row_length,
                                    .user = run},
        &run->plan, err));
    RT_TRY(measure(run, err));
    struct mosld_model *model = run->params->model;
    RT_TRY(mosld_adapter_create(model->dev, &model->config, &run->adapter_params, true, run->params->dropout_mask != NULL,
                             &run->adapter, err));
    RT_TRY(mosld_pass_create_fitting(
        model, run->adapter,
        &(struct mosld_pass_params){.max_tokens = run->most_tokens, .max_targets = run->most_targets, .trains = true},
        c->gradient_checkpointing, &run->pass, err));
    struct mosld_train_plan plan = {.steps = run->plan.steps,
                                    .micro_steps = run->plan.n_micro,
                                    .epoch_rows = run->plan.epoch_rows,
                                    .epochs = run->plan.epochs,
                                    .warmup = mosld_warmup_updates(c->warmup_steps, c->warmup_ratio, run->plan.steps),
                                    .most_tokens = run->most_tokens,
                                    .most_targets = run->most_targets};
    mosld_memory_of(model, run->adapter, run->pass, &plan.memory);
    if (run->params->events.planned)
        run->params->events.planned(run->params->events.user, &plan);
    return check_memory(run, &plan.memory, err);
}

/* ---- evaluation ---- */

static struct mosld_tokens tokens_of(const struct mosld_batch *b)
{
    return (struct mosld_tokens){.T = b->T,
                                 .tokens = b->tokens,
                                 .pos = b->pos,
                                 .seg = b->seg,
                                 .n_targets = b->n_targets,
                                 .target_row = b->target_row,
                                 .target = b->target};
}

static enum rt_status run_eval_batch(struct mosld_run *run, uint32_t task, const struct mosld_batch_plan *plan,
                                     uint32_t b, double *sum, uint64_t *count, struct rt_error *err)
{
    mosld_batch_clear(&run->batch);
    for (uint32_t i = plan->first[b]; i < plan->first[b + 1]; i++)
        RT_TRY(mosld_batch_add(&run->batch, run->params->eval_tasks[task].examples, task, plan->order[i], err));
    struct mosld_tokens tokens = tokens_of(&run->batch);
    RT_TRY(mosld_forward(run->pass, &tokens, false, err));
    RT_TRY(mosld_loss(run->pass, 0, err));
    RT_TRY(rt_download(run->pass->model->dev, run->pass->loss, 0, run->losses, 8ull * tokens.n_targets, err));
    for (uint32_t i = 0; i < tokens.n_targets; i++) {
        float loss;
        memcpy(&loss, &run->losses[2 * i], 4);
        *sum += loss;
    }
    *count += tokens.n_targets;
    return RT_OK;
}

static enum rt_status evaluate_batch(struct mosld_run *run, uint32_t task, const struct mosld_batch_plan *plan,
                                     uint32_t b, double *sum, uint64_t *count, struct rt_error *err)
{
    unsigned scope = rt_scope_begin(run->params->model->dev, "evaluation batch", b);
    enum rt_status st = run_eval_batch(run, task, plan, b, sum, count, err);
    rt_scope_end(run->params->model->dev, scope);
    return st;
}

static enum rt_status evaluate(struct mosld_run *run, bool *best, struct rt_error *err)
{
    const struct mosld_train_params *p = run->params;
    uint64_t done = 0, of = 0;
    double mean = 0;
    for (uint32_t t = 0; t < p->n_eval_tasks; t++)
        of += run->eval_plans[t].n_batches;
    for (uint32_t t = 0; t < p->n_eval_tasks; t++) {
        double sum = 0;
        uint64_t count = 0;
        for (uint32_t b = 0; b < run->eval_plans[t].n_batches; b++) {
            if (p->events.evaluating)
                p->events.evaluating(p->events.user, done++, of);
            RT_TRY(evaluate_batch(run, t, &run->eval_plans[t], b, &sum, &count, err));
        }
        run->eval_loss[t] = count ? sum / (double)count : NAN;
        mean += run->eval_loss[t] / p->n_eval_tasks;
    }
    run->evaluation_pending = false;
    *best = isfinite(mean) && !(mean >= run->best);
    if (*best) {
        run->best = mean;
        run->best_step = run->step;
    }
    if (p->events.evaluated)
        p->events.evaluated(p->events.user, run->step, run->eval_loss, mean, *best);
    return run_log_evaluation(run, mean, err);
}

/* ---- steps ---- */

static enum rt_status run_micro(struct mosld_run *run, const struct mosld_micro_batch *m, uint64_t targets,
                                struct rt_error *err)
{
    mosld_batch_clear(&run->batch);
    for (uint32_t i = 0; i < m->rows; i++) {
        struct mosld_row row = mosld_sampler_at(run->sampler, m->first + i);
        RT_TRY(mosld_batch_add(&run->batch, run->params->tasks[row.task].examples, row.task, row.row, err));
    }
    struct mosld_tokens tokens = tokens_of(&run->batch);
    RT_TRY(mosld_step_micro(run->stepper, &tokens, targets, run->losses, err));
    for (uint32_t i = 0; i < tokens.n_targets; i++) {
        uint32_t task = run->batch.parts[run->batch.target_part[i]].task;
        float loss;
        memcpy(&loss, &run->losses[2 * i], 4);
        run->task_loss[task] += loss;
        run->task_targets[task]++;
    }
    return RT_OK;
}

/* Sums over tasks become means; the mean over all targets is the step's loss. */
static double finish_losses(struct mosld_run *run)
{
    double sum = 0;
    uint64_t count = 0;
    for (uint32_t t = 0; t < run->params->n_tasks; t++) {
        sum += run->task_loss[t];
        count += run->task_targets[t];
        run->task_loss[t] = run->task_targets[t] ? run->task_loss[t] / (double)run->task_targets[t] : NAN;
    }
    return count ? sum / (double)count : NAN;
}

static enum rt_status dump_gradients(struct mosld_run *run, struct rt_error *err)
{
    const struct mosld_adapter_vector gradient = {run->adapter->gradient, 0, ""};
    return mosld_adapter_write_vectors(run->adapter, &gradient, 1, run->params->dump_gradients, err);
}

static double learning_rate(const struct mosld_run *run)
{
    const struct mosld_train_config *c = run->config;
    uint64_t warmup = mosld_warmup_updates(c->warmup_steps, c->warmup_ratio, run->plan.steps);
    return c->learning_rate *
           mosld_schedule_factor(c->lr_scheduler_type, run->stepper->updates, warmup, run->plan.steps);
}

static enum rt_status report_step(struct mosld_run *run, struct mosld_train_progress *p, double begin,
                                  uint64_t session_begin, double session, struct rt_error *err)
{
    double *load = run->stepper->load;
    for (uint32_t e = 0; run->stepper->n_load && e < run->adapter->max_experts; e++)
        load[e] /= run->stepper->n_load;
    p->load = run->stepper->n_load ? load : NULL;
    p->experts = run->adapter->max_experts;
    p->seconds = now() - begin;
    p->tokens_per_second = (double)p->tokens / p->seconds;
    p->seconds_left = (now() - session) / (double)(run->step - session_begin) * (double)(run->plan.steps - run->step);
    run->seconds += p->seconds;
    RT_TRY(run_log_step(run, p, err));
    if (run->params->events.step)
        run->params->events.step(run->params->events.user, p);
    return RT_OK;
}

static enum rt_status one_step(struct mosld_run *run, uint64_t session_begin, double session, struct rt_error *err)
{
    uint64_t first = run->plan.step_begin[run->step], last = run->plan.step_begin[run->step + 1], targets = 0,
             tokens = 0;
    double begin = now();
    for (uint64_t i = first; i < last; i++) {
        targets += micro_targets(run, &run->plan.micro[i]);
        tokens += run->plan.micro[i].tokens;
    }
    memset(run->task_loss, 0, run->params->n_tasks * sizeof *run->task_loss);
    memset(run->task_targets, 0, run->params->n_tasks * sizeof *run->task_targets);
    RT_TRY(mosld_step_begin(run->stepper, (uint32_t)(last - first), err));
    for (uint64_t i = first; i < last; i++)
        RT_TRY(run_micro(run, &run->plan.micro[i], targets, err));
    if (run->params->dump_gradients && run->step == 0)
        RT_TRY(dump_gradients(run, err));
    struct mosld_train_progress p = {.steps = run->plan.steps,
                                     .tokens = tokens,
                                     .aux_loss = mosld_step_aux_loss(run->stepper),
                                     .learning_rate = learning_rate(run)};
    float norm;
    RT_TRY(mosld_step_end(run->stepper, p.learning_rate, &norm, &p.skipped, err));
    run->skipped += p.skipped;
    p.skipped_steps = run->skipped;
    p.loss = finish_losses(run);
    p.grad_norm = norm;
    p.task_loss = run->task_loss;
    p.step = ++run->step;
    run->tokens += tokens;
    const struct mosld_micro_batch *m = &run->plan.micro[last - 1];
    p.epoch = (double)(m->first + m->rows) / (double)run->plan.epoch_rows;
    return report_step(run, &p, begin, session_begin, session, err);
}

static bool due(uint64_t step, uint64_t every) { return every && step % every == 0; }

/* What follows a step, or a resumed run's first look: evaluation and checkpoint where they are due, and the end where
 * it was asked for. */
static enum rt_status after_step(struct mosld_run *run, struct rt_error *err)
{
    const struct mosld_train_config *c = run->config;
    bool last = run->step == run->plan.steps, interrupted = run->params->interrupted && *run->params->interrupted;
    bool stop = interrupted && (!last || run->evaluation_pending), best = false;
    if (run->evaluation_pending && !stop) {
        RT_TRY(evaluate(run, &best, err));
        run->saved_step = 0; /* a checkpoint of this step says that the evaluation is still to come */
    }
    if (stop || due(run->step, c->save_steps) || (last && c->save_steps) ||
        (best && c->load_best_model_at_end && !last))
        RT_TRY(run_save_checkpoint(run, err));
    return stop ? rt_fail(err, RT_INTERRUPTED,
                          "interrupted after step %llu of %llu; go on with --resume-from-checkpoint last",
                          (unsigned long long)run->step, (unsigned long long)run->plan.steps)
                : RT_OK;
}

static enum rt_status steps(struct mosld_run *run, struct rt_error *err)
{
    uint64_t session_begin = run->step;
    double session = now();
    if (run->evaluation_pending)
        RT_TRY(after_step(run, err));
    while (run->step < run->plan.steps) {
        unsigned scope = rt_scope_begin(run->params->model->dev, "step", (int64_t)run->step + 1);
        enum rt_status st = one_step(run, session_begin, session, err);
        rt_scope_end(run->params->model->dev, scope);
        if (st)
            return st;
        if (run->step == session_begin + 1)
            RT_TRY(run_write_description(run, err));
        run->evaluation_pending =
            run->params->n_eval_tasks && (due(run->step, run->config->eval_steps) || run->step == run->plan.steps);
        RT_TRY(after_step(run, err));
    }
    return RT_OK;
}

/* ---- beginning and end ---- */

static enum rt_status allocate(struct mosld_run *run, struct rt_error *err)
{
    const struct mosld_train_params *p = run->params;
    run->losses = calloc(run->most_targets, 8);
    run->task_loss = calloc(p->n_tasks, sizeof *run->task_loss);
    run->task_targets = calloc(p->n_tasks, sizeof *run->task_targets);
    run->eval_loss = calloc(p->n_eval_tasks + 1, sizeof *run->eval_loss);
    if (!run->losses || !run->task_loss || !run->task_targets || !run->eval_loss)
        return rt_fail(err, RT_NO_MEMORY, "no memory for the run");
    RT_TRY(mosld_adapter_commit(run->adapter, err));
    RT_TRY(mosld_pass_commit(run->pass, err));
    RT_TRY(mosld_step_create(run->pass, run->config, &run->stepper, err));
    return mosld_model_load(p->model, p->file, err);
}

static enum rt_status start(struct mosld_run *run, struct rt_error *err)
{
    const struct mosld_train_params *p = run->params;
    char *checkpoint = NULL;
    RT_TRY(run_open_folder(run, err));
    RT_TRY(allocate(run, err));
    if (p->dropout_mask)
        RT_TRY(mosld_adapter_read_masks(run->adapter, p->dropout_mask, err));
    enum rt_status st = RT_OK;
    if (p->resume)
        st = run_find_checkpoint(p, &checkpoint, err);
    if (!st && checkpoint)
        st = run_load_checkpoint(run, checkpoint, err);
    else if (!st && p->init_adapter)
        st = mosld_adapter_read(run->adapter, p->init_adapter, err);
    else if (!st)
        st = mosld_adapter_init(run->adapter, err);
    free(checkpoint);
    if (!st) /* by now it is known which variants a checkpoint wants */
        st = op_prepare(p->model->dev, mosld_model_wtypes(p->model), err);
    if (!st)
        st = run_clear_folder(run, err);
    if (!st)
        st = run_write_description(run, err);
    if (!st)
        st = run_open_metrics(run, err);
    return st;
}

/* The adapter that the run leaves: the last, or the best. */
static enum rt_status finish(struct mosld_run *run, struct rt_error *err)
{
    if (run->config->load_best_model_at_end && run->best_step && run->best_step != run->step) {
        char path[4096];
        snprintf(path, sizeof path, "%s/checkpoint-%06llu", run->params->out, (unsigned long long)run->best_step);
        RT_TRY(mosld_adapter_read(run->adapter, path, err));
    }
    RT_TRY(run_save_adapter(run, run->params->out, err));
    if (run->params->events.saved)
        run->params->events.saved(run->params->events.user, run->params->out);
    return RT_OK;
}

static void clean_up(struct mosld_run *run)
{
    for (uint32_t t = 0; run->eval_plans && t < run->params->n_eval_tasks; t++)
        mosld_batch_plan_finish(&run->eval_plans[t]);
    free(run->eval_plans);
    mosld_step_destroy(&run->stepper);
    mosld_pass_destroy(&run->pass);
    mosld_adapter_destroy(&run->adapter);
    mosld_sampler_destroy(&run->sampler);
    mosld_plan_finish(&run->plan);
    mosld_batch_finish(&run->batch);
    free(run->losses);
    free(run->task_loss);
    free(run->task_targets);
    free(run->eval_loss);
    if (run->metrics)
        fclose(run->metrics);
    if (run->tensorboard)
        fclose(run->tensorboard);
    if (run->lock >= 0)
        close(run->lock);
}

enum rt_status mosld_train(const struct mosld_train_params *params, struct rt_error *err)
{
    struct mosld_run run = {
        .params = params, .config = params->config, .adapter_params = params->config->adapter, .best = NAN, .lock = -1};
    enum rt_status st = RT_OK;
    if (params->init_adapter)
        st = mosld_adapter_read_params(params->init_adapter, &run.adapter_params, err);
    if (!st)
        st = make_plan(&run, err);
    if (!st && !params->plan_only) {
        st = start(&run, err);
        if (!st)
            st = steps(&run, err);
        if (!st)
            st = finish(&run, err);
    }
    clean_up(&run);
    return st;
}
