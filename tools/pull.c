/* tools/pull.c - mosld pull: a model from a Hugging Face hub into its cache. */
#include "tools/commands.h"

#include "mosld/io/file.h"
#include "mosld/io/json.h"
#include "tools/hub.h"
#include "tools/pull_http.h"
#include "tools/session.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct pull_options {
    char *revision;
};

static const struct option table[] = {
    {.name = "revision",
     OPTION_STRING(struct pull_options, revision),
     .value = "NAME",
     .help = "branch, tag or commit; with HF_ENDPOINT, HF_TOKEN, HF_HOME and HF_HUB_CACHE as other programs read them"},
};

struct pull {
    struct pull_options o;
    struct hub_name name;
    char *folder; /* of the repository in the cache */
    char commit[65];
    char **files;
    size_t n_files;
    struct http *http;
};

#if defined HAVE_LIBCURL && defined HAVE_LIBCRYPTO

/* ---- which files ---- */

static bool ends_in(const char *text, const char *end)
{
    size_t n = strlen(text), m = strlen(end);
    return n >= m && strcmp(text + n - m, end) == 0;
}

static bool has_file(const cJSON *siblings, const char *name)
{
    const cJSON *item;
    cJSON_ArrayForEach(item, siblings)
    {
        const cJSON *file = json_find(item, "rfilename");
        if (cJSON_IsString(file) && strcmp(file->valuestring, name) == 0)
            return true;
    }
    return false;
}

static enum rt_status want(struct pull *p, const char *file, struct rt_error *err)
{
    char **grown = realloc(p->files, (p->n_files + 1) * sizeof *grown), *copy = strdup(file);
    if (grown)
        p->files = grown;
    if (!grown || !copy) {
        free(copy);
        return rt_fail(err, RT_NO_MEMORY, "no memory for the list of files");
    }
    if (!hub_safe_path(file)) {
        enum rt_status st = rt_fail(err, RT_FAILED, "%s: the hub names a file '%.100s', which is no path below a folder: nothing was written", p->name.repo, file);
        free(copy);
        return st;
    }
    p->files[p->n_files++] = copy;
    return RT_OK;
}

/* All parts of a split file: NAME-00001-of-00003.gguf. */
static bool is_part_of(const char *file, const char *first)
{
    const char *at = strstr(first, "-00001-of-");
    size_t n = at ? (size_t)(at - first) + 1 : 0;
    return at && strncmp(file, first, n) == 0 && strlen(file) == strlen(first) && strcmp(file + n + 5, first + n + 5) == 0;
}

/* The one GGUF file, where there is but one. */
static enum rt_status choose_gguf(struct pull *p, const cJSON *siblings, struct rt_error *err)
{
    const cJSON *item;
    char names[700] = "";
    unsigned found = 0;
    cJSON_ArrayForEach(item, siblings)
    {
        const cJSON *file = json_find(item, "rfilename");
        if (!cJSON_IsString(file) || !ends_in(file->valuestring, ".gguf") || (strstr(file->valuestring, "-of-") && !strstr(file->valuestring, "-00001-of-")))
            continue;
        if (hub_safe_path(file->valuestring))
            snprintf(p->name.file, sizeof p->name.file, "%s", file->valuestring);
        size_t at = strlen(names);
        snprintf(names + at, sizeof names - at, "%s%s", found++ ? ", " : "", file->valuestring);
    }
    if (found == 1 && p->name.file[0])
        return RT_OK;
    if (found)
        return rt_fail(err, RT_USAGE, "%s has %u GGUF files: name one, mosld pull %s:FILE. There are %s", p->name.repo, found, p->name.repo, names);
    return rt_fail(err, RT_BAD_FILE, "%s has neither safetensors nor GGUF files: it is nothing that mosld runs", p->name.repo);
}

static enum rt_status choose_files(struct pull *p, const cJSON *siblings, struct rt_error *err)
{
    static const char *const settings[] = {"config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
                                           "chat_template.jinja", "chat_template.json", "adapter_config.json", "adapter_model.safetensors"};
    const cJSON *item;
    bool index = has_file(siblings, "model.safetensors.index.json"), single = has_file(siblings, "model.safetensors");
    bool adapter = has_file(siblings, "adapter_config.json");
    if (!p->name.file[0] && !index && !single && !adapter)
        RT_TRY(choose_gguf(p, siblings, err));
    if (p->name.file[0] && !has_file(siblings, p->name.file))
        return rt_fail(err, RT_BAD_FILE, "%s has no file %s", p->name.repo, p->name.file);
    cJSON_ArrayForEach(item, siblings)
    {
        const cJSON *file = json_find(item, "rfilename");
        if (!cJSON_IsString(file))
            continue;
        const char *name = file->valuestring;
        bool take = false;
        if (p->name.file[0]) {
            take = strcmp(name, p->name.file) == 0 || is_part_of(name, p->name.file);
        } else {
            for (size_t i = 0; i < sizeof settings / sizeof *settings; i++)
                take = take || strcmp(name, settings[i]) == 0;
            take = take || (single && !index && strcmp(name, "model.safetensors") == 0) ||
                   (index && (strcmp(name, "model.safetensors.index.json") == 0 || (strncmp(name, "model-", 6) == 0 && ends_in(name, ".safetensors"))));
        }
        if (take)
            RT_TRY(want(p, name, err));
    }
    return RT_OK;
}

