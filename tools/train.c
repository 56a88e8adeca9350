/* tools/train.c - mosld train: from tasks and a model to an adapter. */
#include "tools/commands.h"

#include "mosld/adapter/adapter_file.h"
#include "mosld/io/json.h"
#include "mosld/train/trainer.h"
#include "tools/plan.h"
#include "tools/train_options.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct training {
    struct train_options o;
    struct mosld_train_config config;
    struct mosld_example_options example;
    struct session s;
    struct mosld_task *tasks, *eval_tasks;
    struct mosld_train_task *views, *eval_views;
    size_t n, n_eval;
    double last_loss, last_eval;
    char *saved;
    uint64_t steps, skipped;
    struct mosld_memory memory;              /* as planned */
    struct mosld_adapter_params from_adapter; /* of init_adapter */
    struct plan plan;                        /* for when it does not fit; rows 0: not made yet */
    const char *resume; /* as the options say, or after a lost device */
    bool overwrite;
};

/* ---- tasks ---- */

static enum rt_status load_tasks(struct training *t, const struct option_list *list, enum mosld_task_split split,
                                 uint64_t limit, struct mosld_task **tasks, struct mosld_train_task **views, size_t *n,
                                 struct rt_error *err)
{
    profiling_phase(&t->s.profiling, "reading the data"); /* also of validation: one phase */
    *tasks = calloc(list->n + 1, sizeof **tasks);
    *views = calloc(list->n + 1, sizeof **views);
    if (!*tasks || !*views)
        return rt_fail(err, RT_NO_MEMORY, "no memory for the tasks");
    struct mosld_task_params params = {
        .encoder = session_encoder(&t->s), .example = t->example, .split = split, .limit = limit};
    for (size_t i = 0; i < list->n; i++) {
        struct mosld_task_spec spec;
        char text[512];
        enum rt_status st = mosld_task_spec_parse(list->item[i], &spec, err);
        if (st)
            return st;
        struct mosld_task *task = &(*tasks)[i];
        st = mosld_task_load(&spec, &params, task, err);
        double weight = spec.weighted ? spec.weight : 0;
        mosld_task_spec_finish(&spec);
        if (st)
            return st;
        (*views)[i] = (struct mosld_train_task){
            .name = task->name, .path = task->path, .weight = weight, .examples = &task->examples};
        ++*n;
        for (size_t j = 0; j < i; j++)
            if (strcmp((*views)[j].name, task->name) == 0)
                return rt_fail(err, RT_USAGE, "two tasks are called %s: give each a name of its own", task->name);
        if (mosld_task_describe_losses(task, t->example.max_length, text, sizeof text))
            fprintf(stderr, "%s\n", text);
    }
    return RT_OK;
}

/* ---- what is told while it runs ---- */

static void print_memory(const struct mosld_memory *m)
{
    double mib = 1 << 20;
    fprintf(stderr, "  memory     %.0f MiB: weights %.0f, adapter %.1f, activations %.0f, scratch %.0f", (double)mosld_memory_total(m) / mib,
            (double)m->weights / mib, (double)m->adapter / mib, (double)m->activations / mib, (double)m->scratch / mib);
    if (m->staging)
        fprintf(stderr, ", staging %.0f", (double)m->staging / mib);
    fprintf(stderr, "\n");
    if (m->recomputed)
        fprintf(stderr, "  recomputed %u of %u layers in backward: %.1f %% more products\n", m->recomputed, m->trained, 100 * m->again);
}

/* The plan of the run as a request that can be changed. */
static void note_plan(struct training *t, uint32_t tokens, uint32_t targets, uint32_t longest)
{
    const struct mosld_train_config *c = &t->config;
    t->plan = (struct plan){.kind = PLAN_TRAIN, .dev = t->s.dev, .model = t->o.session.model, .rows = c->per_device_train_batch_size, .length = longest,
                            .accumulation = c->gradient_accumulation_steps,
                            .request = {.file = t->s.file, .weights = t->o.session.weights - 1, .positions = longest, .adapter = &t->config.adapter,
                                        .given_mask = t->o.dropout_mask != NULL, .checkpointing = c->gradient_checkpointing,
                                        .pass = {.max_tokens = tokens, .max_targets = targets, .trains = true}}};
    if (t->o.init_adapter && mosld_adapter_read_params(t->o.init_adapter, &t->from_adapter, NULL) == RT_OK)
        t->plan.request.adapter = &t->from_adapter;
}

