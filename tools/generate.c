/* tools/generate.c - mosld generate and mosld chat: text that goes on from a prompt, or a conversation. */
#include "tools/generate.h"

#include "mosld/io/json.h"
#include "tools/commands.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

static const struct option table[] = {
    SESSION_OPTIONS(struct generate_options),
    PROFILING_OPTIONS(struct generate_options, session.profiling),
    {.name = "adapter",
     OPTION_STRINGS(struct generate_options, adapter),
     .value = "[NAME=]DIR",
     .help = "an adapter's folder; a chat takes several, and /adapter NAME changes between them"},
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
    ANSWER_OPTIONS(struct generate_options),
    {.name = "verbose",
     OPTION_BOOL(struct generate_options, verbose),
     .section = "Results",
     .help = "tell speeds on standard error"},
    PLAN_OPTION(struct generate_options),
    {.name = "json",
     OPTION_BOOL(struct generate_options, session.json),
     .help = "print one JSON document instead of the text alone: an answer, or a list of them"},
    {.name = "logprobs",
     OPTION_INT(struct generate_options, logprobs, 0, MOSLD_MAX_TOP_LOGPROBS),
     .help = "with --json: each token's log-probability and the N likeliest in its place"},
};

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* ---- an answer ---- */

static enum rt_status run_answer(struct generation *g, uint32_t slot, struct rt_error *err)
{
    struct mosld_answer *a = g->last;
    struct runner_item item = {.slot = slot, .logits = g->logits};
    size_t printed = 0;
    double begin = now();
    while (!a->done) {
        uint32_t tokens = mosld_answer_tokens(a);
        item.ids = a->seen;
        item.n = a->n_seen;
        unsigned scope = tokens ? rt_scope_begin(g->s.dev, "token", tokens) : rt_scope_begin(g->s.dev, "prompt", 0);
        enum rt_status st = runner_step(g->runner, &item, 1, err);
        if (item.ready && !st) {
            if (tokens == 0) {
                g->prompt_seconds = now() - begin;
                begin = now();
            }
            st = mosld_answer_next(a, g->logits, runner_vocab(g->runner), err);
        }
        rt_scope_end(g->s.dev, scope);
        if (st)
            return st;
        if (*g->stop)
            RT_TRY(mosld_answer_stop(a, err));
        if (!g->o.session.json && a->safe > printed) {
            wrap_text(&g->wrap, a->text + printed, a->safe - printed);
            fflush(stdout);
            printed = a->safe;
        }
    }
    wrap_flush(&g->wrap);
    g->seconds = now() - begin;
    return RT_OK;
}

enum rt_status generate_answer(struct generation *g, const int32_t *ids, size_t n, bool continues, struct rt_error *err)
{
    struct mosld_answer_params params = g->params;
    params.continues = continues;
    mosld_answer_destroy(&g->last);
    g->reused = 0;
    g->prompt_seconds = g->seconds = 0;
    RT_TRY(mosld_answer_create(g->s.tokenizer, ids, n, &params, &g->last, err));
    uint32_t slot;
    if (!runner_acquire(g->runner, g->adapter, g->last->seen, g->last->n_seen, &slot, &g->reused))
        return rt_fail(err, RT_FAILED, "no place for another sequence");
    enum rt_status st = run_answer(g, slot, err);
    runner_release(g->runner, slot);
    return st;
}

void generate_tell_speeds(const struct generation *g)
{
    uint32_t run = g->last->n_prompt - g->reused, tokens = mosld_answer_tokens(g->last);
    if (g->o.verbose && g->prompt_seconds > 0)
        fprintf(stderr, "%s%u tokens of prompt at %.1f tokens/s%s, %u new at %.1f%s\n", g->colour ? "\033[2m" : "", run, run / g->prompt_seconds,
                g->reused ? " (the rest was cached)" : "", tokens, g->seconds > 0 ? tokens / g->seconds : 0.0, g->colour ? "\033[0m" : "");
}

/* ---- JSON ---- */

