/* tools/session.c - see session.h. */
#include "tools/session.h"

#include "mosld/adapter/adapter_file.h"
#include "mosld/model/memory.h"
#include "mosld/ops/op.h"
#include "tools/hub.h"
#include "mosld/tune/tuning_file.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

const char *const session_weights[] = {"file", "f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", NULL};

const char *const session_precisions[] = {"high", "highest", "medium", NULL};

/* ---- opening ---- */

static enum rt_status open_chat(struct session *s, const struct session_options *o, struct rt_error *err)
{
    const char *jinja = s->tokenizer ? mosld_tokenizer_chat_template(s->tokenizer) : NULL;
    if (o->chat_template) {
        s->has_chat = true;
        return mosld_chat_template_by_name(o->chat_template, &s->chat, err);
    }
    if (!jinja)
        rt_fail(&s->why_no_chat, RT_USAGE, "%s: the model has no chat template: name one with --chat-template",
                o->model);
    else if (mosld_chat_template_recognise(jinja, &s->chat, &s->why_no_chat) == RT_OK)
        s->has_chat = true;
    else
        rt_error_prefix(&s->why_no_chat, "%s", o->model);
    return RT_OK; /* said when a template is needed */
}

enum rt_status session_open_file(struct session *s, const struct session_options *o, struct rt_error *err)
{
    if (!*o->model)
        return rt_fail(err, RT_USAGE, "--model is empty: give a Hugging Face directory or a .gguf file");
    profiling_phase(&s->profiling, "opening the model");
    RT_TRY(hub_resolve(o->model, &s->path, err));
    RT_TRY(o->plan ? mosld_model_file_open_shapes(s->path, &s->file, err) : mosld_model_file_open(s->path, &s->file, err));
    const struct gguf *gguf = mosld_model_file_gguf(s->file);
    profiling_phase(&s->profiling, "opening the tokenizer");
    enum rt_status st = gguf ? mosld_tokenizer_open_gguf(gguf, &s->tokenizer, &s->why_no_tokenizer)
                             : mosld_tokenizer_open_dir(s->path, &s->tokenizer, &s->why_no_tokenizer);
    if (st)
        s->tokenizer = NULL;
    st = open_chat(s, o, err); /* a template is the tokenizer's */
    profiling_phase(&s->profiling, NULL);
    return st;
}

enum rt_status session_need_tokenizer(const struct session *s, struct rt_error *err)
{
    if (s->tokenizer)
        return RT_OK;
    return rt_fail(err, s->why_no_tokenizer.status, "%s", s->why_no_tokenizer.text);
}

enum rt_status session_need_chat(const struct session *s, struct rt_error *err)
{
    return s->has_chat ? RT_OK : rt_fail(err, s->why_no_chat.status, "%s", s->why_no_chat.text);
}

struct mosld_encoder session_encoder(const struct session *s)
{
    return (struct mosld_encoder){.tokenizer = s->tokenizer,
                                  .chat = s->has_chat ? &s->chat : NULL,
                                  .vocab_size = mosld_model_file_config(s->file)->vocab_size};
}

enum rt_status session_open_device(struct session *s, const struct session_options *o, struct rt_error *err)
{
    struct rt_device_params params = {
        .name = o->device, .threads = (int)o->threads, .memory_limit = (uint64_t)(o->memory_limit * 1048576),
        .precision = (enum rt_precision)o->matmul_precision};
    RT_TRY(profiling_params(&o->profiling, &params, err));
    profiling_phase(&s->profiling, "opening the device");
    RT_TRY(rt_device_open(&params, &s->dev, err));
    if (o->tuning)
        mosld_tuning_load(s->dev);
    profiling_phase(&s->profiling, "loading weights, building pipelines");
    return profiling_start(&s->profiling, &o->profiling, s->dev, err);
}

/* Everything is planned before anything is allocated: what does not fit is said with numbers. */
static enum rt_status check_memory(const struct session *s, struct rt_error *err)
{
    const double mib = 1 << 20;
    struct mosld_memory m;
    mosld_memory_of(s->model, s->adapter, s->pass, &m);
    uint64_t has = rt_device_info(s->dev)->limits.memory, needs = mosld_memory_total(&m);
    if (needs <= has)
        return RT_OK;
    return rt_fail(err, RT_NO_MEMORY,
                   "the model and its passes need %.0f MiB and may use %.0f MiB of the device: give less at a time "
                   "(context, max_length, "
                   "batch_tokens), or convert the weights with --weights q8_0",
                   ceil((double)needs / mib), floor((double)has / mib));
}

enum rt_status session_open_pass(struct session *s, const struct session_options *o, uint32_t positions,
                                 const struct mosld_pass_params *pass, struct rt_error *err)
{
    RT_TRY(session_open_device(s, o, err));
    if (!positions)
        positions = mosld_model_file_config(s->file)->max_positions;
    RT_TRY(mosld_model_create(s->dev, s->file, positions, o->weights - 1, &s->model, err));
    if (o->adapter) {
        struct mosld_adapter_params params;
        RT_TRY(mosld_adapter_read_params(o->adapter, &params, err));
        RT_TRY(mosld_adapter_create(s->dev, &s->model->config, &params, false, false, &s->adapter, err));
    }
    RT_TRY(mosld_pass_create(s->model, s->adapter, pass, &s->pass, err));
    RT_TRY(check_memory(s, err));
    if (o->adapter) {
        RT_TRY(mosld_adapter_commit(s->adapter, err));
        RT_TRY(mosld_adapter_read(s->adapter, o->adapter, err));
    }
    RT_TRY(mosld_pass_commit(s->pass, err));
    RT_TRY(mosld_model_load(s->model, s->file, err));
    return op_prepare(s->dev, mosld_model_wtypes(s->model), err);
}

