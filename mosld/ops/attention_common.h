/* mosld/ops/attention_common.h - what the attention files and kv_cache.c share; for these files alone.
 */
#ifndef MOSLD_ATTENTION_COMMON_H
#define MOSLD_ATTENTION_COMMON_H

#include "mosld/ops/attention.h"
#include "mosld/ops/op.h"
#include "shaders/attention.h"

#include <stddef.h>

extern const struct op op_attention_desc, op_attention_bwd_desc, op_kv_append_desc, op_attention_cache_desc, op_attention_slots_desc;

/* Fails with RT_FAILED unless heads, key heads and head_dim fit each other and the kernels. */
enum rt_status attention_check(const char *op, uint32_t heads, uint32_t kv_heads, uint32_t head_dim,
                               struct rt_error *err);
static inline uint32_t attention_qkv_words(const struct attention_push *p)
{
    return (p->heads + 2 * p->kv_heads) * p->head_dim;
}
static inline uint32_t attention_stats_words(const struct attention_push *p) { return STATS_LSE + 2 * p->heads; }

/* The grid of a kernel that strides over tiles of tokens x `heads`, with its columns of output in y. */
void attention_grid(const struct attention_push *p, uint32_t heads, uint32_t out_chunks, uint32_t groups[3]);
bool attention_wide(
    const void *push); /* heads of more than 64: kernels that sum 128 columns a group make scores less often */
/* The kernels for drivers that run on the processor (`lanes`): where they run, where they pay, what they apply to (heads in whole
 * fours), and the grid, a group a head and 16 * ATTENTION_LANES_OWN rows. */
bool attention_has_lanes(const struct rt_device_info *info);
bool attention_suits_cpu(const struct rt_device_info *info);
bool attention_in_fours(const void *push);
void attention_lanes_grid(const struct attention_push *p, uint32_t heads, uint32_t groups[3]);
double attention_flops(const void *push); /* of forward, as if one sequence filled the pass */

/* ---- the cache: kv_cache.c ---- */

bool attention_kv_is_f32(const void *push);
bool attention_kv_is_f16(const void *push);
bool attention_kv_is_q8_0(const void *push);
/* Fills *p from `a` and checks what all three ops have: RT_FAILED. */
enum rt_status attention_kv_check(const char *op, const struct op_attention_cache *a, struct attention_push *p, struct rt_error *err);

static inline size_t attention_kv_words(const struct attention_push *p)
{
    return op_kv_row_words((enum op_wtype)p->kv_type, p->kv_heads, p->head_dim);
}
/* The row of a position of the sequence whose table begins at word `table` of `where`. */
static inline size_t attention_kv_row(const uint32_t *where, uint32_t table, uint32_t pos)
{
    return where[table + pos / KV_BLOCK] * (size_t)KV_BLOCK + pos % KV_BLOCK;
}
/* The first position that a token at `pos` sees. */
static inline uint32_t attention_kv_first(const struct attention_push *p, uint32_t pos)
{
    return p->window && pos >= p->window ? pos - p->window + 1 : 0;
}

/* ---- references: one query row ---- */

/* Number `col` of a row of the cache. */
double attention_kv_ref(const struct attention_push *p, const uint32_t *row, uint32_t col);
/* The token at `pos` of the sequence whose table begins at word `table`: q [H D] and o [H D], all heads. (attention_cache.c) */
void attention_cache_ref_token(const struct attention_push *p, const double *q, const uint32_t *cache, const uint32_t *where, uint32_t table,
                               uint32_t pos, double *o);

/* p[j] = softmax over the keys that token t sees, 0 for others; returns the log-sum-exp. `seg`: 4 words of t. NULL:
 * keys 0 .. t. */
double attention_ref_row(const double *q, const double *k, size_t k_stride, uint32_t D, double scale,
                         const uint32_t *seg, uint32_t t, double *p);

/* ---- the host: tiles of queries by blocks of keys; scores fit the level 1 cache and a thread's stack ---- */

#define ATTENTION_ROWS 64
#define ATTENTION_KEYS KV_BLOCK

/* A sequence in the cache. `room` of attention_kv_room floats: keys and values of a block as floats, where they are not. */
struct kv_source {
    const uint32_t *cache, *where;
    uint32_t table;
    float *room;
};
static inline size_t attention_kv_room(const struct attention_push *p)
{
    return p->kv_type == OP_W_F32 ? 0 : 2ull * ATTENTION_KEYS * p->head_dim;
}
struct kv_block {
    const float *k, *v;
    size_t stride;
};
/* Keys and values of positions j0 .. j0 + keys - 1 of a key head; j0 a multiple of ATTENTION_KEYS. (attention_cache.c) */
struct kv_block attention_kv_block(const struct attention_push *p, const struct kv_source *s, uint32_t kv_head, uint32_t j0, uint32_t keys);

struct attend {
    const struct attention_push *p;
    const float *q, *k, *v; /* of token 0 and head 0 */
    float *o;
    size_t q_stride, kv_stride, o_stride;
    const uint32_t *seg; /* NULL: over a cache, token t sees keys 0 .. pos0 + t, or the last `window` of them */
    size_t seg_stride;
    const struct kv_source *kv; /* not NULL: keys and values come from there instead of k and v */
};

struct key_ranges {
    uint32_t begin[2], end[2];
}; /* ascending and disjoint */
/* The keys that any of tokens t0 .. t0 + rows - 1 sees lie in these. */
struct key_ranges attention_key_ranges(const struct attend *a, uint32_t t0, uint32_t rows);

struct row_bounds {
    uint32_t begin[2], end[2];
}; /* begin[0] <= end[0] <= begin[1] <= end[1] <= keys */
/* Which of the keys j0 .. j0 + keys - 1 each of the tokens sees. False: none sees any. */
bool attention_bounds(const struct attend *a, uint32_t t0, uint32_t rows, uint32_t j0, uint32_t keys,
                      struct row_bounds *bounds);

/* Forward of one head and up to ATTENTION_ROWS tokens: writes their rows of o and, to lse[r * lse_stride] (NULL:
 * nowhere), the log-sum-exps. */
void attention_forward_tile(const struct attend *a, uint32_t head, uint32_t t0, uint32_t rows, float *lse,
                            size_t lse_stride);

/* One token (p->T is 1, its position p->pos0) over the cache on the calling thread: the query heads of one key head, with the bits that op_attention_cache
 * has. q and o of the token; `room`: attention_cache_row_floats; that of `s` is not used. (attention_cache.c) */
void attention_cache_row(const struct attention_push *p, const float *q, const struct kv_source *s, uint32_t kv_head, float *room, float *o);
size_t attention_cache_row_floats(const struct attention_push *p);

#endif
