/* mosld/ops/mixture.h - the mixture of LoRA experts around one target module (arXiv 2412.08946), but for its products.
 *
 * The M modules that read the same x share one skinny product: `ul` [T, ul_stride] holds, for each module, u = x A~^T in
 * the r columns from u_col on and the router's logits l = x Wg^T in the E columns from l_col on; module m's stand m module_cols columns
 * further on. One launch serves all of them.
 *
 *     gate         g = softmax(l), the k largest kept (ties to the lowest index), renormalised to sum 1;
 *                  z[t, m, e r + i] = g_me u_mi          z: [T, M, E r], so that y += s z Bcat^T is one product a module; and, where it
 *                  counts, f_e, the share of the top-k places that expert e got, and P_e, the mean of p = softmax(l) before the top k
 *     gate_bwd     dg_e = <dz_e, u>;   du = sum_e g_e dz_e;   dl = backward of softmax and top k (zero through unselected gates)
 *                  + the balance loss's gradient:  balance * f_e through p;   and z again, in the place of dz
 *     dropout      A~ = A * mask / (1 - p) on the r rows of A, a copy on the E rows of Wg (equation 2 of the paper)
 *
 * The balance loss of a module is E sum_e f_e P_e (Switch Transformers); f has no gradient, so dloss/dp_te is
 * E f_e / T. */
#ifndef MOSLD_MIXTURE_H
#define MOSLD_MIXTURE_H

#include "runtime/rt.h"

#define MOSLD_MAX_EXPERTS 64

struct op;
extern const struct op op_mixture_few_desc, op_gate_desc, op_gate_bwd_desc;
extern const struct op op_dropout_desc; /* of weights and of inputs */
extern const struct op op_dropout_stacks_desc;

struct op_gate {
    struct rt_span ul, z; /* z: word ((t M + m) E + e) r + i */
    uint32_t rows, ul_stride, u_col, l_col, r, experts, top_k;
    uint32_t modules, module_cols; /* 0 modules mean 1 */
    bool counts;        /* also writes stats */
    struct rt_span stats; /* f32: f_e of module m at word stats_offset + m stats_stride + e, P_e E words behind */
    uint32_t stats_offset, stats_stride;
};
enum rt_status op_gate(struct rt_device *dev, const struct op_gate *g, struct rt_error *err);

/* g.z is dz here, and z when it is done. dul: [T, ul_stride], the r + E columns of each module are overwritten. `balance` is the factor in
 * front of f_e, for example coef * E / (modules * micro_steps * T); 0 leaves the term out and g.stats unread (give any span). */
struct op_gate_bwd {
    struct op_gate g;
    struct rt_span dul;
    float balance;
};
enum rt_status op_gate_bwd(struct rt_device *dev, const struct op_gate_bwd *b, struct rt_error *err);

/* For a few tokens and without backward: y += scale z Bcat^T straight from ul (gate.z is not used), in one launch that reads of b, f32 [cols, E r], the
 * chosen experts alone. Where op_mixture_few_takes says so. */
struct op_mixture_few {
    struct op_gate gate;
    struct rt_span b, y;
    uint32_t cols, y_stride, y_col;
    float scale;
};
bool op_mixture_few_takes(uint32_t rows, uint32_t r, uint32_t experts);
enum rt_status op_mixture_few(struct rt_device *dev, const struct op_mixture_few *m, struct rt_error *err);

/* Dropout on the weights of A: y (+)= [A * mask / (1 - p) ; Wg], from x [r + E, d_in] at word x_offset to y at word
 * y_offset. In backward x is the gradient with respect to A~ and y, accumulated, the gradient of A. p and the key
 * (seed, micro-step) come from the step block (shaders/step.h); the counter is (element / 4, module, layer, 0), and
 * element e of A takes word e % 4 of the Philox 4x32-10 block; kept where the word, as a 32-bit fraction, is below
 * 1 - p: word < (uint32_t)((1 - p) * 2^32) in double. Philox's key is (seed_lo ^ micro, seed_hi) - stated, so that
 * others can draw it again.
 * given: a mask of 0 and 1 (f32 [r, d_in] at word mask_offset of `mask`) is used instead of drawn bits. */
struct op_dropout_weights {
    struct rt_span x, y, mask, step; /* mask: any span when not given */
    uint32_t x_offset, y_offset, mask_offset;
    uint32_t r, experts, cols, layer, module;
    bool given, accumulate;
};
enum rt_status op_dropout_weights(struct rt_device *dev, const struct op_dropout_weights *d, struct rt_error *err);

/* The same for all modules at once, with drawn masks. flat: the adapter's values, or on the way back its gradients, which are added to. stacks: what is
 * made of the values, or on the way back the gradient of that. table: u32 [modules, DROPOUT_ENTRY], see shaders/dropout_stacks.h. */
struct op_dropout_stacks {
    struct rt_span flat, stacks, table, step;
    uint32_t modules, longest; /* longest: r + E rows of d_in words, the most of any module */
    bool back;
};
enum rt_status op_dropout_stacks(struct rt_device *dev, const struct op_dropout_stacks *d, struct rt_error *err);

/* PEFT's lora_dropout, on the elements of x on the way into A: y (+)= x * mask / (1 - p), [T, cols] each, dense. The
 * counter is (element / 4, module, layer, 1). Backward is the same call with the gradient as x. */
struct op_dropout_input {
    struct rt_span x, y, step;
    uint32_t rows, cols, layer, module;
    bool accumulate;
};
enum rt_status op_dropout_input(struct rt_device *dev, const struct op_dropout_input *d, struct rt_error *err);

/* One block of Philox 4x32-10 (Salmon et al. 2011), on the host. */
void mosld_philox(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]);

#endif
