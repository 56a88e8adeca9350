/* tools/generate.c - mosld generate: text that goes on from a prompt, or a conversation. */
#include "tools/commands.h"

#include "mosld/generate/generate.h"
#include "mosld/io/json.h"
#include "tools/session.h"

#include <stdlib.h>
#include <string.h>

struct generate_options {
    struct session_options session;
    char *prompt, *system;
    bool chat, verbose;
    int64_t max_new_tokens, context, top_k, seed;
    double temperature, top_p, min_p, repetition_penalty;
};

static const struct option table[] = {
    SESSION_OPTIONS(struct generate_options),
    {.name = "adapter",
     OPTION_STRING(struct generate_options, session.adapter),
     .value = "DIR",
     .help = "an adapter's folder"},
    {.name = "prompt",
     OPTION_STRING(struct generate_options, prompt),
     .value = "TEXT",
     .section = "What is said",
     .help = "text to go on from; with --chat, the first message"},
    {.name = "chat",
     OPTION_BOOL(struct generate_options, chat),
     .help = "a conversation by the model's chat template, from standard input"},
    {.name = "system",
     OPTION_STRING(struct generate_options, system),
     .value = "TEXT",
     .help = "system prompt of a conversation"},
    {.name = "max_new_tokens",
     OPTION_INT(struct generate_options, max_new_tokens, 1, 1 << 20),
     .section = "Generation",
     .help = "most tokens of an answer"},
    {.name = "context",
     OPTION_INT(struct generate_options, context, 0, 1 << 22),
     .help = "tokens of prompt and answers together; 0: at most 2048"},
    {.name = "temperature",
     OPTION_REAL(struct generate_options, temperature, 0, 100),
     .help = "0: always the likeliest token"},
    {.name = "top_k", OPTION_INT(struct generate_options, top_k, 0, 1 << 20), .help = "only the k likeliest; 0: all"},
    {.name = "top_p",
     OPTION_REAL(struct generate_options, top_p, 0, 1),
     .help = "only the likeliest up to this probability"},
    {.name = "min_p",
     OPTION_REAL(struct generate_options, min_p, 0, 1),
     .help = "only what has this share of the likeliest"},
    {.name = "repetition_penalty",
     OPTION_REAL(struct generate_options, repetition_penalty, 0, 10),
     .help = "above 1: tokens already there are less likely"},
    {.name = "seed", OPTION_INT(struct generate_options, seed, 0, OPTION_INT_MAX), .help = "of the sampling"},
    {.name = "verbose",
     OPTION_BOOL(struct generate_options, verbose),
     .section = "Results",
     .help = "tell speeds on standard error"},
    {.name = "json",
     OPTION_BOOL(struct generate_options, session.json),
     .help = "print one JSON document instead of the text alone: an answer, or a list of them"},
};

struct generation {
    struct generate_options o;
    struct session s;
    struct mosld_generate_params params;
    struct mosld_text_stream *stream;
    char *text; /* of the answer so far */
    size_t len, cap;
    int32_t *ids;
    size_t n_ids, cap_ids;
    enum rt_status status; /* of on_token */
    struct rt_error *err;
};

/* ---- an answer ---- */

static enum rt_status append(struct generation *g, const char *text, size_t len)
{
    if (g->len + len + 1 > g->cap) {
        size_t cap = 2 * (g->len + len) + 256;
        char *grown = realloc(g->text, cap);
        if (!grown)
            return rt_fail(g->err, RT_NO_MEMORY, "no memory for the answer");
        g->text = grown;
        g->cap = cap;
    }
    memcpy(g->text + g->len, text, len);
    g->text[g->len += len] = 0;
    if (!g->o.session.json) {
        fwrite(text, 1, len, stdout);
        fflush(stdout);
    }
    return RT_OK;
}

static bool on_token(void *user, int32_t token)
{
    struct generation *g = user;
    const char *text;
    size_t len;
    if (g->n_ids == g->cap_ids) {
        size_t cap = g->cap_ids ? 2 * g->cap_ids : 256;
        int32_t *grown = realloc(g->ids, cap * sizeof *grown);
        if (!grown) {
            g->status = rt_fail(g->err, RT_NO_MEMORY, "no memory for the answer");
            return false;
        }
        g->ids = grown;
        g->cap_ids = cap;
    }
    g->ids[g->n_ids++] = token;
    g->status = mosld_text_stream_push(g->stream, token, &text, &len, g->err);
    if (!g->status)
        g->status = append(g, text, len);
    return !g->status && !session_interrupted;
}

