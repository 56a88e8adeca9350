/* tools/hub.c - see hub.h. */
#include "tools/hub.h"

#include "mosld/io/file.h"

#include <ctype.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool good_part(const char *s, size_t n)
{
    if (n == 0 || n > 96 || s[0] == '.' || s[0] == '-')
        return false;
    for (size_t i = 0; i < n; i++)
        if (!isalnum((unsigned char)s[i]) && !strchr("._-", s[i]))
            return false;
    return true;
}

bool hub_safe_path(const char *file)
{
    if (!*file || strlen(file) >= 400)
        return false;
    for (const char *at = file;; at++) {
        size_t n = strcspn(at, "/");
        if (n == 0 || n > 200 || (n == 1 && at[0] == '.') || (n == 2 && at[0] == '.' && at[1] == '.'))
            return false;
        for (size_t i = 0; i < n; i++)
            if ((unsigned char)at[i] < 0x20 || at[i] == 0x7f || at[i] == '\\' || at[i] == ':')
                return false;
        at += n;
        if (!*at)
            return true;
    }
}

bool hub_parse(const char *text, struct hub_name *name)
{
    size_t n = strcspn(text, ":"), org = strcspn(text, "/");
    bool pair = org < n;
    if (n >= sizeof name->repo || !good_part(text, pair ? org : n) || (pair && !good_part(text + org + 1, n - org - 1)))
        return false;
    snprintf(name->repo, sizeof name->repo, "%.*s", (int)n, text);
    name->file[0] = 0;
    if (!text[n])
        return true;
    snprintf(name->file, sizeof name->file, "%s", text + n + 1);
    return strlen(text + n + 1) < sizeof name->file && hub_safe_path(name->file);
}

char *hub_folder(const char *repo)
{
    const char *cache = getenv("HF_HUB_CACHE"), *home = getenv("HF_HOME"), *xdg = getenv("XDG_CACHE_HOME"), *user = getenv("HOME");
    const char *org_end = strchr(repo, '/');
    char *folder = NULL;
    int org = org_end ? (int)(org_end - repo) : 0, n = -1;
    const char *name = org_end ? org_end + 1 : repo, *between = org_end ? "--" : "";
    if (cache && *cache)
        n = asprintf(&folder, "%s/models--%.*s%s%s", cache, org, repo, between, name);
    else if (home && *home)
        n = asprintf(&folder, "%s/hub/models--%.*s%s%s", home, org, repo, between, name);
    else if (xdg && *xdg)
        n = asprintf(&folder, "%s/huggingface/hub/models--%.*s%s%s", xdg, org, repo, between, name);
    else if (user && *user)
        n = asprintf(&folder, "%s/.cache/huggingface/hub/models--%.*s%s%s", user, org, repo, between, name);
    return n < 0 ? NULL : folder;
}

/* The snapshot of refs/main, or NULL. */
static char *snapshot_of(const char *folder)
{
    char *ref = file_join(folder, "refs/main"), *commit = NULL, *all = file_join(folder, "snapshots"), *path = NULL;
    size_t n;
    if (ref && all && file_read(ref, 200, &commit, &n, NULL) == RT_OK) {
        commit[strcspn(commit, " \r\n")] = 0;
        if (hub_safe_path(commit) && !strchr(commit, '/'))
            path = file_join(all, commit);
    }
    free(ref);
    free(all);
    free(commit);
    if (path && file_is_folder(path))
        return path;
    free(path);
    return NULL;
}

/* The file to open in a snapshot: the folder itself where it has config.json, else its only GGUF file (of a split one the first part). */
static enum rt_status choose(const char *repo, const char *snapshot, char **path, struct rt_error *err)
{
    char *config = file_join(snapshot, "config.json"), only[300] = "";
    bool folder = config && file_is_regular(config);
    unsigned found = 0;
    free(config);
    if (folder) {
        *path = strdup(snapshot);
        return *path ? RT_OK : rt_fail(err, RT_NO_MEMORY, "no memory for a path");
    }
    DIR *dir = opendir(snapshot);
    for (struct dirent *e; dir && (e = readdir(dir));) {
        size_t n = strlen(e->d_name);
        bool later = strstr(e->d_name, "-of-") && !strstr(e->d_name, "-00001-of-");
        if (n > 5 && n < sizeof only && strcmp(e->d_name + n - 5, ".gguf") == 0 && !later) {
            memcpy(only, e->d_name, n + 1);
            found++;
        }
    }
    if (dir)
        closedir(dir);
    if (found != 1)
        return rt_fail(err, RT_BAD_FILE, "%s: its snapshot in the cache has %s: name the file, %s:FILE", repo,
                       found ? "several GGUF files" : "neither config.json nor a GGUF file", repo);
    *path = file_join(snapshot, only);
    return *path ? RT_OK : rt_fail(err, RT_NO_MEMORY, "no memory for a path");
}

enum rt_status hub_resolve(const char *model, char **path, struct rt_error *err)
{
    struct hub_name name;
    *path = NULL;
    bool here = file_is_regular(model) || file_is_folder(model), named = !here && hub_parse(model, &name);
    char *folder = named ? hub_folder(name.repo) : NULL, *snapshot = folder ? snapshot_of(folder) : NULL;
    enum rt_status st = RT_OK;
    if (snapshot && !name.file[0]) {
        st = choose(name.repo, snapshot, path, err);
    } else if (snapshot) {
        *path = file_join(snapshot, name.file);
        if (!*path || !file_is_regular(*path)) {
            free(*path);
            *path = NULL;
            st = rt_fail(err, RT_BAD_FILE, "%s: is not in the cache: mosld pull %s gets it", model, model);
        }
    } else if (named && strchr(name.repo, '/') && !strchr(strchr(name.repo, '/') + 1, '/') && (name.file[0] || !strstr(model, ".gguf"))) {
        st = rt_fail(err, RT_BAD_FILE, "%s: there is no such file or folder, and no such model in the hub's cache: mosld pull %s gets it", model, model);
    } else {
        *path = strdup(model); /* whoever opens it says what is wrong with it */
        st = *path ? RT_OK : rt_fail(err, RT_NO_MEMORY, "no memory for a path");
    }
    free(folder);
    free(snapshot);
    return st;
}
