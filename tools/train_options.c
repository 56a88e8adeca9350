/* tools/train_options.c - see train_options.h. Names are PEFT's for the adapter and Transformers' for training. */
#include "tools/train_options.h"

#include <string.h>

#define T struct train_options
#define BIG (1ll << 40)

static const char *const methods[] = {"lora", "mosl", "mosld", NULL};
static const char *const dropouts[] = {"default", "none", "A", "input", NULL};
static const char *const inits[] = {"true", "gaussian", NULL};
static const char *const presets[] = {"none", "paper", NULL};
static const char *const samplings[] = {"random", "sequential", NULL};
static const char *const prompt_formats[] = {"auto", "chat", "alpaca", "plain", NULL};
static const char *const choice_formats[] = {"plain", "letter", NULL};

const struct option train_option_table[] = {
    SESSION_OPTIONS(T),
    PROFILING_OPTIONS(T, session.profiling),
    {.name = "task",
     OPTION_STRINGS(T, task),
     .value = "NAME=FILE[:WEIGHT]",
     .section = "Data",
     .help = "rows to learn: a file, or a folder with train.jsonl; may be given again; a weight multiplies the task's "
             "rows an epoch"},
    {.name = "eval_task",
     OPTION_STRINGS(T, eval_task),
     .value = "NAME=FILE",
     .help = "rows for the validation loss: a file, or a folder with validation.jsonl"},
    {.name = "eval_limit", OPTION_INT(T, eval_limit, 0, BIG), .help = "the first rows of each eval task alone; 0: all"},
    {.name = "max_length", OPTION_INT(T, max_length, 2, 1 << 20), .help = "tokens a row is cut to"},
    {.name = "packing",
     OPTION_BOOL(T, packing),
     .help = "fill each batch to batch size x max_length tokens; rows never see each other either way"},
    {.name = "train_sampling_strategy",
     OPTION_CHOICE(T, train_sampling_strategy, samplings),
     .help = "order of the rows"},
    {.name = "prompt_format", OPTION_CHOICE(T, prompt_format, prompt_formats), .help = "of instructions and prompts"},
    {.name = "choice_format",
     OPTION_CHOICE(T, choice_format, choice_formats),
     .help = "multiple choice: learn the choice's text, or its letter"},
    {.name = "completion_only_loss", OPTION_BOOL(T, completion_only_loss), .help = "prompts bear no loss"},
    {.name = "assistant_only_loss",
     OPTION_BOOL(T, assistant_only_loss),
     .help = "conversations: only what the assistant says bears loss"},

    {.name = "preset",
     OPTION_CHOICE(T, preset, presets),
     .section = "Adapter",
     .help = "paper: r 8, alpha 16, q_proj and v_proj, top_k 2, dropout 0.1 on A, learning rate 3e-4, 10 epochs, "
             "batches of 128, and 8, 6, 4, 2 experts from the first layers to the last"},
    {.name = "method",
     OPTION_CHOICE(T, method, methods),
     .help = "lora: PEFT's; mosl: experts B behind one shared A; mosld: with dropout on A"},
    {.name = "r", OPTION_INT(T, r, 1, MOSLD_MAX_RANK), .help = "rank"},
    {.name = "lora_alpha", OPTION_REAL(T, lora_alpha, 1e-6, 1e6), .help = "scale: alpha / r"},
    {.name = "use_rslora", OPTION_BOOL(T, use_rslora), .help = "scale: alpha / sqrt(r)"},
    {.name = "target_modules",
     OPTION_STRINGS(T, target_modules),
     .value = "NAMES",
     .commas = true,
     .help = "q_proj,v_proj unless given; also k_proj, o_proj, gate_proj, up_proj, down_proj, or all-linear"},
    {.name = "num_experts",
     OPTION_INTS(T, num_experts, 1, 64),
     .value = "N[,N...]",
     .help = "experts a module (8 unless given); a list is spread over the layers, first to last"},
    {.name = "top_k", OPTION_INT(T, top_k, 1, 64), .help = "experts a token uses; num_experts: all"},
    {.name = "dropout",
     OPTION_REAL(T, dropout, -1, 0.999),
     .help = "share that is dropped; -1: 0.1 for mosld, 0 for the others"},
    {.name = "lora_dropout",
     OPTION_REAL(T, lora_dropout, -1, 0.999),
     .help = "PEFT's name for dropout on the input; -1: not given"},
    {.name = "dropout_on",
     OPTION_CHOICE(T, dropout_on, dropouts),
     .help = "A: weights of A; input: what goes into A; default: by method"},
    {.name = "init_lora_weights",
     OPTION_CHOICE(T, init_lora_weights, inits),
     .help = "start of A; true: Kaiming-uniform; B starts at 0"},
    {.name = "router_aux_loss_coef",
     OPTION_REAL(T, router_aux_loss_coef, -1, 1000),
     .help = "balance loss; -1: 0.01 where there is a router"},
    {.name = "init_adapter",
     OPTION_STRING(T, init_adapter),
     .value = "DIR",
     .help = "start from this adapter, with its method and sizes"},

    {.name = "learning_rate",
     OPTION_REAL(T, learning_rate, 0, 100),
     .section = "Training",
     .help = "largest learning rate"},
    {.name = "lr_scheduler_type",
     OPTION_CHOICE(T, lr_scheduler_type, mosld_schedule_names),
     .help = "from the largest rate to the end"},
    {.name = "warmup_steps",
     OPTION_REAL(T, warmup_steps, 0, 1e9),
     .help = "steps from rate 0; below 1: a share of all"},
    {.name = "warmup_ratio", OPTION_REAL(T, warmup_ratio, 0, 1), .help = "the same as a share"},
    {.name = "num_train_epochs", OPTION_REAL(T, num_train_epochs, 1e-6, 1e6), .help = "times through the rows"},
    {.name = "max_steps", OPTION_INT(T, max_steps, 0, BIG), .help = "steps instead of epochs; 0: epochs"},
    {.name = "per_device_train_batch_size",
     OPTION_INT(T, per_device_train_batch_size, 1, 1 << 20),
     .help = "rows a pass"},
    {.name = "gradient_accumulation_steps",
     OPTION_INT(T, gradient_accumulation_steps, 1, 1 << 20),
     .help = "passes a step"},
    {.name = "weight_decay", OPTION_REAL(T, weight_decay, 0, 100), .help = "AdamW's, decoupled"},
    {.name = "max_grad_norm", OPTION_REAL(T, max_grad_norm, 0, 1e9), .help = "clip the gradient's norm; 0: never"},
    {.name = "adam_beta1", OPTION_REAL(T, adam_beta1, 0, 0.999999), .help = "AdamW"},
    {.name = "adam_beta2", OPTION_REAL(T, adam_beta2, 0, 0.9999999), .help = "AdamW"},
    {.name = "adam_epsilon", OPTION_REAL(T, adam_epsilon, 1e-30, 1), .help = "AdamW"},
    {.name = "seed",
     OPTION_INT(T, seed, 0, OPTION_INT_MAX),
     .help = "of start values, order and dropout; the same seed gives the same bits"},
    {.name = "gradient_checkpointing",
     OPTION_CHOICE(T, gradient_checkpointing, mosld_checkpointing_names),
     .help = "keep less of the layers for backward and compute it again there, to the same bits; auto: of as few layers as "
             "fit the memory (--memory-limit); true: of all but one"},

    {.name = "out",
     OPTION_STRING(T, out),
     .value = "DIR",
     .section = "The run",
     .help = "folder of the run: adapter, checkpoints, metrics.jsonl, run.json (not needed with --plan)"},
    {.name = "config",
     OPTION_CONFIG,
     .value = "FILE",
     .help = "these options as a JSON object; the command line wins; a run.json serves too"},
    PLAN_OPTION(T),
    {.name = "logging_steps",
     OPTION_INT(T, logging_steps, 1, BIG),
     .help = "a line of text every so many steps; metrics.jsonl has every step"},
    {.name = "eval_steps",
     OPTION_INT(T, eval_steps, 0, BIG),
     .help = "validation loss every so many steps; 0: at the end"},
    {.name = "per_device_eval_batch_size",
     OPTION_INT(T, per_device_eval_batch_size, 1, 1 << 20),
     .help = "accepted for compatibility: evaluation packs rows by tokens"},
    {.name = "save_steps",
     OPTION_INT(T, save_steps, 0, BIG),
     .help = "a checkpoint every so many steps; 0: none, but when interrupted"},
    {.name = "save_total_limit",
     OPTION_INT(T, save_total_limit, 0, 1 << 20),
     .help = "keep so many checkpoints; 0: all"},
    {.name = "load_best_model_at_end",
     OPTION_BOOL(T, load_best_model_at_end),
     .help = "leave the adapter of the lowest validation loss"},
    {.name = "resume_from_checkpoint",
     OPTION_STRING(T, resume_from_checkpoint),
     .value = "DIR",
     .command_line_only = true,
     .help = "go on from a checkpoint; last: the newest of the run"},
    {.name = "overwrite_output_dir",
     OPTION_BOOL(T, overwrite_output_dir),
     .command_line_only = true,
     .help = "replace a run that is in the folder"},
    {.name = "dropout_mask",
     OPTION_STRING(T, dropout_mask),
     .value = "FILE",
     .section = "Checking against others",
     .help = "safetensors of masks for A, instead of drawn ones"},
    {.name = "dump_gradients",
     OPTION_STRING(T, dump_gradients),
     .value = "FILE",
     .help = "write the first step's gradients, before clipping"},
    {.name = "json",
     OPTION_BOOL(T, session.json),
     .command_line_only = true,
     .help = "print one JSON document at the end"},
};
const size_t train_option_count = sizeof train_option_table / sizeof *train_option_table;

