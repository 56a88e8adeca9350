/* mosld/data/prompt.c - see prompt.h. */
#include "mosld/data/prompt.h"

#include <string.h>

/* Appends strings up to NULL. */
static bool put_all(struct text_buf *buf, const char *const *strings)
{
    for (; *strings; strings++)
        if (!text_buf_puts(buf, *strings))
            return false;
    return true;
}
#define PUT(buf, ...) put_all(buf, (const char *const[]){__VA_ARGS__, NULL})

bool prompt_alpaca(struct text_buf *prompt, const char *instruction, const char *input)
{
    /* The words are those that Alpaca's data and the models tuned on it were made with. */
    if (!input)
        return PUT(prompt,
                   "Below is an instruction that describes a task. "
                   "Write a response that appropriately completes the request.\n\n"
                   "### Instruction:\n",
                   instruction, "\n\n### Response:");
    return PUT(prompt,
               "Below is an instruction that describes a task, paired with an input that provides further context. "
               "Write a response that appropriately completes the request.\n\n"
               "### Instruction:\n",
               instruction, "\n\n### Input:\n", input, "\n\n### Response:");
}

bool prompt_plain_instruction(struct text_buf *prompt, const char *instruction, const char *input)
{
    return PUT(prompt, instruction, "\n") && (!input || PUT(prompt, input, "\n"));
}

bool prompt_user_message(struct text_buf *message, const char *instruction, const char *input)
{
    return PUT(message, instruction) && (!input || PUT(message, "\n", input));
}

bool prompt_question(struct text_buf *prompt, const struct mosld_record *record, enum mosld_choice_format format)
{
    if ((record->context && !PUT(prompt, record->context, "\n")) || !PUT(prompt, "Question: ", record->question, "\n"))
        return false;
    for (size_t i = 0; format == MOSLD_CHOICE_LETTER && i < record->n_choices; i++)
        if (!PUT(prompt, (char[]){(char)('A' + i), 0}, ". ", record->choices[i], "\n"))
            return false;
    return PUT(prompt, "Answer:");
}

bool prompt_choice(struct text_buf *completion, const struct mosld_record *record, size_t index,
                   enum mosld_choice_format format)
{
    if (format == MOSLD_CHOICE_LETTER)
        return PUT(completion, " ", (char[]){(char)('A' + index), 0});
    return PUT(completion, " ", record->choices[index]);
}

bool prompt_move_spaces(struct text_buf *prompt, struct text_buf *completion)
{
    size_t spaces = 0;
    while (spaces < prompt->len && prompt->data[prompt->len - 1 - spaces] == ' ')
        spaces++;
    if (spaces == 0)
        return true;
    if (!text_buf_reserve(completion, spaces))
        return false;
    memmove(completion->data + spaces, completion->data, completion->len);
    memset(completion->data, ' ', spaces);
    completion->len += spaces;
    prompt->len -= spaces;
    return true;
}

size_t prompt_characters(const char *text)
{
    size_t n = 0;
    for (; *text; text++)
        n += ((unsigned char)*text & 0xc0) != 0x80;
    return n;
}
