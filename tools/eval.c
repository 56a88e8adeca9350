/* tools/eval.c - mosld eval: scores of a model, with or without an adapter, on tasks. */
#include "tools/commands.h"

#include "mosld/adapter/adapter_file.h"
#include "mosld/eval/score.h"
#include "mosld/io/file.h"
#include "mosld/io/json.h"
#include "tools/plan.h"
#include "tools/session.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct eval_options {
    struct session_options session;
    struct option_list task;
    int64_t limit, max_length, batch_tokens;
    int choice_format, prompt_format;
    char *out, *against;
};

static const char *const choice_formats[] = {"plain", "letter", NULL};
static const char *const prompt_formats[] = {"auto", "chat", "alpaca", "plain", NULL};

static const struct option table[] = {
    SESSION_OPTIONS(struct eval_options),
    PROFILING_OPTIONS(struct eval_options, session.profiling),
    {.name = "adapter",
     OPTION_STRING(struct eval_options, session.adapter),
     .value = "DIR",
     .help = "an adapter's folder"},
    {.name = "task",
     OPTION_STRINGS(struct eval_options, task),
     .value = "NAME=FILE",
     .section = "What is scored",
     .help = "a task file, or a folder with validation.jsonl or valid.jsonl; may be given again"},
    {.name = "limit",
     OPTION_INT(struct eval_options, limit, 0, 1 << 30),
     .help = "the first rows of each task alone; 0: all"},
    {.name = "choice_format",
     OPTION_CHOICE(struct eval_options, choice_format, choice_formats),
     .help = "score the choices' texts, or their letters"},
    {.name = "prompt_format",
     OPTION_CHOICE(struct eval_options, prompt_format, prompt_formats),
     .help = "of instructions and prompts"},
    {.name = "max_length",
     OPTION_INT(struct eval_options, max_length, 0, 1 << 20),
     .help = "tokens a row is cut to; 0: what the model takes"},
    {.name = "batch_tokens",
     OPTION_INT(struct eval_options, batch_tokens, 1, 1 << 20),
     .help = "tokens that go through the model at a time"},
    PLAN_OPTION(struct eval_options),
    {.name = "out",
     OPTION_STRING(struct eval_options, out),
     .value = "FILE",
     .section = "Results",
     .help = "write all of it, question by question, as JSON"},
    {.name = "against",
     OPTION_STRING(struct eval_options, against),
     .value = "FILE",
     .help = "another run's --out: count questions gained and lost"},
    {.name = "json",
     OPTION_BOOL(struct eval_options, session.json),
     .help = "print one JSON document instead of a table"},
};

struct eval {
    struct eval_options o;
    struct session s;
    struct mosld_task *tasks;
    struct mosld_score *scores;
    size_t n;
    cJSON *before;
    const char *current;
};

static enum rt_status load_tasks(struct eval *e, struct rt_error *err)
{
    e->tasks = calloc(e->o.task.n, sizeof *e->tasks);
    e->scores = calloc(e->o.task.n, sizeof *e->scores);
    if (!e->tasks || !e->scores)
        return rt_fail(err, RT_NO_MEMORY, "no memory for the tasks");
    uint32_t longest = mosld_model_file_config(e->s.file)->max_positions;
    struct mosld_task_params params = {
        .encoder = session_encoder(&e->s),
        .split = MOSLD_SPLIT_VALIDATION,
        .limit = (uint64_t)e->o.limit,
        .example = {MOSLD_EXAMPLE_DEFAULTS, .score_choices = true,
                    .choice_format = (enum mosld_choice_format)e->o.choice_format,
                    .prompt_format = (enum mosld_prompt_format)e->o.prompt_format,
                    .max_length = e->o.max_length ? (uint32_t)e->o.max_length : longest}};
    if (params.example.max_length > longest)
        return rt_fail(err, RT_USAGE, "max_length: %u is more than the model's %u", params.example.max_length, longest);
    for (size_t i = 0; i < e->o.task.n; i++) {
        struct mosld_task_spec spec;
        char text[512];
        enum rt_status st = mosld_task_spec_parse(e->o.task.item[i], &spec, err);
        if (st)
            return st;
        st = mosld_task_load(&spec, &params, &e->tasks[i], err);
        mosld_task_spec_finish(&spec);
        if (st)
            return st;
        e->n++;
        if (mosld_task_describe_losses(&e->tasks[i], params.example.max_length, text, sizeof text))
            fprintf(stderr, "%s\n", text);
    }
    return RT_OK;
}

