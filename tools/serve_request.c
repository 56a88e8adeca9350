/* tools/serve_request.c - the body of a request, as OpenAI's API has it, to an answer that can be run. */
#ifdef HAVE_LIBMICROHTTPD
#include "tools/serve.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What is read, and where to say what is wrong. */
struct reading {
    struct server *s;
    const cJSON *json;
    struct serve_request *r;
    struct mosld_answer_params p;
    char *stops[MOSLD_MAX_STOPS];
    int status;
    const char *param;
    struct rt_error *err;
};

static enum rt_status bad(struct reading *d, const char *param, const char *what)
{
    d->param = param;
    return rt_fail(d->err, RT_USAGE, "%s: %s", param, what);
}

bool serve_find_model(const struct server *s, const char *name, int *adapter)
{
    *adapter = RUNNER_NO_ADAPTER;
    if (strcmp(name, s->base_name) == 0)
        return true;
    for (size_t i = 0; i < s->o.adapter.n; i++)
        if (strcmp(name, s->adapter_names[i]) == 0) {
            *adapter = (int)i;
            return true;
        }
    return false;
}

/* ---- fields ---- */

static enum rt_status read_real(struct reading *d, const char *key, double *to)
{
    const cJSON *v = json_find(d->json, key);
    if (v && !cJSON_IsNumber(v))
        return bad(d, key, "must be a number");
    if (v)
        *to = v->valuedouble;
    return RT_OK;
}

static enum rt_status read_count(struct reading *d, const char *key, double max, uint32_t *to)
{
    double v = *to;
    RT_TRY(read_real(d, key, &v));
    if (!(v >= 0 && v <= max) || v != (double)(uint32_t)v)
        return bad(d, key, "is no integer in its range");
    *to = (uint32_t)v;
    return RT_OK;
}

static enum rt_status read_flag(struct reading *d, const cJSON *json, const char *key, bool *to)
{
    const cJSON *v = json_find(json, key);
    if (v && !cJSON_IsBool(v))
        return bad(d, key, "must be true or false");
    if (v)
        *to = cJSON_IsTrue(v);
    return RT_OK;
}

static enum rt_status read_sampling(struct reading *d)
{
    struct mosld_sample_params *s = &d->p.sampling;
    const cJSON *seed = json_find(d->json, "seed");
    RT_TRY(read_real(d, "temperature", &s->temperature));
    RT_TRY(read_real(d, "top_p", &s->top_p));
    RT_TRY(read_real(d, "min_p", &s->min_p));
    RT_TRY(read_real(d, "typical_p", &s->typical_p));
    RT_TRY(read_real(d, "repetition_penalty", &s->repetition_penalty));
    RT_TRY(read_real(d, "presence_penalty", &s->presence_penalty));
    RT_TRY(read_real(d, "frequency_penalty", &s->frequency_penalty));
    const cJSON *top_k = json_find(d->json, "top_k");
    if (top_k && cJSON_IsNumber(top_k) && top_k->valuedouble == -1)
        s->top_k = 0; /* as vLLM says all */
    else
        RT_TRY(read_count(d, "top_k", 1 << 20, &s->top_k));
    if (seed && (!cJSON_IsNumber(seed) || !(seed->valuedouble >= -9e15 && seed->valuedouble <= 9e15)))
        return bad(d, "seed", "must be an integer");
    pthread_mutex_lock(&d->s->lock);
    s->seed = seed ? (uint64_t)(int64_t)seed->valuedouble : d->s->seed++;
    pthread_mutex_unlock(&d->s->lock);
    return RT_OK;
}

static enum rt_status read_stops(struct reading *d)
{
    const cJSON *v = json_find(d->json, "stop"), *item;
    uint32_t n = 0;
    if (!v)
        return RT_OK;
    d->p.stops = (const char *const *)d->stops;
    if (cJSON_IsString(v) && *v->valuestring)
        d->stops[n++] = v->valuestring;
    else if (cJSON_IsArray(v) && cJSON_GetArraySize(v) <= MOSLD_MAX_STOPS) {
        cJSON_ArrayForEach(item, v)
        {
            if (!cJSON_IsString(item) || !*item->valuestring)
                return bad(d, "stop", "must be a text, or a list of them, none empty");
            d->stops[n++] = item->valuestring;
        }
    } else if (!cJSON_IsString(v))
        return bad(d, "stop", "must be a text, or a list of at most 16");
    d->p.n_stops = n;
    return RT_OK;
}

