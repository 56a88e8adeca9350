/* mosld/text/chat.h - chat templates: messages to text, and which part of the text a training run learns.
 *
 * Templates in model files are Jinja programs. We do not run them: the families below are written out in C, and which
 * of them a model uses is recognised from characteristic strings of its template:
 *
 *   chatml       <|im_start|> and <|im_end|>; a default system prompt is taken from the template's own text (SmolLM2,
 *                Qwen2.5), a beginning token goes in front when the template names bos_token
 *   qwen3        those, and enable_thinking
 *   llama3       <|start_header_id|> and <|eot_id|>; llama3.1 (also 3.2): with "Cutting Knowledge Date"
 *   llama2       [INST] and <<SYS>>
 *   mistral-v1   " [INST] " (7B v0.1 and v0.2); mistral-v3: "[INST] " and "[/INST]" (7B v0.3);
 *                mistral-classic: '[INST] ' and ' [/INST]' without a system prompt; mistral-classic-space: the same
 *                with a space behind eos_token
 *   zephyr       <|user|>, <|assistant|>, eos_token (TinyLlama)
 *
 * Names for --chat-template are these, and smollm2, qwen2 and qwen2.5 (chatml with their default system prompts) and
 * mistral (mistral-v1).
 *
 * The text is the one that Transformers' apply_chat_template gives, except for:
 *   - llama3.1 writes the date of the template, 26 Jul 2024, unless another is given: today's would change every run.
 *   - mistral-v3 puts the system prompt into the last user message, as the model was trained, also when an answer
 *     follows it (the template drops the prompt then).
 *   - qwen3 writes the empty <think> block where the template does: before the last answer. It bears loss, so that a
 *     tuned model leaves thinking out by itself.
 * Roles are system, user and assistant; tool calls are refused. */
#ifndef MOSLD_TEXT_CHAT_H
#define MOSLD_TEXT_CHAT_H

#include "mosld/text/tokenizer.h"

enum mosld_chat_family {
    MOSLD_CHAT_CHATML,
    MOSLD_CHAT_QWEN3,
    MOSLD_CHAT_LLAMA3,
    MOSLD_CHAT_LLAMA31,
    MOSLD_CHAT_LLAMA2,
    MOSLD_CHAT_MISTRAL_V1,
    MOSLD_CHAT_MISTRAL_V3,
    MOSLD_CHAT_MISTRAL_CLASSIC,
    MOSLD_CHAT_MISTRAL_CLASSIC_SPACE,
    MOSLD_CHAT_ZEPHYR,
};

/* A template. Holds no memory. */
struct mosld_chat_template {
    enum mosld_chat_family family;
    char default_system[512]; /* used when the first message is no system message; empty: none */
    bool bos_first;           /* chatml: the beginning token goes in front */
};

/* By the name of --chat-template. RT_USAGE with the known names. */
enum rt_status mosld_chat_template_by_name(const char *name, struct mosld_chat_template *out, struct rt_error *err);

/* From the model's Jinja text. RT_BAD_FILE naming what it is, or how it begins, and advising --chat-template. The
 * caller puts the file's name in front. */
enum rt_status mosld_chat_template_recognise(const char *jinja, struct mosld_chat_template *out, struct rt_error *err);

/* The family's name, as in --chat-template. */
const char *mosld_chat_template_name(const struct mosld_chat_template *t);

struct mosld_chat_message {
    const char *role; /* C strings; content is UTF-8, broken characters become U+FFFD */
    const char *content;
};

struct mosld_chat_params {
    bool add_generation_prompt; /* end with the beginning of an answer */
    bool no_thinking;           /* qwen3: the answer to come starts behind an empty <think> block */
    const char *bos, *eos;      /* texts of the tokens; NULL: those of the family */
    const char *date;           /* llama3.1: "26 Jul 2024" when NULL */
};

/* A rendered conversation. Ranges are bytes of `text`, sorted and not overlapping. */
struct mosld_chat_text {
    char *text; /* with a NUL behind it */
    size_t len;
    struct mosld_text_range *special; /* the template's own text, where special tokens may be; user text has none */
    size_t special_count;
    struct mosld_text_range *loss; /* what the assistant says, with the end of its turn */
    size_t loss_count;
};

/* Renders the messages. RT_BAD_FILE for no messages, an unknown role, an assistant first, no user message, users and
 * assistants that do not take turns or a system prompt where the template demands or forbids it; the message's number
 * (from 1) stands in the text, the caller puts file and line in front. */
enum rt_status mosld_chat_render(const struct mosld_chat_template *t, const struct mosld_chat_message *messages,
                                 size_t count, const struct mosld_chat_params *params, struct mosld_chat_text *out,
                                 struct rt_error *err);

void mosld_chat_text_finish(struct mosld_chat_text *text);

/* Encodes a rendering: no token is put in front, and special tokens are found in the template's own text only, so that
 * a user who writes <|im_end|> gets its letters. Sets *ids and *loss (1: the token bears loss), both malloc'd and of
 * *count elements. A turn's first token is the one behind the ids that the text before it has by itself. */
enum rt_status mosld_chat_encode(const struct mosld_tokenizer *t, const struct mosld_chat_text *text, int32_t **ids,
                                 uint8_t **loss, size_t *count, struct rt_error *err);

#endif
