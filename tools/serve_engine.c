/* tools/serve_engine.c - the thread that runs the model: takes requests from the queue into free slots, and runs all of them a step at a
 * time, so that short answers do not wait for long ones. */
#ifdef HAVE_LIBMICROHTTPD
#include "tools/serve.h"

#include <stdlib.h>
#include <string.h>

struct engine {
    struct server *s;
    struct serve_request **active; /* [slots]; NULL: free */
    struct runner_item *items;
    float *logits; /* [slots, V] */
    uint32_t slots;
};

double serve_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* ---- the queue ---- */

bool serve_engine_queue(struct server *s, struct serve_request *r)
{
    pthread_mutex_lock(&s->lock);
    bool takes = !s->stopping && s->queued < (uint32_t)s->o.max_queue;
    if (takes) {
        r->references++;
        if (s->last)
            s->last->next = r;
        else
            s->first = r;
        s->last = r;
        s->queued++;
        pthread_cond_signal(&s->news);
    }
    pthread_mutex_unlock(&s->lock);
    return takes;
}

static struct serve_request *take_first(struct server *s)
{
    struct serve_request *r = s->first;
    if (r) {
        s->first = r->next;
        if (!s->first)
            s->last = NULL;
        r->next = NULL;
        s->queued--;
    }
    return r;
}

/* ---- how a request ends ---- */

static void leave(struct engine *e, struct serve_request *r)
{
    for (uint32_t i = 0; i < e->slots; i++)
        if (e->active[i] == r) {
            e->active[i] = NULL;
            runner_release(e->s->runner, i);
            pthread_mutex_lock(&e->s->lock);
            e->s->running--;
            pthread_mutex_unlock(&e->s->lock);
        }
    serve_request_release(r);
}

static void fail(struct engine *e, struct serve_request *r, int status, const char *type, const char *message)
{
    pthread_mutex_lock(&r->lock);
    serve_reply_fail(r, status, type, message);
    serve_resume(r);
    pthread_mutex_unlock(&r->lock);
    atomic_fetch_add(&e->s->count.failed, 1);
    leave(e, r);
}

static void finish(struct engine *e, struct serve_request *r)
{
    struct server *s = e->s;
    atomic_fetch_add(&s->count.answers, 1);
    atomic_fetch_add(&s->count.prompt_tokens, r->answer->n_prompt);
    atomic_fetch_add(&s->count.cached_tokens, r->reused);
    atomic_fetch_add(&s->count.new_tokens, mosld_answer_tokens(r->answer));
    pthread_mutex_lock(&r->lock);
    serve_reply_end(r);
    serve_resume(r);
    pthread_mutex_unlock(&r->lock);
    leave(e, r);
}

/* Whether anybody still wants it, and it has time left. False: it has left. */
static bool lives(struct engine *e, struct serve_request *r, bool hurry)
{
    pthread_mutex_lock(&r->lock);
    bool gone = r->gone || serve_client_left(r);
    if (gone)
        serve_resume(r); /* the connection sees for itself that it is over */
    if (gone && !r->done)
        r->done = r->started = true;
    pthread_mutex_unlock(&r->lock);
    if (gone) {
        atomic_fetch_add(&e->s->count.cancelled, 1);
        leave(e, r);
        return false;
    }
    bool late = serve_now() > r->deadline, begun = mosld_answer_tokens(r->answer) > 0;
    if (!hurry && !late)
        return true;
    if (begun && mosld_answer_stop(r->answer, NULL) == RT_OK)
        finish(e, r); /* what was said until now, with finish_reason "length" */
    else if (hurry)
        fail(e, r, 503, "server_error", "the server is stopping");
    else
        fail(e, r, 503, "server_error", "the request waited longer than the server's time limit");
    return false;
}

/* ---- steps ---- */

/* Brings requests from the queue into free slots; waits while there is nothing to do. False: the end. */
static bool admit(struct engine *e)
{
    struct server *s = e->s;
    pthread_mutex_lock(&s->lock);
    while (!s->running && !s->first && !s->stopping)
        pthread_cond_wait(&s->news, &s->lock);
    bool hurry = s->hurry, more = s->running || s->first;
    while (s->first && s->running < e->slots) {
        struct serve_request *r = take_first(s);
        s->running++;
        pthread_mutex_unlock(&s->lock);
        if (runner_acquire(s->runner, r->adapter, r->answer->seen, r->answer->n_seen, &r->slot, &r->reused)) {
            e->active[r->slot] = r;
            lives(e, r, hurry);
        } else { /* there is one as long as fewer run than there are */
            pthread_mutex_lock(&s->lock);
            s->running--;
            pthread_mutex_unlock(&s->lock);
            fail(e, r, 503, "server_error", "no place for another sequence");
        }
        pthread_mutex_lock(&s->lock);
    }
    pthread_mutex_unlock(&s->lock);
    return more;
}

