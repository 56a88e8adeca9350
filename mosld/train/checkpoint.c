/* mosld/train/checkpoint.c - what a run needs to go on to the same bits: written beside, synced, renamed.
 *
 * checkpoint-000123/ has the adapter (adapter_config.json, adapter_model.safetensors), AdamW's two moments (optimizer.safetensors: the
 * adapter's tensor names with .exp_avg and .exp_avg_sq behind them), and trainer_state.json with a checksum of both. Random bits need no
 * state: they come from counters. The order of rows comes from the seed and a number. */
#include "mosld/train/run.h"

#include "mosld/adapter/adapter_file.h"
#include "mosld/io/file.h"
#include "mosld/io/json.h"
#include "mosld/io/safetensors.h"

#include <dirent.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define TRY(call)                    \
    do {                             \
        enum rt_status st_ = (call); \
        if (st_)                     \
            return st_;              \
    } while (0)

/* ---- what must be the same when a run goes on ---- */

static uint64_t hash_bytes(uint64_t h, const void *data, size_t n)
{
    const unsigned char *p = data;
    for (size_t i = 0; i < n; i++)
        h = (h ^ p[i]) * 0x100000001b3u; /* FNV-1a */
    return h;
}

/* Everything that decides which bits come out, but for device, driver and build: options, and the tasks as tokens. */
static uint64_t fingerprint(const struct mosld_run *run)
{
    const struct mosld_train_config *c = run->config;
    const double numbers[] = {c->learning_rate, c->lr_scheduler_type, c->warmup_steps, c->warmup_ratio, c->weight_decay, c->max_grad_norm,
                              c->adam_beta1, c->adam_beta2, c->adam_epsilon, c->per_device_train_batch_size,
                              c->gradient_accumulation_steps, (double)run->plan.steps, (double)run->plan.n_micro, c->packing,
                              c->sequential, (double)c->seed, run->adapter_params.dropout, run->adapter_params.router_aux_loss_coef};
    uint64_t h = hash_bytes(0xcbf29ce484222325u, numbers, sizeof numbers);
    for (uint32_t t = 0; t < run->params->n_tasks; t++) {
        const struct mosld_train_task *task = &run->params->tasks[t];
        h = hash_bytes(h, task->name, strlen(task->name));
        h = hash_bytes(h, &task->weight, sizeof task->weight);
        h = hash_bytes(h, task->examples->tokens, task->examples->n_tokens * sizeof *task->examples->tokens);
        h = hash_bytes(h, task->examples->labels, task->examples->n_tokens * sizeof *task->examples->labels);
    }
    return h;
}

/* ---- writing ---- */

enum rt_status run_save_adapter(struct mosld_run *run, const char *dir, struct rt_error *err)
{
    return mosld_adapter_write(run->adapter, run->params->base_model, dir, err);
}

static const char *const checked_files[] = {"adapter_model.safetensors", "optimizer.safetensors"};

static enum rt_status checksum(const char *dir, const char *name, char hash[32], struct rt_error *err)
{
    char *path = file_join(dir, name);
    struct file_map map;
    enum rt_status st = path ? file_map_open(path, &map, err) : rt_fail(err, RT_NO_MEMORY, "no memory for a file's name");
    if (!st) {
        snprintf(hash, 32, "%016llx", (unsigned long long)hash_bytes(0xcbf29ce484222325u, map.data, map.size));
        file_map_close(&map);
    }
    free(path);
    return st;
}

static enum rt_status write_moments(struct mosld_run *run, const char *dir, struct rt_error *err)
{
    const struct mosld_adapter *a = run->adapter;
    const struct mosld_adapter_vector moments[2] = {{a->moments, 0, ".exp_avg"}, {a->moments, a->words, ".exp_avg_sq"}};
    char *path = file_join(dir, "optimizer.safetensors");
    enum rt_status st = path ? mosld_adapter_write_vectors(a, moments, 2, path, err) : rt_fail(err, RT_NO_MEMORY, "no memory for a file's name");
    free(path);
    return st;
}

static enum rt_status write_state(struct mosld_run *run, const char *dir, struct rt_error *err)
{
    char hash[32], *path = file_join(dir, "trainer_state.json");
    cJSON *json = cJSON_CreateObject();
    const struct rt_device_info *info = rt_device_info(run->pass->model->dev);
    snprintf(hash, sizeof hash, "%016llx", (unsigned long long)fingerprint(run));
    cJSON_AddStringToObject(json, "mosld_version", MOSLD_VERSION);
    cJSON_AddNumberToObject(json, "global_step", (double)run->step);
    cJSON_AddNumberToObject(json, "max_steps", (double)run->plan.steps);
    cJSON_AddNumberToObject(json, "optimizer_updates", (double)run->stepper->updates);
    cJSON_AddNumberToObject(json, "micro_steps", (double)run->stepper->micro);
    cJSON_AddNumberToObject(json, "tokens", (double)run->tokens);
    cJSON_AddNumberToObject(json, "seconds", run->seconds);
    if (isfinite(run->best)) {
        cJSON_AddNumberToObject(json, "best_metric", run->best);
        cJSON_AddNumberToObject(json, "best_global_step", (double)run->best_step);
    }
    cJSON_AddStringToObject(json, "fingerprint", hash);
    cJSON_AddStringToObject(json, "device", info->name);
    cJSON_AddStringToObject(json, "driver", info->driver);
    cJSON *sums = cJSON_AddObjectToObject(json, "checksums");
    enum rt_status st = path && sums ? RT_OK : rt_fail(err, RT_NO_MEMORY, "no memory for trainer_state.json");
    for (size_t i = 0; i < sizeof checked_files / sizeof *checked_files && !st; i++) {
        st = checksum(dir, checked_files[i], hash, err);
        cJSON_AddStringToObject(sums, checked_files[i], hash);
    }
    if (!st)
        st = json_write_file(path, json, err);
    cJSON_Delete(json);
    free(path);
    return st;
}