static cJSON *token_json(const struct generation *g, int32_t id, float logprob)
{
    cJSON *json = cJSON_CreateObject();
    char *text = NULL;
    size_t n;
    cJSON_AddNumberToObject(json, "id", id);
    if (mosld_tokenizer_decode(g->s.tokenizer, &id, 1, false, &text, &n, NULL) == RT_OK) {
        cJSON *parsed = NULL;
        cJSON *string = cJSON_CreateString(text);
        char *quoted = cJSON_PrintUnformatted(string);
        if (quoted && json_parse(quoted, strlen(quoted), "", 1, &parsed, NULL) == RT_OK) /* half a character is no text */
            cJSON_AddStringToObject(json, "text", text);
        cJSON_free(quoted);
        cJSON_Delete(string);
        cJSON_Delete(parsed);
    }
    free(text);
    cJSON_AddNumberToObject(json, "logprob", logprob);
    return json;
}

static void add_logprobs(cJSON *json, const struct generation *g)
{
    const struct mosld_answer *a = g->last;
    cJSON *list = cJSON_AddArrayToObject(json, "logprobs");
    for (uint32_t i = 0; i < mosld_answer_tokens(a); i++) {
        cJSON *token = token_json(g, a->ids[a->n_prompt + i], a->logprobs[i]), *top = cJSON_AddArrayToObject(token, "top");
        for (uint32_t j = 0; j < a->n_top; j++) {
            const struct mosld_logprob *t = &a->top[(size_t)i * a->n_top + j];
            cJSON_AddItemToArray(top, token_json(g, t->token, t->logprob));
        }
        cJSON_AddItemToArray(list, token);
    }
}

void generate_print_json(struct generation *g, cJSON *list)
{
    const struct mosld_answer *a = g->last;
    uint32_t tokens = mosld_answer_tokens(a);
    cJSON *json = cJSON_CreateObject();
    cJSON_AddStringToObject(json, "text", a->text);
    cJSON_AddItemToObject(json, "tokens", cJSON_CreateIntArray(a->ids + a->n_prompt, (int)tokens));
    cJSON_AddStringToObject(json, "stop", answer_stop_name(a->stop));
    cJSON_AddNumberToObject(json, "prompt_tokens", a->n_prompt);
    cJSON_AddNumberToObject(json, "cached_tokens", g->reused);
    if (a->dropped)
        cJSON_AddNumberToObject(json, "dropped_tokens", a->dropped);
    cJSON_AddNumberToObject(json, "prompt_tokens_per_second", g->prompt_seconds > 0 ? (a->n_prompt - g->reused) / g->prompt_seconds : 0);
    cJSON_AddNumberToObject(json, "tokens_per_second", g->seconds > 0 ? tokens / g->seconds : 0);
    if (a->params.logprobs)
        add_logprobs(json, g);
    if (list) {
        cJSON_AddItemToArray(list, json);
        return;
    }
    struct rt_error err;
    if (profiling_report(&g->s.profiling, json, &err)) /* a trace that was not written whole takes nothing from the answer */
        fprintf(stderr, "%s\n", err.text);
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
    enum rt_status st = mosld_tokenizer_encode(g->s.tokenizer, g->o.prompt, strlen(g->o.prompt), NULL, &ids, &n, err);
    if (!st)
        st = generate_answer(g, ids, n, g->o.prompt[0] != 0, err);
    free(ids);
    if (st)
        return st;
    if (g->o.session.json)
        generate_print_json(g, NULL);
    else
        putchar('\n');
    fflush(stdout);
    generate_tell_speeds(g);
    return RT_OK;
}

/* ---- the commands ---- */

static enum rt_status check_options(const struct generate_options *o, struct rt_error *err)
{
    if (!o->prompt && !o->chat)
        return rt_fail(err, RT_USAGE, "give --prompt TEXT, or --chat for a conversation");
    if (o->system && !o->chat)
        return rt_fail(err, RT_USAGE, "--system belongs to a conversation: give --chat too");
    if (o->adapter.n > 1 && !o->chat)
        return rt_fail(err, RT_USAGE, "--adapter: one at a time; a chat or mosld serve takes several");
    if (o->logprobs && !o->session.json)
        return rt_fail(err, RT_USAGE, "--logprobs needs --json");
    return RT_OK;
}

