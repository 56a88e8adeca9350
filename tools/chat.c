/* tools/chat.c - a conversation: at a terminal with commands and line editing, through a pipe a line for each message. */
#include "mosld/io/file.h"
#include "mosld/io/json.h"
#include "tools/generate.h"
#include "tools/line.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct conversation {
    struct mosld_chat_message *messages; /* contents are owned */
    size_t n;
    struct generation *g;
    bool terminal; /* somebody sits there: commands work, and what goes wrong does not end it */
    bool leaves;
};

/* Ctrl-C at a terminal ends an answer; at the prompt, twice in a row, the program. */
static volatile sig_atomic_t interrupted;
static void on_interrupt(int signal)
{
    (void)signal;
    interrupted = 1;
}

/* ---- messages ---- */

static void forget(struct conversation *c, size_t from)
{
    while (c->n > from)
        free((char *)c->messages[--c->n].content);
}

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

/* The first n messages as tokens, with the beginning of an answer. */
static enum rt_status encode(const struct conversation *c, size_t n_messages, bool prompt, int32_t **ids, size_t *n, struct rt_error *err)
{
    struct generation *g = c->g;
    struct mosld_chat_text text;
    uint8_t *loss = NULL;
    *ids = NULL;
    RT_TRY(mosld_chat_render(&g->s.chat, c->messages, n_messages, &(struct mosld_chat_params){.add_generation_prompt = prompt}, &text, err));
    enum rt_status st = mosld_chat_encode(g->s.tokenizer, &text, ids, &loss, n, err);
    mosld_chat_text_finish(&text);
    free(loss);
    return st;
}

static bool has_system(const struct conversation *c) { return c->n && strcmp(c->messages[0].role, "system") == 0; }

/* With --context-shift: tokens of the system prompt, which a shift keeps. */
static uint32_t tokens_to_keep(const struct conversation *c, const int32_t *ids, size_t n)
{
    int32_t *system = NULL;
    size_t m = 0, same = 0;
    if (has_system(c) && encode(c, 1, false, &system, &m, NULL) == RT_OK)
        while (same < m && same < n && system[same] == ids[same])
            same++;
    free(system);
    return same > ANSWER_KEEP && same < c->g->params.context / 2 ? (uint32_t)same : ANSWER_KEEP;
}

/* Drops the oldest messages behind the system prompt until half of the context is free, or none but the last is left. */
static enum rt_status drop_oldest(struct conversation *c, int32_t **ids, size_t *n, struct rt_error *err)
{
    size_t first = has_system(c), dropped = 0;
    while (*n > c->g->params.context / 2 && c->n > first + 1) {
        size_t m = c->n > first + 2 ? 2 : 1; /* a question with its answer */
        for (size_t i = first; i < first + m; i++)
            free((char *)c->messages[i].content);
        memmove(c->messages + first, c->messages + first + m, (c->n - first - m) * sizeof *c->messages);
        c->n -= m;
        dropped += m;
        free(*ids);
        RT_TRY(encode(c, c->n, true, ids, n, err));
    }
    if (dropped)
        fprintf(stderr, "(the context of %u tokens is full: the oldest %zu messages are dropped)\n", c->g->params.context, dropped);
    return RT_OK;
}

/* Renders the whole conversation: what the template does to earlier turns is then never in doubt. What of it the cache has is not run
 * again. */
static enum rt_status answer(struct conversation *c, struct rt_error *err)
{
    struct generation *g = c->g;
    int32_t *ids = NULL;
    size_t n;
    enum rt_status st = encode(c, c->n, true, &ids, &n, err);
    if (!st && g->params.shift && n > g->params.context)
        st = drop_oldest(c, &ids, &n, err);
    if (!st && g->params.shift)
        g->params.keep = tokens_to_keep(c, ids, n);
    if (!st)
        st = generate_answer(g, ids, n, true, err);
    free(ids);
    return st ? st : say(c, "assistant", g->last->text, err);
}