static void remove_folder(const char *path)
{
    DIR *dir = opendir(path);
    struct dirent *entry;
    while (dir && (entry = readdir(dir))) {
        char *inner = entry->d_name[0] == '.' && (!entry->d_name[1] || entry->d_name[1] == '.') ? NULL : file_join(path, entry->d_name);
        if (inner)
            unlink(inner);
        free(inner);
    }
    if (dir)
        closedir(dir);
    rmdir(path);
}

/* "checkpoint-000123" -> 123; -1 for any other name, half-written ones included. */
static int64_t step_of(const char *name)
{
    const char prefix[] = "checkpoint-";
    char *end;
    if (strncmp(name, prefix, sizeof prefix - 1) != 0 || name[sizeof prefix - 1] < '0' || name[sizeof prefix - 1] > '9')
        return -1;
    long long step = strtoll(name + sizeof prefix - 1, &end, 10);
    return *end ? -1 : step;
}

/* Keeps the newest `save_total_limit` checkpoints, and the best one where it will be loaded. Failing to remove one is no failure of the run. */
static void remove_old(struct mosld_run *run)
{
    uint64_t limit = run->config->save_total_limit;
    while (limit) {
        DIR *dir = opendir(run->params->out);
        struct dirent *entry;
        uint64_t count = 0;
        int64_t oldest = -1;
        char name[64], *path;
        while (dir && (entry = readdir(dir))) {
            int64_t step = step_of(entry->d_name);
            if (step < 0 || (run->config->load_best_model_at_end && (uint64_t)step == run->best_step))
                continue;
            count++;
            if (oldest < 0 || step < oldest)
                oldest = step;
        }
        if (dir)
            closedir(dir);
        if (count <= limit)
            return;
        snprintf(name, sizeof name, "checkpoint-%06lld", (long long)oldest);
        path = file_join(run->params->out, name);
        if (path)
            remove_folder(path);
        bool gone = path && !file_is_folder(path);
        free(path);
        if (!gone)
            return;
    }
}

enum rt_status run_save_checkpoint(struct mosld_run *run, struct rt_error *err)
{
    char name[64], temporary[80], *path, *beside;
    if (run->saved_step == run->step && run->step)
        return RT_OK;
    snprintf(name, sizeof name, "checkpoint-%06llu", (unsigned long long)run->step);
    snprintf(temporary, sizeof temporary, ".%s.tmp", name);
    path = file_join(run->params->out, name);
    beside = file_join(run->params->out, temporary);
    enum rt_status st = path && beside ? RT_OK : rt_fail(err, RT_NO_MEMORY, "no memory for a file's name");
    if (!st) {
        remove_folder(beside); /* of a run that was killed here */
        st = file_make_folders(beside, err);
    }
    if (!st)
        st = run_save_adapter(run, beside, err);
    if (!st)
        st = write_moments(run, beside, err);
    if (!st)
        st = write_state(run, beside, err);
    if (!st)
        st = file_sync_folder(beside, err);
    if (!st && file_is_folder(path))
        remove_folder(path); /* the same step, done again after going on from an earlier checkpoint */
    if (!st && rename(beside, path) != 0)
        st = rt_fail(err, RT_FAILED, "%s: cannot be renamed to %s: %s", beside, path, strerror(errno));
    if (!st)
        st = file_sync_folder(run->params->out, err);
    if (!st) {
        run->saved_step = run->step;
        remove_old(run);
        if (run->params->events.saved)
            run->params->events.saved(run->params->events.user, path);
    }
    free(path);
    free(beside);
    return st;
}

/* ---- reading ---- */

enum rt_status run_find_checkpoint(const struct mosld_train_params *p, char **path, struct rt_error *err)
{
    *path = NULL;
    if (strcmp(p->resume, "last") != 0 && strcmp(p->resume, "true") != 0) {
        *path = strdup(p->resume);
        return *path ? RT_OK : rt_fail(err, RT_NO_MEMORY, "no memory for a file's name");
    }
    DIR *dir = opendir(p->out);
    struct dirent *entry;
    int64_t newest = -1;
    while (dir && (entry = readdir(dir)))
        if (step_of(entry->d_name) > newest)
            newest = step_of(entry->d_name);
    if (dir)
        closedir(dir);
    if (newest < 0)
        return rt_fail(err, RT_USAGE, "resume_from_checkpoint: there is no checkpoint in %s; without this option the run begins anew", p->out);
    char name[64];
    snprintf(name, sizeof name, "checkpoint-%06lld", (long long)newest);
    *path = file_join(p->out, name);
    return *path ? RT_OK : rt_fail(err, RT_NO_MEMORY, "no memory for a file's name");
}

