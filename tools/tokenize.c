/* tools/tokenize.c - mosld tokenize: what a model's tokenizer makes of a text, and of ids. */
#include "mosld/io/file.h"
#include "mosld/text/textbuf.h"
#include "mosld/text/tokenizer.h"
#include "mosld/text/utf8.h"
#include "tools/commands.h"
#include "tools/session.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_TEXT ((uint64_t)1 << 30)

struct tokenize_options {
    char *model, *text, *file, *decode;
    bool json, special, add_bos, bos;
};

static const struct option table[] = {
    {.name = "model",
     OPTION_STRING(struct tokenize_options, model),
     .value = "PATH",
     .required = true,
     .help = "a Hugging Face directory or a .gguf file"},
    {.name = "text", OPTION_STRING(struct tokenize_options, text), .value = "TEXT", .help = "the text; standard input where neither it nor --file is given"},
    {.name = "file", OPTION_STRING(struct tokenize_options, file), .value = "FILE", .help = "a file with the text"},
    {.name = "decode", OPTION_STRING(struct tokenize_options, decode), .value = "IDS", .help = "print the text of these ids, with spaces or commas between"},
    {.name = "special", OPTION_BOOL(struct tokenize_options, special), .help = "text that spells a special token, such as <|im_end|>, is that token; --no-special: plain text"},
    {.name = "add_bos", OPTION_BOOL(struct tokenize_options, add_bos), .help = "put the beginning token in front whatever the model's files say"},
    {.name = "bos", OPTION_BOOL(struct tokenize_options, bos), .help = "put it in front where the model's files say so; --no-bos: never"},
    {.name = "json", OPTION_BOOL(struct tokenize_options, json), .help = "one JSON document: ids and pieces as the vocabulary writes them, or the text"},
};

static enum rt_status read_input(struct text_buf *out, struct rt_error *err)
{
    size_t n;
    do {
        if (!text_buf_reserve(out, 1 << 16))
            return rt_fail(err, RT_NO_MEMORY, "standard input: no memory for a text of more than %zu bytes", out->len);
        n = fread(out->data + out->len, 1, 1 << 16, stdin);
        out->len += n;
    } while (n > 0 && out->len <= MAX_TEXT);
    return ferror(stdin) ? rt_fail(err, RT_FAILED, "standard input: %s", strerror(errno)) : RT_OK;
}

/* The text that was given, in a buffer of its own. */
static enum rt_status get_text(const struct tokenize_options *o, struct text_buf *out, struct rt_error *err)
{
    if (o->text)
        return text_buf_puts(out, o->text) ? RT_OK : rt_fail(err, RT_NO_MEMORY, "no memory for the text");
    if (!o->file)
        return read_input(out, err);
    enum rt_status st = file_read(o->file, MAX_TEXT, &out->data, &out->len, err);
    out->cap = st == RT_OK ? out->len + 1 : 0;
    return st;
}

static enum rt_status print_document(cJSON *doc, bool complete, struct rt_error *err)
{
    char *text = complete ? cJSON_PrintUnformatted(doc) : NULL;
    cJSON_Delete(doc);
    if (!text)
        return rt_fail(err, RT_NO_MEMORY, "no memory for the JSON document");
    puts(text);
    free(text);
    return RT_OK;
}

/* The ids as an array of the document. */
static bool add_ids(cJSON *doc, const int32_t *ids, size_t count)
{
    cJSON *array = cJSON_AddArrayToObject(doc, "ids");
    for (size_t i = 0; array && i < count; i++) {
        if (!cJSON_AddItemToArray(array, cJSON_CreateNumber(ids[i])))
            return false;
    }
    return array != NULL;
}

static bool add_pieces(cJSON *doc, const struct mosld_tokenizer *t, const int32_t *ids, size_t count)
{
    cJSON *array = cJSON_AddArrayToObject(doc, "pieces");
    bool ok = array != NULL;
    for (size_t i = 0; ok && i < count; i++) {
        size_t len = 0;
        const char *piece = mosld_tokenizer_piece(t, ids[i], &len);
        char *copy = strndup(piece ? piece : "", len);
        ok = copy && cJSON_AddItemToArray(array, cJSON_CreateString(copy));
        free(copy);
    }
    return ok;
}

