/* tests/test_tokenizer_files.c - Hugging Face directories: what is read from which file, and that every bad file ends
 * in RT_BAD_FILE with the file and the field in the message. */
#include "mosld/text/textbuf.h"
#include "mosld/text/tokenizer_parts.h"
#include "tests/support/text_test.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* A small tokenizer.json with everything in it. */
static const char good[] =
    "{\"version\":\"1.0\",\"truncation\":null,\"padding\":null,"
    "\"added_tokens\":[{\"id\":4,\"content\":\"<s>\",\"special\":true,\"lstrip\":false,\"rstrip\":false,"
    "\"single_word\":false,\"normalized\":false}],"
    "\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"NFC\"},{\"type\":\"Replace\","
    "\"pattern\":{\"String\":\"x\"},\"content\":\"a\"}]},"
    "\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\",\"pattern\":"
    "{\"Regex\":\"\\\\s+\"},\"behavior\":\"Isolated\",\"invert\":false},{\"type\":\"Digits\","
    "\"individual_digits\":true}]},"
    "\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"<s>\",\"type_id\":0}},"
    "{\"Sequence\":{\"id\":\"A\",\"type_id\":0}}],\"pair\":[],\"special_tokens\":{\"<s>\":{\"id\":\"<s>\","
    "\"ids\":[4],\"tokens\":[\"<s>\"]}}},"
    "\"decoder\":{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"Fuse\"},{\"type\":\"Strip\",\"content\":\" \","
    "\"start\":1,\"stop\":0}]},"
    "\"model\":{\"type\":\"BPE\",\"dropout\":null,\"unk_token\":\"<unk>\",\"continuing_subword_prefix\":null,"
    "\"end_of_word_suffix\":null,\"fuse_unk\":false,\"byte_fallback\":false,\"ignore_merges\":false,"
    "\"vocab\":{\"<unk>\":0,\"a\":1,\"b\":2,\"ab\":3},\"merges\":[\"a b\"]}}";

/* `good` with the first `from` replaced by `to`; free() it. */
static char *edited(const char *from, const char *to)
{
    const char *at = strstr(good, from);
    char *text = NULL;
    ck_assert_msg(at != NULL, "'%s' is not in the file", from);
    ck_assert(asprintf(&text, "%.*s%s%s", (int)(at - good), good, to, at + strlen(from)) > 0);
    return text;
}