static enum rt_status read_moments(struct mosld_run *run, const char *dir, struct rt_error *err)
{
    const struct mosld_adapter *a = run->adapter;
    const struct mosld_adapter_vector moments[2] = {{a->moments, 0, ".exp_avg"}, {a->moments, a->words, ".exp_avg_sq"}};
    char *path = file_join(dir, "optimizer.safetensors");
    enum rt_status st = path ? mosld_adapter_read_vectors(run->adapter, moments, 2, path, err) : rt_fail(err, RT_NO_MEMORY, "no memory for a file's name");
    free(path);
    return st;
}

static enum rt_status check_sums(const cJSON *json, const char *path, const char *dir, struct rt_error *err)
{
    const cJSON *sums;
    TRY(json_object(json, "checksums", path, &sums, err));
    for (size_t i = 0; i < sizeof checked_files / sizeof *checked_files; i++) {
        const char *wanted;
        char hash[32];
        TRY(json_string(sums, checked_files[i], path, &wanted, err));
        TRY(checksum(dir, checked_files[i], hash, err));
        if (strcmp(hash, wanted) != 0)
            return rt_fail(err, RT_BAD_FILE, "%s/%s: is damaged: its checksum is not that of trainer_state.json; go on from an earlier checkpoint",
                           dir, checked_files[i]);
    }
    return RT_OK;
}

static enum rt_status check_same_run(struct mosld_run *run, const cJSON *json, const char *path, struct rt_error *err)
{
    const char *hash, *device, *driver;
    char mine[32];
    snprintf(mine, sizeof mine, "%016llx", (unsigned long long)fingerprint(run));
    TRY(json_string(json, "fingerprint", path, &hash, err));
    TRY(json_string_or(json, "device", path, "", &device, err));
    TRY(json_string_or(json, "driver", path, "", &driver, err));
    if (strcmp(hash, mine) != 0)
        return rt_fail(err, RT_USAGE, "%s belongs to a run with other options or other task data: give the same ones (the run folder's run.json "
                                      "has them, --config takes it), or begin anew from its adapter with --init-adapter", path);
    const struct rt_device_info *info = rt_device_info(run->pass->model->dev);
    if ((strcmp(device, info->name) != 0 || strcmp(driver, info->driver) != 0) && run->params->events.note)
        run->params->events.note(run->params->events.user, "the checkpoint was made on another device or driver: the run goes on, but not to "
                                                           "the same bits");
    return RT_OK;
}

static enum rt_status read_state(struct mosld_run *run, const cJSON *json, const char *path, struct rt_error *err)
{
    int64_t step, updates, micro, tokens, best_step;
    TRY(check_same_run(run, json, path, err));
    TRY(json_integer(json, "global_step", path, 0, (int64_t)run->plan.steps, &step, err));
    TRY(json_integer(json, "optimizer_updates", path, 0, step, &updates, err));
    TRY(json_integer(json, "micro_steps", path, 0, JSON_INT_MAX, &micro, err));
    TRY(json_integer_or(json, "tokens", path, 0, JSON_INT_MAX, 0, &tokens, err));
    TRY(json_number_or(json, "seconds", path, 0, 1e12, 0, &run->seconds, err));
    TRY(json_number_or(json, "best_metric", path, -1e30, 1e30, NAN, &run->best, err));
    TRY(json_integer_or(json, "best_global_step", path, 0, step, 0, &best_step, err));
    if ((uint64_t)micro != run->plan.step_begin[step])
        return rt_fail(err, RT_BAD_FILE, "%s: \"micro_steps\" is %lld, and step %lld begins at %llu", path, (long long)micro, (long long)step,
                       (unsigned long long)run->plan.step_begin[step]);
    run->step = run->saved_step = (uint64_t)step;
    run->stepper->updates = (uint64_t)updates;
    run->stepper->micro = (uint64_t)micro;
    run->tokens = (uint64_t)tokens;
    run->best_step = (uint64_t)best_step;
    return RT_OK;
}

enum rt_status run_load_checkpoint(struct mosld_run *run, const char *dir, struct rt_error *err)
{
    char *path = file_join(dir, "trainer_state.json");
    cJSON *json = NULL;
    enum rt_status st = path ? json_read_file(path, 1 << 24, &json, err) : rt_fail(err, RT_NO_MEMORY, "no memory for a file's name");
    if (!st)
        st = read_state(run, json, path, err);
    if (!st)
        st = check_sums(json, path, dir, err);
    if (!st)
        st = mosld_adapter_read(run->adapter, dir, err);
    if (!st)
        st = read_moments(run, dir, err);
    cJSON_Delete(json);
    free(path);
    return st;
}
