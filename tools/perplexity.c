/* tools/perplexity.c - mosld perplexity: how well a model foresees a text, in windows of the context. */
#include "tools/commands.h"

#include "mosld/eval/score.h"
#include "mosld/io/file.h"
#include "mosld/io/json.h"
#include "tools/answer_options.h"
#include "tools/session.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct perplexity_options {
    struct session_options session;
    char *text;
    int64_t context;
    int cache_type; /* 0: no cache; else 1 + index into answer_cache_types */
};
static const char *const cache_types[] = {"none", "f16", "f32", "q8_0", NULL};

static const struct option table[] = {
    SESSION_OPTIONS(struct perplexity_options),
    {.name = "adapter",
     OPTION_STRING(struct perplexity_options, session.adapter),
     .value = "DIR",
     .help = "an adapter's folder"},
    {.name = "text",
     OPTION_STRING(struct perplexity_options, text),
     .value = "FILE",
     .required = true,
     .section = "What is measured",
     .help = "a file of text, UTF-8"},
    {.name = "context",
     OPTION_INT(struct perplexity_options, context, 2, 1 << 22),
     .help = "tokens of a window; windows do not overlap"},
    {.name = "cache_type",
     OPTION_CHOICE(struct perplexity_options, cache_type, cache_types),
     .help = "attend over keys and values as generation keeps them in its cache"},
    {.name = "json", OPTION_BOOL(struct perplexity_options, session.json), .help = "print one JSON document"},
};

/* Windows of the text as plain rows, all of whose tokens but the first are targets. */
static enum rt_status cut_windows(const struct session *s, const char *path, uint32_t window,
                                  struct mosld_examples *out, struct rt_error *err)
{
    char *text = NULL;
    size_t size, n;
    int32_t *ids = NULL;
    enum rt_status st = file_read(path, 1ull << 30, &text, &size, err);
    if (!st)
        st = mosld_tokenizer_encode(s->tokenizer, text, size, NULL, &ids, &n, err);
    struct mosld_encoder encoder = session_encoder(s);
    for (size_t first = 0; !st && first + 1 < n; first += window) {
        struct mosld_record record = {.kind = MOSLD_RECORD_TOKENS,
                                      .file = path,
                                      .line = 1 + first / window,
                                      .ids = ids + first,
                                      .n_ids = n - first < window ? n - first : window};
        if (record.n_ids > 1)
            st = mosld_examples_add(out, &encoder, mosld_example_options(.max_length = window), &record, err);
    }
    if (!st && out->n == 0)
        st = rt_fail(err, RT_BAD_FILE, "%s: is less than two tokens: there is nothing to foresee", path);
    free(text);
    free(ids);
    return st;
}

/* The same loss, each window through the cache in one piece. */
static enum rt_status score_cached(struct session *s, const struct mosld_examples *windows, struct mosld_score *out, struct rt_error *err)
{
    double sum = 0;
    uint32_t most = s->pass->params.max_tokens;
    uint32_t *rows = calloc(most, sizeof *rows), (*losses)[2] = calloc(most, sizeof *losses);
    enum rt_status st = rows && losses ? RT_OK : rt_fail(err, RT_NO_MEMORY, "no memory for a window's losses");
    for (uint32_t t = 0; !st && t < most; t++)
        rows[t] = t;
    for (size_t i = 0; !st && i < windows->n && !session_interrupted; i++) {
        const int32_t *ids = windows->tokens + windows->example[i].first;
        uint32_t T = windows->example[i].n_tokens, n = T - 1;
        progress_line("window %zu of %zu", i, windows->n);
        s->pass->cached = 0;
        s->pass->n_targets = n;
        st = mosld_forward_cached(s->pass, (const uint32_t *)ids, T, err);
        if (!st)
            st = rt_upload(s->dev, s->pass->target_row, 0, rows, 4ull * n, err);
        if (!st)
            st = rt_upload(s->dev, s->pass->target, 0, ids + 1, 4ull * n, err);
        if (!st)
            st = mosld_loss(s->pass, 0, err);
        if (!st)
            st = rt_download(s->dev, s->pass->loss, 0, losses, 8ull * n, err);
        for (uint32_t t = 0; !st && t < n; t++) {
            float loss;
            memcpy(&loss, &losses[t][0], sizeof loss);
            sum += loss;
        }
        out->loss_targets += n;
    }
    out->loss = out->loss_targets ? sum / (double)out->loss_targets : 0;
    free(rows);
    free(losses);
    return st ? st : session_interrupted ? rt_fail(err, RT_INTERRUPTED, "interrupted") : RT_OK;
}

static void on_progress(void *user, uint64_t done, uint64_t of)
{
    (void)user;
    progress_line("window %llu of %llu", (unsigned long long)done, (unsigned long long)of);
}

struct perplexity_command {
    struct perplexity_options o;
    struct session s;
};

static enum rt_status run(void *state, const struct options *given, struct rt_error *err)
{
    struct session *s = &((struct perplexity_command *)state)->s;
    const struct perplexity_options *o = &((struct perplexity_command *)state)->o;
    (void)given;
    struct mosld_examples windows = {0};
    struct mosld_score score = {0};
    struct mosld_pass_params pass = {0};
    enum rt_status st = session_open_file(s, &o->session, err);
    if (!st)
        st = session_need_tokenizer(s, err);
    if (st)
        return st;
    uint32_t most = mosld_model_file_config(s->file)->max_positions,
             window = o->context < most ? (uint32_t)o->context : most;
    st = cut_windows(s, o->text, window, &windows, err);
    if (!st)
        st = mosld_score_size(&windows, 0, window, &pass.max_tokens, &pass.max_targets, err);
    if (!st && o->cache_type) {
        pass.cache_tokens = window;
        pass.cache_type = answer_cache_wtype(o->cache_type - 1);
    }
    if (!st)
        st = session_open_pass(s, &o->session, window, &pass, err);
    if (!st && o->cache_type)
        st = score_cached(s, &windows, &score, err);
    else if (!st)
        st = mosld_score_examples(s->pass, &windows, 0, window, on_progress, NULL, &session_interrupted, &score, err);
    progress_line("%s", "");
    if (!st && o->session.json)
        printf("{\"perplexity\": %.8g, \"loss\": %.8g, \"tokens\": %llu, \"context\": %u}\n", exp(score.loss),
               score.loss, (unsigned long long)score.loss_targets, window);
    else if (!st)
        printf("perplexity %.4f (loss %.6f over %llu tokens, windows of %u)\n", exp(score.loss), score.loss,
               (unsigned long long)score.loss_targets, window);
    mosld_score_finish(&score);
    mosld_examples_finish(&windows);
    return st;
}

static void finish(void *state) { session_close(&((struct perplexity_command *)state)->s); }

int cmd_perplexity(int argc, char **argv)
{
    struct perplexity_command c = {.o = {.session = {SESSION_DEFAULTS}, .context = 512}};
    return session_main(&(struct session_command){.name = "perplexity",
                                                  .usage = "mosld perplexity --model PATH [--adapter DIR] --text FILE [options]",
                                                  .table = table,
                                                  .n = sizeof table / sizeof *table,
                                                  .values = &c.o,
                                                  .interruptible = true,
                                                  .run = run,
                                                  .finish = finish,
                                                  .state = &c},
                        argc, argv);
}