static void on_planned(void *user, const struct mosld_train_plan *p)
{
    struct training *t = user;
    const struct rt_device_info *info = rt_device_info(t->s.dev);
    const struct mosld_config *c = mosld_model_file_config(t->s.file);
    struct mosld_adapter_params a = t->config.adapter;
    if (t->o.init_adapter)
        mosld_adapter_read_params(t->o.init_adapter, &a, NULL);
    fprintf(stderr, "  device     %s (%s)\n", info->name, info->driver);
    fprintf(stderr, "  model      %s: %s, %u layers, %.1f M parameters\n", t->o.session.model, mosld_arch_name(c->arch),
            c->num_layers, (double)p->memory.model_parameters / 1e6);
    fprintf(stderr, "  adapter    %s, r %u, alpha %g", mosld_method_names[a.method], a.r, a.lora_alpha);
    if (mosld_has_router(&a))
        fprintf(stderr, ", %u%s experts, top %u", a.num_experts[0], a.n_num_experts > 1 ? "..." : "", a.top_k);
    fprintf(stderr, ", dropout %g%s\n  modules   ", a.dropout,
            a.dropout > 0 ? a.dropout_on == MOSLD_DROPOUT_A ? " of A" : " of the input" : "");
    for (int i = 0; i < MOSLD_LINEARS; i++)
        if (a.targets[i])
            fprintf(stderr, " %s", mosld_linear_names[i]);
    fprintf(stderr, "\n  trainable  %llu of %llu parameters, %.3f %%\n", (unsigned long long)p->memory.parameters,
            (unsigned long long)(p->memory.parameters + p->memory.model_parameters),
            100.0 * (double)p->memory.parameters / (double)(p->memory.parameters + p->memory.model_parameters));
    for (size_t i = 0; i < t->n; i++)
        fprintf(stderr, "  task       %s: %zu rows, %zu tokens, %zu of them targets%s\n", t->tasks[i].name,
                t->tasks[i].examples.n, t->tasks[i].examples.counts.tokens, t->tasks[i].examples.counts.targets,
                t->views[i].weight > 0 ? ", weighted" : "");
    fprintf(stderr, "  plan       %llu steps, %.3g epochs of %llu rows, %u tokens a pass, %llu warm-up steps\n",
            (unsigned long long)p->steps, p->epochs, (unsigned long long)p->epoch_rows, p->most_tokens,
            (unsigned long long)p->warmup);
    print_memory(&p->memory);
    t->memory = p->memory;
    note_plan(t, p->most_tokens, p->most_targets, t->s.model->positions);
    if (mosld_has_router(&a))
        fprintf(stderr, "  note       a mixture cannot be merged into the model, and only mosld runs it\n");
    t->steps = p->steps;
}

static void on_step(void *user, const struct mosld_train_progress *p)
{
    struct training *t = user;
    rt_trace_counter(t->s.dev, "loss", "nats/token", p->loss);
    rt_trace_counter(t->s.dev, "training", "tokens/s", p->tokens_per_second);
    char left[32];
    t->last_loss = p->loss;
    t->skipped = p->skipped_steps;
    duration_text(p->seconds_left, left, sizeof left);
    if (p->skipped)
        fprintf(stderr, "%sstep %llu: loss or gradient is not finite: the step was skipped\n",
                progress_is_terminal() ? "\r\033[K" : "", (unsigned long long)p->step);
    if (progress_is_terminal() && p->step < p->steps)
        progress_line("step %llu/%llu  loss %.4f  %.0f tokens/s  %s left", (unsigned long long)p->step,
                      (unsigned long long)p->steps, p->loss, p->tokens_per_second, left);
    if (p->step % t->config.logging_steps == 0 || p->step == p->steps || p->step == 1) {
        progress_line("%s", "");
        fprintf(stderr, "step %llu/%llu  loss %.4f  lr %.1e  norm %.2f  %.0f tokens/s  %s left\n",
                (unsigned long long)p->step, (unsigned long long)p->steps, p->loss, p->learning_rate, p->grad_norm,
                p->tokens_per_second, left); /* metrics.jsonl has the rest */
    }
}

static void on_evaluated(void *user, uint64_t step, const double *loss, double mean, bool best)
{
    struct training *t = user;
    progress_line("%s", "");
    fprintf(stderr, "step %llu  validation loss %.4f%s:", (unsigned long long)step, mean,
            best ? " (lowest so far)" : "");
    for (size_t i = 0; i < t->n_eval; i++)
        fprintf(stderr, " %s %.4f", t->eval_tasks[i].name, loss[i]);
    fprintf(stderr, "\n");
    t->last_eval = mean;
}

