/* mosld/adapter/params.h - what an adapter is, apart from its numbers: the method, its sizes, and where it sits.
 *
 * The methods differ in pieces that are kept apart: whether A is shared, the gate, where dropout acts, the balance
 * loss.
 *
 *     lora   one A, one B, no router; dropout on the input of A (PEFT's lora_dropout)
 *     mosl   one A shared by E experts B_e; a router, softmax, top k
 *     mosld  the same with dropout on the weights of A (arXiv 2412.08946, equation 2) */
#ifndef MOSLD_ADAPTER_PARAMS_H
#define MOSLD_ADAPTER_PARAMS_H

#include "runtime/error.h"

#include <stdbool.h>
#include <stdint.h>

enum mosld_method { MOSLD_METHOD_LORA, MOSLD_METHOD_MOSL, MOSLD_METHOD_MOSLD, MOSLD_METHODS };
enum mosld_dropout_on { MOSLD_DROPOUT_NONE, MOSLD_DROPOUT_A, MOSLD_DROPOUT_INPUT };
enum mosld_init { MOSLD_INIT_KAIMING, MOSLD_INIT_GAUSSIAN };

/* The linear modules of a decoder layer, in the order in which they run. */
enum mosld_linear { MOSLD_Q, MOSLD_K, MOSLD_V, MOSLD_O, MOSLD_GATE, MOSLD_UP, MOSLD_DOWN, MOSLD_LINEARS };
extern const char *const mosld_linear_names[MOSLD_LINEARS]; /* "q_proj" ... */
extern const char *const mosld_linear_paths[MOSLD_LINEARS]; /* "self_attn.q_proj" ... */
extern const char *const mosld_method_names[MOSLD_METHODS];

#define MOSLD_MAX_EXPERT_LIST 64
#define MOSLD_MAX_RANK 256
#define MOSLD_MAX_ADAPTER_LAYERS 1024
#define MOSLD_MAX_SIZES 63

/* Ranks and alphas that differ by module, which a LoRA of PEFT's may have. */
struct mosld_module_sizes {
    uint32_t n; /* 0: r and lora_alpha hold for every target of every layer */
    struct {
        uint32_t r;
        double lora_alpha;
    } size[MOSLD_MAX_SIZES];
    uint8_t of[MOSLD_MAX_ADAPTER_LAYERS][MOSLD_LINEARS]; /* 0: no adapter there; else that of size[of - 1] */
};

struct mosld_adapter_params {
    enum mosld_method method;
    uint32_t r;                 /* 1 .. MOSLD_MAX_RANK; with sizes: the largest */
    double lora_alpha;          /* s = alpha / r, or alpha / sqrt(r) with use_rslora */
    bool use_rslora;
    uint32_t num_experts[MOSLD_MAX_EXPERT_LIST]; /* n_num_experts of them, spread evenly over the layers; 1 for lora */
    uint32_t n_num_experts;
    uint32_t top_k;             /* <= every num_experts; equal: dense */
    double dropout;             /* in [0, 1) */
    enum mosld_dropout_on dropout_on;
    bool targets[MOSLD_LINEARS];
    enum mosld_init init_lora_weights;
    double router_aux_loss_coef; /* 0: none */
    uint64_t seed;               /* of the start values */
    struct mosld_module_sizes sizes; /* lora only */
};

/* r 8, alpha 16, q and v; for mixtures 8 experts, top 2, coefficient 0.01; mosld: dropout 0.1 on A. */
struct mosld_adapter_params mosld_adapter_defaults(enum mosld_method method);

/* Checks ranges and what goes with what. RT_USAGE names the option. A mixture with one expert everywhere is lora in all
 * but name: it is turned into it (no router, no balance loss). */
enum rt_status mosld_adapter_params_check(struct mosld_adapter_params *params, struct rt_error *err);

/* Experts of a layer when the list is spread over `layers` layers. */
uint32_t mosld_experts_of_layer(const struct mosld_adapter_params *params, uint32_t layer, uint32_t layers);
/* Rank of a module, 0 where it has no adapter; and its s. */
uint32_t mosld_module_rank(const struct mosld_adapter_params *params, uint32_t layer, enum mosld_linear linear);
double mosld_module_scale(const struct mosld_adapter_params *params, uint32_t layer, enum mosld_linear linear);
bool mosld_has_router(const struct mosld_adapter_params *params);

/* Sets targets from a list such as {"q_proj", "v_proj"} or {"all-linear"}. A name matches a whole module name and
 * nothing else. */
enum rt_status mosld_parse_targets(const char *const *names, uint32_t count, bool targets[MOSLD_LINEARS],
                                   struct rt_error *err);

#endif
