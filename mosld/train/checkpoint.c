/* mosld/train/checkpoint.c - what a run needs to go on to the same bits: written beside, synced, renamed.
 *
 * checkpoint-000123/ has the adapter (adapter_config.json, adapter_model.safetensors), AdamW's two moments
 * (optimizer.safetensors: the adapter's tensor names with .exp_avg and .exp_avg_sq behind them), and trainer_state.json
 * with checksums of these and of itself. Random bits need no state: they come from counters. The order of rows comes
 * from the seed and a number. */
#include "mosld/train/run.h"

#include "mosld/adapter/adapter_file.h"
#include "mosld/io/file.h"
#include "mosld/io/json.h"
#include "mosld/io/safetensors.h"
#include "mosld/tune/choices.h"

#include <dirent.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- writing ---- */

enum rt_status run_save_adapter(struct mosld_run *run, const char *dir, struct rt_error *err)
{
    return mosld_adapter_write(run->adapter, run->params->base_model, dir, err);
}

static const char *const checked_files[] = {"adapter_config.json", "adapter_model.safetensors",
                                            "optimizer.safetensors"};

static enum rt_status checksum(const char *dir, const char *name, char hash[32], struct rt_error *err)
{
    char *path = file_join(dir, name);
    struct file_map map;
    enum rt_status st =
        path ? file_map_open(path, &map, err) : rt_fail(err, RT_NO_MEMORY, "no memory for a file's name");
    if (!st) {
        snprintf(hash, 32, "%016llx", (unsigned long long)run_hash(RUN_HASH_START, map.data, map.size));
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
    enum rt_status st = path ? mosld_adapter_write_vectors(a, moments, 2, path, err)
                             : rt_fail(err, RT_NO_MEMORY, "no memory for a file's name");
    free(path);
    return st;
}

/* Of the state itself: its text without the key "checksum". Printing and parsing JSON again gives the same text. */
static enum rt_status state_checksum(const cJSON *json, char hash[32], struct rt_error *err)
{
    char *text = cJSON_PrintUnformatted(json);
    if (!text)
        return rt_fail(err, RT_NO_MEMORY, "no memory for trainer_state.json");
    snprintf(hash, 32, "%016llx", (unsigned long long)run_hash(RUN_HASH_START, text, strlen(text)));
    cJSON_free(text);
    return RT_OK;
}

static enum rt_status state_json(struct mosld_run *run, cJSON *json, struct rt_error *err)
{
    char hash[32];
    const struct rt_device_info *info = rt_device_info(run->pass->model->dev);
    RT_TRY(run_fingerprint(run, hash, err));
    cJSON_AddStringToObject(json, "mosld_version", MOSLD_VERSION);
    cJSON_AddNumberToObject(json, "global_step", (double)run->step);
    cJSON_AddNumberToObject(json, "max_steps", (double)run->plan.steps);
    cJSON_AddNumberToObject(json, "optimizer_updates", (double)run->stepper->updates);
    cJSON_AddNumberToObject(json, "skipped_steps", (double)run->skipped);
    cJSON_AddNumberToObject(json, "micro_steps", (double)run->stepper->micro);
    cJSON_AddNumberToObject(json, "tokens", (double)run->tokens);
    cJSON_AddNumberToObject(json, "seconds", run->seconds);
    if (isfinite(run->best)) {
        cJSON_AddNumberToObject(json, "best_metric", run->best);
        cJSON_AddNumberToObject(json, "best_global_step", (double)run->best_step);
    }
    cJSON_AddBoolToObject(json, "evaluation_pending", run->evaluation_pending);
    cJSON_AddStringToObject(json, "fingerprint", hash);
    cJSON_AddStringToObject(json, "device", info->name);
    cJSON_AddStringToObject(json, "driver", info->driver);
    const struct mosld_model *model = run->pass->model;
    return cJSON_AddItemToObject(json, "variants", mosld_choices_json(model->dev, mosld_model_wtypes(model) | 1u << OP_W_F32))
               ? RT_OK
               : rt_fail(err, RT_NO_MEMORY, "no memory for trainer_state.json");
}

static enum rt_status write_state(struct mosld_run *run, const char *dir, struct rt_error *err)
{
    char hash[32], *path = file_join(dir, "trainer_state.json");
    cJSON *json = cJSON_CreateObject(), *sums = NULL;
    enum rt_status st =
        path && json ? state_json(run, json, err) : rt_fail(err, RT_NO_MEMORY, "no memory for trainer_state.json");
    if (!st && !(sums = cJSON_AddObjectToObject(json, "checksums")))
        st = rt_fail(err, RT_NO_MEMORY, "no memory for trainer_state.json");
    for (size_t i = 0; i < sizeof checked_files / sizeof *checked_files && !st; i++) {
        st = checksum(dir, checked_files[i], hash, err);
        cJSON_AddStringToObject(sums, checked_files[i], hash);
    }
    if (!st)
        st = state_checksum(json, hash, err);
    if (!st) {
        cJSON_AddStringToObject(json, "checksum", hash);
        st = json_write_file(path, json, err);
    }
    cJSON_Delete(json);
    free(path);
    return st;
}

/* Keeps the newest `save_total_limit` checkpoints, and the best one where it will be loaded. Failing to remove one is
 * no failure of the run. */
static void remove_old(struct mosld_run *run)
{
    uint64_t limit = run->config->save_total_limit;
    while (limit) {
        DIR *dir = opendir(run->params->out);
        struct dirent *entry;
        uint64_t count = 0;
        int64_t oldest = -1;
        char name[64];
        while (dir && (entry = readdir(dir))) {
            int64_t step = run_step_of(entry->d_name);
            if (step < 0 || (run->config->load_best_model_at_end && (uint64_t)step == run->best_step))
                continue;
            count++;
            if (oldest < 0 || step < oldest)
                oldest = step;
        }
        if (dir)
            closedir(dir);
        snprintf(name, sizeof name, "checkpoint-%06lld", (long long)oldest);
        if (count <= limit || run_discard(run, name, NULL))
            return;
    }
}

static enum rt_status write_checkpoint(struct mosld_run *run, const char *dir, struct rt_error *err)
{
    RT_TRY(file_make_folders(dir, err));
    RT_TRY(run_save_adapter(run, dir, err));
    RT_TRY(write_moments(run, dir, err));
    RT_TRY(write_state(run, dir, err));
    return file_sync_folder(dir, err);
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
        st = write_checkpoint(run, beside, err);
        if (!st && file_is_folder(path))
            st = run_discard(run, name, err); /* the same step, done again after going on from an earlier checkpoint */
        if (!st && rename(beside, path) != 0)
            st = rt_fail(err, RT_FAILED, "%s: cannot be renamed to %s: %s", beside, path, strerror(errno));
        if (st)
            run_discard(run, temporary, NULL);
    }
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
        if (run_step_of(entry->d_name) > newest)
            newest = run_step_of(entry->d_name);
    if (dir)
        closedir(dir);
    if (newest < 0)
        return rt_fail(err, RT_USAGE,
                       "resume_from_checkpoint: there is no checkpoint in %s: leave the option out, and with "
                       "--overwrite-output-dir the run begins anew",
                       p->out);
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
    enum rt_status st = path ? mosld_adapter_read_vectors(run->adapter, moments, 2, path, err)
                             : rt_fail(err, RT_NO_MEMORY, "no memory for a file's name");
    free(path);
    return st;
}

