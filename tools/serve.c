/* tools/serve.c - mosld serve: an OpenAI-compatible HTTP server for one model and any number of its adapters. */
#include "tools/serve.h"

#include "tools/commands.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const struct option table[] = {
    SESSION_OPTIONS(struct serve_options),
    {.name = "adapter",
     OPTION_STRINGS(struct serve_options, adapter),
     .value = "[NAME=]DIR",
     .help = "an adapter that requests choose by NAME as their model; may be given again"},
    {.name = "host",
     OPTION_STRING(struct serve_options, host),
     .value = "ADDRESS",
     .section = "Server",
     .help = "where to listen; other machines reach it only at an address of theirs, or 0.0.0.0"},
    {.name = "port", OPTION_INT(struct serve_options, port, 0, 65535), .help = "0: a free one, which is printed"},
    {.name = "api_key",
     OPTION_STRING(struct serve_options, api_key),
     .value = "KEY",
     .help = "what clients must send as their bearer token; better in the variable MOSLD_API_KEY, which ps does not show"},
    {.name = "name", OPTION_STRING(struct serve_options, name), .value = "NAME", .help = "of the model itself; otherwise its file's"},
    {.name = "parallel", OPTION_INT(struct serve_options, parallel, 1, 1024), .help = "requests that run at a time, each with a cache of its own"},
    {.name = "max_queue", OPTION_INT(struct serve_options, max_queue, 0, 1 << 20), .help = "requests that may wait; beyond it is 429"},
    {.name = "max_connections", OPTION_INT(struct serve_options, max_connections, 1, 1 << 16), .help = "open at a time"},
    {.name = "timeout", OPTION_REAL(struct serve_options, timeout, 0.001, 1e6), .value = "SECONDS", .help = "most for a request, waiting included"},
    {.name = "max_body", OPTION_REAL(struct serve_options, max_body, 0.001, 1024), .value = "MIB", .help = "most of a request's body"},
    ANSWER_OPTIONS(struct serve_options),
    PLAN_OPTION(struct serve_options),
    {.name = "json", OPTION_BOOL(struct serve_options, session.json), .command_line_only = true, .help = "with --plan: as one JSON document"},
};
enum { DRAIN_SECONDS = 20, FLUSH_SECONDS = 3 };

#ifdef HAVE_LIBMICROHTTPD

static char *last_part(const char *path)
{
    size_t n = strlen(path);
    while (n > 1 && path[n - 1] == '/')
        n--;
    const char *slash = memrchr(path, '/', n);
    const char *from = slash && slash + 1 < path + n ? slash + 1 : path;
    n -= (size_t)(from - path);
    return strndup(from, n > 5 && memcmp(from + n - 5, ".gguf", 5) == 0 ? n - 5 : n);
}

static enum rt_status name_models(struct server *s, struct rt_error *err)
{
    struct serve_options *o = &s->o;
    s->base_name = o->name ? strdup(o->name) : last_part(o->session.model);
    s->adapter_names = calloc(o->adapter.n + 1, sizeof *s->adapter_names);
    bool whole = s->base_name && s->adapter_names;
    for (size_t i = 0; i < o->adapter.n && whole; i++) {
        const char *item = o->adapter.item[i], *folder = session_adapter_folder(item);
        s->adapter_names[i] = folder == item ? last_part(item) : strndup(item, (size_t)(folder - item - 1));
        whole = s->adapter_names[i] != NULL;
        bool taken = whole && (!*s->adapter_names[i] || strcmp(s->adapter_names[i], s->base_name) == 0);
        for (size_t j = 0; j < i && whole; j++)
            taken = taken || strcmp(s->adapter_names[i], s->adapter_names[j]) == 0;
        if (taken)
            return rt_fail(err, RT_USAGE, "--adapter: the name '%s' is empty or taken: give each a name of its own, NAME=DIR", s->adapter_names[i]);
    }
    return whole ? RT_OK : rt_fail(err, RT_NO_MEMORY, "no memory for the models' names");
}

static enum rt_status open_model(struct server *s, struct rt_error *err)
{
    struct serve_options *o = &s->o;
    RT_TRY(session_open_file(&s->s, &o->session, err));
    if (o->session.plan)
        RT_TRY(session_open_device(&s->s, &o->session, err));
    else
        RT_TRY(session_need_tokenizer(&s->s, err));
    RT_TRY(answer_options_params(&o->answer, &s->defaults, err));
    if (!o->session.plan)
        s->defaults.ends = mosld_tokenizer_ends(s->s.tokenizer, &s->defaults.n_ends);
    s->seed = (uint64_t)o->answer.seed;
    const char **folders = calloc(o->adapter.n + 1, sizeof *folders);
    if (!folders)
        return rt_fail(err, RT_NO_MEMORY, "no memory for the adapters");
    for (size_t i = 0; i < o->adapter.n; i++)
        folders[i] = session_adapter_folder(o->adapter.item[i]);
    struct runner_params params = {.slots = (uint32_t)o->parallel, .context = (uint32_t)o->answer.context,
                                   .cache_type = answer_cache_wtype(o->answer.cache_type), .adapters = folders, .n_adapters = (uint32_t)o->adapter.n};
    enum rt_status st = o->session.plan ? runner_print_plan(&s->s, &o->session, &params, stdout, err) : runner_open(&s->s, &o->session, &params, &s->runner, err);
    if (!o->session.plan && st == RT_NO_MEMORY && s->s.dev)
        runner_print_plan(&s->s, &o->session, &params, stderr, NULL);
    free(folders);
    if (!st && s->runner)
        s->defaults.context = runner_context(s->runner);
    return st;
}

