/* mosld/text/tokenizer.h - text to token ids and back, as the model's own tokenizer does it.
 *
 * Two families: byte-level BPE (GPT-2, Llama 3, Qwen, SmolLM) and SentencePiece BPE with byte fallback (Llama 2,
 * Mistral, TinyLlama), from a Hugging Face directory or from GGUF. The ids are those of Hugging Face's tokenizers on a
 * Python str. What a file asks for and we do not have (another model, an unknown pre-tokenizer or normalizer) is
 * refused with its name; nothing is ignored but what does not touch plain encoding (truncation, padding, tokens that a
 * post-processor puts behind the text: records say where they end).
 *
 * Text is UTF-8, given with its length, and may hold NULs. Broken UTF-8 in it becomes U+FFFD, one for each maximal
 * broken part, as Python's errors="replace" does it before Hugging Face's tokenizers see the text.
 *
 * Special tokens are looked for in the text as it came, also where a file marks them as `normalized`.
 * A tokenizer does not change once it is open: any number of threads may use it. */
#ifndef MOSLD_TEXT_TOKENIZER_H
#define MOSLD_TEXT_TOKENIZER_H

#include "runtime/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct gguf;
struct mosld_tokenizer;

/* No token: what the getters below return where the model has none. */
#define MOSLD_NO_TOKEN (-1)

/* Opens the tokenizer of a Hugging Face directory: tokenizer.json; tokenizer_config.json, special_tokens_map.json,
 * generation_config.json and chat_template.jinja (or chat_template.json) where they exist.
 * RT_BAD_FILE with file, field and what is wrong; RT_NO_MEMORY. *out is NULL then. */
enum rt_status mosld_tokenizer_open_dir(const char *dir, struct mosld_tokenizer **out, struct rt_error *err);

/* Opens the tokenizer in a GGUF file (tokenizer.ggml.*, see mosld/io/gguf.h), which is not needed afterwards. */
enum rt_status mosld_tokenizer_open_gguf(const struct gguf *file, struct mosld_tokenizer **out, struct rt_error *err);

/* Opens the tokenizer of a model: a directory, or a .gguf file, which is opened and closed again. */
enum rt_status mosld_tokenizer_open(const char *path, struct mosld_tokenizer **out, struct rt_error *err);

/* NULL is fine. */
void mosld_tokenizer_close(struct mosld_tokenizer *t);

enum mosld_bos {
    MOSLD_BOS_AUTO, /* put the beginning token in front when the model's files say so */
    MOSLD_BOS_NEVER,
    MOSLD_BOS_ALWAYS, /* RT_USAGE when the model has none */
};

/* Bytes [start, end) of a text. */
struct mosld_text_range {
    size_t start, end;
};

struct mosld_encode_params {
    enum mosld_bos bos;
    /* Text that spells a special token, such as <|im_end|>: true gives the token, false plain text. Added tokens that
     * are not special (Qwen3's <think>, for one) are always found. */
    bool parse_special;
    /* With parse_special false, the places where special tokens are found all the same: for templates around text
     * that is not to be trusted. Sorted, not overlapping; the text must be valid UTF-8 then (RT_USAGE). */
    const struct mosld_text_range *special_ranges;
    size_t special_range_count;
};

/* Encodes text[0..len). Sets *ids (malloc'd: free() it; not NULL also when *count is 0) and *count.
 * `params` NULL: bos AUTO, parse_special true, which is what calling a Hugging Face tokenizer does.
 * RT_USAGE for a text above 1 GiB, RT_FAILED when a regular expression of the file hits its limit, RT_NO_MEMORY. */
enum rt_status mosld_tokenizer_encode(const struct mosld_tokenizer *t, const char *text, size_t len,
                                      const struct mosld_encode_params *params, int32_t **ids, size_t *count,
                                      struct rt_error *err);

/* Decodes ids. Sets *text (malloc'd, with a NUL behind it) and *len; the bytes are what the tokens stand for and need
 * not be whole UTF-8. skip_special leaves control tokens out. The space that SentencePiece models put in front of a
 * text goes away again. RT_USAGE for an id outside the vocabulary; ids in its gaps give nothing. */
enum rt_status mosld_tokenizer_decode(const struct mosld_tokenizer *t, const int32_t *ids, size_t count,
                                      bool skip_special, char **text, size_t *len, struct rt_error *err);

/* Decodes token by token, and gives only whole characters out. */
struct mosld_text_stream;

/* `continues`: what comes follows other text (a prompt), so a space in front of it stays. */
enum rt_status mosld_text_stream_create(const struct mosld_tokenizer *t, bool skip_special, bool continues,
                                        struct mosld_text_stream **out, struct rt_error *err);

/* Takes the next id. *text, *len: the characters that are whole now (perhaps none), valid UTF-8 with U+FFFD for what
 * never can become a character; they stay until the next call. Errors as mosld_tokenizer_decode. */
enum rt_status mosld_text_stream_push(struct mosld_text_stream *s, int32_t id, const char **text, size_t *len,
                                      struct rt_error *err);

/* What is left at the end: U+FFFD for a character that was cut off, or nothing. */
enum rt_status mosld_text_stream_finish(struct mosld_text_stream *s, const char **text, size_t *len,
                                        struct rt_error *err);

void mosld_text_stream_destroy(struct mosld_text_stream *s);

/* Ids run from 0 to this - 1. A model may have more embedding rows (padding), never fewer. */
int32_t mosld_tokenizer_vocab_size(const struct mosld_tokenizer *t);

/* A piece as the file writes it (byte-level alphabet, U+2581), not terminated; NULL for an id without one. */
const char *mosld_tokenizer_piece(const struct mosld_tokenizer *t, int32_t id, size_t *len);

/* The id of a piece as the file writes it, or MOSLD_NO_TOKEN. */
int32_t mosld_tokenizer_find(const struct mosld_tokenizer *t, const char *piece, size_t len);

bool mosld_tokenizer_is_special(const struct mosld_tokenizer *t, int32_t id);

int32_t mosld_tokenizer_bos(const struct mosld_tokenizer *t);
int32_t mosld_tokenizer_eos(const struct mosld_tokenizer *t);
int32_t mosld_tokenizer_pad(const struct mosld_tokenizer *t);

/* Whether MOSLD_BOS_AUTO puts the beginning token in front. */
bool mosld_tokenizer_adds_bos(const struct mosld_tokenizer *t);

/* The tokens that end a generation: the end token, those of generation_config.json (or GGUF's eot and eom ids), and
 * special tokens with the known names of ends of turn (<|im_end|>, <|eot_id|>, ...). The array lives as long as t. */
const int32_t *mosld_tokenizer_ends(const struct mosld_tokenizer *t, size_t *count);
bool mosld_tokenizer_is_end(const struct mosld_tokenizer *t, int32_t id);

/* The model's chat template (Jinja), or NULL. */
const char *mosld_tokenizer_chat_template(const struct mosld_tokenizer *t);

#endif
