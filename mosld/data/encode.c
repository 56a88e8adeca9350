/* mosld/data/encode.c - see encode.h. */
#include "mosld/data/encode.h"

#include "mosld/text/chat.h"

#include <stdlib.h>
#include <string.h>

/* How many ids two rows begin with in common. */
static size_t common(const int32_t *a, size_t n_a, const int32_t *b, size_t n_b)
{
    size_t n = 0;
    while (n < n_a && n < n_b && a[n] == b[n])
        n++;
    return n;
}

enum rt_status encode_check_ids(const struct mosld_encoder *encoder, const int32_t *ids, size_t n, struct rt_error *err)
{
    for (size_t i = 0; encoder->vocab_size && i < n; i++)
        if ((uint32_t)ids[i] >= encoder->vocab_size)
            return rt_fail(err, RT_BAD_FILE,
                           "the tokenizer gives the id %d, but the model's vocabulary ends at %u: they "
                           "do not belong together",
                           ids[i], encoder->vocab_size - 1);
    return RT_OK;
}

enum rt_status encode_text(const struct mosld_encoder *encoder, const char *text, size_t len,
                           const struct mosld_encode_params *params, int32_t **ids, size_t *n, struct rt_error *err)
{
    enum rt_status st = mosld_tokenizer_encode(encoder->tokenizer, text ? text : "", len, params, ids, n, err);
    if (st != RT_OK)
        *ids = NULL;
    else if (*n >= INT32_MAX)
        st = rt_fail(err, RT_BAD_FILE, "a text of %zu tokens", *n);
    return st;
}

enum rt_status encode_pair(const struct mosld_encoder *encoder, struct text_buf *prompt,
                           const struct text_buf *completion, int32_t **ids, size_t *n, size_t *begin,
                           struct rt_error *err)
{
    int32_t *prompt_ids = NULL;
    size_t n_prompt = 0;
    *ids = NULL;
    enum rt_status st = encode_text(encoder, prompt->data, prompt->len, NULL, &prompt_ids, &n_prompt, err);
    if (st == RT_OK && completion->len && !text_buf_append(prompt, completion->data, completion->len))
        st = rt_fail(err, RT_NO_MEMORY, "out of memory");
    if (st == RT_OK)
        st = encode_text(encoder, prompt->data, prompt->len, NULL, ids, n, err);
    if (st == RT_OK)
        *begin = common(prompt_ids, n_prompt, *ids, *n);
    free(prompt_ids);
    return st;
}

/* The text of a token of the template, as C string; NULL where the tokenizer has none, or an absurdly long one. */
static const char *token_text(const struct mosld_tokenizer *t, int32_t id, char *buffer, size_t size)
{
    size_t len = 0;
    const char *piece = id == MOSLD_NO_TOKEN ? NULL : mosld_tokenizer_piece(t, id, &len);
    if (!piece || len >= size)
        return NULL;
    memcpy(buffer, piece, len);
    buffer[len] = 0;
    return buffer;
}

enum rt_status encode_chat(const struct mosld_encoder *encoder, const struct mosld_record_message *messages,
                           size_t n_messages, int32_t **ids, uint8_t **answered, size_t *n, struct rt_error *err)
{
    const struct mosld_tokenizer *t = encoder->tokenizer;
    char bos[128], eos[128];
    struct mosld_chat_text text = {0};
    struct mosld_chat_message *turns = reallocarray(NULL, n_messages, sizeof *turns);
    *ids = NULL;
    *answered = NULL;
    *n = 0;
    if (!turns)
        return rt_fail(err, RT_NO_MEMORY, "out of memory");
    for (size_t i = 0; i < n_messages; i++)
        turns[i] = (struct mosld_chat_message){messages[i].role, messages[i].content};
    const struct mosld_chat_params params = {.bos = token_text(t, mosld_tokenizer_bos(t), bos, sizeof bos),
                                             .eos = token_text(t, mosld_tokenizer_eos(t), eos, sizeof eos)};
    enum rt_status st = mosld_chat_render(encoder->chat, turns, n_messages, &params, &text, err);
    if (st == RT_OK)
        st = mosld_chat_encode(t, &text, ids, answered, n, err);
    mosld_chat_text_finish(&text);
    free(turns);
    return st;
}