const struct train_options train_option_defaults = {
    .session = {SESSION_DEFAULTS},
    .method = MOSLD_METHOD_MOSLD,
    .r = 8,
    .lora_alpha = 16,
    .top_k = 2,
    .dropout = -1,
    .lora_dropout = -1,
    .router_aux_loss_coef = -1,
    .learning_rate = 3e-4,
    .num_train_epochs = 3,
    .per_device_train_batch_size = 8,
    .per_device_eval_batch_size = 8,
    .gradient_accumulation_steps = 1,
    .max_grad_norm = 1,
    .adam_beta1 = 0.9,
    .adam_beta2 = 0.999,
    .adam_epsilon = 1e-8,
    .logging_steps = 10,
    .max_length = 1024,
    .seed = 42,
    .completion_only_loss = true,
    .assistant_only_loss = true,
};

static void apply_preset(T *o, const struct options *given)
{
    if (o->preset != 1)
        return;
    if (!options_given(given, "num_train_epochs"))
        o->num_train_epochs = 10;
    if (!options_given(given, "num_experts") && o->method != MOSLD_METHOD_LORA) {
        static int64_t quarters[] = {
            8, 6, 4, 2}; /* of the depth, from the first layers to the last, as the paper's text has it */
        o->num_experts.item = quarters;           /* a default: options_finish frees what was given alone */
        o->num_experts.n = sizeof quarters / sizeof *quarters;
    }
    if (!options_given(given, "per_device_train_batch_size") && !options_given(given, "gradient_accumulation_steps")) {
        o->per_device_train_batch_size = 16;
        o->gradient_accumulation_steps = 8;
    }
    /* The rest of the paper's setting is the default: r 8, alpha 16, q and v, top_k 2, dropout 0.1 on A, 3e-4. */
}

