/* tools/main.c - the program: which command is meant. */
#include "tools/commands.h"

#include <stdio.h>
#include <string.h>

static const struct {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *help;
} commands[] = {
    {"devices", cmd_devices, "what mosld can run on"},
    {"train", cmd_train, "fine-tune a model on one or several tasks"},
    {"eval", cmd_eval, "scores and losses on tasks, with or without an adapter"},
    {"generate", cmd_generate, "text from a prompt, or a conversation"},
    {"chat", cmd_chat, "a conversation with a model, at a terminal or through a pipe"},
    {"serve", cmd_serve, "an OpenAI-compatible HTTP server, and a page to chat"},
    {"pull", cmd_pull, "a model from a Hugging Face hub into its cache on this machine"},
    {"export", cmd_export, "a LoRA for PEFT or llama.cpp, or merged into its model"},
    {"perplexity", cmd_perplexity, "how well a model foresees a text"},
    {"logits", cmd_logits, "a model's raw output, for checking it against others"},
    {"bench", cmd_bench, "what the device can do, what each op makes of it, a whole step"},
    {"kernels", cmd_kernels, "what the driver's compiler makes of each kernel"},
    {"doctor", cmd_doctor, "whether a driver computes what it should, and a report to send in"},
    {"inspect", cmd_inspect, "a model, an adapter, a checkpoint, a safetensors or GGUF file"},
    {"tokenize", cmd_tokenize, "text to token ids and back"},
};

static void usage(FILE *to)
{
    fprintf(to,
            "mosld %s: fine-tunes, evaluates and runs language models with MoSLD adapters\non any Vulkan device, and "
            "on the processor where there is none\n\n"
            "usage: mosld COMMAND [options]        mosld COMMAND --help\n\n",
            MOSLD_VERSION);
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++)
        fprintf(to, "  %-12s %s\n", commands[i].name, commands[i].help);
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        usage(stderr);
        return 2;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 || strcmp(argv[1], "help") == 0) {
        usage(stdout);
        return 0;
    }
    if (strcmp(argv[1], "--version") == 0) {
        printf("mosld %s\n", MOSLD_VERSION);
        return 0;
    }
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++)
        if (strcmp(argv[1], commands[i].name) == 0)
            return commands[i].run(argc - 1, argv + 1);
    fprintf(stderr, "mosld: there is no command '%s'; mosld --help lists them\n", argv[1]);
    return 2;
}
