/* The safetensors reader and writer: good files, and every kind of bad one. */
#include "mosld/io/file.h"
#include "mosld/io/safetensors.h"
#include "tests/support/io_files.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const float six[6] = {1, -2, 3.5f, 0, 1e-30f, 65504};
static const uint8_t three[3] = {1, 2, 250};

/* A file as a whole, the caller's to free(). */
static char *slurp(const char *path, size_t *size)
{
    struct rt_error err = {0};
    char *data;
    check_ok(file_read(path, 1 << 20, &data, size, &err), &err);
    return data;
}

START_TEST(what_is_written_is_read)
{
    const struct safetensors_entry entries[] = {
        {.name = "b.u8", .dtype = DTYPE_U8, .rank = 1, .shape = {3}, .data = three},
        {.name = "a.f32", .dtype = DTYPE_F32, .rank = 2, .shape = {2, 3}, .data = six},
        {.name = "scalar", .dtype = DTYPE_F32, .data = six},
        {.name = "empty", .dtype = DTYPE_F16, .rank = 2, .shape = {0, 7}},
    };
    const struct safetensors_pair metadata[] = {{"z", "last"}, {"format", "\"quoted\"\nline"}};
    const char *path = io_path("written.safetensors");
    struct rt_error err = {0};
    struct safetensors *s;
    check_ok(safetensors_write(path, entries, 4, metadata, 2, &err), &err);
    check_ok(safetensors_open(path, &s, &err), &err);
    ck_assert_uint_eq(safetensors_count(s), 4);
    ck_assert_str_eq(safetensors_at(s, 0)->name, "a.f32"); /* sorted */
    const struct safetensor *a = safetensors_find(s, "a.f32"), *b = safetensors_find(s, "b.u8"),
                            *e = safetensors_find(s, "empty");
    ck_assert_int_eq(a->dtype, DTYPE_F32);
    ck_assert_uint_eq(a->rank, 2);
    ck_assert(a->shape[0] == 2 && a->shape[1] == 3 && a->elements == 6 && a->bytes == 24);
    ck_assert_int_eq(memcmp(a->data, six, sizeof six), 0);
    ck_assert_int_eq(memcmp(b->data, three, sizeof three), 0);
    ck_assert(e->bytes == 0 && e->elements == 0 && e->shape[1] == 7);
    ck_assert_uint_eq(safetensors_find(s, "scalar")->rank, 0);
    ck_assert_uint_eq(safetensors_find(s, "scalar")->elements, 1);
    ck_assert_ptr_null(safetensors_find(s, "c"));
    ck_assert_str_eq(safetensors_metadata(s, "format"), "\"quoted\"\nline");
    ck_assert_ptr_null(safetensors_metadata(s, "absent"));
    safetensors_close(&s);
    ck_assert_ptr_null(s);
}
END_TEST

START_TEST(the_same_set_gives_the_same_bytes)
{
    const struct safetensors_entry one[] = {{.name = "x", .dtype = DTYPE_U8, .rank = 1, .shape = {3}, .data = three},
                                            {.name = "y", .dtype = DTYPE_F32, .rank = 1, .shape = {6}, .data = six}};
    const struct safetensors_entry other[] = {one[1], one[0]};
    const struct safetensors_pair m1[] = {{"a", "1"}, {"b", "2"}}, m2[] = {m1[1], m1[0]};
    struct rt_error err = {0};
    check_ok(safetensors_write(io_path("one"), one, 2, m1, 2, &err), &err);
    check_ok(safetensors_write(io_path("other"), other, 2, m2, 2, &err), &err);
    size_t n1, n2;
    char *a = slurp(io_path("one"), &n1), *b = slurp(io_path("other"), &n2);
    ck_assert_uint_eq(n1, n2);
    ck_assert_int_eq(memcmp(a, b, n1), 0);
    uint64_t header;
    memcpy(&header, a, 8);
    ck_assert_uint_eq((8 + header) % 8, 0);
    free(a);
    free(b);
}
END_TEST

