/* tests/test_tokenizer.c - encoding and decoding with small vocabularies: merging, added tokens, bytes, streams. */
#include "mosld/text/tokenizer_parts.h"
#include "mosld/text/utf8.h"
#include "tests/support/text_test.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Bytes are ids 0 to 255 (a space is 32: the alphabet's U+0120); merges count from 256. */
static const char *const english[] = {"h e", "l l", "he ll",        "hell o",         "\xC4\xA0 w",
                                      "o r", "l d", "\xC4\xA0w or", "\xC4\xA0wor ld", NULL};
#define HELLO "259"
#define WORLD "264"

START_TEST(merges_by_rank)
{
    struct mosld_tokenizer *t = open_recipe(&(struct tokenizer_recipe){.merges = english});
    CHECK_IDS(t, "hello world", HELLO " " WORLD);
    CHECK_IDS(t, "hell", "258");
    CHECK_IDS(t, "lll", "257 108"); /* equal ranks merge from the left */
    CHECK_IDS(t, "world", "119 261 262");
    CHECK_IDS(t, "", "");
    check_ids(t, "a\0b", 3, NULL, "97 0 98");
    ck_assert_int_eq(mosld_tokenizer_vocab_size(t), 265);
    mosld_tokenizer_close(t);
}
END_TEST

START_TEST(merges_as_pairs_are_the_same)
{
    struct mosld_tokenizer *t = open_recipe(&(struct tokenizer_recipe){.merges = english, .pairs = true});
    CHECK_IDS(t, "hello world", HELLO " " WORLD);
    mosld_tokenizer_close(t);
}
END_TEST

/* Merging written out plainly: the first pair of the best rank, again and again. */
static size_t merge_plainly(const struct bpe_merges *m, uint32_t *ids, size_t n)
{
    for (;;) {
        const struct bpe_pair *best = NULL;
        size_t at = 0;
        for (size_t i = 0; i + 1 < n; i++) {
            const struct bpe_pair *pair = bpe_merges_find(m, ids[i], ids[i + 1]);
            if (pair && (!best || pair->rank < best->rank)) {
                best = pair;
                at = i;
            }
        }
        if (!best)
            return n;
        ids[at] = best->merged;
        memmove(ids + at + 1, ids + at + 2, (n - at - 2) * sizeof *ids);
        n--;
    }
}

static uint32_t next_random(uint32_t *state)
{
    *state = *state * 1664525u + 1013904223u;
    return *state >> 8;
}

START_TEST(heap_agrees_with_plain_merging)
{
    uint32_t state = (uint32_t)_i + 1;
    struct bpe_merges m = {0};
    struct bpe_work work = {0};
    struct vocab none = {0};
    for (uint32_t id = 4; id < 40; id++)
        ck_assert(bpe_merges_add(&m, next_random(&state) % id, next_random(&state) % id, id));
    for (int round = 0; round < 200; round++) {
        uint32_t ids[64];
        size_t n = 1 + next_random(&state) % 64, got = 0;
        work.count = 0;
        for (uint32_t i = 0; i < n; i++) {
            ids[i] = next_random(&state) % 4;
            ck_assert(bpe_push(&work, ids[i], i, 1));
        }
        ck_assert(bpe_merge(&(struct bpe_model){&none, &m}, NULL, &work));
        size_t want = merge_plainly(&m, ids, n);
        for (uint32_t i = 0; i != VOCAB_NONE; i = work.symbols[i].next) {
            ck_assert_uint_lt(got, want);
            ck_assert_uint_eq(work.symbols[i].id, ids[got]);
            got++;
        }
        ck_assert_uint_eq(got, want);
    }
    bpe_work_finish(&work);
    bpe_merges_finish(&m);
}
END_TEST

