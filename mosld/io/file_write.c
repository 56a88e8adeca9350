/* mosld/io/file_write.c - the writing half of file.h. */
#include "mosld/io/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { BUFFER_SIZE = 256 << 10 };

struct file_writer {
    char *path, *temporary;
    int fd;
    size_t used;
    uint64_t size;
    int failed; /* errno of the first write that failed */
    char buffer[BUFFER_SIZE];
};

static enum rt_status fail_write(const char *path, const char *what, int error, struct rt_error *err)
{
    return rt_fail(err, RT_FAILED, "%s: %s: %s", path, what, strerror(error));
}

/* The folder part of a path, the caller's to free(). */
static char *folder_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    if (!slash)
        return strdup(".");
    return slash == path ? strdup("/") : strndup(path, (size_t)(slash - path));
}

enum rt_status file_writer_open(const char *path, struct file_writer **out, struct rt_error *err)
{
    *out = NULL;
    struct file_writer *w = calloc(1, sizeof *w);
    if (!w)
        return rt_fail(err, RT_NO_MEMORY, "%s: no memory to write it", path);
    enum rt_status st = RT_OK;
    w->fd = -1;
    w->path = strdup(path);
    if (!w->path || asprintf(&w->temporary, "%s.tmp-XXXXXX", path) < 0) {
        w->temporary = NULL;
        st = rt_fail(err, RT_NO_MEMORY, "%s: no memory to write it", path);
        goto fail;
    }
    w->fd = mkostemp(w->temporary, O_CLOEXEC);
    if (w->fd < 0) {
        st = fail_write(path, "cannot be created", errno, err);
        free(w->temporary);
        w->temporary = NULL;
        goto fail;
    }
    *out = w;
    return RT_OK;
fail:
    file_writer_abort(&w);
    return st;
}

static void flush(struct file_writer *w, const char *data, size_t size)
{
    while (size > 0 && !w->failed) {
        ssize_t n = write(w->fd, data, size);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            w->failed = errno;
            return;
        }
        data += n;
        size -= (size_t)n;
    }
}

enum rt_status file_writer_write(struct file_writer *w, const void *data, size_t size, struct rt_error *err)
{
    if (size == 0)
        return RT_OK;
    w->size += size;
    if (size > sizeof w->buffer - w->used) {
        flush(w, w->buffer, w->used);
        w->used = 0;
    }
    if (size > sizeof w->buffer) {
        flush(w, data, size);
    } else {
        memcpy(w->buffer + w->used, data, size);
        w->used += size;
    }
    return w->failed ? fail_write(w->path, "cannot be written", w->failed, err) : RT_OK;
}

uint64_t file_writer_size(const struct file_writer *w) { return w->size; }

/* mkostemp makes files that only their owner reads; a result gets what open() would have given it. umask can only be
 * read by setting it, which other threads would see for a moment, so it is read once, from /proc where there is one. */
static mode_t creation_mode(void)
{
    unsigned mask = 022;
    FILE *status = fopen("/proc/self/status", "re");
    char line[256];
    while (status && fgets(line, sizeof line, status))
        if (sscanf(line, "Umask: %o", &mask) == 1)
            break;
    if (status)
        fclose(status);
    return 0666 & ~(mode_t)mask;
}

enum rt_status file_writer_commit(struct file_writer **writer, struct rt_error *err)
{
    struct file_writer *w = *writer;
    char *folder = NULL;
    flush(w, w->buffer, w->used);
    w->used = 0;
    enum rt_status st = RT_OK;
    if (w->failed)
        st = fail_write(w->path, "cannot be written", w->failed, err);
    else if (fchmod(w->fd, creation_mode()) != 0 || fsync(w->fd) != 0)
        st = fail_write(w->path, "cannot be made durable", errno, err);
    if (st != RT_OK)
        goto out;
    int closed = close(w->fd);
    w->fd = -1;
    if (closed != 0 || rename(w->temporary, w->path) != 0) {
        st = fail_write(w->path, "cannot be put in place", errno, err);
        goto out;
    }
    free(w->temporary);
    w->temporary = NULL; /* it has the real name now: abort must not remove it */
    folder = folder_of(w->path);
    st = folder ? file_sync_folder(folder, err) : rt_fail(err, RT_NO_MEMORY, "%s: no memory", w->path);
out:
    free(folder);
    file_writer_abort(writer);
    return st;
}

void file_writer_abort(struct file_writer **writer)
{
    struct file_writer *w = *writer;
    if (!w)
        return;
    if (w->fd >= 0)
        close(w->fd);
    if (w->temporary)
        unlink(w->temporary);
    free(w->temporary);
    free(w->path);
    free(w);
    *writer = NULL;
}

enum rt_status file_write_atomic(const char *path, const void *data, size_t size, struct rt_error *err)
{
    struct file_writer *w;
    enum rt_status st = file_writer_open(path, &w, err);
    if (st != RT_OK)
        return st;
    st = file_writer_write(w, data, size, err);
    if (st == RT_OK)
        return file_writer_commit(&w, err);
    file_writer_abort(&w);
    return st;
}

enum rt_status file_sync_folder(const char *path, struct rt_error *err)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return fail_write(path, "cannot be opened", errno, err);
    /* Some file systems cannot sync a folder and say EINVAL: they have nothing to be made durable there. */
    enum rt_status st =
        fsync(fd) != 0 && errno != EINVAL ? fail_write(path, "cannot be made durable", errno, err) : RT_OK;
    close(fd);
    return st;
}

static enum rt_status make_one(const char *path, struct rt_error *err)
{
    if (mkdir(path, 0777) == 0)
        return RT_OK;
    int error = errno;
    if (file_is_folder(path))
        return RT_OK;
    if (error == EEXIST)
        return rt_fail(err, RT_FAILED, "%s: is a file, a folder is needed there", path);
    return fail_write(path, "the folder cannot be made", error, err);
}

enum rt_status file_make_folders(const char *path, struct rt_error *err)
{
    char *part = strdup(path);
    if (!part)
        return rt_fail(err, RT_NO_MEMORY, "%s: no memory", path);
    enum rt_status st = RT_OK;
    for (char *slash = strchr(part + (*part == '/'), '/'); slash && st == RT_OK; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        if (*part)
            st = make_one(part, err);
        *slash = '/';
    }
    if (st == RT_OK && *part)
        st = make_one(part, err);
    free(part);
    return st;
}
