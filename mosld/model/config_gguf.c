/* mosld/model/config_gguf.c - reads a config from GGUF metadata. See config.h. */
#include "mosld/io/gguf.h"
#include "mosld/model/config_parts.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* general.architecture. Mistral's GGUFs are of the architecture llama. */
static const struct {
    const char *name;
    enum mosld_arch arch;
} archs[] = {{"llama", MOSLD_LLAMA}, {"qwen2", MOSLD_QWEN2}, {"qwen3", MOSLD_QWEN3}};

struct reader {
    const struct gguf *g;
    const char *arch;
    struct mosld_config *c;
    struct rt_error *err;
};

/* The architecture's own key, "llama.block_count". */
struct key {
    char text[80];
};
static struct key key_of(const struct reader *r, const char *name)
{
    struct key key;
    snprintf(key.text, sizeof key.text, "%s.%s", r->arch, name);
    return key;
}

static bool string_is(struct gguf_string s, const char *text)
{
    return s.size == strlen(text) && memcmp(s.data, text, s.size) == 0;
}

static enum rt_status read_arch(struct reader *r)
{
    struct gguf_string name = {0};
    enum rt_status st = gguf_get_string(r->g, "general.architecture", &name, r->err);
    if (st != RT_OK)
        return st;
    for (size_t i = 0; i < sizeof archs / sizeof *archs; i++) {
        if (string_is(name, archs[i].name)) {
            r->arch = archs[i].name;
            r->c->arch = archs[i].arch;
            return RT_OK;
        }
    }
    return rt_fail(r->err, RT_BAD_FILE,
                   "%s: the architecture %.*s is not supported; of GGUF files mosld runs llama, qwen2 and qwen3",
                   gguf_path(r->g), name.size < 100 ? (int)name.size : 100, name.data);
}

/* Whole models only: no adapter, no vision tower, no later part of several. */
static enum rt_status check_kind(const struct reader *r)
{
    int64_t part;
    enum rt_status st = gguf_get_integer_or(r->g, "split.no", 0, 65535, 0, &part, r->err);
    if (st == RT_OK && part > 0)
        st = rt_fail(r->err, RT_BAD_FILE, "%s: is part %lld of a model: give the first, NAME-00001-of-NNNNN.gguf, which opens the others",
                     gguf_path(r->g), (long long)part + 1);
    struct gguf_string type = {0};
    if (st == RT_OK && gguf_find_key(r->g, "general.type"))
        st = gguf_get_string(r->g, "general.type", &type, r->err);
    if (st == RT_OK && type.data && !string_is(type, "model"))
        st = rt_fail(r->err, RT_BAD_FILE, "%s: general.type is %.*s; a model is needed", gguf_path(r->g),
                     type.size < 60 ? (int)type.size : 60, type.data);
    return st;
}

enum when_missing { REQUIRED = -1 };

static enum rt_status read_u32(const struct reader *r, const char *name, int64_t max, int64_t fallback, uint32_t *out)
{
    struct key key = key_of(r, name);
    int64_t value = 0;
    enum rt_status st = fallback == REQUIRED ? gguf_get_integer(r->g, key.text, 1, max, &value, r->err)
                                             : gguf_get_integer_or(r->g, key.text, 1, max, fallback, &value, r->err);
    *out = (uint32_t)value;
    return st;
}

static enum rt_status read_sizes(struct reader *r)
{
    struct mosld_config *c = r->c;
    enum rt_status st = read_u32(r, "embedding_length", CONFIG_MAX_HIDDEN, REQUIRED, &c->hidden_size);
    if (st == RT_OK)
        st = read_u32(r, "block_count", CONFIG_MAX_LAYERS, REQUIRED, &c->num_layers);
    if (st == RT_OK)
        st = read_u32(r, "feed_forward_length", CONFIG_MAX_INTERMEDIATE, REQUIRED, &c->intermediate_size);
    if (st == RT_OK)
        st = read_u32(r, "attention.head_count", CONFIG_MAX_HEADS, REQUIRED, &c->num_heads);
    if (st == RT_OK)
        st = read_u32(r, "attention.head_count_kv", CONFIG_MAX_HEADS, c->num_heads, &c->num_kv_heads);
    if (st == RT_OK)
        st = read_u32(r, "attention.key_length", MOSLD_MAX_HEAD_DIM, 0, &c->head_dim);
    if (st == RT_OK)
        st = read_u32(r, "context_length", CONFIG_MAX_POSITIONS, REQUIRED, &c->declared_positions);
    if (st == RT_OK)
        st = read_u32(r, "attention.sliding_window", CONFIG_MAX_POSITIONS, 0, &c->sliding_window);
    c->slides_everywhere = c->arch == MOSLD_LLAMA || c->arch == MOSLD_MISTRAL; /* of Qwen's the file does not say from which layer on */
    if (st == RT_OK)
        st = gguf_get_number(r->g, key_of(r, "attention.layer_norm_rms_epsilon").text, 1e-30, CONFIG_MAX_EPS,
                             &c->rms_norm_eps, r->err);
    return st;
}

