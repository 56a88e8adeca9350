/* tools/session.h - what the commands that run a model share: device, model, tokenizer, chat template, adapter, and how
 * they talk to people. */
#ifndef MOSLD_SESSION_H
#define MOSLD_SESSION_H

#include "mosld/adapter/adapter.h"
#include "mosld/data/task.h"
#include "mosld/model/model.h"
#include "mosld/model/model_file.h"
#include "mosld/model/pass.h"
#include "mosld/text/chat.h"
#include "mosld/text/tokenizer.h"
#include "tools/options.h"
#include "tools/profiling.h"

#include <signal.h>

/* Options that every such command has; a command's values begin with this. */
struct session_options {
    char *model, *adapter, *device, *chat_template;
    int weights, matmul_precision;
    int64_t threads;
    double memory_limit; /* MiB; 0: the device's own */
    bool json, tuning;
    struct profiling_options profiling; /* of the commands that have PROFILING_OPTIONS */
    bool plan; /* of commands that have PLAN_OPTION: print the plan of memory and stop */
};
#define SESSION_DEFAULTS .device = "auto", .tuning = true

extern const char
    *const session_weights[]; /* names for the option `weights`: "file", "f32", "f16", "bf16", "q8_0", "q4_0", "q4_1" */

extern const char *const session_precisions[]; /* of enum rt_precision, in its order */

#define SESSION_OPTIONS(type) \
    {.name = "model", \
     OPTION_STRING(type, session.model), \
     .value = "PATH", \
     .required = true, \
     .section = "Model and device", \
     .help = "a Hugging Face directory or a .gguf file"}, \
        {.name = "device", \
         OPTION_STRING(type, session.device), \
         .value = "NAME", \
         .help = "an index or a part of a name of `mosld devices`, or host; auto: the best GPU, else the host"}, \
        {.name = "threads", \
         OPTION_INT(type, session.threads, 0, 1024), \
         .help = "of the host device; 0: one a processor"}, \
        {.name = "weights", \
         OPTION_CHOICE(type, session.weights, session_weights), \
         .help = "type of the frozen weights in memory; file: as they are"}, \
        {.name = "matmul_precision", \
         OPTION_CHOICE(type, session.matmul_precision, session_precisions), \
         .help = "of the model's products on a GPU with matrix units: high splits the activations in two f16 and rounds quantised weights to f16; " \
                 "highest is f32 throughout; medium rounds both to f16"}, \
        {.name = "memory_limit", \
         OPTION_REAL(type, session.memory_limit, 0, 1e9), \
         .value = "MIB", \
         .help = "most device memory; 0: the device's own"}, \
        {.name = "tuning", \
         OPTION_BOOL(type, session.tuning), \
         .help = "heed what `mosld bench --tune` and `mosld doctor` found on this device"}, \
    { \
        .name = "chat_template", OPTION_STRING(type, session.chat_template), .value = "NAME", \
        .help = "chatml, smollm2, llama2, llama3, mistral, qwen2, qwen3, zephyr; otherwise the model's own" \
    }

#define PLAN_OPTION(type) \
    { \
        .name = "plan", OPTION_BOOL(type, session.plan), .command_line_only = true, \
        .help = "print what memory it takes, and what to lower where that does not fit, and stop; a config.json is enough for --model" \
    }

struct session {
    char *path; /* the model's: what --model means, looked up in the hub's cache too */
    struct mosld_model_file *file;
    struct mosld_tokenizer *tokenizer;            /* NULL: the model has none */
    struct mosld_chat_template chat;
    bool has_chat;                                /* whether the model, or --chat-template, has one that is known */
    struct rt_error why_no_tokenizer, why_no_chat; /* what to say when one is needed */
    struct rt_device *dev;
    struct profiling profiling;
    struct mosld_model *model;
    struct mosld_adapter *adapter;                /* NULL: none was asked for */
    struct mosld_pass *pass;
};

/* Opens the model's file, tokenizer and chat template: no device yet. A model without a tokenizer is fine here. */
enum rt_status session_open_file(struct session *s, const struct session_options *o, struct rt_error *err);
enum rt_status session_open_device(struct session *s, const struct session_options *o, struct rt_error *err);
/* Device, model, adapter and a pass, loaded and ready. `positions` 0: the model's own limit. */
enum rt_status session_open_pass(struct session *s, const struct session_options *o, uint32_t positions,
                                 const struct mosld_pass_params *pass, struct rt_error *err);
void session_close(struct session *s);
/* The folder of "NAME=DIR" or "DIR". */
const char *session_adapter_folder(const char *adapter);

/* What is wrong when there is none. */
enum rt_status session_need_tokenizer(const struct session *s, struct rt_error *err);
enum rt_status session_need_chat(const struct session *s, struct rt_error *err);
struct mosld_encoder session_encoder(const struct session *s);

/* A command from its words to its exit status: reads the options, or prints --help, then runs it and cleans up. */
struct session_command {
    const char *name, *usage;
    const struct option *table;
    size_t n;
    void *values;       /* of the table */
    size_t max_arguments; /* words that are no options: in given->arguments */
    bool interruptible; /* Ctrl-C is caught: `run` looks at session_interrupted */
    enum rt_status (*run)(void *state, const struct options *given, struct rt_error *err);
    void (*finish)(void *state); /* called always, also where run was not */
    void *state;
};
int session_main(const struct session_command *c, int argc, char **argv);

/* Reads "1 2,3" into *ids (malloc'd, also where there are none); `option` is what messages call it. RT_USAGE names what is no id. */
enum rt_status session_parse_ids(const char *option, const char *list, int32_t **ids, size_t *n, struct rt_error *err);

/* Prints "mosld COMMAND: message" and returns the exit status of it. */
int session_exit(const char *command, enum rt_status st, const struct rt_error *err);

/* A line that is written over on a terminal; elsewhere one now and then. Empty text ends it. */
void progress_line(const char *format, ...) RT_PRINTF(1, 2);
bool progress_is_terminal(void);

/* Ctrl-C sets it; a second one ends the program. */
extern volatile sig_atomic_t session_interrupted;
void session_catch_interrupt(void);

/* "12 s", "3 min 5 s", "2 h 10 min" into text. */
const char *duration_text(double seconds, char *text, size_t size);

#endif
