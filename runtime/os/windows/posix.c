/* runtime/os/windows/posix.c - see posix.h. */
#define WIN32_LEAN_AND_MEAN
#include <windows.h>

#include "runtime/os/windows/posix.h"
#include "runtime/os/windows/dlfcn.h"
#include "runtime/os/windows/sys/file.h"
#include "runtime/os/windows/sys/ioctl.h"
#include "runtime/os/windows/sys/mman.h"
#include "runtime/os/windows/sys/utsname.h"

#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>

#undef open
#undef mkdir
#undef rename

/* Bytes are bytes, in files and in pipes. */
__attribute__((constructor)) static void binary_streams(void)
{
    _fmode = _O_BINARY;
    for (int fd = 0; fd < 3; fd++)
        _setmode(fd, _O_BINARY);
    SetConsoleOutputCP(CP_UTF8);
    SetConsoleCP(CP_UTF8);
}

static int fail_as(int error) { return errno = error, -1; }

static int errno_of(DWORD error)
{
    switch (error) {
    case ERROR_FILE_NOT_FOUND:
    case ERROR_PATH_NOT_FOUND: return ENOENT;
    case ERROR_ALREADY_EXISTS:
    case ERROR_FILE_EXISTS: return EEXIST;
    case ERROR_ACCESS_DENIED:
    case ERROR_SHARING_VIOLATION: return EACCES;
    case ERROR_LOCK_VIOLATION: return EWOULDBLOCK;
    case ERROR_DISK_FULL: return ENOSPC;
    case ERROR_NOT_ENOUGH_MEMORY: return ENOMEM;
    default: return EIO;
    }
}

/* ---- files ---- */

int rt_windows_open(const char *path, int flags, ...)
{
    if (flags & O_DIRECTORY) {
        HANDLE folder = CreateFileA(path, GENERIC_READ, FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE, NULL, OPEN_EXISTING,
                                    FILE_FLAG_BACKUP_SEMANTICS, NULL);
        return folder == INVALID_HANDLE_VALUE ? fail_as(errno_of(GetLastError())) : _open_osfhandle((intptr_t)folder, _O_RDONLY);
    }
    va_list args;
    va_start(args, flags);
    int mode = flags & O_CREAT ? va_arg(args, int) : 0;
    va_end(args);
    struct stat info;
    if (!(flags & O_CREAT) && stat(path, &info) == 0 && S_ISDIR(info.st_mode)) /* as POSIX: a folder opens, and fstat says what it is */
        return rt_windows_open(path, O_DIRECTORY);
    return _open(path, flags | _O_BINARY, mode & (_S_IREAD | _S_IWRITE));
}

/* A folder cannot be flushed here: NTFS writes names to its journal itself. */
int fsync(int fd)
{
    if (_commit(fd) == 0)
        return 0;
    BY_HANDLE_FILE_INFORMATION info;
    HANDLE handle = (HANDLE)_get_osfhandle(fd);
    bool folder = GetFileInformationByHandle(handle, &info) && info.dwFileAttributes & FILE_ATTRIBUTE_DIRECTORY;
    return folder ? 0 : -1;
}

int rt_windows_mkdir(const char *path, mode_t mode) { return (void)mode, _mkdir(path); }

int rt_windows_rename(const char *from, const char *to)
{
    if (MoveFileExA(from, to, MOVEFILE_REPLACE_EXISTING | MOVEFILE_WRITE_THROUGH))
        return 0;
    return fail_as(errno_of(GetLastError()));
}