/* The embedding's rows; a file without weights (a vocabulary) says it in its keys. */
static enum rt_status read_vocab(struct reader *r)
{
    const struct gguf_tensor *embed = gguf_find_tensor(r->g, "token_embd.weight");
    const struct gguf_key *tokens = gguf_find_key(r->g, "tokenizer.ggml.tokens");
    r->c->tie_word_embeddings = !gguf_find_tensor(r->g, "output.weight");
    if (!embed && !tokens)
        return read_u32(r, "vocab_size", CONFIG_MAX_VOCAB, REQUIRED, &r->c->vocab_size);
    uint64_t rows = embed ? embed->dims[1] : tokens->count;
    if (rows < 1 || rows > CONFIG_MAX_VOCAB)
        return rt_fail(r->err, RT_BAD_FILE, "%s: has a vocabulary of %llu, 1 to %d are possible", gguf_path(r->g),
                       (unsigned long long)rows, CONFIG_MAX_VOCAB);
    r->c->vocab_size = (uint32_t)rows;
    return RT_OK;
}

/* ---- rotary embedding ---- */

/* Llama 3's scaling, worked out by the converter: a divisor for each frequency. */
static enum rt_status read_divisors(struct reader *r)
{
    const struct gguf_tensor *t = gguf_find_tensor(r->g, "rope_freqs.weight");
    if (!t)
        return RT_OK;
    struct mosld_config *c = r->c;
    if (c->rope != MOSLD_ROPE_DEFAULT)
        return rt_fail(r->err, RT_BAD_FILE, "%s: has rope_freqs.weight and %s rope scaling; mosld runs one of them",
                       gguf_path(r->g), mosld_rope_name(c->rope));
    if (t->dtype != DTYPE_F32 || t->elements != c->head_dim / 2)
        return rt_fail(r->err, RT_BAD_FILE,
                       "%s: tensor rope_freqs.weight: has %llu elements of %s, %u of F32 are needed", gguf_path(r->g),
                       (unsigned long long)t->elements, dtype_name(t->dtype), c->head_dim / 2);
    dtype_to_f32(t->dtype, t->data, t->elements, c->rope_divisors);
    for (uint32_t i = 0; i < c->head_dim / 2; i++)
        if (!(c->rope_divisors[i] >= 1e-6f && c->rope_divisors[i] <= 1e6f))
            return rt_fail(r->err, RT_BAD_FILE, "%s: tensor rope_freqs.weight: element %u is %g, it must be positive",
                           gguf_path(r->g), i, c->rope_divisors[i]);
    c->rope = MOSLD_ROPE_DIVISORS;
    return RT_OK;
}

static enum rt_status read_scaling(struct reader *r)
{
    struct key key = key_of(r, "rope.scaling.type"), old = key_of(r, "rope.scale_linear"),
               factor = key_of(r, "rope.scaling.factor");
    struct gguf_string type = {.data = "none", .size = 4};
    enum rt_status st = gguf_find_key(r->g, key.text) ? gguf_get_string(r->g, key.text, &type, r->err) : RT_OK;
    if (st != RT_OK)
        return st;
    if (string_is(type, "linear") || (string_is(type, "none") && gguf_find_key(r->g, old.text))) {
        const char *name = gguf_find_key(r->g, factor.text) ? factor.text : old.text;
        st = gguf_get_number(r->g, name, 1, CONFIG_MAX_ROPE_FACTOR, &r->c->rope_factor, r->err);
        r->c->rope = r->c->rope_factor == 1 ? MOSLD_ROPE_DEFAULT : MOSLD_ROPE_LINEAR;
        return st;
    }
    if (string_is(type, "none"))
        return RT_OK;
    return rt_fail(r->err, RT_BAD_FILE,
                   "%s: the rope scaling %.*s (%s) is not supported; of GGUF files mosld runs linear, and "
                   "rope_freqs.weight",
                   gguf_path(r->g), type.size < 40 ? (int)type.size : 40, type.data, key.text);
}

