/* mosld/ops/attention.h - causal grouped-query attention over packed sequences, forward and backward, and over a cache of keys.
 *
 * qkv: [T, (H + 2 Hk) D]: H query heads, Hk key heads, Hk value heads, after RoPE. Query head h reads key head h / (H / Hk).
 * Which keys a token t sees is said by seg, u32 [T, 4]: {own, prefix_begin, prefix_end, last}: the keys j with
 *
 *     own <= j <= t,   or   prefix_begin <= j < prefix_end          (prefix_end <= own: disjoint; empty where equal)
 *
 * so that sequences packed into one pass do not see each other, and several answers can share the pass over their prompt. `last`
 * is one past the last token that sees t as a key: backward looks no further.
 *
 *     o[t, h, :] = sum_j p_tj v_j,    p_t = softmax_j(scale <q_t, k_j>)
 *
 * No [T, T] matrix is stored: forward keeps the log of the softmax's denominator, and backward makes p again from it.
 * stats: 32-bit words [T, 4 + 2 H]: seg of the token, then the log-sum-exp of each head (f32), then delta_h = <do_h, o_h> (f32, by
 * backward). Masks are by index, never by adding an infinity. */
#ifndef MOSLD_ATTENTION_H
#define MOSLD_ATTENTION_H

#include "mosld/ops/kv_cache.h"

struct op_attention {
    struct rt_span qkv, seg, o, stats; /* o: [T, H D] */
    uint32_t T, heads, kv_heads, head_dim;
    float scale; /* 1 / sqrt(D) */
};
enum rt_status op_attention(struct rt_device *dev, const struct op_attention *a, struct rt_error *err);

/* d_o: [T, H D], the incoming gradient. dqkv: [T, (H + 2 Hk) D], overwritten. seg is read from stats. */
struct op_attention_bwd {
    struct op_attention a;
    struct rt_span d_o, dqkv;
};
enum rt_status op_attention_bwd(struct rt_device *dev, const struct op_attention_bwd *b, struct rt_error *err);

/* Generation: new tokens append their keys and values to a cache, and look back over it.
 *
 * cache: blocks of KV_BLOCK positions, a row a position, in one of the types of kv_cache.h. A sequence has its blocks in any order and shares them
 * with others where they begin alike: position j of it stands in row table[j / KV_BLOCK] * KV_BLOCK + j % KV_BLOCK.
 * where: u32, [T, 2] {first word of the sequence's table in `where`, position} of each token, then the tables.
 * window: a token sees the last so many positions, its own among them (Mistral's sliding window); 0: all. Blocks that none sees any more may
 * be given to others, whatever the table says of them.
 *
 * op_kv_append writes the keys and values of all T tokens: no two rows of `where` name the same row of the cache.
 * op_attention_cache: T tokens of one sequence at positions pos0 .. pos0 + T - 1; `table` is the first word of its table, as in `where`.
 * op_attention_slots: tokens of any sequences, each at its position in `where`; pos0 and table are not read. */
struct op_attention_cache {
    struct rt_span qkv, cache, where, o; /* qkv: [T, (H + 2 Hk) D] after RoPE; o: [T, H D] */
    uint32_t T, pos0, table, heads, kv_heads, head_dim, window;
    enum op_wtype type; /* of the cache */
    float scale;
};
enum rt_status op_kv_append(struct rt_device *dev, const struct op_attention_cache *a, struct rt_error *err);
enum rt_status op_attention_cache(struct rt_device *dev, const struct op_attention_cache *a, struct rt_error *err);
enum rt_status op_attention_slots(struct rt_device *dev, const struct op_attention_cache *a, struct rt_error *err);

#endif