int mkostemp(char *path, int flags)
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyz0123456789";
    static LONG counter;
    size_t n = strlen(path);
    if (n < 6 || strcmp(path + n - 6, "XXXXXX") != 0)
        return fail_as(EINVAL);
    for (int attempt = 0; attempt < 100; attempt++) {
        LARGE_INTEGER now;
        QueryPerformanceCounter(&now);
        uint64_t bits = (uint64_t)now.QuadPart * 0x9e3779b97f4a7c15ull ^ ((uint64_t)GetCurrentProcessId() << 20) ^
                        (uint64_t)InterlockedIncrement(&counter) << 40;
        for (int i = 0; i < 6; i++, bits /= 36)
            path[n - 6 + (size_t)i] = letters[bits % 36];
        int fd = _open(path, _O_RDWR | _O_CREAT | _O_EXCL | _O_BINARY | flags, _S_IREAD | _S_IWRITE);
        if (fd >= 0 || errno != EEXIST)
            return fd;
    }
    return -1;
}

char *realpath(const char *path, char *resolved)
{
    (void)resolved;
    struct stat info;
    return stat(path, &info) == 0 ? _fullpath(NULL, path, 0) : NULL;
}

void *mmap(void *at, size_t size, int protection, int flags, int fd, long long offset)
{
    (void)at, (void)size, (void)protection, (void)flags, (void)offset;
    HANDLE mapping = CreateFileMappingA((HANDLE)_get_osfhandle(fd), NULL, PAGE_READONLY, 0, 0, NULL);
    void *data = mapping ? MapViewOfFile(mapping, FILE_MAP_READ, 0, 0, 0) : NULL;
    if (!data)
        errno = errno_of(GetLastError());
    if (mapping)
        CloseHandle(mapping); /* the view keeps it */
    return data ? data : MAP_FAILED;
}

int munmap(void *at, size_t size) { return (void)size, UnmapViewOfFile(at) ? 0 : fail_as(EINVAL); }

int flock(int fd, int operation)
{
    (void)operation;
    OVERLAPPED from = {.OffsetHigh = INT_MAX}; /* beyond the contents: a lock here keeps nobody from reading them */
    if (LockFileEx((HANDLE)_get_osfhandle(fd), LOCKFILE_EXCLUSIVE_LOCK | LOCKFILE_FAIL_IMMEDIATELY, 0, 1, 0, &from))
        return 0;
    return fail_as(errno_of(GetLastError()));
}

/* ---- environment, text, memory ---- */

int setenv(const char *name, const char *value, int overwrite)
{
    return !overwrite && getenv(name) ? 0 : _putenv_s(name, value);
}

int unsetenv(const char *name) { return _putenv_s(name, ""); }

void *memmem(const void *in, size_t in_size, const void *what, size_t what_size)
{
    const char *p = in;
    for (size_t i = 0; what_size <= in_size && i <= in_size - what_size; i++)
        if (memcmp(p + i, what, what_size) == 0)
            return (void *)(p + i);
    return NULL;
}

char *strcasestr(const char *in, const char *what)
{
    for (size_t n = strlen(what);; in++) {
        if (_strnicmp(in, what, n) == 0)
            return (char *)in;
        if (!*in)
            return NULL;
    }
}

char *strndup(const char *text, size_t n)
{
    size_t length = strnlen(text, n);
    char *copy = malloc(length + 1);
    if (copy) {
        memcpy(copy, text, length);
        copy[length] = '\0';
    }
    return copy;
}

char *strchrnul(const char *text, int c)
{
    char *found = strchr(text, c);
    return found ? found : (char *)text + strlen(text);
}

char *strsep(char **text, const char *separators)
{
    char *word = *text, *end = word ? strpbrk(word, separators) : NULL;
    *text = end ? end + 1 : NULL;
    if (end)
        *end = '\0';
    return word;
}

void *reallocarray(void *old, size_t n, size_t size)
{
    size_t bytes;
    if (__builtin_mul_overflow(n, size, &bytes))
        return errno = ENOMEM, NULL;
    return realloc(old, bytes);
}

struct comparison {
    int (*compare)(const void *, const void *, void *);
    void *arg;
};

static int compare_turned(void *context, const void *a, const void *b)
{
    const struct comparison *c = context;
    return c->compare(a, b, c->arg);
}

void qsort_r(void *base, size_t n, size_t size, int (*compare)(const void *, const void *, void *), void *arg)
{
    qsort_s(base, n, size, compare_turned, &(struct comparison){compare, arg});
}

