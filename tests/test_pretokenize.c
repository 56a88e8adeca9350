/* tests/test_pretokenize.c - cutting text into words, patterns, normal forms, broken UTF-8.
 *
 * The expected words are those of Hugging Face's tokenizers 0.23 (pre_tokenize_str) on the same strings. */
#include "mosld/text/normalize.h"
#include "mosld/text/pretokenize.h"
#include "mosld/text/tokenizer_parts.h"
#include "mosld/text/utf8.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

static struct text_matcher *matcher;

static void set_up(void)
{
    struct rt_error err = {0};
    ck_assert_int_eq(text_matcher_create(&matcher, &err), RT_OK);
}

static void tear_down(void)
{
    text_matcher_destroy(matcher);
}

/* The words with | between them. */
static char *cut(const struct pretokenizer *p, const char *text, bool at_start)
{
    struct text_words words = {0};
    struct text_buf out = {0};
    struct rt_error err = {0};
    enum rt_status st = pretokenize(p, matcher, text, strlen(text), at_start, &words, &err);
    ck_assert_msg(st == RT_OK, "%s", err.text);
    for (size_t i = 0; i < words.count; i++) {
        ck_assert_uint_gt(words.spans[i].len, 0);
        ck_assert(i == 0 || text_buf_puts(&out, "|"));
        ck_assert(text_buf_append(&out, words.text.data + words.spans[i].start, words.spans[i].len));
    }
    ck_assert(text_buf_terminate(&out));
    text_words_finish(&words);
    return out.data;
}

static void check_cut(const struct pretokenizer *p, const char *text, bool at_start, const char *want)
{
    char *got = cut(p, text, at_start);
    ck_assert_msg(strcmp(got, want) == 0, "'%s': want '%s', got '%s'", text, want, got);
    free(got);
}

