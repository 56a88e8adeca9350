/* tools/plan.c - see plan.h. */
#include "tools/plan.h"

#include "mosld/generate/engine.h"

#include "mosld/io/json.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define MIB 1048576.0
enum { LEAST_LENGTH = 128, MOST_ROWS = 1 << 16 }; /* shorter rows are not worth advising */

/* ---- other plans ---- */

static bool lay_out(const struct plan *p, struct mosld_memory *memory) { return mosld_memory_plan(p->dev, &p->request, memory, NULL) == RT_OK; }

static bool fits(const struct plan *p, struct mosld_memory *memory)
{
    return lay_out(p, memory) && mosld_memory_total(memory) <= rt_device_info(p->dev)->limits.memory;
}

static uint64_t least64(uint64_t a, uint64_t b) { return a < b ? a : b; }
static uint32_t tokens_of(uint64_t rows, uint64_t length) { return rows * length > UINT32_MAX ? UINT32_MAX : (uint32_t)(rows * length); }

/* Training: what the rows really have, where that is known, is a share of rows x length, which is taken to stay. */
static struct plan with_rows(const struct plan *p, uint32_t rows)
{
    struct plan q = *p;
    struct mosld_pass_params *pass = &q.request.pass;
    pass->max_tokens = (uint32_t)fmin(ceil((double)p->request.pass.max_tokens * rows / p->rows), UINT32_MAX);
    pass->max_targets = (uint32_t)fmin(ceil((double)p->request.pass.max_targets * rows / p->rows), UINT32_MAX);
    q.rows = rows;
    return q;
}

static uint32_t least(uint32_t a, uint32_t b) { return a < b ? a : b; }

/* Generation: blocks of the cache as the runner takes them: for all sequences, or as many as fit, but enough for one. */
static void fit_blocks(struct plan *p)
{
    struct mosld_pass_params *pass = &p->request.pass;
    const struct mosld_config *c = mosld_model_file_config(p->request.file);
    const struct rt_limits *limits = &rt_device_info(p->dev)->limits;
    uint64_t layer = 4ull * KV_BLOCK * op_kv_row_words(pass->cache_type, c->num_kv_heads, c->head_dim);
    uint32_t one = mosld_engine_slot_blocks(c, p->length, pass->max_tokens);
    uint64_t all = (uint64_t)one * (pass->slots ? pass->slots : 1), room = limits->max_range / layer;
    struct mosld_memory m;
    pass->cache_blocks = one;
    if (!lay_out(p, &m))
        return;
    uint64_t rest = mosld_memory_total(&m) - m.cache;
    room = limits->memory < rest ? 0 : least64(room, (limits->memory - rest) / (layer * c->num_layers));
    pass->cache_blocks = (uint32_t)(all <= room ? all : room > one ? room : one);
}

static struct plan with_length(const struct plan *p, uint32_t length)
{
    struct plan q = *p;
    struct mosld_pass_params *pass = &q.request.pass;
    q.length = length;
    q.request.positions = length;
    if (p->kind == PLAN_TRAIN) {
        pass->max_tokens = least(pass->max_tokens, tokens_of(p->rows, length));
        pass->max_targets = least(pass->max_targets, pass->max_tokens);
    } else if (p->kind == PLAN_GENERATE) {
        pass->max_tokens = least(pass->max_tokens, length);
        pass->cache_tokens = length;
        fit_blocks(&q);
    }
    return q;
}

static struct plan with_tokens(const struct plan *p, uint32_t tokens) /* PLAN_EVAL */
{
    struct plan q = *p;
    q.request.pass.max_tokens = tokens;
    q.request.pass.max_targets = least(p->request.pass.max_targets, tokens);
    return q;
}

/* The largest value in [low, high] of which the plan fits; 0: none. */
static uint32_t largest(const struct plan *p, struct plan (*with)(const struct plan *, uint32_t), uint32_t low, uint32_t high)
{
    struct mosld_memory m;
    uint32_t found = 0;
    while (low <= high && high) {
        uint32_t middle = low + (high - low) / 2;
        struct plan q = with(p, middle);
        if (fits(&q, &m)) {
            found = middle;
            low = middle + 1;
        } else
            high = middle - 1;
    }
    return found;
}

/* ---- what to lower ---- */

struct advice {
    char options[200];
    double mib;
};

static void add(struct advice *list, unsigned *n, const struct plan *q, const char *options)
{
    struct mosld_memory m;
    if (!fits(q, &m))
        return;
    snprintf(list[*n].options, sizeof list[*n].options, "%s", options);
    list[(*n)++].mib = (double)mosld_memory_total(&m) / MIB;
}