ssize_t getline(char **line, size_t *size, FILE *from)
{
    size_t n = 0;
    for (int c;;) {
        if (n + 2 > *size || !*line) {
            size_t room = *size < 128 || !*line ? 256 : *size * 2;
            char *grown = realloc(*line, room);
            if (!grown)
                return -1;
            *line = grown, *size = room;
        }
        if ((c = getc(from)) == EOF)
            break;
        (*line)[n++] = (char)c;
        if (c == '\n')
            break;
    }
    (*line)[n] = '\0';
    return n ? (ssize_t)n : -1;
}

/* ---- the machine ---- */

long sysconf(int name)
{
    SYSTEM_INFO system;
    MEMORYSTATUSEX memory = {.dwLength = sizeof memory};
    GetSystemInfo(&system);
    switch (name) {
    case _SC_NPROCESSORS_ONLN: return (long)system.dwNumberOfProcessors;
    case _SC_PAGESIZE: return (long)system.dwPageSize;
    case _SC_PHYS_PAGES: return GlobalMemoryStatusEx(&memory) ? (long)(memory.ullTotalPhys / system.dwPageSize) : -1;
    default: return -1;
    }
}

int sched_getaffinity(int process, size_t size, cpu_set_t *set)
{
    (void)process, (void)size;
    DWORD_PTR mine, all;
    if (!GetProcessAffinityMask(GetCurrentProcess(), &mine, &all))
        return fail_as(EINVAL);
    set->count = __builtin_popcountll(mine);
    return set->count ? 0 : fail_as(EINVAL);
}

void *dlopen(const char *name, int flags)
{
    (void)flags;
    char dll[260];
    const char *stem = strncmp(name, "lib", 3) == 0 ? name + 3 : name, *end = strstr(stem, ".so");
    snprintf(dll, sizeof dll, "%.*s.dll", (int)(end ? end - stem : (ptrdiff_t)strlen(stem)), stem);
    return GetModuleHandleA(dll);
}

void *dlsym(void *library, const char *name) { return (void *)(uintptr_t)GetProcAddress(library, name); }

int uname(struct utsname *system)
{
    SYSTEM_INFO info;
    GetNativeSystemInfo(&info);
    OSVERSIONINFOA version = {.dwOSVersionInfoSize = sizeof version};
    *system = (struct utsname){.sysname = "Windows"};
    if (GetVersionExA(&version))
        snprintf(system->release, sizeof system->release, "%lu.%lu.%lu", version.dwMajorVersion, version.dwMinorVersion, version.dwBuildNumber);
    snprintf(system->machine, sizeof system->machine, "%s", info.wProcessorArchitecture == PROCESSOR_ARCHITECTURE_AMD64 ? "x86_64" : "other");
    return 0;
}

int ioctl(int fd, int request, struct winsize *size)
{
    (void)request;
    CONSOLE_SCREEN_BUFFER_INFO info;
    if (!GetConsoleScreenBufferInfo((HANDLE)_get_osfhandle(fd), &info))
        return fail_as(ENOTTY);
    size->ws_col = (unsigned short)(info.srWindow.Right - info.srWindow.Left + 1);
    size->ws_row = (unsigned short)(info.srWindow.Bottom - info.srWindow.Top + 1);
    return 0;
}

/* ---- interrupts ---- */

static void (*handlers[NSIG])(int);

/* signal() takes the handler away when it is called; POSIX leaves it. */
static void again(int number)
{
    signal(number, again);
    handlers[number](number);
}

int sigaction(int number, const struct sigaction *action, struct sigaction *old)
{
    (void)old;
    if (number < 0 || number >= NSIG)
        return fail_as(EINVAL);
    bool plain = action->sa_handler == SIG_IGN || action->sa_handler == SIG_DFL;
    if (!plain)
        handlers[number] = action->sa_handler;
    return signal(number, plain ? action->sa_handler : again) == SIG_ERR ? -1 : 0;
}
