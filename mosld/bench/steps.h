/* mosld/bench/steps.h - a whole training step with several adapters, in turns, so that noise hits all of them alike.
 *
 * A round gives each variant its turn: memory is made for it as for training, one step runs unmeasured, then `steps`
 * steps are timed. A step is what training does: forward, loss of every token but the first of each row, backward,
 * clipping, AdamW. */
#ifndef MOSLD_BENCH_STEPS_H
#define MOSLD_BENCH_STEPS_H

#include "mosld/bench/measure.h"
#include "mosld/model/pass.h"

struct mosld_bench_variant {
    char name[48];
    bool none; /* the model without an adapter: see mosld_bench_no_adapter */
    struct mosld_adapter_params adapter;
    /* measured */
    uint32_t n;               /* timed steps */
    double median, best;      /* seconds a step */
    double tokens_per_second; /* by the median */
    double ratio;             /* seconds against those of variant 0, median over the rounds of their turns' quotients */
    double cpu_seconds;  /* of all threads of the process, median of a step: on the host and on drivers that run on the
                          * processor, what is left of a measurement on a machine that others use too */
    double cpu_ratio;    /* as ratio, of processor seconds */
    uint64_t parameters; /* trainable */
    uint64_t weights, arenas, planned; /* bytes of device memory: the model's; allocated for the adapter, pass and
                                          optimizer; and planned for them */
    uint64_t
        process_peak; /* bytes: the most that the process had resident in its turns; 0 where the system does not tell */
};

struct mosld_bench_batch {
    uint32_t rows, length; /* tokens of a row >= 2 */
    uint32_t steps;        /* timed steps a turn; 0: 2 */
    uint32_t rounds;       /* 0: 5 */
};

/* What stands for the model without an adapter: LoRA of rank 1 on the lowest layer's q alone, so that the gradient goes
 * down through all layers as it does below any adapter on q, and the adapter's own work is next to nothing. */
enum rt_status mosld_bench_no_adapter(const struct mosld_config *config, struct mosld_adapter **out,
                                      struct rt_device *dev, struct rt_error *err);

/* Fills what is measured in each of the n variants. RT_USAGE: a row is longer than the model's positions. */
enum rt_status mosld_bench_steps(const struct mosld_bench *bench, struct mosld_model *model,
                                 const struct mosld_bench_batch *batch, struct mosld_bench_variant *variants,
                                 uint32_t n, struct rt_error *err);

/* Packed rows of random tokens, the same for the same sizes. The caller frees it with mosld_bench_tokens_finish. */
enum rt_status mosld_bench_tokens(uint32_t vocabulary, uint32_t rows, uint32_t length, struct mosld_tokens *out,
                                  struct rt_error *err);
void mosld_bench_tokens_finish(struct mosld_tokens *tokens);

#endif
