/* tools/serve_reply.c - answers as OpenAI's API has them: whole, or as server-sent events. */
#ifdef HAVE_LIBMICROHTTPD
#include "tools/serve.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void serve_text_add(struct serve_text *t, const char *data, size_t n)
{
    if (t->failed)
        return;
    if (t->len + n + 1 > t->cap) {
        size_t cap = 2 * (t->len + n) + 256;
        char *grown = realloc(t->data, cap);
        if (!grown) {
            t->failed = true;
            return;
        }
        t->data = grown;
        t->cap = cap;
    }
    memcpy(t->data + t->len, data, n);
    t->data[t->len += n] = 0;
}

void serve_text_print(struct serve_text *t, const char *format, ...)
{
    char line[1024];
    va_list args;
    va_start(args, format);
    int n = vsnprintf(line, sizeof line, format, args);
    va_end(args);
    if (n > 0)
        serve_text_add(t, line, (size_t)n < sizeof line ? (size_t)n : sizeof line - 1);
}

void serve_text_json(struct serve_text *t, cJSON *json)
{
    char *text = cJSON_PrintUnformatted(json);
    if (text)
        serve_text_add(t, text, strlen(text));
    else
        t->failed = true;
    cJSON_free(text);
    cJSON_Delete(json);
}

cJSON *serve_error_json(const char *message, const char *type, const char *param, const char *code)
{
    cJSON *json = cJSON_CreateObject(), *error = cJSON_AddObjectToObject(json, "error");
    cJSON_AddStringToObject(error, "message", message);
    cJSON_AddStringToObject(error, "type", type);
    cJSON_AddItemToObject(error, "param", param && *param ? cJSON_CreateString(param) : cJSON_CreateNull());
    cJSON_AddItemToObject(error, "code", code ? cJSON_CreateString(code) : cJSON_CreateNull());
    return json;
}

/* ---- pieces ---- */

static cJSON *finish_reason(const struct serve_request *r)
{
    if (!r->answer->done)
        return cJSON_CreateNull();
    return cJSON_CreateString(r->answer->stop == MOSLD_ANSWER_END ? "stop" : "length");
}

static cJSON *usage(const struct serve_request *r)
{
    const struct mosld_answer *a = r->answer;
    cJSON *json = cJSON_CreateObject(), *details;
    cJSON_AddNumberToObject(json, "prompt_tokens", a->n_prompt);
    cJSON_AddNumberToObject(json, "completion_tokens", mosld_answer_tokens(a));
    cJSON_AddNumberToObject(json, "total_tokens", a->n_ids);
    details = cJSON_AddObjectToObject(json, "prompt_tokens_details");
    cJSON_AddNumberToObject(details, "cached_tokens", r->reused);
    return json;
}

/* The bytes of a token; what is no whole UTF-8 is U+FFFD in the text, and as it is in "bytes". */
static void add_token(cJSON *to, const struct serve_request *r, int32_t id, bool bytes)
{
    char *text = NULL, *clean = NULL;
    size_t n = 0, out = 0;
    if (mosld_tokenizer_decode(r->server->s.tokenizer, &id, 1, false, &text, &n, NULL) == RT_OK)
        clean = malloc(3 * n + 1);
    for (size_t i = 0; clean && i < n;) {
        const unsigned char *p = (const unsigned char *)text + i;
        size_t length = *p < 0x80 ? 1 : *p >= 0xc2 && *p < 0xe0 ? 2 : *p >= 0xe0 && *p < 0xf0 ? 3 : *p >= 0xf0 && *p < 0xf5 ? 4 : 0;
        bool whole = length > 0 && i + length <= n && *p != 0;
        for (size_t k = 1; whole && k < length; k++)
            whole = (p[k] & 0xc0) == 0x80;
        memcpy(clean + out, whole ? (const char *)p : "\xef\xbf\xbd", whole ? length : 3);
        out += whole ? length : 3;
        i += whole ? length : 1;
    }
    if (clean)
        clean[out] = 0;
    cJSON_AddStringToObject(to, "token", clean ? clean : "");
    if (bytes) {
        cJSON *list = cJSON_AddArrayToObject(to, "bytes");
        for (size_t i = 0; i < n; i++)
            cJSON_AddItemToArray(list, cJSON_CreateNumber((unsigned char)text[i]));
    }
    free(clean);
    free(text);
}

static cJSON *logprob_json(const struct serve_request *r, int32_t id, float logprob)
{
    cJSON *json = cJSON_CreateObject();
    add_token(json, r, id, true);
    cJSON_AddNumberToObject(json, "logprob", logprob);
    return json;
}