static const struct {
    const char *pre, *text, *words;
} known[] = {
    {"gpt-2", "Hello world", "Hello| world"},
    {"gpt-2", "I'LL don't 'sam we've", "I|'|LL| don|'t| '|sam| we|'ve"},
    {"gpt-2", "  a  b   ", " | a| | b|   "},
    {"gpt-2", "x\012\012\012y \012 z", "x|\012\012|\012|y| \012| z"},
    {"gpt-2", "\011\011if (a==b) {\012    c++;\012}\012", "\011|\011|if| (|a|==|b|)| {|\012   | c|++;|\012|}|\012"},
    {"gpt-2", "12345678 3.14 \302\275\331\243 1st", "12345678| 3|.|14| \302\275\331\243| 1|st"},
    {"gpt-2", "a1b22 c333", "a|1|b|22| c|333"},
    {"gpt-2", "price: $5.00!!\015\012\015\012end", "price|:| $|5|.|00|!!|\015\012\015|\012|end"},
    {"gpt-2", "\346\227\245\346\234\254\350\252\236 \344\270\255\346\226\207123",
     "\346\227\245\346\234\254\350\252\236| \344\270\255\346\226\207|123"},
    {"gpt-2", "e\314\201 \302\240x\342\200\203\341\240\216y", "e|\314\201| |\302\240|x|\342\200\203|\341\240\216|y"},
    {"gpt-2", "don\342\200\231t '\305\277o", "don|\342\200\231|t| '|\305\277o"},
    {"gpt-2", "\360\237\221\250\342\200\215\360\237\221\251\342\200\215\360\237\221\247!",
     "\360\237\221\250\342\200\215\360\237\221\251\342\200\215\360\237\221\247!"},
    {"gpt-2", "(hello)[world]_x__y", "(|hello|)[|world|]_|x|__|y"},
    {"gpt-2", "   ", "   "},
    {"gpt-2", "\012 \012", "\012 \012"},
    {"llama-bpe", "Hello world", "Hello| world"},
    {"llama-bpe", "I'LL don't 'sam we've", "I|'LL| don|'t| '|sam| we|'ve"},
    {"llama-bpe", "  a  b   ", " | a| | b|   "},
    {"llama-bpe", "x\012\012\012y \012 z", "x|\012\012\012|y| \012| z"},
    {"llama-bpe", "\011\011if (a==b) {\012    c++;\012}\012", "\011|\011if| (|a|==|b|)| {\012|   | c|++;\012|}\012"},
    {"llama-bpe", "12345678 3.14 \302\275\331\243 1st", "123|456|78| |3|.|14| |\302\275\331\243| |1|st"},
    {"llama-bpe", "a1b22 c333", "a|1|b|22| c|333"},
    {"llama-bpe", "price: $5.00!!\015\012\015\012end", "price|:| $|5|.|00|!!\015\012\015\012|end"},
    {"llama-bpe", "\346\227\245\346\234\254\350\252\236 \344\270\255\346\226\207123",
     "\346\227\245\346\234\254\350\252\236| \344\270\255\346\226\207|123"},
    {"llama-bpe", "e\314\201 \302\240x\342\200\203\341\240\216y", "e|\314\201| |\302\240x|\342\200\203|\341\240\216y"},
    {"llama-bpe", "don\342\200\231t '\305\277o", "don|\342\200\231t| '|\305\277o"},
    {"llama-bpe", "\360\237\221\250\342\200\215\360\237\221\251\342\200\215\360\237\221\247!",
     "\360\237\221\250\342\200\215\360\237\221\251\342\200\215\360\237\221\247!"},
    {"llama-bpe", "(hello)[world]_x__y", "(hello|)[|world|]_|x|__|y"},
    {"llama-bpe", "   ", "   "},
    {"llama-bpe", "\012 \012", "\012 \012"},
    {"qwen2", "Hello world", "Hello| world"},
    {"qwen2", "I'LL don't 'sam we've", "I|'LL| don|'t| '|sam| we|'ve"},
    {"qwen2", "  a  b   ", " | a| | b|   "},
    {"qwen2", "x\012\012\012y \012 z", "x|\012\012\012|y| \012| z"},
    {"qwen2", "\011\011if (a==b) {\012    c++;\012}\012", "\011|\011if| (|a|==|b|)| {\012|   | c|++;\012|}\012"},
    {"qwen2", "12345678 3.14 \302\275\331\243 1st", "1|2|3|4|5|6|7|8| |3|.|1|4| |\302\275|\331\243| |1|st"},
    {"qwen2", "a1b22 c333", "a|1|b|2|2| c|3|3|3"},
    {"qwen2", "price: $5.00!!\015\012\015\012end", "price|:| $|5|.|0|0|!!\015\012\015\012|end"},
    {"qwen2", "\346\227\245\346\234\254\350\252\236 \344\270\255\346\226\207123",
     "\346\227\245\346\234\254\350\252\236| \344\270\255\346\226\207|1|2|3"},
    {"qwen2", "e\314\201 \302\240x\342\200\203\341\240\216y", "e|\314\201| |\302\240x|\342\200\203|\341\240\216y"},
    {"qwen2", "don\342\200\231t '\305\277o", "don|\342\200\231t| '|\305\277o"},
    {"qwen2", "\360\237\221\250\342\200\215\360\237\221\251\342\200\215\360\237\221\247!",
     "\360\237\221\250\342\200\215\360\237\221\251\342\200\215\360\237\221\247!"},
    {"qwen2", "(hello)[world]_x__y", "(hello|)[|world|]_|x|__|y"},
    {"qwen2", "   ", "   "},
    {"qwen2", "\012 \012", "\012 \012"},
    {"smollm", "Hello world", "Hello| world"},
    {"smollm", "I'LL don't 'sam we've", "I|'|LL| don|'t| '|sam| we|'ve"},
    {"smollm", "  a  b   ", " | a| | b|   "},
    {"smollm", "x\012\012\012y \012 z", "x|\012\012|\012|y| \012| z"},
    {"smollm", "\011\011if (a==b) {\012    c++;\012}\012", "\011|\011|if| (|a|==|b|)| {|\012   | c|++;|\012|}|\012"},
    {"smollm", "12345678 3.14 \302\275\331\243 1st", "1|2|3|4|5|6|7|8| |3|.|1|4| |\302\275|\331\243| |1|st"},
    {"smollm", "a1b22 c333", "a|1|b|2|2| c|3|3|3"},
    {"smollm", "price: $5.00!!\015\012\015\012end", "price|:| $|5|.|0|0|!!|\015\012\015|\012|end"},
    {"smollm", "\346\227\245\346\234\254\350\252\236 \344\270\255\346\226\207123",
     "\346\227\245\346\234\254\350\252\236| \344\270\255\346\226\207|1|2|3"},
    {"smollm", "e\314\201 \302\240x\342\200\203\341\240\216y", "e|\314\201| |\302\240|x|\342\200\203|\341\240\216|y"},
    {"smollm", "don\342\200\231t '\305\277o", "don|\342\200\231|t| '|\305\277o"},
    {"smollm", "\360\237\221\250\342\200\215\360\237\221\251\342\200\215\360\237\221\247!",
     "\360\237\221\250\342\200\215\360\237\221\251\342\200\215\360\237\221\247!"},
    {"smollm", "(hello)[world]_x__y", "(|hello|)[|world|]_|x|__|y"},
    {"smollm", "   ", "   "},
    {"smollm", "\012 \012", "\012 \012"},
};