static enum rt_status read_bias(struct reading *d)
{
    const cJSON *v = json_find(d->json, "logit_bias"), *item;
    if (!v)
        return RT_OK;
    if (!cJSON_IsObject(v) || cJSON_GetArraySize(v) > 1024)
        return bad(d, "logit_bias", "must be an object of at most 1024 token ids and numbers");
    d->r->bias = calloc((size_t)cJSON_GetArraySize(v) + 1, sizeof *d->r->bias);
    if (!d->r->bias)
        return rt_fail(d->err, RT_NO_MEMORY, "no memory for the request");
    cJSON_ArrayForEach(item, v)
    {
        char *end;
        long id = strtol(item->string, &end, 10);
        if (end == item->string || *end || id < 0 || id > INT32_MAX || !cJSON_IsNumber(item))
            return bad(d, "logit_bias", "must be an object of token ids and numbers");
        d->r->bias[d->p.sampling.n_logit_bias++] = (struct mosld_logit_bias){(int32_t)id, (float)item->valuedouble};
    }
    d->p.sampling.logit_bias = d->r->bias;
    return RT_OK;
}

static enum rt_status read_logprobs(struct reading *d)
{
    if (d->r->chat) {
        RT_TRY(read_flag(d, d->json, "logprobs", &d->p.logprobs));
        return read_count(d, "top_logprobs", MOSLD_MAX_TOP_LOGPROBS, &d->p.top_logprobs);
    }
    d->p.logprobs = json_find(d->json, "logprobs") != NULL;
    return read_count(d, "logprobs", MOSLD_MAX_TOP_LOGPROBS, &d->p.top_logprobs);
}

static enum rt_status read_lengths(struct reading *d)
{
    const char *key = json_find(d->json, "max_completion_tokens") ? "max_completion_tokens" : "max_tokens";
    bool given = json_find(d->json, key) != NULL;
    uint32_t n = 0;
    RT_TRY(read_count(d, key, 1 << 24, &n));
    if (given && !n)
        return bad(d, key, "must be at least 1");
    if (given)
        d->p.max_new_tokens = n;
    return RT_OK;
}

/* What would change the answer and is not done here is refused; what is merely unknown is passed over. */
static enum rt_status refuse_others(struct reading *d)
{
    const cJSON *n = json_find(d->json, "n"), *best = json_find(d->json, "best_of"), *format = json_find(d->json, "response_format"), *type;
    if ((n && n->valuedouble != 1) || (best && best->valuedouble != 1))
        return bad(d, n && n->valuedouble != 1 ? "n" : "best_of", "one answer a request");
    type = format ? json_find(format, "type") : NULL;
    if (format && !(cJSON_IsString(type) && strcmp(type->valuestring, "text") == 0))
        return bad(d, "response_format", "only text: constrained output is not supported");
    static const char *const lists[] = {"tools", "functions", "suffix"};
    for (int i = 0; i < 3; i++) {
        const cJSON *v = json_find(d->json, lists[i]);
        if (v && ((cJSON_IsString(v) && *v->valuestring) || cJSON_GetArraySize(v) > 0))
            return bad(d, lists[i], "is not supported");
    }
    bool echo = false;
    RT_TRY(read_flag(d, d->json, "echo", &echo));
    return echo ? bad(d, "echo", "is not supported") : RT_OK;
}

/* ---- prompts ---- */

/* A message's content: a text, or parts of which all are texts. The caller frees it. */
static enum rt_status content_of(struct reading *d, const cJSON *message, char **out)
{
    const cJSON *content = json_find(message, "content"), *part;
    struct serve_text text = {0};
    *out = NULL;
    if (cJSON_IsString(content))
        serve_text_add(&text, content->valuestring, strlen(content->valuestring));
    else if (cJSON_IsArray(content)) {
        cJSON_ArrayForEach(part, content)
        {
            const cJSON *type = json_find(part, "type"), *t = json_find(part, "text");
            if (!cJSON_IsString(type) || strcmp(type->valuestring, "text") != 0 || !cJSON_IsString(t)) {
                free(text.data);
                return bad(d, "messages", "a message's parts must be texts");
            }
            serve_text_add(&text, t->valuestring, strlen(t->valuestring));
        }
    } else if (content)
        return bad(d, "messages", "a message's content must be a text");
    serve_text_add(&text, "", 0);
    *out = text.data;
    return text.failed || !text.data ? rt_fail(d->err, RT_NO_MEMORY, "no memory for the request") : RT_OK;
}