static const struct {
    enum op_wtype type;
    const char *name;
} types[] = {{OP_W_F16, "f16"}, {OP_W_Q8_0, "q8_0"}, {OP_W_Q4_0, "q4_0"}};
enum { TYPES = sizeof types / sizeof *types };

/* Weights of another type, where those take less. */
static bool with_type(const struct plan *p, int i, struct plan *q)
{
    struct mosld_memory now, then;
    *q = *p;
    q->request.weights = types[i].type;
    if (p->kind == PLAN_GENERATE)
        fit_blocks(q);
    return lay_out(p, &now) && lay_out(q, &then) && then.weights < now.weights;
}

/* "--per-device-train-batch-size 2 --gradient-accumulation-steps 4" */
static void describe_rows(const struct plan *p, uint32_t rows, char *out, size_t size)
{
    uint64_t wanted = (uint64_t)p->rows * p->accumulation;
    snprintf(out, size, "--per-device-train-batch-size %u --gradient-accumulation-steps %llu", rows, (unsigned long long)((wanted + rows - 1) / rows));
}

/* One option alone. */
static unsigned advise_alone(const struct plan *p, struct advice *list)
{
    unsigned n = 0;
    char text[160];
    struct plan q = *p;
    static const char *const lengths[] = {"--max-length", "--max-context", "--max-length"};
    if (p->kind == PLAN_TRAIN && p->request.checkpointing == MOSLD_CHECKPOINT_FALSE) {
        q.request.checkpointing = MOSLD_CHECKPOINT_AUTO;
        add(list, &n, &q, "--gradient-checkpointing auto");
    }
    uint32_t rows = p->kind == PLAN_TRAIN && p->rows > 1 ? largest(p, with_rows, 1, p->rows - 1) : 0;
    if (rows) {
        q = with_rows(p, rows);
        describe_rows(p, rows, text, sizeof text);
        add(list, &n, &q, text);
    }
    uint32_t tokens = p->kind == PLAN_EVAL && p->request.pass.max_tokens > p->length ? largest(p, with_tokens, p->length, p->request.pass.max_tokens - 1) : 0;
    if (tokens) {
        q = with_tokens(p, tokens);
        snprintf(text, sizeof text, "--batch-tokens %u", tokens);
        add(list, &n, &q, text);
    }
    uint32_t length = p->kind != PLAN_EVAL && p->length > LEAST_LENGTH ? largest(p, with_length, LEAST_LENGTH, p->length - 1) : 0;
    if (length) {
        q = with_length(p, length);
        snprintf(text, sizeof text, "%s %u", lengths[p->kind], length);
        add(list, &n, &q, text);
    }
    if (p->kind == PLAN_GENERATE && p->request.pass.cache_type != OP_W_Q8_0 && op_kv_suits(OP_W_Q8_0, mosld_model_file_config(p->request.file)->head_dim)) {
        q = *p;
        q.request.pass.cache_type = OP_W_Q8_0;
        fit_blocks(&q);
        add(list, &n, &q, "--cache-type q8_0");
    }
    for (int i = 0; i < TYPES; i++)
        if (with_type(p, i, &q)) {
            unsigned before = n;
            snprintf(text, sizeof text, "--weights %s", types[i].name);
            add(list, &n, &q, text);
            if (n > before) /* the most precise that fits */
                break;
        }
    return n;
}

/* All of them together, as little as it takes: weights last. False: nothing fits. */
static bool advise_together(const struct plan *p, struct advice *out)
{
    char rows[160];
    struct plan low = p->kind == PLAN_TRAIN ? with_rows(p, 1) : *p;
    unsigned n = 0;
    if (p->kind == PLAN_TRAIN && low.request.checkpointing == MOSLD_CHECKPOINT_FALSE)
        low.request.checkpointing = MOSLD_CHECKPOINT_AUTO;
    if (p->kind == PLAN_TRAIN && p->rows > 1)
        describe_rows(p, 1, rows, sizeof rows);
    else
        rows[0] = 0;
    for (int i = -1; i < TYPES && !n; i++) {
        struct plan q = low;
        if (i >= 0 && !with_type(&low, i, &q))
            continue;
        uint32_t length = largest(&q, with_length, least(p->length, LEAST_LENGTH), p->length);
        if (!length)
            continue;
        char text[400];
        snprintf(text, sizeof text, "%s%s%s%s%s", low.request.checkpointing != p->request.checkpointing ? "--gradient-checkpointing auto " : "", rows,
                 rows[0] ? " " : "", i >= 0 ? "--weights " : "", i >= 0 ? types[i].name : "");
        if (length < p->length) {
            size_t used = strlen(text);
            snprintf(text + used, sizeof text - used, "%s%s %u", i >= 0 ? " " : "", p->kind == PLAN_GENERATE ? "--max-context" : "--max-length", length);
            q = with_length(&q, length);
        }
        add(out, &n, &q, text);
    }
    return n > 0;
}

