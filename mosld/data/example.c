/* mosld/data/example.c - see example.h. The rows of questions are made in question.c. */
#include "mosld/data/example.h"

#include "mosld/data/encode.h"
#include "mosld/data/prompt.h"
#include "mosld/text/textbuf.h"
#include "mosld/text/tokenizer.h"

#include <stdlib.h>
#include <string.h>

/* The labels of ids [from, to) are the ids themselves. */
static void mark(struct draft *d, size_t from, size_t to)
{
    for (size_t i = from; i < to && i < d->n; i++)
        d->labels[i] = d->ids[i];
}

/* A draft's labels, none set. */
static enum rt_status start_labels(struct draft *d, struct rt_error *err)
{
    d->labels = malloc((d->n ? d->n : 1) * sizeof *d->labels);
    if (!d->labels)
        return rt_fail(err, RT_NO_MEMORY, "out of memory");
    for (size_t i = 0; i < d->n; i++)
        d->labels[i] = MOSLD_NO_LABEL;
    return RT_OK;
}

static enum rt_status add_end_token(const struct example_job *job, struct draft *d, struct rt_error *err)
{
    const int32_t end = mosld_tokenizer_eos(job->encoder->tokenizer);
    if (end == MOSLD_NO_TOKEN)
        return rt_fail(err, RT_BAD_FILE, "the tokenizer names no end token, which a completion ends with");
    int32_t *ids = reallocarray(d->ids, d->n + 1, sizeof *ids);
    if (!ids)
        return rt_fail(err, RT_NO_MEMORY, "out of memory");
    d->ids = ids;
    ids[d->n++] = end;
    return RT_OK;
}

/* prompt|completion, and the end token if wanted. The buffers are changed. */
static enum rt_status draft_pair(const struct example_job *job, struct text_buf *prompt, struct text_buf *completion,
                                 bool end, struct draft *d, struct rt_error *err)
{
    size_t begin;
    if (!prompt_move_spaces(prompt, completion))
        return rt_fail(err, RT_NO_MEMORY, "out of memory");
    enum rt_status st = encode_pair(job->encoder, prompt, completion, &d->ids, &d->n, &begin, err);
    if (st == RT_OK && end)
        st = add_end_token(job, d, err);
    if (st == RT_OK)
        st = start_labels(d, err);
    if (st == RT_OK)
        mark(d, job->options->completion_only_loss ? begin : 0, d->n);
    return st;
}

static enum rt_status draft_text(const struct example_job *job, struct draft *d, struct rt_error *err)
{
    const char *text = job->record->text;
    enum rt_status st = encode_text(job->encoder, text, strlen(text), NULL, &d->ids, &d->n, err);
    if (st == RT_OK)
        st = start_labels(d, err);
    if (st == RT_OK)
        mark(d, 0, d->n);
    return st;
}

/* Messages through the chat template, which says what the assistant says. */
static enum rt_status draft_chat(const struct example_job *job, const struct mosld_record_message *messages, size_t n,
                                 bool only_answers, struct draft *d, struct rt_error *err)
{
    uint8_t *answered = NULL;
    if (!job->encoder->chat)
        return rt_fail(err, RT_BAD_FILE,
                       "messages need a chat template, and the model has none: name one with "
                       "--chat-template");
    enum rt_status st = encode_chat(job->encoder, messages, n, &d->ids, &answered, &d->n, err);
    if (st == RT_OK)
        st = start_labels(d, err);
    for (size_t i = 0; st == RT_OK && i < d->n; i++)
        if (!only_answers || answered[i])
            d->labels[i] = d->ids[i];
    free(answered);
    return st;
}

/* "prompt" and "answer" as a chat of two turns. */
static enum rt_status draft_turn(const struct example_job *job, const char *instruction, const char *input,
                                 const char *answer, struct draft *d, struct rt_error *err)
{
    struct text_buf user = {0};
    enum rt_status st = RT_OK;
    if (!prompt_user_message(&user, instruction, input) || !text_buf_terminate(&user))
        st = rt_fail(err, RT_NO_MEMORY, "out of memory");
    if (st == RT_OK) {
        const struct mosld_record_message messages[] = {{"user", user.data}, {"assistant", answer}};
        st = draft_chat(job, messages, 2, job->options->completion_only_loss, d, err);
    }
    text_buf_finish(&user);
    return st;
}

/* Instructions, and prompts with completions: what prompt_format has a say in. */
static enum rt_status draft_instruction(const struct example_job *job, struct draft *d, struct rt_error *err)
{
    const struct mosld_record *r = job->record;
    const bool instruction = r->kind == MOSLD_RECORD_INSTRUCTION;
    const char *ask = instruction ? r->instruction : r->prompt, *answer = instruction ? r->output : r->completion;
    enum mosld_prompt_format format = job->options->prompt_format;
    if (format == MOSLD_PROMPT_AUTO)
        format = !instruction ? MOSLD_PROMPT_PLAIN : job->encoder->chat ? MOSLD_PROMPT_CHAT : MOSLD_PROMPT_ALPACA;
    if (format == MOSLD_PROMPT_CHAT && !job->encoder->chat)
        return rt_fail(err, RT_USAGE,
                       "--prompt-format chat: the model has no chat template; choose alpaca or plain, or name a "
                       "template with --chat-template");
    if (format == MOSLD_PROMPT_CHAT)
        return draft_turn(job, ask, r->input, answer, d, err);
    struct text_buf prompt = {0}, completion = {0};
    bool made = format == MOSLD_PROMPT_ALPACA ? prompt_alpaca(&prompt, ask, r->input)
                : instruction                 ? prompt_plain_instruction(&prompt, ask, r->input)
                                              : text_buf_puts(&prompt, ask);
    enum rt_status st;
    if (made && text_buf_puts(&completion, answer))
        st = draft_pair(job, &prompt, &completion, true, d, err);
    else
        st = rt_fail(err, RT_NO_MEMORY, "out of memory");
    text_buf_finish(&prompt);
    text_buf_finish(&completion);
    return st;
}

