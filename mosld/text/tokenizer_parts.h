/* mosld/text/tokenizer_parts.h - the inside of a tokenizer, for the files that read, encode and decode. Nobody else
 * includes it. */
#ifndef MOSLD_TEXT_TOKENIZER_PARTS_H
#define MOSLD_TEXT_TOKENIZER_PARTS_H

#include "mosld/text/added.h"
#include "mosld/text/bpe.h"
#include "mosld/text/normalize.h"
#include "mosld/text/pretokenize.h"
#include "mosld/text/tokenizer.h"
#include "mosld/text/vocab.h"

#define TOKENIZER_MAX_ENDS 16

struct mosld_tokenizer {
    struct vocab vocab;
    struct bpe_merges merges;
    struct added_tokens added;
    struct normalizer normalizer;
    struct pretokenizer pretokenizer;

    bool by_score;      /* merge by score instead of by pairs */
    bool byte_level;    /* pieces are written in GPT-2's byte alphabet */
    bool byte_fallback; /* what has no piece becomes its bytes' <0xNN> */
    bool ignore_merges; /* a word that is a piece needs no merging (Llama 3) */
    bool fuse_unknown;  /* several unknown characters in a row are one unknown token */
    bool strip_space;   /* decoding takes one space from the beginning */
    bool add_bos;

    uint32_t byte_piece[256];        /* id of each byte's piece, byte level or fallback; VOCAB_NONE */
    uint32_t unknown, bos, eos, pad; /* VOCAB_NONE where there is none */
    int32_t ends[TOKENIZER_MAX_ENDS];
    size_t end_count;
    char *chat_template; /* NULL where there is none */
};

/* An empty tokenizer with every id VOCAB_NONE, or NULL. */
struct mosld_tokenizer *tokenizer_new(void);

/* Adds a token that is found in text. Its piece is added to the vocabulary, or marked there when it exists with this
 * id. RT_BAD_FILE (without a file name) when text and id disagree with the vocabulary. */
enum rt_status tokenizer_add_token(struct mosld_tokenizer *t, struct added_token token, struct rt_error *err);

/* Adds the merge of two pieces with the next rank. RT_BAD_FILE (without file or index) when the vocabulary lacks one of
 * them or what they make. */
enum rt_status tokenizer_add_merge(struct mosld_tokenizer *t, const char *left, size_t left_len, const char *right,
                                   size_t right_len, struct rt_error *err);

/* To be called when all pieces and tokens are there: byte pieces, search order, ends. RT_BAD_FILE (without a file name)
 * when a byte-level vocabulary lacks a printable ASCII character, or byte fallback lacks a byte. */
enum rt_status tokenizer_complete(struct mosld_tokenizer *t, struct rt_error *err);

/* Adds an id to the list of ends unless it stands there; one that does not fit is dropped. */
void tokenizer_add_end(struct mosld_tokenizer *t, uint32_t id);

/* Code point of a byte in GPT-2's alphabet: printable Latin-1 stands for itself, the others count up from U+0100. */
uint32_t tokenizer_byte_char(uint8_t byte);

/* The byte that a code point stands for, or -1. */
int tokenizer_char_byte(uint32_t c);

/* The word cut of a known model, by GGUF's name for it (gpt-2, llama-bpe, qwen2, smollm); sets also what goes with it
 * (ignore_merges, normal form, beginning token). RT_BAD_FILE naming an unknown one. */
enum rt_status tokenizer_use_pre(struct mosld_tokenizer *t, const char *pre, struct rt_error *err);

/* GPT-2's word cut. */
extern const char tokenizer_gpt2_regex[];

/* Reads the parts of tokenizer.json that are pipelines (normalizer, pre_tokenizer, decoder, post_processor). */
struct cJSON;
enum rt_status tokenizer_read_normalizer(struct mosld_tokenizer *t, const struct cJSON *node, struct rt_error *err);
enum rt_status tokenizer_read_pretokenizer(struct mosld_tokenizer *t, const struct cJSON *node, struct rt_error *err);
enum rt_status tokenizer_read_decoder(struct mosld_tokenizer *t, const struct cJSON *node, struct rt_error *err);
enum rt_status tokenizer_read_post(struct mosld_tokenizer *t, const struct cJSON *node, struct rt_error *err);

/* `node` is one entry of added_tokens; its id is given apart, because tokenizer_config.json has it as the key. */
enum rt_status tokenizer_read_added(struct mosld_tokenizer *t, const struct cJSON *node, uint32_t id,
                                    struct rt_error *err);

/* tokenizer.json as text, with no files beside it; call tokenizer_complete afterwards. Messages name the field, not the
 * file. */
enum rt_status tokenizer_read_json(struct mosld_tokenizer *t, const char *text, size_t len, struct rt_error *err);

/* What GGUF holds, as plain arrays. Nothing is kept. */
struct tokenizer_gguf {
    const char *model, *pre; /* C strings; pre NULL when absent */
    size_t count;            /* of tokens, and of types and scores where they are not NULL */
    const char *(*token)(const void *context, size_t i, size_t *len);
    const int32_t *types; /* 1 normal, 2 unknown, 3 control, 4 user defined, 5 unused, 6 byte; NULL: all normal */
    const float *scores;  /* "llama" needs them */
    size_t merge_count;
    const char *(*merge)(const void *context, size_t i, size_t *len);
    const void *context;                      /* given to token and merge */
    int64_t bos, eos, unknown, pad, eot, eom; /* -1 when absent */
    int add_bos, add_space_prefix;            /* 0, 1, or -1 when absent */
    const char *chat_template;                /* NULL when absent */
};

/* Builds a tokenizer from them. Messages name the key, not the file. */
enum rt_status tokenizer_read_gguf(struct mosld_tokenizer *t, const struct tokenizer_gguf *g, struct rt_error *err);

#endif
