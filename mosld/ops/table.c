/* mosld/ops/table.c - every op of the engine. To add one: its file, its shader, one line here. */
#include "mosld/ops/op.h"

#define OPS(X) \
    X(adamw) \
    X(attention) \
    X(attention_bwd) \
    X(kv_append) \
    X(attention_cache) \
    X(attention_slots) \
    X(cross_entropy) \
    X(dropout) \
    X(dropout_stacks) \
    X(embedding) \
    X(gate) \
    X(gate_bwd) \
    X(grad_norm) \
    X(linear_few) \
    X(linear_nn) \
    X(linear_nt) \
    X(matmul_nn) \
    X(matmul_nn_split) \
    X(matmul_nt) \
    X(matmul_nt_split) \
    X(matmul_tn) \
    X(mixture_few) \
    X(rmsnorm) \
    X(rmsnorm_bwd) \
    X(rope) \
    X(swiglu) \
    X(swiglu_bwd) \
    X(gather_rows) \
    X(scatter_rows)

#define DECLARE(name) extern const struct op op_##name##_desc;
OPS(DECLARE)

#define ENTRY(name) &op_##name##_desc,
const struct op *const op_table[] = {
    OPS(ENTRY) NULL,
};
