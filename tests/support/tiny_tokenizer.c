/* tests/support/tiny_tokenizer.c - see tiny_tokenizer.h. */
#include "tests/support/tiny_tokenizer.h"

#include <check.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char folder[256];

const char *tiny_folder(void)
{
    const char *tmp = getenv("TMPDIR");
    if (!folder[0]) {
        snprintf(folder, sizeof folder, "%s/mosld-test-XXXXXX", tmp ? tmp : "/tmp");
        ck_assert_ptr_nonnull(mkdtemp(folder));
    }
    return folder;
}

void tiny_folder_remove(void)
{
    char path[600];
    struct dirent *entry;
    DIR *dir = folder[0] ? opendir(folder) : NULL;
    while (dir && (entry = readdir(dir)) != NULL) {
        snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
        if (entry->d_name[0] != '.')
            unlink(path);
    }
    if (dir)
        closedir(dir);
    if (folder[0])
        rmdir(folder);
    folder[0] = 0;
}

const char *tiny_file(const char *name, const char *text)
{
    static char paths[8][600];
    static unsigned next;
    char *path = paths[next++ % 8];
    snprintf(path, sizeof paths[0], "%s/%s", tiny_folder(), name);
    FILE *f = fopen(path, "w");
    ck_assert_ptr_nonnull(f);
    ck_assert_uint_eq(fwrite(text, 1, strlen(text), f), strlen(text));
    ck_assert_int_eq(fclose(f), 0);
    return path;
}

/* The letter that stands for a byte in GPT-2's alphabet: itself where it prints, else the next from U+0100 on. */
static unsigned letter_of(unsigned byte)
{
    unsigned others = 0;
    for (unsigned b = 0; b <= byte; b++) {
        bool prints = (b >= '!' && b <= '~') || (b >= 0xa1 && b <= 0xac) || b >= 0xae;
        if (b == byte)
            return prints ? b : 0x100 + others;
        others += !prints;
    }
    return 0;
}

struct mosld_tokenizer *tiny_tokenizer(int flags)
{
    static char json[16384], config[256];
    size_t n = 0;
#define PUT(...) n += (size_t)snprintf(json + n, sizeof json - n, __VA_ARGS__)
    PUT("{\"added_tokens\": [");
    static const char *const special[] = {"<|endoftext|>", "<|im_start|>", "<|im_end|>", "<s>"};
    for (int i = 0; i < 4; i++)
        PUT("%s{\"id\": %d, \"content\": \"%s\", \"single_word\": false, \"lstrip\": false, \"rstrip\": false, "
            "\"normalized\": false, \"special\": true}",
            i ? ", " : "", TINY_END + i, special[i]);
    PUT("], \"normalizer\": null, \"pre_tokenizer\": {\"type\": \"ByteLevel\", \"add_prefix_space\": false, "
        "\"trim_offsets\": true, \"use_regex\": %s}, \"decoder\": {\"type\": \"ByteLevel\"}, ",
        flags & TINY_WITHOUT_WORDS ? "false" : "true");
    if (flags & TINY_WITH_BEGIN)
        PUT("\"post_processor\": {\"type\": \"TemplateProcessing\", "
            "\"single\": [{\"SpecialToken\": {\"id\": \"<s>\", \"type_id\": 0}}, "
            "{\"Sequence\": {\"id\": \"A\", \"type_id\": 0}}], "
            "\"pair\": [{\"Sequence\": {\"id\": \"A\", \"type_id\": 0}}, "
            "{\"Sequence\": {\"id\": \"B\", \"type_id\": 1}}], "
            "\"special_tokens\": {\"<s>\": {\"id\": \"<s>\", \"ids\": [%d], \"tokens\": [\"<s>\"]}}}, ",
            TINY_BEGIN);
    PUT("\"model\": {\"type\": \"BPE\", \"merges\": [\"\\u0120 A\", \"x y\", \": \\u0120A\"], \"vocab\": {");
    for (unsigned byte = 0; byte < 256; byte++)
        PUT("\"\\u%04x\": %u, ", letter_of(byte), byte);
    PUT("\"\\u0120A\": %d, \"xy\": %d, \":\\u0120A\": %d}}}", TINY_SPACE_A, TINY_XY, TINY_COLON_SPACE_A);
    ck_assert_uint_lt(n, sizeof json);
    snprintf(config, sizeof config, "{\"bos_token\": %s, \"eos_token\": \"<|endoftext|>\"}",
             flags & TINY_WITH_BEGIN ? "\"<s>\"" : "null");
    tiny_file("tokenizer.json", json);
    tiny_file("tokenizer_config.json", config);
    struct mosld_tokenizer *t = NULL;
    struct rt_error err = {0};
    enum rt_status st = mosld_tokenizer_open_dir(tiny_folder(), &t, &err);
    ck_assert_msg(st == RT_OK, "%s", err.text);
    return t;
}