START_TEST(the_writer_refuses)
{
    struct rt_error err = {0};
    const struct safetensors_entry twice[] = {{.name = "x", .dtype = DTYPE_U8}, {.name = "x", .dtype = DTYPE_F32}};
    const struct safetensors_entry quantised = {.name = "q", .dtype = DTYPE_Q8_0};
    const struct safetensors_entry huge = {
        .name = "h", .dtype = DTYPE_F32, .rank = 2, .shape = {1ull << 40, 1ull << 40}};
    const struct safetensors_entry reserved = {.name = "__metadata__", .dtype = DTYPE_U8, .rank = 1, .shape = {0}};
    const char *path = io_path("refused");
    ck_assert_int_eq(safetensors_write(path, twice, 2, NULL, 0, &err), RT_FAILED);
    ck_assert_int_eq(safetensors_write(path, &quantised, 1, NULL, 0, &err), RT_FAILED);
    ck_assert_int_eq(safetensors_write(path, &huge, 1, NULL, 0, &err), RT_FAILED);
    ck_assert_int_eq(safetensors_write(path, &reserved, 1, NULL, 0, &err), RT_FAILED);
    ck_assert_int_eq(safetensors_write(io_path("no/such/folder"), NULL, 0, NULL, 0, &err), RT_FAILED);
    ck_assert_ptr_nonnull(strstr(err.text, "no/such/folder"));
    ck_assert(!file_is_regular(path));
}
END_TEST

