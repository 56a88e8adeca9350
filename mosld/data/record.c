/* mosld/data/record.c - see record.h. */
#include "mosld/data/record.h"

#include <cjson/cJSON.h>
#include <math.h>
#include <stdbool.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *mosld_record_kind_name(enum mosld_record_kind kind)
{
    static const char *const names[] = {"token", "messages", "multiple choice", "instruction", "prompt and completion",
                                        "text"};
    return names[kind];
}

RT_PRINTF(3, 4) static enum rt_status bad(const struct mosld_record *r, struct rt_error *err,
                                                                const char *format, ...)
{
    char text[512];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    return rt_fail(err, RT_BAD_FILE, "%s: line %zu: %s", r->file, r->line, text);
}

static enum rt_status out_of_memory(const struct mosld_record *r, struct rt_error *err)
{
    return rt_fail(err, RT_NO_MEMORY, "%s: line %zu: out of memory", r->file, r->line);
}

static const cJSON *get(const cJSON *json, const char *key)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(json, key);
    return cJSON_IsNull(item) ? NULL : item;
}

static const char *type_name(const cJSON *json)
{
    return cJSON_IsObject(json)   ? "an object"
           : cJSON_IsArray(json)  ? "a list"
           : cJSON_IsString(json) ? "a string"
           : cJSON_IsNumber(json) ? "a number"
           : cJSON_IsBool(json)   ? "true or false"
                                  : "null";
}

/* `where` is put before the key in messages: "" or "message 3: ". */
static enum rt_status get_string(const struct mosld_record *r, const cJSON *json, const char *where, const char *key,
                                 const char **out, struct rt_error *err)
{
    const cJSON *item = get(json, key);
    if (!item)
        return bad(r, err, "%s\"%s\" is missing", where, key);
    if (!cJSON_IsString(item))
        return bad(r, err, "%s\"%s\" is %s, must be a string", where, key, type_name(item));
    *out = item->valuestring;
    return RT_OK;
}

static enum rt_status get_optional_string(const struct mosld_record *r, const cJSON *json, const char *key,
                                          const char **out, struct rt_error *err)
{
    *out = NULL;
    if (!get(json, key))
        return RT_OK;
    enum rt_status st = get_string(r, json, "", key, out, err);
    if (st == RT_OK && (*out)[0] == 0)
        *out = NULL;
    return st;
}

static enum rt_status get_list(const struct mosld_record *r, const cJSON *json, const char *key, const cJSON **out,
                               size_t *n, struct rt_error *err)
{
    *out = get(json, key);
    if (!*out)
        return bad(r, err, "\"%s\" is missing", key);
    if (!cJSON_IsArray(*out))
        return bad(r, err, "\"%s\" is %s, must be a list", key, type_name(*out));
    *n = (size_t)cJSON_GetArraySize(*out);
    return RT_OK;
}

/* Chat */

static const struct {
    const char *written, *role;
} roles[] = {
    {"system", "system"}, {"user", "user"},     {"assistant", "assistant"},
    {"human", "user"},    {"gpt", "assistant"}, /* ShareGPT's */
};

enum { OWN_ROLES = 3 };

static enum rt_status read_message(const struct mosld_record *r, const cJSON *json, size_t index, bool sharegpt,
                                   struct mosld_record_message *out, struct rt_error *err)
{
    char where[32];
    const char *role = NULL;
    snprintf(where, sizeof where, "message %zu: ", index + 1);
    if (!cJSON_IsObject(json))
        return bad(r, err, "message %zu is %s, must be an object", index + 1, type_name(json));
    if (get(json, "tool_calls"))
        return bad(r, err, "message %zu has tool_calls, which mosld does not support", index + 1);
    enum rt_status st = get_string(r, json, where, sharegpt ? "from" : "role", &role, err);
    if (st == RT_OK)
        st = get_string(r, json, where, sharegpt ? "value" : "content", &out->content, err);
    if (st != RT_OK)
        return st;
    for (size_t i = 0; i < (sharegpt ? sizeof roles / sizeof *roles : OWN_ROLES); i++) {
        if (strcmp(role, roles[i].written) == 0) {
            out->role = roles[i].role;
            return RT_OK;
        }
    }
    return bad(r, err, "message %zu: the role \"%.40s\" is not supported; %s are", index + 1, role,
               sharegpt ? "system, human, user, gpt and assistant" : "system, user and assistant");
}

