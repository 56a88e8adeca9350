/* mosld/adapter/params.c - see params.h. */
#include "mosld/adapter/params.h"

#include "mosld/ops/mixture.h"

#include <math.h>
#include <string.h>

const char *const mosld_linear_names[MOSLD_LINEARS] = {"q_proj",    "k_proj",  "v_proj",   "o_proj",
                                                       "gate_proj", "up_proj", "down_proj"};
const char *const mosld_linear_paths[MOSLD_LINEARS] = {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj",
                                                       "self_attn.o_proj", "mlp.gate_proj",    "mlp.up_proj",
                                                       "mlp.down_proj"};
const char *const mosld_method_names[MOSLD_METHODS] = {"lora", "mosl", "mosld"};

struct mosld_adapter_params mosld_adapter_defaults(enum mosld_method method)
{
    struct mosld_adapter_params p = {.method = method,
                                     .r = 8,
                                     .lora_alpha = 16,
                                     .n_num_experts = 1,
                                     .num_experts = {1},
                                     .top_k = 1,
                                     .dropout_on = MOSLD_DROPOUT_INPUT};
    p.targets[MOSLD_Q] = p.targets[MOSLD_V] = true;
    if (method != MOSLD_METHOD_LORA) {
        p.num_experts[0] = 8;
        p.top_k = 2;
        p.router_aux_loss_coef = 0.01;
        p.dropout_on = MOSLD_DROPOUT_NONE;
    }
    if (method == MOSLD_METHOD_MOSLD) {
        p.dropout = 0.1;
        p.dropout_on = MOSLD_DROPOUT_A;
    }
    return p;
}

uint32_t mosld_experts_of_layer(const struct mosld_adapter_params *p, uint32_t layer, uint32_t layers)
{
    return p->num_experts[(uint64_t)layer * p->n_num_experts / layers];
}

uint32_t mosld_module_rank(const struct mosld_adapter_params *p, uint32_t layer, enum mosld_linear linear)
{
    if (!p->sizes.n)
        return p->targets[linear] ? p->r : 0;
    uint8_t of = layer < MOSLD_MAX_ADAPTER_LAYERS ? p->sizes.of[layer][linear] : 0;
    return of ? p->sizes.size[of - 1].r : 0;
}

double mosld_module_scale(const struct mosld_adapter_params *p, uint32_t layer, enum mosld_linear linear)
{
    uint8_t of = p->sizes.n && layer < MOSLD_MAX_ADAPTER_LAYERS ? p->sizes.of[layer][linear] : 0;
    double r = of ? p->sizes.size[of - 1].r : p->r, alpha = of ? p->sizes.size[of - 1].lora_alpha : p->lora_alpha;
    return alpha / (p->use_rslora ? sqrt(r) : r);
}

bool mosld_has_router(const struct mosld_adapter_params *p)
{
    for (uint32_t i = 0; i < p->n_num_experts; i++)
        if (p->num_experts[i] > 1)
            return true;
    return false;
}

static enum rt_status check_experts(struct mosld_adapter_params *p, struct rt_error *err)
{
    if (p->n_num_experts == 0 || p->n_num_experts > MOSLD_MAX_EXPERT_LIST)
        return rt_fail(err, RT_USAGE, "num_experts: give one number, or a list of at most %d", MOSLD_MAX_EXPERT_LIST);
    for (uint32_t i = 0; i < p->n_num_experts; i++) {
        if (p->num_experts[i] < 1 || p->num_experts[i] > MOSLD_MAX_EXPERTS)
            return rt_fail(err, RT_USAGE, "num_experts: %u is not between 1 and %d", p->num_experts[i],
                           MOSLD_MAX_EXPERTS);
        if (p->method == MOSLD_METHOD_LORA && p->num_experts[i] != 1)
            return rt_fail(err, RT_USAGE, "num_experts: lora has one expert, not %u; --method mosl or mosld has more",
                           p->num_experts[i]);
        if (p->num_experts[i] > 1 && (p->top_k < 1 || p->top_k > p->num_experts[i]))
            return rt_fail(err, RT_USAGE, "top_k: %u is not between 1 and num_experts (%u)", p->top_k,
                           p->num_experts[i]);
    }
    return RT_OK;
}

enum rt_status mosld_adapter_params_check(struct mosld_adapter_params *p, struct rt_error *err)
{
    if (p->r < 1 || p->r > MOSLD_MAX_RANK)
        return rt_fail(err, RT_USAGE, "r: %u is not between 1 and %d", p->r, MOSLD_MAX_RANK);
    if (!isfinite(p->lora_alpha) || p->lora_alpha <= 0)
        return rt_fail(err, RT_USAGE, "lora_alpha: %g is not a positive number", p->lora_alpha);
    if (!(p->dropout >= 0 && p->dropout < 1))
        return rt_fail(err, RT_USAGE, "dropout: %g is not in [0, 1)", p->dropout);
    if (!(p->router_aux_loss_coef >= 0 && p->router_aux_loss_coef < 1e6))
        return rt_fail(err, RT_USAGE, "router_aux_loss_coef: %g is not a number from 0 on", p->router_aux_loss_coef);
    enum rt_status st = check_experts(p, err);
    if (st)
        return st;
    if (p->dropout > 0 && p->dropout_on == MOSLD_DROPOUT_NONE)
        return rt_fail(err, RT_USAGE,
                       "dropout: %g needs --dropout-on A or input; mosl has none by default, mosld drops weights of A",
                       p->dropout);
    bool any = false;
    for (int i = 0; i < MOSLD_LINEARS; i++)
        any = any || p->targets[i];
    if (!any)
        return rt_fail(err, RT_USAGE,
                       "target_modules: name at least one module, for example q_proj,v_proj or all-linear");
    if (!mosld_has_router(p)) {
        p->method = MOSLD_METHOD_LORA;
        p->top_k = 1;
        p->router_aux_loss_coef = 0;
    }
    return RT_OK;
}

enum rt_status mosld_parse_targets(const char *const *names, uint32_t count, bool targets[MOSLD_LINEARS],
                                   struct rt_error *err)
{
    memset(targets, 0, MOSLD_LINEARS * sizeof *targets);
    for (uint32_t i = 0; i < count; i++) {
        bool known = strcmp(names[i], "all-linear") == 0;
        for (int m = 0; m < MOSLD_LINEARS; m++)
            if (known || strcmp(names[i], mosld_linear_names[m]) == 0)
                targets[m] = true;
        for (int m = 0; m < MOSLD_LINEARS && !known; m++)
            known = strcmp(names[i], mosld_linear_names[m]) == 0;
        if (!known)
            return rt_fail(
                err, RT_USAGE,
                "target_modules: there is no module '%s'; there are q_proj, k_proj, v_proj, o_proj, gate_proj, "
                "up_proj, down_proj, and all-linear for all of them",
                names[i]);
    }
    return RT_OK;
}