/* ---- commands ---- */

static const char *name_of(const char *adapter, char name[static 64])
{
    const char *equals = strchr(adapter, '='), *slash = strrchr(adapter, '/');
    const char *from = equals ? adapter : slash && slash[1] ? slash + 1 : adapter;
    snprintf(name, 64, "%.*s", equals ? (int)(equals - adapter < 63 ? equals - adapter : 63) : 63, from);
    return name;
}

static void list_adapters(const struct conversation *c)
{
    const struct option_list *list = &c->g->o.adapter;
    char name[64];
    fprintf(stderr, "%c none\n", c->g->adapter == RUNNER_NO_ADAPTER ? '*' : ' ');
    for (size_t i = 0; i < list->n; i++)
        fprintf(stderr, "%c %s\n", c->g->adapter == (int)i ? '*' : ' ', name_of(list->item[i], name));
}

/* A name of those loaded, none, or another folder, which is loaded then. */
static enum rt_status choose_adapter(struct conversation *c, const char *which, struct rt_error *err)
{
    struct option_list *list = &c->g->o.adapter;
    char name[64];
    if (!*which) {
        list_adapters(c);
        return RT_OK;
    }
    if (strcmp(which, "none") == 0) {
        c->g->adapter = RUNNER_NO_ADAPTER;
        return RT_OK;
    }
    for (size_t i = 0; i < list->n; i++)
        if (strcmp(which, name_of(list->item[i], name)) == 0) {
            c->g->adapter = (int)i;
            return RT_OK;
        }
    const char *folder = session_adapter_folder(which);
    if (!file_is_folder(folder))
        return rt_fail(err, RT_USAGE, "there is no adapter %.200s: /adapter lists them, /adapter [NAME=]DIR loads one", which);
    int number;
    char **item = realloc(list->item, (list->n + 1) * sizeof *item), *copy = strdup(which);
    if (item)
        list->item = item;
    if (!item || !copy) {
        free(copy);
        return rt_fail(err, RT_NO_MEMORY, "no memory for an adapter");
    }
    enum rt_status st = runner_add_adapter(c->g->runner, folder, &number, err);
    if (st) {
        free(copy);
        return st;
    }
    list->item[list->n++] = copy;
    c->g->adapter = number;
    return RT_OK;
}

static enum rt_status set_system(struct conversation *c, const char *text, struct rt_error *err)
{
    bool has = c->n && strcmp(c->messages[0].role, "system") == 0;
    if (!*text) {
        fprintf(stderr, "%s\n", has ? c->messages[0].content : "(none)");
        return RT_OK;
    }
    forget(c, 0);
    fprintf(stderr, "a new conversation\n");
    return say(c, "system", text, err);
}

static enum rt_status reset(struct conversation *c, const char *unused, struct rt_error *err)
{
    (void)unused;
    (void)err;
    forget(c, c->n && strcmp(c->messages[0].role, "system") == 0);
    fprintf(stderr, "a new conversation\n");
    return RT_OK;
}

/* The messages in the form in which mosld train takes them. */
static enum rt_status save(struct conversation *c, const char *path, struct rt_error *err)
{
    if (!*path)
        return rt_fail(err, RT_USAGE, "/save FILE: name a file");
    cJSON *json = cJSON_CreateObject(), *list = cJSON_AddArrayToObject(json, "messages");
    for (size_t i = 0; i < c->n; i++) {
        cJSON *m = cJSON_CreateObject();
        cJSON_AddStringToObject(m, "role", c->messages[i].role);
        cJSON_AddStringToObject(m, "content", c->messages[i].content);
        cJSON_AddItemToArray(list, m);
    }
    char *text = cJSON_PrintUnformatted(json);
    size_t n = text ? strlen(text) : 0;
    if (text)
        text[n] = '\n'; /* in place of the NUL: a line of JSON Lines */
    enum rt_status st = text ? file_write_atomic(path, text, n + 1, err) : rt_fail(err, RT_NO_MEMORY, "no memory to save");
    cJSON_free(text);
    cJSON_Delete(json);
    if (!st)
        fprintf(stderr, "%zu messages in %s\n", c->n, path);
    return st;
}

