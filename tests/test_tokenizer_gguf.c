/* tests/test_tokenizer_gguf.c - tokenizers in GGUF files: small files made here, good and bad; and real ones where the
 * environment names them:
 *
 *   MOSLD_TEST_SMOLLM2            SmolLM2's GGUF: the ids of tests/vectors/tokenizer-smollm2.jsonl
 *   MOSLD_TEST_TOKENIZER_VECTORS  a folder of NAME.gguf, NAME.gguf.inp, NAME.gguf.out as llama.cpp has them
 *
 * Without the first the program counts as skipped; the second is an extra. */
#include "mosld/io/file.h"
#include "mosld/io/gguf.h"
#include "mosld/text/textbuf.h"
#include "mosld/text/tokenizer_parts.h"
#include "mosld/text/utf8.h"
#include "tests/support/skip.h"
#include "tests/support/text_test.h"

#include <cjson/cJSON.h>
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- small files -------------------------------------------------------------------------------------------------- */

enum { KEY_U32 = 4, KEY_I32, KEY_F32, KEY_BOOL, KEY_STRING, KEY_ARRAY };

struct gguf_draft {
    struct text_buf keys;
    uint64_t count;
};

static void put(struct gguf_draft *d, const void *bytes, size_t n)
{
    ck_assert(text_buf_append(&d->keys, bytes, n));
}

static void put_u32(struct gguf_draft *d, uint32_t v)
{
    put(d, &v, sizeof v);
}

static void put_string(struct gguf_draft *d, const char *text)
{
    uint64_t len = strlen(text);
    put(d, &len, sizeof len);
    put(d, text, len);
}

static void begin_key(struct gguf_draft *d, const char *name, uint32_t type)
{
    char full[64];
    snprintf(full, sizeof full, "tokenizer.%s", name);
    put_string(d, full);
    put_u32(d, type);
    d->count++;
}

static void begin_array(struct gguf_draft *d, const char *name, uint32_t type, uint64_t n)
{
    begin_key(d, name, KEY_ARRAY);
    put_u32(d, type);
    put(d, &n, sizeof n);
}

static void key_string(struct gguf_draft *d, const char *name, const char *value)
{
    begin_key(d, name, KEY_STRING);
    put_string(d, value);
}

static void key_u32(struct gguf_draft *d, const char *name, uint32_t value)
{
    begin_key(d, name, KEY_U32);
    put_u32(d, value);
}

static enum rt_status open_draft(struct gguf_draft *d, struct mosld_tokenizer **t, struct rt_error *err)
{
    struct text_buf file = {0};
    char *folder = make_folder(), path[4096];
    const uint32_t version = 3;
    const uint64_t tensors = 0;
    ck_assert(text_buf_append(&file, "GGUF", 4) && text_buf_append(&file, (const char *)&version, 4) &&
              text_buf_append(&file, (const char *)&tensors, 8) && text_buf_append(&file, (const char *)&d->count, 8) &&
              text_buf_append(&file, d->keys.data, d->keys.len));
    while (file.len % 32)
        ck_assert(text_buf_append(&file, "", 1));
    write_text_file(folder, "small.gguf", file.data, file.len);
    snprintf(path, sizeof path, "%s/small.gguf", folder);
    enum rt_status st = mosld_tokenizer_open(path, t, err);
    remove_folder(folder);
    text_buf_finish(&file);
    text_buf_finish(&d->keys);
    return st;
}

/* What a draft may have wrong. */
enum fault {
    FINE,
    NO_MODEL,
    OTHER_MODEL,
    NO_PRE,
    OTHER_PRE,
    NO_TOKENS,
    NO_MERGES,
    SHORT_TYPES,
    FLOAT_TYPES,
    BAD_TYPE,
    STRING_IDS,
    BIG_ID,
    BAD_MERGE,
    LOST_MERGE,
    TWICE,
    EMPTY_TOKEN,
    BROKEN_TOKEN,
    BYTE_NAME,
    PREFIX,
    CHARSMAP,
    REMOVE_SPACES,
    NO_ALPHABET,
    SCORES, /* from here on model "llama" */
    NO_SCORES,
    SHORT_SCORES,
    NAN_SCORE,
    STRING_SCORES,
};