/* Quadratic merging would take hours here; the test's time limit is a minute. */
START_TEST(word_of_a_megabyte)
{
    static const char *const merges[] = {"a b", "ab ab", "abab abab", "b a", NULL};
    struct mosld_tokenizer *t = open_recipe(&(struct tokenizer_recipe){.merges = merges});
    struct rt_error err = {0};
    size_t n = 1 << 20, count;
    char *text = malloc(n);
    int32_t *ids;
    for (size_t i = 0; i < n; i++)
        text[i] = i % 2 ? 'b' : 'a';
    ck_assert_int_eq(mosld_tokenizer_encode(t, text, n, NULL, &ids, &count, &err), RT_OK);
    ck_assert_uint_eq(count, n / 8);
    ck_assert_int_eq(ids[0], 258);
    ck_assert_int_eq(ids[count - 1], 258);
    free(ids);
    free(text);
    mosld_tokenizer_close(t);
}
END_TEST

/* By rank "abc" becomes "ab" and "c", although there is a piece for the whole: Llama 3 takes it. */
START_TEST(ignore_merges_takes_whole_words)
{
    static const char *const merges[] = {"a b", "b c", "a bc", NULL};
    struct mosld_tokenizer *t = open_recipe(&(struct tokenizer_recipe){.merges = merges});
    CHECK_IDS(t, "abc", "256 99");
    mosld_tokenizer_close(t);
    t = open_recipe(&(struct tokenizer_recipe){.merges = merges, .model_fields = "\"ignore_merges\":true,"});
    CHECK_IDS(t, "abc", "258");
    CHECK_IDS(t, "abcb", "256 99 98");
    mosld_tokenizer_close(t);
}
END_TEST

/* A vocabulary without some byte: dropped without an unknown token, else unknown, one or many. */
START_TEST(characters_without_a_piece)
{
    static const char head[] = "{\"pre_tokenizer\":{\"type\":\"WhitespaceSplit\"},\"model\":{\"type\":\"BPE\",%s"
                               "\"vocab\":{\"<unk>\":0,\"a\":1,\"b\":2,\"ab\":3},\"merges\":[\"a b\"]}}";
    static const struct {
        const char *fields, *ids;
    } rows[] = {{"", "3 1"},
                {"\"unk_token\":\"<unk>\",", "3 0 0 1 0"},
                {"\"unk_token\":\"<unk>\",\"fuse_unk\":true,", "3 0 1 0"}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct mosld_tokenizer *t = NULL;
        struct rt_error err = {0};
        char json[512];
        snprintf(json, sizeof json, head, rows[i].fields);
        ck_assert_msg(open_json(json, NULL, &t, &err) == RT_OK, "%s", err.text);
        CHECK_IDS(t, "abxy a\xC3\xA9", rows[i].ids);
        mosld_tokenizer_close(t);
    }
}
END_TEST

static const char added[] = "[{\"id\":256,\"content\":\"<end>\",\"special\":true},"
                            "{\"id\":257,\"content\":\"<L>\",\"lstrip\":true,\"normalized\":false},"
                            "{\"id\":258,\"content\":\"<R>\",\"rstrip\":true,\"normalized\":false},"
                            "{\"id\":259,\"content\":\"word\",\"single_word\":true,\"normalized\":false},"
                            "{\"id\":260,\"content\":\"<end>>\",\"special\":true},"
                            "{\"id\":261,\"content\":\"\xC3\xA9t\",\"normalized\":true},"
                            "{\"id\":262,\"content\":\"(.*)+[\",\"normalized\":false}]";

