/* mosld/adapter/peft_modules.c - see peft_modules.h. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "mosld/adapter/peft_modules.h"

#include "mosld/io/json.h"

#include <pcre2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NAME_BYTES = 64, MAX_NAMES = 64 * 1024, MATCH_LIMIT = 100000 };

static void module_name(char name[static NAME_BYTES], uint32_t layer, enum mosld_linear linear)
{
    snprintf(name, NAME_BYTES, "model.layers.%u.%s", layer, mosld_linear_paths[linear]);
}

/* ---- expressions ---- */

/* Python's re.fullmatch (`tail`: of the name or of what stands behind one of its dots). */
static enum rt_status compile(const char *regex, bool tail, const char *key, const char *path, pcre2_code **out,
                              struct rt_error *err)
{
    int code;
    PCRE2_SIZE at;
    size_t size = strlen(regex) + 16;
    char *whole = malloc(size);
    if (!whole)
        return rt_fail(err, RT_NO_MEMORY, "no memory for a pattern");
    snprintf(whole, size, tail ? "(?:.*\\.)?(?:%s)" : "(?:%s)", regex);
    *out = pcre2_compile((PCRE2_SPTR)whole, PCRE2_ZERO_TERMINATED, PCRE2_ANCHORED | PCRE2_ENDANCHORED, &code, &at, NULL);
    free(whole);
    if (*out)
        return RT_OK;
    PCRE2_UCHAR why[128] = "";
    pcre2_get_error_message(code, why, sizeof why);
    return rt_fail(err, RT_BAD_FILE, "%s: \"%s\": \"%.80s\" is no regular expression: %s", path, key, regex, (char *)why);
}

static enum rt_status matches(const pcre2_code *code, const char *name, const char *key, const char *path, bool *out,
                              struct rt_error *err)
{
    pcre2_match_data *data = pcre2_match_data_create(1, NULL);
    pcre2_match_context *context = pcre2_match_context_create(NULL);
    int n = PCRE2_ERROR_NOMEMORY;
    if (data && context) {
        pcre2_set_match_limit(context, MATCH_LIMIT);
        n = pcre2_match(code, (PCRE2_SPTR)name, strlen(name), 0, 0, data, context);
    }
    pcre2_match_data_free(data);
    pcre2_match_context_free(context);
    *out = n >= 0;
    if (n >= 0 || n == PCRE2_ERROR_NOMATCH)
        return RT_OK;
    if (n == PCRE2_ERROR_NOMEMORY)
        return rt_fail(err, RT_NO_MEMORY, "no memory to match a pattern");
    return rt_fail(err, RT_BAD_FILE, "%s: \"%s\": its pattern needs too much work to match", path, key);
}

/* ---- target_modules, exclude_modules ---- */

static bool ends_in(const char *name, const char *end)
{
    size_t n = strlen(name), m = strlen(end);
    return strcmp(name, end) == 0 || (m > 0 && m < n && name[n - m - 1] == '.' && strcmp(name + n - m, end) == 0);
}

/* A key's names or expression. */
struct selection {
    const char *key, *path;
    const cJSON *list; /* NULL: an expression, or "all-linear" */
    pcre2_code *code;  /* NULL too: all of them */
};

static enum rt_status selection_read(const cJSON *json, const char *key, const char *path, struct selection *s,
                                     struct rt_error *err)
{
    const cJSON *v = json_find(json, key), *item;
    *s = (struct selection){.key = key, .path = path};
    if (cJSON_IsString(v))
        return strcmp(v->valuestring, "all-linear") == 0 ? RT_OK : compile(v->valuestring, false, key, path, &s->code, err);
    if (!cJSON_IsArray(v) || cJSON_GetArraySize(v) > MAX_NAMES)
        return rt_fail(err, RT_BAD_FILE, "%s: \"%s\" must be a list of module names, a regular expression or \"all-linear\"", path, key);
    s->list = v;
    cJSON_ArrayForEach(item, v)
        if (!cJSON_IsString(item))
            return rt_fail(err, RT_BAD_FILE, "%s: \"%s\" must be a list of strings", path, key);
    return RT_OK;
}