static enum rt_status draft_right_choice(const struct example_job *job, struct draft *d, struct rt_error *err)
{
    struct text_buf prompt = {0}, completion = {0};
    enum rt_status st;
    if (prompt_question(&prompt, job->record, job->options->choice_format)
        && prompt_choice(&completion, job->record, job->record->answer, job->options->choice_format))
        st = draft_pair(job, &prompt, &completion, false, d, err);
    else
        st = rt_fail(err, RT_NO_MEMORY, "out of memory");
    text_buf_finish(&prompt);
    text_buf_finish(&completion);
    return st;
}

static enum rt_status check_ids(const int32_t *ids, size_t n, uint32_t vocab_size, const char *key,
                                struct rt_error *err)
{
    for (size_t i = 0; vocab_size && i < n; i++)
        if (ids[i] != MOSLD_NO_LABEL && (uint32_t)ids[i] >= vocab_size)
            return rt_fail(err, RT_BAD_FILE, "\"%s\": item %zu is %d, but the model's vocabulary ends at %u", key, i,
                           ids[i], vocab_size - 1);
    return RT_OK;
}

static enum rt_status draft_tokens(const struct example_job *job, struct draft *d, struct rt_error *err)
{
    const struct mosld_record *r = job->record;
    const int32_t *labels = r->labels ? r->labels : r->ids;
    enum rt_status st = check_ids(r->ids, r->n_ids, job->encoder->vocab_size, "input_ids", err);
    if (st == RT_OK)
        st = check_ids(labels, r->n_ids, job->encoder->vocab_size, "labels", err);
    if (st != RT_OK)
        return st;
    d->n = r->n_ids;
    d->ids = malloc(d->n * sizeof *d->ids);
    if (!d->ids)
        return rt_fail(err, RT_NO_MEMORY, "out of memory");
    memcpy(d->ids, r->ids, d->n * sizeof *d->ids);
    st = start_labels(d, err);
    if (st == RT_OK)
        memcpy(d->labels, labels, d->n * sizeof *d->labels);
    return st;
}

static enum rt_status draft_plain(const struct example_job *job, struct draft *d, struct rt_error *err)
{
    const struct mosld_record *r = job->record;
    switch (r->kind) {
    case MOSLD_RECORD_TOKENS: return draft_tokens(job, d, err);
    case MOSLD_RECORD_MESSAGES:
        return draft_chat(job, r->messages, r->n_messages,
                          job->options->completion_only_loss && job->options->assistant_only_loss, d, err);
    case MOSLD_RECORD_CHOICE: return draft_right_choice(job, d, err);
    case MOSLD_RECORD_INSTRUCTION:
    case MOSLD_RECORD_COMPLETION: return draft_instruction(job, d, err);
    case MOSLD_RECORD_TEXT: return draft_text(job, d, err);
    }
    return RT_FAILED;
}

/* Adds the draft, cut to max_length, or counts it as skipped. */
static enum rt_status take_plain(struct mosld_examples *x, const struct example_job *job, struct draft *d,
                                 struct rt_error *err)
{
    if (job->options->max_length && d->n > job->options->max_length) {
        d->n = job->options->max_length;
        x->counts.truncated++;
    }
    size_t targets = 0;
    for (size_t i = 1; i < d->n; i++)
        targets += d->labels[i] != MOSLD_NO_LABEL;
    enum rt_status st = encode_check_ids(job->encoder, d->ids, d->n, err);
    if (st != RT_OK)
        return st;
    if (targets == 0) {
        examples_count_skipped(x, job->record);
        return RT_OK;
    }
    if (!examples_reserve(x, d->n, 0))
        return rt_fail(err, RT_NO_MEMORY, "no memory for %zu tokens more than %zu", d->n, x->n_tokens);
    struct mosld_example e = {.first = x->n_tokens,
                              .n_tokens = (uint32_t)d->n,
                              .n_targets = (uint32_t)targets,
                              .first_choice = x->n_choices,
                              .line = job->record->line};
    memcpy(x->tokens + x->n_tokens, d->ids, d->n * sizeof *d->ids);
    memcpy(x->labels + x->n_tokens, d->labels, d->n * sizeof *d->labels);
    examples_push(x, &e);
    return RT_OK;
}

enum rt_status mosld_examples_add(struct mosld_examples *examples, const struct mosld_encoder *encoder,
                                  const struct mosld_example_options *options, const struct mosld_record *record,
                                  struct rt_error *err)
{
    const struct example_job job = {encoder, options, record};
    struct draft d = {0};
    enum rt_status st;
    if (!encoder->tokenizer && record->kind != MOSLD_RECORD_TOKENS)
        st = rt_fail(err, RT_BAD_FILE, "a %s record needs a tokenizer, and the model has none: give input_ids",
                     mosld_record_kind_name(record->kind));
    else if (record->kind == MOSLD_RECORD_CHOICE && options->score_choices)
        st = add_question(examples, &job, err);
    else
        st = draft_plain(&job, &d, err);
    if (st == RT_OK && d.ids)
        st = take_plain(examples, &job, &d, err);
    free(d.ids);
    free(d.labels);
    if (st != RT_OK)
        return rt_error_prefix(err, "%s: line %zu", record->file, record->line), st;
    examples->counts.records++;
    return RT_OK;
}
