/* tools/tokenize.c - mosld tokenize: what a model's tokenizer makes of a text, and of ids. */
#include "mosld/io/file.h"
#include "mosld/text/textbuf.h"
#include "mosld/text/tokenizer.h"
#include "mosld/text/utf8.h"
#include "tools/commands.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_TEXT ((uint64_t)1 << 30)

static const char usage_text[] =
    "usage: mosld tokenize --model PATH [--text TEXT | --file FILE] [--json]\n"
    "                      [--no-special] [--add-bos | --no-bos]\n"
    "       mosld tokenize --model PATH --decode IDS [--json]\n"
    "\n"
    "Prints the token ids of a text (of standard input where neither --text nor\n"
    "--file is given), or the text of ids.\n"
    "\n"
    "  --model PATH    a Hugging Face directory or a .gguf file\n"
    "  --text TEXT     the text\n"
    "  --file FILE     a file with the text\n"
    "  --no-special    text that spells a special token, such as <|im_end|>, is\n"
    "                  plain text\n"
    "  --add-bos       put the beginning token in front; by default when the\n"
    "                  model's files say so\n"
    "  --no-bos        do not put it in front\n"
    "  --decode IDS    ids, with spaces or commas between\n"
    "  --json          one JSON document: ids and pieces as the vocabulary writes\n"
    "                  them, or the text\n";

struct options {
    const char *model, *text, *file, *decode;
    bool json, no_special;
    enum mosld_bos bos;
};

/* Status of the program for a status of the library. */
static int exit_of(enum rt_status st)
{
    switch (st) {
    case RT_OK:
        return 0;
    case RT_USAGE:
        return 2;
    case RT_BAD_FILE:
        return 3;
    case RT_NO_MEMORY:
        return 4;
    default:
        return 1;
    }
}

/* Reads the options. Returns RT_OK, or RT_USAGE with the message; --help sets *help. */
static enum rt_status parse_options(int argc, char **argv, struct options *o, bool *help, struct rt_error *err)
{
    enum { MODEL = 1, TEXT, FILE_, DECODE, JSON, NO_SPECIAL, ADD_BOS, NO_BOS, HELP };
    static const struct option known[] = {
        {"model", required_argument, NULL, MODEL}, {"text", required_argument, NULL, TEXT},
        {"file", required_argument, NULL, FILE_},  {"decode", required_argument, NULL, DECODE},
        {"json", no_argument, NULL, JSON},         {"no-special", no_argument, NULL, NO_SPECIAL},
        {"add-bos", no_argument, NULL, ADD_BOS},   {"no-bos", no_argument, NULL, NO_BOS},
        {"help", no_argument, NULL, HELP},         {NULL, 0, NULL, 0}};
    optind = 0; /* starts anew: the tests call this more than once */
    opterr = 0;
    for (int c; (c = getopt_long(argc, argv, ":h", known, NULL)) != -1;) {
        switch (c) {
        case MODEL:
            o->model = optarg;
            break;
        case TEXT:
            o->text = optarg;
            break;
        case FILE_:
            o->file = optarg;
            break;
        case DECODE:
            o->decode = optarg;
            break;
        case JSON:
            o->json = true;
            break;
        case NO_SPECIAL:
            o->no_special = true;
            break;
        case ADD_BOS:
            o->bos = MOSLD_BOS_ALWAYS;
            break;
        case NO_BOS:
            o->bos = MOSLD_BOS_NEVER;
            break;
        case HELP:
        case 'h':
            *help = true;
            return RT_OK;
        case ':':
            return rt_fail(err, RT_USAGE, "%s needs a value", argv[optind - 1]);
        default:
            return rt_fail(err, RT_USAGE, "there is no option %s", argv[optind - 1]);
        }
    }
    if (optind < argc)
        return rt_fail(err, RT_USAGE, "'%s' is no option; a text is given with --text", argv[optind]);
    if (!o->model)
        return rt_fail(err, RT_USAGE, "--model is missing");
    if ((o->text != NULL) + (o->file != NULL) + (o->decode != NULL) > 1)
        return rt_fail(err, RT_USAGE, "--text, --file and --decode exclude each other");
    return RT_OK;
}

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
static enum rt_status get_text(const struct options *o, struct text_buf *out, struct rt_error *err)
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

static enum rt_status run_encode(const struct mosld_tokenizer *t, const struct options *o, struct rt_error *err)
{
    const struct mosld_encode_params params = {.bos = o->bos, .parse_special = !o->no_special};
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

/* Reads "1 2,3". */
static enum rt_status parse_ids(const char *list, int32_t **ids, size_t *count, struct rt_error *err)
{
    size_t cap = 0;
    for (const char *at = list + strspn(list, " ,\t\n"); *at; at += strspn(at, " ,\t\n")) {
        char *end = NULL;
        errno = 0;
        long id = strtol(at, &end, 10);
        if (end == at || (*end && !strchr(" ,\t\n", *end)) || errno || id < 0 || id > INT32_MAX)
            return rt_fail(err, RT_USAGE, "--decode: '%.*s' is not a token id", (int)strcspn(at, " ,\t\n"), at);
        if (!text_grow((void **)ids, &cap, *count, sizeof **ids))
            return rt_fail(err, RT_NO_MEMORY, "--decode: no memory for the ids");
        (*ids)[(*count)++] = (int32_t)id;
        at = end;
    }
    return RT_OK;
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

static enum rt_status run_decode(const struct mosld_tokenizer *t, const struct options *o, struct rt_error *err)
{
    int32_t *ids = NULL;
    size_t count = 0, len = 0;
    char *text = NULL;
    enum rt_status st = parse_ids(o->decode, &ids, &count, err);
    if (st == RT_OK)
        st = mosld_tokenizer_decode(t, ids, count, false, &text, &len, err);
    if (st == RT_OK)
        st = print_text(ids, count, text, len, o->json, err);
    free(text);
    free(ids);
    return st;
}

int cmd_tokenize(int argc, char **argv)
{
    struct options o = {0};
    struct rt_error err = {0};
    struct mosld_tokenizer *t = NULL;
    bool help = false;
    enum rt_status st = parse_options(argc, argv, &o, &help, &err);
    if (help) {
        fputs(usage_text, stdout);
        return 0;
    }
    if (st != RT_OK) {
        fprintf(stderr, "mosld tokenize: %s\n\n%s", err.text, usage_text);
        return exit_of(st);
    }
    st = mosld_tokenizer_open(o.model, &t, &err);
    if (st == RT_OK)
        st = o.decode ? run_decode(t, &o, &err) : run_encode(t, &o, &err);
    if (st == RT_OK && fflush(stdout) != 0)
        st = rt_fail(&err, RT_FAILED, "standard output: %s", strerror(errno));
    mosld_tokenizer_close(t);
    if (st != RT_OK)
        fprintf(stderr, "mosld tokenize: %s\n", err.text);
    return exit_of(st);
}