static enum rt_status list_files(struct pull *p, struct rt_error *err)
{
    cJSON *json = NULL;
    const cJSON *siblings;
    const char *commit;
    char *body = NULL, path[600];
    size_t n;
    snprintf(path, sizeof path, "/api/models/%s/revision/%s", p->name.repo, p->o.revision);
    RT_TRY(http_get(p->http, path, p->name.repo, &body, &n, err));
    enum rt_status st = json_parse(body, n, "the hub's answer", 1, &json, err);
    free(body);
    if (!st)
        st = json_string(json, "sha", "the hub's answer", &commit, err);
    if (!st && (strlen(commit) >= sizeof p->commit || !*commit || strspn(commit, "0123456789abcdef") != strlen(commit)))
        st = rt_fail(err, RT_FAILED, "the hub's answer: \"sha\" is no commit");
    if (!st) {
        snprintf(p->commit, sizeof p->commit, "%s", commit);
        st = json_array(json, "siblings", "the hub's answer", &siblings, err);
    }
    if (!st)
        st = choose_files(p, siblings, err);
    cJSON_Delete(json);
    return st == RT_BAD_FILE ? rt_error_prefix(err, "pull") : st;
}

/* ---- files ---- */

/* snapshots/COMMIT/FILE, a link to ../../blobs/ETAG, with as many .. more as FILE has folders. */
static enum rt_status link_file(struct pull *p, const char *file, const char *etag, struct rt_error *err)
{
    char target[1200] = "", *path = NULL, *slash;
    for (const char *at = file; (at = strchr(at, '/')); at++)
        strcat(target, "../"); /* a safe path has less than 200 of them */
    size_t n = strlen(target);
    snprintf(target + n, sizeof target - n, "../../blobs/%s", etag);
    if (asprintf(&path, "%s/snapshots/%s/%s", p->folder, p->commit, file) < 0)
        return rt_fail(err, RT_NO_MEMORY, "no memory for a path");
    slash = strrchr(path, '/');
    *slash = 0;
    enum rt_status st = file_make_folders(path, err);
    *slash = '/';
    if (!st && unlink(path) != 0 && errno != ENOENT)
        st = rt_fail(err, RT_FAILED, "%s: cannot be replaced: %s", path, strerror(errno));
    if (!st && symlink(target, path) != 0)
        st = rt_fail(err, RT_FAILED, "%s: cannot be made: %s", path, strerror(errno));
    free(path);
    return st;
}

static enum rt_status get_file(struct pull *p, size_t i, struct rt_error *err)
{
    struct http_file f;
    char path[1200], *blob = NULL;
    snprintf(path, sizeof path, "/%s/resolve/%s/%s", p->name.repo, p->commit, p->files[i]);
    RT_TRY(http_head(p->http, path, p->files[i], &f, err));
    if (asprintf(&blob, "%s/blobs/%s", p->folder, f.etag) < 0)
        return rt_fail(err, RT_NO_MEMORY, "no memory for a path");
    enum rt_status st = RT_OK;
    if (!file_is_regular(blob))
        st = http_download(p->http, path, p->files[i], &f, blob, err);
    if (!st)
        st = link_file(p, p->files[i], f.etag, err);
    free(blob);
    return st;
}

static enum rt_status write_ref(struct pull *p, struct rt_error *err)
{
    char *path = NULL;
    if (asprintf(&path, "%s/refs/%s", p->folder, p->o.revision) < 0)
        return rt_fail(err, RT_NO_MEMORY, "no memory for a path");
    char *slash = strrchr(path, '/');
    *slash = 0;
    enum rt_status st = file_make_folders(path, err);
    *slash = '/';
    if (!st)
        st = file_write_atomic(path, p->commit, strlen(p->commit), err);
    free(path);
    return st;
}

static enum rt_status run(void *state, const struct options *given, struct rt_error *err)
{
    struct pull *p = state;
    char *blobs = NULL;
    if (!given->arguments.n || !hub_parse(given->arguments.item[0], &p->name))
        return rt_fail(err, RT_USAGE, "name a model: mosld pull ORG/NAME, or ORG/NAME:FILE for one file of it");
    if (!hub_safe_path(p->o.revision))
        return rt_fail(err, RT_USAGE, "--revision: '%.80s' is no branch, tag or commit", p->o.revision);
    p->folder = hub_folder(p->name.repo);
    if (!p->folder || asprintf(&blobs, "%s/blobs", p->folder) < 0)
        return rt_fail(err, RT_USAGE, "there is no place for the cache: set HF_HOME");
    enum rt_status st = http_open(&p->http, err);
    if (!st)
        st = list_files(p, err);
    if (!st)
        st = file_make_folders(blobs, err);
    for (size_t i = 0; i < p->n_files && !st; i++)
        st = get_file(p, i, err);
    if (!st)
        st = write_ref(p, err);
    free(blobs);
    if (st)
        return st;
    progress_line("%s", "");
    printf("%s/snapshots/%s%s%s\n", p->folder, p->commit, p->name.file[0] ? "/" : "", p->name.file);
    return RT_OK;
}

static void finish(void *state)
{
    struct pull *p = state;
    for (size_t i = 0; i < p->n_files; i++)
        free(p->files[i]);
    free(p->files);
    free(p->folder);
    http_close(&p->http);
}

#else

static enum rt_status run(void *state, const struct options *given, struct rt_error *err)
{
    (void)state;
    (void)given;
    return rt_fail(err, RT_USAGE, "this mosld was built without libcurl or libcrypto: install libcurl4-openssl-dev and libssl-dev and build it again");
}

static void finish(void *state) { (void)state; }

#endif

int cmd_pull(int argc, char **argv)
{
    struct pull p = {.o = {.revision = "main"}};
    return session_main(&(struct session_command){.name = "pull",
                                                  .usage = "mosld pull ORG/NAME[:FILE] [--revision NAME]",
                                                  .table = table,
                                                  .n = sizeof table / sizeof *table,
                                                  .values = &p.o,
                                                  .max_arguments = 1,
                                                  .interruptible = true,
                                                  .run = run,
                                                  .finish = finish,
                                                  .state = &p},
                        argc, argv);
}