static enum rt_status render(struct reading *d, const struct mosld_chat_message *messages, size_t n, int32_t **ids, size_t *n_ids)
{
    struct mosld_chat_text text;
    uint8_t *loss = NULL;
    enum rt_status st = mosld_chat_render(&d->s->s.chat, messages, n, &(struct mosld_chat_params){.add_generation_prompt = true}, &text, d->err);
    if (st) {
        d->param = "messages";
        return st == RT_BAD_FILE ? RT_USAGE : st;
    }
    st = mosld_chat_encode(d->s->s.tokenizer, &text, ids, &loss, n_ids, d->err);
    mosld_chat_text_finish(&text);
    free(loss);
    return st;
}

/* What a shift of the context keeps: the system prompt, where that is not most of the context. */
static uint32_t tokens_to_keep(struct reading *d, const struct mosld_chat_message *messages, const int32_t *ids, size_t n)
{
    int32_t *system = NULL;
    size_t m = 0, same = 0;
    if (d->p.shift && strcmp(messages[0].role, "system") == 0 && render(d, messages, 1, &system, &m) == RT_OK)
        while (same < m && same < n && system[same] == ids[same])
            same++;
    free(system);
    return same > ANSWER_KEEP && same < d->p.context / 2 ? (uint32_t)same : ANSWER_KEEP;
}

static enum rt_status read_messages(struct reading *d, int32_t **ids, size_t *n_ids)
{
    const cJSON *list = json_find(d->json, "messages"), *item;
    size_t n = 0, most = cJSON_IsArray(list) ? (size_t)cJSON_GetArraySize(list) : 0;
    if (!most)
        return bad(d, "messages", "must be a list with at least one message");
    RT_TRY(session_need_chat(&d->s->s, d->err));
    struct mosld_chat_message *messages = calloc(most, sizeof *messages);
    enum rt_status st = messages ? RT_OK : rt_fail(d->err, RT_NO_MEMORY, "no memory for the request");
    if (!st)
        cJSON_ArrayForEach(item, list)
        {
            const cJSON *role = json_find(item, "role");
            char *content = NULL;
            if (!cJSON_IsString(role))
                st = bad(d, "messages", "a message needs a role");
            if (!st)
                st = content_of(d, item, &content);
            if (st)
                break;
            bool developer = strcmp(role->valuestring, "developer") == 0;
            messages[n++] = (struct mosld_chat_message){.role = developer ? "system" : role->valuestring, .content = content};
        }
    if (!st)
        st = render(d, messages, n, ids, n_ids);
    if (!st)
        d->p.keep = tokens_to_keep(d, messages, *ids, *n_ids);
    while (n > 0)
        free((char *)messages[--n].content);
    free(messages);
    return st;
}

static enum rt_status read_ids(struct reading *d, const cJSON *list, int32_t **ids, size_t *n_ids)
{
    const cJSON *item;
    *ids = calloc((size_t)cJSON_GetArraySize(list) + 1, sizeof **ids);
    if (!*ids)
        return rt_fail(d->err, RT_NO_MEMORY, "no memory for the request");
    cJSON_ArrayForEach(item, list)
    {
        if (!cJSON_IsNumber(item) || !(item->valuedouble >= 0 && item->valuedouble < runner_vocab(d->s->runner)))
            return bad(d, "prompt", "must be a text, or a list of token ids of the model's vocabulary");
        (*ids)[(*n_ids)++] = (int32_t)item->valuedouble;
    }
    return RT_OK;
}

static enum rt_status read_prompt(struct reading *d, int32_t **ids, size_t *n_ids)
{
    const cJSON *v = json_find(d->json, "prompt");
    if (cJSON_IsArray(v) && cJSON_GetArraySize(v) == 1 && !cJSON_IsNumber(cJSON_GetArrayItem(v, 0)))
        v = cJSON_GetArrayItem(v, 0);
    if (cJSON_IsArray(v) && cJSON_GetArraySize(v) > 0)
        return read_ids(d, v, ids, n_ids);
    if (!cJSON_IsString(v))
        return bad(d, "prompt", "must be a text, or a list of token ids");
    d->p.continues = *v->valuestring != 0;
    return mosld_tokenizer_encode(d->s->s.tokenizer, v->valuestring, strlen(v->valuestring), NULL, ids, n_ids, d->err);
}

