/* tools/serve_http.c - HTTP: who may ask, what is asked, and bytes back. */
#ifdef HAVE_LIBMICROHTTPD
#include "tools/serve.h"

#include <microhttpd.h>
#include <netdb.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>

enum { IDLE_SECONDS = 60, HEADER_BYTES = 64 << 10 };

/* One request of a connection, from its headers to the end of its answer. */
struct exchange {
    struct server *s;
    struct serve_text body;
    struct serve_request *r;
    bool too_large;
};

/* ---- answers that need no model ---- */

static enum MHD_Result send_text(struct MHD_Connection *c, unsigned status, const char *type, const char *text, size_t n)
{
    struct MHD_Response *response = MHD_create_response_from_buffer(n, (void *)text, MHD_RESPMEM_MUST_COPY);
    if (!response)
        return MHD_NO;
    MHD_add_response_header(response, "Content-Type", type);
    MHD_add_response_header(response, "X-Content-Type-Options", "nosniff");
    if (strncmp(type, "text/html", 9) == 0)
        MHD_add_response_header(response, "Content-Security-Policy",
                                "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'; img-src data:; "
                                "frame-ancestors 'none'; form-action 'none'; base-uri 'none'");
    if (status == 401)
        MHD_add_response_header(response, "WWW-Authenticate", "Bearer");
    if (status == 429 || status == 503)
        MHD_add_response_header(response, "Retry-After", status == 429 ? "2" : "10");
    enum MHD_Result sent = MHD_queue_response(c, status, response);
    MHD_destroy_response(response);
    return sent;
}

static enum MHD_Result send_json(struct MHD_Connection *c, unsigned status, cJSON *json)
{
    struct serve_text text = {0};
    serve_text_json(&text, json);
    enum MHD_Result sent = text.failed ? MHD_NO : send_text(c, status, "application/json", text.data, text.len);
    free(text.data);
    return sent;
}

static enum MHD_Result send_error(struct exchange *x, struct MHD_Connection *c, unsigned status, const char *message, const char *param)
{
    const char *type = status >= 500 ? "server_error" : status == 401 ? "authentication_error" : status == 429 ? "rate_limit_error" : "invalid_request_error";
    const char *code = status == 404 && param && strcmp(param, "model") == 0 ? "model_not_found" : status == 401 ? "invalid_api_key" : NULL;
    atomic_fetch_add(&x->s->count.refused, 1);
    return send_json(c, status, serve_error_json(message, type, param, code));
}

static void add_model(const struct server *s, cJSON *list, const char *name, const char *parent)
{
    cJSON *m = cJSON_CreateObject();
    cJSON_AddStringToObject(m, "id", name);
    cJSON_AddStringToObject(m, "object", "model");
    cJSON_AddNumberToObject(m, "created", (double)s->started);
    cJSON_AddStringToObject(m, "owned_by", "mosld");
    if (parent)
        cJSON_AddStringToObject(m, "parent", parent);
    cJSON_AddNumberToObject(m, "max_model_len", runner_context(s->runner));
    cJSON_AddItemToArray(list, m);
}

/* The list, or the one that `id` names. */
static enum MHD_Result models(struct exchange *x, struct MHD_Connection *c, const char *id)
{
    struct server *s = x->s;
    cJSON *json = cJSON_CreateObject(), *list = cJSON_AddArrayToObject(json, "data");
    cJSON_AddStringToObject(json, "object", "list");
    add_model(s, list, s->base_name, NULL);
    for (size_t i = 0; i < s->o.adapter.n; i++)
        add_model(s, list, s->adapter_names[i], s->base_name);
    int adapter;
    if (!id)
        return send_json(c, 200, json);
    cJSON *one = serve_find_model(s, id, &adapter) ? cJSON_DetachItemFromArray(list, adapter + 1) : NULL;
    cJSON_Delete(json);
    return one ? send_json(c, 200, one) : send_error(x, c, 404, "there is no such model; GET /v1/models lists them", "model");
}

static enum MHD_Result health(struct exchange *x, struct MHD_Connection *c)
{
    cJSON *json = cJSON_CreateObject();
    bool stopping = x->s->stopping;
    cJSON_AddStringToObject(json, "status", stopping ? "stopping" : "ok");
    return send_json(c, stopping ? 503 : 200, json);
}

