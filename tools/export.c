/* tools/export.c - mosld export: a LoRA for other programs, or merged into its model. */
#include "tools/commands.h"

#include "mosld/adapter/export.h"
#include "mosld/io/file.h"
#include "tools/hub.h"
#include "tools/session.h"

#include <stdlib.h>
#include <string.h>

enum { TO_PEFT, TO_GGUF, TO_MERGED };
static const char *const forms[] = {"peft", "gguf", "merged", NULL};
static const char *const types[] = {"file", "f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", NULL};
static const enum dtype dtypes[] = {MOSLD_EXPORT_AS_FILE, DTYPE_F32, DTYPE_F16, DTYPE_BF16, DTYPE_Q8_0, DTYPE_Q4_0, DTYPE_Q4_1};

struct export_options {
    char *adapter, *model, *out;
    int to, dtype;
    bool overwrite;
};

static const struct option table[] = {
    {.name = "adapter",
     OPTION_STRING(struct export_options, adapter),
     .value = "DIR",
     .required = true,
     .help = "the adapter: one of mosld's, or a LoRA that PEFT saved"},
    {.name = "to",
     OPTION_CHOICE(struct export_options, to, forms),
     .required = true,
     .help = "peft: a folder for PEFT; gguf: a LoRA file for llama.cpp; merged: the whole model with the LoRA in its weights"},
    {.name = "out",
     OPTION_STRING(struct export_options, out),
     .value = "PATH",
     .required = true,
     .help = "folder (peft; merged into a Hugging Face model) or file (gguf; merged into a GGUF model) to write"},
    {.name = "model",
     OPTION_STRING(struct export_options, model),
     .value = "PATH",
     .help = "the model of the adapter, for gguf and merged; otherwise the one that adapter_config.json names"},
    {.name = "dtype",
     OPTION_CHOICE(struct export_options, dtype, types),
     .help = "type of the tensors written; file: as they are (the quantised ones for a GGUF model only)"},
    {.name = "overwrite", OPTION_BOOL(struct export_options, overwrite), .help = "replace what is there under that name"},
};

struct export_command {
    struct export_options o;
    struct mosld_lora_file *lora;
    struct mosld_model_file *model;
};

static enum rt_status check_out(const struct export_options *o, bool folder, struct rt_error *err)
{
    char *inside = folder ? file_join(o->out, o->to == TO_PEFT ? "adapter_config.json" : "config.json") : strdup(o->out);
    bool there = inside && (file_is_regular(inside) || (!folder && file_is_folder(inside)));
    free(inside);
    if (there && !o->overwrite)
        return rt_fail(err, RT_USAGE, "--out: %s is there already: choose another name, or give --overwrite", o->out);
    if (o->to == TO_PEFT && strcmp(o->out, o->adapter) == 0)
        return rt_fail(err, RT_USAGE, "--out: is the adapter itself");
    if (o->model && strcmp(o->out, o->model) == 0)
        return rt_fail(err, RT_USAGE, "--out: is the model itself");
    return RT_OK;
}

static enum rt_status open_model(struct export_command *c, struct rt_error *err)
{
    const char *path = c->o.model ? c->o.model : c->lora->base_model;
    if (!path || !*path)
        return rt_fail(err, RT_USAGE, "--model is missing, and %s/adapter_config.json does not name a model either", c->o.adapter);
    char *found = NULL;
    enum rt_status st = hub_resolve(path, &found, err);
    if (!st)
        st = mosld_model_file_open(found, &c->model, err);
    free(found);
    return st && !c->o.model ? rt_error_prefix(err, "the adapter's own model (--model names another)") : st;
}

static enum rt_status run(void *state, const struct options *given, struct rt_error *err)
{
    struct export_command *c = state;
    const struct export_options *o = &c->o;
    (void)given;
    if (o->to == TO_PEFT && o->dtype > 3)
        return rt_fail(err, RT_USAGE, "--dtype: an adapter is written as f32, f16 or bf16");
    RT_TRY(mosld_lora_open(o->adapter, &c->lora, err));
    if (o->to != TO_PEFT)
        RT_TRY(open_model(c, err));
    RT_TRY(check_out(o, o->to == TO_PEFT || (o->to == TO_MERGED && !mosld_model_file_gguf(c->model)), err));
    const char *base = o->model ? o->model : c->lora->base_model ? c->lora->base_model : "";
    switch (o->to) {
    case TO_PEFT: RT_TRY(mosld_export_peft(c->lora, dtypes[o->dtype], base, o->out, err)); break;
    case TO_GGUF: RT_TRY(mosld_export_gguf(c->lora, c->model, dtypes[o->dtype], o->out, err)); break;
    default: RT_TRY(mosld_export_merged(c->lora, c->model, dtypes[o->dtype], o->out, err)); break;
    }
    fprintf(stderr, "%u modules, written to %s\n", c->lora->n_modules, o->out);
    return RT_OK;
}

static void finish(void *state)
{
    struct export_command *c = state;
    mosld_model_file_close(&c->model);
    mosld_lora_close(&c->lora);
}

int cmd_export(int argc, char **argv)
{
    struct export_command c = {0};
    return session_main(&(struct session_command){.name = "export",
                                                  .usage = "mosld export --adapter DIR --to peft|gguf|merged --out PATH",
                                                  .table = table,
                                                  .n = sizeof table / sizeof *table,
                                                  .values = &c.o,
                                                  .run = run,
                                                  .finish = finish,
                                                  .state = &c},
                        argc, argv);
}
