/* The GGUF reader: a good file, and every kind of bad one. */
#include "mosld/io/gguf.h"
#include "tests/support/io_files.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

enum { U8 = 0, I8 = 1, U32 = 4, F32 = 6, BOOL = 7, STRING = 8, ARRAY = 9, U64 = 10 }; /* value types */
enum { T_F32 = 0, T_Q4_2 = 4, T_Q8_0 = 8, T_Q4_K = 12 };                               /* tensor types */

static const uint64_t dims_4[] = {4}, dims_32_2[] = {32, 2};

/* Writes the bytes, opens them, frees them. */
static enum rt_status open_bytes(struct bytes *b, const char *path, struct gguf **g, struct rt_error *err)
{
    *err = (struct rt_error){0};
    io_write(path, b->data, b->size);
    bytes_free(b);
    return gguf_open(path, g, err);
}

static void expect_refusal(struct bytes *b, const char *words)
{
    const char *path = io_path("bad.gguf");
    struct rt_error err;
    struct gguf *g;
    enum rt_status st = open_bytes(b, path, &g, &err);
    check_refused(st, &err, path, words);
    ck_assert_ptr_null(g);
}

static void add_typed(struct bytes *b, const char *key, uint32_t type)
{
    build_string(b, key);
    bytes_u32(b, type);
}

static void good_file(struct bytes *b, uint32_t version)
{
    build_begin(b, version, 2, 8);
    build_key_string(b, "general.architecture", "llama");
    build_key_u32(b, "count", 7);
    build_key_f32(b, "eps", 1e-5f);
    add_typed(b, "flag", BOOL);
    bytes_u8(b, 1);
    add_typed(b, "big", U64);
    bytes_u64(b, UINT64_MAX);
    build_key_array(b, "tokens", STRING, 3);
    build_string(b, "a");
    build_string(b, "");
    build_string(b, "xyz");
    build_key_array(b, "types", I8, 3);
    bytes_add(b, "\x01\xff\x03", 3);
    build_key_array(b, "scores", F32, 2);
    bytes_f32(b, -1.5f);
    bytes_f32(b, 2);
    build_tensor(b, "m", 2, dims_32_2, T_Q8_0, 32);
    build_tensor(b, "v", 1, dims_4, T_F32, 0);
    bytes_align(b, 32);
    for (int i = 0; i < 4; i++)
        bytes_f32(b, (float)i);
    bytes_align(b, 32);
    for (int i = 0; i < 68; i++)
        bytes_u8(b, (uint8_t)i);
}

START_TEST(a_good_file_is_read)
{
    struct bytes b = {0};
    good_file(&b, (uint32_t)_i);
    struct rt_error err;
    struct gguf *g;
    check_ok(open_bytes(&b, io_path("good.gguf"), &g, &err), &err);
    ck_assert_uint_eq(gguf_version(g), (unsigned)_i);
    ck_assert_uint_eq(gguf_key_count(g), 8);
    ck_assert_str_eq(gguf_key_at(g, 1)->name, "count");
    ck_assert_uint_eq(gguf_tensor_count(g), 2);
    const struct gguf_tensor *m = gguf_find_tensor(g, "m");
    ck_assert_int_eq(m->dtype, DTYPE_Q8_0);
    ck_assert(m->dims[0] == 32 && m->dims[1] == 2 && m->dims[2] == 1 && m->elements == 64 && m->bytes == 68);
    ck_assert(m->data[0] == 0 && m->data[67] == 67);
    float v[4];
    dtype_to_f32(DTYPE_F32, gguf_find_tensor(g, "v")->data, 4, v);
    ck_assert(v[0] == 0 && v[3] == 3);
    ck_assert_ptr_null(gguf_find_tensor(g, "w"));
    gguf_close(&g);
    ck_assert_ptr_null(g);
}
END_TEST

