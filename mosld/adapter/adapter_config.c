/* mosld/adapter/adapter_config.c - adapter_config.json, with PEFT's keys: see adapter_file.h. */
#include "mosld/adapter/adapter_file.h"

#include "mosld/adapter/peft_modules.h"
#include "mosld/io/file.h"
#include "mosld/io/json.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* ---- in ---- */

static enum rt_status read_method(const cJSON *json, const char *path, struct mosld_adapter_params *p,
                                  struct rt_error *err)
{
    const char *type, *method;
    RT_TRY(json_string(json, "peft_type", path, &type, err));
    if (strcmp(type, "LORA") == 0) {
        *p = mosld_adapter_defaults(MOSLD_METHOD_LORA);
        return RT_OK;
    }
    if (strcmp(type, "MOSLD") != 0)
        return rt_fail(err, RT_BAD_FILE, "%s: \"peft_type\" is \"%s\"; mosld runs LORA and MOSLD adapters", path, type);
    RT_TRY(json_string(json, "method", path, &method, err));
    for (int m = 0; m < MOSLD_METHODS; m++)
        if (strcmp(method, mosld_method_names[m]) == 0) {
            *p = mosld_adapter_defaults((enum mosld_method)m);
            return RT_OK;
        }
    return rt_fail(err, RT_BAD_FILE, "%s: \"method\" is \"%s\"; this version knows lora, mosl and mosld", path, method);
}

/* What PEFT's LoRA can be beyond what mosld computes: refused, so that it is never run wrongly. */
static enum rt_status refuse_unknown(const cJSON *json, const char *path, struct rt_error *err)
{
    static const char *const flags[] = {"use_dora", "use_qalora", "fan_in_fan_out", "lora_bias"};
    static const char *const containers[] = {"target_parameters", "layer_replication", "trainable_token_indices"};
    static const char *const starts[] = {"pissa", "olora", "corda", "loftq",
                                         "lora_ga"}; /* these change the base model's weights too */
    const cJSON *start = json_find(json, "init_lora_weights");
    const char *bias;
    for (size_t i = 0; cJSON_IsString(start) && i < sizeof starts / sizeof *starts; i++)
        if (strncasecmp(start->valuestring, starts[i], strlen(starts[i])) == 0)
            return rt_fail(err, RT_BAD_FILE,
                           "%s: \"init_lora_weights\" is \"%.40s\": such an adapter belongs to changed base weights; "
                           "let PEFT convert it to "
                           "a plain one",
                           path, start->valuestring);
    for (size_t i = 0; i < sizeof flags / sizeof *flags; i++) {
        bool on;
        RT_TRY(json_bool_or(json, flags[i], path, false, &on, err));
        if (on)
            return rt_fail(err, RT_BAD_FILE, "%s: \"%s\" is true, which mosld does not support", path, flags[i]);
    }
    for (size_t i = 0; i < sizeof containers / sizeof *containers; i++) {
        const cJSON *v = json_find(json, containers[i]);
        bool empty = !v || ((cJSON_IsArray(v) || cJSON_IsObject(v)) && cJSON_GetArraySize(v) == 0);
        if (!empty)
            return rt_fail(err, RT_BAD_FILE, "%s: \"%s\" is set, which mosld does not support", path, containers[i]);
    }
    const cJSON *save = json_find(json, "modules_to_save"), *first = cJSON_IsArray(save) ? cJSON_GetArrayItem(save, 0) : save;
    if (first)
        return rt_fail(err, RT_BAD_FILE,
                       "%s: \"modules_to_save\" has '%.80s': the file brings whole weights of its own, which mosld does not run; "
                       "merge it into the model with PEFT (merge_and_unload), or train without",
                       path, cJSON_IsString(first) ? first->valuestring : "?");
    RT_TRY(json_string_or(json, "bias", path, "none", &bias, err));
    return strcmp(bias, "none") == 0 ? RT_OK
                                     : rt_fail(err, RT_BAD_FILE, "%s: \"bias\" is \"%s\"; mosld has none", path, bias);
}

static enum rt_status read_experts(const cJSON *json, const char *path, struct mosld_adapter_params *p,
                                   struct rt_error *err)
{
    const cJSON *experts = json_find(json, "num_experts"), *item;
    int64_t v;
    p->n_num_experts = 0;
    if (!cJSON_IsArray(experts)) {
        RT_TRY(json_integer(json, "num_experts", path, 1, 1000000, &v, err));
        p->num_experts[p->n_num_experts++] = (uint32_t)v;
    } else {
        cJSON_ArrayForEach(item, experts)
        {
            if (p->n_num_experts == MOSLD_MAX_EXPERT_LIST)
                return rt_fail(err, RT_BAD_FILE, "%s: \"num_experts\" has more than %d entries", path,
                               MOSLD_MAX_EXPERT_LIST);
            RT_TRY(json_to_integer(item, "num_experts", path, 1, 1000000, &v, err));
            p->num_experts[p->n_num_experts++] = (uint32_t)v;
        }
    }
    RT_TRY(json_integer(json, "top_k", path, 1, 1000000, &v, err));
    p->top_k = (uint32_t)v;
    return RT_OK;
}