/* Opens the model for one sequence, or prints its plan; where memory ran out, prints that too. */
static enum rt_status open_runner(struct generation *g, bool plan, struct rt_error *err)
{
    struct generate_options *o = &g->o;
    const char **folders = calloc(o->adapter.n + 1, sizeof *folders);
    if (!folders)
        return rt_fail(err, RT_NO_MEMORY, "no memory for the adapters");
    for (size_t i = 0; i < o->adapter.n; i++)
        folders[i] = session_adapter_folder(o->adapter.item[i]);
    struct runner_params params = {.slots = 1, .context = (uint32_t)o->answer.context, .cache_type = answer_cache_wtype(o->answer.cache_type),
                                   .adapters = folders, .n_adapters = (uint32_t)o->adapter.n};
    enum rt_status st = plan ? runner_print_plan(&g->s, &o->session, &params, stdout, err) : runner_open(&g->s, &o->session, &params, &g->runner, err);
    if (!plan && st == RT_NO_MEMORY && g->s.dev)
        runner_print_plan(&g->s, &o->session, &params, stderr, NULL);
    free(folders);
    return st;
}

static enum rt_status run(void *state, const struct options *given, struct rt_error *err)
{
    struct generation *g = state;
    struct generate_options *o = &g->o;
    if (!o->session.plan)
        RT_TRY(check_options(o, err));
    RT_TRY(session_open_file(&g->s, &o->session, err));
    if (o->session.plan) {
        RT_TRY(session_open_device(&g->s, &o->session, err));
        return open_runner(g, true, err);
    }
    RT_TRY(session_need_tokenizer(&g->s, err));
    if (o->chat)
        RT_TRY(session_need_chat(&g->s, err));
    RT_TRY(answer_options_params(&o->answer, &g->params, err));
    g->params.ends = mosld_tokenizer_ends(g->s.tokenizer, &g->params.n_ends);
    g->params.logprobs = options_given(given, "logprobs");
    g->params.top_logprobs = (uint32_t)o->logprobs;
    RT_TRY(open_runner(g, false, err));
    g->params.context = runner_context(g->runner);
    g->adapter = o->adapter.n ? 0 : RUNNER_NO_ADAPTER;
    g->logits = malloc(runner_vocab(g->runner) * sizeof *g->logits);
    g->stop = &session_interrupted;
    g->wrap = (struct wrap){.to = stdout};
    if (!g->logits)
        return rt_fail(err, RT_NO_MEMORY, "no memory for the logits");
    RT_TRY(o->chat ? chat_run(g, err) : complete(g, err));
    RT_TRY(profiling_report(&g->s.profiling, NULL, err));
    return session_interrupted ? rt_fail(err, RT_INTERRUPTED, "interrupted") : RT_OK; /* what was said until then stands */
}

static void finish(void *state)
{
    struct generation *g = state;
    mosld_answer_destroy(&g->last);
    answer_options_finish(&g->o.answer);
    free(g->logits);
    runner_close(&g->runner);
    session_close(&g->s);
}

static int command(int argc, char **argv, const char *name, const char *usage, bool chat)
{
    struct generation g = {.o = {.session = {SESSION_DEFAULTS}, .answer = {ANSWER_DEFAULTS}, .chat = chat}};
    if (chat)
        g.o.answer.max_new_tokens = 1024;
    return session_main(&(struct session_command){.name = name,
                                                  .usage = usage,
                                                  .table = table,
                                                  .n = sizeof table / sizeof *table,
                                                  .values = &g.o,
                                                  .interruptible = true,
                                                  .run = run,
                                                  .finish = finish,
                                                  .state = &g},
                        argc, argv);
}

int cmd_generate(int argc, char **argv)
{
    return command(argc, argv, "generate", "mosld generate --model PATH [--adapter DIR] --prompt TEXT | --chat [options]", false);
}

int cmd_chat(int argc, char **argv)
{
    return command(argc, argv, "chat", "mosld chat --model PATH [--adapter [NAME=]DIR ...] [options]", true);
}