static enum rt_status answer(struct generation *g, const int32_t *ids, size_t n, bool continues,
                             struct mosld_generated *out, struct rt_error *err)
{
    g->len = g->n_ids = 0;
    g->status = RT_OK;
    g->err = err;
    enum rt_status st = append(g, "", 0);
    if (!st)
        st = mosld_text_stream_create(g->s.tokenizer, true, continues, &g->stream, err);
    if (st)
        return st;
    st = mosld_generate(g->s.pass, ids, (uint32_t)n, &g->params, on_token, g, out, err);
    if (!st)
        st = g->status;
    const char *text;
    size_t len;
    if (!st)
        st = mosld_text_stream_finish(g->stream, &text, &len, err);
    if (!st)
        st = append(g, text, len);
    mosld_text_stream_destroy(g->stream);
    g->stream = NULL;
    if (g->o.verbose && !st)
        fprintf(stderr, "\n%u tokens of prompt at %.1f tokens/s, %u new ones at %.1f tokens/s\n", out->prompt_tokens,
                out->prompt_tokens / out->prompt_seconds, out->new_tokens, out->new_tokens / out->seconds);
    return st;
}

static const char *stop_name(enum mosld_stop stop)
{
    static const char *const names[] = {"end", "length", "context", "interrupted"};
    return names[stop];
}

static cJSON *answer_json(const struct generation *g, const struct mosld_generated *r)
{
    cJSON *json = cJSON_CreateObject();
    cJSON_AddStringToObject(json, "text", g->text);
    cJSON_AddItemToObject(json, "tokens", cJSON_CreateIntArray(g->ids, (int)g->n_ids));
    cJSON_AddStringToObject(json, "stop", stop_name(r->stop));
    cJSON_AddNumberToObject(json, "prompt_tokens", r->prompt_tokens);
    cJSON_AddNumberToObject(json, "prompt_tokens_per_second", r->prompt_tokens / r->prompt_seconds);
    cJSON_AddNumberToObject(json, "tokens_per_second", r->new_tokens / r->seconds);
    return json;
}

static void print_json(cJSON *json)
{
    char *text = cJSON_PrintUnformatted(json);
    if (text)
        puts(text);
    cJSON_free(text);
    cJSON_Delete(json);
}

static enum rt_status complete(struct generation *g, struct rt_error *err)
{
    int32_t *ids = NULL;
    size_t n;
    struct mosld_generated r;
    enum rt_status st = mosld_tokenizer_encode(g->s.tokenizer, g->o.prompt, strlen(g->o.prompt), NULL, &ids, &n, err);
    if (!st)
        st = answer(g, ids, n, g->o.prompt[0] != 0, &r, err);
    free(ids);
    if (st)
        return st;
    if (g->o.session.json)
        print_json(answer_json(g, &r));
    else
        putchar('\n');
    return RT_OK;
}

/* ---- a conversation ---- */

struct conversation {
    struct mosld_chat_message *messages; /* contents are owned */
    size_t n;
};

static enum rt_status say(struct conversation *c, const char *role, const char *content, struct rt_error *err)
{
    struct mosld_chat_message *grown = realloc(c->messages, (c->n + 1) * sizeof *grown);
    char *copy = strdup(content);
    if (grown)
        c->messages = grown;
    if (!grown || !copy) {
        free(copy);
        return rt_fail(err, RT_NO_MEMORY, "no memory for the conversation");
    }
    c->messages[c->n++] = (struct mosld_chat_message){.role = role, .content = copy};
    return RT_OK;
}

/* Renders the whole conversation and runs it from its beginning: what the template does to earlier turns is then never
 * in doubt. */
static enum rt_status turn(struct generation *g, struct conversation *c, struct mosld_generated *r,
                           struct rt_error *err)
{
    struct mosld_chat_text text;
    int32_t *ids = NULL;
    uint8_t *loss = NULL;
    size_t n;
    enum rt_status st = mosld_chat_render(&g->s.chat, c->messages, c->n,
                                          &(struct mosld_chat_params){.add_generation_prompt = true}, &text, err);
    if (st)
        return st;
    st = mosld_chat_encode(g->s.tokenizer, &text, &ids, &loss, &n, err);
    mosld_chat_text_finish(&text);
    g->s.pass->cached = 0;
    if (!st)
        st = answer(g, ids, n, true, r, err);
    free(ids);
    free(loss);
    return st ? st : say(c, "assistant", g->text, err);
}

