/* mosld/text/bpe.h - byte-pair encoding of one word: symbols, merges, the order in which they happen.
 *
 * Two ways to say what merges: a list of pairs, earlier first (byte-level BPE and Hugging Face's files), or scores of
 * the merged piece, higher first (SentencePiece). Equal ranks merge from left to right. Every merge costs O(log n), so
 * a word of a megabyte is no attack. */
#ifndef MOSLD_TEXT_BPE_H
#define MOSLD_TEXT_BPE_H

#include "mosld/text/vocab.h"

/* One pair of pieces and what it becomes. */
struct bpe_pair {
    uint32_t left, right, merged; /* ids; left is VOCAB_NONE in a free slot of the table */
    uint32_t rank;                /* 0 merges first */
};

/* Table of pairs. A zeroed struct is empty. */
struct bpe_merges {
    struct bpe_pair *table; /* open addressing, cap a power of two */
    size_t cap, count;
};

/* Adds the pair with the next rank. A pair that is there already keeps its rank, as in Hugging Face's. False when
 * memory is out. */
bool bpe_merges_add(struct bpe_merges *m, uint32_t left, uint32_t right, uint32_t merged);

/* The pair, or NULL when it does not merge. */
const struct bpe_pair *bpe_merges_find(const struct bpe_merges *m, uint32_t left, uint32_t right);

void bpe_merges_finish(struct bpe_merges *m);

/* A piece of the word; `len` is 0 once it was merged into the one on its left. */
struct bpe_symbol {
    uint32_t id;         /* VOCAB_NONE: no piece (yet) */
    uint32_t start, len; /* bytes of the word's text */
    uint32_t prev, next; /* neighbours' indices, VOCAB_NONE at the ends */
};

/* A merge that may happen. */
struct bpe_candidate {
    uint32_t key;  /* smaller first */
    uint32_t left; /* index of the left symbol; the right one is its neighbour */
    uint32_t len;  /* bytes of both together: tells whether they are still the same symbols */
    uint32_t id;   /* what they become */
};

/* Work space, kept from word to word. A zeroed struct is empty. */
struct bpe_work {
    struct bpe_symbol *symbols;
    size_t count, cap;
    struct bpe_candidate *heap;
    size_t heap_count, heap_cap;
};

struct bpe_model {
    const struct vocab *vocab;
    const struct bpe_merges *merges; /* NULL: by score of the merged text */
};

/* Appends a symbol behind the others. False when memory is out. */
bool bpe_push(struct bpe_work *work, uint32_t id, uint32_t start, uint32_t len);

/* Merges the symbols of `work` until nothing merges any more. `text` is what the symbols' start and len mean; it is
 * read only when merging by score. False when memory is out. Walk the result from symbol 0 through `next`. */
bool bpe_merge(const struct bpe_model *model, const char *text, struct bpe_work *work);

void bpe_work_finish(struct bpe_work *work);

#endif
