/* mosld/text/chat_recognise.c - which template it is, by name or from a model's Jinja text. See chat.h. */
#include "mosld/text/chat.h"
#include "mosld/text/textbuf.h"

#include <string.h>

static const char smollm2_system[] = "You are a helpful AI assistant named SmolLM, trained by Hugging Face";
static const char qwen2_system[] = "You are a helpful assistant.";
static const char qwen25_system[] = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant.";

/* The first name of a family is the one it is shown by. */
static const struct {
    const char *name;
    enum mosld_chat_family family;
    const char *system; /* default system prompt, or NULL */
} names[] = {
    {"chatml", MOSLD_CHAT_CHATML, NULL},
    {"smollm2", MOSLD_CHAT_CHATML, smollm2_system},
    {"qwen2", MOSLD_CHAT_CHATML, qwen2_system},
    {"qwen2.5", MOSLD_CHAT_CHATML, qwen25_system},
    {"qwen3", MOSLD_CHAT_QWEN3, NULL},
    {"llama2", MOSLD_CHAT_LLAMA2, NULL},
    {"llama3", MOSLD_CHAT_LLAMA3, NULL},
    {"llama3.1", MOSLD_CHAT_LLAMA31, NULL},
    {"mistral-v1", MOSLD_CHAT_MISTRAL_V1, NULL},
    {"mistral", MOSLD_CHAT_MISTRAL_V1, NULL},
    {"mistral-v3", MOSLD_CHAT_MISTRAL_V3, NULL},
    {"mistral-classic", MOSLD_CHAT_MISTRAL_CLASSIC, NULL},
    {"mistral-classic-space", MOSLD_CHAT_MISTRAL_CLASSIC_SPACE, NULL},
    {"zephyr", MOSLD_CHAT_ZEPHYR, NULL},
};
#define N_NAMES (sizeof names / sizeof *names)
static const char name_list[] = "chatml, smollm2, qwen2, qwen2.5, qwen3, llama2, llama3, llama3.1, mistral, "
                                "mistral-v1, mistral-v3, mistral-classic, mistral-classic-space, zephyr";

/* Templates of others, to call them by their name. */
static const struct {
    const char *mark, *name;
} foreign[] = {
    {"<start_of_turn>", "Gemma's"},      {"<|end|>", "Phi's"},
    {"[SYSTEM_PROMPT]", "Mistral's v7"}, {"\xEF\xBD\x9C", "DeepSeek's"},
    {"<|start_of_role|>", "Granite's"},  {"<|END_OF_TURN_TOKEN|>", "Cohere's"},
    {"## Metadata", "SmolLM3's"},        {"<|channel|>", "gpt-oss's"},
    {"### Instruction:", "Alpaca's"},    {"<|im_sep|>", "Phi-4's"},
};

enum rt_status mosld_chat_template_by_name(const char *name, struct mosld_chat_template *out, struct rt_error *err)
{
    *out = (struct mosld_chat_template){0};
    for (size_t i = 0; i < N_NAMES; i++) {
        if (strcmp(names[i].name, name) == 0) {
            out->family = names[i].family;
            if (names[i].system)
                strcpy(out->default_system, names[i].system);
            return RT_OK;
        }
    }
    return rt_fail(err, RT_USAGE, "--chat-template '%.60s' is not known; known are %s", name, name_list);
}

const char *mosld_chat_template_name(const struct mosld_chat_template *t)
{
    for (size_t i = 0; i < N_NAMES; i++) {
        if (names[i].family == t->family && (names[i].system ? strcmp(names[i].system, t->default_system) == 0
                                                             : t->family != MOSLD_CHAT_CHATML || !*t->default_system))
            return names[i].name;
    }
    return "chatml"; /* with a system prompt of its own */
}

/* Jinja strings write a line break as \n, files that went through GGUF may hold the break itself. */
static bool unescape(const char *jinja, struct text_buf *out)
{
    for (const char *c = jinja; *c; c++) {
        bool line_break = c[0] == '\\' && c[1] == 'n';
        if (!text_buf_append(out, line_break ? "\n" : c, 1))
            return false;
        c += line_break;
    }
    return text_buf_terminate(out);
}

/* Takes the default system prompt: what stands between <|im_start|>system and <|im_end|> in one string of the template.
 * A quotation mark in between says that the text is put together. False when it is too long. */