/* ---- all together ---- */

static enum rt_status read_model(struct reading *d)
{
    const cJSON *model = json_find(d->json, "model");
    const char *name = cJSON_IsString(model) && *model->valuestring ? model->valuestring : d->s->base_name;
    if (model && !cJSON_IsString(model))
        return bad(d, "model", "must be a text");
    if (!serve_find_model(d->s, name, &d->r->adapter)) {
        d->status = 404;
        d->param = "model";
        return rt_fail(d->err, RT_USAGE, "there is no model '%.100s'; GET /v1/models lists them", name);
    }
    d->r->model = strdup(name);
    return d->r->model ? RT_OK : rt_fail(d->err, RT_NO_MEMORY, "no memory for the request");
}

static enum rt_status read_all(struct reading *d)
{
    struct serve_request *r = d->r;
    int32_t *ids = NULL;
    size_t n = 0;
    if (!cJSON_IsObject(d->json))
        return bad(d, "body", "must be a JSON object");
    const cJSON *options = json_find(d->json, "stream_options");
    RT_TRY(read_model(d));
    RT_TRY(read_flag(d, d->json, "stream", &r->stream));
    if (options)
        RT_TRY(read_flag(d, options, "include_usage", &r->include_usage));
    RT_TRY(refuse_others(d));
    RT_TRY(read_sampling(d));
    RT_TRY(read_lengths(d));
    RT_TRY(read_stops(d));
    RT_TRY(read_bias(d));
    RT_TRY(read_logprobs(d));
    d->p.continues = r->chat;
    enum rt_status st = r->chat ? read_messages(d, &ids, &n) : read_prompt(d, &ids, &n);
    for (size_t i = 0; i < n && !st; i++)
        if ((uint32_t)ids[i] >= runner_vocab(d->s->runner))
            st = bad(d, r->chat ? "messages" : "prompt", "has a token that the model does not have");
    if (!st && n >= d->p.context) {
        d->param = r->chat ? "messages" : "prompt";
        st = rt_fail(d->err, RT_USAGE, "the prompt has %zu tokens and the context of this server is %u", n, d->p.context);
    }
    if (!st)
        st = mosld_answer_create(d->s->s.tokenizer, ids, n, &d->p, &r->answer, d->err);
    free(ids);
    return st;
}

enum rt_status serve_request_create(struct server *s, bool chat, const char *body, size_t n, struct serve_request **out, int *http_status,
                                    const char **param, struct rt_error *err)
{
    static atomic_uint serial;
    struct serve_request *r = *out = calloc(1, sizeof *r);
    cJSON *json = NULL;
    *http_status = 500;
    *param = "";
    if (!r)
        return rt_fail(err, RT_NO_MEMORY, "no memory for the request");
    *r = (struct serve_request){.server = s, .chat = chat, .created = time(NULL), .arrived = serve_now(), .references = 1, .status = 200};
    r->deadline = r->arrived + s->o.timeout;
    pthread_mutex_init(&r->lock, NULL);
    snprintf(r->id, sizeof r->id, "%s-%lx-%x", chat ? "chatcmpl" : "cmpl", (unsigned long)r->created, atomic_fetch_add(&serial, 1));
    struct reading d = {.s = s, .r = r, .p = s->defaults, .status = 400, .param = "", .err = err};
    enum rt_status st = json_parse(body, n, "body", 1, &json, err);
    d.json = json;
    if (!st)
        st = read_all(&d);
    cJSON_Delete(json);
    if (st) {
        *http_status = st == RT_USAGE || st == RT_BAD_FILE ? d.status : 500;
        *param = d.param;
        serve_request_release(r);
        *out = NULL;
    }
    return st;
}

void serve_request_release(struct serve_request *r)
{
    pthread_mutex_lock(&r->lock);
    bool last = --r->references == 0;
    pthread_mutex_unlock(&r->lock);
    if (!last)
        return;
    mosld_answer_destroy(&r->answer);
    pthread_mutex_destroy(&r->lock);
    free(r->bias);
    free(r->model);
    free(r->out.data);
    free(r);
}
#else
extern int serve_request_not_built; /* a file with nothing in it is no C */
#endif
