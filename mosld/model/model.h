/* mosld/model/model.h - a LLaMA-family decoder's frozen weights in device memory.
 *
 * d = hidden size, F = intermediate size, H and Hk = query and key/value heads, D = head size, V = vocabulary. */
#ifndef MOSLD_MODEL_H
#define MOSLD_MODEL_H

#include "mosld/adapter/params.h"
#include "mosld/model/config.h"
#include "mosld/ops/weight.h"
#include "runtime/rt.h"

struct mosld_model_file;

struct mosld_layer {
    struct op_weight linear[MOSLD_LINEARS]; /* [d_out, d_in] */
    struct rt_span bias[3];                 /* of q, k, v: f32 [d_out]; null spans where the model has none */
    struct rt_span input_norm, post_norm;   /* f32 [d] */
    struct rt_span q_norm, k_norm;          /* f32 [D]; null spans where the model has none */
    char forward_label[32], backward_label[32];
};

struct mosld_model {
    struct mosld_config config;
    struct rt_device *dev;
    struct rt_arena *arena;
    struct mosld_layer *layers;
    struct op_weight embed;      /* [V, d] */
    struct op_weight head;       /* [V, d]; the embedding itself when tied */
    struct rt_span norm;         /* f32 [d] */
    struct rt_span rope_table;   /* f32 [positions, D / 2, 2] */
    uint32_t positions;          /* how long a sequence may be in this run */
    uint64_t parameters;
};

/* The weight type of the device: that of the file, or one of op_wtype. */
#define MOSLD_WEIGHTS_AS_FILE (-1)

/* Lays the weights out and asks for their memory: needs the config and the tensors' types alone. `positions`: the longest sequence of the
 * run. `weights`: MOSLD_WEIGHTS_AS_FILE, or an enum op_wtype to convert matrices to (RT_USAGE where rows do not fill its blocks). The caller destroys *out also after an error. */
enum rt_status mosld_model_create(struct rt_device *dev, const struct mosld_model_file *file, uint32_t positions, int weights,
                                  struct mosld_model **out, struct rt_error *err);
/* Allocates and streams the weights in, repacking a chunk at a time. */
enum rt_status mosld_model_load(struct mosld_model *model, const struct mosld_model_file *file, struct rt_error *err);
/* Types of its weights, and f32, which an adapter's matrices are: for op_prepare. */
uint32_t mosld_model_wtypes(const struct mosld_model *model);
void mosld_model_destroy(struct mosld_model **model);

#endif