static enum rt_status resolve_adapter(const T *o, struct mosld_adapter_params *p, struct rt_error *err)
{
    *p = mosld_adapter_defaults((enum mosld_method)o->method);
    p->r = (uint32_t)o->r;
    p->lora_alpha = o->lora_alpha;
    p->use_rslora = o->use_rslora;
    p->seed = (uint64_t)o->seed;
    p->init_lora_weights = (enum mosld_init)o->init_lora_weights;
    if (o->method != MOSLD_METHOD_LORA || o->num_experts.n)
        p->top_k = o->method == MOSLD_METHOD_LORA ? 1 : (uint32_t)o->top_k;
    if (o->num_experts.n > MOSLD_MAX_EXPERT_LIST)
        return rt_fail(err, RT_USAGE, "num_experts: the list has more than %d entries", MOSLD_MAX_EXPERT_LIST);
    for (size_t i = 0; i < o->num_experts.n; i++)
        p->num_experts[i] = (uint32_t)o->num_experts.item[i];
    if (o->num_experts.n)
        p->n_num_experts = (uint32_t)o->num_experts.n;
    if (o->dropout >= 0)
        p->dropout = o->dropout;
    if (o->lora_dropout >= 0) {
        p->dropout = o->lora_dropout;
        p->dropout_on = MOSLD_DROPOUT_INPUT;
    }
    if (o->dropout_on)
        p->dropout_on = (enum mosld_dropout_on)(o->dropout_on - 1);
    if (o->router_aux_loss_coef >= 0 && o->method != MOSLD_METHOD_LORA)
        p->router_aux_loss_coef = o->router_aux_loss_coef;
    if (o->target_modules.n) {
        enum rt_status st = mosld_parse_targets((const char *const *)o->target_modules.item,
                                                (uint32_t)o->target_modules.n, p->targets, err);
        if (st)
            return st;
    }
    return mosld_adapter_params_check(p, err);
}