static bool take_default_system(const char *jinja, struct mosld_chat_template *out)
{
    static const char begin[] = "<|im_start|>system\n", end[] = "<|im_end|>";
    for (const char *at = strstr(jinja, begin); at; at = strstr(at + 1, begin)) {
        const char *text = at + strlen(begin), *stop = strstr(text, end);
        char quote = at > jinja && (at[-1] == '\'' || at[-1] == '"') ? at[-1] : '\0';
        size_t len = stop ? (size_t)(stop - text) : 0;
        if (len == 0 || memmem(text, len, "{{", 2) || (quote && memchr(text, quote, len)))
            continue;
        if (len >= sizeof out->default_system)
            return false;
        memcpy(out->default_system, text, len);
        out->default_system[len] = '\0';
        return true;
    }
    return true;
}

static bool has(const char *jinja, const char *mark)
{
    return strstr(jinja, mark) != NULL;
}

static bool is_chatml(const char *jinja, struct mosld_chat_template *out)
{
    if (!has(jinja, "<|im_start|>") || !has(jinja, "<|im_end|>"))
        return false;
    if (has(jinja, "enable_thinking") && has(jinja, "last_query_index")) {
        out->family = MOSLD_CHAT_QWEN3;
        return true;
    }
    /* Thinking without the switch, and trimmed contents, are other templates. */
    if (has(jinja, "<think>") || has(jinja, "trim"))
        return false;
    out->family = MOSLD_CHAT_CHATML;
    out->bos_first = has(jinja, "bos_token");
    return take_default_system(jinja, out);
}

static bool is_llama3(const char *jinja, struct mosld_chat_template *out)
{
    if (!has(jinja, "<|start_header_id|>") || !has(jinja, "<|eot_id|>"))
        return false;
    out->family = has(jinja, "Cutting Knowledge Date") ? MOSLD_CHAT_LLAMA31 : MOSLD_CHAT_LLAMA3;
    return true;
}

static bool is_bracketed(const char *jinja, struct mosld_chat_template *out)
{
    if (!has(jinja, "[INST]"))
        return false;
    if (has(jinja, "<<SYS>>"))
        out->family = MOSLD_CHAT_LLAMA2;
    else if (has(jinja, "\" [INST] \"") || has(jinja, "' [INST] '"))
        out->family = MOSLD_CHAT_MISTRAL_V1;
    else if (!has(jinja, "\"[INST] \"") && !has(jinja, "'[INST] '"))
        return false; /* without the space: Tekken's */
    else if (has(jinja, "\"[/INST]\"") || has(jinja, "'[/INST]'"))
        out->family = MOSLD_CHAT_MISTRAL_V3;
    else if (!has(jinja, "\" [/INST]\"") && !has(jinja, "' [/INST]'"))
        return false;
    else if (has(jinja, "eos_token + ' '") || has(jinja, "eos_token + \" \"") || has(jinja, "eos_token+ ' '"))
        out->family = MOSLD_CHAT_MISTRAL_CLASSIC_SPACE;
    else
        out->family = MOSLD_CHAT_MISTRAL_CLASSIC;
    return true;
}

static bool is_zephyr(const char *jinja, struct mosld_chat_template *out)
{
    if (!has(jinja, "<|user|>\n") || !has(jinja, "<|assistant|>\n") || !has(jinja, "<|system|>\n") ||
        !has(jinja, "eos_token"))
        return false;
    out->family = MOSLD_CHAT_ZEPHYR;
    return true;
}

enum rt_status mosld_chat_template_recognise(const char *jinja, struct mosld_chat_template *out, struct rt_error *err)
{
    struct text_buf text = {0};
    *out = (struct mosld_chat_template){0};
    if (!unescape(jinja, &text)) {
        text_buf_finish(&text);
        return rt_fail(err, RT_NO_MEMORY, "no memory for a chat template of %zu bytes", strlen(jinja));
    }
    const char *whose = NULL;
    for (size_t i = 0; !whose && i < sizeof foreign / sizeof *foreign; i++)
        whose = has(text.data, foreign[i].mark) ? foreign[i].name : NULL;
    bool known = !whose && (is_chatml(text.data, out) || is_llama3(text.data, out) || is_bracketed(text.data, out) ||
                            is_zephyr(text.data, out));
    text_buf_finish(&text);
    if (known)
        return RT_OK;
    if (whose)
        return rt_fail(err, RT_BAD_FILE,
                       "the chat template is %s, which is not supported; --chat-template NAME takes "
                       "another (%s)",
                       whose, name_list);
    return rt_fail(err, RT_BAD_FILE,
                   "the chat template is not a known one (it begins '%.80s'); --chat-template NAME "
                   "says which to use (%s)",
                   jinja, name_list);
}
