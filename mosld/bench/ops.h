/* mosld/bench/ops.h - every op of a training step at a model's shapes, against the peak that bounds it.
 *
 * The ops run on the memory of a real pass with a MoSLD adapter after one real step, each layer's in turn, so that
 * weights come from where they come from in training and not from a cache that one layer fits. FLOPs are those of the
 * mathematics; bytes are those that have to move once: every input read, every output written, weights in their own
 * type. */
#ifndef MOSLD_BENCH_OPS_H
#define MOSLD_BENCH_OPS_H

#include "mosld/bench/peaks.h"
#include "mosld/model/pass.h"

struct mosld_bench_op {
    char name[24], shape[48];
    struct mosld_times times; /* of one launch */
    double flops, bytes;      /* of one launch */
    double bound;             /* seconds that the higher of flops / peak and bytes / peak takes */
    bool memory_bound;        /* which of the two it was; false also where there are no bytes to count */
    double share;             /* bound / best: 1 is all that the device has */
    uint32_t calls;           /* in a training step with this adapter */
    double *counters;         /* [mosld_bench.n_counters] of one launch; NULL without. See mosld_bench_ops_free */
};

/* Measures with rows x length tokens and an adapter (of a mixture). *out is the caller's: mosld_bench_ops_free. */
enum rt_status mosld_bench_ops(const struct mosld_bench *bench, struct mosld_model *model,
                               const struct mosld_adapter_params *adapter, uint32_t rows, uint32_t length,
                               const struct mosld_peaks *peaks, struct mosld_bench_op **out, uint32_t *n,
                               struct rt_error *err);
void mosld_bench_ops_free(struct mosld_bench_op *list, uint32_t n); /* NULL is fine */

#endif