static enum rt_status stats(struct conversation *c, const char *unused, struct rt_error *err)
{
    (void)unused;
    (void)err;
    c->g->o.verbose = !c->g->o.verbose;
    fprintf(stderr, "speeds are %s\n", c->g->o.verbose ? "told after each answer" : "not told");
    if (c->g->last)
        fprintf(stderr, "%u of %u tokens of the context are used\n", c->g->last->n_ids, c->g->params.context);
    return RT_OK;
}

static enum rt_status retry(struct conversation *c, const char *unused, struct rt_error *err)
{
    (void)unused;
    if (!c->n || strcmp(c->messages[c->n - 1].role, "assistant") != 0)
        return rt_fail(err, RT_USAGE, "/retry: there is no answer yet");
    forget(c, c->n - 1);
    c->g->params.sampling.seed++;
    enum rt_status st = answer(c, err);
    putchar('\n');
    fflush(stdout);
    if (!st)
        generate_tell_speeds(c->g);
    return st;
}

static enum rt_status quit(struct conversation *c, const char *unused, struct rt_error *err)
{
    (void)unused;
    (void)err;
    c->leaves = true;
    return RT_OK;
}

static enum rt_status help(struct conversation *c, const char *unused, struct rt_error *err);

static const struct {
    const char *name, *argument, *text;
    enum rt_status (*run)(struct conversation *c, const char *argument, struct rt_error *err);
} commands[] = {
    {"help", "", "this list", help},
    {"adapter", "NAME", "change to an adapter, none, or a folder; alone: list them", choose_adapter},
    {"system", "TEXT", "a new conversation with this prompt; alone: show it", set_system},
    {"retry", "", "another answer (with a temperature above 0)", retry},
    {"reset", "", "a new conversation", reset},
    {"save", "FILE", "write the conversation, as mosld train takes it", save},
    {"stats", "", "tell tokens/s after each answer, or stop telling them", stats},
    {"quit", "", "leave (so do Ctrl-D, and Ctrl-C twice)", quit},
};
enum { COMMANDS = sizeof commands / sizeof *commands };

static enum rt_status help(struct conversation *c, const char *unused, struct rt_error *err)
{
    (void)c;
    (void)unused;
    (void)err;
    for (size_t i = 0; i < COMMANDS; i++)
        fprintf(stderr, "  /%-8s%-6s%s\n", commands[i].name, commands[i].argument, commands[i].text);
    fprintf(stderr, "Ctrl-C stops an answer. A message that begins with / is written //.\n");
    return RT_OK;
}

static enum rt_status command(struct conversation *c, const char *line, struct rt_error *err)
{
    size_t n = strcspn(line, " \t");
    const char *argument = line + n + strspn(line + n, " \t");
    for (size_t i = 0; i < COMMANDS; i++)
        if (strlen(commands[i].name) == n && memcmp(commands[i].name, line, n) == 0)
            return commands[i].run(c, argument, err);
    return rt_fail(err, RT_USAGE, "there is no command /%.*s; /help lists them", (int)(n < 40 ? n : 40), line);
}

/* ---- turns ---- */

static enum rt_status turn(struct conversation *c, const char *said, cJSON *answers, struct rt_error *err)
{
    enum rt_status st = say(c, "user", said, err), asked = st;
    if (!st)
        st = answer(c, err);
    if (st)
        forget(c, asked ? c->n : c->n - 1);
    else if (c->g->o.session.json)
        generate_print_json(c->g, answers);
    else {
        putchar('\n');
        fflush(stdout); /* who talks to it through a pipe waits for this */
    }
    if (!st)
        generate_tell_speeds(c->g);
    return st;
}