static void on_evaluating(void *user, uint64_t done, uint64_t of)
{
    (void)user;
    progress_line("validation loss: batch %llu of %llu", (unsigned long long)done + 1, (unsigned long long)of);
}

static void on_saved(void *user, const char *path)
{
    struct training *t = user;
    progress_line("%s", "");
    fprintf(stderr, "wrote %s\n", path);
    free(t->saved);
    t->saved = strdup(path);
}

static void on_note(void *user, const char *sentence)
{
    (void)user;
    progress_line("%s", "");
    fprintf(stderr, "note: %s\n", sentence);
}

/* ---- the run ---- */

static enum rt_status train(struct training *t, const struct options *given, struct rt_error *err)
{
    enum rt_status st = session_open_file(&t->s, &t->o.session, err);
    uint32_t most = st ? 0 : mosld_model_file_config(t->s.file)->max_positions;
    if (!st && t->example.max_length > most) {
        if (options_given(given, "max_length"))
            fprintf(stderr, "max_length: %u is more than the model's %u positions, which are taken\n",
                    t->example.max_length, most);
        t->example.max_length = t->config.max_length = most;
    }
    if (!st)
        st = load_tasks(t, &t->o.task, MOSLD_SPLIT_TRAIN, 0, &t->tasks, &t->views, &t->n, err);
    if (!st)
        st = load_tasks(t, &t->o.eval_task, MOSLD_SPLIT_VALIDATION, (uint64_t)t->o.eval_limit, &t->eval_tasks,
                        &t->eval_views, &t->n_eval, err);
    if (!st && !t->n) { /* a plan without data: every row is as long as it may be, and every token a target */
        RT_TRY(session_open_device(&t->s, &t->o.session, err));
        uint64_t tokens = (uint64_t)t->config.per_device_train_batch_size * t->config.max_length;
        if (tokens > UINT32_MAX)
            return rt_fail(err, RT_USAGE, "per_device_train_batch_size x max_length: %llu tokens are more than a pass can have", (unsigned long long)tokens);
        note_plan(t, (uint32_t)tokens, (uint32_t)tokens, t->config.max_length);
        return plan_print(&t->plan, t->o.session.json, stdout, err);
    }
    uint32_t longest = 2;
    for (size_t i = 0; i < t->n + t->n_eval && !st; i++) {
        uint32_t l = i < t->n ? t->tasks[i].examples.counts.longest : t->eval_tasks[i - t->n].examples.counts.longest;
        longest = l > longest ? l : longest;
    }
    t->s.profiling.scope = "step"; /* what --capture counts; validation has batches of its own */
    if (!st)
        st = session_open_device(&t->s, &t->o.session, err);
    if (!st)
        st = mosld_model_create(t->s.dev, t->s.file, longest, t->o.session.weights - 1, &t->s.model, err);
    if (st)
        return st;
    cJSON *effective = options_to_json(given);
    struct mosld_train_params params = {.model = t->s.model,
                                        .file = t->s.file,
                                        .config = &t->config,
                                        .tasks = t->views,
                                        .eval_tasks = t->eval_views,
                                        .n_tasks = (uint32_t)t->n,
                                        .n_eval_tasks = (uint32_t)t->n_eval,
                                        .out = t->o.out,
                                        .base_model = t->o.session.model,
                                        .effective = effective,
                                        .resume = t->resume,
                                        .overwrite = t->overwrite,
                                        .init_adapter = t->o.init_adapter,
                                        .dropout_mask = t->o.dropout_mask,
                                        .dump_gradients = t->o.dump_gradients,
                                        .plan_only = t->o.session.plan,
                                        .interrupted = &session_interrupted,
                                        .events = {.user = t,
                                                   .planned = on_planned,
                                                   .step = on_step,
                                                   .evaluated = on_evaluated,
                                                   .evaluating = on_evaluating,
                                                   .saved = on_saved,
                                                   .note = on_note}};
    st = mosld_train(&params, err);
    cJSON_Delete(effective);
    if (t->plan.rows && (st == RT_NO_MEMORY || (!st && t->o.session.plan))) {
        struct rt_error unwanted; /* the run's own sentence stands */
        enum rt_status planned = plan_print(&t->plan, t->o.session.json && t->o.session.plan, t->o.session.plan ? stdout : stderr, &unwanted);
        (void)planned;
    }
    return st;
}

