/* Sizes and conversions of element types: against the gguf package's vectors, and against arithmetic that is not
 * theirs. */
#include "mosld/io/dtype.h"
#include "mosld/io/safetensors.h"
#include "tests/support/io_files.h"

#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const enum dtype vector_types[] = {DTYPE_F16,  DTYPE_BF16, DTYPE_Q8_0, DTYPE_Q4_0, DTYPE_Q4_1, DTYPE_Q5_0, DTYPE_Q5_1,
                                          DTYPE_Q2_K, DTYPE_Q3_K, DTYPE_Q4_K, DTYPE_Q5_K, DTYPE_Q6_K, DTYPE_IQ4_NL};
enum { VECTOR_TYPES = sizeof vector_types / sizeof *vector_types };

START_TEST(rows_have_the_bits_of_the_gguf_package)
{
    enum dtype type = vector_types[_i];
    char name[32];
    struct rt_error err = {0};
    struct safetensors *s;
    check_ok(safetensors_open(MOSLD_SOURCE_DIR "/tests/vectors/dtype.safetensors", &s, &err), &err);
    snprintf(name, sizeof name, "%s.raw", dtype_name(type));
    const struct safetensor *raw = safetensors_find(s, name);
    snprintf(name, sizeof name, "%s.f32", dtype_name(type));
    const struct safetensor *want = safetensors_find(s, name);
    ck_assert(raw && want && want->dtype == DTYPE_F32 && want->elements >= 512);
    uint64_t bytes;
    ck_assert(dtype_bytes(type, want->elements, &bytes));
    ck_assert_uint_eq(bytes, raw->bytes);
    float *got = malloc(want->bytes);
    dtype_to_f32(type, raw->data, want->elements, got);
    ck_assert_int_eq(memcmp(got, want->data, want->bytes), 0);
    ck_assert_uint_eq(dtype_first_nonfinite(type, raw->data, want->elements), want->elements);
    free(got);
    safetensors_close(&s);
}
END_TEST

/* The definition of the format. */
static double half_value(uint16_t h)
{
    int exponent = h >> 10 & 31, mantissa = h & 1023;
    double magnitude = exponent ? ldexp(1024 + mantissa, exponent - 25) : ldexp(mantissa, -24);
    return h & 0x8000 ? -magnitude : magnitude;
}

START_TEST(halves_both_ways)
{
    for (uint32_t h = 0; h < 0x10000; h++) {
        float value = dtype_f16_to_f32((uint16_t)h);
        if ((h & 0x7c00) == 0x7c00) {
            ck_assert((h & 0x3ff) ? isnan(value) : isinf(value));
            uint16_t back = dtype_f32_to_f16(value);
            ck_assert((h & 0x3ff) ? (back & 0x7c00) == 0x7c00 && (back & 0x3ff) : back == h);
            continue;
        }
        ck_assert(value == half_value((uint16_t)h) && (signbit(value) != 0) == (h >> 15 != 0));
        ck_assert_uint_eq(dtype_f32_to_f16(value), h);
    }
}
END_TEST

START_TEST(halves_round_to_nearest_even)
{
    for (uint16_t h = 0; h < 0x7bff; h++) { /* between h and the next, up to 65504 */
        double a = half_value(h), b = half_value(h + 1);
        float middle = (float)((a + b) / 2); /* exact: one bit more than a half has */
        ck_assert_uint_eq(dtype_f32_to_f16(middle), h & 1 ? h + 1u : h);
        ck_assert_uint_eq(dtype_f32_to_f16(nextafterf(middle, 0)), h);
        ck_assert_uint_eq(dtype_f32_to_f16(nextafterf(middle, INFINITY)), h + 1u);
        ck_assert_uint_eq(dtype_f32_to_f16(-middle), 0x8000u | (h & 1 ? h + 1u : h));
    }
    ck_assert_uint_eq(dtype_f32_to_f16(65519.996f), 0x7bff);
    ck_assert_uint_eq(dtype_f32_to_f16(65520), 0x7c00);
    ck_assert_uint_eq(dtype_f32_to_f16(-1e30f), 0xfc00);
    ck_assert_uint_eq(dtype_f32_to_f16(0x1p-149f), 0);
}
END_TEST

START_TEST(bf16_both_ways)
{
    for (uint32_t b = 0; b < 0x10000; b++) {
        float value = dtype_bf16_to_f32((uint16_t)b);
        if (isnan(value))
            ck_assert(isnan(dtype_bf16_to_f32(dtype_f32_to_bf16(value))));
        else
            ck_assert_uint_eq(dtype_f32_to_bf16(value), b);
    }
    ck_assert_uint_eq(dtype_f32_to_bf16(1 + 0x1p-8f), 0x3f80);         /* a tie: to even */
    ck_assert_uint_eq(dtype_f32_to_bf16(1 + 0x1p-7f + 0x1p-8f), 0x3f82);
    ck_assert_uint_eq(dtype_f32_to_bf16(1 + 0x1p-8f + 0x1p-20f), 0x3f81);
    ck_assert_uint_eq(dtype_f32_to_bf16(3.4e38f), 0x7f80);
}
END_TEST

