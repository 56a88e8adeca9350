/* mosld/adapter/export.h - a LoRA in the forms that other programs read. */
#ifndef MOSLD_ADAPTER_EXPORT_H
#define MOSLD_ADAPTER_EXPORT_H

#include "mosld/adapter/lora_file.h"
#include "mosld/model/model_file.h"

#define MOSLD_EXPORT_AS_FILE DTYPES /* the type that each tensor has */

/* A PEFT folder with adapter_config.json and adapter_model.safetensors; dtype F32, F16, BF16 or as in the file. */
enum rt_status mosld_export_peft(const struct mosld_lora_file *lora, enum dtype dtype, const char *base_model, const char *dir,
                                 struct rt_error *err);

/* A GGUF file as llama.cpp's --lora takes it: blk.N.NAME.weight.lora_a and .lora_b, rows of q and k in the order of interleaved RoPE
 * where the architecture is llama, adapter.lora.alpha for all modules alike (what differs goes into B). dtype F32 (as in the file: also
 * F32), F16 or BF16. `model` gives the architecture. */
enum rt_status mosld_export_gguf(const struct mosld_lora_file *lora, const struct mosld_model_file *model, enum dtype dtype,
                                 const char *path, struct rt_error *err);

/* The model with W0 + s B A in place of W0: of a Hugging Face folder a folder (F32, F16 or BF16), of a GGUF file a GGUF file (also Q8_0,
 * Q4_0, Q4_1; norms stay as they are). As in the file: each matrix in its own type, or Q8_0 where mosld cannot quantise to that. */
enum rt_status mosld_export_merged(const struct mosld_lora_file *lora, const struct mosld_model_file *model, enum dtype dtype,
                                   const char *path, struct rt_error *err);

#endif
