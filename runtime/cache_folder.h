/* runtime/cache_folder.h - where what may be lost is kept between runs: $XDG_CACHE_HOME/mosld, else ~/.cache/mosld;
 * on Windows %LOCALAPPDATA%\mosld, unless one of these is set. */
#ifndef RT_CACHE_FOLDER_H
#define RT_CACHE_FOLDER_H

#include <stdbool.h>

/* The path of the file `name` there, the caller's to free(); the folder is made. False, and *path NULL: there is no such place. */
bool rt_cache_path(const char *name, char **path);

#endif
