/* mosld/data/encode.h - inside mosld/data: from text to ids, and the pieces that example.c and question.c share.
 *
 * Messages name no file: mosld_examples_add puts file and line in front. Arrays that come out are the caller's to
 * free(), also after an error, and NULL where there are none. */
#ifndef MOSLD_DATA_ENCODE_H
#define MOSLD_DATA_ENCODE_H

#include "mosld/data/example.h"
#include "mosld/text/textbuf.h"

struct mosld_encode_params;

/* What a record is made into an example with. */
struct example_job {
    const struct mosld_encoder *encoder;
    const struct mosld_example_options *options;
    const struct mosld_record *record;
};

/* A row in the making. */
struct draft {
    int32_t *ids, *labels; /* [n] */
    size_t n;
};

/* RT_BAD_FILE where an id is outside the model's vocabulary. */
enum rt_status encode_check_ids(const struct mosld_encoder *encoder, const int32_t *ids, size_t n,
                                struct rt_error *err);

/* As mosld_tokenizer_encode. */
enum rt_status encode_text(const struct mosld_encoder *encoder, const char *text, size_t len,
                           const struct mosld_encode_params *params, int32_t **ids, size_t *n, struct rt_error *err);

/* Encodes prompt and completion as one text. *begin: where the ids of the prompt alone end, or differ. The completion's
 * bytes are appended to `prompt`. */
enum rt_status encode_pair(const struct mosld_encoder *encoder, struct text_buf *prompt,
                           const struct text_buf *completion, int32_t **ids, size_t *n, size_t *begin,
                           struct rt_error *err);

/* Encodes a conversation through the chat template. *answered [n]: 1 where a token belongs to a turn of the assistant
 * or its end. */
enum rt_status encode_chat(const struct mosld_encoder *encoder, const struct mosld_record_message *messages,
                           size_t n_messages, int32_t **ids, uint8_t **answered, size_t *n, struct rt_error *err);

/* Adds a multiple choice record with all its choices. */
enum rt_status add_question(struct mosld_examples *examples, const struct example_job *job, struct rt_error *err);

/* Makes room for one row of that size. False: out of memory. */
bool examples_reserve(struct mosld_examples *examples, size_t tokens, size_t choices);

/* Takes the row whose tokens, labels and choices have been written behind the last ones. */
void examples_push(struct mosld_examples *examples, const struct mosld_example *example);

void examples_count_skipped(struct mosld_examples *examples, const struct mosld_record *record);

#endif
