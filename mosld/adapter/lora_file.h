/* mosld/adapter/lora_file.h - a LoRA on disk, module by module, without a device: what export and merging read.
 *
 * Only adapters without a router: the B of a mixture depends on the token, so it is no product of two fixed matrices. */
#ifndef MOSLD_ADAPTER_LORA_FILE_H
#define MOSLD_ADAPTER_LORA_FILE_H

#include "mosld/adapter/params.h"
#include "mosld/io/safetensors.h"
#include "mosld/model/config.h"

struct mosld_lora_module {
    uint32_t layer;
    enum mosld_linear linear;
    uint32_t r, d_in, d_out;
    double scale;                 /* s */
    const struct safetensor *a, *b; /* [r, d_in], [d_out, r], of F32, F16 or BF16, all finite */
};

struct mosld_lora_file {
    struct mosld_adapter_params params;
    char *base_model; /* base_model_name_or_path, or NULL */
    struct safetensors *tensors;
    struct mosld_lora_module *modules; /* by layer, then by linear */
    uint32_t n_modules, layers;        /* layers: up to the last one with a module */
};

/* RT_BAD_FILE as adapter_file.h has it, with shapes checked against each other alone; RT_USAGE for a mixture, with what to do instead.
 * *out is NULL after an error. */
enum rt_status mosld_lora_open(const char *dir, struct mosld_lora_file **out, struct rt_error *err);
void mosld_lora_close(struct mosld_lora_file **lora); /* NULL is fine */

/* Whether it fits the model: its shapes, and every module that the parameters name there. */
enum rt_status mosld_lora_check_model(const struct mosld_lora_file *lora, const char *dir, const struct mosld_config *config,
                                      struct rt_error *err);
/* NULL: the module has no adapter. */
const struct mosld_lora_module *mosld_lora_find(const struct mosld_lora_file *lora, uint32_t layer, enum mosld_linear linear);

/* Adds s B[row] A to a row of the weight: w [d_in]. a: [r, d_in], b: [d_out, r], as f32. */
void mosld_lora_add_row(const struct mosld_lora_module *m, const float *a, const float *b, uint32_t row, float *w);
/* A and B as f32, in one block that the caller frees: A first, then B. NULL: out of memory. */
float *mosld_lora_values(const struct mosld_lora_module *m);

#endif
