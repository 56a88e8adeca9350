/* mosld/model/pass.h - one pass of tokens through model and adapter: forward, loss, backward, and the memory for it.
 *
 * A pass is made once for a run, for at most max_tokens tokens; each call runs one batch of packed sequences through it. In training each
 * layer keeps what its backward needs (h_in, h_mid, q k v, o, the softmax's denominators, gate and up, u and l); norms, SwiGLU, gates and z
 * are made again in backward, since reading their inputs costs less than keeping their outputs. Layers below the lowest adapter keep nothing and
 * have no backward. In evaluation all layers share one set of buffers.
 *
 * Gradient checkpointing: of the trained layers, the `recomputed` lowest keep h_in, u and l alone and share one set of the other buffers with
 * the layers below the lowest adapter and with the trained layer above them, which is computed last of all that share and so still stands there when backward comes to it.
 * Backward fills the set again, layer by layer, from h_in: the products of q k v, o, gate and up, and attention; not the product
 * of down, nor anything of the adapter but its columns of z. Nothing is drawn anew and every product has the shape that it had in forward, so
 * the gradients are the same to the bit.
 *
 * Scratch is shared where lifetimes allow, in three slots that each hold one thing at a time:
 *
 *     inputs     norm_out, act (forward, backward) | picked with picked_norm (loss)
 *     gradients  dact, then dnorm (backward)       | dpicked (loss)
 *     wide       dgu, then d_o with dqkv           | logits (loss)
 *
 * so that of these nothing outlives the call that wrote it. */
#ifndef MOSLD_PASS_H
#define MOSLD_PASS_H

#include "mosld/adapter/adapter.h"
#include "mosld/model/model.h"
#include "mosld/ops/kv_cache.h"

struct mosld_pass_params {
    uint32_t max_tokens;  /* of a pass */
    uint32_t max_targets; /* rows that go through the output head in a pass */
    uint32_t max_slice;   /* rows of logits that exist at a time; 0: chosen by vocabulary and device */
    uint32_t cache_tokens; /* generation: positions of a sequence in the key/value cache; 0: none (packed sequences) */
    uint32_t slots;        /* generation: sequences that the cache holds; 0: one */
    uint32_t cache_blocks; /* generation: blocks of KV_BLOCK positions that the sequences share; 0: enough for all slots, each its own */
    enum op_wtype cache_type; /* f32 (the default), f16 or q8_0 (heads of whole 32s) */
    struct mosld_adapter *const *adapters; /* [n_adapters]: others that may take pass->adapter's place between calls. Read by mosld_pass_create alone. */
    uint32_t n_adapters;
    uint32_t recomputed;  /* training: trained layers that are computed again in backward; at most all but one, more is cut down to that */
    bool trains;
};
#define MOSLD_RECOMPUTE_ALL UINT32_MAX

/* One batch: packed sequences. Pointers are not kept. */
struct mosld_tokens {
    uint32_t T;
    const uint32_t *tokens; /* [T], each < V */
    const uint32_t *pos;    /* [T], each < positions */
    const uint32_t *seg;    /* [T, 4]: see mosld/ops/attention.h */
    uint32_t n_targets;
    const uint32_t *target_row; /* [n_targets]: the row whose output predicts it; distinct in training */
    const uint32_t *target;     /* [n_targets], each < V */
};

struct mosld_layer_state {
    struct rt_span h_in, h_mid;       /* [T, d]: the residual stream before attention and before the MLP */
    struct rt_span qkv_raw;           /* [T, (H + 2 Hk) D], before q/k norm; only where the model has it */
    struct rt_span qkv, o, stats, gu; /* [T, (H + 2 Hk) D] after RoPE; [T, H D]; see attention.h; [T, 2 F] */
    struct rt_span ul[MOSLD_GROUPS];  /* [T, group stride] */
    struct rt_span cache;             /* [cache_blocks * KV_BLOCK rows]: mosld/ops/kv_cache.h */
};

struct mosld_slot_token;