START_TEST(added_tokens_are_found_as_hugging_face_does)
{
    struct mosld_tokenizer *t =
        open_recipe(&(struct tokenizer_recipe){.added_tokens = added, .normalizer = "{\"type\":\"NFC\"}"});
    CHECK_IDS(t, "a<end>b", "97 256 98");
    CHECK_IDS(t, "<end>>", "260"); /* of those that begin together the longest */
    CHECK_IDS(t, "<end><end>", "256 256");
    CHECK_IDS(t, "a \n<L> b", "97 257 32 98");
    CHECK_IDS(t, "a <R> \t b", "97 32 258 98");
    CHECK_IDS(t, "word words word_ (word)", "259 32 119 111 114 100 115 32 119 111 114 100 95 32 40 259 41");
    CHECK_IDS(t, "e\xCC\x81t", "261");  /* looked for in the normalized text */
    CHECK_IDS(t, "x(.*)+[", "120 262"); /* no regular expression */
    CHECK_IDS(t, "<R>  <L>", "258 257");
    ck_assert(mosld_tokenizer_is_special(t, 256));
    ck_assert(!mosld_tokenizer_is_special(t, 257));
    ck_assert_int_eq(mosld_tokenizer_find(t, "<end>", 5), 256);
    ck_assert_int_eq(mosld_tokenizer_find(t, "<nothing>", 9), MOSLD_NO_TOKEN);
    mosld_tokenizer_close(t);
}
END_TEST

START_TEST(special_tokens_can_be_plain_text)
{
    struct mosld_tokenizer *t = open_recipe(&(struct tokenizer_recipe){.added_tokens = added});
    const char *text = "<end><R><end>";
    const struct mosld_text_range range = {8, 13};
    check_ids(t, text, 13, &(struct mosld_encode_params){.parse_special = false},
              "60 101 110 100 62 258 60 101 110 100 62");
    check_ids(t, text, 13, &(struct mosld_encode_params){.special_ranges = &range, .special_range_count = 1},
              "60 101 110 100 62 258 256");
    /* A token that only begins or ends in a range is none. */
    const struct mosld_text_range cut[] = {{0, 4}, {9, 13}};
    check_ids(t, text, 13, &(struct mosld_encode_params){.special_ranges = cut, .special_range_count = 2},
              "60 101 110 100 62 258 60 101 110 100 62");
    mosld_tokenizer_close(t);
}
END_TEST

START_TEST(beginning_token)
{
    const struct tokenizer_recipe r = {
        .added_tokens =
            "[{\"id\":256,\"content\":\"<s>\",\"special\":true},{\"id\":257,\"content\":\"</s>\",\"special\":true}]",
        .post_processor =
            "{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"<s>\",\"type_id\":0}},"
            "{\"Sequence\":{\"id\":\"A\",\"type_id\":0}},{\"SpecialToken\":{\"id\":\"</s>\",\"type_id\":0}}],"
            "\"special_tokens\":{\"<s>\":{\"id\":\"<s>\",\"ids\":[256],\"tokens\":[\"<s>\"]},"
            "\"</s>\":{\"id\":\"</s>\",\"ids\":[257],\"tokens\":[\"</s>\"]}}}"};
    struct mosld_tokenizer *t = open_recipe(&r);
    ck_assert(mosld_tokenizer_adds_bos(t));
    ck_assert_int_eq(mosld_tokenizer_bos(t), 256);
    check_ids(t, "a", 1, &(struct mosld_encode_params){0}, "256 97");
    check_ids(t, "", 0, &(struct mosld_encode_params){0}, "256");
    check_ids(t, "a", 1, &(struct mosld_encode_params){.bos = MOSLD_BOS_NEVER}, "97");
    mosld_tokenizer_close(t);
    /* tokenizer_config.json has the last word. */
    struct rt_error err = {0};
    char *json = recipe_json(&r);
    ck_assert_int_eq(
        open_json(json, "{\"add_bos_token\":false,\"eos_token\":{\"content\":\"</s>\"},\"pad_token\":null}", &t, &err),
        RT_OK);
    ck_assert(!mosld_tokenizer_adds_bos(t));
    ck_assert_int_eq(mosld_tokenizer_eos(t), 257);
    ck_assert_int_eq(mosld_tokenizer_pad(t), MOSLD_NO_TOKEN);
    ck_assert(mosld_tokenizer_is_end(t, 257));
    ck_assert(!mosld_tokenizer_is_end(t, 256));
    check_ids(t, "a", 1, &(struct mosld_encode_params){.bos = MOSLD_BOS_ALWAYS}, "256 97");
    free(json);
    mosld_tokenizer_close(t);
    /* A model without one cannot add it. */
    t = open_recipe(&(struct tokenizer_recipe){0});
    int32_t *ids;
    size_t count;
    ck_assert_int_eq(
        mosld_tokenizer_encode(t, "a", 1, &(struct mosld_encode_params){.bos = MOSLD_BOS_ALWAYS}, &ids, &count, &err),
        RT_USAGE);
    ck_assert_ptr_null(ids);
    mosld_tokenizer_close(t);
}
END_TEST

