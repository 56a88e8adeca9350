/* tools/train_options.h - the options of mosld train, as they are typed and as the engine takes them. */
#ifndef MOSLD_TRAIN_OPTIONS_H
#define MOSLD_TRAIN_OPTIONS_H

#include "mosld/data/example.h"
#include "mosld/train/config.h"
#include "tools/session.h"

struct train_options {
    struct session_options session;
    struct option_list task, eval_task, target_modules;
    struct option_ints num_experts;
    char *out, *resume_from_checkpoint, *init_adapter, *dropout_mask, *dump_gradients;
    bool overwrite_output_dir;
    int preset, method, dropout_on, init_lora_weights, lr_scheduler_type, train_sampling_strategy, prompt_format,
        choice_format, gradient_checkpointing;
    int64_t r, top_k, per_device_train_batch_size, per_device_eval_batch_size, gradient_accumulation_steps, max_steps;
    int64_t logging_steps, eval_steps, save_steps, save_total_limit, max_length, seed, eval_limit;
    double lora_alpha, dropout, lora_dropout, router_aux_loss_coef, learning_rate, warmup_steps, warmup_ratio,
        weight_decay, max_grad_norm;
    double adam_beta1, adam_beta2, adam_epsilon, num_train_epochs;
    bool use_rslora, packing, completion_only_loss, assistant_only_loss, load_best_model_at_end;
};

extern const struct option train_option_table[];
extern const size_t train_option_count;
extern const struct train_options train_option_defaults;

/* Applies the preset to what was not given, then makes the engine's configuration of it all. RT_USAGE names the option.
 */
enum rt_status train_options_resolve(struct train_options *o, const struct options *given,
                                     struct mosld_train_config *config, struct mosld_example_options *example,
                                     struct rt_error *err);

#endif
