/* mosld/text/vocab.h - the pieces of a vocabulary: text to id and id to text.
 *
 * Ids run from 0 to vocab_size - 1 and may have gaps (ids without a piece). Piece texts are kept as the file has them
 * (in the byte-level alphabet, or with U+2581 for a space). Owns copies of all texts; vocab_finish frees. */
#ifndef MOSLD_TEXT_VOCAB_H
#define MOSLD_TEXT_VOCAB_H

#include "runtime/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* No id. */
#define VOCAB_NONE UINT32_MAX

/* Ids stop here: the largest vocabularies have some 262,000, and a damaged file must not make us allocate for 2^32. */
#define VOCAB_MAX_ID (1u << 21)

enum vocab_flags {
    VOCAB_MODEL = 1,   /* a piece of the model: merging may produce it */
    VOCAB_SPECIAL = 2, /* control token: left out of decoded text on request */
    VOCAB_ADDED = 4,   /* found in text before anything else; its text is what it stands for */
    VOCAB_BYTE = 8,    /* <0xNN>: stands for one byte */
    VOCAB_UNKNOWN = 16 /* stands for what has no piece */
};

struct vocab_piece {
    size_t offset; /* of the text in vocab.text */
    uint32_t len;  /* bytes */
    float score;   /* SentencePiece: higher merges first */
    uint8_t flags; /* enum vocab_flags */
    bool used;     /* false in a gap */
};

struct vocab {
    struct vocab_piece *pieces; /* [cap], the first `size` valid */
    size_t size, cap;
    char *text;
    size_t text_len, text_cap;
    uint32_t *table; /* open addressing: ids, VOCAB_NONE when free */
    size_t table_cap, count;
    uint32_t max_len; /* bytes of the longest piece with VOCAB_MODEL */
};

/* Adds a piece. RT_BAD_FILE without a file name when the id is taken or too large, when the text stands there under
 * another id, or when it is empty or too long; RT_NO_MEMORY. */
enum rt_status vocab_add(struct vocab *v, uint32_t id, const char *text, size_t len, float score, uint8_t flags,
                         struct rt_error *err);

/* Id of the piece with this text, or VOCAB_NONE. */
uint32_t vocab_find(const struct vocab *v, const char *text, size_t len);

/* Text of a piece (not terminated) and its length; NULL for an id without one. */
const char *vocab_text(const struct vocab *v, uint32_t id, size_t *len);

/* Flags of an id; 0 for one without a piece. */
uint8_t vocab_flags(const struct vocab *v, uint32_t id);

void vocab_finish(struct vocab *v);

#endif