struct mosld_pass {
    struct mosld_model *model;
    struct mosld_adapter *adapter; /* NULL: the model alone */
    struct mosld_pass_params params;
    struct rt_arena *activations, *scratch;
    struct mosld_layer_state *layers;
    struct rt_span tokens, pos, seg, target_row, target; /* u32, uploaded for each batch */
    struct rt_span where;                                /* u32 [max_tokens or slots, 2], then tables [slots, table_words]: see op_attention_cache */
    uint32_t *tables, table_words, first_table;          /* on the host; words of a slot's, and where the first begins in `where` */
    bool *table_changed;                                 /* [slots]: not yet in `where` */
    uint32_t slot;                                       /* whose cache mosld_forward_cached continues; `cached` is how much that one holds */
    const struct mosld_slot_token *mixed;                /* the current batch's tokens, where they have several adapters; else NULL */
    bool by_slot;                                        /* the current batch is a token of each of several slots */
    struct rt_span h_out;                                /* [T, d]: the residual stream behind the last layer */
    struct mosld_slots *slots;                           /* who shares which memory; pass.c's own */
    uint32_t trained;                                    /* layers from the lowest adapter up; 0: does not train */
    uint32_t sharing;                                    /* layers [0, sharing) share the set of layer 0 */
    uint32_t standing;                                   /* the layer whose activations are in that set */
    struct rt_span norm_out, act, z;                     /* scratch: [T, d], [T, F]; a group's [T, modules, E r], in backward first its gradient */
    struct rt_span picked, picked_norm, logits, loss;    /* [targets, d] twice, [slice, V], words [targets, 2] */
    struct rt_span dh, dnorm, dact, dgu, d_o, dqkv, dul, dpicked; /* training */
    struct rt_span parts; /* training: of sums that are split over workgroups (op_matmul_parts_bytes) */
    struct rt_span dropped;                              /* [T, d_in] of dropout on the input */
    struct rt_span step;                                 /* the step block, shaders/step.h */
    uint32_t T, n_targets, cached;                       /* of the current batch; cached: tokens already in the cache */
    bool training;                                       /* dropout and statistics are on in the current batch */
    uint32_t micro_steps;                                /* of the optimizer step: what the balance loss is averaged over */
};

/* Lays a pass out and asks for its memory; with a cache, also for mosld_adapter_for_generation of its adapters. The caller destroys *out also after an error. */
enum rt_status mosld_pass_create(struct mosld_model *model, struct mosld_adapter *adapter, const struct mosld_pass_params *params,
                                 struct mosld_pass **out, struct rt_error *err);
/* What it has asked for, in bytes. */
uint64_t mosld_pass_planned(const struct mosld_pass *pass);
enum rt_status mosld_pass_commit(struct mosld_pass *pass, struct rt_error *err);
void mosld_pass_destroy(struct mosld_pass **pass);

/* Runs the batch up to h_out. training: dropout is drawn (the step block says how) and what backward needs is kept. */
enum rt_status mosld_forward(struct mosld_pass *pass, const struct mosld_tokens *batch, bool training, struct rt_error *err);

/* Sends the batch's target rows through the output head, slice by slice, and leaves loss and best token of each in pass->loss (words
 * [n_targets, 2]: see mosld/ops/loss.h). grad_scale not 0: also makes pass->dh, the gradient at h_out. */
enum rt_status mosld_loss(struct mosld_pass *pass, float grad_scale, struct rt_error *err);
/* After mosld_loss with a grad_scale: adds the batch's gradients to adapter->gradient. */
enum rt_status mosld_backward(struct mosld_pass *pass, struct rt_error *err);

/* The logits of n rows of h_out (row numbers in `rows`), n <= the slice, as f32 [n, V] into `out` on the host. */
enum rt_status mosld_logits(struct mosld_pass *pass, const uint32_t *rows, uint32_t n, float *out, struct rt_error *err);
uint32_t mosld_pass_slice(const struct mosld_pass *pass);

/* Generation: runs T tokens that follow pass->cached earlier ones; their keys and values join the cache. */
enum rt_status mosld_forward_cached(struct mosld_pass *pass, const uint32_t *tokens, uint32_t T, struct rt_error *err);

/* One token each of n different slots, at most as many as a pass has tokens: row i of h_out is that of tokens[i]. Every slot holds `pos` tokens already. Each
 * has its own adapter (NULL: none), those with the same side by side; where they differ, every one of them must be one that mosld_pass_mixes takes: the products with the model's
 * weights are then one for all. pass->adapter is set; neither pass->cached nor pass->slot changes. */
struct mosld_slot_token {
    uint32_t slot, pos, token;
    struct mosld_adapter *adapter;
};
bool mosld_pass_mixes(struct mosld_pass *pass, struct mosld_adapter *adapter);
enum rt_status mosld_forward_slots(struct mosld_pass *pass, const struct mosld_slot_token *tokens, uint32_t n, struct rt_error *err);

/* The cache's blocks. With cache_blocks 0 block i of slot s is s * mosld_pass_slot_blocks + i from the start. Otherwise the caller says
 * which blocks a slot's positions lie in before they are written, and may give several slots the same where they begin alike. */
uint32_t mosld_pass_slot_blocks(const struct mosld_pass *pass); /* of cache_tokens positions */
uint64_t mosld_pass_block_bytes(const struct mosld_model *model, enum op_wtype cache_type); /* of all layers */
void mosld_pass_place_block(struct mosld_pass *pass, uint32_t slot, uint32_t index, uint32_t block);
/* Keys that a token sees at most: the model's sliding window, or all of the context. */
uint32_t mosld_pass_window(const struct mosld_pass *pass);

#endif
