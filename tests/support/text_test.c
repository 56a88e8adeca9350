/* tests/support/text_test.c - see text_test.h. */
#include "tests/support/text_test.h"

#include "mosld/text/textbuf.h"
#include "mosld/text/tokenizer_parts.h"
#include "mosld/text/utf8.h"

#include <check.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void add(struct text_buf *buf, const char *text)
{
    ck_assert(text_buf_puts(buf, text));
}

/* A JSON string of len bytes. */
static void add_string(struct text_buf *buf, const char *text, size_t len)
{
    add(buf, "\"");
    for (size_t i = 0; i < len; i++) {
        if (text[i] == '"' || text[i] == '\\')
            add(buf, "\\");
        ck_assert(text_buf_append(buf, text + i, 1));
    }
    add(buf, "\"");
}

static void add_vocab(struct text_buf *buf, const struct tokenizer_recipe *r)
{
    char number[32], c[4];
    for (int b = 0; b < 256; b++) {
        add(buf, b ? "," : "");
        add_string(buf, c, utf8_encode(tokenizer_byte_char((uint8_t)b), c));
        snprintf(number, sizeof number, ":%d", b);
        add(buf, number);
    }
    for (int i = 0; r->merges && r->merges[i]; i++) {
        const char *space = strchr(r->merges[i], ' ');
        char piece[256];
        snprintf(piece, sizeof piece, "%.*s%s", (int)(space - r->merges[i]), r->merges[i], space + 1);
        add(buf, ",");
        add_string(buf, piece, strlen(piece));
        snprintf(number, sizeof number, ":%d", 256 + i);
        add(buf, number);
    }
}

static void add_merges(struct text_buf *buf, const struct tokenizer_recipe *r)
{
    for (int i = 0; r->merges && r->merges[i]; i++) {
        const char *merge = r->merges[i], *space = strchr(merge, ' ');
        add(buf, i ? "," : "");
        if (!r->pairs) {
            add_string(buf, merge, strlen(merge));
            continue;
        }
        add(buf, "[");
        add_string(buf, merge, (size_t)(space - merge));
        add(buf, ",");
        add_string(buf, space + 1, strlen(space + 1));
        add(buf, "]");
    }
}

int recipe_next_id(const struct tokenizer_recipe *r)
{
    int n = 256;
    for (int i = 0; r->merges && r->merges[i]; i++)
        n++;
    return n;
}

char *recipe_json(const struct tokenizer_recipe *r)
{
    struct text_buf buf = {0};
    const struct {
        const char *name, *json;
    } parts[] = {
        {"normalizer", r->normalizer},
        {"pre_tokenizer", r->pre_tokenizer ? r->pre_tokenizer : "{\"type\":\"ByteLevel\",\"add_prefix_space\":false}"},
        {"post_processor", r->post_processor},
        {"decoder", r->decoder},
        {"added_tokens", r->added_tokens}};
    add(&buf, "{\"version\":\"1.0\"");
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        if (!parts[i].json)
            continue;
        add(&buf, ",\n\"");
        add(&buf, parts[i].name);
        add(&buf, "\":");
        add(&buf, parts[i].json);
    }
    add(&buf, ",\n\"model\":{");
    add(&buf, r->model_fields ? r->model_fields : "\"type\":\"BPE\",");
    add(&buf, "\n\"vocab\":{");
    add_vocab(&buf, r);
    add(&buf, "},\n\"merges\":[");
    add_merges(&buf, r);
    add(&buf, "]}}\n");
    ck_assert(text_buf_terminate(&buf));
    return buf.data;
}

char *make_folder(void)
{
    const char *base = getenv("TMPDIR");
    char *path = NULL;
    ck_assert(asprintf(&path, "%s/mosld-text-XXXXXX", base && *base ? base : "/tmp") > 0);
    ck_assert_ptr_nonnull(mkdtemp(path));
    return path;
}

void remove_folder(char *folder)
{
    DIR *dir = opendir(folder);
    for (struct dirent *e; dir && (e = readdir(dir));) {
        char path[4096];
        snprintf(path, sizeof path, "%s/%s", folder, e->d_name);
        if (e->d_name[0] != '.')
            unlink(path);
    }
    if (dir)
        closedir(dir);
    rmdir(folder);
    free(folder);
}

void write_text_file(const char *folder, const char *name, const char *text, size_t len)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *f = fopen(path, "wb");
    ck_assert_ptr_nonnull(f);
    ck_assert_uint_eq(fwrite(text, 1, len, f), len);
    ck_assert_int_eq(fclose(f), 0);
}

enum rt_status open_json(const char *json, const char *config, struct mosld_tokenizer **t, struct rt_error *err)
{
    char *folder = make_folder();
    write_text_file(folder, "tokenizer.json", json, strlen(json));
    if (config)
        write_text_file(folder, "tokenizer_config.json", config, strlen(config));
    enum rt_status st = mosld_tokenizer_open_dir(folder, t, err);
    remove_folder(folder);
    return st;
}

struct mosld_tokenizer *open_recipe(const struct tokenizer_recipe *r)
{
    struct mosld_tokenizer *t = NULL;
    struct rt_error err = {0};
    char *json = recipe_json(r);
    enum rt_status st = open_json(json, NULL, &t, &err);
    free(json);
    ck_assert_msg(st == RT_OK, "%s", err.text);
    return t;
}

void check_ids(const struct mosld_tokenizer *t, const char *text, size_t len, const struct mosld_encode_params *params,
               const char *want)
{
    static const struct mosld_encode_params defaults = {.bos = MOSLD_BOS_NEVER, .parse_special = true};
    struct text_buf got = {0};
    struct rt_error err = {0};
    int32_t *ids = NULL;
    size_t count = 0;
    enum rt_status st = mosld_tokenizer_encode(t, text, len, params ? params : &defaults, &ids, &count, &err);
    ck_assert_msg(st == RT_OK, "%s", err.text);
    for (size_t i = 0; i < count; i++) {
        char number[32];
        snprintf(number, sizeof number, "%s%d", i ? " " : "", ids[i]);
        add(&got, number);
    }
    ck_assert(text_buf_terminate(&got));
    free(ids);
    ck_assert_msg(strcmp(got.data, want) == 0, "'%.*s': want %s, got %s", (int)len, text, want, got.data);
    text_buf_finish(&got);
}