/* The state first, since the other sums stand in it. */
static enum rt_status check_sums(cJSON *json, const char *path, const char *dir, struct rt_error *err)
{
    const cJSON *sums;
    char own[32];
    const char *said;
    RT_TRY(json_string(json, "checksum", path, &said, err));
    cJSON *item = cJSON_DetachItemFromObjectCaseSensitive(json, "checksum");
    enum rt_status st = state_checksum(json, own, err);
    bool same = strcmp(own, item->valuestring) == 0;
    cJSON_Delete(item);
    if (st || !same)
        return st ? st
                  : rt_fail(err, RT_BAD_FILE,
                            "%s: is damaged: its checksum is not its own; go on from an earlier checkpoint", path);
    RT_TRY(json_object(json, "checksums", path, &sums, err));
    for (size_t i = 0; i < sizeof checked_files / sizeof *checked_files; i++) {
        const char *wanted;
        char hash[32];
        RT_TRY(json_string(sums, checked_files[i], path, &wanted, err));
        RT_TRY(checksum(dir, checked_files[i], hash, err));
        if (strcmp(hash, wanted) != 0)
            return rt_fail(
                err, RT_BAD_FILE,
                "%s/%s: is damaged: its checksum is not that of trainer_state.json; go on from an earlier checkpoint",
                dir, checked_files[i]);
    }
    return RT_OK;
}