static const struct {
    const char *from, *to; /* the change */
    const char *says;      /* must stand in the message */
} bad[] = {
    /* the document */
    {"{\"version\"", "[\"version\"", "JSON"},
    {"\"merges\":[\"a b\"]}}", "\"merges\":[\"a b\"]", "JSON"},
    {"\"merges\":[\"a b\"]}}", "\"merges\":[\"a b\"]}} x", "follows"},
    {"\"<unk>\":0", "\"<unk\xFF>\":0", "UTF-8"},
    {"\"<unk>\":0", "\"\\ud800\":0", "JSON"},
    /* merges of missing tokens, in wrong forms */
    {"\"merges\":[\"a b\"]", "\"merges\":[\"a c\"]", "merges[0]"},
    {"\"merges\":[\"a b\"]", "\"merges\":[\"a b\",\"b a\"]", "merges[1]"},
    {"\"merges\":[\"a b\"]", "\"merges\":[[\"a\",\"c\"]]", "merges[0]"},
    {"\"merges\":[\"a b\"]", "\"merges\":[[\"a\"]]", "merges[0]"},
    {"\"merges\":[\"a b\"]", "\"merges\":[[\"a\",\"b\",\"b\"]]", "merges[0]"},
    {"\"merges\":[\"a b\"]", "\"merges\":[\"ab\"]", "merges[0]"},
    {"\"merges\":[\"a b\"]", "\"merges\":[\"a b b\"]", "merges[0]"},
    {"\"merges\":[\"a b\"]", "\"merges\":[7]", "merges[0]"},
    {"\"merges\":[\"a b\"]", "\"merges\":{}", "merges"},
    {",\"merges\":[\"a b\"]", "", "merges"},
    /* ids */
    {"\"b\":2", "\"b\":1", "id 1"},
    {"\"b\":2", "\"b\":-2", "model.vocab['b']"},
    {"\"b\":2", "\"b\":2.5", "model.vocab['b']"},
    {"\"b\":2", "\"b\":1e400", "model.vocab['b']"},
    {"\"b\":2", "\"b\":4294967298", "model.vocab['b']"},
    {"\"b\":2", "\"b\":\"2\"", "model.vocab['b']"},
    {"\"b\":2", "\"b\":2,\"b\":7", "twice"},
    {"\"b\":2", "\"b\":2,\"\":7", "model.vocab['']"},
    {"\"id\":4", "\"id\":3", "added_tokens[0]"},
    {"\"id\":4", "\"id\":-1", "added_tokens[0]"},
    {"\"id\":4", "\"id\":99999999", "added_tokens[0]"},
    {"\"id\":4,", "", "added_tokens[0]"},
    {"\"vocab\":{\"<unk>\":0,\"a\":1,\"b\":2,\"ab\":3}", "\"vocab\":{}", "model.vocab"},
    {"\"vocab\":{\"<unk>\":0,\"a\":1,\"b\":2,\"ab\":3}", "\"vocab\":[[\"a\",0]]", "model.vocab"},
    /* added tokens */
    {"\"content\":\"<s>\"", "\"content\":\"\"", "added_tokens[0]"},
    {"\"content\":\"<s>\"", "\"content\":5", "content"},
    {"\"content\":\"<s>\"", "\"content\":\"ab\"", "added_tokens[0]"},
    {"\"lstrip\":false", "\"lstrip\":0", "lstrip"},
    {"\"added_tokens\":[", "\"added_tokens\":7,\"x\":[", "added_tokens"},
    /* steps that we do not have */
    {"\"type\":\"NFC\"", "\"type\":\"Lowercase\"", "normalizer: the type 'Lowercase'"},
    {"{\"type\":\"NFC\"}", "{}", "normalizer"},
    {"{\"type\":\"NFC\"}", "\"NFC\"", "normalizer"},
    {"\"normalizers\"", "\"steps\"", "normalizers"},
    {"\"content\":\"a\"", "\"content\":null", "content"},
    {"\"String\":\"x\"", "\"Text\":\"x\"", "pattern"},
    {"\"String\":\"x\"", "\"String\":\"\"", "pattern"},
    {"\"type\":\"Digits\"", "\"type\":\"BertPreTokenizer\"", "pre_tokenizer: the type 'BertPreTokenizer'"},
    {"\"individual_digits\":true", "\"individual_digits\":1", "individual_digits"},
    {"\"behavior\":\"Isolated\"", "\"behavior\":\"Sideways\"", "Sideways"},
    {"\"behavior\":\"Isolated\",", "", "behavior"},
    {"\\\\s+", "(", "regular expression"},
    {"{\"type\":\"Digits\"", "{\"type\":\"ByteLevel\",\"add_prefix_space\":false},{\"type\":\"Digits\"",
     "after ByteLevel"},
    {"{\"type\":\"Digits\"", "{\"type\":\"Metaspace\",\"replacement\":\"_\"},{\"type\":\"Digits\"", "Metaspace"},
    {"{\"type\":\"Digits\"",
     "{\"type\":\"Metaspace\",\"replacement\":\"\xE2\x96\x81\",\"prepend_scheme\":\"odd\"},{\"type\":\"Digits\"",
     "odd"},
    {"\"individual_digits\":true}", "\"individual_digits\":true},{\"type\":\"ByteLevel\",\"add_prefix_space\":false}",
     "character"}, /* and no unknown token: see below */
    {"\"type\":\"TemplateProcessing\"", "\"type\":\"BertProcessing\"", "post_processor: the type 'BertProcessing'"},
    {"\"ids\":[4]", "\"ids\":[4,4]", "special_tokens"},
    {"\"ids\":[4]", "\"ids\":[77]", "77"},
    {"\"ids\":[4]", "\"ids\":[-4]", "special_tokens"},
    {"\"single\":[", "\"single\":[{\"SpecialToken\":{\"id\":\"<s>\",\"type_id\":0}},", "more than one"},
    {"\"type\":\"Fuse\"", "\"type\":\"WordPiece\"", "decoder: the type 'WordPiece'"},
    {"\"type\":\"Fuse\"", "\"type\":\"ByteLevel\"", "ByteLevel"},
    {"\"start\":1", "\"start\":2", "Strip"},
    {"\"stop\":0", "\"stop\":1", "Strip"},
    /* the model */
    {"\"type\":\"BPE\"", "\"type\":\"Unigram\"", "model: 'type' is 'Unigram'"},
    {"\"dropout\":null", "\"dropout\":0.1", "model: 'dropout'"},
    {"\"unk_token\":\"<unk>\"", "\"unk_token\":\"<none>\"", "unk_token"},
    {"\"continuing_subword_prefix\":null", "\"continuing_subword_prefix\":\"##\"", "continuing_subword_prefix"},
    {"\"end_of_word_suffix\":null", "\"end_of_word_suffix\":\"</w>\"", "end_of_word_suffix"},
    {"\"fuse_unk\":false", "\"fuse_unk\":\"no\"", "fuse_unk"},
    {"\"unk_token\":\"<unk>\",\"continuing_subword_prefix\":null,\"end_of_word_suffix\":null,\"fuse_unk\":false,"
     "\"byte_fallback\":false",
     "\"byte_fallback\":true", "<0x00>"},
    {"\"model\":{", "\"model\":7,\"x\":{", "model"},
};