const char *session_adapter_folder(const char *adapter)
{
    const char *equals = strchr(adapter, '=');
    return equals && !memchr(adapter, '/', (size_t)(equals - adapter)) ? equals + 1 : adapter;
}

static bool validation_spoke;

void session_close(struct session *s)
{
    profiling_finish(&s->profiling);
    const char *last;
    unsigned messages = s->dev ? rt_validation_messages(s->dev, &last) : 0;
    if (messages) { /* MOSLD_VALIDATE=1: then silence is what is asked for */
        fprintf(stderr, "the validation layer gave %u messages, the last: %s\n", messages, last);
        validation_spoke = true;
    }
    mosld_pass_destroy(&s->pass);
    mosld_adapter_destroy(&s->adapter);
    mosld_model_destroy(&s->model);
    rt_device_close(&s->dev);
    mosld_tokenizer_close(s->tokenizer);
    mosld_model_file_close(&s->file);
    free(s->path);
    *s = (struct session){0};
}

/* ---- talking ---- */

static bool line_open;

int session_exit(const char *command, enum rt_status st, const struct rt_error *err)
{
    static const int exits[] = {[RT_OK] = 0,        [RT_FAILED] = 1,    [RT_USAGE] = 2,       [RT_BAD_FILE] = 3,
                                [RT_NO_DEVICE] = 4, [RT_NO_MEMORY] = 4, [RT_DEVICE_LOST] = 4, [RT_INTERRUPTED] = 130};
    struct rt_error unwritten;
    progress_line("%s", "");
    if (!st && (fflush(stdout) != 0 || ferror(stdout))) { /* a full disk, say, is noticed no sooner */
        st = rt_fail(&unwritten, RT_FAILED, "standard output: cannot be written: %s", strerror(errno));
        err = &unwritten;
    }
    if (st)
        fprintf(stderr, "mosld %s: %s\n", command, err->text);
    return st == RT_OK && validation_spoke ? 1 : exits[st];
}

int session_main(const struct session_command *c, int argc, char **argv)
{
    struct rt_error err = {0};
    struct options o;
    enum rt_status st = options_init(&o, c->usage, c->table, c->n, c->values, &err);
    o.max_arguments = c->max_arguments;
    if (!st)
        st = options_parse(&o, argc, argv, &err);
    if (!st && o.help) {
        options_print_help(&o, stdout);
    } else if (!st) {
        if (c->interruptible)
            session_catch_interrupt();
        st = c->run(c->state, &o, &err);
    }
    c->finish(c->state);
    options_finish(&o);
    return session_exit(c->name, st, &err);
}

enum rt_status session_parse_ids(const char *option, const char *list, int32_t **ids, size_t *n, struct rt_error *err)
{
    static const char between[] = " ,\t\n";
    *n = 0;
    *ids = malloc((strlen(list) / 2 + 1) * sizeof **ids); /* an id and what follows it are two characters at least */
    if (!*ids)
        return rt_fail(err, RT_NO_MEMORY, "%s: no memory for the ids", option);
    for (const char *at = list + strspn(list, between); *at; at += strspn(at, between)) {
        char *end = NULL;
        errno = 0;
        long id = strtol(at, &end, 10);
        if (end == at || (*end && !strchr(between, *end)) || errno || id < 0 || id > INT32_MAX)
            return rt_fail(err, RT_USAGE, "%s: '%.*s' is no token id", option, (int)strcspn(at, between), at);
        (*ids)[(*n)++] = (int32_t)id;
        at = end;
    }
    return RT_OK;
}

bool progress_is_terminal(void) { return isatty(STDERR_FILENO); }

void progress_line(const char *format, ...)
{
    static time_t last;
    char text[256];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (progress_is_terminal()) {
        if (*text || line_open)
            fprintf(stderr, "\r%.79s\033[K%s", text, "");
        line_open = *text != 0;
        fflush(stderr);
        return;
    }
    time_t now = time(NULL);
    if (!last)
        last = now; /* what ends within ten seconds needs no line */
    if (*text && now - last >= 10) {
        fprintf(stderr, "%s\n", text);
        last = now;
    }
}

volatile sig_atomic_t session_interrupted;

static void on_interrupt(int signal)
{
    (void)signal;
    if (session_interrupted)
        _exit(130);
    session_interrupted = 1;
}

void session_catch_interrupt(void)
{
    struct sigaction action = {.sa_handler = on_interrupt};
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
}

const char *duration_text(double seconds, char *text, size_t size)
{
    long s = seconds < 0 || !(seconds < 1e9) ? 0 : (long)(seconds + 0.5);
    if (s < 60)
        snprintf(text, size, "%ld s", s);
    else if (s < 3600)
        snprintf(text, size, "%ld min %ld s", s / 60, s % 60);
    else
        snprintf(text, size, "%ld h %ld min", s / 3600, s % 3600 / 60);
    return text;
}