START_TEST(known_models_cut_as_hugging_face_does)
{
    struct mosld_tokenizer *t = tokenizer_new();
    struct rt_error err = {0};
    ck_assert_int_eq(tokenizer_use_pre(t, known[_i].pre, &err), RT_OK);
    check_cut(&t->pretokenizer, known[_i].text, true, known[_i].words);
    mosld_tokenizer_close(t);
}
END_TEST

START_TEST(unknown_model_is_named)
{
    struct mosld_tokenizer *t = tokenizer_new();
    struct rt_error err = {0};
    ck_assert_int_eq(tokenizer_use_pre(t, "deepseek-llm", &err), RT_BAD_FILE);
    ck_assert_ptr_nonnull(strstr(err.text, "deepseek-llm"));
    mosld_tokenizer_close(t);
}
END_TEST

static const struct {
    enum split_behavior behavior;
    bool invert;
    const char *regex, *words; /* of "-ab--1c2-"; the first pattern also matches nothing */
} splits[] = {
    {SPLIT_REMOVED, false, "-|[0-9]*", "a|b|c"},
    {SPLIT_REMOVED, false, "-", "ab|1c2"},
    {SPLIT_REMOVED, true, "-|[0-9]*", "-|-|-|1|2|-"},
    {SPLIT_REMOVED, true, "-", "-|-|-|-"},
    {SPLIT_ISOLATED, false, "-|[0-9]*", "-|a|b|-|-|1|c|2|-"},
    {SPLIT_ISOLATED, false, "-", "-|ab|-|-|1c2|-"},
    {SPLIT_ISOLATED, true, "-|[0-9]*", "-|a|b|-|-|1|c|2|-"},
    {SPLIT_ISOLATED, true, "-", "-|ab|-|-|1c2|-"},
    {SPLIT_WITH_PREVIOUS, false, "-|[0-9]*", "-|a|b-|-|1|c2|-"},
    {SPLIT_WITH_PREVIOUS, false, "-", "-|ab-|-|1c2-"},
    {SPLIT_WITH_PREVIOUS, true, "-|[0-9]*", "-a|b|-|-|1c|2|-"},
    {SPLIT_WITH_PREVIOUS, true, "-", "-ab|-|-1c2|-"},
    {SPLIT_WITH_NEXT, false, "-|[0-9]*", "-a|b|-|-|1c|2|-"},
    {SPLIT_WITH_NEXT, false, "-", "-ab|-|-1c2|-"},
    {SPLIT_WITH_NEXT, true, "-|[0-9]*", "-|a|b-|-|1|c2|-"},
    {SPLIT_WITH_NEXT, true, "-", "-|ab-|-|1c2-"},
    {SPLIT_CONTIGUOUS, false, "-|[0-9]*", "-|a|b|--1|c|2-"},
    {SPLIT_CONTIGUOUS, false, "-", "-|ab|--|1c2|-"},
    {SPLIT_CONTIGUOUS, true, "-|[0-9]*", "-|a|b|--1|c|2-"},
    {SPLIT_CONTIGUOUS, true, "-", "-|ab|--|1c2|-"},
};