static enum MHD_Result metrics(struct exchange *x, struct MHD_Connection *c)
{
    struct server *s = x->s;
    pthread_mutex_lock(&s->lock);
    uint32_t queued = s->queued, running = s->running;
    double first = s->count.first_token_seconds;
    pthread_mutex_unlock(&s->lock);
    const struct {
        const char *name, *type, *help;
        double value;
    } rows[] = {
        {"mosld_requests_total", "counter", "completions that were asked for and taken", (double)s->count.requests},
        {"mosld_requests_refused_total", "counter", "requests that were answered with an error at once", (double)s->count.refused},
        {"mosld_requests_failed_total", "counter", "requests that failed while they waited or ran", (double)s->count.failed},
        {"mosld_requests_cancelled_total", "counter", "requests whose client left before the answer was whole", (double)s->count.cancelled},
        {"mosld_answers_total", "counter", "answers that came to their end", (double)s->count.answers},
        {"mosld_prompt_tokens_total", "counter", "tokens of their prompts", (double)s->count.prompt_tokens},
        {"mosld_prompt_tokens_cached_total", "counter", "of those, the ones that were in the cache already", (double)s->count.cached_tokens},
        {"mosld_generated_tokens_total", "counter", "tokens of the answers", (double)s->count.new_tokens},
        {"mosld_steps_total", "counter", "steps of the model", (double)s->count.steps},
        {"mosld_time_to_first_token_seconds_sum", "counter", "from arrival to the first token, summed", first},
        {"mosld_requests_running", "gauge", "requests that run now", running},
        {"mosld_requests_waiting", "gauge", "requests in the queue now", queued},
    };
    struct serve_text text = {0};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        serve_text_print(&text, "# HELP %s %s\n# TYPE %s %s\n%s %.17g\n", rows[i].name, rows[i].help, rows[i].name, rows[i].type, rows[i].name,
                         rows[i].value);
    enum MHD_Result sent = text.failed ? MHD_NO : send_text(c, 200, "text/plain; version=0.0.4", text.data, text.len);
    free(text.data);
    return sent;
}

/* ---- answers of the model ---- */

void serve_resume(struct serve_request *r)
{
    if (r->waiting) {
        r->waiting = false;
        MHD_resume_connection(r->connection);
    }
}

/* A suspended connection is not looked at by the library: whether its client is still there can be seen at the socket alone. */
bool serve_client_left(struct serve_request *r)
{
    const union MHD_ConnectionInfo *info = r->waiting ? MHD_get_connection_info(r->connection, MHD_CONNECTION_INFO_CONNECTION_FD) : NULL;
    char byte;
    return info && recv(info->connect_fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 0;
}

static ssize_t read_out(void *user, uint64_t at, char *to, size_t most)
{
    struct serve_request *r = user;
    ssize_t n;
    (void)at;
    pthread_mutex_lock(&r->lock);
    size_t has = r->out.len - r->taken;
    if (r->out.failed)
        n = MHD_CONTENT_READER_END_WITH_ERROR;
    else if (has) {
        n = (ssize_t)(has < most ? has : most);
        memcpy(to, r->out.data + r->taken, (size_t)n);
        r->taken += (size_t)n;
        if (r->taken == r->out.len)
            r->taken = r->out.len = 0;
    } else if (r->done)
        n = MHD_CONTENT_READER_END_OF_STREAM;
    else {
        r->waiting = true;
        MHD_suspend_connection(r->connection);
        n = 0;
    }
    pthread_mutex_unlock(&r->lock);
    return n;
}

/* Called when the request has something to send: suspended until then. */
static enum MHD_Result send_answer(struct serve_request *r, struct MHD_Connection *c)
{
    pthread_mutex_lock(&r->lock);
    bool ready = r->stream ? r->started : r->done;
    int status = r->status;
    if (!ready) {
        r->waiting = true;
        MHD_suspend_connection(c);
    }
    pthread_mutex_unlock(&r->lock);
    if (!ready)
        return MHD_YES;
    if (!r->stream || status != 200)
        return r->out.failed ? MHD_NO : send_text(c, (unsigned)status, "application/json", r->out.data ? r->out.data : "", r->out.len);
    struct MHD_Response *response = MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, 4096, read_out, r, NULL);
    if (!response)
        return MHD_NO;
    MHD_add_response_header(response, "Content-Type", "text/event-stream");
    MHD_add_response_header(response, "Cache-Control", "no-cache");
    MHD_add_response_header(response, "X-Accel-Buffering", "no");
    enum MHD_Result sent = MHD_queue_response(c, 200, response);
    MHD_destroy_response(response);
    return sent;
}