START_TEST(values_are_converted_and_checked)
{
    struct bytes b = {0};
    good_file(&b, 3);
    struct rt_error err;
    struct gguf *g;
    const char *path = io_path("values.gguf");
    check_ok(open_bytes(&b, path, &g, &err), &err);
    struct gguf_string text, *strings;
    int64_t integer, *integers;
    double number;
    bool flag;
    float *floats;
    char *copy;
    size_t n;
    check_ok(gguf_get_string(g, "general.architecture", &text, &err), &err);
    ck_assert(text.size == 5 && memcmp(text.data, "llama", 5) == 0);
    check_ok(gguf_dup_string_or_null(g, "general.architecture", &copy, &err), &err);
    ck_assert_str_eq(copy, "llama");
    free(copy);
    check_ok(gguf_dup_string_or_null(g, "absent", &copy, &err), &err);
    ck_assert_ptr_null(copy);
    check_ok(gguf_get_integer(g, "count", 1, 7, &integer, &err), &err);
    ck_assert_int_eq(integer, 7);
    check_ok(gguf_get_integer_or(g, "absent", 1, 7, -1, &integer, &err), &err);
    ck_assert_int_eq(integer, -1);
    check_ok(gguf_get_number(g, "eps", 0, 1, &number, &err), &err);
    ck_assert(number == 1e-5f);
    check_ok(gguf_get_number(g, "count", 0, 10, &number, &err), &err);
    ck_assert(number == 7);
    check_ok(gguf_get_number(g, "big", 0, 1e20, &number, &err), &err);
    ck_assert(number == 18446744073709551615.0);
    check_ok(gguf_get_bool_or(g, "flag", false, &flag, &err), &err);
    ck_assert(flag);
    check_ok(gguf_get_strings(g, "tokens", &strings, &n, &err), &err);
    ck_assert(n == 3 && strings[1].size == 0 && memcmp(strings[2].data, "xyz", 3) == 0);
    free(strings);
    check_ok(gguf_get_integers(g, "types", &integers, &n, &err), &err);
    ck_assert(n == 3 && integers[0] == 1 && integers[1] == -1 && integers[2] == 3);
    free(integers);
    check_ok(gguf_get_floats(g, "scores", &floats, &n, &err), &err);
    ck_assert(n == 2 && floats[0] == -1.5f && floats[1] == 2);
    free(floats);
    check_ok(gguf_get_floats(g, "absent", &floats, &n, &err), &err);
    ck_assert(n == 0 && !floats);

    check_refused(gguf_get_integer(g, "absent", 0, 1, &integer, &err), &err, path, "absent is missing");
    check_refused(gguf_get_integer(g, "count", 8, 9, &integer, &err), &err, path, "count is 7, it must be in 8..9");
    check_refused(gguf_get_integer(g, "big", 0, INT64_MAX, &integer, &err), &err, path, "18446744073709551615");
    check_refused(gguf_get_integer(g, "eps", 0, 1, &integer, &err), &err, path, "of type f32");
    check_refused(gguf_get_integer(g, "types", 0, 1, &integer, &err), &err, path, "an array of i8");
    check_refused(gguf_get_number(g, "eps", 1, 2, &number, &err), &err, path, "eps is");
    check_refused(gguf_get_string(g, "count", &text, &err), &err, path, "must be a string");
    check_refused(gguf_get_bool_or(g, "count", false, &flag, &err), &err, path, "boolean");
    check_refused(gguf_get_floats(g, "types", &floats, &n, &err), &err, path,
                  "array of floats"); /* i8 read as float: a known hole */
    ck_assert(!floats && n == 0);
    check_refused(gguf_get_integers(g, "scores", &integers, &n, &err), &err, path, "array of integers");
    check_refused(gguf_get_strings(g, "types", &strings, &n, &err), &err, path, "array of strings");
    check_refused(gguf_get_strings(g, "count", &strings, &n, &err), &err, path, "must be an array");
    gguf_close(&g);
}
END_TEST

/* Every prefix of a good file but those that end in the padding behind the last tensor is refused, and none crashes. */
START_TEST(no_prefix_crashes)
{
    struct bytes whole = {0};
    good_file(&whole, 3);
    for (size_t n = 0; n < whole.size; n++) {
        struct bytes part = {0};
        bytes_add(&part, whole.data, n);
        struct rt_error err;
        struct gguf *g;
        io_write(io_path("part.gguf"), part.data ? part.data : (uint8_t *)"", part.size);
        check_refused(gguf_open(io_path("part.gguf"), &g, &err), &err, io_path("part.gguf"),
                      n < 4 ? "ends within" : "");
        bytes_free(&part);
    }
    bytes_free(&whole);
}
END_TEST