static enum rt_status print_ids(const struct mosld_tokenizer *t, const int32_t *ids, size_t count, bool json,
                                struct rt_error *err)
{
    if (json) {
        cJSON *doc = cJSON_CreateObject();
        return print_document(doc, doc && add_ids(doc, ids, count) && add_pieces(doc, t, ids, count), err);
    }
    for (size_t i = 0; i < count; i++)
        printf("%s%d", i == 0 ? "" : " ", ids[i]);
    putchar('\n');
    return RT_OK;
}

static enum rt_status run_encode(const struct mosld_tokenizer *t, const struct tokenize_options *o, struct rt_error *err)
{
    const struct mosld_encode_params params = {.bos = o->add_bos ? MOSLD_BOS_ALWAYS : o->bos ? MOSLD_BOS_AUTO : MOSLD_BOS_NEVER,
                                               .parse_special = o->special};
    struct text_buf text = {0};
    int32_t *ids = NULL;
    size_t count = 0;
    enum rt_status st = get_text(o, &text, err);
    if (st == RT_OK)
        st = mosld_tokenizer_encode(t, text.data ? text.data : "", text.len, &params, &ids, &count, err);
    if (st == RT_OK)
        st = print_ids(t, ids, count, o->json, err);
    free(ids);
    text_buf_finish(&text);
    return st;
}

static enum rt_status print_text(const int32_t *ids, size_t count, const char *text, size_t len, bool json,
                                 struct rt_error *err)
{
    struct text_buf valid = {0}; /* JSON has no broken characters */
    if (!json) {
        fwrite(text, 1, len, stdout);
        putchar('\n');
        return RT_OK;
    }
    cJSON *doc = cJSON_CreateObject();
    bool ok = doc && utf8_repair(text, len, &valid) && text_buf_terminate(&valid) && add_ids(doc, ids, count) &&
              cJSON_AddStringToObject(doc, "text", valid.data);
    text_buf_finish(&valid);
    return print_document(doc, ok, err);
}

static enum rt_status run_decode(const struct mosld_tokenizer *t, const struct tokenize_options *o, struct rt_error *err)
{
    int32_t *ids = NULL;
    size_t count = 0, len = 0;
    char *text = NULL;
    enum rt_status st = session_parse_ids("--decode", o->decode, &ids, &count, err);
    if (st == RT_OK)
        st = mosld_tokenizer_decode(t, ids, count, false, &text, &len, err);
    if (st == RT_OK)
        st = print_text(ids, count, text, len, o->json, err);
    free(text);
    free(ids);
    return st;
}

static enum rt_status run(void *state, const struct options *given, struct rt_error *err)
{
    const struct tokenize_options *o = state;
    struct mosld_tokenizer *t = NULL;
    (void)given;
    if ((o->text != NULL) + (o->file != NULL) + (o->decode != NULL) > 1)
        return rt_fail(err, RT_USAGE, "--text, --file and --decode exclude each other");
    enum rt_status st = mosld_tokenizer_open(o->model, &t, err);
    if (st == RT_OK)
        st = o->decode ? run_decode(t, o, err) : run_encode(t, o, err);
    mosld_tokenizer_close(t);
    return st;
}

static void finish(void *state) { (void)state; }

int cmd_tokenize(int argc, char **argv)
{
    struct tokenize_options o = {.special = true, .bos = true};
    return session_main(&(struct session_command){.name = "tokenize",
                                                  .usage = "mosld tokenize --model PATH [--text TEXT | --file FILE | --decode IDS] [options]",
                                                  .table = table,
                                                  .n = sizeof table / sizeof *table,
                                                  .values = &o,
                                                  .run = run,
                                                  .finish = finish,
                                                  .state = &o},
                        argc, argv);
}