static enum MHD_Result complete(struct exchange *x, struct MHD_Connection *c, bool chat)
{
    struct rt_error err;
    int status;
    const char *param;
    if (x->too_large)
        return send_error(x, c, 413, "the body is larger than this server takes (--max-body)", NULL);
    if (x->body.failed || serve_request_create(x->s, chat, x->body.data ? x->body.data : "", x->body.len, &x->r, &status, &param, &err))
        return x->body.failed ? MHD_NO : send_error(x, c, (unsigned)status, err.text, param);
    x->r->connection = c;
    free(x->body.data);
    x->body = (struct serve_text){0};
    if (!serve_engine_queue(x->s, x->r)) {
        serve_request_release(x->r);
        x->r = NULL;
        return x->s->stopping ? send_error(x, c, 503, "the server is stopping", NULL) : send_error(x, c, 429, "too many requests wait already", NULL);
    }
    atomic_fetch_add(&x->s->count.requests, 1);
    return send_answer(x->r, c);
}

/* ---- who may ask ---- */

static bool same_secret(const char *a, const char *b)
{
    size_t n = strlen(a), m = strlen(b);
    unsigned char differ = n != m;
    for (size_t i = 0; i < n; i++) /* as long whatever is the same */
        differ |= (unsigned char)(a[i] ^ b[m ? i % m : 0]);
    return !differ;
}

static bool is_loopback(const char *host)
{
    return strcmp(host, "localhost") == 0 || strncmp(host, "127.", 4) == 0 || strcmp(host, "::1") == 0;
}

/* A server on this machine alone answers pages of other sites neither through a name that they made point here (Host), nor through a form
 * (Content-Type). */
static const char *why_not(const struct server *s, struct MHD_Connection *c, bool post, unsigned *status)
{
    const char *host = MHD_lookup_connection_value(c, MHD_HEADER_KIND, "Host"), *type = MHD_lookup_connection_value(c, MHD_HEADER_KIND, "Content-Type");
    char name[256] = "";
    if (host)
        snprintf(name, sizeof name, "%.*s", (int)strcspn(host + (*host == '['), *host == '[' ? "]" : ":"), host + (*host == '['));
    *status = 403;
    if (is_loopback(s->o.host) && host && !is_loopback(name))
        return "this server answers on this machine alone, as localhost";
    *status = 415;
    if (post && (!type || strncasecmp(type, "application/json", 16) != 0))
        return "the body must be application/json";
    return NULL;
}

static bool has_key(const struct server *s, struct MHD_Connection *c)
{
    const char *given = MHD_lookup_connection_value(c, MHD_HEADER_KIND, "Authorization");
    return !s->o.api_key || (given && strncasecmp(given, "Bearer ", 7) == 0 && same_secret(given + 7, s->o.api_key));
}

/* ---- requests ---- */

enum route { ROUTE_NONE, ROUTE_CHAT, ROUTE_COMPLETIONS, ROUTE_MODELS, ROUTE_MODEL, ROUTE_HEALTH, ROUTE_METRICS, ROUTE_PAGE };

static enum route route_of(const char *url)
{
    static const struct {
        const char *url;
        enum route route;
    } routes[] = {{"/v1/chat/completions", ROUTE_CHAT}, {"/v1/completions", ROUTE_COMPLETIONS}, {"/v1/models", ROUTE_MODELS},
                  {"/health", ROUTE_HEALTH},            {"/metrics", ROUTE_METRICS},            {"/", ROUTE_PAGE}};
    for (size_t i = 0; i < sizeof routes / sizeof *routes; i++)
        if (strcmp(url, routes[i].url) == 0)
            return routes[i].route;
    return strncmp(url, "/v1/models/", 11) == 0 && url[11] ? ROUTE_MODEL : ROUTE_NONE;
}

