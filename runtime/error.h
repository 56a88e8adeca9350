/* runtime/error.h - how every function of mosld that can fail says so.
 *
 * A function returns a status, which tells the caller what to do, and fills a message, written once where the
 * failure happened, which holds the numbers: file, field or option, what is wrong, what to do about it. */
#ifndef RT_ERROR_H
#define RT_ERROR_H

#ifdef _WIN32 /* there are two printfs there; this is C's */
#define RT_PRINTF(format_at, first) __attribute__((format(gnu_printf, format_at, first)))
#else
#define RT_PRINTF(format_at, first) __attribute__((format(printf, format_at, first)))
#endif

enum rt_status {
    RT_OK = 0,
    RT_FAILED,      /* the work failed: a write, a driver call, a non-finite result              (exit status 1) */
    RT_USAGE,       /* the command, an option or an argument was wrong                            (exit status 2) */
    RT_BAD_FILE,    /* an input file is missing, damaged or asks for what is not supported        (exit status 3) */
    RT_NO_DEVICE,   /* no usable device, or it lacks something that is needed                     (exit status 4) */
    RT_NO_MEMORY,   /* host or device memory does not suffice: a smaller batch or length may help (exit status 4) */
    RT_DEVICE_LOST, /* the device stopped answering; nothing on it is left                        (exit status 4) */
    RT_INTERRUPTED, /* the user asked to stop                                                   (exit status 130) */
};

struct rt_error {
    enum rt_status status;
    char text[1024]; /* a whole sentence without a newline; empty while status is RT_OK */
};

/* Fills `err` (NULL is fine) and returns `status`, so that `return rt_fail(err, RT_BAD_FILE, ...)` reads as what it does.
 * Text that does not fit is cut. */
enum rt_status rt_fail(struct rt_error *err, enum rt_status status, const char *format, ...)
    RT_PRINTF(3, 4);

/* Puts "context: " in front of the message that `err` already has and returns err->status. */
enum rt_status rt_error_prefix(struct rt_error *err, const char *format, ...) RT_PRINTF(2, 3);

/* RT_TRY(call); goes on while calls succeed and returns the first failure from the function that it stands in. */
#define RT_TRY(call)                  \
    do {                              \
        enum rt_status st_ = (call);  \
        if (st_)                      \
            return st_;               \
    } while (0)

#endif
