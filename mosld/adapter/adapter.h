/* mosld/adapter/adapter.h - an adapter in device memory: where each tensor lies, its start values, and what training
 * needs beside it.
 *
 * All tensors of an adapter lie side by side in one flat vector of f32 words, so that the optimizer and the gradient's
 * norm are one kernel each. The modules of a layer that read the same x form a group (q k v; o; gate up; down), and a
 * group's matrices [A ; Wg] are stacked there as they are used: one skinny product x [A ; Wg]^T serves the group.
 * Behind each group stand its modules' Bcat.
 *
 *     stack  [R, d_in], R = sum over modules of (r + E)    rows of A, then (E > 1) of the router Wg, module after
 * module Bcat   [d_out, E r]                                  column e r + i is B_e[:, i]
 *
 * Every block begins at a multiple of 256 bytes; the words between are zero and stay zero. */
#ifndef MOSLD_ADAPTER_H
#define MOSLD_ADAPTER_H

#include "mosld/adapter/params.h"
#include "mosld/model/config.h"
#include "mosld/ops/weight.h"
#include "runtime/rt.h"

enum { MOSLD_GROUP_QKV, MOSLD_GROUP_O, MOSLD_GROUP_GATE_UP, MOSLD_GROUP_DOWN, MOSLD_GROUPS };

struct mosld_adapter_group;

/* Columns and rows of a linear module's W0. */
void mosld_linear_shape(const struct mosld_config *config, enum mosld_linear linear, uint32_t *d_in, uint32_t *d_out);

struct mosld_adapter_module {
    struct mosld_adapter_group *group;
    uint32_t layer;
    enum mosld_linear linear;
    uint32_t index;         /* among all modules: where its router statistics stand */
    uint32_t d_in, d_out, r, experts; /* experts 1: no router */
    double scale;           /* s */
    uint32_t row; /* of A in the group's stack, and its first column in the group's ul; the router follows at row + r */
    uint64_t b_offset;      /* words: Bcat */
    uint64_t transposed_offset; /* words: B^T in `transposed` */
};

struct mosld_adapter_group {
    uint32_t rows, d_in;    /* R; 0: no module of the group is a target */
    uint64_t offset;        /* words: the stack in the flat vector */
    uint64_t masked_offset; /* words: the stack in `masked` */
    struct mosld_adapter_module *modules[3];
    uint32_t n_modules;
};

struct mosld_adapter {
    struct mosld_adapter_params params;
    struct rt_device *dev;
    uint32_t layers;
    struct mosld_adapter_group (*groups)[MOSLD_GROUPS]; /* [layers] */
    struct mosld_adapter_module *modules;
    uint32_t n_modules, max_rows, max_experts, lowest_layer; /* lowest_layer: no gradient is needed below it */
    uint64_t words, masked_words;
    uint32_t masked_longest; /* words of the largest [A ; Wg] of a module */
    uint64_t parameters;     /* trainable numbers, without the padding */
    struct rt_arena *arena;  /* values; for training also what follows */
    struct rt_span values;   /* the flat vector */
    struct rt_span gradient; /* like values */
    struct rt_span moments;  /* [2, words]: AdamW's m, then v */
    struct rt_span masked;   /* the stacks of this micro-step, with dropout on A; behind a group's backward, their gradients */
    struct rt_span masked_table; /* where each module's stands: see op_dropout_stacks */
    struct rt_span mask;     /* given masks, as 0 and 1: like masked; only when asked for */
    struct rt_span stats;    /* f32 [n_modules, 2 max_experts]: see op_gate */
    struct rt_span transposed; /* for generation: each module's B as [E r, d_out]; null where it was not asked for */
    uint64_t transposed_words;
    bool is_transposed;        /* `transposed` is that of the values; who changes them clears it */
    bool trains, given_mask;
};

/* Lays the adapter out for a model and asks for its memory. `trains`: with gradient and moments. The memory is there
 * after mosld_adapter_commit. RT_USAGE: the parameters do not fit. The caller destroys *out also after an error. */
enum rt_status mosld_adapter_create(struct rt_device *dev, const struct mosld_config *config,
                                    const struct mosld_adapter_params *params, bool trains, bool given_mask,
                                    struct mosld_adapter **out, struct rt_error *err);
enum rt_status mosld_adapter_commit(struct mosld_adapter *adapter, struct rt_error *err);
void mosld_adapter_destroy(struct mosld_adapter **adapter);

/* Between create and commit, for an adapter that does not train: also asks for memory for all B transposed, so that what one expert has lies together: in Bcat a router's
 * choice of two of eight experts reads two short pieces of every row. Nothing where it is too late or done. */
enum rt_status mosld_adapter_for_generation(struct mosld_adapter *adapter, struct rt_error *err);
/* Fills that memory from the values, unless it stands. */
enum rt_status mosld_adapter_transpose(struct mosld_adapter *adapter, struct rt_error *err);

/* Start values (design: A Kaiming-uniform with a = sqrt 5 or normal with std 1 / r, B zero, router normal with std
 * 0.02), drawn from Philox by (seed, layer, module, element), so that no two modules start alike. */
enum rt_status mosld_adapter_init(struct mosld_adapter *adapter, struct rt_error *err);

/* The group's stack as a weight [R, d_in]: the values, or the masked copy. */
struct op_weight mosld_adapter_stack(const struct mosld_adapter *adapter, const struct mosld_adapter_group *group,
                                     bool masked);
/* Bcat of a module as a weight [d_out, E r]. */
struct op_weight mosld_adapter_b(const struct mosld_adapter *adapter, const struct mosld_adapter_module *module);
/* A [r, d_in] and Wg [E, d_in] of a module, as they are. */
struct op_weight mosld_adapter_a(const struct mosld_adapter *adapter, const struct mosld_adapter_module *module);
struct op_weight mosld_adapter_router(const struct mosld_adapter *adapter, const struct mosld_adapter_module *module);
/* Whether the balance loss acts on the module (a router that leaves experts out, and a coefficient), and on how many it
 * does. */
bool mosld_module_balances(const struct mosld_adapter *adapter, const struct mosld_adapter_module *module);
uint32_t mosld_adapter_routers(const struct mosld_adapter *adapter);
/* Words [offset, offset + count) of one of the adapter's vectors; offset is a block's. */
struct rt_span mosld_adapter_part(struct rt_span vector, uint64_t offset, uint64_t count);

/* Columns of a group's ul: R rounded up so that rows stay aligned for vector loads. */
uint32_t mosld_group_stride(const struct mosld_adapter_group *group);

#endif