/* Headers are there. Answers what needs no body, or refuses before it is read. */
static enum MHD_Result begin(struct exchange *x, struct MHD_Connection *c, const char *url, const char *method, bool *answered)
{
    enum route route = route_of(url);
    bool wants_post = route == ROUTE_CHAT || route == ROUTE_COMPLETIONS, post = strcmp(method, "POST") == 0;
    unsigned status;
    const char *why = why_not(x->s, c, post && wants_post, &status);
    *answered = true;
    if (route == ROUTE_NONE)
        return send_error(x, c, 404, "there is nothing under this path", NULL);
    if (wants_post ? !post : strcmp(method, "GET") != 0)
        return send_error(x, c, 405, wants_post ? "this path wants POST" : "this path wants GET", NULL);
    if (why)
        return send_error(x, c, status, why, NULL);
    if (route == ROUTE_PAGE)
        return send_text(c, 200, "text/html; charset=utf-8", serve_page, serve_page_size);
    if (route == ROUTE_HEALTH)
        return health(x, c);
    if (!has_key(x->s, c))
        return send_error(x, c, 401, "the API key is missing or wrong", NULL);
    if (route == ROUTE_METRICS)
        return metrics(x, c);
    if (route == ROUTE_MODELS || route == ROUTE_MODEL)
        return models(x, c, route == ROUTE_MODEL ? url + 11 : NULL);
    *answered = false;
    return MHD_YES;
}

static enum MHD_Result on_request(void *user, struct MHD_Connection *c, const char *url, const char *method, const char *version,
                                  const char *data, size_t *size, void **state)
{
    struct server *s = user;
    struct exchange *x = *state;
    (void)version;
    if (!x) {
        bool answered;
        x = *state = calloc(1, sizeof *x);
        if (!x)
            return MHD_NO;
        x->s = s;
        atomic_fetch_add(&s->exchanges, 1);
        return begin(x, c, url, method, &answered);
    }
    if (*size) {
        x->too_large = x->too_large || x->body.len + *size > (size_t)(s->o.max_body * 1048576);
        if (!x->too_large)
            serve_text_add(&x->body, data, *size);
        *size = 0;
        return MHD_YES;
    }
    return x->r ? send_answer(x->r, c) : complete(x, c, route_of(url) == ROUTE_CHAT);
}

static void on_completed(void *user, struct MHD_Connection *c, void **state, enum MHD_RequestTerminationCode why)
{
    struct exchange *x = *state;
    (void)user;
    (void)c;
    (void)why;
    if (!x)
        return;
    if (x->r) {
        pthread_mutex_lock(&x->r->lock);
        x->r->gone = true;
        x->r->waiting = false;
        x->r->connection = NULL;
        pthread_mutex_unlock(&x->r->lock);
        serve_request_release(x->r);
    }
    atomic_fetch_sub(&x->s->exchanges, 1);
    free(x->body.data);
    free(x);
    *state = NULL;
}

/* ---- the daemon ---- */

enum rt_status serve_http_start(struct server *s, struct rt_error *err)
{
    char port[16];
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE}, *at = NULL;
    snprintf(port, sizeof port, "%d", (int)s->o.port);
    int wrong = getaddrinfo(s->o.host, port, &hints, &at);
    if (wrong)
        return rt_fail(err, RT_USAGE, "--host: %s: %s", s->o.host, gai_strerror(wrong));
    unsigned flags = MHD_USE_EPOLL_INTERNAL_THREAD | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ITC;
    if (at->ai_family == AF_INET6)
        flags |= MHD_USE_IPv6;
    s->daemon = MHD_start_daemon(flags, (uint16_t)s->o.port, NULL, NULL, on_request, s, MHD_OPTION_SOCK_ADDR, at->ai_addr,
                                 MHD_OPTION_NOTIFY_COMPLETED, on_completed, s, MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)IDLE_SECONDS,
                                 MHD_OPTION_CONNECTION_LIMIT, (unsigned)s->o.max_connections, MHD_OPTION_CONNECTION_MEMORY_LIMIT,
                                 (size_t)HEADER_BYTES, MHD_OPTION_LISTENING_ADDRESS_REUSE, 1u, MHD_OPTION_END);
    freeaddrinfo(at);
    if (!s->daemon)
        return rt_fail(err, RT_FAILED, "--host %s --port %d: cannot be listened on: %m", s->o.host, (int)s->o.port);
    const union MHD_DaemonInfo *info = MHD_get_daemon_info(s->daemon, MHD_DAEMON_INFO_BIND_PORT);
    if (info)
        s->o.port = info->port;
    return RT_OK;
}

void serve_http_refuse_new(struct server *s)
{
    MHD_socket listening = s->daemon ? MHD_quiesce_daemon(s->daemon) : MHD_INVALID_SOCKET;
    if (listening != MHD_INVALID_SOCKET)
        shutdown(listening, SHUT_RDWR);
}

void serve_http_stop(struct server *s)
{
    if (s->daemon)
        MHD_stop_daemon(s->daemon);
    s->daemon = NULL;
}
#else
extern int serve_http_not_built;
#endif
