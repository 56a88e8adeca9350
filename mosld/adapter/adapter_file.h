/* mosld/adapter/adapter_file.h - adapters on disk: adapter_config.json and adapter_model.safetensors, as docs/files.md
 * has them.
 *
 * Tensor names are PEFT's: base_model.model.model.layers.N.self_attn.q_proj.lora_A.weight [r, d_in], lora_B.E.weight
 * [d_out, r] for expert E, lora_router.weight [E, d_in]; a LoRA (one expert, no router) has lora_B.weight, and PEFT
 * loads it. */
#ifndef MOSLD_ADAPTER_FILE_H
#define MOSLD_ADAPTER_FILE_H

#include "mosld/adapter/adapter.h"

/* Reads adapter_config.json of a folder. RT_BAD_FILE names file and key, also for what PEFT knows and mosld does not
 * run (bias, rank patterns, modules_to_save, DoRA ...). */
enum rt_status mosld_adapter_read_params(const char *dir, struct mosld_adapter_params *params, struct rt_error *err);
/* base_model: the name or path of the model, for whoever reads the file. */
enum rt_status mosld_adapter_write_params(const struct mosld_adapter_params *params, uint32_t layers,
                                          const char *base_model, const char *dir, struct rt_error *err);

/* Reads adapter_model.safetensors of a folder into an adapter of the same parameters: every tensor must be there, with
 * its shape, and no other. */
enum rt_status mosld_adapter_read(struct mosld_adapter *adapter, const char *dir, struct rt_error *err);
enum rt_status mosld_adapter_write(const struct mosld_adapter *adapter, const char *base_model, const char *dir,
                                   struct rt_error *err);

/* Vectors laid out like the adapter's values (a gradient, the moments), each from word `offset` of `vector` on, in one
 * file under the adapter's tensor names with `suffix` behind them ("" for none). */
struct mosld_adapter_vector {
    struct rt_span vector;
    uint64_t offset;
    const char *suffix;
};
enum rt_status mosld_adapter_write_vectors(const struct mosld_adapter *adapter,
                                           const struct mosld_adapter_vector *vectors, uint32_t n, const char *path,
                                           struct rt_error *err);
enum rt_status mosld_adapter_read_vectors(struct mosld_adapter *adapter, const struct mosld_adapter_vector *vectors,
                                          uint32_t n, const char *path, struct rt_error *err);

/* Masks of 0 and 1 (u8 [r, d_in], under the name of each lora_A tensor) into adapter->mask. */
enum rt_status mosld_adapter_read_masks(struct mosld_adapter *adapter, const char *path, struct rt_error *err);

#endif