START_TEST(broken_text_is_encoded_as_replacement)
{
    struct mosld_tokenizer *t = open_recipe(&(struct tokenizer_recipe){0});
    CHECK_IDS(t, "a\xFF", "97 239 191 189");
    CHECK_IDS(t, "\xED\xA0\x80", "239 191 189 239 191 189 239 191 189"); /* a lone surrogate */
    CHECK_IDS(t, "\r\n", "13 10");
    const struct mosld_text_range range = {0, 1};
    struct rt_error err = {0};
    int32_t *ids;
    size_t count;
    ck_assert_int_eq(
        mosld_tokenizer_encode(t, "a\xFF", 2,
                               &(struct mosld_encode_params){.special_ranges = &range, .special_range_count = 1}, &ids,
                               &count, &err),
        RT_USAGE);
    mosld_tokenizer_close(t);
}
END_TEST

static void check_decoded(const struct mosld_tokenizer *t, const int32_t *ids, size_t count, bool skip,
                          const char *want)
{
    struct rt_error err = {0};
    char *text;
    size_t len;
    ck_assert_int_eq(mosld_tokenizer_decode(t, ids, count, skip, &text, &len, &err), RT_OK);
    ck_assert_str_eq(text, want);
    ck_assert_uint_eq(len, strlen(want));
    free(text);
}

START_TEST(decoding)
{
    struct mosld_tokenizer *t = open_recipe(&(struct tokenizer_recipe){.added_tokens = added});
    const int32_t ids[] = {104, 32, 105, 256, 261, 239};
    check_decoded(t, ids, 6, false, "h i<end>\xC3\xA9t\xEF");
    check_decoded(t, ids, 6, true, "h i\xC3\xA9t\xEF");
    check_decoded(t, ids, 0, true, "");
    struct rt_error err = {0};
    char *text;
    size_t len;
    for (int i = 0; i < 3; i++) {
        const int32_t bad = (const int32_t[]){-1, 263, INT32_MAX}[i];
        ck_assert_int_eq(mosld_tokenizer_decode(t, &bad, 1, false, &text, &len, &err), RT_USAGE);
        ck_assert_ptr_null(text);
    }
    mosld_tokenizer_close(t);
}
END_TEST

START_TEST(stream_gives_whole_characters)
{
    struct mosld_tokenizer *t = open_recipe(&(struct tokenizer_recipe){0});
    /* "a", an emoji byte by byte, a broken start, "b", a character that is cut off. */
    static const struct {
        int32_t id;
        const char *want;
    } rows[] = {{'a', "a"},
                {0xF0, ""},
                {0x9F, ""},
                {0x98, ""},
                {0x80, "\xF0\x9F\x98\x80"},
                {0xE2, ""},
                {'b', "\xEF\xBF\xBD"
                      "b"},
                {0xFF, "\xEF\xBF\xBD"},
                {0xC3, ""}};
    struct mosld_text_stream *s;
    struct rt_error err = {0};
    const char *text;
    size_t len;
    ck_assert_int_eq(mosld_text_stream_create(t, true, false, &s, &err), RT_OK);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        ck_assert_int_eq(mosld_text_stream_push(s, rows[i].id, &text, &len, &err), RT_OK);
        ck_assert_str_eq(text, rows[i].want);
        ck_assert_uint_eq(len, strlen(rows[i].want));
    }
    ck_assert_int_eq(mosld_text_stream_push(s, 256, &text, &len, &err), RT_USAGE);
    ck_assert_int_eq(mosld_text_stream_finish(s, &text, &len, &err), RT_OK);
    ck_assert_str_eq(text, "\xEF\xBF\xBD");
    mosld_text_stream_destroy(s);
    mosld_tokenizer_close(t);
}
END_TEST