START_TEST(preambles_are_checked)
{
    struct bytes b = {0};
    bytes_add(&b, "GGML\3\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 24);
    expect_refusal(&b, "does not begin with GGUF");
    static const struct {
        uint32_t version;
        const char *words;
    } versions[] = {{0, "version 0"},
                    {1, "version 1"},
                    {4, "version 4"},
                    {1u << 31, "big-endian"},
                    {0x80000001, "version 2147483649"},
                    {3u << 24, "big-endian"}};
    for (size_t i = 0; i < sizeof versions / sizeof *versions; i++) {
        build_begin(&b, versions[i].version, 0, 0);
        expect_refusal(&b, versions[i].words);
    }
    static const uint64_t counts[][2] = {{0, UINT64_MAX}, {UINT64_MAX, 0}, {0, 1ull << 60},
                                         {1ull << 59, 0}, {0, 1},          {1, 0}};
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        build_begin(&b, 3, counts[i][0], counts[i][1]);
        expect_refusal(&b, "cannot hold");
    }
}
END_TEST

START_TEST(keys_are_checked)
{
    struct bytes b = {0};
    build_begin(&b, 3, 0, 1);
    bytes_u64(&b, UINT64_MAX); /* length + 1 wraps */
    bytes_add(&b, "abcdefghijkl", 12);
    expect_refusal(&b, "string of 18446744073709551615 bytes");
    build_begin(&b, 3, 0, 1);
    build_key_u32(&b, "", 1);
    expect_refusal(&b, "has 0 bytes");
    char *name = calloc(1, 65537);
    memset(name, 'k', 65536);
    build_begin(&b, 3, 0, 1);
    build_key_u32(&b, name, 1);
    expect_refusal(&b, "has 65536 bytes");
    free(name);
    build_begin(&b, 3, 0, 1);
    bytes_u64(&b, 3);
    bytes_add(&b, "a\0b", 3);
    bytes_u32(&b, U8);
    bytes_u8(&b, 1);
    expect_refusal(&b, "NUL");
    build_begin(&b, 3, 0, 1);
    add_typed(&b, "odd", 13);
    bytes_u64(&b, 0);
    expect_refusal(&b, "key odd has type 13");
    build_begin(&b, 3, 0, 2);
    build_key_u32(&b, "same", 1);
    build_key_u32(&b, "same", 2);
    expect_refusal(&b, "same stands there twice");
    build_begin(&b, 3, 0, 1);
    add_typed(&b, "text", STRING);
    bytes_u64(&b, 1000);
    bytes_add(&b, "short", 5);
    expect_refusal(&b, "string of 1000 bytes");
}
END_TEST

START_TEST(arrays_are_checked)
{
    struct bytes b = {0};
    static const uint64_t counts[] = {UINT64_MAX, 1ull << 62, 1ull << 32, 3};
    for (int i = 0; i < 4; i++) {
        build_begin(&b, 3, 0, 1);
        build_key_array(&b, "list", U32, counts[i]); /* count x 4 wraps */
        bytes_u64(&b, 0);
        expect_refusal(&b, "ends within key list");
        build_begin(&b, 3, 0, 1);
        build_key_array(&b, "list", STRING, counts[i]);
        bytes_u64(&b, 0);
        expect_refusal(&b, "ends within key list");
    }
    build_begin(&b, 3, 0, 1);
    build_key_array(&b, "list", 99, 1);
    expect_refusal(&b, "key list has type 99");
    build_begin(&b, 3, 0, 1);
    build_key_array(&b, "nested", ARRAY, 1);
    for (int i = 0; i < 1000; i++) {
        bytes_u32(&b, ARRAY);
        bytes_u64(&b, 1);
    }
    expect_refusal(&b, "array of arrays");
}
END_TEST

