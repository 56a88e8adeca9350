/* mosld/train/folder.c - the run folder: made, locked for this process, refused where it holds a run already; run.json.
 */
#include "mosld/train/run.h"

#include "mosld/io/file.h"
#include "mosld/io/json.h"
#include "mosld/tune/choices.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

static bool begins(const char *text, const char *prefix) { return strncmp(text, prefix, strlen(prefix)) == 0; }

static const char *const our_files[] = {"metrics.jsonl", "run.json", "adapter_config.json",
                                        "adapter_model.safetensors"};
#define N_OUR_FILES (sizeof our_files / sizeof *our_files)

/* What a run writes into its folder; nothing else there is ever touched. */
static bool is_ours(const char *name)
{
    bool ours = begins(name, "checkpoint-") || begins(name, "events.out.tfevents.");
    for (size_t i = 0; i < N_OUR_FILES; i++)
        ours = ours || strcmp(name, our_files[i]) == 0;
    return ours;
}

/* What was being written or removed when a run was killed: checkpoints under a hidden name, files under file_writer's.
 */
static bool is_remnant(const char *name)
{
    bool remnant = begins(name, ".checkpoint-");
    for (size_t i = 0; i < N_OUR_FILES; i++)
        remnant = remnant || (begins(name, our_files[i]) && begins(name + strlen(our_files[i]), ".tmp-"));
    return remnant;
}

int64_t run_step_of(const char *name)
{
    const char prefix[] = "checkpoint-";
    char *end;
    if (strncmp(name, prefix, sizeof prefix - 1) != 0 || name[sizeof prefix - 1] < '0' || name[sizeof prefix - 1] > '9')
        return -1;
    long long step = strtoll(name + sizeof prefix - 1, &end, 10);
    return *end ? -1 : step;
}

/* ---- removing ---- */

static enum rt_status remove_path(const char *path, struct rt_error *err)
{
    if (!file_is_folder(path))
        return unlink(path) == 0 || errno == ENOENT
                   ? RT_OK
                   : rt_fail(err, RT_FAILED, "%s: cannot be removed: %s", path, strerror(errno));
    DIR *dir = opendir(path);
    struct dirent *entry;
    while (dir && (entry = readdir(dir))) {
        char *inner = strcmp(entry->d_name, ".") && strcmp(entry->d_name, "..") ? file_join(path, entry->d_name) : NULL;
        if (inner)
            unlink(inner); /* a checkpoint has no folders in it */
        free(inner);
    }
    if (dir)
        closedir(dir);
    return rmdir(path) == 0 ? RT_OK : rt_fail(err, RT_FAILED, "%s: cannot be removed: %s", path, strerror(errno));
}

enum rt_status run_discard(struct mosld_run *run, const char *name, struct rt_error *err)
{
    char hidden[96];
    snprintf(hidden, sizeof hidden, "%s%s.old", name[0] == '.' ? "" : ".", name);
    char *path = file_join(run->params->out, name), *away = file_join(run->params->out, hidden);
    enum rt_status st = path && away ? RT_OK : rt_fail(err, RT_NO_MEMORY, "no memory for a file's name");
    if (!st && rename(path, away) != 0)
        st = errno == ENOENT ? RT_OK : rt_fail(err, RT_FAILED, "%s: cannot be removed: %s", path, strerror(errno));
    else if (!st)
        st = remove_path(away, err);
    free(path);
    free(away);
    return st;
}

/* Removes the entries of the run folder that `wanted` picks. */
static enum rt_status remove_entries(const char *out, bool (*wanted)(const char *name), struct rt_error *err)
{
    DIR *dir = opendir(out);
    struct dirent *entry;
    enum rt_status st = RT_OK;
    if (!dir)
        return rt_fail(err, RT_FAILED, "%s: cannot be read: %s", out, strerror(errno));
    while (!st && (entry = readdir(dir))) {
        if (!wanted(entry->d_name))
            continue;
        char *path = file_join(out, entry->d_name);
        st = path ? remove_path(path, err) : rt_fail(err, RT_NO_MEMORY, "no memory for a file's name");
        free(path);
    }
    closedir(dir);
    return st;
}

/* ---- opening ---- */

static bool holds_run(const char *out)
{
    DIR *dir = opendir(out);
    struct dirent *entry;
    bool found = false;
    while (dir && !found && (entry = readdir(dir)))
        found = is_ours(entry->d_name);
    if (dir)
        closedir(dir);
    return found;
}