/* Of tokens [from, to): a chat's form, or that of completions. */
static cJSON *logprobs(const struct serve_request *r, uint32_t from, uint32_t to)
{
    const struct mosld_answer *a = r->answer;
    if (!a->params.logprobs)
        return cJSON_CreateNull();
    cJSON *json = cJSON_CreateObject(), *content = cJSON_AddArrayToObject(json, r->chat ? "content" : "tokens"), *values = NULL, *tops = NULL;
    if (!r->chat) {
        values = cJSON_AddArrayToObject(json, "token_logprobs");
        tops = cJSON_AddArrayToObject(json, "top_logprobs");
    }
    for (uint32_t i = from; i < to; i++) {
        cJSON *token = logprob_json(r, a->ids[a->n_prompt + i], a->logprobs[i]), *top = r->chat ? cJSON_AddArrayToObject(token, "top_logprobs") : cJSON_CreateObject();
        for (uint32_t j = 0; j < a->n_top; j++) {
            const struct mosld_logprob *t = &a->top[(size_t)i * a->n_top + j];
            cJSON *other = logprob_json(r, t->token, t->logprob);
            if (r->chat) {
                cJSON_AddItemToArray(top, other);
                continue;
            }
            cJSON_AddNumberToObject(top, cJSON_GetObjectItem(other, "token")->valuestring, t->logprob);
            cJSON_Delete(other);
        }
        if (r->chat) {
            cJSON_AddItemToArray(content, token);
            continue;
        }
        cJSON_AddItemToArray(content, cJSON_DetachItemFromObject(token, "token"));
        cJSON_AddItemToArray(values, cJSON_CreateNumber(a->logprobs[i]));
        cJSON_AddItemToArray(tops, top);
        cJSON_Delete(token);
    }
    return json;
}

static cJSON *envelope(const struct serve_request *r, const char *object)
{
    cJSON *json = cJSON_CreateObject();
    cJSON_AddStringToObject(json, "id", r->id);
    cJSON_AddStringToObject(json, "object", object);
    cJSON_AddNumberToObject(json, "created", (double)r->created);
    cJSON_AddStringToObject(json, "model", r->model);
    return json;
}

static void event(struct serve_request *r, cJSON *json)
{
    serve_text_add(&r->out, "data: ", 6);
    serve_text_json(&r->out, json);
    serve_text_add(&r->out, "\n\n", 2);
}

/* A piece of the text; `role` opens a chat's answer. */
static void chunk(struct serve_request *r, const char *text, size_t n, bool role, bool last)
{
    cJSON *json = envelope(r, r->chat ? "chat.completion.chunk" : "text_completion"), *choices = cJSON_AddArrayToObject(json, "choices");
    cJSON *choice = cJSON_CreateObject(), *delta;
    char *piece = strndup(text, n);
    uint32_t tokens = mosld_answer_tokens(r->answer);
    cJSON_AddItemToArray(choices, choice);
    cJSON_AddNumberToObject(choice, "index", 0);
    if (r->chat) {
        delta = cJSON_AddObjectToObject(choice, "delta");
        if (role)
            cJSON_AddStringToObject(delta, "role", "assistant");
        if (n || role)
            cJSON_AddStringToObject(delta, "content", piece ? piece : "");
    } else {
        cJSON_AddStringToObject(choice, "text", piece ? piece : "");
    }
    cJSON_AddItemToObject(choice, "logprobs", role ? cJSON_CreateNull() : logprobs(r, r->told, tokens));
    if (!role)
        r->told = tokens;
    cJSON_AddItemToObject(choice, "finish_reason", last ? finish_reason(r) : cJSON_CreateNull());
    if (r->include_usage)
        cJSON_AddNullToObject(json, "usage");
    free(piece);
    event(r, json);
}

void serve_reply_piece(struct serve_request *r)
{
    const struct mosld_answer *a = r->answer;
    if (!r->stream)
        return;
    if (!r->started && r->chat)
        chunk(r, "", 0, true, false);
    r->started = true;
    if (a->safe > r->sent) {
        chunk(r, a->text + r->sent, a->safe - r->sent, false, false);
        r->sent = a->safe;
    }
}

static void whole(struct serve_request *r)
{
    const struct mosld_answer *a = r->answer;
    cJSON *json = envelope(r, r->chat ? "chat.completion" : "text_completion"), *choices = cJSON_AddArrayToObject(json, "choices");
    cJSON *choice = cJSON_CreateObject();
    cJSON_AddItemToArray(choices, choice);
    cJSON_AddNumberToObject(choice, "index", 0);
    if (r->chat) {
        cJSON *message = cJSON_AddObjectToObject(choice, "message");
        cJSON_AddStringToObject(message, "role", "assistant");
        cJSON_AddStringToObject(message, "content", a->text);
    } else {
        cJSON_AddStringToObject(choice, "text", a->text);
    }
    cJSON_AddItemToObject(choice, "logprobs", logprobs(r, 0, mosld_answer_tokens(a)));
    cJSON_AddItemToObject(choice, "finish_reason", finish_reason(r));
    cJSON_AddItemToObject(json, "usage", usage(r));
    serve_text_json(&r->out, json);
}

void serve_reply_end(struct serve_request *r)
{
    if (r->stream) {
        serve_reply_piece(r);
        chunk(r, "", 0, false, true);
        if (r->include_usage) {
            cJSON *json = envelope(r, r->chat ? "chat.completion.chunk" : "text_completion");
            cJSON_AddArrayToObject(json, "choices");
            cJSON_AddItemToObject(json, "usage", usage(r));
            event(r, json);
        }
        serve_text_add(&r->out, "data: [DONE]\n\n", 14);
    } else {
        whole(r);
    }
    r->started = r->done = true;
}

void serve_reply_fail(struct serve_request *r, int status, const char *type, const char *message)
{
    cJSON *json = serve_error_json(message, type, NULL, NULL);
    if (r->started && r->stream)
        event(r, json); /* the status is out: the error comes as an event */
    else {
        r->status = status;
        serve_text_json(&r->out, json);
    }
    r->started = r->done = true;
}
#else
extern int serve_reply_not_built;
#endif