/* Those that wait in the queue longer than they may are told so. */
static void look_at_queue(struct engine *e)
{
    struct server *s = e->s;
    double now = serve_now();
    for (;;) {
        struct serve_request *late = NULL;
        pthread_mutex_lock(&s->lock);
        if (s->first && (s->first->deadline < now || s->hurry))
            late = take_first(s);
        pthread_mutex_unlock(&s->lock);
        if (!late)
            return;
        fail(e, late, 503, "server_error", s->hurry ? "the server is stopping" : "the request waited longer than the server's time limit");
    }
}

static void take_token(struct engine *e, const struct runner_item *item)
{
    struct serve_request *r = e->active[item->slot];
    struct rt_error err;
    if (!item->ready)
        return;
    if (mosld_answer_next(r->answer, item->logits, runner_vocab(e->s->runner), &err)) {
        fail(e, r, 500, "server_error", err.text);
        return;
    }
    if (!r->first_token) {
        r->first_token = serve_now();
        pthread_mutex_lock(&e->s->lock);
        e->s->count.first_token_seconds += r->first_token - r->arrived;
        pthread_mutex_unlock(&e->s->lock);
    }
    if (r->answer->done) {
        finish(e, r);
        return;
    }
    pthread_mutex_lock(&r->lock);
    size_t before = r->out.len;
    serve_reply_piece(r);
    if (r->out.len > before)
        serve_resume(r);
    pthread_mutex_unlock(&r->lock);
}

static void step(struct engine *e)
{
    struct rt_error err;
    uint32_t n = 0, V = runner_vocab(e->s->runner);
    for (uint32_t i = 0; i < e->slots; i++) {
        struct serve_request *r = e->active[i];
        if (r && lives(e, r, e->s->hurry))
            e->items[n++] = (struct runner_item){
                .slot = i, .ids = r->answer->seen, .n = r->answer->n_seen, .logits = e->logits + (size_t)i * V};
    }
    if (!n)
        return;
    atomic_fetch_add(&e->s->count.steps, 1);
    if (runner_step(e->s->runner, e->items, n, &err) == RT_OK) {
        for (uint32_t i = 0; i < n; i++)
            take_token(e, &e->items[i]);
        return;
    }
    for (uint32_t i = 0; i < n; i++)
        fail(e, e->active[e->items[i].slot], 500, "server_error", err.text);
    fprintf(stderr, "mosld serve: %s\n", err.text);
    if (err.status != RT_USAGE) { /* nothing good comes of going on */
        pthread_mutex_lock(&e->s->lock);
        e->s->engine_error = err;
        e->s->stopping = e->s->hurry = true;
        pthread_mutex_unlock(&e->s->lock);
    }
}

static void *run(void *user)
{
    struct engine *e = user;
    while (admit(e)) {
        look_at_queue(e);
        step(e);
    }
    free(e->active);
    free(e->items);
    free(e->logits);
    free(e);
    return NULL;
}

enum rt_status serve_engine_start(struct server *s, struct rt_error *err)
{
    struct engine *e = calloc(1, sizeof *e);
    uint32_t n = runner_slots(s->runner);
    if (!e)
        return rt_fail(err, RT_NO_MEMORY, "no memory to serve");
    *e = (struct engine){.s = s, .slots = n};
    e->active = calloc(n, sizeof *e->active);
    e->items = calloc(n, sizeof *e->items);
    e->logits = calloc((size_t)n * runner_vocab(s->runner), sizeof *e->logits);
    s->engine_runs = e->active && e->items && e->logits && pthread_create(&s->engine, NULL, run, e) == 0;
    if (s->engine_runs)
        return RT_OK;
    free(e->active);
    free(e->items);
    free(e->logits);
    free(e);
    return rt_fail(err, RT_NO_MEMORY, "no thread or memory to serve");
}

void serve_engine_stop(struct server *s)
{
    if (!s->engine_runs)
        return;
    pthread_mutex_lock(&s->lock);
    s->stopping = true;
    pthread_cond_signal(&s->news);
    pthread_mutex_unlock(&s->lock);
    pthread_join(s->engine, NULL);
    s->engine_runs = false;
}
#else
extern int serve_engine_not_built;
#endif