static enum rt_status read_messages(struct mosld_record *r, const cJSON *json, bool sharegpt, struct rt_error *err)
{
    const char *key = sharegpt ? "conversations" : "messages";
    const cJSON *list, *item;
    size_t n, answers = 0;
    enum rt_status st = get_list(r, json, key, &list, &n, err);
    if (st != RT_OK)
        return st;
    if (n == 0)
        return bad(r, err, "\"%s\" is empty", key);
    r->messages = calloc(n, sizeof *r->messages);
    if (!r->messages)
        return out_of_memory(r, err);
    cJSON_ArrayForEach(item, list)
    {
        struct mosld_record_message *message = &r->messages[r->n_messages];
        st = read_message(r, item, r->n_messages, sharegpt, message, err);
        if (st != RT_OK)
            return st;
        answers += strcmp(message->role, "assistant") == 0;
        r->n_messages++;
    }
    if (answers == 0)
        return bad(r, err, "\"%s\" has no turn of the assistant, so there is nothing to learn", key);
    return RT_OK;
}

/* Multiple choice */

static enum rt_status read_answer(struct mosld_record *r, const cJSON *json, struct rt_error *err)
{
    const cJSON *answer = get(json, "answer");
    if (!answer)
        return bad(r, err, "\"answer\" is missing");
    if (cJSON_IsNumber(answer)) {
        double value = answer->valuedouble;
        if (!(value >= 0 && value < (double)r->n_choices) || value != floor(value))
            return bad(r, err, "\"answer\" is %g, must be an index from 0 to %zu", value, r->n_choices - 1);
        r->answer = (size_t)value;
        return RT_OK;
    }
    if (!cJSON_IsString(answer))
        return bad(r, err, "\"answer\" is %s, must be an index from 0 or a letter", type_name(answer));
    const char *letter = answer->valuestring;
    size_t index = letter[0] >= 'a' && letter[0] <= 'z' ? (size_t)(letter[0] - 'a') : (size_t)(letter[0] - 'A');
    bool is_letter = (letter[0] >= 'a' && letter[0] <= 'z') || (letter[0] >= 'A' && letter[0] <= 'Z');
    if (!is_letter || letter[1] != 0 || index >= r->n_choices)
        return bad(r, err, "\"answer\" is \"%.40s\", must be a letter from A to %c or an index from 0", letter,
                   (int)('A' + r->n_choices - 1));
    r->answer = index;
    return RT_OK;
}

static enum rt_status read_choice(struct mosld_record *r, const cJSON *json, struct rt_error *err)
{
    const cJSON *list, *item;
    size_t n;
    enum rt_status st = get_string(r, json, "", "question", &r->question, err);
    if (st == RT_OK)
        st = get_optional_string(r, json, "context", &r->context, err);
    if (st == RT_OK)
        st = get_list(r, json, "choices", &list, &n, err);
    if (st != RT_OK)
        return st;
    if (n < MOSLD_CHOICES_MIN || n > MOSLD_CHOICES_MAX)
        return bad(r, err, "there are %zu choices, must be %d to %d", n, MOSLD_CHOICES_MIN, MOSLD_CHOICES_MAX);
    cJSON_ArrayForEach(item, list)
    {
        if (!cJSON_IsString(item))
            return bad(r, err, "choice %zu is %s, must be a string", r->n_choices, type_name(item));
        if (item->valuestring[0] == 0)
            return bad(r, err, "choice %zu is empty", r->n_choices);
        r->choices[r->n_choices++] = item->valuestring;
    }
    return read_answer(r, json, err);
}

/* Tokens */

static enum rt_status read_ids(const struct mosld_record *r, const cJSON *list, size_t n, const char *key, bool labels,
                               int32_t **out, struct rt_error *err)
{
    const cJSON *item;
    size_t i = 0;
    int32_t *ids = calloc(n, sizeof *ids);
    if (!ids)
        return out_of_memory(r, err);
    cJSON_ArrayForEach(item, list)
    {
        double value = cJSON_IsNumber(item) ? item->valuedouble : NAN;
        bool fine = value >= 0 && value <= INT32_MAX && value == floor(value);
        if (!fine && !(labels && value == MOSLD_NO_LABEL)) {
            free(ids);
            return bad(r, err, "\"%s\": item %zu is no token id%s", key, i, labels ? ", nor -100 (no loss)" : "");
        }
        ids[i++] = (int32_t)value;
    }
    *out = ids;
    return RT_OK;
}

