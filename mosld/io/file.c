/* mosld/io/file.c - see file.h. */
#include "mosld/io/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *kind_of(mode_t mode)
{
    return S_ISDIR(mode) ? "a folder" : S_ISFIFO(mode) ? "a FIFO" : S_ISSOCK(mode) ? "a socket" : "a device";
}

/* O_NONBLOCK: opening a FIFO would wait for its writer. */
static enum rt_status open_regular(const char *path, int *fd, uint64_t *size, struct rt_error *err)
{
    *fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (*fd < 0)
        return rt_fail(err, RT_BAD_FILE, "%s: cannot be opened: %s", path, strerror(errno));
    struct stat info;
    enum rt_status st = RT_OK;
    if (fstat(*fd, &info) != 0)
        st = rt_fail(err, RT_BAD_FILE, "%s: cannot be examined: %s", path, strerror(errno));
    else if (!S_ISREG(info.st_mode))
        st = rt_fail(err, RT_BAD_FILE, "%s: is %s, a regular file is needed", path, kind_of(info.st_mode));
    if (st != RT_OK) {
        close(*fd);
        *fd = -1;
        return st;
    }
    *size = (uint64_t)info.st_size;
    return RT_OK;
}

static enum rt_status read_all(int fd, const char *path, char *data, size_t size, size_t *got, struct rt_error *err)
{
    *got = 0;
    while (*got < size) {
        ssize_t n = read(fd, data + *got, size - *got);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return rt_fail(err, RT_BAD_FILE, "%s: cannot be read: %s", path, strerror(errno));
        if (n == 0)
            break; /* it shrank since it was opened: what there is counts */
        *got += (size_t)n;
    }
    return RT_OK;
}

enum rt_status file_read(const char *path, uint64_t max, char **data, size_t *size, struct rt_error *err)
{
    *data = NULL;
    *size = 0;
    int fd;
    uint64_t length = 0;
    enum rt_status st = open_regular(path, &fd, &length, err);
    if (st != RT_OK)
        return st;
    char *text = NULL;
    if (length > max || length >= SIZE_MAX) {
        st = rt_fail(err, RT_BAD_FILE, "%s: has %llu bytes, at most %llu are read", path, (unsigned long long)length,
                     (unsigned long long)max);
        goto out;
    }
    text = malloc((size_t)length + 1);
    if (!text) {
        st = rt_fail(err, RT_NO_MEMORY, "%s: no memory for its %llu bytes", path, (unsigned long long)length);
        goto out;
    }
    st = read_all(fd, path, text, (size_t)length, size, err);
    if (st == RT_OK) {
        text[*size] = '\0';
        *data = text;
        text = NULL;
    }
out:
    free(text);
    close(fd);
    return st;
}

/* Under AddressSanitizer the file is read into memory of exactly its size, so that a read beyond its end, which would
 * still hit the last page of a mapping, is seen. */
#if defined(__SANITIZE_ADDRESS__)
#define READ_INSTEAD 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define READ_INSTEAD 1
#endif
#endif
#ifndef READ_INSTEAD
#define READ_INSTEAD 0
#endif

static enum rt_status map_fd(const char *path, int fd, size_t size, struct file_map *map, struct rt_error *err)
{
    if (size == 0)
        return RT_OK;
    if (READ_INSTEAD) {
        char *data = malloc(size);
        size_t got = 0;
        enum rt_status st =
            data ? read_all(fd, path, data, size, &got, err) : rt_fail(err, RT_NO_MEMORY, "%s: no memory for it", path);
        if (st != RT_OK)
            free(data);
        else
            *map = (struct file_map){.data = (uint8_t *)data, .size = got};
        return st;
    }
    void *data = mmap(NULL, size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (data == MAP_FAILED)
        return rt_fail(err, errno == ENOMEM ? RT_NO_MEMORY : RT_BAD_FILE, "%s: cannot be mapped: %s", path,
                       strerror(errno));
    *map = (struct file_map){.data = data, .size = size};
    return RT_OK;
}

enum rt_status file_map_open(const char *path, struct file_map *map, struct rt_error *err)
{
    *map = (struct file_map){0};
    int fd;
    uint64_t size = 0;
    enum rt_status st = open_regular(path, &fd, &size, err);
    if (st != RT_OK)
        return st;
    if (size > SIZE_MAX)
        st = rt_fail(err, RT_NO_MEMORY, "%s: its %llu bytes exceed the address space", path, (unsigned long long)size);
    else
        st = map_fd(path, fd, (size_t)size, map, err);
    close(fd); /* the mapping stays */
    return st;
}

void file_map_forget(const void *data, size_t size)
{
#ifdef MADV_DONTNEED
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    uintptr_t begin = ((uintptr_t)data + page - 1) / page * page, end = ((uintptr_t)data + size) / page * page;
    if (begin < end)
        madvise((void *)begin, end - begin, MADV_DONTNEED); /* advice: nothing depends on it */
#else
    (void)data, (void)size;
#endif
}

void file_map_close(struct file_map *map)
{
    if (READ_INSTEAD)
        free((void *)map->data);
    else if (map->data)
        munmap((void *)map->data, (size_t)map->size);
    *map = (struct file_map){0};
}

bool file_is_regular(const char *path)
{
    struct stat info;
    return stat(path, &info) == 0 && S_ISREG(info.st_mode);
}

bool file_is_folder(const char *path)
{
    struct stat info;
    return stat(path, &info) == 0 && S_ISDIR(info.st_mode);
}

char *file_join(const char *folder, const char *name)
{
    char *path = NULL;
    size_t n = strlen(folder);
    const char *slash = n > 0 && folder[n - 1] == '/' ? "" : "/";
    return asprintf(&path, "%s%s%s", folder, slash, name) < 0 ? NULL : path;
}