START_TEST(alignment_is_checked)
{
    static const uint32_t bad[] = {0, 3, 48, 1u << 31, 1u << 20};
    struct bytes b = {0};
    for (int i = 0; i < 5; i++) {
        build_begin(&b, 3, 0, 1);
        build_key_u32(&b, "general.alignment", bad[i]);
        expect_refusal(&b, "general.alignment");
    }
    build_begin(&b, 3, 0, 1);
    build_key_f32(&b, "general.alignment", 32);
    expect_refusal(&b, "general.alignment");
    build_begin(&b, 3, 1, 1);
    build_key_u32(&b, "general.alignment", 1);
    build_tensor(&b, "v", 1, dims_4, T_F32, 0);
    bytes_add(&b, "0123456789abcdef", 16);
    struct rt_error err;
    struct gguf *g;
    check_ok(open_bytes(&b, io_path("tight.gguf"), &g, &err), &err);
    ck_assert_int_eq(memcmp(gguf_find_tensor(g, "v")->data, "0123456789abcdef", 16), 0);
    gguf_close(&g);
}
END_TEST

static const struct {
    uint32_t n_dims;
    uint64_t dims[5];
    uint32_t type;
    uint64_t offset;
    const char *words;
} tensors[] = {
    {0, {0}, T_F32, 0, "has 0 dimensions"},
    {5, {1, 1, 1, 1, 1}, T_F32, 0, "has 5 dimensions"},
    {UINT32_MAX, {1, 1, 1, 1, 1}, T_F32, 0, "has 4294967295 dimensions"},
    {1, {0}, T_F32, 0, "0 or negative"},
    {2, {4, 0}, T_F32, 0, "0 or negative"},
    {1, {1ull << 63}, T_F32, 0, "0 or negative"},
    {1, {UINT64_MAX - 1}, T_F32, 0, "0 or negative"},
    {2, {1ull << 32, 1ull << 32}, T_F32, 0, "more elements"},
    {4, {1ull << 16, 1ull << 16, 1ull << 16, 1ull << 16}, T_F32, 0, "more elements"},
    {1, {1ull << 62}, T_F32, 0, "more bytes"}, /* x 4 wraps to 0 */
    {2, {1ull << 59, 31}, T_Q8_0, 0, "more bytes"}, /* the elements fit 64 bits, their bytes do not */
    {1, {33}, T_Q8_0, 0, "no multiple of 32"},
    {2, {16, 2}, T_Q8_0, 0, "no multiple of 32"},
    {1, {128}, T_Q4_K, 0, "no multiple of 256"},
    {1, {4}, T_Q4_2, 0, "its type 4"},
    {1, {4}, 99, 0, "its type 99"},
    {1, {4}, UINT32_MAX, 0, "its type 4294967295"},
    {1, {4}, T_F32, 4, "no multiple of 32"},
    {1, {4}, T_F32, 64, "exceed"},
    {1, {4}, T_F32, UINT64_MAX - 31, "exceed"},
    {1, {17}, T_F32, 0, "exceed"},
    {1, {13}, T_F32, 32, "exceed"},
};
enum { N_TENSORS = sizeof tensors / sizeof *tensors };

START_TEST(tensors_are_checked)
{
    struct bytes b = {0};
    build_begin(&b, 3, 1, 0);
    build_tensor(&b, "t", tensors[_i].n_dims, tensors[_i].dims, tensors[_i].type, tensors[_i].offset);
    bytes_align(&b, 32);
    for (int i = 0; i < 8; i++)
        bytes_u64(&b, 0); /* 64 bytes of data */
    expect_refusal(&b, tensors[_i].words);
}
END_TEST

static void two_tensors(struct bytes *b, const char *second, uint64_t offset)
{
    static const uint64_t dims[] = {9};
    build_begin(b, 3, 2, 0);
    build_tensor(b, "t", 1, dims, T_F32, 0);
    build_tensor(b, second, 1, dims, T_F32, offset);
    bytes_align(b, 32);
    for (int i = 0; i < 16; i++)
        bytes_u64(b, 0);
}

