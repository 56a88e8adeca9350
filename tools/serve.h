/* tools/serve.h - inside mosld serve: what its parts share.
 *
 * One thread speaks HTTP (libmicrohttpd, epoll), one runs the model. A request is made by the first (serve_request.c), waits in the queue,
 * is run by the second with others side by side (serve_engine.c), and its text goes back through a buffer of its own (serve_reply.c): so a
 * slow client fills its own buffer and disturbs nobody. A request's lock guards what both threads touch; the server's guards queue and
 * counts. Where both are taken, the server's comes first. */
#ifndef MOSLD_TOOLS_SERVE_H
#define MOSLD_TOOLS_SERVE_H

#include "mosld/io/json.h"
#include "tools/answer_options.h"
#include "tools/runner.h"

#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

struct MHD_Connection;
struct MHD_Daemon;

struct serve_options {
    struct session_options session;
    struct answer_options answer;
    struct option_list adapter;
    char *host, *api_key, *name;
    int64_t port, parallel, max_queue, max_connections;
    double timeout, max_body; /* seconds; MiB */
};

struct serve_text { /* grows */
    char *data;
    size_t len, cap;
    bool failed; /* out of memory: then nothing more is added */
};
void serve_text_add(struct serve_text *t, const char *data, size_t n);
void serve_text_print(struct serve_text *t, const char *format, ...) __attribute__((format(printf, 2, 3)));
void serve_text_json(struct serve_text *t, struct cJSON *json); /* deletes it */

struct serve_request {
    struct server *server;
    /* what is asked: fixed once it is queued */
    struct mosld_answer *answer;
    struct mosld_logit_bias *bias;
    int adapter;
    bool chat, stream, include_usage;
    char id[40], *model;
    time_t created;
    double arrived, deadline; /* seconds of the monotonic clock */
    /* of the engine's thread alone */
    struct serve_request *next; /* in the queue */
    uint32_t slot, reused, told; /* told: tokens whose log-probabilities have been sent */
    size_t sent;                 /* bytes of the text that have been */
    double first_token;
    /* of both threads, under the lock */
    pthread_mutex_t lock;
    struct MHD_Connection *connection;
    bool waiting;   /* the connection is suspended: whoever has news resumes it */
    bool gone;      /* nobody waits for the answer any more */
    bool started;   /* something can be sent */
    bool done;
    int status;     /* of HTTP */
    struct serve_text out; /* not yet sent */
    size_t taken;          /* of out */
    unsigned references;
};

struct server {
    struct serve_options o;
    struct session s;
    struct runner *runner;
    struct mosld_answer_params defaults;
    struct MHD_Daemon *daemon;
    char *base_name;
    char **adapter_names;
    uint64_t seed; /* of the next request that gives none */
    time_t started;
    pthread_t engine;
    bool engine_runs;
    pthread_mutex_t lock;
    pthread_cond_t news;
    struct serve_request *first, *last; /* queue */
    uint32_t queued, running;
    atomic_uint exchanges; /* requests that are being read or answered */
    atomic_bool stopping, hurry; /* stopping: takes nothing new; hurry: also ends what runs */
    struct rt_error engine_error; /* why it stopped by itself */
    struct {
        atomic_ullong requests, refused, failed, cancelled, prompt_tokens, cached_tokens, new_tokens, answers, steps;
        double first_token_seconds; /* engine's thread writes, under the lock */
    } count;
};

double serve_now(void);

/* serve_request.c: parses the body and makes a request, not yet queued. On an error *out is NULL, *http_status set, and err says what for
 * the client; *param names the field, or "" */
enum rt_status serve_request_create(struct server *s, bool chat, const char *body, size_t n, struct serve_request **out, int *http_status,
                                    const char **param, struct rt_error *err);
void serve_request_release(struct serve_request *r); /* the last reference frees it */
/* The adapter of a model's name; false: there is none of that name. */
bool serve_find_model(const struct server *s, const char *name, int *adapter);

/* serve_reply.c: put what is new of the answer into r->out; with r's lock held. */
void serve_reply_piece(struct serve_request *r);            /* streaming: what has been made since */
void serve_reply_end(struct serve_request *r);              /* the last piece, or the whole answer */
void serve_reply_fail(struct serve_request *r, int status, const char *type, const char *message);
struct cJSON *serve_error_json(const char *message, const char *type, const char *param, const char *code);

/* serve_engine.c */
enum rt_status serve_engine_start(struct server *s, struct rt_error *err);
void serve_engine_stop(struct server *s); /* runs what it has to its end, or hurries, then ends */
/* Queues a request with one more reference for the engine; false: the queue is full or the server stops. */
bool serve_engine_queue(struct server *s, struct serve_request *r);

/* serve_http.c */
enum rt_status serve_http_start(struct server *s, struct rt_error *err);
void serve_http_refuse_new(struct server *s);
void serve_http_stop(struct server *s);
void serve_resume(struct serve_request *r); /* with r's lock held: wakes its connection where it waits */
bool serve_client_left(struct serve_request *r); /* with r's lock held, while it waits */

extern const char serve_page[];
extern const size_t serve_page_size;

#endif