/* --- SentencePiece ------------------------------------------------------------------------------------------------ */

/* Pieces behind <unk>, <s>, </s> and the 256 bytes; earlier means a higher score. Every split that exists is a merge.
 */
static const char *const spaced[] = {"\xE2\x96\x81",
                                     "a",
                                     "b",
                                     "c",
                                     "ab",
                                     "bc",
                                     "\xE2\x96\x81"
                                     "a",
                                     "abc",
                                     "\xE2\x96\x81"
                                     "ab",
                                     "\xE2\x96\x81\xE2\x96\x81",
                                     "cc",
                                     "\xE2\x96\x81"
                                     "abc"};
#define N_SPACED (sizeof spaced / sizeof *spaced)
#define FIRST_PIECE 259

static const char *spaced_token(const void *context, size_t i, size_t *len)
{
    static char name[16];
    static const char *const special[] = {"<unk>", "<s>", "</s>"};
    (void)context;
    const char *text = i < 3 ? special[i] : i < FIRST_PIECE ? name : spaced[i - FIRST_PIECE];
    if (i >= 3 && i < FIRST_PIECE)
        snprintf(name, sizeof name, "<0x%02X>", (unsigned)(i - 3));
    *len = strlen(text);
    return text;
}

static struct mosld_tokenizer *open_scores(int prefix)
{
    static int32_t types[FIRST_PIECE + N_SPACED];
    static float scores[FIRST_PIECE + N_SPACED];
    for (size_t i = 0; i < FIRST_PIECE + N_SPACED; i++) {
        types[i] = i == 0 ? 2 : i < 3 ? 3 : i < FIRST_PIECE ? 6 : 1;
        scores[i] = i < FIRST_PIECE ? 0 : -(float)(i - FIRST_PIECE);
    }
    const struct tokenizer_gguf g = {.model = "llama",
                                     .count = FIRST_PIECE + N_SPACED,
                                     .token = spaced_token,
                                     .types = types,
                                     .scores = scores,
                                     .bos = 1,
                                     .eos = 2,
                                     .unknown = 0,
                                     .pad = -1,
                                     .eot = -1,
                                     .eom = -1,
                                     .add_bos = -1,
                                     .add_space_prefix = prefix};
    struct mosld_tokenizer *t = tokenizer_new();
    struct rt_error err = {0};
    ck_assert_msg(tokenizer_read_gguf(t, &g, &err) == RT_OK, "%s", err.text);
    return t;
}

/* The same vocabulary as Hugging Face writes it: merges in the order of the merged piece's score. */
static struct mosld_tokenizer *open_spaced_json(void)
{
    struct text_buf json = {0};
    struct rt_error err = {0};
    struct mosld_tokenizer *t = NULL;
    char line[256];
    bool first = true;
    ck_assert(text_buf_puts(
        &json, "{\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"Prepend\",\"prepend\":"
               "\"\xE2\x96\x81\"},{\"type\":\"Replace\",\"pattern\":{\"String\":\" \"},\"content\":"
               "\"\xE2\x96\x81\"}]},\"decoder\":{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"Replace\","
               "\"pattern\":{\"String\":\"\xE2\x96\x81\"},\"content\":\" \"},{\"type\":\"ByteFallback\"},"
               "{\"type\":\"Fuse\"},{\"type\":\"Strip\",\"content\":\" \",\"start\":1,\"stop\":0}]},"
               "\"added_tokens\":[{\"id\":1,\"content\":\"<s>\",\"special\":true},"
               "{\"id\":2,\"content\":\"</s>\",\"special\":true}],\"model\":{\"type\":\"BPE\","
               "\"unk_token\":\"<unk>\",\"fuse_unk\":true,\"byte_fallback\":true,\"vocab\":{"));
    for (size_t i = 0; i < FIRST_PIECE + N_SPACED; i++) {
        size_t len;
        const char *text = spaced_token(NULL, i, &len);
        snprintf(line, sizeof line, "%s\"%.*s\":%zu", i ? "," : "", (int)len, text, i);
        ck_assert(text_buf_puts(&json, line));
    }
    ck_assert(text_buf_puts(&json, "},\"merges\":["));
    for (size_t m = 0; m < N_SPACED; m++) {
        for (size_t a = 0; a < N_SPACED; a++) {
            for (size_t b = 0; b < N_SPACED; b++) {
                snprintf(line, sizeof line, "%s%s", spaced[a], spaced[b]);
                if (strcmp(line, spaced[m]) != 0)
                    continue;
                snprintf(line, sizeof line, "%s\"%s %s\"", first ? "" : ",", spaced[a], spaced[b]);
                ck_assert(text_buf_puts(&json, line));
                first = false;
            }
        }
    }
    ck_assert(text_buf_puts(&json, "]}}") && text_buf_terminate(&json));
    ck_assert_msg(open_json(json.data, NULL, &t, &err) == RT_OK, "%s", err.text);
    text_buf_finish(&json);
    return t;
}