START_TEST(sizes_do_not_wrap)
{
    uint64_t bytes;
    ck_assert(dtype_bytes(DTYPE_F32, UINT64_MAX / 4, &bytes) && bytes == UINT64_MAX - 3);
    ck_assert(!dtype_bytes(DTYPE_F32, UINT64_MAX / 4 + 1, &bytes));
    ck_assert(dtype_bytes(DTYPE_Q4_1, 64, &bytes) && bytes == 40);
    ck_assert(!dtype_bytes(DTYPE_Q4_1, 63, &bytes));
    ck_assert(!dtype_bytes(DTYPE_Q8_0, UINT64_MAX - 31, &bytes));
    ck_assert(dtype_bytes(DTYPE_Q4_K, 512, &bytes) && bytes == 288);
    ck_assert(dtype_bytes(DTYPE_U8, 0, &bytes) && bytes == 0);
}
END_TEST

START_TEST(names_and_ids_are_one_to_one)
{
    for (int i = 0; i < DTYPES; i++) {
        const struct dtype_info *info = dtype_info((enum dtype)i);
        ck_assert(info->name && info->block > 0 && info->bytes > 0);
        if (info->in_safetensors)
            ck_assert_int_eq(dtype_from_safetensors(info->name), i);
        if (info->gguf_id >= 0)
            ck_assert_int_eq(dtype_from_gguf((uint32_t)info->gguf_id), i);
    }
    ck_assert_int_eq(dtype_from_safetensors("Q8_0"), DTYPES);
    ck_assert_int_eq(dtype_from_gguf(UINT32_MAX), DTYPES);
    ck_assert_int_eq(dtype_from_gguf(5), DTYPES); /* taken out of GGUF */
    ck_assert_str_eq(dtype_name(DTYPES), "unknown");
}
END_TEST

/* 512 elements that are finite but for one, `bad` (in a quantised row: in block 1's scale). */
START_TEST(what_is_not_finite_is_found)
{
    static const struct {
        enum dtype type;
        size_t at;
        uint16_t bits;
        uint64_t index;
    } cases[] = {
        {DTYPE_F32, 4 * 17 + 2, 0x7fc0, 17}, {DTYPE_F32, 2, 0xff80, 0},         {DTYPE_F16, 2 * 63, 0x7c00, 63},
        {DTYPE_BF16, 2 * 5, 0x7f80, 5},      {DTYPE_F64, 8 * 9 + 6, 0xfff0, 9}, {DTYPE_Q8_0, 34, 0x7e00, 32},
        {DTYPE_Q4_0, 18, 0xfc00, 32},        {DTYPE_Q4_1, 20, 0x7c00, 32},      {DTYPE_Q4_1, 22, 0x7c00, 32},
        {DTYPE_Q4_1, 2, 0x7fff, 0},          {DTYPE_Q5_0, 22, 0x7c00, 32},
        {DTYPE_Q5_1, 26, 0x7c00, 32},        {DTYPE_IQ4_NL, 18, 0xfc00, 32},         {DTYPE_Q2_K, 80, 0x7c00, 0},
        {DTYPE_Q2_K, 84 + 82, 0x7c00, 256},  {DTYPE_Q3_K, 110 + 108, 0x7c00, 256},   {DTYPE_Q4_K, 146, 0x7e00, 256},
        {DTYPE_Q5_K, 176, 0x7c00, 256},      {DTYPE_Q6_K, 208, 0x7c00, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uint64_t bytes;
        ck_assert(dtype_bytes(cases[i].type, 512, &bytes));
        uint8_t *row = calloc(1, bytes);
        ck_assert_uint_eq(dtype_first_nonfinite(cases[i].type, row, 512), 512);
        memcpy(row + cases[i].at, &cases[i].bits, 2);
        ck_assert_uint_eq(dtype_first_nonfinite(cases[i].type, row, 512), cases[i].index);
        ck_assert_uint_eq(dtype_first_nonfinite(cases[i].type, row, 0), 0);
        free(row);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("dtype");
    TCase *tc = tcase_create("types");
    tcase_set_timeout(tc, 60);
    tcase_add_loop_test(tc, rows_have_the_bits_of_the_gguf_package, 0, VECTOR_TYPES);
    tcase_add_test(tc, halves_both_ways);
    tcase_add_test(tc, halves_round_to_nearest_even);
    tcase_add_test(tc, bf16_both_ways);
    tcase_add_test(tc, sizes_do_not_wrap);
    tcase_add_test(tc, names_and_ids_are_one_to_one);
    tcase_add_test(tc, what_is_not_finite_is_found);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