static enum rt_status check_same_run(struct mosld_run *run, const cJSON *json, const char *path, struct rt_error *err)
{
    const char *hash, *device, *driver;
    char mine[32];
    RT_TRY(run_fingerprint(run, mine, err));
    RT_TRY(json_string(json, "fingerprint", path, &hash, err));
    RT_TRY(json_string_or(json, "device", path, "", &device, err));
    RT_TRY(json_string_or(json, "driver", path, "", &driver, err));
    if (strcmp(hash, mine) != 0)
        return rt_fail(err, RT_USAGE,
                       "%s belongs to a run with other options, another model or other task data: give the same ones "
                       "(the run folder's run.json "
                       "has them, --config takes it), or begin anew from its adapter with --init-adapter",
                       path);
    const struct rt_device_info *info = rt_device_info(run->pass->model->dev);
    if ((strcmp(device, info->name) != 0 || strcmp(driver, info->driver) != 0) && run->params->events.note)
        run->params->events.note(run->params->events.user,
                                 "the checkpoint was made on another device or driver: the run goes on, but not to "
                                 "the same bits");
    return RT_OK;
}

static enum rt_status read_state(struct mosld_run *run, const cJSON *json, const char *path, struct rt_error *err)
{
    int64_t step, updates, skipped, micro, tokens, best_step;
    RT_TRY(check_same_run(run, json, path, err));
    RT_TRY(json_integer(json, "global_step", path, 0, (int64_t)run->plan.steps, &step, err));
    RT_TRY(json_integer(json, "optimizer_updates", path, 0, step, &updates, err));
    RT_TRY(json_integer_or(json, "skipped_steps", path, 0, step, 0, &skipped, err));
    RT_TRY(json_bool_or(json, "evaluation_pending", path, false, &run->evaluation_pending, err));
    RT_TRY(json_integer(json, "micro_steps", path, 0, JSON_INT_MAX, &micro, err));
    RT_TRY(json_integer_or(json, "tokens", path, 0, JSON_INT_MAX, 0, &tokens, err));
    RT_TRY(json_number_or(json, "seconds", path, 0, 1e12, 0, &run->seconds, err));
    RT_TRY(json_number_or(json, "best_metric", path, -1e30, 1e30, NAN, &run->best, err));
    RT_TRY(json_integer_or(json, "best_global_step", path, 0, step, 0, &best_step, err));
    if ((uint64_t)micro != run->plan.step_begin[step])
        return rt_fail(err, RT_BAD_FILE, "%s: \"micro_steps\" is %lld, and step %lld begins at %llu", path,
                       (long long)micro, (long long)step, (unsigned long long)run->plan.step_begin[step]);
    run->step = run->saved_step = (uint64_t)step;
    run->stepper->updates = (uint64_t)updates;
    run->stepper->micro = (uint64_t)micro;
    run->tokens = (uint64_t)tokens;
    run->skipped = (uint64_t)skipped;
    run->best_step = (uint64_t)best_step;
    return RT_OK;
}

/* The variants that the run began with, whatever a tuning file says by now: so the bits stay. A checkpoint of another kind of device
 * names others, which is no fault of it. */
static enum rt_status keep_variants(struct mosld_run *run, const cJSON *json, const char *path, struct rt_error *err)
{
    const cJSON *variants;
    const char *device;
    bool whole;
    RT_TRY(json_object_or(json, "variants", path, &variants, err));
    RT_TRY(json_string_or(json, "device", path, "", &device, err));
    if (!variants || strcmp(device, rt_device_info(run->pass->model->dev)->name) != 0)
        return RT_OK;
    RT_TRY(mosld_choices_set(run->pass->model->dev, variants, path, &whole, err));
    if (!whole && run->params->events.note)
        run->params->events.note(run->params->events.user,
                                 "the checkpoint names variants of kernels that this build or device does not have: the run goes on, but "
                                 "not to the same bits");
    return RT_OK;
}

enum rt_status run_load_checkpoint(struct mosld_run *run, const char *dir, struct rt_error *err)
{
    char *path = file_join(dir, "trainer_state.json");
    cJSON *json = NULL;
    enum rt_status st =
        path ? json_read_file(path, 1 << 24, &json, err) : rt_fail(err, RT_NO_MEMORY, "no memory for a file's name");
    if (!st)
        st = check_sums(json, path, dir, err);
    if (!st)
        st = read_state(run, json, path, err);
    if (!st)
        st = keep_variants(run, json, path, err);
    if (!st)
        st = mosld_adapter_read(run->adapter, dir, err);
    if (!st)
        st = read_moments(run, dir, err);
    cJSON_Delete(json);
    free(path);
    return st;
}