static bool busy(struct server *s)
{
    pthread_mutex_lock(&s->lock);
    bool is = s->running || s->first;
    pthread_mutex_unlock(&s->lock);
    return is;
}

/* Nothing new is taken; what runs and waits comes to its end, within a time; then what is written goes out. */
static void stop(struct server *s)
{
    s->stopping = true;
    serve_http_refuse_new(s);
    for (int i = 0; i < DRAIN_SECONDS * 20 && busy(s); i++)
        usleep(50000);
    s->hurry = true;
    serve_engine_stop(s);
    for (int i = 0; i < FLUSH_SECONDS * 20 && s->exchanges; i++)
        usleep(50000);
    serve_http_stop(s);
}

static enum rt_status run(void *state, const struct options *given, struct rt_error *err)
{
    struct server *s = state;
    (void)given;
    if (!s->o.api_key && getenv("MOSLD_API_KEY"))
        s->o.api_key = getenv("MOSLD_API_KEY");
    if (s->o.api_key && !*s->o.api_key)
        return rt_fail(err, RT_USAGE, "--api-key is empty");
    RT_TRY(name_models(s, err));
    RT_TRY(open_model(s, err));
    if (s->o.session.plan)
        return RT_OK;
    s->started = time(NULL);
    RT_TRY(serve_engine_start(s, err));
    RT_TRY(serve_http_start(s, err));
    fprintf(stderr, "listening on http://%s%s%s:%d, models %s", strchr(s->o.host, ':') ? "[" : "", s->o.host, strchr(s->o.host, ':') ? "]" : "",
            (int)s->o.port, s->base_name);
    for (size_t i = 0; i < s->o.adapter.n; i++)
        fprintf(stderr, ", %s", s->adapter_names[i]);
    fprintf(stderr, "; Ctrl-C stops it\n");
    runner_tell_context(s->runner, stderr);
    if (!s->o.api_key && strcmp(s->o.host, "127.0.0.1") != 0 && strcmp(s->o.host, "localhost") != 0 && strcmp(s->o.host, "::1") != 0)
        fprintf(stderr, "anybody who reaches this address can use it: --api-key asks for a key\n");
    while (!session_interrupted && !s->stopping)
        usleep(50000);
    stop(s);
    if (s->engine_error.status)
        return rt_fail(err, s->engine_error.status, "%s", s->engine_error.text);
    return RT_OK;
}

static void finish(void *state)
{
    struct server *s = state;
    s->hurry = true;
    serve_engine_stop(s);
    serve_http_stop(s);
    for (size_t i = 0; s->adapter_names && i < s->o.adapter.n; i++)
        free(s->adapter_names[i]);
    free(s->adapter_names);
    free(s->base_name);
    answer_options_finish(&s->o.answer);
    runner_close(&s->runner);
    session_close(&s->s);
}

#else

static enum rt_status run(void *state, const struct options *given, struct rt_error *err)
{
    (void)state;
    (void)given;
    return rt_fail(err, RT_USAGE, "this mosld was built without libmicrohttpd: install libmicrohttpd-dev and build it again");
}

static void finish(void *state) { (void)state; }

#endif

int cmd_serve(int argc, char **argv)
{
    struct server s = {.o = {.session = {SESSION_DEFAULTS}, .answer = {ANSWER_DEFAULTS}, .host = "127.0.0.1", .port = 8080, .parallel = 4,
                             .max_queue = 512, .max_connections = 1024, .timeout = 600, .max_body = 4}};
    s.o.answer.temperature = 1; /* what OpenAI's API means when a request says nothing */
    s.o.answer.max_new_tokens = 1024;
    pthread_mutex_init(&s.lock, NULL);
    pthread_cond_init(&s.news, NULL);
    int status = session_main(&(struct session_command){.name = "serve",
                                                        .usage = "mosld serve --model PATH [--adapter [NAME=]DIR ...] [options]",
                                                        .table = table,
                                                        .n = sizeof table / sizeof *table,
                                                        .values = &s.o,
                                                        .interruptible = true,
                                                        .run = run,
                                                        .finish = finish,
                                                        .state = &s},
                              argc, argv);
    pthread_cond_destroy(&s.news);
    pthread_mutex_destroy(&s.lock);
    return status;
}