static void on_progress(void *user, uint64_t done, uint64_t of)
{
    const struct eval *e = user;
    progress_line("%s: %llu of %llu rows", e->current, (unsigned long long)done, (unsigned long long)of);
}

static enum rt_status print_plan(struct eval *e, const struct mosld_pass_params *pass, uint32_t positions, FILE *to, struct rt_error *err)
{
    struct mosld_adapter_params adapter;
    struct plan plan = {.kind = PLAN_EVAL, .dev = e->s.dev, .model = e->o.session.model, .length = positions,
                        .request = {.file = e->s.file, .weights = e->o.session.weights - 1, .positions = positions, .pass = *pass}};
    if (e->o.session.adapter) {
        RT_TRY(mosld_adapter_read_params(e->o.session.adapter, &adapter, err));
        plan.request.adapter = &adapter;
    }
    return plan_print(&plan, e->o.session.json && e->o.session.plan, to, err);
}

/* Without data: every token of a pass is a target, and one row may fill it. */
static enum rt_status plan_without_tasks(struct eval *e, struct rt_error *err)
{
    uint32_t most = mosld_model_file_config(e->s.file)->max_positions, tokens = (uint32_t)e->o.batch_tokens;
    uint32_t length = e->o.max_length ? (uint32_t)e->o.max_length : tokens;
    length = length < most ? length : most;
    tokens = tokens < length ? length : tokens;
    RT_TRY(session_open_device(&e->s, &e->o.session, err));
    return print_plan(e, &(struct mosld_pass_params){.max_tokens = tokens, .max_targets = tokens}, length, stdout, err);
}

static enum rt_status score_all(struct eval *e, struct rt_error *err)
{
    struct mosld_pass_params pass = {0};
    uint32_t positions = 1, budget = (uint32_t)e->o.batch_tokens;
    for (size_t i = 0; i < e->n; i++) {
        enum rt_status st =
            mosld_score_size(&e->tasks[i].examples, 0, budget, &pass.max_tokens, &pass.max_targets, err);
        if (st)
            return st;
        if (e->tasks[i].examples.counts.longest > positions)
            positions = e->tasks[i].examples.counts.longest;
    }
    if (e->o.session.plan) {
        RT_TRY(session_open_device(&e->s, &e->o.session, err));
        return print_plan(e, &pass, positions, stdout, err);
    }
    enum rt_status st = session_open_pass(&e->s, &e->o.session, positions, &pass, err);
    if (st == RT_NO_MEMORY && e->s.dev)
        print_plan(e, &pass, positions, stderr, NULL);
    if (!st)
        fprintf(stderr, "%s on %s%s%s\n", e->o.session.model, rt_device_info(e->s.dev)->name,
                e->o.session.adapter ? ", adapter " : "", e->o.session.adapter ? e->o.session.adapter : "");
    for (size_t i = 0; i < e->n && !st; i++) {
        e->current = e->tasks[i].name;
        st = mosld_score_examples(e->s.pass, &e->tasks[i].examples, 0, budget, on_progress, e, &session_interrupted,
                                  &e->scores[i], err);
    }
    progress_line("%s", "");
    return st;
}

/* ---- another run's results ---- */

static const cJSON *task_before(const struct eval *e, const char *name)
{
    const cJSON *task, *tasks = json_find(e->before, "tasks");
    cJSON_ArrayForEach(task, tasks)
    {
        const char *n;
        if (cJSON_IsObject(task) && json_string(task, "name", e->o.against, &n, NULL) == RT_OK && strcmp(n, name) == 0)
            return task;
    }
    return NULL;
}