/* A line at the terminal. What is wrong with it is said, and does not end the conversation. */
static enum rt_status handle(struct conversation *c, const char *line, struct rt_error *err)
{
    bool is_command = line[0] == '/' && line[1] != '/';
    interrupted = 0;
    enum rt_status st = is_command ? command(c, line + 1, err) : turn(c, line[0] == '/' ? line + 1 : line, NULL, err);
    if (st == RT_USAGE || st == RT_BAD_FILE || (st == RT_FAILED && is_command)) {
        fprintf(stderr, "%s\n", err->text);
        st = RT_OK;
    }
    if (interrupted && !is_command)
        fprintf(stderr, "(stopped)\n");
    else if (!is_command && !st && c->g->last && c->g->last->stop == MOSLD_ANSWER_CONTEXT)
        fprintf(stderr, "(the context of %u tokens is full: /reset begins anew; --max-context is longer, --context-shift goes on)\n", c->g->params.context);
    interrupted = 0;
    return st;
}

static char *history_file(void)
{
    const char *state = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
    char *folder = NULL, *path = NULL;
    if (state && *state == '/')
        folder = file_join(state, "mosld");
    else if (home && *home)
        folder = file_join(home, ".local/state/mosld");
    if (folder && file_make_folders(folder, NULL) == RT_OK)
        path = file_join(folder, "chat_history");
    free(folder);
    return path;
}

static enum rt_status at_terminal(struct conversation *c, struct rt_error *err)
{
    char *history = history_file();
    struct line_reader *reader = line_open("> ", history, &interrupted);
    struct sigaction action = {.sa_handler = on_interrupt}, before;
    bool once = false; /* Ctrl-C was the last thing */
    enum rt_status st = reader ? RT_OK : rt_fail(err, RT_NO_MEMORY, "no memory to read what is said");
    sigaction(SIGINT, &action, &before);
    c->g->stop = &interrupted;
    fprintf(stderr, "%s; /help lists the commands\n", c->g->o.session.model);
    runner_tell_context(c->g->runner, stderr);
    while (!st && !c->leaves && !session_interrupted) {
        interrupted = 0;
        const char *line = line_read(reader);
        if (!line && interrupted && !once) {
            fprintf(stderr, "\nCtrl-C again, or /quit, leaves\n");
            once = true;
            continue;
        }
        if (!line)
            break;
        once = false;
        if (*line)
            st = handle(c, line, err);
    }
    if (!c->leaves)
        fputc('\n', stderr);
    sigaction(SIGINT, &before, NULL);
    line_close(&reader);
    free(history);
    return st;
}

static enum rt_status through_pipe(struct conversation *c, struct rt_error *err)
{
    struct line_reader *reader = line_open("", NULL, &session_interrupted);
    cJSON *answers = c->g->o.session.json ? cJSON_CreateArray() : NULL; /* one document, whatever is said */
    enum rt_status st = reader ? RT_OK : rt_fail(err, RT_NO_MEMORY, "no memory to read what is said");
    const char *line;
    while (!st && !session_interrupted && (line = line_read(reader)))
        if (*line)
            st = turn(c, line, answers, err);
    char *text = answers && !st ? cJSON_PrintUnformatted(answers) : NULL;
    if (text)
        puts(text);
    cJSON_free(text);
    cJSON_Delete(answers);
    line_close(&reader);
    return st;
}

enum rt_status chat_run(struct generation *g, struct rt_error *err)
{
    struct conversation c = {.g = g, .terminal = !g->o.prompt && !g->o.session.json && isatty(STDIN_FILENO) && isatty(STDERR_FILENO)};
    g->colour = c.terminal;
    g->wrap.width = c.terminal ? wrap_width(stdout) : 0;
    enum rt_status st = g->o.system ? say(&c, "system", g->o.system, err) : RT_OK;
    if (!st)
        st = g->o.prompt ? turn(&c, g->o.prompt, NULL, err) : c.terminal ? at_terminal(&c, err) : through_pipe(&c, err);
    forget(&c, 0);
    free(c.messages);
    return st;
}
