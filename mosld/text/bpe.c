/* mosld/text/bpe.c - see bpe.h. */
#include "mosld/text/bpe.h"

#include "mosld/text/textbuf.h"

#include <stdlib.h>
#include <string.h>

static size_t slot_of(const struct bpe_merges *m, uint32_t left, uint32_t right)
{
    uint64_t h = ((uint64_t)left << 32 | right) * 0x9E3779B97F4A7C15u;
    size_t mask = m->cap - 1, slot = (size_t)(h ^ h >> 32) & mask;
    while (m->table[slot].left != VOCAB_NONE && (m->table[slot].left != left || m->table[slot].right != right))
        slot = (slot + 1) & mask;
    return slot;
}

static bool grow_merges(struct bpe_merges *m)
{
    if (m->table && (m->count + 1) * 2 <= m->cap)
        return true;
    struct bpe_merges bigger = {.cap = m->cap ? m->cap * 2 : 1024, .count = m->count};
    bigger.table = malloc(bigger.cap * sizeof *bigger.table);
    if (!bigger.table)
        return false;
    memset(bigger.table, 0xFF, bigger.cap * sizeof *bigger.table);
    for (size_t i = 0; i < m->cap; i++) {
        if (m->table[i].left != VOCAB_NONE)
            bigger.table[slot_of(&bigger, m->table[i].left, m->table[i].right)] = m->table[i];
    }
    free(m->table);
    *m = bigger;
    return true;
}

bool bpe_merges_add(struct bpe_merges *m, uint32_t left, uint32_t right, uint32_t merged)
{
    if (!grow_merges(m))
        return false;
    size_t slot = slot_of(m, left, right);
    if (m->table[slot].left == VOCAB_NONE) {
        m->table[slot] = (struct bpe_pair){left, right, merged, (uint32_t)m->count};
        m->count++;
    }
    return true;
}

const struct bpe_pair *bpe_merges_find(const struct bpe_merges *m, uint32_t left, uint32_t right)
{
    if (m->cap == 0)
        return NULL;
    const struct bpe_pair *pair = &m->table[slot_of(m, left, right)];
    return pair->left == VOCAB_NONE ? NULL : pair;
}

void bpe_merges_finish(struct bpe_merges *m)
{
    free(m->table);
    *m = (struct bpe_merges){0};
}

bool bpe_push(struct bpe_work *work, uint32_t id, uint32_t start, uint32_t len)
{
    if (!text_grow((void **)&work->symbols, &work->cap, work->count, sizeof *work->symbols))
        return false;
    uint32_t i = (uint32_t)work->count++;
    work->symbols[i] = (struct bpe_symbol){id, start, len, i == 0 ? VOCAB_NONE : i - 1, VOCAB_NONE};
    if (i > 0)
        work->symbols[i - 1].next = i;
    return true;
}

/* Order of merges: by rank, then from the left. */
static bool before(const struct bpe_candidate *a, const struct bpe_candidate *b)
{
    return a->key != b->key ? a->key < b->key : a->left < b->left;
}

static bool heap_push(struct bpe_work *work, struct bpe_candidate c)
{
    if (!text_grow((void **)&work->heap, &work->heap_cap, work->heap_count, sizeof *work->heap))
        return false;
    size_t i = work->heap_count++;
    while (i > 0 && before(&c, &work->heap[(i - 1) / 2])) {
        work->heap[i] = work->heap[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    work->heap[i] = c;
    return true;
}

static struct bpe_candidate heap_pop(struct bpe_work *work)
{
    struct bpe_candidate top = work->heap[0], last = work->heap[--work->heap_count];
    size_t i = 0, n = work->heap_count;
    for (;;) {
        size_t child = 2 * i + 1;
        if (child >= n)
            break;
        if (child + 1 < n && before(&work->heap[child + 1], &work->heap[child]))
            child++;
        if (!before(&work->heap[child], &last))
            break;
        work->heap[i] = work->heap[child];
        i = child;
    }
    work->heap[i] = last;
    return top;
}

/* A float as an integer that sorts the other way round: the highest score gets the smallest key. */
static uint32_t key_of_score(float score)
{
    uint32_t bits;
    memcpy(&bits, &score, sizeof bits);
    return bits >> 31 ? bits : 0x7FFFFFFFu - bits;
}

/* Puts the merge of `left` and its right neighbour into the heap, when there is one. False when memory is out. */
static bool propose(const struct bpe_model *model, const char *text, struct bpe_work *work, uint32_t left)
{
    if (left == VOCAB_NONE || work->symbols[left].next == VOCAB_NONE)
        return true;
    const struct bpe_symbol *a = &work->symbols[left], *b = &work->symbols[a->next];
    struct bpe_candidate c = {.left = left, .len = a->len + b->len};
    if (model->merges) {
        const struct bpe_pair *pair =
            a->id == VOCAB_NONE || b->id == VOCAB_NONE ? NULL : bpe_merges_find(model->merges, a->id, b->id);
        if (!pair)
            return true;
        c.key = pair->rank;
        c.id = pair->merged;
    } else {
        if (c.len > model->vocab->max_len)
            return true;
        c.id = vocab_find(model->vocab, text + a->start, c.len);
        if (c.id == VOCAB_NONE || !(vocab_flags(model->vocab, c.id) & VOCAB_MODEL))
            return true;
        c.key = key_of_score(model->vocab->pieces[c.id].score);
    }
    return heap_push(work, c);
}

/* Whether a candidate is still true after other merges: by pairs, when what now stands there becomes the same piece
 * (as Hugging Face's asks); by score, when both symbols are the same (they only grow, so the length tells). */
static bool still_merges(const struct bpe_model *model, const struct bpe_work *work, const struct bpe_candidate *c)
{
    const struct bpe_symbol *a = &work->symbols[c->left];
    if (a->len == 0 || a->next == VOCAB_NONE)
        return false;
    const struct bpe_symbol *b = &work->symbols[a->next];
    if (!model->merges)
        return a->len + b->len == c->len;
    const struct bpe_pair *pair = bpe_merges_find(model->merges, a->id, b->id);
    return pair && pair->merged == c->id;
}

bool bpe_merge(const struct bpe_model *model, const char *text, struct bpe_work *work)
{
    work->heap_count = 0;
    for (size_t i = 0; i + 1 < work->count; i++) {
        if (!propose(model, text, work, (uint32_t)i))
            return false;
    }
    while (work->heap_count > 0) {
        struct bpe_candidate c = heap_pop(work);
        if (!still_merges(model, work, &c))
            continue;
        struct bpe_symbol *a = &work->symbols[c.left], *b = &work->symbols[a->next];
        a->id = c.id;
        a->len += b->len;
        a->next = b->next;
        if (b->next != VOCAB_NONE)
            work->symbols[b->next].prev = c.left;
        b->len = 0;
        if (!propose(model, text, work, a->prev) || !propose(model, text, work, c.left))
            return false;
    }
    return true;
}

void bpe_work_finish(struct bpe_work *work)
{
    free(work->symbols);
    free(work->heap);
    *work = (struct bpe_work){0};
}