static enum rt_status converse(struct generation *g, struct rt_error *err)
{
    struct conversation c = {0};
    struct mosld_generated r;
    char *line = NULL;
    size_t size = 0;
    bool once = g->o.prompt != NULL;
    cJSON *answers = g->o.session.json && !once ? cJSON_CreateArray() : NULL; /* one document, whatever is said */
    enum rt_status st = g->o.system ? say(&c, "system", g->o.system, err) : RT_OK;
    while (!st && !session_interrupted) {
        const char *said = g->o.prompt;
        if (!once) {
            if (progress_is_terminal())
                fprintf(stderr, "> ");
            ssize_t n = getline(&line, &size, stdin);
            if (n < 0)
                break;
            line[strcspn(line, "\r\n")] = 0;
            if (!*line)
                continue;
            said = line;
        }
        st = say(&c, "user", said, err);
        if (!st)
            st = turn(g, &c, &r, err);
        if (!st && answers)
            cJSON_AddItemToArray(answers, answer_json(g, &r));
        else if (!st && g->o.session.json)
            print_json(answer_json(g, &r));
        else if (!st) {
            putchar('\n');
            fflush(stdout); /* who talks to it through a pipe waits for this */
        }
        if (once)
            break;
    }
    if (answers && !st)
        print_json(answers);
    else
        cJSON_Delete(answers);
    for (size_t i = 0; i < c.n; i++)
        free((char *)c.messages[i].content);
    free(c.messages);
    free(line);
    return st;
}

/* ---- */

static enum rt_status check_options(const struct generate_options *o, struct rt_error *err)
{
    if (!o->prompt && !o->chat)
        return rt_fail(err, RT_USAGE, "give --prompt TEXT, or --chat for a conversation");
    if (o->system && !o->chat)
        return rt_fail(err, RT_USAGE, "--system belongs to a conversation: give --chat too");
    return RT_OK;
}

static enum rt_status run(void *state, const struct options *given, struct rt_error *err)
{
    struct generation *g = state;
    (void)given;
    const struct generate_options *o = &g->o;
    enum rt_status st = check_options(o, err);
    if (!st)
        st = session_open_file(&g->s, &o->session, err);
    if (!st)
        st = session_need_tokenizer(&g->s, err);
    if (!st && o->chat)
        st = session_need_chat(&g->s, err);
    if (st)
        return st;
    uint32_t most = mosld_model_file_config(g->s.file)->max_positions, context = o->context    ? (uint32_t)o->context
                                                                                 : most < 2048 ? most
                                                                                               : 2048;
    if (context > most)
        return rt_fail(err, RT_USAGE, "--context: %u is more than the model's %u positions", context, most);
    size_t n_ends;
    g->params = (struct mosld_generate_params){
        .max_new_tokens = (uint32_t)o->max_new_tokens, .ends = mosld_tokenizer_ends(g->s.tokenizer, &n_ends),
        .sampling = {.temperature = o->temperature, .top_k = (uint32_t)o->top_k, .top_p = o->top_p, .min_p = o->min_p,
                     .repetition_penalty = o->repetition_penalty, .seed = (uint64_t)o->seed}};
    g->params.n_ends = n_ends;
    st = mosld_sample_check(&g->params.sampling, err);
    if (!st)
        st = session_open_pass(&g->s, &o->session, context,
                               &(struct mosld_pass_params){.max_tokens = context < 256 ? context : 256,
                                                           .max_targets = 1,
                                                           .cache_tokens = context},
                               err);
    if (!st)
        st = o->chat ? converse(g, err) : complete(g, err);
    if (!st && session_interrupted) /* what was said until then stands */
        st = rt_fail(err, RT_INTERRUPTED, "interrupted");
    return st;
}

static void finish(void *state)
{
    struct generation *g = state;
    free(g->text);
    free(g->ids);
    session_close(&g->s);
}

int cmd_generate(int argc, char **argv)
{
    struct generation g = {
        .o = {.session = {SESSION_DEFAULTS}, .max_new_tokens = 256, .top_p = 1, .repetition_penalty = 1}};
    return session_main(&(struct session_command){.name = "generate",
                                                  .usage = "mosld generate --model PATH [--adapter DIR] --prompt TEXT | --chat [options]",
                                                  .table = table,
                                                  .n = sizeof table / sizeof *table,
                                                  .values = &g.o,
                                                  .interruptible = true,
                                                  .run = run,
                                                  .finish = finish,
                                                  .state = &g},
                        argc, argv);
}