START_TEST(tensors_must_not_meet)
{
    struct bytes b = {0};
    struct rt_error err;
    struct gguf *g;
    two_tensors(&b, "u", 0);
    expect_refusal(&b, "overlap");
    two_tensors(&b, "u", 32);
    expect_refusal(&b, "overlap");
    two_tensors(&b, "t", 64);
    expect_refusal(&b, "tensor t stands there twice");
    two_tensors(&b, "", 64);
    expect_refusal(&b, "the name of tensor number 2");
    two_tensors(&b, "u", 64);
    check_ok(open_bytes(&b, io_path("apart.gguf"), &g, &err), &err);
    gguf_close(&g);
}
END_TEST

/* ---- split models ---- */

/* Part `no` of `count` with one tensor of 16 floats, all of them `value`. */
static void write_part(const char *path, uint32_t no, uint32_t count, const char *tensor, float value, uint32_t all)
{
    struct bytes b = {0};
    build_begin(&b, 3, 1, 3);
    build_key_u32(&b, "split.no", no);
    build_key_u32(&b, "split.count", count);
    build_key_u32(&b, "split.tensors.count", all);
    build_tensor(&b, tensor, 1, (uint64_t[]){16}, T_F32, 0);
    bytes_align(&b, 32);
    for (int i = 0; i < 16; i++) {
        uint32_t bits;
        memcpy(&bits, &value, 4);
        bytes_u32(&b, bits);
    }
    io_write(path, b.data, b.size);
    bytes_free(&b);
}

START_TEST(parts_are_joined)
{
    struct rt_error err;
    struct gguf *g;
    const char *first = io_path("m-00001-of-00003.gguf"), *second = io_path("m-00002-of-00003.gguf"), *third = io_path("m-00003-of-00003.gguf");
    write_part(first, 0, 3, "c", 1, 3);
    write_part(second, 1, 3, "a", 2, 3);
    check_refused(gguf_open(first, &g, &err), &err, third, "m-00003-of-00003.gguf");
    write_part(third, 2, 3, "b", 3, 3);
    check_ok(gguf_open(first, &g, &err), &err);
    ck_assert_uint_eq(gguf_tensor_count(g), 3);
    static const char *const names[] = {"c", "a", "b"};
    for (int i = 0; i < 3; i++) {
        const struct gguf_tensor *t = gguf_find_tensor(g, names[i]);
        float value;
        ck_assert(t && t == gguf_tensor_at(g, (size_t)i));
        memcpy(&value, t->data + 60, 4);
        ck_assert_float_eq(value, (float)(i + 1));
    }
    ck_assert_uint_gt(gguf_file_size(g), 3 * 64);
    gguf_close(&g);
    check_ok(gguf_open(second, &g, &err), &err); /* by itself it can be looked at */
    ck_assert_uint_eq(gguf_tensor_count(g), 1);
    gguf_close(&g);
    write_part(third, 1, 3, "b", 3, 3);
    check_refused(gguf_open(first, &g, &err), &err, third, "says that it is part 2 of 3");
    write_part(third, 2, 3, "a", 3, 3);
    check_refused(gguf_open(first, &g, &err), &err, first, "tensor a stands in two of its parts");
    write_part(third, 2, 3, "b", 3, 3);
    write_part(first, 0, 3, "c", 1, 4);
    check_refused(gguf_open(first, &g, &err), &err, first, "announces 4 tensors");
    write_part(io_path("whole.gguf"), 0, 3, "c", 1, 3);
    check_refused(gguf_open(io_path("whole.gguf"), &g, &err), &err, io_path("whole.gguf"), "name must end in -00001-of-00003.gguf");
}
END_TEST

int main(void)
{
    io_folder();
    Suite *suite = suite_create("gguf");
    TCase *tc = tcase_create("files");
    tcase_set_timeout(tc, 60);
    tcase_add_loop_test(tc, a_good_file_is_read, 2, 4);
    tcase_add_test(tc, values_are_converted_and_checked);
    tcase_add_test(tc, no_prefix_crashes);
    tcase_add_test(tc, preambles_are_checked);
    tcase_add_test(tc, keys_are_checked);
    tcase_add_test(tc, arrays_are_checked);
    tcase_add_test(tc, alignment_is_checked);
    tcase_add_loop_test(tc, tensors_are_checked, 0, N_TENSORS);
    tcase_add_test(tc, tensors_must_not_meet);
    tcase_add_test(tc, parts_are_joined);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