START_TEST(scores_merge_the_best_piece_first)
{
    struct mosld_tokenizer *t = open_scores(-1);
    CHECK_IDS(t, "ab", "267"); /* U+2581 a b: "ab" (-4) before U+2581 "a" (-6), then both */
    CHECK_IDS(t, "abc", "270");
    CHECK_IDS(t, "ccc", "259 269 262"); /* from the left */
    CHECK_IDS(t, "a  b", "265 268 261");
    CHECK_IDS(t, "\xC3\xA9", "259 198 172"); /* bytes */
    CHECK_IDS(t, "a<s>b", "265 1 259 261");  /* a space in front of each stretch of text */
    check_ids(t, "a<s>", 4, &(struct mosld_encode_params){0}, "1 265 63 118 65");
    CHECK_IDS(t, "<0x41>", "259 63 51 123 55 52 65"); /* the name of a byte is no byte */
    ck_assert(mosld_tokenizer_adds_bos(t));
    mosld_tokenizer_close(t);
    t = open_scores(0);
    CHECK_IDS(t, "ab", "263");
    mosld_tokenizer_close(t);
}
END_TEST

START_TEST(scores_and_merges_give_the_same_ids)
{
    static const char *const atoms[] = {"a", "b", "c", " ", "  ", "abc", "\xC3\xA9", "d", "<s>", "\n"};
    struct mosld_tokenizer *by_score = open_scores(-1), *by_merge = open_spaced_json();
    struct rt_error err = {0};
    uint32_t state = 7;
    for (int round = 0; round < 2000; round++) {
        char text[128] = "";
        for (uint32_t n = next_random(&state) % 12; n > 0; n--)
            strcat(text, atoms[next_random(&state) % 10]);
        int32_t *a, *b;
        size_t n_a, n_b;
        const struct mosld_encode_params params = {.bos = MOSLD_BOS_NEVER, .parse_special = true};
        ck_assert_int_eq(mosld_tokenizer_encode(by_score, text, strlen(text), &params, &a, &n_a, &err), RT_OK);
        ck_assert_int_eq(mosld_tokenizer_encode(by_merge, text, strlen(text), &params, &b, &n_b, &err), RT_OK);
        ck_assert_msg(n_a == n_b && memcmp(a, b, n_a * sizeof *a) == 0, "'%s'", text);
        if (!strstr(text, "<s>"))
            check_decoded(by_merge, b, n_b, false, text);
        free(a);
        free(b);
    }
    mosld_tokenizer_close(by_score);
    mosld_tokenizer_close(by_merge);
}
END_TEST