START_TEST(split_behaviors_as_hugging_face_has_them)
{
    struct pretokenizer p = {0};
    struct rt_error err = {0};
    ck_assert_int_eq(pretokenizer_add_regex(&p, splits[_i].regex, splits[_i].behavior, splits[_i].invert, &err), RT_OK);
    check_cut(&p, "-ab--1c2-", true, splits[_i].words);
    pretokenizer_finish(&p);
}
END_TEST

START_TEST(metaspace_puts_a_space_in_front_as_the_scheme_says)
{
    static const struct {
        enum prefix_scheme prefix;
        bool at_start;
        const char *text, *words;
    } rows[] = {{PREFIX_ALWAYS, false, "a  b",
                 "\xE2\x96\x81"
                 "a|\xE2\x96\x81|\xE2\x96\x81"
                 "b"},
                {PREFIX_ALWAYS, true, " a",
                 "\xE2\x96\x81"
                 "a"},
                {PREFIX_FIRST, true, "a b",
                 "\xE2\x96\x81"
                 "a|\xE2\x96\x81"
                 "b"},
                {PREFIX_FIRST, false, "a b",
                 "a|\xE2\x96\x81"
                 "b"},
                {PREFIX_NEVER, true, "a b",
                 "a|\xE2\x96\x81"
                 "b"}};
    struct rt_error err = {0};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct pretokenizer p = {0};
        struct pretok_step step = {.kind = PRETOK_METASPACE,
                                   .behavior = SPLIT_WITH_NEXT,
                                   .replacement = "\xE2\x96\x81",
                                   .prefix = rows[i].prefix};
        ck_assert_int_eq(text_pattern_create_literal("\xE2\x96\x81", 3, &step.pattern, &err), RT_OK);
        ck_assert_int_eq(pretokenizer_add(&p, step, &err), RT_OK);
        check_cut(&p, rows[i].text, rows[i].at_start, rows[i].words);
        pretokenizer_finish(&p);
    }
}
END_TEST

/* A step too many is refused, and its pattern does not leak (the sanitizers would say so). */
START_TEST(too_many_steps_are_refused)
{
    struct pretokenizer p = {0};
    struct rt_error err = {0};
    for (int i = 0; i < PRETOK_MAX_STEPS; i++)
        ck_assert_int_eq(pretokenizer_add_regex(&p, "x", SPLIT_ISOLATED, false, &err), RT_OK);
    ck_assert_int_eq(pretokenizer_add_regex(&p, "x", SPLIT_ISOLATED, false, &err), RT_BAD_FILE);
    pretokenizer_finish(&p);
}
END_TEST

START_TEST(bad_patterns_are_refused)
{
    static const char *const bad[] = {"(", "[a", "[a&&b]", "[a[bc]]", "\\C", "(?<n>", "a{2,1}"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct text_pattern *p = NULL;
        struct rt_error err = {0};
        ck_assert_int_eq(text_pattern_create(bad[i], strlen(bad[i]), &p, &err), RT_BAD_FILE);
        ck_assert_ptr_null(p);
        ck_assert_ptr_nonnull(strstr(err.text, bad[i]));
    }
}
END_TEST

START_TEST(catastrophic_pattern_is_stopped)
{
    struct text_pattern *p = NULL;
    struct rt_error err = {0};
    char text[65];
    bool found;
    size_t start, end;
    memset(text, 'a', 64);
    text[64] = '!';
    ck_assert_int_eq(text_pattern_create("^(a+)+$", 7, &p, &err), RT_OK);
    ck_assert_int_eq(text_pattern_find(p, matcher, text, 65, 0, &found, &start, &end, &err), RT_FAILED);
    ck_assert_ptr_nonnull(strstr(err.text, "^(a+)+$"));
    text_pattern_destroy(p);
}
END_TEST

