/* mosld/model/config.c - what both sources of a config share; config_json.c and config_gguf.c read them. */
#include "mosld/model/config.h"

#include "mosld/io/file.h"
#include "mosld/io/gguf.h"
#include "mosld/model/config_parts.h"

#include <math.h>

static const char *const arch_names[MOSLD_ARCHS] = {"llama", "mistral", "qwen2", "qwen3"};

const char *mosld_arch_name(enum mosld_arch arch)
{
    return (unsigned)arch < MOSLD_ARCHS ? arch_names[arch] : "unknown";
}

const char *mosld_rope_name(enum mosld_rope rope)
{
    static const char *const names[] = {"default", "linear", "llama3", "divisors"};
    return (unsigned)rope < sizeof names / sizeof *names ? names[rope] : "unknown";
}

enum rt_status mosld_config_load(const char *path, struct mosld_config *out, struct rt_error *err)
{
    if (file_is_folder(path))
        return mosld_config_from_folder(path, out, err);
    struct gguf *g;
    enum rt_status st = gguf_open(path, &g, err);
    if (st != RT_OK)
        return st;
    st = mosld_config_from_gguf(g, out, err);
    gguf_close(&g);
    return st;
}

enum rt_status config_finish(struct mosld_config *c, const char *path, struct rt_error *err)
{
    if (c->head_dim == 0) {
        if (c->hidden_size % c->num_heads != 0)
            return rt_fail(err, RT_BAD_FILE,
                           "%s: the hidden size %u is no multiple of the %u attention heads, and no head size is given",
                           path, c->hidden_size, c->num_heads);
        c->head_dim = c->hidden_size / c->num_heads;
    }
    if (c->head_dim % 2 != 0 || c->head_dim > MOSLD_MAX_HEAD_DIM)
        return rt_fail(err, RT_BAD_FILE, "%s: the head size is %u; mosld runs even ones up to %d", path, c->head_dim,
                       MOSLD_MAX_HEAD_DIM);
    if (c->num_heads % c->num_kv_heads != 0)
        return rt_fail(err, RT_BAD_FILE, "%s: %u attention heads are no multiple of %u key-value heads", path,
                       c->num_heads, c->num_kv_heads);
    c->qkv_bias = c->arch == MOSLD_QWEN2;
    c->qk_norm = c->arch == MOSLD_QWEN3;
    c->max_positions = c->declared_positions;
    if (c->sliding_window > 0 && c->sliding_window < c->declared_positions)
        c->max_positions = c->sliding_window; /* up to there the window hides nothing */
    else
        c->sliding_window = 0;
    return RT_OK;
}

/* As Transformers computes it: wavelengths below original / high keep their frequency, those above original / low are
 * slowed by the factor. */
static double llama3_frequency(const struct mosld_config *c, double frequency)
{
    double wavelength = 2 * M_PI / frequency, original = c->rope_original_positions;
    double low = c->rope_low_freq_factor, high = c->rope_high_freq_factor;
    if (wavelength > original / low)
        return frequency / c->rope_factor;
    if (wavelength < original / high)
        return frequency;
    double smooth = (original / wavelength - low) / (high - low);
    return (1 - smooth) * frequency / c->rope_factor + smooth * frequency;
}

void mosld_config_inv_freq(const struct mosld_config *c, double *inv_freq)
{
    for (uint32_t i = 0; i < c->head_dim / 2; i++) {
        double f = pow(c->rope_theta, -2.0 * i / c->head_dim);
        if (c->rope == MOSLD_ROPE_LINEAR)
            f /= c->rope_factor;
        else if (c->rope == MOSLD_ROPE_LLAMA3)
            f = llama3_frequency(c, f);
        else if (c->rope == MOSLD_ROPE_DIVISORS)
            f /= c->rope_divisors[i];
        inv_freq[i] = f;
    }
}

uint64_t mosld_config_parameters(const struct mosld_config *c)
{
    uint64_t d = c->hidden_size, q = (uint64_t)c->num_heads * c->head_dim, kv = (uint64_t)c->num_kv_heads * c->head_dim;
    uint64_t layer = 2 * d * q + 2 * d * kv + 3 * d * c->intermediate_size + 2 * d;
    if (c->qkv_bias)
        layer += q + 2 * kv;
    if (c->qk_norm)
        layer += 2 * (uint64_t)c->head_dim;
    return layer * c->num_layers + (c->tie_word_embeddings ? 1 : 2) * d * c->vocab_size + d;
}