static enum rt_status selects(const struct selection *s, const char *name, bool *out, struct rt_error *err)
{
    const cJSON *item;
    *out = !s->list && !s->code;
    if (s->code)
        return matches(s->code, name, s->key, s->path, out, err);
    if (s->list)
        cJSON_ArrayForEach(item, s->list)
            *out = *out || ends_in(name, item->valuestring);
    return RT_OK;
}

/* A list's every entry must name a module that can have an adapter: what it means beyond those would be left out silently. */
static enum rt_status check_entries(const struct selection *s, struct rt_error *err)
{
    const cJSON *item;
    char name[NAME_BYTES];
    if (s->list)
        cJSON_ArrayForEach(item, s->list)
        {
            bool known = false;
            for (uint32_t layer = 0; layer < MOSLD_MAX_ADAPTER_LAYERS && !known; layer++)
                for (int m = 0; m < MOSLD_LINEARS && !known; m++) {
                    module_name(name, layer, (enum mosld_linear)m);
                    known = ends_in(name, item->valuestring);
                }
            if (!known)
                return rt_fail(err, RT_BAD_FILE,
                               "%s: \"%s\" names '%.80s', which is no module that mosld adapts; there are q_proj, k_proj, v_proj, "
                               "o_proj, gate_proj, up_proj, down_proj, and all-linear for all of them",
                               s->path, s->key, item->valuestring);
        }
    static const char *const others[] = {"lm_head", "model.embed_tokens"};
    for (size_t i = 0; s->code && i < sizeof others / sizeof *others; i++) {
        bool hit;
        RT_TRY(selects(s, others[i], &hit, err));
        if (hit)
            return rt_fail(err, RT_BAD_FILE, "%s: \"%s\" also means %s, which mosld does not adapt", s->path, s->key, others[i]);
    }
    return RT_OK;
}

/* ---- layers_to_transform ---- */

static enum rt_status read_layers(const cJSON *json, const char *path, bool is_list, bool layers[MOSLD_MAX_ADAPTER_LAYERS],
                                  struct rt_error *err)
{
    const cJSON *v = json_find(json, "layers_to_transform"), *pattern = json_find(json, "layers_pattern"), *item;
    bool all = !v || (cJSON_IsArray(v) && cJSON_GetArraySize(v) == 0);
    int64_t n;
    for (uint32_t i = 0; i < MOSLD_MAX_ADAPTER_LAYERS; i++)
        layers[i] = all;
    if (all)
        return RT_OK;
    if (!is_list)
        return rt_fail(err, RT_BAD_FILE, "%s: \"layers_to_transform\" goes with a list of \"target_modules\" only, as in PEFT", path);
    if (pattern && cJSON_GetArraySize(pattern) == 1)
        pattern = cJSON_GetArrayItem(pattern, 0);
    if (pattern && !(cJSON_IsArray(pattern) && cJSON_GetArraySize(pattern) == 0) &&
        !(cJSON_IsString(pattern) && (!*pattern->valuestring || strcmp(pattern->valuestring, "layers") == 0)))
        return rt_fail(err, RT_BAD_FILE, "%s: \"layers_pattern\": the layers of these models are called \"layers\"", path);
    if (!cJSON_IsArray(v)) {
        RT_TRY(json_to_integer(v, "layers_to_transform", path, 0, MOSLD_MAX_ADAPTER_LAYERS - 1, &n, err));
        layers[n] = true;
        return RT_OK;
    }
    cJSON_ArrayForEach(item, v)
    {
        RT_TRY(json_to_integer(item, "layers_to_transform", path, 0, MOSLD_MAX_ADAPTER_LAYERS - 1, &n, err));
        layers[n] = true;
    }
    return RT_OK;
}

/* ---- rank_pattern, alpha_pattern ---- */

struct pattern {
    pcre2_code *code;
    double value;
};

struct patterns {
    const char *key, *path;
    struct pattern *item;
    uint32_t n;
};