START_TEST(bad_tokenizer_json)
{
    /* The row that needs a second change: with an unknown token, a byte without a piece would be that. */
    bool alphabet = strcmp(bad[_i].says, "character") == 0;
    struct mosld_tokenizer *t = NULL;
    struct rt_error err = {0};
    char *json = edited(bad[_i].from, bad[_i].to);
    char *unknown = alphabet ? strstr(json, "\"unk_token\":\"<unk>\"") : NULL;
    if (unknown)
        memcpy(unknown, "\"unk_t0ken\"", 11);
    enum rt_status st = open_json(json, NULL, &t, &err);
    free(json);
    ck_assert_msg(st == RT_BAD_FILE, "'%s': status %d, %s", bad[_i].to, st, err.text);
    ck_assert_ptr_null(t);
    ck_assert_msg(strstr(err.text, "tokenizer.json: ") && strstr(err.text, bad[_i].says), "'%s': %s", bad[_i].to,
                  err.text);
}
END_TEST

START_TEST(good_tokenizer_json)
{
    struct mosld_tokenizer *t = NULL;
    struct rt_error err = {0};
    ck_assert_msg(open_json(good, NULL, &t, &err) == RT_OK, "%s", err.text);
    check_ids(t, "ab xb<s>1", 9, &(struct mosld_encode_params){.parse_special = true}, "4 3 0 3 4 0");
    mosld_tokenizer_close(t);
}
END_TEST

/* Ids with gaps are fine: what stands in them has no piece and decodes to nothing. */
START_TEST(gaps_between_ids)
{
    struct mosld_tokenizer *t = NULL;
    struct rt_error err = {0};
    char *json = edited("\"id\":4", "\"id\":9"), *ids = strstr(json, "\"ids\":[4]"), *text;
    size_t len;
    ids[7] = '9';
    ck_assert_msg(open_json(json, NULL, &t, &err) == RT_OK, "%s", err.text);
    free(json);
    ck_assert_int_eq(mosld_tokenizer_vocab_size(t), 10);
    ck_assert_ptr_null(mosld_tokenizer_piece(t, 7, &len));
    ck_assert_int_eq(mosld_tokenizer_decode(t, (const int32_t[]){1, 7, 2}, 3, false, &text, &len, &err), RT_OK);
    ck_assert_str_eq(text, "ab");
    free(text);
    mosld_tokenizer_close(t);
}
END_TEST

START_TEST(deep_nesting_is_an_error)
{
    struct text_buf json = {0};
    struct mosld_tokenizer *t = NULL;
    struct rt_error err = {0};
    ck_assert(text_buf_puts(&json, "{\"normalizer\":"));
    for (int i = 0; i < 100000; i++)
        ck_assert(text_buf_puts(&json, "["));
    ck_assert(text_buf_terminate(&json));
    ck_assert_int_eq(open_json(json.data, NULL, &t, &err), RT_BAD_FILE);
    json.len = 0;
    ck_assert(text_buf_puts(&json, "{\"normalizer\":"));
    for (int i = 0; i < 400; i++) /* within the parser's limit, beyond what a pipeline needs */
        ck_assert(text_buf_puts(&json, "{\"type\":\"Sequence\",\"normalizers\":["));
    for (int i = 0; i < 400; i++)
        ck_assert(text_buf_puts(&json, "]}"));
    ck_assert(text_buf_puts(&json, "}") && text_buf_terminate(&json));
    ck_assert_int_eq(open_json(json.data, NULL, &t, &err), RT_BAD_FILE);
    ck_assert_ptr_nonnull(strstr(err.text, "model"));
    text_buf_finish(&json);
}
END_TEST

