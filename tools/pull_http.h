/* tools/pull_http.h - inside pull: requests to a hub (HF_ENDPOINT, https://huggingface.co otherwise) with its token (HF_TOKEN, or the file
 * that `hf auth login` left), which goes to that host alone and not where it redirects to. */
#ifndef MOSLD_TOOLS_PULL_HTTP_H
#define MOSLD_TOOLS_PULL_HTTP_H

#include "runtime/error.h"

#include <stddef.h>
#include <stdint.h>

struct http;

enum { HTTP_ETAG_BYTES = 129 };

struct http_file {
    char etag[HTTP_ETAG_BYTES]; /* letters, digits, - and _: the SHA-256 of a large file, git's SHA-1 of a small one */
    uint64_t size;              /* UINT64_MAX: the hub does not say */
};

/* Messages name `what`: a repository or a file. RT_BAD_FILE: it is not there, or needs a token that is missing or does not suffice;
 * RT_FAILED: the network, after some tries, or an answer that makes no sense; RT_INTERRUPTED. */
enum rt_status http_open(struct http **out, struct rt_error *err);
void http_close(struct http **h); /* NULL is fine */
enum rt_status http_get(struct http *h, const char *path, const char *what, char **body, size_t *n, struct rt_error *err);
enum rt_status http_head(struct http *h, const char *path, const char *what, struct http_file *file, struct rt_error *err);
/* Downloads to `blob`.incomplete, going on where an earlier try ended, checks length and hash, and gives it its name. A wrong hash removes
 * it: RT_FAILED. */
enum rt_status http_download(struct http *h, const char *path, const char *what, const struct http_file *file, const char *blob,
                             struct rt_error *err);

#endif