/* Where there is no choice, several options together may cost less than the one. */
static unsigned advise(const struct plan *p, struct advice list[8])
{
    unsigned n = advise_alone(p, list);
    return n < 2 && advise_together(p, &list[n]) ? n + 1 : n;
}

static void print_advice(const struct plan *p, FILE *to)
{
    struct advice list[8];
    unsigned n = advise(p, list);
    fprintf(to, n ? "It fits with one of:\n" : "Nothing makes this model fit here: take a smaller one, or another device.\n");
    for (unsigned i = 0; i < n; i++)
        fprintf(to, "  %-68s %9.1f MiB\n", list[i].options, list[i].mib);
}

/* ---- printing ---- */

static const char *type_name(const struct plan *p)
{
    const struct mosld_weight *w = mosld_model_file_find(p->request.file, "model.layers.0.self_attn.q_proj.weight");
    return p->request.weights != MOSLD_WEIGHTS_AS_FILE ? op_wtype_name((enum op_wtype)p->request.weights) : w ? dtype_name(w->dtype) : "";
}

static void print_head(const struct plan *p, FILE *to)
{
    const struct rt_device_info *info = rt_device_info(p->dev);
    fprintf(to, "%s on %s", p->model, info->name);
    if (p->kind == PLAN_TRAIN)
        fprintf(to, ": %u rows of up to %u tokens a pass", p->rows, p->length);
    else if (p->kind == PLAN_GENERATE)
        fprintf(to, ": %u sequence%s of up to %u tokens", p->request.pass.slots, p->request.pass.slots > 1 ? "s" : "", p->length);
    fprintf(to, "%s%u tokens%s\n", p->kind == PLAN_EVAL ? ": " : ", ", p->request.pass.max_tokens,
            p->kind == PLAN_GENERATE ? " of a prompt at a time" : p->kind == PLAN_EVAL ? " a pass" : "");
}

static void print_table(const struct plan *p, const struct mosld_memory *m, FILE *to)
{
    const struct rt_device_info *info = rt_device_info(p->dev);
    uint64_t total = mosld_memory_total(m);
    print_head(p, to);
    fprintf(to, "  weights     %9.1f MiB  %s, %.1f M parameters\n", (double)m->weights / MIB, type_name(p), (double)m->model_parameters / 1e6);
    if (m->adapter)
        fprintf(to, "  adapter     %9.1f MiB  %.2f M parameters%s\n", (double)m->adapter / MIB, (double)m->parameters / 1e6,
                m->trained ? ", their gradients, and AdamW's moments" : "");
    fprintf(to, "  activations %9.1f MiB", (double)m->activations / MIB);
    if (m->recomputed)
        fprintf(to, "  %u of %u layers are computed again in backward: %.1f %% more products", m->recomputed, m->trained, 100 * m->again);
    else if (m->trained)
        fprintf(to, "  nothing is computed again in backward");
    if (m->cache)
        fprintf(to, "\n  cache       %9.1f MiB  %s, %llu tokens%s", (double)m->cache / MIB, op_wtype_name(p->request.pass.cache_type),
                (unsigned long long)p->request.pass.cache_blocks * KV_BLOCK, p->request.pass.slots > 1 ? " that the sequences share" : "");
    fprintf(to, "\n  scratch     %9.1f MiB\n", (double)m->scratch / MIB);
    if (m->staging)
        fprintf(to, "  staging     %9.1f MiB\n", (double)m->staging / MIB);
    fprintf(to, "  total       %9.1f MiB  of %.1f MiB: %s\n", (double)total / MIB, (double)info->limits.memory / MIB,
            total <= info->limits.memory ? "fits" : "does not fit");
}

static cJSON *advice_json(const struct plan *p)
{
    struct advice list[8];
    cJSON *array = cJSON_CreateArray();
    unsigned n = advise(p, list);
    for (unsigned i = 0; i < n; i++) {
        cJSON *item = cJSON_CreateObject();
        cJSON_AddStringToObject(item, "options", list[i].options);
        cJSON_AddNumberToObject(item, "mib", list[i].mib);
        cJSON_AddItemToArray(array, item);
    }
    return array;
}

