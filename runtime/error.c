/* runtime/error.c - see error.h. */
#include "runtime/error.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum rt_status rt_fail(struct rt_error *err, enum rt_status status, const char *format, ...)
{
    if (err) {
        va_list args;
        va_start(args, format);
        err->status = status;
        vsnprintf(err->text, sizeof err->text, format, args);
        va_end(args);
    }
    return status;
}

enum rt_status rt_error_prefix(struct rt_error *err, const char *format, ...)
{
    if (!err)
        return RT_FAILED;
    char old[sizeof err->text];
    memcpy(old, err->text, sizeof old);
    va_list args;
    va_start(args, format);
    int n = vsnprintf(err->text, sizeof err->text, format, args);
    va_end(args);
    if (n >= 0 && (size_t)n < sizeof err->text)
        snprintf(err->text + n, sizeof err->text - (size_t)n, ": %s", old);
    return err->status;
}