static const struct {
    enum fault fault;
    const char *says;
} faults[] = {{NO_MODEL, "tokenizer.ggml.model"},
              {OTHER_MODEL, "'bert'"},
              {NO_PRE, "tokenizer.ggml.pre"},
              {OTHER_PRE, "'default'"},
              {NO_TOKENS, "tokenizer.ggml.tokens"},
              {NO_MERGES, "tokenizer.ggml.merges"},
              {SHORT_TYPES, "tokenizer.ggml.token_type"},
              {FLOAT_TYPES, "tokenizer.ggml.token_type"},
              {BAD_TYPE, "tokenizer.ggml.token_type[5]"},
              {STRING_IDS, "tokenizer.ggml.eos_token_id"},
              {BIG_ID, "tokenizer.ggml.eos_token_id"},
              {BAD_MERGE, "tokenizer.ggml.merges[0]"},
              {LOST_MERGE, "tokenizer.ggml.merges[0]"},
              {TWICE, "tokenizer.ggml.tokens[257]"},
              {EMPTY_TOKEN, "tokenizer.ggml.tokens[257]"},
              {BROKEN_TOKEN, "tokenizer.ggml.tokens[257]"},
              {BYTE_NAME, "tokenizer.ggml.tokens[5]"},
              {PREFIX, "add_space_prefix"},
              {CHARSMAP, "precompiled_charsmap"},
              {REMOVE_SPACES, "remove_extra_whitespaces"},
              {NO_ALPHABET, "'A'"},
              {NO_SCORES, "tokenizer.ggml.scores"},
              {SHORT_SCORES, "tokenizer.ggml.scores"},
              {NAN_SCORE, "tokenizer.ggml.scores[5]"},
              {STRING_SCORES, "tokenizer.ggml.scores"}};

static void draft_tokens(struct gguf_draft *d, enum fault fault)
{
    begin_array(d, "ggml.tokens", KEY_STRING, fault == NO_TOKENS ? 0 : 258);
    for (int b = 0; b < 256 && fault != NO_TOKENS; b++) {
        char text[8] = "";
        text[utf8_encode(tokenizer_byte_char((uint8_t)b), text)] = '\0';
        put_string(d, fault == NO_ALPHABET && b == 'A' ? "BB" : text);
    }
    if (fault == NO_TOKENS)
        return;
    put_string(d, "ab");
    put_string(d, fault == TWICE ? "a" : fault == EMPTY_TOKEN ? "" : fault == BROKEN_TOKEN ? "\xFF" : "<|end|>");
}

static void draft_types(struct gguf_draft *d, enum fault fault)
{
    uint64_t n = fault == SHORT_TYPES ? 257 : 258;
    begin_array(d, "ggml.token_type", fault == FLOAT_TYPES ? KEY_F32 : KEY_I32, n);
    for (uint64_t i = 0; i < n; i++)
        put_u32(d, i == 257 ? 3 : i == 5 && fault == BAD_TYPE ? 7 : i == 5 && fault == BYTE_NAME ? 6 : 1);
}

static void draft_scores(struct gguf_draft *d, enum fault fault)
{
    uint64_t n = fault == SHORT_SCORES ? 100 : 258;
    if (fault < SCORES || fault == NO_SCORES)
        return;
    begin_array(d, "ggml.scores", fault == STRING_SCORES ? KEY_STRING : KEY_F32, n);
    for (uint64_t i = 0; i < n; i++) {
        if (fault == STRING_SCORES)
            put_string(d, "0");
        else
            put_u32(d, i == 5 && fault == NAN_SCORE ? 0x7FC00000 : 0);
    }
}

static void make_draft(struct gguf_draft *d, enum fault fault)
{
    if (fault != NO_MODEL)
        key_string(d, "ggml.model", fault == OTHER_MODEL ? "bert" : fault >= SCORES ? "llama" : "gpt2");
    if (fault != NO_PRE)
        key_string(d, "ggml.pre", fault == OTHER_PRE ? "default" : "gpt-2");
    draft_tokens(d, fault);
    draft_types(d, fault);
    draft_scores(d, fault);
    if (fault != NO_MERGES && fault < SCORES) {
        begin_array(d, "ggml.merges", KEY_STRING, 1);
        put_string(d, fault == BAD_MERGE ? "ab" : fault == LOST_MERGE ? "a c" : "a b");
    }
    if (fault == STRING_IDS)
        key_string(d, "ggml.eos_token_id", "257");
    else
        key_u32(d, "ggml.eos_token_id", fault == BIG_ID ? 258 : 257);
    if (fault == CHARSMAP)
        key_string(d, "ggml.precompiled_charsmap", "x");
    if (fault == PREFIX || fault == REMOVE_SPACES) {
        begin_key(d, fault == PREFIX ? "ggml.add_space_prefix" : "ggml.remove_extra_whitespaces", KEY_BOOL);
        put(d, "\1", 1);
    }
    key_string(d, "chat_template", "<|user|>");
}

START_TEST(bad_arrays)
{
    struct gguf_draft d = {0};
    struct mosld_tokenizer *t = NULL;
    struct rt_error err = {0};
    make_draft(&d, faults[_i].fault);
    ck_assert_int_eq(open_draft(&d, &t, &err), RT_BAD_FILE);
    ck_assert_ptr_null(t);
    ck_assert_msg(strstr(err.text, "small.gguf") && strstr(err.text, faults[_i].says), "want %s: %s", faults[_i].says,
                  err.text);
}
END_TEST