/* PCRE2's own \s takes U+180E, which is no white space any more, and its \w leaves marks out. */
START_TEST(classes_are_those_of_unicode)
{
    static const struct {
        const char *regex, *text;
        size_t end; /* of the match at 0; 0: none there */
    } rows[] = {{"\\s+", " \xC2\xA0\xE2\x80\xA8\xE1\xA0\x8E", 6},
                {"[\\s]+", "\xE1\xA0\x8E", 0},
                {"\\S", "\xE1\xA0\x8E", 3},
                {"\\w+", "e\xCC\x81_\xE2\x80\xBF", 7},
                {"\\W", "\xCC\x81", 0},
                {"[[:alpha:]\\s]+", "ab c!", 4},
                {"[]a]+", "]a]b", 3},
                {"[^]a]+", "bc]", 2}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct text_pattern *p = NULL;
        struct rt_error err = {0};
        bool found = false;
        size_t start = 0, end = 0;
        ck_assert_int_eq(text_pattern_create(rows[i].regex, strlen(rows[i].regex), &p, &err), RT_OK);
        ck_assert_int_eq(
            text_pattern_find(p, matcher, rows[i].text, strlen(rows[i].text), 0, &found, &start, &end, &err), RT_OK);
        ck_assert_msg(found && start == 0 ? end == rows[i].end : rows[i].end == 0, "row %zu: %d %zu %zu", i, found,
                      start, end);
        text_pattern_destroy(p);
    }
}
END_TEST

START_TEST(normal_forms_and_replacements)
{
    static const struct {
        enum norm_kind kind;
        const char *pattern, *content, *text, *want;
    } rows[] = {{NORM_NFC, NULL, NULL, "e\xCC\x81\xEF\xAC\x81", "\xC3\xA9\xEF\xAC\x81"},
                {NORM_NFD, NULL, NULL, "\xC3\xA9", "e\xCC\x81"},
                {NORM_NFKC, NULL, NULL, "e\xCC\x81\xEF\xAC\x81",
                 "\xC3\xA9"
                 "fi"},
                {NORM_NFKD, NULL, NULL, "\xC3\xA9\xEF\xAC\x81",
                 "e\xCC\x81"
                 "fi"},
                {NORM_PREPEND, NULL, "_", "a", "_a"},
                {NORM_PREPEND, NULL, "_", "", ""},
                {NORM_REPLACE, " +", "_", "a  b ", "a_b_"},
                {NORM_REPLACE, "x*", "-", "axb", "-a-b-"}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct normalizer n = {0};
        struct text_pattern *p = NULL;
        struct text_buf out = {0};
        struct rt_error err = {0};
        if (rows[i].pattern)
            ck_assert_int_eq(text_pattern_create(rows[i].pattern, strlen(rows[i].pattern), &p, &err), RT_OK);
        ck_assert_int_eq(normalizer_add(&n, rows[i].kind, p, rows[i].content, &err), RT_OK);
        ck_assert_int_eq(normalize(&n, matcher, rows[i].text, strlen(rows[i].text), &out, &err), RT_OK);
        ck_assert(text_buf_terminate(&out));
        ck_assert_str_eq(out.data, rows[i].want);
        text_buf_finish(&out);
        normalizer_finish(&n);
    }
}
END_TEST

/* Sorting them would take the library hours. */
START_TEST(endless_combining_marks_are_refused)
{
    struct normalizer n = {0};
    struct text_buf text = {0}, out = {0};
    struct rt_error err = {0};
    ck_assert(text_buf_puts(&text, "a"));
    for (int i = 0; i < 2048; i++)
        ck_assert(text_buf_puts(&text, "\xCC\x81\xCC\x96"));
    ck_assert_int_eq(normalizer_add(&n, NORM_NFC, NULL, NULL, &err), RT_OK);
    ck_assert_int_eq(normalize(&n, matcher, text.data, text.len, &out, &err), RT_OK);
    ck_assert_uint_eq(out.len, text.len - 1); /* a and the first acute are one letter of two bytes */
    ck_assert(text_buf_puts(&text, "\xCC\x81"));
    ck_assert_int_eq(normalize(&n, matcher, text.data, text.len, &out, &err), RT_FAILED);
    text_buf_finish(&text);
    text_buf_finish(&out);
    normalizer_finish(&n);
}
END_TEST

