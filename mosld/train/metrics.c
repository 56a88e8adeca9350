/* mosld/train/metrics.c - metrics.jsonl and the TensorBoard events of a run. */
#include "mosld/train/run.h"

#include "mosld/io/file.h"
#include "mosld/io/json.h"
#include "mosld/io/jsonl.h"
#include "mosld/train/tensorboard.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Copies the lines of steps up to run->step: what a killed run logged beyond its last checkpoint will be logged again.
 * A last line that was cut off is dropped with them. */
static enum rt_status keep_lines(struct mosld_run *run, const char *path, struct rt_error *err)
{
    char *text = NULL;
    size_t size = 0;
    if (!file_is_regular(path))
        return RT_OK;
    enum rt_status st = file_read(path, 1ull << 32, &text, &size, err);
    if (st)
        return st;
    size_t keep = 0;
    for (char *line = text, *end; (end = memchr(line, '\n', size - (size_t)(line - text))); line = end + 1) {
        cJSON *json = NULL;
        int64_t step;
        bool early = json_parse(line, (size_t)(end - line), path, 1, &json, NULL) == RT_OK &&
                     json_integer(json, "step", path, 0, JSON_INT_MAX, &step, NULL) == RT_OK &&
                     (uint64_t)step <= run->step &&
                     !(run->evaluation_pending && (uint64_t)step == run->step && json_find(json, "eval_loss"));
        cJSON_Delete(json);
        if (!early)
            break;
        keep = (size_t)(end + 1 - text);
    }
    if (keep < size)
        st = file_write_atomic(path, text, keep, err);
    free(text);
    return st;
}

enum rt_status run_open_metrics(struct mosld_run *run, struct rt_error *err)
{
    char *path = file_join(run->params->out, "metrics.jsonl");
    if (!path)
        return rt_fail(err, RT_NO_MEMORY, "no memory for a file's name");
    enum rt_status st = keep_lines(run, path, err);
    if (!st) {
        run->metrics = fopen(path, "a");
        if (!run->metrics)
            st = rt_fail(err, RT_FAILED, "%s: cannot be written: %s", path, strerror(errno));
    }
    free(path);
    return st ? st : mosld_tensorboard_open(run->params->out, &run->tensorboard, err);
}

/* JSON has no NaN: what is not a number is null. */
static void add_number(cJSON *json, const char *key, double value)
{
    if (isfinite(value))
        cJSON_AddNumberToObject(json, key, value);
    else
        cJSON_AddNullToObject(json, key);
}

static enum rt_status write_line(struct mosld_run *run, cJSON *json, struct rt_error *err)
{
    char *line = json ? cJSON_PrintUnformatted(json) : NULL;
    cJSON_Delete(json);
    if (!line)
        return rt_fail(err, RT_NO_MEMORY, "no memory for a line of metrics.jsonl");
    bool written =
        fprintf(run->metrics, "%s\n", line) > 0 && fflush(run->metrics) == 0 && fflush(run->tensorboard) == 0;
    cJSON_free(line);
    return written
               ? RT_OK
               : rt_fail(err, RT_FAILED, "%s/metrics.jsonl: cannot be written: %s", run->params->out, strerror(errno));
}

static void log_tensorboard(struct mosld_run *run, const struct mosld_train_progress *p)
{
    FILE *f = run->tensorboard;
    char tag[160];
    mosld_tensorboard_scalar(f, "train/loss", p->step, p->loss);
    mosld_tensorboard_scalar(f, "train/learning_rate", p->step, p->learning_rate);
    mosld_tensorboard_scalar(f, "train/grad_norm", p->step, p->grad_norm);
    mosld_tensorboard_scalar(f, "train/tokens_per_second", p->step, p->tokens_per_second);
    if (p->load)
        mosld_tensorboard_scalar(f, "train/aux_loss", p->step, p->aux_loss);
    for (uint32_t t = 0; t < run->params->n_tasks; t++)
        if (isfinite(p->task_loss[t])) {
            snprintf(tag, sizeof tag, "train/loss/%s", run->params->tasks[t].name);
            mosld_tensorboard_scalar(f, tag, p->step, p->task_loss[t]);
        }
    for (uint32_t e = 0; p->load && e < p->experts; e++) {
        snprintf(tag, sizeof tag, "routing/expert_%u", e);
        mosld_tensorboard_scalar(f, tag, p->step, p->load[e]);
    }
}

enum rt_status run_log_step(struct mosld_run *run, const struct mosld_train_progress *p, struct rt_error *err)
{
    cJSON *json = cJSON_CreateObject(), *tasks;
    if (!json)
        return rt_fail(err, RT_NO_MEMORY, "no memory for a line of metrics.jsonl");
    cJSON_AddNumberToObject(json, "step", (double)p->step);
    cJSON_AddNumberToObject(json, "epoch", p->epoch);
    add_number(json, "loss", p->loss);
    if (p->load)
        add_number(json, "aux_loss", p->aux_loss);
    cJSON_AddNumberToObject(json, "learning_rate", p->learning_rate);
    add_number(json, "grad_norm", p->grad_norm);
    cJSON_AddNumberToObject(json, "tokens", (double)p->tokens);
    cJSON_AddNumberToObject(json, "seconds", p->seconds);
    cJSON_AddNumberToObject(json, "tokens_per_second", p->tokens_per_second);
    if (p->skipped)
        cJSON_AddBoolToObject(json, "skipped", true);
    tasks = cJSON_AddObjectToObject(json, "task_loss");
    for (uint32_t t = 0; t < run->params->n_tasks; t++)
        if (isfinite(p->task_loss[t]))
            cJSON_AddNumberToObject(tasks, run->params->tasks[t].name, p->task_loss[t]);
    if (p->load)
        cJSON_AddItemToObject(json, "routing", cJSON_CreateDoubleArray(p->load, (int)p->experts));
    log_tensorboard(run, p);
    return write_line(run, json, err);
}

enum rt_status run_log_evaluation(struct mosld_run *run, double mean, struct rt_error *err)
{
    cJSON *json = cJSON_CreateObject(), *tasks;
    if (!json)
        return rt_fail(err, RT_NO_MEMORY, "no memory for a line of metrics.jsonl");
    cJSON_AddNumberToObject(json, "step", (double)run->step);
    add_number(json, "eval_loss", mean);
    tasks = cJSON_AddObjectToObject(json, "eval_task_loss");
    mosld_tensorboard_scalar(run->tensorboard, "eval/loss", run->step, mean);
    for (uint32_t t = 0; t < run->params->n_eval_tasks; t++) {
        char tag[160];
        add_number(tasks, run->params->eval_tasks[t].name, run->eval_loss[t]);
        snprintf(tag, sizeof tag, "eval/loss/%s", run->params->eval_tasks[t].name);
        mosld_tensorboard_scalar(run->tensorboard, tag, run->step, run->eval_loss[t]);
    }
    return write_line(run, json, err);
}
