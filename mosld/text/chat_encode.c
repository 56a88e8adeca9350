/* mosld/text/chat_encode.c - a rendered conversation to ids, with the mask of what bears loss. See chat.h. */
#include "mosld/text/chat.h"

#include <stdlib.h>
#include <string.h>

static enum rt_status encode_prefix(const struct mosld_tokenizer *t, const struct mosld_chat_text *text, size_t len,
                                    int32_t **ids, size_t *count, struct rt_error *err)
{
    /* Ranges beyond the prefix match nothing. */
    const struct mosld_encode_params params = {
        .bos = MOSLD_BOS_NEVER, .special_ranges = text->special, .special_range_count = text->special_count};
    return mosld_tokenizer_encode(t, text->text, len, &params, ids, count, err);
}

/* How many of the whole text's ids its first `len` bytes have by themselves. */
static enum rt_status count_prefix(const struct mosld_tokenizer *t, const struct mosld_chat_text *text, size_t len,
                                   const int32_t *whole, size_t whole_count, size_t *out, struct rt_error *err)
{
    int32_t *ids = NULL;
    size_t count = 0, same = 0;
    enum rt_status st = encode_prefix(t, text, len, &ids, &count, err);
    while (st == RT_OK && same < count && same < whole_count && ids[same] == whole[same])
        same++;
    free(ids);
    *out = same;
    return st;
}

enum rt_status mosld_chat_encode(const struct mosld_tokenizer *t, const struct mosld_chat_text *text, int32_t **ids,
                                 uint8_t **loss, size_t *count, struct rt_error *err)
{
    *loss = NULL;
    enum rt_status st = encode_prefix(t, text, text->len, ids, count, err);
    if (st != RT_OK)
        return st;
    *loss = calloc(*count + 1, 1);
    if (!*loss)
        st = rt_fail(err, RT_NO_MEMORY, "no memory for a conversation of %zu tokens", *count);
    for (size_t i = 0; st == RT_OK && i < text->loss_count; i++) {
        size_t start = 0, end = *count;
        st = count_prefix(t, text, text->loss[i].start, *ids, *count, &start, err);
        if (st == RT_OK && text->loss[i].end < text->len)
            st = count_prefix(t, text, text->loss[i].end, *ids, *count, &end, err);
        if (st == RT_OK && end > start)
            memset(*loss + start, 1, end - start);
    }
    if (st != RT_OK) {
        free(*ids);
        free(*loss);
        *ids = NULL;
        *loss = NULL;
        *count = 0;
    }
    return st;
}