/* Expected: Python's bytes.decode("utf-8", "replace"). R stands for U+FFFD. */
START_TEST(broken_utf8_is_replaced_as_python_does)
{
    static const struct {
        const char *bytes, *want;
    } rows[] = {{"a\xFF"
                 "b",
                 "aRb"},
                {"\xC3", "R"},
                {"\xE2\x82", "R"},
                {"\xE2\x82\xE2\x82\xAC", "R\xE2\x82\xAC"},
                {"\xC0\x80", "RR"},
                {"\xED\xA0\x80", "RRR"},
                {"\xF0\x9F\x98", "R"},
                {"\xF4\x90\x80\x80", "RRRR"},
                {"\xF0\x80\x80\x80", "RRRR"},
                {"\x80\x80", "RR"},
                {"\xEF\xBF\xBD", "R"},
                {"\xF0\x9F\x98\x80", "\xF0\x9F\x98\x80"}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct text_buf got = {0}, want = {0};
        ck_assert(utf8_repair(rows[i].bytes, strlen(rows[i].bytes), &got));
        for (const char *c = rows[i].want; *c; c++)
            ck_assert(*c == 'R' ? text_buf_puts(&want, "\xEF\xBF\xBD") : text_buf_append(&want, c, 1));
        ck_assert_msg(got.len == want.len && memcmp(got.data, want.data, got.len) == 0, "row %zu", i);
        ck_assert(utf8_valid(got.data, got.len));
        text_buf_finish(&got);
        text_buf_finish(&want);
    }
}
END_TEST

START_TEST(characters_round_trip)
{
    for (uint32_t c = 0; c < 0x110000; c += c < 0x3000 ? 1 : 0x101) {
        char bytes[4];
        if (c >= 0xD800 && c < 0xE000)
            continue;
        size_t n = utf8_encode(c, bytes);
        ck_assert_int_eq(utf8_check(bytes, n), (int)n);
        ck_assert_uint_eq(utf8_length(bytes[0]), n);
        ck_assert_uint_eq(utf8_decode(bytes), c);
        ck_assert_int_eq(n > 1 ? utf8_check(bytes, n - 1) : 0, 0);
    }
}
END_TEST

START_TEST(byte_alphabet_is_a_bijection)
{
    bool seen[512] = {false};
    for (int b = 0; b < 256; b++) {
        uint32_t c = tokenizer_byte_char((uint8_t)b);
        ck_assert_uint_lt(c, 512);
        ck_assert(!seen[c]);
        seen[c] = true;
        ck_assert_int_eq(tokenizer_char_byte(c), b);
    }
    ck_assert_uint_eq(tokenizer_byte_char(' '), 0x120);
    ck_assert_uint_eq(tokenizer_byte_char('\n'), 0x10A);
    ck_assert_uint_eq(tokenizer_byte_char(0xAD), 0x143);
    ck_assert_int_eq(tokenizer_char_byte(0x144), -1);
    ck_assert_int_eq(tokenizer_char_byte(' '), -1);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("pretokenize");
    TCase *tc = tcase_create("words");
    tcase_add_unchecked_fixture(tc, set_up, tear_down);
    tcase_add_loop_test(tc, known_models_cut_as_hugging_face_does, 0, sizeof known / sizeof *known);
    tcase_add_test(tc, unknown_model_is_named);
    tcase_add_loop_test(tc, split_behaviors_as_hugging_face_has_them, 0, sizeof splits / sizeof *splits);
    tcase_add_test(tc, metaspace_puts_a_space_in_front_as_the_scheme_says);
    tcase_add_test(tc, too_many_steps_are_refused);
    tcase_add_test(tc, bad_patterns_are_refused);
    tcase_add_test(tc, catastrophic_pattern_is_stopped);
    tcase_add_test(tc, classes_are_those_of_unicode);
    tcase_add_test(tc, normal_forms_and_replacements);
    tcase_add_test(tc, endless_combining_marks_are_refused);
    tcase_add_test(tc, broken_utf8_is_replaced_as_python_does);
    tcase_add_test(tc, characters_round_trip);
    tcase_add_test(tc, byte_alphabet_is_a_bijection);
    suite_add_tcase(s, tc);
    SRunner *runner = srunner_create(s);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