static enum rt_status read_tokens(struct mosld_record *r, const cJSON *json, struct rt_error *err)
{
    const cJSON *list;
    size_t n;
    enum rt_status st = get_list(r, json, "input_ids", &list, &r->n_ids, err);
    if (st != RT_OK)
        return st;
    if (r->n_ids == 0)
        return bad(r, err, "\"input_ids\" is empty");
    st = read_ids(r, list, r->n_ids, "input_ids", false, &r->ids, err);
    if (st != RT_OK || !get(json, "labels"))
        return st;
    st = get_list(r, json, "labels", &list, &n, err);
    if (st == RT_OK && n != r->n_ids)
        return bad(r, err, "there are %zu labels for %zu input_ids", n, r->n_ids);
    return st == RT_OK ? read_ids(r, list, n, "labels", true, &r->labels, err) : st;
}

/* The other kinds are two or three strings. */

static enum rt_status read_instruction(struct mosld_record *r, const cJSON *json, struct rt_error *err)
{
    enum rt_status st = get_string(r, json, "", "instruction", &r->instruction, err);
    if (st == RT_OK)
        st = get_optional_string(r, json, "input", &r->input, err);
    return st == RT_OK ? get_string(r, json, "", "output", &r->output, err) : st;
}

static enum rt_status read_completion(struct mosld_record *r, const cJSON *json, struct rt_error *err)
{
    enum rt_status st = get_string(r, json, "", "prompt", &r->prompt, err);
    return st == RT_OK ? get_string(r, json, "", "completion", &r->completion, err) : st;
}

static enum rt_status read_kind(struct mosld_record *r, const cJSON *json, struct rt_error *err)
{
    switch (r->kind) {
    case MOSLD_RECORD_TOKENS: return read_tokens(r, json, err);
    case MOSLD_RECORD_MESSAGES: return read_messages(r, json, !get(json, "messages"), err);
    case MOSLD_RECORD_CHOICE: return read_choice(r, json, err);
    case MOSLD_RECORD_INSTRUCTION: return read_instruction(r, json, err);
    case MOSLD_RECORD_COMPLETION: return read_completion(r, json, err);
    case MOSLD_RECORD_TEXT: return get_string(r, json, "", "text", &r->text, err);
    }
    return RT_FAILED;
}

/* Any key that only one kind has tells the kind, so that a missing second key is named as such. */
static const struct {
    const char *key;
    enum mosld_record_kind kind;
} kinds[] = {
    {"input_ids", MOSLD_RECORD_TOKENS},
    {"messages", MOSLD_RECORD_MESSAGES},
    {"conversations", MOSLD_RECORD_MESSAGES},
    {"choices", MOSLD_RECORD_CHOICE},
    {"question", MOSLD_RECORD_CHOICE},
    {"instruction", MOSLD_RECORD_INSTRUCTION},
    {"prompt", MOSLD_RECORD_COMPLETION},
    {"completion", MOSLD_RECORD_COMPLETION},
    {"text", MOSLD_RECORD_TEXT},
};

enum rt_status mosld_record_read(const cJSON *json, const char *file, size_t line, struct mosld_record *out,
                                 struct rt_error *err)
{
    *out = (struct mosld_record){.file = file, .line = line};
    if (!cJSON_IsObject(json))
        return bad(out, err, "the record is %s, must be an object", type_name(json));
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        if (!get(json, kinds[i].key))
            continue;
        out->kind = kinds[i].kind;
        enum rt_status st = read_kind(out, json, err);
        if (st != RT_OK)
            mosld_record_finish(out);
        return st;
    }
    return bad(
        out, err,
        "the record has none of the keys messages, conversations, choices, instruction, prompt, text, input_ids");
}

void mosld_record_finish(struct mosld_record *record)
{
    free(record->messages);
    free(record->ids);
    free(record->labels);
    *record = (struct mosld_record){0};
}