START_TEST(good_arrays)
{
    struct gguf_draft d = {0};
    struct mosld_tokenizer *t = NULL;
    struct rt_error err = {0};
    make_draft(&d, FINE);
    ck_assert_msg(open_draft(&d, &t, &err) == RT_OK, "%s", err.text);
    CHECK_IDS(t, "ab ba<|end|>", "256 32 98 97 257");
    ck_assert_int_eq(mosld_tokenizer_eos(t), 257);
    ck_assert_int_eq(mosld_tokenizer_bos(t), MOSLD_NO_TOKEN);
    ck_assert(!mosld_tokenizer_adds_bos(t));
    ck_assert(mosld_tokenizer_is_special(t, 257));
    ck_assert_str_eq(mosld_tokenizer_chat_template(t), "<|user|>");
    mosld_tokenizer_close(t);
}
END_TEST

/* --- real files --------------------------------------------------------------------------------------------------- */

/* Says so where there is nothing to test. */
static const char *named_by(const char *variable)
{
    const char *value = getenv(variable);
    if (value && *value)
        return value;
    test_skipped("%s is not set", variable);
    return NULL;
}

START_TEST(smollm2_has_the_ids_of_hugging_face)
{
    const char *path = named_by("MOSLD_TEST_SMOLLM2");
    struct mosld_tokenizer *t = NULL;
    struct rt_error err = {0};
    char *data = NULL;
    size_t size, rows = 0;
    if (!path)
        return;
    ck_assert_msg(mosld_tokenizer_open(path, &t, &err) == RT_OK, "%s", err.text);
    ck_assert_msg(file_read(MOSLD_SOURCE_DIR "/tests/vectors/tokenizer-smollm2.jsonl", 1 << 24, &data, &size, &err) ==
                      RT_OK,
                  "%s", err.text);
    for (char *line = data, *end; (end = strchr(line, '\n')); line = end + 1, rows++) {
        cJSON *row = cJSON_ParseWithLength(line, (size_t)(end - line));
        const cJSON *text = cJSON_GetObjectItem(row, "text"), *id;
        char want[8192] = "";
        size_t n = 0;
        cJSON_ArrayForEach(id, cJSON_GetObjectItem(row, "ids")) n +=
            (size_t)snprintf(want + n, sizeof want - n, "%s%d", n ? " " : "", id->valueint);
        ck_assert_uint_lt(n, sizeof want);
        CHECK_IDS(t, text->valuestring, want);
        cJSON_Delete(row);
    }
    ck_assert_uint_gt(rows, 200);
    ck_assert_int_eq(mosld_tokenizer_eos(t), 2);
    ck_assert(mosld_tokenizer_is_end(t, 2) && mosld_tokenizer_is_end(t, 0));
    free(data);
    mosld_tokenizer_close(t);
}
END_TEST

static char *read_beside(const char *gguf, const char *suffix)
{
    char path[4200], *data = NULL;
    size_t size;
    snprintf(path, sizeof path, "%s%s", gguf, suffix);
    return file_read(path, 1 << 24, &data, &size, NULL) == RT_OK ? data : NULL;
}

/* Encodes each string of NAME.gguf.inp and compares with the lines of NAME.gguf.out. */
static void check_vectors(const char *gguf)
{
    static const char mark[] = "\n__ggml_vocab_test__\n";
    struct mosld_tokenizer *t = NULL;
    struct rt_error err = {0};
    char *inputs = read_beside(gguf, ".inp"), *outputs = read_beside(gguf, ".out"), *line = outputs;
    int strings = 0;
    ck_assert(inputs && outputs);
    ck_assert_msg(mosld_tokenizer_open(gguf, &t, &err) == RT_OK, "%s", err.text);
    for (char *text = inputs, *end; text && *line; text = end ? end + strlen(mark) : NULL, strings++) {
        end = strstr(text, mark);
        char *stop = strchr(line, '\n');
        ck_assert_ptr_nonnull(stop);
        *stop = '\0';
        line += strspn(line, " ");
        check_ids(t, text, end ? (size_t)(end - text) : strlen(text), NULL, line);
        line = stop + 1;
    }
    ck_assert(strings > 40 && !*line);
    free(inputs);
    free(outputs);
    mosld_tokenizer_close(t);
}

#define VECTORS "MOSLD_TEST_TOKENIZER_VECTORS"

START_TEST(vectors_of_real_vocabularies)
{
    static const char *const names[] = {"gpt-2", "llama-spm", "phi-3"};
    const char *folder = getenv(VECTORS);
    char path[4096];
    snprintf(path, sizeof path, "%s/ggml-vocab-%s.gguf", folder, names[_i]);
    check_vectors(path);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("tokenizer gguf");
    TCase *tc = tcase_create("gguf");
    tcase_set_timeout(tc, 120);
    tcase_add_loop_test(tc, bad_arrays, 0, sizeof faults / sizeof *faults);
    tcase_add_test(tc, good_arrays);
    tcase_add_test(tc, smollm2_has_the_ids_of_hugging_face);
    if (getenv(VECTORS)) /* an extra that the project does not come with: not skipped, just not there */
        tcase_add_loop_test(tc, vectors_of_real_vocabularies, 0, 3);
    suite_add_tcase(s, tc);
    SRunner *runner = srunner_create(s);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