static void patterns_finish(struct patterns *p)
{
    for (uint32_t i = 0; i < p->n; i++)
        pcre2_code_free(p->item[i].code);
    free(p->item);
}

static enum rt_status patterns_read(const cJSON *json, const char *key, const char *path, double min, double max,
                                    struct patterns *p, struct rt_error *err)
{
    const cJSON *object, *item;
    *p = (struct patterns){.key = key, .path = path};
    RT_TRY(json_object_or(json, key, path, &object, err));
    int n = object ? cJSON_GetArraySize(object) : 0;
    if (!n)
        return RT_OK;
    if (n > MAX_NAMES || !(p->item = calloc((size_t)n, sizeof *p->item)))
        return rt_fail(err, RT_BAD_FILE, "%s: \"%s\" has too many entries", path, key);
    cJSON_ArrayForEach(item, object)
    {
        bool whole = strcmp(key, "rank_pattern") != 0 || item->valuedouble == (double)(int64_t)item->valuedouble;
        if (!cJSON_IsNumber(item) || !(item->valuedouble >= min && item->valuedouble <= max) || !whole)
            return rt_fail(err, RT_BAD_FILE, "%s: \"%s\": the value of \"%.80s\" must be a number in %g..%g", path, key, item->string, min, max);
        p->item[p->n].value = item->valuedouble;
        RT_TRY(compile(item->string, true, key, path, &p->item[p->n++].code, err));
    }
    return RT_OK;
}

/* The value of the first pattern that matches, or `value` as it is. */
static enum rt_status patterns_find(const struct patterns *p, const char *name, double *value, struct rt_error *err)
{
    bool hit = false;
    for (uint32_t i = 0; i < p->n && !hit; i++) {
        RT_TRY(matches(p->item[i].code, name, p->key, p->path, &hit, err));
        if (hit)
            *value = p->item[i].value;
    }
    return RT_OK;
}

/* ---- all together ---- */

static enum rt_status add_size(struct mosld_module_sizes *s, double r, double alpha, const char *path, uint8_t *of,
                               struct rt_error *err)
{
    uint32_t i = 0;
    while (i < s->n && (s->size[i].r != (uint32_t)r || s->size[i].lora_alpha != alpha))
        i++;
    if (i == MOSLD_MAX_SIZES)
        return rt_fail(err, RT_BAD_FILE, "%s: \"rank_pattern\" and \"alpha_pattern\" make more than %d different sizes", path, MOSLD_MAX_SIZES);
    if (i == s->n) {
        s->size[s->n].r = (uint32_t)r;
        s->size[s->n++].lora_alpha = alpha;
    }
    *of = (uint8_t)(i + 1);
    return RT_OK;
}

struct reading {
    struct selection targets, excluded;
    bool excludes, layers[MOSLD_MAX_ADAPTER_LAYERS];
    struct patterns ranks, alphas;
};

static enum rt_status resolve(const struct reading *c, const char *path, struct mosld_adapter_params *p, struct rt_error *err)
{
    struct mosld_module_sizes *s = &p->sizes;
    char name[NAME_BYTES];
    for (uint32_t layer = 0; layer < MOSLD_MAX_ADAPTER_LAYERS; layer++)
        for (int m = 0; m < MOSLD_LINEARS; m++) {
            bool hit, out = false;
            double r = p->r, alpha = p->lora_alpha;
            module_name(name, layer, (enum mosld_linear)m);
            RT_TRY(selects(&c->targets, name, &hit, err));
            if (hit && c->excludes)
                RT_TRY(selects(&c->excluded, name, &out, err));
            if (!hit || out || !c->layers[layer])
                continue;
            RT_TRY(patterns_find(&c->ranks, name, &r, err));
            RT_TRY(patterns_find(&c->alphas, name, &alpha, err));
            RT_TRY(add_size(s, r, alpha, path, &s->of[layer][m], err));
            p->targets[m] = true;
        }
    return RT_OK;
}