/* Headers over 8 bytes of data. `words` NULL: a good file. */
static const struct {
    const char *header, *words;
} headers[] = {
    {"{}", "bytes follow the last tensor"},
    {"{'a':{'dtype':'F32','shape':[2],'data_offsets':[0,8]}}", NULL},
    {"{'a':{'dtype':'F32','shape':[2],'data_offsets':[0,8]},'__metadata__':{}}", NULL},
    {"{'a':{'dtype':'F64','shape':[],'data_offsets':[0,8]}}   ", NULL},
    {"{'a':{'dtype':'F32','shape':[2],'data_offsets':[0,8]},'e':{'dtype':'F32','shape':[0],'data_offsets':[0,0]},"
     "'f':{'dtype':'F32','shape':[4,0],'data_offsets':[8,8]}}",
     NULL},
    {"{'a':{'dtype':'I8','shape':[3],'data_offsets':[0,3]},'b':{'dtype':'F8_E4M3','shape':[5],'data_offsets':[3,8]}}",
     NULL},
    {"[]", "does not begin with {"},
    {" {}", "does not begin with {"},
    {"", "does not begin with {"},
    {"{'a':{'dtype':'F32','shape':[2],'data_offsets':[0,8]}", "ends too early"},
    {"{'a':{'dtype':'F32','shape':[2],'data_offsets':[0,8]}} x", "follows the JSON"},
    {"{'\xff':1}", "not valid UTF-8"},
    {"{'a\\u0000b':1}", "u0000"},
    {"{'a':1}", "must be an object"},
    {"{'a':{'dtype':'F32','shape':[1],'data_offsets':[0,4]},'a':{'dtype':'F32','shape':[1],'data_offsets':[4,8]}}",
     "twice"},
    {"{'__metadata__':{},'__metadata__':{},'a':{'dtype':'F64','shape':[],'data_offsets':[0,8]}}", "twice"},
    {"{'__metadata__':{'k':1},'a':{'dtype':'F64','shape':[],'data_offsets':[0,8]}}", "must be a string"},
    {"{'__metadata__':[],'a':{'dtype':'F64','shape':[],'data_offsets':[0,8]}}", "must be an object"},
    {"{'a':{'dtype':'F99','shape':[2],'data_offsets':[0,8]}}", "F99"},
    {"{'a':{'dtype':'F4','shape':[16],'data_offsets':[0,8]}}", "F4"},
    {"{'a':{'dtype':'Q8_0','shape':[2],'data_offsets':[0,8]}}", "Q8_0"},
    {"{'a':{'dtype':7,'shape':[2],'data_offsets':[0,8]}}", "'dtype'"},
    {"{'a':{'shape':[2],'data_offsets':[0,8]}}", "'dtype' is missing"},
    {"{'a':{'dtype':'F32','data_offsets':[0,8]}}", "'shape' is missing"},
    {"{'a':{'dtype':'F32','shape':[2]}}", "'data_offsets' is missing"},
    {"{'a':{'dtype':'F32','dtype':'I32','shape':[2],'data_offsets':[0,8]}}", "twice"},
    {"{'a':{'dtype':'F32','shape':[-2],'data_offsets':[0,8]}}", "'shape' is -2"},
    {"{'a':{'dtype':'F32','shape':[2.5],'data_offsets':[0,8]}}", "'shape' is 2.5"},
    {"{'a':{'dtype':'F32','shape':['2'],'data_offsets':[0,8]}}", "'shape'"},
    {"{'a':{'dtype':'F32','shape':[1e400],'data_offsets':[0,8]}}", "'shape' is inf"},
    {"{'a':{'dtype':'F32','shape':[18446744073709551616],'data_offsets':[0,8]}}", "'shape'"},
    {"{'a':{'dtype':'F32','shape':[4294967296,4294967296],'data_offsets':[0,8]}}", "more elements"},
    {"{'a':{'dtype':'F32','shape':[4294967296,1073741824],'data_offsets':[0,8]}}", "do not fill"}, /* x 4 wraps to 0 */
    {"{'a':{'dtype':'F32','shape':[2,1,1,1,1,1,1,1,1],'data_offsets':[0,8]}}", "more than 8 dimensions"},
    {"{'a':{'dtype':'F32','shape':[2],'data_offsets':[8,0]}}", "ends before that"},
    {"{'a':{'dtype':'F32','shape':[2],'data_offsets':[4,12]}}", "ends at byte 12"},
    {"{'a':{'dtype':'F32','shape':[2],'data_offsets':[-8,0]}}", "'data_offsets' is -8"},
    {"{'a':{'dtype':'F32','shape':[2],'data_offsets':[0,8,8]}}", "two numbers"},
    {"{'a':{'dtype':'F32','shape':[1],'data_offsets':[0,8]}}", "do not fill"},
    {"{'a':{'dtype':'F32','shape':[2],'data_offsets':[0,8]},'b':{'dtype':'F32','shape':[1],'data_offsets':[4,8]}}",
     "overlaps"},
    {"{'a':{'dtype':'F32','shape':[2],'data_offsets':[0,8]},'b':{'dtype':'F32','shape':[2],'data_offsets':[0,8]}}",
     "overlaps"},
    {"{'a':{'dtype':'U8','shape':[2],'data_offsets':[0,2]},'b':{'dtype':'F32','shape':[1],'data_offsets':[4,8]}}",
     "unused bytes"},
    {"{'a':{'dtype':'F32','shape':[1],'data_offsets':[4,8]}}", "unused bytes"},
    {"{'a':{'dtype':'F32','shape':[1],'data_offsets':[0,4]}}", "4 bytes follow"},
};
enum { N_HEADERS = sizeof headers / sizeof *headers };

START_TEST(headers_are_checked)
{
    const char *path = io_path("header.safetensors");
    safetensors_raw(path, headers[_i].header, "12345678", 8);
    struct rt_error err = {0};
    struct safetensors *s;
    enum rt_status st = safetensors_open(path, &s, &err);
    if (headers[_i].words) {
        check_refused(st, &err, path, headers[_i].words);
        ck_assert_ptr_null(s);
    } else {
        check_ok(st, &err);
    }
    safetensors_close(&s);
}
END_TEST

