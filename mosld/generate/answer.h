/* mosld/generate/answer.h - one answer while it is being made: which token comes next, what ends it, its text so far.
 *
 * Who runs the model asks for logits after answer->seen[0 .. n_seen) and hands them to mosld_answer_next, until answer->done. That is all of prompt and answer, but where
 * a full context is shifted: then the first params.keep tokens and the newer half of the others, as if the rest had never been said. Nothing here
 * knows a device, so any number of answers can be under way at once. */
#ifndef MOSLD_ANSWER_H
#define MOSLD_ANSWER_H

#include "mosld/generate/sample.h"
#include "mosld/text/tokenizer.h"

#define MOSLD_MAX_STOPS 16
#define MOSLD_MAX_TOP_LOGPROBS 20

struct mosld_answer_params {
    struct mosld_sample_params sampling; /* what it points to must outlive the answer */
    uint32_t max_new_tokens;             /* 0: until something else ends it */
    uint32_t context;                    /* tokens of prompt and answer together */
    bool shift;                          /* a full context does not end it: see above */
    uint32_t keep;                       /* tokens that a shift leaves in front; less than the context */
    const int32_t *ends;                 /* tokens that end it and are not part of it */
    size_t n_ends;
    const char *const *stops;            /* texts that end it and are not part of it, wherever tokens are cut; not empty; copied */
    uint32_t n_stops;                    /* <= MOSLD_MAX_STOPS */
    bool logprobs;
    uint32_t top_logprobs;               /* of the likeliest tokens at each place; <= MOSLD_MAX_TOP_LOGPROBS */
    bool continues;                      /* follows other text: a space in front stays */
};

enum mosld_answer_stop {
    MOSLD_ANSWER_END,     /* an end token, or a stop text */
    MOSLD_ANSWER_LENGTH,  /* max_new_tokens */
    MOSLD_ANSWER_CONTEXT, /* the context is full, and not shifted */
    MOSLD_ANSWER_ASKED,   /* mosld_answer_stop */
};

struct mosld_answer {
    struct mosld_answer_params params;
    int32_t *ids; /* prompt and answer */
    uint32_t n_prompt, n_ids;
    const int32_t *seen; /* what the model sees: ids, or after a shift its own memory. A call may move it */
    uint32_t n_seen, dropped; /* n_seen = n_ids - dropped */
    char *text;   /* of the answer, with a NUL behind; valid UTF-8 */
    size_t len;
    size_t safe;  /* so much of it stays: what is behind may be the beginning of a stop text */
    bool done;
    enum mosld_answer_stop stop;
    const char *stop_text;     /* the one that ended it, or NULL */
    float *logprobs;           /* of each token of the answer */
    struct mosld_logprob *top; /* [tokens, top_logprobs] */
    uint32_t n_top;            /* top_logprobs, or the vocabulary where that is smaller */
    /* inside */
    struct mosld_text_stream *stream;
    char *stops[MOSLD_MAX_STOPS];
    float *copy; /* of the logits, for their log-probabilities */
    uint32_t cap_ids, cap_shifted;
    int32_t *shifted; /* NULL: nothing has been dropped */
    size_t cap_text;
};

/* RT_USAGE: an empty prompt, one that leaves no place in the context, too many stops or an empty one, sampling out of range. */
enum rt_status mosld_answer_create(const struct mosld_tokenizer *tokenizer, const int32_t *prompt, size_t n,
                                   const struct mosld_answer_params *params, struct mosld_answer **out, struct rt_error *err);
/* Takes the logits [V] (and changes them) and chooses the next token, which then is the last of ids; or finds that it is done. */
enum rt_status mosld_answer_next(struct mosld_answer *a, float *logits, uint32_t V, struct rt_error *err);
/* Ends it where it is. */
enum rt_status mosld_answer_stop(struct mosld_answer *a, struct rt_error *err);
void mosld_answer_destroy(struct mosld_answer **a); /* NULL is fine */

static inline uint32_t mosld_answer_tokens(const struct mosld_answer *a) { return a->n_ids - a->n_prompt; }

#endif