/* m: all zero where a piece is larger than the device takes. */
static void print_json(const struct plan *p, const struct mosld_memory *m, FILE *to)
{
    const struct rt_device_info *info = rt_device_info(p->dev);
    uint64_t total = mosld_memory_total(m);
    bool fit = total && total <= info->limits.memory;
    const struct {
        const char *name;
        double value;
    } numbers[] = {{"weights_bytes", (double)m->weights}, {"adapter_bytes", (double)m->adapter}, {"activations_bytes", (double)m->activations}, {"cache_bytes", (double)m->cache},
                   {"scratch_bytes", (double)m->scratch}, {"staging_bytes", (double)m->staging}, {"total_bytes", (double)total},
                   {"device_bytes", (double)info->limits.memory}, {"trained_layers", m->trained}, {"recomputed_layers", m->recomputed},
                   {"recompute_share", m->again}, {"parameters", (double)m->model_parameters}, {"trainable_parameters", (double)m->parameters},
                   {"context", p->kind == PLAN_GENERATE ? p->length : 0}, {"cache_tokens", (double)p->request.pass.cache_blocks * KV_BLOCK},
                   {"tokens", p->request.pass.max_tokens}, {"targets", p->request.pass.max_targets}};
    cJSON *json = cJSON_CreateObject();
    cJSON_AddStringToObject(json, "model", p->model);
    cJSON_AddStringToObject(json, "device", info->name);
    cJSON_AddStringToObject(json, "weights", type_name(p));
    for (size_t i = 0; total && i < sizeof numbers / sizeof *numbers; i++)
        cJSON_AddNumberToObject(json, numbers[i].name, numbers[i].value);
    cJSON_AddBoolToObject(json, "fits", fit);
    if (!fit)
        cJSON_AddItemToObject(json, "fits_with", advice_json(p));
    char *text = cJSON_PrintUnformatted(json);
    if (text)
        fprintf(to, "%s\n", text);
    cJSON_free(text);
    cJSON_Delete(json);
}

/* What there would be room for. */
static void print_room(const struct plan *p, FILE *to)
{
    uint32_t rows = p->kind == PLAN_TRAIN ? largest(p, with_rows, p->rows, MOST_ROWS) : 0;
    if (rows > p->rows)
        fprintf(to, "Up to %u rows a pass would fit.\n", rows);
}

enum rt_status plan_generation(struct plan *p, uint32_t wanted, bool limited, struct rt_error *err)
{
    uint32_t most = mosld_config_longest(mosld_model_file_config(p->request.file)), usual = limited || most < PLAN_USUAL_CONTEXT ? most : PLAN_USUAL_CONTEXT;
    if (wanted > most)
        return rt_fail(err, RT_USAGE, "--max-context: %u is more than the model's %u positions", wanted, most);
    p->kind = PLAN_GENERATE;
    p->request.pass.max_targets = p->request.pass.slots;
    p->request.pass.max_tokens = PLAN_PIECE > p->request.pass.slots ? PLAN_PIECE : p->request.pass.slots;
    p->length = wanted ? wanted : usual;
    *p = with_length(p, p->length);
    struct mosld_memory m;
    uint32_t low = least(usual, PLAN_LEAST_CONTEXT), length = wanted || fits(p, &m) ? p->length : largest(p, with_length, low, usual);
    *p = with_length(p, length ? length : low);
    return RT_OK;
}

enum rt_status plan_print(const struct plan *p, bool json, FILE *to, struct rt_error *err)
{
    struct mosld_memory m;
    const struct rt_device_info *info = rt_device_info(p->dev);
    enum rt_status st = mosld_memory_plan(p->dev, &p->request, &m, err);
    if (st) { /* a piece that no buffer or binding of this device holds */
        if (st == RT_NO_MEMORY && json)
            print_json(p, &(struct mosld_memory){0}, to);
        else if (st == RT_NO_MEMORY)
            print_advice(p, to);
        return st;
    }
    uint64_t total = mosld_memory_total(&m);
    bool fit = total <= info->limits.memory;
    if (json)
        print_json(p, &m, to);
    else {
        print_table(p, &m, to);
        if (fit)
            print_room(p, to);
        else
            print_advice(p, to);
    }
    return fit ? RT_OK : rt_fail(err, RT_NO_MEMORY, "the plan takes %.1f MiB and may use %.1f MiB of the device", (double)total / MIB,
                                 (double)info->limits.memory / MIB);
}