START_TEST(lengths_are_checked)
{
    const char *path = io_path("length.safetensors");
    struct rt_error err = {0};
    struct safetensors *s;
    for (size_t n = 0; n < 8; n++) {
        io_write(path, "\x02\0\0\0\0\0\0\0", n);
        check_refused(safetensors_open(path, &s, &err), &err, path, "too few");
    }
    static const struct {
        uint64_t length;
        const char *words;
    } cases[] = {{0, "begin with {"},    {3, "only 10"},          {1u << 20, "only 10"},
                 {100000001, "at most"}, {1ull << 63, "at most"}, {UINT64_MAX, "at most"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct bytes b = {0};
        bytes_u64(&b, cases[i].length);
        bytes_add(&b, "{}", 2);
        io_write(path, b.data, b.size);
        check_refused(safetensors_open(path, &s, &err), &err, path, cases[i].words);
        bytes_free(&b);
    }
}
END_TEST

START_TEST(deep_json_is_refused)
{
    enum { DEPTH = 100000 };
    char *header = malloc(DEPTH + 8);
    strcpy(header, "{'a':");
    memset(header + 5, '[', DEPTH);
    header[5 + DEPTH] = '\0';
    const char *path = io_path("deep.safetensors");
    safetensors_raw(path, header, NULL, 0);
    struct rt_error err = {0};
    struct safetensors *s;
    check_refused(safetensors_open(path, &s, &err), &err, path, "nested");
    free(header);
}
END_TEST

START_TEST(data_may_be_unaligned)
{
    const char *path = io_path("odd.safetensors");
    safetensors_raw(path, "{'a':{'dtype':'F32','shape':[6],'data_offsets':[0,24]}} ", six, sizeof six);
    struct rt_error err = {0};
    struct safetensors *s;
    check_ok(safetensors_open(path, &s, &err), &err);
    float got[6];
    dtype_to_f32(DTYPE_F32, safetensors_find(s, "a")->data, 6, got);
    ck_assert_int_eq(memcmp(got, six, sizeof six), 0);
    safetensors_close(&s);
}
END_TEST

START_TEST(only_regular_files_are_opened)
{
    struct rt_error err = {0};
    struct safetensors *s;
    const char *fifo = io_path("fifo");
    ck_assert_int_eq(mkfifo(fifo, 0600), 0);
    check_refused(safetensors_open(io_folder(), &s, &err), &err, io_folder(), "folder");
    check_refused(safetensors_open(fifo, &s, &err), &err, fifo, "FIFO");
    check_refused(safetensors_open("/dev/zero", &s, &err), &err, "/dev/zero", "device");
    check_refused(safetensors_open("/nowhere/x", &s, &err), &err, "/nowhere/x", "cannot be opened");
}
END_TEST

/* ---- folders of shards ---- */

static const char one_tensor[] = "{'%s':{'dtype':'U8','shape':[3],'data_offsets':[0,3]}}";

static void make_shard(const char *folder, const char *file, const char *tensor)
{
    char header[200], path[600];
    snprintf(header, sizeof header, one_tensor, tensor);
    snprintf(path, sizeof path, "%s/%s", folder, file);
    safetensors_raw(path, header, three, 3);
}

static const struct {
    const char *index, *words;
} indices[] = {
    {"{'weight_map':{'a':'s1.safetensors','b':'s2.safetensors'},'metadata':{'total_size':1}}",
     NULL}, /* total_size is wrong */
    {"{'weight_map':{'a':'s1.safetensors','b':'s2.safetensors','c':'s9.safetensors'}}", "s9.safetensors"},
    {"{'weight_map':{'a':'s1.safetensors','x':'s2.safetensors'}}", "tensor x is not in"},
    {"{'weight_map':{'a':'s2.safetensors','b':'s1.safetensors'}}", "is not in"},
    {"{'weight_map':{'a':'s1.safetensors','b':'again.safetensors'}}", "also in"},
    {"{'weight_map':{'a':'../../etc/x.safetensors'}}", "same folder"},
    {"{'weight_map':{'a':'/etc/x.safetensors'}}", "same folder"},
    {"{'weight_map':{'a':'..'}}", "same folder"},
    {"{'weight_map':{'a':'.hidden.safetensors'}}", "same folder"},
    {"{'weight_map':{'a':'s1.bin'}}", "same folder"},
    {"{'weight_map':{'a':''}}", "same folder"},
    {"{'weight_map':{'a':1}}", "must name a file"},
    {"{'weight_map':{'a':'s1.safetensors','a':'s2.safetensors'}}", "twice"},
    {"{'weight_map':{}}", "names no tensor"},
    {"{}", "'weight_map' is missing"},
    {"[]", "'weight_map' is missing"},
    {"{", "ends too early"},
};
enum { N_INDICES = sizeof indices / sizeof *indices };

START_TEST(shards_are_checked)
{
    const char *folder = io_path("sharded"), *index = io_path("sharded/model.safetensors.index.json");
    mkdir(folder, 0700);
    make_shard(folder, "s1.safetensors", "a");
    make_shard(folder, "s2.safetensors", "b");
    make_shard(folder, "again.safetensors", "a");
    io_write_json(index, indices[_i].index);
    struct rt_error err = {0};
    struct safetensors *s;
    enum rt_status st = safetensors_open_folder(folder, &s, &err);
    if (indices[_i].words) {
        check_refused(st, &err, folder, indices[_i].words);
    } else {
        check_ok(st, &err);
        ck_assert_uint_eq(safetensors_count(s), 2);
        ck_assert_ptr_nonnull(strstr(safetensors_find(s, "b")->file, "s2.safetensors"));
    }
    safetensors_close(&s);
}
END_TEST

START_TEST(a_folder_without_weights_says_so)
{
    const char *folder = io_path("bare");
    mkdir(folder, 0700);
    struct rt_error err = {0};
    struct safetensors *s;
    check_refused(safetensors_open_folder(folder, &s, &err), &err, folder, "neither");
    io_write_text(io_path("bare/pytorch_model.bin"), "x");
    check_refused(safetensors_open_folder(folder, &s, &err), &err, folder, "pytorch_model.bin");
}
END_TEST

START_TEST(an_atomic_write_replaces_or_leaves)
{
    const char *path = io_path("atomic");
    struct rt_error err = {0};
    struct file_writer *w;
    check_ok(file_write_atomic(path, "old", 3, &err), &err);
    check_ok(file_writer_open(path, &w, &err), &err);
    check_ok(file_writer_write(w, "new!", 4, &err), &err);
    size_t n;
    char *text = slurp(path, &n);
    ck_assert_str_eq(text, "old");
    free(text);
    check_ok(file_writer_commit(&w, &err), &err);
    ck_assert_ptr_null(w);
    text = slurp(path, &n);
    ck_assert_str_eq(text, "new!");
    free(text);
    check_ok(file_make_folders(io_path("p/q/r/"), &err), &err);
    check_ok(file_make_folders(io_path("p/q"), &err), &err);
    ck_assert(file_is_folder(io_path("p/q/r")));
    ck_assert_int_eq(file_make_folders(io_path("atomic/x"), &err), RT_FAILED);
    ck_assert_ptr_nonnull(strstr(err.text, "is a file"));
    char *big = NULL;
    check_refused(file_read(path, 3, &big, &n, &err), &err, path, "at most 3");
    ck_assert_ptr_null(big);
}
END_TEST

int main(void)
{
    io_folder();
    Suite *suite = suite_create("safetensors");
    TCase *tc = tcase_create("files");
    tcase_set_timeout(tc, 60);
    tcase_add_test(tc, what_is_written_is_read);
    tcase_add_test(tc, the_same_set_gives_the_same_bytes);
    tcase_add_test(tc, the_writer_refuses);
    tcase_add_loop_test(tc, headers_are_checked, 0, N_HEADERS);
    tcase_add_test(tc, lengths_are_checked);
    tcase_add_test(tc, deep_json_is_refused);
    tcase_add_test(tc, data_may_be_unaligned);
    tcase_add_test(tc, only_regular_files_are_opened);
    tcase_add_loop_test(tc, shards_are_checked, 0, N_INDICES);
    tcase_add_test(tc, a_folder_without_weights_says_so);
    tcase_add_test(tc, an_atomic_write_replaces_or_leaves);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
