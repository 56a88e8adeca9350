/* mosld/data/record.h - one JSON record of a task file: which kind it is, and whether it is sound. Knows no tokens.
 *
 *     {"input_ids": [..], "labels"?: [..]}                 tokens; label -100: no loss
 *     {"messages": [{"role", "content"}, ..]}              chat; roles system, user, assistant
 *     {"conversations": [{"from", "value"}, ..]}           the same, ShareGPT's: system, human (user), gpt (assistant)
 *     {"question", "context"?, "choices": [..], "answer"}  multiple choice; answer: an index from 0, or a letter
 *     {"instruction", "input"?, "output"}                  Alpaca
 *     {"prompt", "completion"}                             completion
 *     {"text"}                                             text
 *
 * The first line that fits counts, other keys are ignored, and null is as good as absent. */
#ifndef MOSLD_DATA_RECORD_H
#define MOSLD_DATA_RECORD_H

#include "runtime/error.h"

#include <stddef.h>
#include <stdint.h>

struct cJSON;

enum mosld_record_kind {
    MOSLD_RECORD_TOKENS,
    MOSLD_RECORD_MESSAGES,
    MOSLD_RECORD_CHOICE,
    MOSLD_RECORD_INSTRUCTION,
    MOSLD_RECORD_COMPLETION,
    MOSLD_RECORD_TEXT,
};

enum { MOSLD_CHOICES_MIN = 2, MOSLD_CHOICES_MAX = 26 }; /* as many as there are letters */

/* The label of a token that bears no loss. */
#define MOSLD_NO_LABEL (-100)

struct mosld_record_message {
    const char *role; /* "system", "user" or "assistant" */
    const char *content;
};

/* Strings are UTF-8, belong to the JSON, and are NULL where the kind has none. */
struct mosld_record {
    enum mosld_record_kind kind;
    const char *file; /* as given to mosld_record_read */
    size_t line;
    const char *instruction, *input, *output; /* input: NULL when absent or empty */
    const char *prompt, *completion;
    const char *text;
    const char *question, *context; /* context: NULL when absent or empty */
    const char *choices[MOSLD_CHOICES_MAX];
    size_t n_choices, answer;
    struct mosld_record_message *messages; /* [n_messages] */
    size_t n_messages;
    int32_t *ids, *labels; /* [n_ids]; labels NULL: each token is its own label */
    size_t n_ids;
};

/* Reads a record into *out, which mosld_record_finish frees; `json` and `file` must outlive it. RT_BAD_FILE "FILE: line
 * N: ..." when it is none of the kinds, a key has a wrong type, there are no messages or none by the assistant, fewer
 * than 2 or more than 26 choices, an empty choice, an answer that is none of them, no ids, a negative id, or as many
 * labels as ids are not there. RT_NO_MEMORY. On failure nothing needs freeing. */
enum rt_status mosld_record_read(const struct cJSON *json, const char *file, size_t line, struct mosld_record *out,
                                 struct rt_error *err);

/* Frees what the record owns. A zeroed record is fine. */
void mosld_record_finish(struct mosld_record *record);

/* For messages: "messages", "multiple choice", ... */
const char *mosld_record_kind_name(enum mosld_record_kind kind);

#endif