START_TEST(space_in_front_goes_away_again)
{
    struct mosld_tokenizer *t = open_scores(-1);
    const int32_t ids[] = {265, 261, 1, 198, 172, 265};
    check_decoded(t, ids, 6, false, "ab<s>\xC3\xA9 a");
    check_decoded(t, ids + 2, 4, true, "\xC3\xA9 a");
    struct mosld_text_stream *s;
    struct rt_error err = {0};
    const char *text;
    size_t len;
    for (int continues = 0; continues < 2; continues++) {
        ck_assert_int_eq(mosld_text_stream_create(t, true, continues, &s, &err), RT_OK);
        ck_assert_int_eq(mosld_text_stream_push(s, 1, &text, &len, &err), RT_OK);
        ck_assert_uint_eq(len, 0);
        ck_assert_int_eq(mosld_text_stream_push(s, 265, &text, &len, &err), RT_OK);
        ck_assert_str_eq(text, continues ? " a" : "a");
        ck_assert_int_eq(mosld_text_stream_push(s, 265, &text, &len, &err), RT_OK);
        ck_assert_str_eq(text, " a");
        mosld_text_stream_destroy(s);
    }
    mosld_tokenizer_close(t);
}
END_TEST

/* Metaspace's "first": a space in front of the text itself, not of what follows an added token of either kind. */
START_TEST(space_in_front_of_the_text_only)
{
    static const char json[] =
        "{\"normalizer\":{\"type\":\"NFC\"},\"pre_tokenizer\":{\"type\":\"Metaspace\",\"replacement\":\"\xE2\x96\x81\","
        "\"prepend_scheme\":\"first\",\"split\":false},\"added_tokens\":[{\"id\":9,\"content\":\"<s>\",\"special\":"
        "true},"
        "{\"id\":8,\"content\":\"<n>\",\"normalized\":true}],\"model\":{\"type\":\"BPE\",\"vocab\":{\"\xE2\x96\x81\":0,"
        "\"a\":1,\"\xE2\x96\x81"
        "a\":2},\"merges\":[\"\xE2\x96\x81 a\"]}}";
    struct mosld_tokenizer *t = NULL;
    struct rt_error err = {0};
    ck_assert_msg(open_json(json, NULL, &t, &err) == RT_OK, "%s", err.text);
    CHECK_IDS(t, "a a", "2 2");
    CHECK_IDS(t, "a<n>a<s>a", "2 8 1 9 1");
    CHECK_IDS(t, "<s>a", "9 1");
    CHECK_IDS(t, "<n>a a", "8 1 2");
    mosld_tokenizer_close(t);
}
END_TEST

static void add_cases(Suite *s)
{
    TCase *bytes = tcase_create("byte level"), *sp = tcase_create("sentencepiece");
    tcase_set_timeout(bytes, 60);
    tcase_add_test(bytes, merges_by_rank);
    tcase_add_test(bytes, merges_as_pairs_are_the_same);
    tcase_add_loop_test(bytes, heap_agrees_with_plain_merging, 0, 20);
    tcase_add_test(bytes, word_of_a_megabyte);
    tcase_add_test(bytes, ignore_merges_takes_whole_words);
    tcase_add_test(bytes, characters_without_a_piece);
    tcase_add_test(bytes, added_tokens_are_found_as_hugging_face_does);
    tcase_add_test(bytes, special_tokens_can_be_plain_text);
    tcase_add_test(bytes, beginning_token);
    tcase_add_test(bytes, broken_text_is_encoded_as_replacement);
    tcase_add_test(bytes, decoding);
    tcase_add_test(bytes, stream_gives_whole_characters);
    suite_add_tcase(s, bytes);
    tcase_add_test(sp, scores_merge_the_best_piece_first);
    tcase_add_test(sp, scores_and_merges_give_the_same_ids);
    tcase_add_test(sp, space_in_front_goes_away_again);
    tcase_add_test(sp, space_in_front_of_the_text_only);
    suite_add_tcase(s, sp);
}

int main(void)
{
    Suite *s = suite_create("tokenizer");
    add_cases(s);
    SRunner *runner = srunner_create(s);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
