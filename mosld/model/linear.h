/* mosld/model/linear.h - the pieces of a layer that forward.c and backward.c share: a linear module with its adapter, norm, attention. */
#ifndef MOSLD_LINEAR_H
#define MOSLD_LINEAR_H

#include "mosld/model/pass.h"
#include "mosld/ops/attention.h"
#include "mosld/ops/matmul.h"
#include "mosld/ops/norm.h"
#include "runtime/trace.h"

/* `call`, a status, in the scope of a module, for labels, traces and profiles. Modules are called as in Transformers (q_proj, input_layernorm); what
 * modules share of an adapter, as in PEFT (lora_A: A and the router of a group); "attention" is RoPE, cache and attention proper. */
#define IN_MODULE(dev, name, call) \
    ({ \
        unsigned module_scope_ = rt_scope_begin(dev, name, -1); \
        enum rt_status module_status_ = (call); \
        rt_scope_end(dev, module_scope_); \
        module_status_; \
    })

/* ul = x [A~ ; Wg]^T for a group, from x [T, d_in], and what its routers make of it: z of every module, and in training the
 * statistics. Does nothing where no module of it has an adapter. z stands until the next group's. */
enum rt_status linear_project(struct mosld_pass *pass, uint32_t layer, int group, struct rt_span x, struct rt_error *err);
/* z alone, from the ul that forward left: for recomputation. */
enum rt_status linear_gates(struct mosld_pass *pass, uint32_t layer, int group, struct rt_error *err);

struct linear_output {
    struct rt_span y;
    uint32_t stride, col;
    enum op_add add;
    struct rt_span other;
};
/* y[:, col ..] = add + x W0^T + s z Bcat^T */
enum rt_status linear_forward(struct mosld_pass *pass, uint32_t layer, int group, enum mosld_linear linear, struct rt_span x,
                              const struct linear_output *out, struct rt_error *err);

/* Both for all modules of a group, whose outputs are out[0 .. ] in the order of enum mosld_linear: for a few tokens of generation in one op, where the device takes it.
 * `again`: u and l stand, and z alone is made. */
enum rt_status linear_forward_group(struct mosld_pass *pass, uint32_t layer, int group, struct rt_span x, const struct linear_output *out, bool again,
                                    struct rt_error *err);

/* Gradients of a group's outputs: that of its i-th module begins at column col[i] of dy. */
struct linear_gradient {
    struct rt_span dy;
    uint32_t stride, col[3];
};
/* Backward of a group: dB of its modules, dul, and dx = sum of dy W0 + dul [A~ ; Wg] where dx is wanted (dx.buffer not NULL). */
enum rt_status linear_backward(struct mosld_pass *pass, uint32_t layer, int group, const struct linear_gradient *dy, struct rt_span dx,
                               struct rt_error *err);
/* After that: dA and dWg from dul and x (with dropout on A, they are complete behind linear_end_masks). With dropout on the input, also what A and Wg add to dx, so that dx is complete only then. */
enum rt_status linear_backward_stack(struct mosld_pass *pass, uint32_t layer, int group, struct rt_span x, struct rt_span dx,
                                     struct rt_error *err);

/* Whether linear_backward_stack adds to dx, so that x must be at hand before dx is used. */
bool linear_stack_adds(const struct mosld_pass *pass);

/* The ops that forward and backward describe alike. */
/* RMSNorm of `rows` rows of the residual stream. */
struct op_rmsnorm stream_norm(const struct mosld_pass *pass, struct rt_span x, struct rt_span w, struct rt_span y, uint32_t rows);
/* Attention of a layer over the packed batch. */
struct op_attention layer_attention(const struct mosld_pass *pass, uint32_t layer);

/* Makes the masked stacks of this micro-step: A~ = A * mask / (1 - p). */
enum rt_status linear_draw_masks(struct mosld_pass *pass, struct rt_error *err);
/* Behind all groups' backward: adds the masked stacks' gradients to those of A and Wg. */
enum rt_status linear_end_masks(struct mosld_pass *pass, struct rt_error *err);

#endif