static enum rt_status print_end(struct training *t, struct rt_error *err)
{
    enum rt_status st = t->o.session.json ? RT_OK : profiling_report(&t->s.profiling, NULL, err);
    if (t->o.session.json) {
        cJSON *json = cJSON_CreateObject();
        cJSON_AddStringToObject(json, "out", t->o.out);
        cJSON_AddNumberToObject(json, "steps", (double)t->steps);
        cJSON_AddItemToObject(json, "loss",
                              isfinite(t->last_loss) ? cJSON_CreateNumber(t->last_loss) : cJSON_CreateNull());
        if (t->n_eval)
            cJSON_AddItemToObject(json, "eval_loss",
                                  isfinite(t->last_eval) ? cJSON_CreateNumber(t->last_eval) : cJSON_CreateNull());
        cJSON_AddNumberToObject(json, "skipped_steps", (double)t->skipped);
        struct rt_statistics held;
        rt_get_statistics(t->s.dev, &held);
        cJSON_AddNumberToObject(json, "planned_bytes", (double)mosld_memory_total(&t->memory));
        cJSON_AddNumberToObject(json, "held_bytes", (double)held.most_allocated);
        st = profiling_report(&t->s.profiling, json, err);
        char *text = cJSON_PrintUnformatted(json);
        if (text)
            puts(text);
        cJSON_free(text);
        cJSON_Delete(json);
    }
    if (t->skipped)
        fprintf(stderr,
                "%llu of %llu steps were skipped: their loss or gradient was not finite; a lower --learning-rate may "
                "help\n",
                (unsigned long long)t->skipped, (unsigned long long)t->steps);
    struct rt_statistics used;
    rt_get_statistics(t->s.dev, &used);
    fprintf(stderr, "At most %.1f MiB of memory were held, %.1f MiB were planned.\n", (double)used.most_allocated / (1 << 20),
            (double)mosld_memory_total(&t->memory) / (1 << 20));
    fprintf(stderr, "The adapter is in %s; its course is in %s/metrics.jsonl. Next, for example:\n"
                    "  mosld generate --model %s --adapter %s %s\n", t->o.out, t->o.out, t->o.session.model, t->o.out,
            t->s.has_chat ? "--chat" : "--prompt TEXT");
    return st;
}

/* What a run has opened and loaded; the options stay. */
static void release(struct training *t)
{
    for (size_t i = 0; i < t->n; i++)
        mosld_task_finish(&t->tasks[i]);
    for (size_t i = 0; i < t->n_eval; i++)
        mosld_task_finish(&t->eval_tasks[i]);
    free(t->tasks);
    free(t->eval_tasks);
    free(t->views);
    free(t->eval_views);
    free(t->saved);
    t->tasks = t->eval_tasks = NULL;
    t->views = t->eval_views = NULL;
    t->saved = NULL;
    t->n = t->n_eval = 0;
    session_close(&t->s);
}

/* A lost device takes the run's memory with it, not its checkpoints: the run opens the device anew and goes on from the last of them, or
 * from where it began. Once: a device that is lost again will be lost a third time. */
static enum rt_status train_again(struct training *t, const struct options *given, struct rt_error *err)
{
    bool saved = t->saved != NULL;
    progress_line("%s", "");
    fprintf(stderr, "mosld train: %s\nmosld train: the device is opened again, and the run %s\n", err->text,
            saved ? "goes on from its last checkpoint" : t->resume ? "begins again where it did" : "begins anew: it had no checkpoint yet (--save-steps)");
    release(t);
    unsetenv("MOSLD_FAULT"); /* a planted loss is one */
    if (saved)
        t->resume = "last";
    else if (!t->resume)
        t->overwrite = true;
    return train(t, given, err);
}

static enum rt_status run(void *state, const struct options *given, struct rt_error *err)
{
    struct training *t = state;
    RT_TRY(train_options_resolve(&t->o, given, &t->config, &t->example, err));
    t->resume = t->o.resume_from_checkpoint;
    t->overwrite = t->o.overwrite_output_dir;
    enum rt_status st = train(t, given, err);
    if (st == RT_DEVICE_LOST && !t->o.session.plan && !session_interrupted)
        st = train_again(t, given, err);
    RT_TRY(st);
    return t->o.session.plan ? RT_OK : print_end(t, err);
}

static void finish(void *state) { release(state); }

int cmd_train(int argc, char **argv)
{
    struct training t = {.o = train_option_defaults, .last_loss = NAN, .last_eval = NAN};
    return session_main(&(struct session_command){.name = "train",
                                                  .usage = "mosld train --model PATH --task NAME=FILE ... --out DIR [options]",
                                                  .table = train_option_table,
                                                  .n = train_option_count,
                                                  .values = &t.o,
                                                  .interruptible = true,
                                                  .run = run,
                                                  .finish = finish,
                                                  .state = &t},
                        argc, argv);
}
