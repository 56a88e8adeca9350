/* mosld/train/fingerprint.c - what must be the same when a run goes on from a checkpoint, as one number.
 *
 * In it is everything that decides which bits come out, but for device, driver and build: the options of training and
 * of the adapter, the model, and the tasks as tokens. How often a run logs or saves is not in it. */
#include "mosld/train/run.h"

#include "mosld/model/model_file.h"

#include <stdlib.h>
#include <string.h>

uint64_t run_hash(uint64_t h, const void *data, size_t n)
{
    const unsigned char *p = data;
    for (size_t i = 0; i < n; i++)
        h = (h ^ p[i]) * 0x100000001b3u; /* FNV-1a */
    return h;
}

static uint64_t hash_training(uint64_t h, const struct mosld_run *run)
{
    const struct mosld_train_config *c = run->config;
    const struct rt_device_info *device = rt_device_info(run->params->model->dev);
    const double numbers[] = {c->learning_rate,
                              c->lr_scheduler_type,
                              c->warmup_steps,
                              c->warmup_ratio,
                              c->weight_decay,
                              c->max_grad_norm,
                              c->adam_beta1,
                              c->adam_beta2,
                              c->adam_epsilon,
                              c->per_device_train_batch_size,
                              c->gradient_accumulation_steps,
                              (double)run->plan.steps,
                              (double)run->plan.n_micro,
                              c->packing,
                              c->sequential,
                              (double)c->seed,
                              run->params->dropout_mask != NULL,
                              device->kind == RT_VULKAN ? device->precision : 0};
    return run_hash(h, numbers, sizeof numbers);
}

static uint64_t hash_adapter(uint64_t h, const struct mosld_adapter_params *p)
{
    const double numbers[] = {p->method, p->r,       p->lora_alpha, p->use_rslora,
                              p->top_k,  p->dropout, p->dropout_on, p->router_aux_loss_coef};
    h = run_hash(h, numbers, sizeof numbers);
    h = run_hash(h, p->num_experts, p->n_num_experts * sizeof *p->num_experts);
    if (p->sizes.n)
        h = run_hash(h, p->sizes.of, sizeof p->sizes.of);
    for (uint32_t i = 0; i < p->sizes.n; i++)
        h = run_hash(h, (double[]){p->sizes.size[i].r, p->sizes.size[i].lora_alpha}, 2 * sizeof(double));
    return run_hash(h, p->targets, sizeof p->targets);
}

/* Sizes, the types in memory, the last norm and a row of the embedding: enough to tell one model from another without
 * reading it all. */
static enum rt_status hash_model(uint64_t *h, const struct mosld_run *run, struct rt_error *err)
{
    const struct mosld_model *m = run->params->model;
    const struct mosld_config *c = &m->config;
    const uint32_t sizes[] = {
        c->arch,      c->vocab_size,   c->hidden_size, c->intermediate_size, c->num_layers,
        c->num_heads, c->num_kv_heads, c->head_dim,    m->embed.type,        m->layers[0].linear[MOSLD_Q].type};
    static const char *const names[] = {"model.norm.weight", "model.embed_tokens.weight"};
    float *row = malloc(c->hidden_size * sizeof *row);
    enum rt_status st = row ? RT_OK : rt_fail(err, RT_NO_MEMORY, "no memory for a row of the model");
    *h = run_hash(*h, sizes, sizeof sizes);
    for (int i = 0; i < 2 && !st; i++) {
        const struct mosld_weight *w = mosld_model_file_find(run->params->file, names[i]);
        if (w)
            st = mosld_weight_rows_f32(run->params->file, w, w->rows / 2, 1, row, err);
        if (w && !st)
            *h = run_hash(*h, row, w->cols * sizeof *row);
    }
    free(row);
    return st;
}

static uint64_t hash_task(uint64_t h, const struct mosld_train_task *task)
{
    h = run_hash(h, task->name, strlen(task->name));
    h = run_hash(h, &task->weight, sizeof task->weight);
    h = run_hash(h, task->examples->tokens, task->examples->n_tokens * sizeof *task->examples->tokens);
    return run_hash(h, task->examples->labels, task->examples->n_tokens * sizeof *task->examples->labels);
}

enum rt_status run_fingerprint(const struct mosld_run *run, char text[32], struct rt_error *err)
{
    const struct mosld_train_params *p = run->params;
    uint64_t h = hash_adapter(hash_training(RUN_HASH_START, run), &run->adapter_params);
    enum rt_status st = hash_model(&h, run, err);
    for (uint32_t t = 0; t < p->n_tasks; t++)
        h = hash_task(h, &p->tasks[t]);
    if (run->config->load_best_model_at_end) { /* only then does evaluation decide what is left */
        h = run_hash(h, &run->config->eval_steps, sizeof run->config->eval_steps);
        for (uint32_t t = 0; t < p->n_eval_tasks; t++)
            h = hash_task(h, &p->eval_tasks[t]);
    }
    snprintf(text, 32, "%016llx", (unsigned long long)h);
    return st;
}
