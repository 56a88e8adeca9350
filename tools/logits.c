/* tools/logits.c - mosld logits: a model's raw output, for checking it against others. */
#include "tools/commands.h"

#include "mosld/io/safetensors.h"
#include "tools/session.h"

#include <stdlib.h>
#include <string.h>

struct logits_options {
    struct session_options session;
    char *tokens, *text, *out;
};

static const struct option table[] = {
    SESSION_OPTIONS(struct logits_options),
    {.name = "adapter",
     OPTION_STRING(struct logits_options, session.adapter),
     .value = "DIR",
     .help = "an adapter's folder"},
    {.name = "tokens",
     OPTION_STRING(struct logits_options, tokens),
     .value = "IDS",
     .section = "Input and output",
     .help = "token ids, separated by commas or spaces"},
    {.name = "text", OPTION_STRING(struct logits_options, text), .value = "TEXT", .help = "text to tokenize instead"},
    {.name = "out",
     OPTION_STRING(struct logits_options, out),
     .value = "FILE",
     .required = true,
     .help = "safetensors: \"logits\" [T, V] F32 and \"tokens\" [T] I32"},
};

static enum rt_status read_input(struct session *s, const struct logits_options *o, int32_t **ids, size_t *n,
                                 struct rt_error *err)
{
    if (!o->tokens == !o->text)
        return rt_fail(err, RT_USAGE, "give --tokens IDS or --text TEXT");
    if (o->tokens) {
        RT_TRY(session_parse_ids("--tokens", o->tokens, ids, n, err));
        return *n ? RT_OK : rt_fail(err, RT_USAGE, "--tokens: give at least one token id");
    }
    enum rt_status st = session_need_tokenizer(s, err);
    return st ? st : mosld_tokenizer_encode(s->tokenizer, o->text, strlen(o->text), NULL, ids, n, err);
}

/* One sequence through the model; logits of all rows, a slice at a time. */
static enum rt_status compute(struct session *s, const int32_t *ids, uint32_t T, float *logits, struct rt_error *err)
{
    uint32_t *words = calloc(T, 7 * sizeof *words), V = s->model->config.vocab_size;
    if (!words)
        return rt_fail(err, RT_NO_MEMORY, "no memory for %u tokens", T);
    uint32_t *tokens = words, *pos = words + T, *rows = words + 2 * T, *seg = words + 3 * T;
    for (uint32_t t = 0; t < T; t++) {
        tokens[t] = (uint32_t)ids[t];
        pos[t] = rows[t] = t;
        seg[4 * t + 3] = T;
    }
    struct mosld_tokens batch = {.T = T, .tokens = tokens, .pos = pos, .seg = seg, .target_row = rows, .target = rows};
    enum rt_status st = mosld_forward(s->pass, &batch, false, err);
    uint32_t slice = mosld_pass_slice(s->pass);
    for (uint32_t t = 0; t < T && !st; t += slice)
        st = mosld_logits(s->pass, rows + t, T - t < slice ? T - t : slice, logits + (size_t)t * V, err);
    free(words);
    return st;
}

struct logits_command {
    struct logits_options o;
    struct session s;
};

static enum rt_status run(void *state, const struct options *given, struct rt_error *err)
{
    struct session *s = &((struct logits_command *)state)->s;
    const struct logits_options *o = &((struct logits_command *)state)->o;
    (void)given;
    int32_t *ids = NULL;
    size_t n = 0;
    enum rt_status st = session_open_file(s, &o->session, err);
    if (!st)
        st = read_input(s, o, &ids, &n, err);
    uint32_t V = st ? 0 : mosld_model_file_config(s->file)->vocab_size,
             most = st ? 0 : mosld_model_file_config(s->file)->max_positions;
    if (!st && n > most)
        st = rt_fail(err, RT_USAGE, "%zu tokens are more than the model's %u positions", n, most);
    for (size_t i = 0; i < n && !st; i++)
        if ((uint32_t)ids[i] >= V)
            st = rt_fail(err, RT_USAGE, "token %d is outside the model's vocabulary of %u", ids[i], V);
    float *logits = st ? NULL : malloc(n * V * sizeof *logits);
    if (!st && !logits)
        st = rt_fail(err, RT_NO_MEMORY, "no memory for %zu x %u logits", n, V);
    if (!st)
        st = session_open_pass(s, &o->session, (uint32_t)n,
                               &(struct mosld_pass_params){.max_tokens = (uint32_t)n, .max_targets = (uint32_t)n}, err);
    if (!st)
        st = compute(s, ids, (uint32_t)n, logits, err);
    const struct safetensors_entry entries[] = {
        {.name = "logits", .dtype = DTYPE_F32, .rank = 2, .shape = {n, V}, .data = logits},
        {.name = "tokens", .dtype = DTYPE_I32, .rank = 1, .shape = {n}, .data = ids}};
    if (!st)
        st = safetensors_write(o->out, entries, 2, NULL, 0, err);
    free(logits);
    free(ids);
    return st;
}

static void finish(void *state) { session_close(&((struct logits_command *)state)->s); }

int cmd_logits(int argc, char **argv)
{
    struct logits_command c = {.o = {.session = {SESSION_DEFAULTS}}};
    return session_main(&(struct session_command){.name = "logits",
                                                  .usage = "mosld logits --model PATH [--adapter DIR] --tokens IDS | --text TEXT --out FILE",
                                                  .table = table,
                                                  .n = sizeof table / sizeof *table,
                                                  .values = &c.o,
                                                  .run = run,
                                                  .finish = finish,
                                                  .state = &c},
                        argc, argv);
}
