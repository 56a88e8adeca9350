/* mosld/model/config.h - what a model is, apart from its numbers, read from config.json or from GGUF metadata.
 *
 * Architectures: LLaMA (Llama 2 and 3, SmolLM2, TinyLlama), Mistral, Qwen2 (and 2.5), Qwen3. Whatever else a file asks
 * for that mosld does not run is refused by name, never ignored: another architecture, a rope scaling other than linear
 * and llama3, quantised Hugging Face weights, experts, biases where the family has none, another activation. Every
 * number is range-checked, so that sizes made of these fields (vocab_size * hidden_size, ...) fit 64 bits. */
#ifndef MOSLD_CONFIG_H
#define MOSLD_CONFIG_H

#include "runtime/error.h"

#include <stdbool.h>
#include <stdint.h>

struct gguf;

enum mosld_arch { MOSLD_LLAMA, MOSLD_MISTRAL, MOSLD_QWEN2, MOSLD_QWEN3, MOSLD_ARCHS };

enum mosld_rope {
    MOSLD_ROPE_DEFAULT,
    MOSLD_ROPE_LINEAR,  /* positions divided by factor */
    MOSLD_ROPE_LLAMA3,  /* low frequencies divided by factor, high ones kept, a ramp between */
    MOSLD_ROPE_DIVISORS /* frequency i divided by divisors[i]: GGUF's rope_freqs, which is how it has Llama 3's scaling
                         */
};

#define MOSLD_MAX_EOS 16
#define MOSLD_MAX_HEAD_DIM 512

struct mosld_config {
    enum mosld_arch arch;
    uint32_t vocab_size;        /* rows of the embedding; a tokenizer may have fewer */
    uint32_t hidden_size;
    uint32_t intermediate_size;
    uint32_t num_layers;
    uint32_t num_heads;
    uint32_t num_kv_heads;      /* divides num_heads */
    uint32_t head_dim;          /* even, <= MOSLD_MAX_HEAD_DIM; num_heads * head_dim need not be hidden_size */
    uint32_t max_positions;     /* how long a sequence may be: the next, cut at a window, up to which it hides nothing */
    uint32_t declared_positions; /* what the file says */
    uint32_t sliding_window;    /* the window where it cut max_positions, else 0 */
    bool slides_everywhere;     /* all layers have that window: a sequence that is generated may be longer */
    double rms_norm_eps;        /* GGUF's is an f32 */
    double rope_theta;
    enum mosld_rope rope;
    double rope_factor;                                /* linear, llama3 */
    double rope_low_freq_factor, rope_high_freq_factor; /* llama3 */
    uint32_t rope_original_positions;                  /* llama3 */
    float rope_divisors[MOSLD_MAX_HEAD_DIM / 2];       /* divisors: [head_dim / 2] */
    bool tie_word_embeddings;
    bool qkv_bias;              /* Qwen2 */
    bool qk_norm;               /* Qwen3: RMSNorm of each head of q and k */
    int64_t bos_id;             /* -1: none named */
    uint32_t n_eos;
    int64_t eos_id[MOSLD_MAX_EOS]; /* config.json's and generation_config.json's */
    char dtype[16];             /* what config.json says the weights are, or "" */
};

/* How long a sequence of generation may be: what the file says, where the cache's attention heeds the window. */
static inline uint32_t mosld_config_longest(const struct mosld_config *c)
{
    return c->sliding_window && c->slides_everywhere ? c->declared_positions : c->max_positions;
}

const char *mosld_arch_name(enum mosld_arch arch); /* "llama" */
const char *mosld_rope_name(enum mosld_rope rope); /* "default" */

/* Reads the config of a Hugging Face folder or a .gguf file; no weight is looked at. RT_BAD_FILE names file and key. */
enum rt_status mosld_config_load(const char *path, struct mosld_config *out, struct rt_error *err);
enum rt_status mosld_config_from_folder(const char *folder, struct mosld_config *out, struct rt_error *err);
enum rt_status mosld_config_from_json(const char *path, struct mosld_config *out, struct rt_error *err); /* a config.json alone */
enum rt_status mosld_config_from_gguf(const struct gguf *g, struct mosld_config *out, struct rt_error *err);

/* Inverse frequencies of RoPE, scaling applied: the angle of position p and pair i is p * inv_freq[i]. inv_freq:
 * [head_dim / 2]. */
void mosld_config_inv_freq(const struct mosld_config *config, double *inv_freq);

/* Weights of the whole model, embedding and (untied) head included. */
uint64_t mosld_config_parameters(const struct mosld_config *config);

#endif
