/* tools/hub.h - models of a Hugging Face hub on this machine: the layout of its cache, which Python's huggingface_hub shares.
 *
 *     CACHE/models--ORG--NAME/blobs/ETAG                 contents
 *                             snapshots/COMMIT/FILE      links to them
 *                             refs/REVISION              the commit of a branch or tag, "main" usually
 *
 * CACHE is HF_HUB_CACHE, or HF_HOME/hub, or XDG_CACHE_HOME/huggingface/hub, or ~/.cache/huggingface/hub. */
#ifndef MOSLD_TOOLS_HUB_H
#define MOSLD_TOOLS_HUB_H

#include "runtime/error.h"

#include <stdbool.h>
#include <stddef.h>

/* ORG/NAME, or NAME of the hub's own, and a file behind a colon. */
struct hub_name {
    char repo[200];
    char file[400]; /* "": none */
};

/* False: the text is no such name. */
bool hub_parse(const char *text, struct hub_name *name);
/* "CACHE/models--ORG--NAME", the caller's to free; NULL: out of memory, or there is no home to have a cache in. */
char *hub_folder(const char *repo);
/* Whether a file's name from a hub may become a path below a folder: relative, no "..", no empty or odd parts. */
bool hub_safe_path(const char *file);

/* Sets *path to what to open: `model` itself where it is there, or no hub's name; else the file or folder in the cache, where FILE left out
 * means the one GGUF file of a snapshot without config.json. The caller frees it. RT_BAD_FILE: several GGUF files and none named, or the
 * name is a hub's and it is not in the cache; the message says what to do. */
enum rt_status hub_resolve(const char *model, char **path, struct rt_error *err);

#endif
