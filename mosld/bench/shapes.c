/* mosld/bench/shapes.c - the named shapes: see shapes.h. */
#include "mosld/bench/shapes.h"

#include <stdio.h>
#include <string.h>

/* V, d, F, layers, H, Hk, D: the letters of mosld/model/model.h. */
static const struct {
    const char *name;
    enum mosld_arch arch;
    uint32_t V, d, F, layers, H, Hk, D, positions;
    double theta, eps;
    bool tied;
} shapes[] = {
    {"tiny", MOSLD_LLAMA, 512, 64, 160, 3, 4, 2, 16, 2048, 1e4, 1e-5,
     true}, /* no model's: for a quick look, and for tests */
    {"smollm2-135m", MOSLD_LLAMA, 49152, 576, 1536, 30, 9, 3, 64, 8192, 1e5, 1e-5, true},
    {"smollm2-360m", MOSLD_LLAMA, 49152, 960, 2560, 32, 15, 5, 64, 8192, 1e5, 1e-5, true},
    {"smollm2-1.7b", MOSLD_LLAMA, 49152, 2048, 8192, 24, 32, 32, 64, 8192, 1.3e5, 1e-5, true},
    {"tinyllama-1.1b", MOSLD_LLAMA, 32000, 2048, 5632, 22, 32, 4, 64, 2048, 1e4, 1e-5, false},
    {"qwen2.5-0.5b", MOSLD_QWEN2, 151936, 896, 4864, 24, 14, 2, 64, 32768, 1e6, 1e-6, true},
    {"qwen3-0.6b", MOSLD_QWEN3, 151936, 1024, 3072, 28, 16, 8, 128, 40960, 1e6, 1e-6, true},
    {"llama-3.2-1b", MOSLD_LLAMA, 128256, 2048, 8192, 16, 32, 8, 64, 131072, 5e5, 1e-5, true},
    {"llama-3.2-3b", MOSLD_LLAMA, 128256, 3072, 8192, 28, 24, 8, 128, 131072, 5e5, 1e-5, true},
    {"llama-3.1-8b", MOSLD_LLAMA, 128256, 4096, 14336, 32, 32, 8, 128, 131072, 5e5, 1e-5, false},
    {"llama-2-7b", MOSLD_LLAMA, 32000, 4096, 11008, 32, 32, 32, 128, 4096, 1e4, 1e-5, false},
    {"mistral-7b", MOSLD_MISTRAL, 32768, 4096, 14336, 32, 32, 8, 128, 32768, 1e6, 1e-5, false},
};
#define N_SHAPES (sizeof shapes / sizeof *shapes)

const char *mosld_shapes_names(char *text, size_t size)
{
    size_t used = 0;
    for (size_t i = 0; i < N_SHAPES && used < size; i++)
        used += (size_t)snprintf(text + used, size - used, "%s%s", i ? ", " : "", shapes[i].name);
    return text;
}

enum rt_status mosld_shapes_config(const char *name, struct mosld_config *out, struct rt_error *err)
{
    char names[512];
    for (size_t i = 0; i < N_SHAPES; i++)
        if (strcmp(shapes[i].name, name) == 0) {
            /* Scaling of RoPE changes numbers and no shape, so none has it here. */
            *out = (struct mosld_config){.arch = shapes[i].arch,
                                         .vocab_size = shapes[i].V,
                                         .hidden_size = shapes[i].d,
                                         .intermediate_size = shapes[i].F,
                                         .num_layers = shapes[i].layers,
                                         .num_heads = shapes[i].H,
                                         .num_kv_heads = shapes[i].Hk,
                                         .head_dim = shapes[i].D,
                                         .max_positions = shapes[i].positions,
                                         .declared_positions = shapes[i].positions,
                                         .rms_norm_eps = shapes[i].eps,
                                         .rope_theta = shapes[i].theta,
                                         .rope = MOSLD_ROPE_DEFAULT,
                                         .tie_word_embeddings = shapes[i].tied,
                                         .qkv_bias = shapes[i].arch == MOSLD_QWEN2,
                                         .qk_norm = shapes[i].arch == MOSLD_QWEN3,
                                         .bos_id = -1};
            return RT_OK;
        }
    return rt_fail(err, RT_USAGE, "there are no shapes called %s; there are %s", name,
                   mosld_shapes_names(names, sizeof names));
}