/* Where every layer has the same, the plain fields say it all. */
static void simplify(struct mosld_adapter_params *p)
{
    struct mosld_module_sizes *s = &p->sizes;
    bool same = s->n <= 1;
    for (uint32_t layer = 1; layer < MOSLD_MAX_ADAPTER_LAYERS && same; layer++)
        same = memcmp(s->of[layer], s->of[0], sizeof *s->of) == 0;
    if (s->n)
        p->r = 0;
    for (uint32_t i = 0; i < s->n; i++)
        p->r = s->size[i].r > p->r ? s->size[i].r : p->r;
    if (same && s->n)
        p->lora_alpha = s->size[0].lora_alpha;
    if (same)
        *s = (struct mosld_module_sizes){0};
}

static enum rt_status read_all(const cJSON *json, const char *path, struct reading *c, struct mosld_adapter_params *p,
                               struct rt_error *err)
{
    const cJSON *exclude = json_find(json, "exclude_modules");
    RT_TRY(selection_read(json, "target_modules", path, &c->targets, err));
    RT_TRY(check_entries(&c->targets, err));
    c->excludes = exclude && !(cJSON_IsArray(exclude) && cJSON_GetArraySize(exclude) == 0);
    if (c->excludes)
        RT_TRY(selection_read(json, "exclude_modules", path, &c->excluded, err));
    RT_TRY(read_layers(json, path, c->targets.list != NULL, c->layers, err));
    RT_TRY(patterns_read(json, "rank_pattern", path, 1, MOSLD_MAX_RANK, &c->ranks, err));
    RT_TRY(patterns_read(json, "alpha_pattern", path, 1e-9, 1e9, &c->alphas, err));
    memset(p->targets, 0, sizeof p->targets);
    RT_TRY(resolve(c, path, p, err));
    simplify(p);
    for (int m = 0; m < MOSLD_LINEARS; m++)
        if (p->targets[m])
            return RT_OK;
    return rt_fail(err, RT_BAD_FILE, "%s: \"target_modules\" means no linear module of any decoder layer", path);
}

enum rt_status peft_modules_read(const cJSON *json, const char *path, struct mosld_adapter_params *p, struct rt_error *err)
{
    struct reading c = {0};
    enum rt_status st = read_all(json, path, &c, p, err);
    pcre2_code_free(c.targets.code);
    pcre2_code_free(c.excluded.code);
    patterns_finish(&c.ranks);
    patterns_finish(&c.alphas);
    return st;
}

void peft_modules_write(cJSON *json, const struct mosld_adapter_params *p, uint32_t layers)
{
    const struct mosld_module_sizes *s = &p->sizes;
    char name[NAME_BYTES];
    cJSON_AddNumberToObject(json, "r", p->r);
    cJSON_AddNumberToObject(json, "lora_alpha", p->lora_alpha);
    cJSON *targets = cJSON_AddArrayToObject(json, "target_modules"), *ranks = NULL, *alphas = NULL;
    for (int m = 0; m < MOSLD_LINEARS && !s->n; m++)
        if (p->targets[m])
            cJSON_AddItemToArray(targets, cJSON_CreateString(mosld_linear_names[m]));
    if (!s->n)
        return;
    ranks = cJSON_AddObjectToObject(json, "rank_pattern");
    alphas = cJSON_AddObjectToObject(json, "alpha_pattern");
    for (uint32_t layer = 0; layer < layers && layer < MOSLD_MAX_ADAPTER_LAYERS; layer++)
        for (int m = 0; m < MOSLD_LINEARS; m++) {
            uint8_t of = s->of[layer][m];
            if (!of)
                continue;
            module_name(name, layer, (enum mosld_linear)m);
            cJSON_AddItemToArray(targets, cJSON_CreateString(name));
            if (s->size[of - 1].r != p->r)
                cJSON_AddNumberToObject(ranks, name, s->size[of - 1].r);
            if (s->size[of - 1].lora_alpha != p->lora_alpha)
                cJSON_AddNumberToObject(alphas, name, s->size[of - 1].lora_alpha);
        }
}
