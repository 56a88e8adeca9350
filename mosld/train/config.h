/* mosld/train/config.h - every option of training, under the names of Transformers' TrainingArguments. */
#ifndef MOSLD_TRAIN_CONFIG_H
#define MOSLD_TRAIN_CONFIG_H

#include "mosld/adapter/params.h"
#include "mosld/model/memory.h"
#include "mosld/train/schedule.h"

struct mosld_train_config {
    struct mosld_adapter_params adapter;
    double learning_rate;
    enum mosld_schedule lr_scheduler_type;
    double warmup_steps, warmup_ratio;
    double weight_decay, max_grad_norm; /* max_grad_norm 0: no clipping */
    double adam_beta1, adam_beta2, adam_epsilon;
    uint32_t per_device_train_batch_size; /* rows a micro-batch; with packing: passes of max_length tokens */
    uint32_t gradient_accumulation_steps;
    double num_train_epochs;
    uint64_t max_steps;                   /* 0: by epochs */
    uint64_t logging_steps, eval_steps, save_steps, save_total_limit; /* eval_steps, save_steps 0: at the end alone */
    uint32_t max_length;
    bool packing;
    enum mosld_checkpointing gradient_checkpointing;
    bool sequential;                      /* train_sampling_strategy */
    bool load_best_model_at_end;
    uint64_t seed;
};

#define MOSLD_TRAIN_DEFAULTS \
    .learning_rate = 3e-4, .lr_scheduler_type = MOSLD_LINEAR, .max_grad_norm = 1, .adam_beta1 = 0.9, \
    .adam_beta2 = 0.999, .adam_epsilon = 1e-8, .per_device_train_batch_size = 8, \
    .gradient_accumulation_steps = 1, .num_train_epochs = 3, .logging_steps = 1, .save_total_limit = 0, \
    .max_length = 1024, .seed = 42

#endif