enum rt_status train_options_resolve(T *o, const struct options *given, struct mosld_train_config *c,
                                     struct mosld_example_options *example, struct rt_error *err)
{
    apply_preset(o, given);
    if (!o->task.n && !(o->session.plan && options_given(given, "max_length")))
        return rt_fail(err, RT_USAGE, "--task is missing: rows to learn, NAME=FILE (a plan does without where --max-length is given)");
    if (!o->out && !o->session.plan)
        return rt_fail(err, RT_USAGE, "--out is missing: the folder that the run is written to");
    if (o->load_best_model_at_end && !o->eval_task.n)
        return rt_fail(err, RT_USAGE, "load_best_model_at_end: needs an --eval-task to tell which is best");
    *c = (struct mosld_train_config){.learning_rate = o->learning_rate,
                                     .lr_scheduler_type = (enum mosld_schedule)o->lr_scheduler_type,
                                     .warmup_steps = o->warmup_steps,
                                     .warmup_ratio = o->warmup_ratio,
                                     .weight_decay = o->weight_decay,
                                     .max_grad_norm = o->max_grad_norm,
                                     .adam_beta1 = o->adam_beta1,
                                     .adam_beta2 = o->adam_beta2,
                                     .adam_epsilon = o->adam_epsilon,
                                     .per_device_train_batch_size = (uint32_t)o->per_device_train_batch_size,
                                     .gradient_accumulation_steps = (uint32_t)o->gradient_accumulation_steps,
                                     .num_train_epochs = o->num_train_epochs,
                                     .max_steps = (uint64_t)o->max_steps,
                                     .logging_steps = (uint64_t)o->logging_steps,
                                     .eval_steps = (uint64_t)o->eval_steps,
                                     .save_steps = (uint64_t)o->save_steps,
                                     .save_total_limit = (uint64_t)o->save_total_limit,
                                     .max_length = (uint32_t)o->max_length,
                                     .packing = o->packing,
                                     .gradient_checkpointing = (enum mosld_checkpointing)o->gradient_checkpointing,
                                     .sequential = o->train_sampling_strategy == 1,
                                     .load_best_model_at_end = o->load_best_model_at_end,
                                     .seed = (uint64_t)o->seed};
    *example = (struct mosld_example_options){.prompt_format = (enum mosld_prompt_format)o->prompt_format,
                                              .choice_format = (enum mosld_choice_format)o->choice_format,
                                              .completion_only_loss = o->completion_only_loss,
                                              .assistant_only_loss = o->assistant_only_loss,
                                              .max_length = (uint32_t)o->max_length};
    return resolve_adapter(o, &c->adapter, err);
}
