/* mosld/text/known_pre.c - the word cuts of the models we know, by the name that GGUF gives them.
 *
 * GGUF carries a name where tokenizer.json carries the rules, so the rules stand here. To add a model, add a row. */
#include "mosld/text/tokenizer_parts.h"

#include <string.h>

const char tokenizer_gpt2_regex[] =
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

/* Llama 3 takes digits in threes, Qwen one by one. */
static const char llama3_regex[] =
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|"
    "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
static const char qwen2_regex[] =
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|"
    "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
static const char digit_regex[] = "\\p{N}";

static const struct known_pre {
    const char *name;
    const char *regex[2]; /* cuts, one after the other */
    bool ignore_merges, nfc, add_bos;
} known[] = {
    {"gpt-2", {tokenizer_gpt2_regex, NULL}, false, false, false},
    {"gpt2", {tokenizer_gpt2_regex, NULL}, false, false, false},
    {"smollm", {digit_regex, tokenizer_gpt2_regex}, false, false, false},
    {"llama-bpe", {llama3_regex, NULL}, true, false, true},
    {"llama3", {llama3_regex, NULL}, true, false, true},
    {"llama-v3", {llama3_regex, NULL}, true, false, true},
    {"qwen2", {qwen2_regex, NULL}, false, true, false},
};

enum rt_status tokenizer_use_pre(struct mosld_tokenizer *t, const char *pre, struct rt_error *err)
{
    const struct known_pre *k = NULL;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        if (strcmp(known[i].name, pre) == 0)
            k = &known[i];
    }
    if (!k)
        return rt_fail(err, RT_BAD_FILE,
                       "tokenizer.ggml.pre is '%.60s'; supported are gpt-2, llama-bpe, qwen2 and smollm", pre);
    enum rt_status st = RT_OK;
    for (size_t i = 0; st == RT_OK && i < 2 && k->regex[i]; i++)
        st = pretokenizer_add_regex(&t->pretokenizer, k->regex[i], SPLIT_ISOLATED, false, err);
    if (st == RT_OK && k->nfc)
        st = normalizer_add(&t->normalizer, NORM_NFC, NULL, NULL, err);
    t->ignore_merges = k->ignore_merges;
    t->add_bos = k->add_bos;
    return st;
}