static bool is_last(const char *resume) { return strcmp(resume, "last") == 0 || strcmp(resume, "true") == 0; }

/* Whether the run goes on in the folder where its checkpoint is; else the folder is treated as that of a new run. */
static bool resumes_here(const struct mosld_train_params *p)
{
    if (!p->resume)
        return false;
    if (is_last(p->resume))
        return true;
    char *above = file_join(p->resume, ".."), *there = above ? realpath(above, NULL) : NULL,
         *here = realpath(p->out, NULL);
    bool same = there && here && strcmp(there, here) == 0;
    free(above);
    free(there);
    free(here);
    return same;
}

enum rt_status run_open_folder(struct mosld_run *run, struct rt_error *err)
{
    const struct mosld_train_params *p = run->params;
    bool resumes = resumes_here(p);
    if (resumes && !file_is_folder(p->out))
        return rt_fail(err, RT_USAGE, "resume_from_checkpoint: there is no folder %s with a run to go on with", p->out);
    if (p->resume && !is_last(p->resume) && !file_is_folder(p->resume))
        return rt_fail(err, RT_BAD_FILE, "resume_from_checkpoint: there is no folder %s", p->resume);
    enum rt_status st = file_make_folders(p->out, err);
    char *path = st ? NULL : file_join(p->out, ".lock");
    if (st)
        return st;
    run->lock = path ? open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666) : -1;
    free(path);
    if (run->lock < 0)
        return rt_fail(err, RT_FAILED, "%s: cannot be written: %s", p->out, strerror(errno));
    if (flock(run->lock, LOCK_EX | LOCK_NB) != 0)
        return rt_fail(err, RT_USAGE,
                       "%s: another mosld is training into this folder: wait for it or choose another --out", p->out);
    if (!resumes && !p->overwrite && holds_run(p->out))
        return rt_fail(err, RT_USAGE,
                       "%s holds a run already: go on with it by --resume-from-checkpoint last, replace it by "
                       "--overwrite-output-dir, or choose another --out",
                       p->out);
    return remove_entries(p->out, is_remnant, err);
}

enum rt_status run_clear_folder(struct mosld_run *run, struct rt_error *err)
{
    return resumes_here(run->params) ? RT_OK : remove_entries(run->params->out, is_ours, err);
}

/* ---- run.json ---- */

enum rt_status run_write_description(struct mosld_run *run, struct rt_error *err)
{
    const struct mosld_train_params *p = run->params;
    const struct rt_device_info *info = rt_device_info(p->model->dev);
    cJSON *json = cJSON_CreateObject(), *device, *plan;
    if (!json)
        return rt_fail(err, RT_NO_MEMORY, "no memory for run.json");
    cJSON_AddStringToObject(json, "mosld_version", MOSLD_VERSION);
    cJSON_AddStringToObject(json, "compiler", __VERSION__);
    device = cJSON_AddObjectToObject(json, "device");
    cJSON_AddStringToObject(device, "name", info->name);
    cJSON_AddStringToObject(device, "driver", info->driver);
    cJSON_AddStringToObject(device, "kind", info->kind == RT_HOST ? "host" : "vulkan");
    plan = cJSON_AddObjectToObject(json, "plan");
    cJSON_AddNumberToObject(plan, "steps", (double)run->plan.steps);
    cJSON_AddNumberToObject(plan, "micro_steps", (double)run->plan.n_micro);
    cJSON_AddNumberToObject(plan, "rows_per_epoch", (double)run->plan.epoch_rows);
    cJSON_AddNumberToObject(plan, "largest_micro_batch_tokens", run->most_tokens);
    cJSON_AddNumberToObject(plan, "trainable_parameters", (double)run->adapter->parameters);
    cJSON_AddNumberToObject(plan, "head_slice_rows", mosld_pass_slice(run->pass));
    cJSON_AddItemToObject(json, "variants", mosld_choices_taken_json(p->model->dev)); /* what ran: known from the first step on */
    if (p->effective)
        cJSON_AddItemToObject(json, "configuration", cJSON_Duplicate(p->effective, true));
    char *path = file_join(p->out, "run.json");
    enum rt_status st = path ? json_write_file(path, json, err) : rt_fail(err, RT_NO_MEMORY, "no memory for run.json");
    free(path);
    cJSON_Delete(json);
    return st;
}
