/* mosld/tune/choices.c - see choices.h. */
#include "mosld/tune/choices.h"

#include "mosld/ops/choice.h"

#include <string.h>

typedef uint32_t list_fn(struct rt_device *dev, const struct op *op, uint32_t class_, const struct op_variant **out);

/* {class: [variants]} of an op; classes without any are left out. */
static cJSON *op_json(struct rt_device *dev, const struct op *op, uint32_t wtypes, list_fn *list)
{
    const struct op_variant *variants[OP_MAX_VARIANTS];
    char name[64];
    cJSON *json = cJSON_CreateObject();
    for (uint32_t c = 0; json && c < op_class_count(op); c++) {
        int wtype = op_class_wtype(op, c);
        uint32_t n = wtype < 0 || wtypes >> wtype & 1 ? list(dev, op, c, variants) : 0;
        if (n == 0)
            continue;
        op_class_name(op, c, name, sizeof name);
        cJSON *names = cJSON_AddArrayToObject(json, name);
        for (uint32_t i = 0; i < n; i++)
            cJSON_AddItemToArray(names, cJSON_CreateString(variants[i]->name));
    }
    return json;
}

static cJSON *all_json(struct rt_device *dev, uint32_t wtypes, list_fn *list)
{
    cJSON *json = cJSON_CreateObject();
    for (const struct op *const *op = op_table; *op && json; op++) {
        cJSON *classes = op_json(dev, *op, wtypes, list);
        if (classes && classes->child)
            cJSON_AddItemToObject(json, (*op)->name, classes);
        else
            cJSON_Delete(classes);
    }
    return json;
}

cJSON *mosld_choices_json(struct rt_device *dev, uint32_t wtypes) { return all_json(dev, wtypes, op_choice_order); }

cJSON *mosld_choices_taken_json(struct rt_device *dev) { return all_json(dev, UINT32_MAX, op_choice_taken); }

static void set_class(struct rt_device *dev, const struct op *op, const cJSON *names, bool *whole)
{
    const struct op_variant *variants[OP_MAX_VARIANTS], *v;
    int class_ = op_class_find(op, names->string);
    uint32_t n = 0;
    const cJSON *name;
    cJSON_ArrayForEach(name, names)
    {
        v = cJSON_IsString(name) ? op_variant_find(op, name->valuestring) : NULL;
        if (v && n < OP_MAX_VARIANTS)
            variants[n++] = v;
        else
            *whole = false;
    }
    if (class_ < 0 || !op_choice_set(dev, op, (uint32_t)class_, variants, n))
        *whole = false;
}

enum rt_status mosld_choices_set(struct rt_device *dev, const cJSON *json, const char *path, bool *whole, struct rt_error *err)
{
    const cJSON *classes, *names;
    *whole = true;
    if (!cJSON_IsObject(json))
        return rt_fail(err, RT_BAD_FILE, "%s: the variants are no object", path);
    cJSON_ArrayForEach(classes, json)
    {
        const struct op *op = op_find(classes->string);
        if (!cJSON_IsObject(classes))
            return rt_fail(err, RT_BAD_FILE, "%s: the variants of \"%s\" are no object", path, classes->string);
        cJSON_ArrayForEach(names, classes)
        {
            if (!cJSON_IsArray(names))
                return rt_fail(err, RT_BAD_FILE, "%s: the variants of \"%s\", \"%s\" are no array", path, classes->string, names->string);
            if (op)
                set_class(dev, op, names, whole);
        }
        *whole &= op != NULL;
    }
    return RT_OK;
}
