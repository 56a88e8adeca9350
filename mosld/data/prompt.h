/* mosld/data/prompt.h - a record as two texts, what is given and what is to be said: the formats that need no chat
 * template. */
#ifndef MOSLD_DATA_PROMPT_H
#define MOSLD_DATA_PROMPT_H

#include "mosld/data/example.h"
#include "mosld/text/textbuf.h"

/* Appends to `prompt` the Alpaca text of an instruction (input NULL: without one), up to where the answer begins.
 * False: out of memory; so below. */
bool prompt_alpaca(struct text_buf *prompt, const char *instruction, const char *input);

/* An instruction without any frame: "{instruction}\n{input}\n". */
bool prompt_plain_instruction(struct text_buf *prompt, const char *instruction, const char *input);

/* What is asked of a chat: "{instruction}" or "{instruction}\n{input}". */
bool prompt_user_message(struct text_buf *message, const char *instruction, const char *input);

/* The question of a multiple choice record, up to "Answer:". */
bool prompt_question(struct text_buf *prompt, const struct mosld_record *record, enum mosld_choice_format format);

/* What follows the question when choice `index` is the answer: " {choice}" or " A". */
bool prompt_choice(struct text_buf *completion, const struct mosld_record *record, size_t index,
                   enum mosld_choice_format format);

/* Moves the spaces at the end of `prompt` to the beginning of `completion`, as they belong to the word that follows. */
bool prompt_move_spaces(struct text_buf *prompt, struct text_buf *completion);

/* Characters (code points) of a string. */
size_t prompt_characters(const char *text);

#endif
