/* tools/bench_counters.c - see bench_counters.h. */
#include "tools/bench_counters.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool bench_counters_lists(const struct option_list *names) { return names->n == 1 && strcmp(names->item[0], "list") == 0; }

static bool fits(const struct rt_hardware_counter *counter, const char *name) { return strcasestr(counter->name, name) != NULL; }

enum rt_status bench_counters_choose(struct rt_device *dev, const struct option_list *names, struct bench_counters *out, struct rt_error *err)
{
    RT_TRY(rt_counters_list(dev, &out->all, &out->n_all, err));
    if (bench_counters_lists(names))
        return RT_OK;
    out->chosen = calloc(out->n_all ? out->n_all : 1, sizeof *out->chosen);
    if (!out->chosen)
        return rt_fail(err, RT_NO_MEMORY, "no memory for %zu hardware counters", out->n_all);
    for (size_t k = 0; k < names->n; k++) {
        size_t i = 0;
        while (i < out->n_all && !fits(&out->all[i], names->item[k]))
            i++;
        if (i == out->n_all)
            return rt_fail(err, RT_USAGE, "--counters: %s has none of %zu with '%s' in its name: --counters list prints them",
                           rt_device_info(dev)->name, out->n_all, names->item[k]);
    }
    for (size_t i = 0; i < out->n_all; i++) {
        size_t k = 0;
        while (k < names->n && !fits(&out->all[i], names->item[k]))
            k++;
        if (k < names->n)
            out->chosen[out->n_chosen++] = (uint32_t)i;
    }
    return rt_counters_choose(dev, out->chosen, out->n_chosen, &out->passes, err);
}

void bench_counters_finish(struct bench_counters *c)
{
    free(c->all);
    free(c->chosen);
    *c = (struct bench_counters){0};
}

static cJSON *counter_json(const struct rt_hardware_counter *counter)
{
    cJSON *json = cJSON_CreateObject();
    cJSON_AddStringToObject(json, "name", counter->name);
    cJSON_AddStringToObject(json, "category", counter->category);
    cJSON_AddStringToObject(json, "unit", counter->unit);
    cJSON_AddStringToObject(json, "description", counter->description);
    return json;
}

enum rt_status bench_counters_print_list(const struct bench_counters *c, bool json, struct rt_error *err)
{
    if (!json) {
        for (size_t i = 0; i < c->n_all; i++)
            printf("%-36s %-8s %s%s%s\n", c->all[i].name, c->all[i].unit, c->all[i].category, *c->all[i].description ? ": " : "",
                   c->all[i].description);
        return RT_OK;
    }
    cJSON *document = cJSON_CreateObject(), *list = cJSON_AddArrayToObject(document, "counters");
    for (size_t i = 0; i < c->n_all; i++)
        cJSON_AddItemToArray(list, counter_json(&c->all[i]));
    char *text = cJSON_Print(document);
    if (text)
        printf("%s\n", text);
    cJSON_Delete(document);
    free(text);
    return text ? RT_OK : rt_fail(err, RT_NO_MEMORY, "no memory for the JSON document");
}

void bench_counters_print(const struct bench_counters *c, const struct mosld_bench_op *ops, uint32_t n_ops)
{
    printf("\nhardware counters of one launch, %u %s over the same input\n", c->passes, c->passes == 1 ? "pass" : "passes");
    for (uint32_t i = 0; i < n_ops; i++)
        for (uint32_t k = 0; ops[i].counters && k < c->n_chosen; k++) {
            const struct rt_hardware_counter *counter = &c->all[c->chosen[k]];
            printf("  %-17s %-22s %-36s %16.6g %s\n", k ? "" : ops[i].name, k ? "" : ops[i].shape, counter->name, ops[i].counters[k],
                   counter->unit);
        }
}

void bench_counters_put(const struct bench_counters *c, const struct mosld_bench_op *op, cJSON *to)
{
    if (!op->counters)
        return;
    cJSON *values = cJSON_AddObjectToObject(to, "counters");
    for (uint32_t k = 0; k < c->n_chosen; k++)
        if (isfinite(op->counters[k]))
            cJSON_AddNumberToObject(values, c->all[c->chosen[k]].name, op->counters[k]);
}

cJSON *bench_counters_json(const struct bench_counters *c)
{
    cJSON *json = cJSON_CreateObject(), *list = NULL;
    cJSON_AddNumberToObject(json, "passes", c->passes);
    list = cJSON_AddArrayToObject(json, "list");
    for (uint32_t k = 0; k < c->n_chosen; k++)
        cJSON_AddItemToArray(list, counter_json(&c->all[c->chosen[k]]));
    return json;
}