static enum rt_status read_rope(struct reader *r)
{
    uint32_t dims;
    enum rt_status st = gguf_get_number_or(r->g, key_of(r, "rope.freq_base").text, 1, CONFIG_MAX_THETA, 10000,
                                           &r->c->rope_theta, r->err);
    if (st == RT_OK)
        st = read_u32(r, "rope.dimension_count", 1 << 16, r->c->head_dim, &dims);
    if (st == RT_OK && dims != r->c->head_dim)
        st = rt_fail(r->err, RT_BAD_FILE, "%s: %s is %u and heads have %u: partial rotary embedding is not supported",
                     gguf_path(r->g), key_of(r, "rope.dimension_count").text, dims, r->c->head_dim);
    if (st == RT_OK)
        st = read_scaling(r);
    return st == RT_OK ? read_divisors(r) : st;
}

/* ---- the rest ---- */

static enum rt_status check_refused(const struct reader *r)
{
    static const struct {
        const char *name, *what;
    } refused[] = {
        {"expert_count", "a mixture of experts"},       {"logit_scale", "scaled logits"},
        {"attention.scale", "a scale of its own for attention"}, {"residual_scale", "scaled residuals"},
        {"embedding_scale", "a scaled embedding"},      {"attn_logit_softcapping", "capped attention logits"},
        {"final_logit_softcapping", "capped logits"},   {"attention.key_length_mla", "latent attention"},
    };
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        struct key key = key_of(r, refused[i].name);
        double value;
        enum rt_status st = gguf_get_number_or(r->g, key.text, -HUGE_VAL, HUGE_VAL, 0, &value, r->err);
        if (st == RT_OK && value != 0)
            st = rt_fail(r->err, RT_BAD_FILE, "%s: %s is %g: %s is not supported", gguf_path(r->g), key.text, value,
                         refused[i].what);
        if (st != RT_OK)
            return st;
    }
    return RT_OK;
}

static enum rt_status check_value_length(const struct reader *r)
{
    uint32_t length;
    enum rt_status st = read_u32(r, "attention.value_length", 1 << 16, r->c->head_dim, &length);
    if (st == RT_OK && length != r->c->head_dim)
        st = rt_fail(r->err, RT_BAD_FILE, "%s: keys have %u elements a head and values %u; mosld needs them equal",
                     gguf_path(r->g), r->c->head_dim, length);
    return st;
}

static enum rt_status read_special(struct reader *r)
{
    static const char *const ends[] = {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id"};
    int64_t last = (int64_t)r->c->vocab_size - 1;
    enum rt_status st = gguf_get_integer_or(r->g, "tokenizer.ggml.bos_token_id", 0, last, -1, &r->c->bos_id, r->err);
    for (size_t i = 0; i < sizeof ends / sizeof *ends && st == RT_OK; i++) {
        int64_t id;
        st = gguf_get_integer_or(r->g, ends[i], 0, last, -1, &id, r->err);
        if (st == RT_OK && id >= 0)
            config_add_eos(r->c, id);
    }
    return st;
}

enum rt_status mosld_config_from_gguf(const struct gguf *g, struct mosld_config *out, struct rt_error *err)
{
    *out = (struct mosld_config){.bos_id = -1};
    struct reader r = {.g = g, .c = out, .err = err};
    enum rt_status st = check_kind(&r);
    if (st == RT_OK)
        st = read_arch(&r);
    if (st == RT_OK)
        st = read_sizes(&r);
    if (st == RT_OK)
        st = read_vocab(&r);
    if (st == RT_OK)
        st = config_finish(out, gguf_path(g), err); /* the rest needs head_dim */
    if (st == RT_OK)
        st = check_value_length(&r);
    if (st == RT_OK)
        st = check_refused(&r);
    if (st == RT_OK)
        st = read_rope(&r);
    return st == RT_OK ? read_special(&r) : st;
}
