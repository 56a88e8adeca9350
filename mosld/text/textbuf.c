/* mosld/text/textbuf.c - see textbuf.h. */
#include "mosld/text/textbuf.h"

#include <stdlib.h>
#include <string.h>

bool text_buf_reserve(struct text_buf *buf, size_t more)
{
    size_t need;
    if (__builtin_add_overflow(buf->len, more, &need))
        return false;
    if (need <= buf->cap)
        return true;
    size_t cap = buf->cap < 64 ? 64 : buf->cap;
    while (cap < need) {
        if (__builtin_mul_overflow(cap, (size_t)2, &cap))
            return false;
    }
    char *data = realloc(buf->data, cap);
    if (!data)
        return false;
    buf->data = data;
    buf->cap = cap;
    return true;
}

bool text_buf_append(struct text_buf *buf, const char *bytes, size_t len)
{
    if (len == 0)
        return true;
    if (!text_buf_reserve(buf, len))
        return false;
    memcpy(buf->data + buf->len, bytes, len);
    buf->len += len;
    return true;
}

bool text_buf_puts(struct text_buf *buf, const char *string)
{
    return text_buf_append(buf, string, strlen(string));
}

bool text_buf_terminate(struct text_buf *buf)
{
    if (!text_buf_reserve(buf, 1))
        return false;
    buf->data[buf->len] = '\0';
    return true;
}

void text_buf_finish(struct text_buf *buf)
{
    if (!buf)
        return;
    free(buf->data);
    *buf = (struct text_buf){0};
}

bool text_grow(void **array, size_t *cap, size_t count, size_t size)
{
    if (count < *cap)
        return true;
    size_t new_cap, bytes;
    if (__builtin_mul_overflow(*cap, (size_t)2, &new_cap))
        return false;
    if (new_cap < 16)
        new_cap = 16;
    if (__builtin_mul_overflow(new_cap, size, &bytes))
        return false;
    void *data = realloc(*array, bytes);
    if (!data)
        return false;
    *array = data;
    *cap = new_cap;
    return true;
}
