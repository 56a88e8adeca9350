/* runtime/cache_folder.c - see cache_folder.h. */
#include "runtime/cache_folder.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

static bool make_folder(const char *path) { return mkdir(path, 0700) == 0 || errno == EEXIST; }

bool rt_cache_path(const char *name, char **path)
{
    const char *xdg = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
#ifdef _WIN32
    const char *local = getenv("LOCALAPPDATA");
#else
    const char *local = NULL;
#endif
    char folder[3500], ours[3600];
    *path = NULL;
    int n = xdg && xdg[0] == '/'     ? snprintf(folder, sizeof folder, "%s", xdg)
            : home && home[0] == '/' ? snprintf(folder, sizeof folder, "%s/.cache", home)
            : local                  ? snprintf(folder, sizeof folder, "%s", local)
                                     : -1;
    if (n < 0 || (size_t)n >= sizeof folder || !make_folder(folder))
        return false;
    snprintf(ours, sizeof ours, "%s/mosld", folder);
    if (!make_folder(ours) || asprintf(path, "%s/%s", ours, name) < 0)
        *path = NULL;
    return *path != NULL;
}