/* A pattern from a file that never ends: the limit turns it into an error when text comes. */
START_TEST(catastrophic_split)
{
    struct mosld_tokenizer *t = NULL;
    struct rt_error err = {0};
    char *json = edited("\\\\s+", "(a|aa)+$");
    int32_t *ids;
    size_t count;
    ck_assert_msg(open_json(json, NULL, &t, &err) == RT_OK, "%s", err.text);
    free(json);
    char text[201];
    memset(text, 'a', 200);
    text[200] = 'b';
    ck_assert_int_eq(mosld_tokenizer_encode(t, text, 201, NULL, &ids, &count, &err), RT_FAILED);
    ck_assert_ptr_nonnull(strstr(err.text, "(a|aa)+$"));
    ck_assert_ptr_null(ids);
    mosld_tokenizer_close(t);
}
END_TEST

static const struct {
    const char *name, *text, *says;
} bad_beside[] = {
    {"tokenizer_config.json", "{", "JSON"},
    {"tokenizer_config.json", "{\"bos_token\":5}", "bos_token"},
    {"tokenizer_config.json", "{\"add_bos_token\":\"yes\"}", "add_bos_token"},
    {"tokenizer_config.json", "{\"chat_template\":5}", "chat_template"},
    {"tokenizer_config.json", "{\"added_tokens_decoder\":{\"x\":{\"content\":\"y\"}}}", "added_tokens_decoder"},
    {"tokenizer_config.json", "{\"added_tokens_decoder\":{\"7\":{\"content\":\"\"}}}", "added_tokens_decoder"},
    {"tokenizer_config.json", "{\"added_tokens_decoder\":{\"7\":{\"content\":\"ab\"}}}", "added_tokens_decoder"},
    {"special_tokens_map.json", "[]", "object"},
    {"special_tokens_map.json", "{\"eos_token\":[]}", "eos_token"},
    {"generation_config.json", "{\"eos_token_id\":\"x\"}", "eos_token_id"},
    {"generation_config.json", "{\"eos_token_id\":[1,-2]}", "eos_token_id"},
    {"chat_template.json", "{\"chat_template\":{}}", "chat_template"},
    {"chat_template.jinja", "\xFF", "UTF-8"},
};

START_TEST(bad_files_beside_it)
{
    char *folder = make_folder();
    struct mosld_tokenizer *t = NULL;
    struct rt_error err = {0};
    write_text_file(folder, "tokenizer.json", good, strlen(good));
    write_text_file(folder, bad_beside[_i].name, bad_beside[_i].text, strlen(bad_beside[_i].text));
    ck_assert_int_eq(mosld_tokenizer_open_dir(folder, &t, &err), RT_BAD_FILE);
    ck_assert_msg(strstr(err.text, bad_beside[_i].name) && strstr(err.text, bad_beside[_i].says), "%s", err.text);
    remove_folder(folder);
}
END_TEST

START_TEST(missing_and_odd_files)
{
    char *folder = make_folder(), path[4096];
    struct mosld_tokenizer *t = NULL;
    struct rt_error err = {0};
    ck_assert_int_eq(mosld_tokenizer_open_dir(folder, &t, &err), RT_BAD_FILE);
    ck_assert_ptr_nonnull(strstr(err.text, "tokenizer.json"));
    write_text_file(folder, "tokenizer.json", "", 0);
    ck_assert_int_eq(mosld_tokenizer_open_dir(folder, &t, &err), RT_BAD_FILE);
    snprintf(path, sizeof path, "%s/tokenizer.json", folder);
    remove(path);
    ck_assert_int_eq(mkdir(path, 0700), 0);
    ck_assert_int_eq(mosld_tokenizer_open_dir(folder, &t, &err), RT_BAD_FILE);
    ck_assert_ptr_nonnull(strstr(err.text, "tokenizer.json"));
    remove(path);
    ck_assert_int_eq(mosld_tokenizer_open("/nowhere/at/all", &t, &err), RT_BAD_FILE);
    remove_folder(folder);
}
END_TEST