/* Each question of the file is [line, right by acc, right by acc_norm]. */
static bool compare(const struct eval *e, size_t i, struct mosld_score_change *change, double *acc_norm_before)
{
    const cJSON *task = task_before(e, e->tasks[i].name), *list = task ? json_find(task, "questions") : NULL, *item;
    int n = list && cJSON_IsArray(list) ? cJSON_GetArraySize(list) : 0;
    struct mosld_question_score *q = n ? calloc((size_t)n, sizeof *q) : NULL;
    uint64_t m = 0;
    if (!q || !e->scores[i].questions) {
        free(q);
        return false;
    }
    cJSON_ArrayForEach(item, list)
    {
        const cJSON *line = cJSON_GetArrayItem(item, 0), *acc = cJSON_GetArrayItem(item, 1),
                    *norm = cJSON_GetArrayItem(item, 2);
        if (cJSON_IsNumber(line) && cJSON_IsNumber(acc) && cJSON_IsNumber(norm))
            q[m++] = (struct mosld_question_score){
                .line = (uint32_t)line->valuedouble, .right = acc->valueint != 0, .right_norm = norm->valueint != 0};
    }
    *change = mosld_score_compare(&e->scores[i], q, m);
    free(q);
    return json_number(task, "acc_norm", e->o.against, 0, 1, acc_norm_before, NULL) == RT_OK;
}

static enum rt_status read_before(struct eval *e, struct rt_error *err)
{
    if (!e->o.against)
        return RT_OK;
    enum rt_status st = json_read_file(e->o.against, 1ull << 30, &e->before, err);
    if (!st && !cJSON_IsArray(json_find(e->before, "tasks")))
        st = rt_fail(err, RT_BAD_FILE, "%s: \"tasks\" is missing; --against takes what mosld eval --out wrote",
                     e->o.against);
    return st;
}

/* ---- results ---- */

static void add_finite(cJSON *json, const char *key, double value)
{
    cJSON_AddItemToObject(json, key, isfinite(value) ? cJSON_CreateNumber(value) : cJSON_CreateNull());
}

static double perplexity(double loss) { return exp(loss); }

static cJSON *task_json(const struct eval *e, size_t i, bool questions)
{
    const struct mosld_score *s = &e->scores[i];
    struct mosld_score_change change;
    double before;
    cJSON *json = cJSON_CreateObject();
    cJSON_AddStringToObject(json, "name", e->tasks[i].name);
    cJSON_AddStringToObject(json, "file", e->tasks[i].path);
    cJSON_AddNumberToObject(json, "rows", (double)s->rows);
    if (s->questions) {
        cJSON_AddNumberToObject(json, "acc", s->acc);
        cJSON_AddNumberToObject(json, "acc_stderr", s->acc_stderr);
        cJSON_AddNumberToObject(json, "acc_norm", s->acc_norm);
        cJSON_AddNumberToObject(json, "acc_norm_stderr", s->acc_norm_stderr);
    }
    add_finite(json, "loss", s->loss);
    add_finite(json, "perplexity", perplexity(s->loss));
    cJSON_AddNumberToObject(json, "target_tokens", (double)s->loss_targets);
    if (e->before && compare(e, i, &change, &before)) {
        cJSON_AddNumberToObject(json, "acc_norm_before", before);
        cJSON_AddNumberToObject(json, "gained", (double)change.gained);
        cJSON_AddNumberToObject(json, "lost", (double)change.lost);
    }
    cJSON *list = questions && s->questions ? cJSON_AddArrayToObject(json, "questions") : NULL;
    for (uint64_t q = 0; list && q < s->questions; q++) {
        const int triple[3] = {(int)s->question[q].line, s->question[q].right, s->question[q].right_norm};
        cJSON_AddItemToArray(list, cJSON_CreateIntArray(triple, 3));
    }
    return json;
}

static cJSON *results_json(const struct eval *e, bool questions)
{
    cJSON *json = cJSON_CreateObject();
    double sum = 0, sum_norm = 0;
    unsigned n = 0;
    cJSON_AddStringToObject(json, "model", e->o.session.model);
    if (e->o.session.adapter)
        cJSON_AddStringToObject(json, "adapter", e->o.session.adapter);
    cJSON_AddStringToObject(json, "device", rt_device_info(e->s.dev)->name);
    cJSON *tasks = cJSON_AddArrayToObject(json, "tasks");
    for (size_t i = 0; i < e->n; i++) {
        cJSON_AddItemToArray(tasks, task_json(e, i, questions));
        if (e->scores[i].questions) {
            sum += e->scores[i].acc;
            sum_norm += e->scores[i].acc_norm;
            n++;
        }
    }
    if (n) {
        cJSON_AddNumberToObject(json, "average_acc", sum / n);
        cJSON_AddNumberToObject(json, "average_acc_norm", sum_norm / n);
    }
    return json;
}

