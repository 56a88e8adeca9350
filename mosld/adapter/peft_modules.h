/* mosld/adapter/peft_modules.h - which modules a PEFT configuration means, with which rank and alpha, and how to write it down again.
 *
 * PEFT says it with names and regular expressions: target_modules and exclude_modules (a list of names, each matching a module's whole
 * name or the end of it behind a dot; or one expression that must match the whole name), layers_to_transform (numbers, for a list), and
 * rank_pattern and alpha_pattern (expressions that must match the name, or its end behind a dot; the first that does counts). A name is
 * model.layers.N.self_attn.q_proj. The expressions are Python's; PCRE2 reads them, with limits on its work. */
#ifndef MOSLD_ADAPTER_PEFT_MODULES_H
#define MOSLD_ADAPTER_PEFT_MODULES_H

#include "mosld/adapter/params.h"

#include <cjson/cJSON.h>

/* Sets targets, and sizes where modules differ; r and lora_alpha, already read, hold where no pattern does, and r becomes the largest
 * rank. RT_BAD_FILE names file and key: a name or an expression that no linear module of a decoder layer has, or one that also means
 * others (lm_head, embed_tokens), a faulty expression, a rank out of range. */
enum rt_status peft_modules_read(const cJSON *json, const char *path, struct mosld_adapter_params *p, struct rt_error *err);

/* Adds r, lora_alpha, target_modules, rank_pattern and alpha_pattern, so that PEFT means the same modules of `layers` layers. */
void peft_modules_write(cJSON *json, const struct mosld_adapter_params *p, uint32_t layers);

#endif