static enum rt_status read_dropout(const cJSON *json, const char *path, struct mosld_adapter_params *p,
                                   struct rt_error *err)
{
    const char *on;
    bool lora = p->method == MOSLD_METHOD_LORA;
    RT_TRY(json_number_or(json, lora ? "lora_dropout" : "dropout", path, -1e9, 1e9, p->dropout, &p->dropout, err));
    RT_TRY(json_string_or(json, "dropout_on", path, NULL, &on, err));
    if (on && strcmp(on, "A") == 0)
        p->dropout_on = MOSLD_DROPOUT_A;
    else if (on && strcmp(on, "input") == 0)
        p->dropout_on = MOSLD_DROPOUT_INPUT;
    else if (on && strcmp(on, "none") == 0)
        p->dropout_on = MOSLD_DROPOUT_NONE;
    else if (on)
        return rt_fail(err, RT_BAD_FILE, "%s: \"dropout_on\" is \"%s\"; it must be A, input or none", path, on);
    return RT_OK;
}

static enum rt_status read_all(const cJSON *json, const char *path, struct mosld_adapter_params *p,
                               struct rt_error *err)
{
    int64_t v;
    struct rt_error why;
    RT_TRY(read_method(json, path, p, err));
    RT_TRY(refuse_unknown(json, path, err));
    RT_TRY(json_integer(json, "r", path, 1, MOSLD_MAX_RANK, &v, err));
    p->r = (uint32_t)v;
    RT_TRY(json_number(json, "lora_alpha", path, 1e-9, 1e9, &p->lora_alpha, err));
    RT_TRY(json_bool_or(json, "use_rslora", path, false, &p->use_rslora, err));
    RT_TRY(json_number_or(json, "router_aux_loss_coef", path, 0, 1e6, p->router_aux_loss_coef, &p->router_aux_loss_coef,
                       err));
    RT_TRY(peft_modules_read(json, path, p, err));
    if (p->sizes.n && p->method != MOSLD_METHOD_LORA)
        return rt_fail(err, RT_BAD_FILE, "%s: ranks and targets that differ by layer are for LORA adapters only", path);
    if (p->method != MOSLD_METHOD_LORA)
        RT_TRY(read_experts(json, path, p, err));
    RT_TRY(read_dropout(json, path, p, err));
    if (mosld_adapter_params_check(p, &why))
        return rt_fail(err, RT_BAD_FILE, "%s: %s", path, why.text);
    return RT_OK;
}

enum rt_status mosld_adapter_read_params(const char *dir, struct mosld_adapter_params *params, struct rt_error *err)
{
    char *path = file_join(dir, "adapter_config.json");
    cJSON *json = NULL;
    enum rt_status st =
        path ? json_read_file(path, 1 << 20, &json, err) : rt_fail(err, RT_NO_MEMORY, "no memory for a file's name");
    if (!st && !cJSON_IsObject(json))
        st = rt_fail(err, RT_BAD_FILE, "%s: must be a JSON object", path);
    if (!st)
        st = read_all(json, path, params, err);
    cJSON_Delete(json);
    free(path);
    return st;
}

/* ---- out ---- */

static void add_mixture_keys(cJSON *json, const struct mosld_adapter_params *p, uint32_t layers)
{
    static const char *const on[] = {"none", "A", "input"};
    cJSON_AddStringToObject(json, "method", mosld_method_names[p->method]);
    if (p->n_num_experts == 1) {
        cJSON_AddNumberToObject(json, "num_experts", p->num_experts[0]);
    } else {
        cJSON *list = cJSON_AddArrayToObject(json, "num_experts");
        for (uint32_t i = 0; i < p->n_num_experts; i++)
            cJSON_AddItemToArray(list, cJSON_CreateNumber(p->num_experts[i]));
    }
    cJSON_AddNumberToObject(json, "num_hidden_layers", layers);
    cJSON_AddNumberToObject(json, "top_k", p->top_k);
    cJSON_AddNumberToObject(json, "dropout", p->dropout);
    cJSON_AddStringToObject(json, "dropout_on", on[p->dropout_on]);
    cJSON_AddNumberToObject(json, "router_aux_loss_coef", p->router_aux_loss_coef);
}

static cJSON *config_json(const struct mosld_adapter_params *p, uint32_t layers, const char *base_model)
{
    bool lora = p->method == MOSLD_METHOD_LORA;
    cJSON *json = cJSON_CreateObject();
    cJSON_AddStringToObject(json, "peft_type", lora ? "LORA" : "MOSLD");
    cJSON_AddStringToObject(json, "task_type", "CAUSAL_LM");
    cJSON_AddStringToObject(json, "base_model_name_or_path", base_model);
    peft_modules_write(json, p, layers);
    cJSON_AddNumberToObject(json, "lora_dropout", p->dropout_on == MOSLD_DROPOUT_INPUT ? p->dropout : 0);
    cJSON_AddStringToObject(json, "bias", "none");
    cJSON_AddBoolToObject(json, "fan_in_fan_out", false);
    cJSON_AddBoolToObject(json, "inference_mode", true);
    if (p->init_lora_weights == MOSLD_INIT_GAUSSIAN)
        cJSON_AddStringToObject(json, "init_lora_weights", "gaussian");
    else
        cJSON_AddBoolToObject(json, "init_lora_weights", true);
    cJSON_AddNullToObject(json, "modules_to_save");
    cJSON_AddBoolToObject(json, "use_rslora", p->use_rslora);
    if (!lora)
        add_mixture_keys(json, p, layers);
    return json;
}

enum rt_status mosld_adapter_write_params(const struct mosld_adapter_params *params, uint32_t layers,
                                          const char *base_model, const char *dir, struct rt_error *err)
{
    char *path = file_join(dir, "adapter_config.json");
    cJSON *json = config_json(params, layers, base_model);
    enum rt_status st = path && json ? json_write_file(path, json, err)
                                     : rt_fail(err, RT_NO_MEMORY, "no memory for adapter_config.json");
    cJSON_Delete(json);
    free(path);
    return st;
}