static void print_table(const struct eval *e)
{
    double sum = 0, sum_norm = 0;
    unsigned n = 0;
    printf("%-14s %5s  %-16s  %-16s  %7s  %10s\n", "task", "rows", "acc", "acc_norm", "loss", "perplexity");
    for (size_t i = 0; i < e->n; i++) {
        const struct mosld_score *s = &e->scores[i];
        struct mosld_score_change change;
        double before;
        char acc[32] = "-", norm[32] = "-";
        if (s->questions) {
            snprintf(acc, sizeof acc, "%.4f +- %.4f", s->acc, s->acc_stderr);
            snprintf(norm, sizeof norm, "%.4f +- %.4f", s->acc_norm, s->acc_norm_stderr);
            sum += s->acc;
            sum_norm += s->acc_norm;
            n++;
        }
        printf("%-14s %5llu  %-16s  %-16s  %7.4f  %10.3f\n", e->tasks[i].name, (unsigned long long)s->rows, acc, norm,
               s->loss, perplexity(s->loss));
        if (e->before && compare(e, i, &change, &before))
            printf("%38s  %.4f before, +%llu/-%llu questions\n", "", before, (unsigned long long)change.gained,
                   (unsigned long long)change.lost);
    }
    if (n > 1)
        printf("%-14s %5s  %-16.4f  %-16.4f\n", "average", "", sum / n, sum_norm / n);
}

static enum rt_status print_results(struct eval *e, struct rt_error *err)
{
    enum rt_status st = RT_OK;
    if (e->o.session.json) {
        cJSON *json = results_json(e, false);
        st = profiling_report(&e->s.profiling, json, err);
        char *text = json ? cJSON_Print(json) : NULL;
        if (text)
            puts(text);
        cJSON_free(text);
        cJSON_Delete(json);
    } else {
        print_table(e);
        fflush(stdout);
        st = profiling_report(&e->s.profiling, NULL, err);
    }
    if (st)
        return st;
    if (e->o.out) {
        cJSON *json = results_json(e, true);
        st = json_write_file(e->o.out, json, err);
        cJSON_Delete(json);
    }
    return st;
}

static enum rt_status run(void *state, const struct options *given, struct rt_error *err)
{
    struct eval *e = state;
    (void)given;
    if (!e->o.task.n && !e->o.session.plan)
        return rt_fail(err, RT_USAGE, "--task is missing: what is scored, NAME=FILE");
    RT_TRY(read_before(e, err));
    RT_TRY(session_open_file(&e->s, &e->o.session, err));
    if (!e->o.task.n)
        return plan_without_tasks(e, err);
    RT_TRY(load_tasks(e, err));
    RT_TRY(score_all(e, err));
    return e->o.session.plan ? RT_OK : print_results(e, err);
}

static void finish(void *state)
{
    struct eval *e = state;
    for (size_t i = 0; i < e->n; i++) {
        mosld_task_finish(&e->tasks[i]);
        mosld_score_finish(&e->scores[i]);
    }
    free(e->tasks);
    free(e->scores);
    cJSON_Delete(e->before);
    session_close(&e->s);
}

int cmd_eval(int argc, char **argv)
{
    struct eval e = {.o = {.session = {SESSION_DEFAULTS}, .batch_tokens = 1024}};
    return session_main(&(struct session_command){.name = "eval",
                                                  .usage = "mosld eval --model PATH [--adapter DIR] --task NAME=FILE ... [options]",
                                                  .table = table,
                                                  .n = sizeof table / sizeof *table,
                                                  .values = &e.o,
                                                  .interruptible = true,
                                                  .run = run,
                                                  .finish = finish,
                                                  .state = &e},
                        argc, argv);
}
