/* mosld/data/example.h - records as token ids, with what bears loss.
 *
 * What a record becomes ("|" marks where the targets begin):
 *
 *     text                 |text                    all of it is target, no end token
 *     prompt, completion   prompt|completion END    a space at the end of the prompt moves to the completion
 *     instruction          one user message and its answer through the chat template; where the model has none the
 *                          Alpaca text, with END (prompt_format chooses; "input" follows on a new line)
 *     messages             the chat template; every turn of the assistant is target, with its end of turn
 *     multiple choice      Question: {question}\nAnswer:| {choice}      no end token; {context}\n goes before it
 *       by letter          Question: {question}\nA. {choice}\nB. ..\nAnswer:| A         (choice_format letter)
 *     input_ids            as they stand; labels are kept as given
 *
 * The beginning token is added where the tokenizer says so, and a template brings its own. Prompt and whole text are
 * encoded as they stand, and the targets begin where the ids of the prompt alone end: where a token spans the border,
 * at that token. prompt_format applies to instruction and to prompt/completion records, whose prompt it takes as the
 * instruction.
 *
 * Token t of a row predicts token t + 1: the target of position t is labels[t + 1], where that is not MOSLD_NO_LABEL
 * (-100). The first token's label is never used. */
#ifndef MOSLD_DATA_EXAMPLE_H
#define MOSLD_DATA_EXAMPLE_H

#include "mosld/data/record.h"
#include "runtime/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct mosld_tokenizer;
struct mosld_chat_template;

enum mosld_prompt_format {
    MOSLD_PROMPT_AUTO, /* instruction: chat where there is a template, else alpaca; prompt/completion: plain */
    MOSLD_PROMPT_CHAT,
    MOSLD_PROMPT_ALPACA,
    MOSLD_PROMPT_PLAIN, /* instruction: "{instruction}\n{input}\n" and the answer */
};

enum mosld_choice_format {
    MOSLD_CHOICE_PLAIN,
    MOSLD_CHOICE_LETTER,
};

struct mosld_example_options {
    enum mosld_prompt_format prompt_format;
    enum mosld_choice_format choice_format;
    bool completion_only_loss; /* false: prompts are targets too, in every kind of record */
    bool assistant_only_loss;  /* messages: false: every token is target */
    uint32_t max_length;       /* tokens; 0: no limit */
    bool score_choices; /* multiple choice becomes a question with all its choices, not the right answer as text */
};
#define MOSLD_EXAMPLE_DEFAULTS     .completion_only_loss = true, .assistant_only_loss = true
#define mosld_example_options(...) (&(struct mosld_example_options){MOSLD_EXAMPLE_DEFAULTS, __VA_ARGS__})

/* What encodes text. */
struct mosld_encoder {
    const struct mosld_tokenizer *tokenizer; /* NULL: only input_ids records can be read */
    const struct mosld_chat_template *chat;  /* NULL: the model has none */
    uint32_t vocab_size;                     /* of the model: all ids must be below; 0: not checked */
};

/* One row. Plain rows have n_choices 0. Of a question, the tokens are its prompt, then each choice's. */
struct mosld_example {
    size_t first; /* index of its first token in tokens and labels */
    uint32_t n_tokens;
    uint32_t n_targets; /* labels that are targets; of a question, of all its choices */
    uint32_t n_prompt;  /* question: tokens of the prompt that the choices share (at least 1); else 0 */
    uint32_t n_choices, answer;
    size_t first_choice; /* index into choices */
    size_t line;         /* of its record in the file, from 1 */
};

/* A choice of a question: the tokens that follow the prompt. Labels say which are scored: all, but where a token spans
 * the border between prompt and choice for some choice, the prompt's last tokens stand in each choice, unscored. */
struct mosld_choice {
    uint32_t first; /* index of its first token, counted from the example's first */
    uint32_t n_tokens;
    uint32_t n_characters; /* code points of the choice as it is scored, without the space before it: acc_norm divides
                              by this */
};

struct mosld_example_counts {
    size_t records;
    size_t tokens, targets; /* of the examples that are left */
    size_t truncated;       /* records cut to max_length, whether or not something was left to learn */
    size_t skipped;         /* records that have no target, because of the cut or from the start */
    size_t skipped_line;    /* line of the first of them */
    uint32_t longest;       /* tokens */
};

/* All rows of a file. Zero-initialised is empty. */
struct mosld_examples {
    struct mosld_example *example; /* [n] */
    size_t n, capacity;
    int32_t *tokens, *labels; /* [n_tokens] */
    size_t n_tokens, token_capacity;
    struct mosld_choice *choice; /* [n_choices] */
    size_t n_choices, choice_capacity;
    struct mosld_example_counts counts;
};

/* Adds the record as one row; or only counts it, when no target is left. Plain rows are cut at their end; a question's
 * prompt loses its beginning (after a beginning token) so that the longest choice fits. RT_BAD_FILE with file and line:
 * no tokenizer, no chat template for messages, an id outside the vocabulary, messages that the template refuses.
 * RT_USAGE: prompt_format chat without a template. RT_FAILED, RT_NO_MEMORY. On failure nothing was added. */
enum rt_status mosld_examples_add(struct mosld_examples *examples, const struct mosld_encoder *encoder,
                                  const struct mosld_example_options *options, const struct mosld_record *record,
                                  struct rt_error *err);

/* Frees and empties. */
void mosld_examples_finish(struct mosld_examples *examples);

#endif