START_TEST(what_the_files_beside_it_say)
{
    char *folder = make_folder();
    struct mosld_tokenizer *t = NULL;
    struct rt_error err = {0};
    static const char config[] =
        "{\"bos_token\":{\"content\":\"<s>\"},\"eos_token\":\"</s>\",\"pad_token\":\"<none>\",\"add_bos_token\":true,"
        "\"added_tokens_decoder\":{\"4\":{\"content\":\"<s>\",\"special\":true},\"6\":{\"content\":\"</s>\","
        "\"special\":true},\"8\":{\"content\":\"<|im_end|>\",\"special\":true},"
        "\"7\":{\"content\":\"<|eot_id|>\",\"special\":false}}," /* the name of an end, but plain text */
        "\"chat_template\":[{\"name\":\"tool_use\",\"template\":\"no\"},{\"name\":\"default\",\"template\":\"yes\"}]}";
    write_text_file(folder, "tokenizer.json", good, strlen(good));
    write_text_file(folder, "tokenizer_config.json", config, strlen(config));
    write_text_file(folder, "special_tokens_map.json", "{\"pad_token\":\"ab\",\"eos_token\":\"a\"}", 34);
    write_text_file(folder, "generation_config.json", "{\"eos_token_id\":[6,2,1000]}", 27);
    ck_assert_msg(mosld_tokenizer_open_dir(folder, &t, &err) == RT_OK, "%s", err.text);
    ck_assert_int_eq(mosld_tokenizer_vocab_size(t), 9);
    ck_assert_int_eq(mosld_tokenizer_eos(t), 6); /* the configuration before the map */
    ck_assert_int_eq(mosld_tokenizer_pad(t), 3); /* one that is not in the vocabulary does not count */
    ck_assert_str_eq(mosld_tokenizer_chat_template(t), "yes");
    size_t count;
    const int32_t *ends = mosld_tokenizer_ends(t, &count);
    ck_assert_uint_eq(count, 3);
    ck_assert(ends[0] == 6 && ends[1] == 2 && ends[2] == 8);
    CHECK_IDS(t, "a</s>", "1 6");
    mosld_tokenizer_close(t);
    write_text_file(folder, "chat_template.jinja", "file", 4);
    ck_assert_int_eq(mosld_tokenizer_open(folder, &t, &err), RT_OK);
    ck_assert_str_eq(mosld_tokenizer_chat_template(t), "file");
    mosld_tokenizer_close(t);
    remove_folder(folder);
}
END_TEST

/* Bytes changed, taken out, doubled and put in at random: never a crash, and a bad file is called one by its name. */
START_TEST(mutated_tokenizer_json)
{
    uint32_t state = (uint32_t)_i * 77u + 5;
    char *folder = make_folder();
    for (int round = 0; round < 400; round++) {
        char text[2 * sizeof good];
        size_t len = strlen(good);
        memcpy(text, good, len);
        for (uint32_t n = 1 + (state >> 8) % 3; n > 0; n--) {
            state = state * 1664525u + 1013904223u;
            size_t at = (state >> 8) % len;
            state = state * 1664525u + 1013904223u;
            uint32_t what = state >> 8;
            if (what % 4 == 0) {
                text[at] = (char)(what >> 8);
            } else if (what % 4 == 1) {
                memmove(text + at, text + at + 1, --len - at);
            } else if (what % 4 == 2 && len < sizeof text - 1) {
                memmove(text + at + 1, text + at, len++ - at);
                text[at] = "{}[]\",:0-9.e\\ntfal"[(what >> 8) % 18];
            } else {
                len = at + 1;
            }
        }
        struct mosld_tokenizer *t = NULL;
        struct rt_error err = {0};
        write_text_file(folder, "tokenizer.json", text, len);
        enum rt_status st = mosld_tokenizer_open_dir(folder, &t, &err);
        ck_assert_msg(st == RT_OK || (st == RT_BAD_FILE && strstr(err.text, "tokenizer.json")), "%d %s\n%.*s", st,
                      err.text, (int)len, text);
        if (st == RT_OK) {
            int32_t *ids;
            size_t count;
            st = mosld_tokenizer_encode(t, "ab <s> 12 \xC3\xA9", 12, NULL, &ids, &count, &err);
            ck_assert(st == RT_OK || st == RT_FAILED);
            free(ids);
        }
        mosld_tokenizer_close(t);
    }
    remove_folder(folder);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("tokenizer files");
    TCase *tc = tcase_create("files");
    tcase_set_timeout(tc, 120);
    tcase_add_loop_test(tc, bad_tokenizer_json, 0, sizeof bad / sizeof *bad);
    tcase_add_test(tc, good_tokenizer_json);
    tcase_add_test(tc, gaps_between_ids);
    tcase_add_test(tc, deep_nesting_is_an_error);
    tcase_add_test(tc, catastrophic_split);
    tcase_add_loop_test(tc, bad_files_beside_it, 0, sizeof bad_beside / sizeof *bad_beside);
    tcase_add_test(tc, missing_and_odd_files);
    tcase_add_test(tc, what_the_files_beside_it_say);
    tcase_add_loop_test(tc, mutated_tokenizer_json, 0, 10);
    suite_add_tcase(s, tc);
    SRunner *runner = srunner_create(s);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
