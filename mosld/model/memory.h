/* mosld/model/memory.h - what a model, its adapter and a pass take of a device, before any of it is allocated, and how much of a training pass
 * is computed twice so that it fits. Sizes are bytes. */
#ifndef MOSLD_MEMORY_H
#define MOSLD_MEMORY_H

#include "mosld/model/pass.h"

/* Gradient checkpointing: as few layers are computed again as fit the device's memory; all but one; none. */
enum mosld_checkpointing { MOSLD_CHECKPOINT_AUTO, MOSLD_CHECKPOINT_TRUE, MOSLD_CHECKPOINT_FALSE };
extern const char *const mosld_checkpointing_names[]; /* ended by NULL */

struct mosld_memory {
    uint64_t weights, adapter, activations, cache, scratch, staging; /* cache: of keys and values, in generation */
    uint32_t trained, recomputed; /* layers, in training: have a backward; are computed again in it */
    double again;                 /* how much a training step's products grow by that: 0.29 is 29 % */
    uint64_t parameters, model_parameters; /* trainable; of the model */
};
uint64_t mosld_memory_total(const struct mosld_memory *memory);

/* Of what has been created, whether committed or not. `adapter` may be NULL. */
void mosld_memory_of(const struct mosld_model *model, const struct mosld_adapter *adapter, const struct mosld_pass *pass, struct mosld_memory *out);

/* mosld_pass_create for training, with params->recomputed chosen. AUTO, where not even all layers but one make it fit: as TRUE; the caller
 * compares the total with the device's memory. */
enum rt_status mosld_pass_create_fitting(struct mosld_model *model, struct mosld_adapter *adapter, const struct mosld_pass_params *params,
                                         enum mosld_checkpointing checkpointing, struct mosld_pass **out, struct rt_error *err);

struct mosld_memory_request {
    const struct mosld_model_file *file; /* may be without weights: mosld_model_file_open_shapes */
    int weights;                         /* MOSLD_WEIGHTS_AS_FILE or an enum op_wtype */
    uint32_t positions;
    const struct mosld_adapter_params *adapter; /* NULL: none */
    const struct mosld_adapter_params *more;    /* [n_more]: in generation, others that are loaded beside it */
    uint32_t n_more;
    bool given_mask;
    enum mosld_checkpointing checkpointing;     /* where pass.trains */
    struct mosld_pass_params pass;
};

/* Lays all of it out on the device, allocates nothing, and says what it would take. RT_NO_MEMORY: a piece is larger than the device's
 * largest buffer or binding. */
enum rt_status mosld_memory_plan(struct rt_device *dev, const struct mosld_memory_request *request, struct mosld_memory *out, struct rt_error *err);

#endif
