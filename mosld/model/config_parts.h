/* mosld/model/config_parts.h - what config.c, config_json.c and config_gguf.c share. */
#ifndef MOSLD_CONFIG_PARTS_H
#define MOSLD_CONFIG_PARTS_H

#include "mosld/model/config.h"

/* Upper ends of the ranges. They are far above any model and small enough that no product of sizes wraps. */
enum {
    CONFIG_MAX_VOCAB = 1 << 22,
    CONFIG_MAX_HIDDEN = 1 << 16,
    CONFIG_MAX_INTERMEDIATE = 1 << 20,
    CONFIG_MAX_LAYERS = 1024,
    CONFIG_MAX_HEADS = 1024,
    CONFIG_MAX_POSITIONS = 1 << 24,
};
#define CONFIG_MAX_EPS 0.1
#define CONFIG_MAX_THETA 1e12
#define CONFIG_MAX_ROPE_FACTOR 1e4

/* Derives what follows from the fields read (head_dim where it is 0, max_positions, qkv_bias, qk_norm) and checks how
 * they fit. */
enum rt_status config_finish(struct mosld_config *config, const char *path, struct rt_error *err);

/* Adds an end id unless it is there; false where the list is full. */
static inline bool config_add_eos(struct mosld_config *config, int64_t id)
{
    for (uint32_t i = 0; i < config->n_eos; i++)
        if (config->eos_id[i] == id)
            return true;
    if (config->n_eos == MOSLD_MAX_EOS)
        return false;
    config->eos_id[config->n_eos++] = id;
    return true;
}

#endif
