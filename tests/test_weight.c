/* tests/test_weight.c - the layout of frozen weights: sizes, chunks, and that packing and unpacking give the file's
 * values. */
#include "mosld/io/dtype.h"
#include "mosld/ops/host_math.h"
#include "mosld/ops/weight_layout.h"
#include "tests/support/op_test.h"

#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* A half by its definition, in double. */
static double half_value(uint16_t h)
{
    int exponent = h >> 10 & 31;
    double fraction = h & 1023, sign = h & 0x8000 ? -1 : 1;
    if (exponent == 31)
        return fraction ? NAN : sign * INFINITY;
    return sign * (exponent ? ldexp(1024 + fraction, exponent - 25) : ldexp(fraction, -24));
}

START_TEST(halves_are_exact)
{
    for (uint32_t h = 0; h < 65536; h++) {
        double want = half_value((uint16_t)h);
        float one = host_half((uint16_t)h);
        ck_assert_msg(isnan(want) ? isnan(one) : one == want, "half %04x: want %g, got %g", h, want, one);
    }
    /* The same through the vectors that unpacking uses; an odd number of columns, so that the rest is seen too. */
    uint16_t *raw = malloc(65533 * 2);
    float *out = malloc(65533 * 4);
    void *packed = malloc(op_weight_bytes(OP_W_F16, 1, 65533));
    for (uint32_t h = 0; h < 65533; h++)
        raw[h] = (uint16_t)h;
    op_weight_pack(OP_W_F16, 1, 65533, raw, packed);
    op_weight_unpack(OP_W_F16, 1, 65533, packed, 0, 1, out);
    for (uint32_t h = 0; h < 65533; h++) {
        double want = half_value((uint16_t)h);
        ck_assert_msg(isnan(want) ? isnan(out[h]) : out[h] == want, "half %04x: want %g, got %g", h, want, out[h]);
    }
    free(packed);
    free(out);
    free(raw);
}
END_TEST

static const enum dtype file_types[OP_W_TYPES] = {
    DTYPE_F32,  DTYPE_F16,    DTYPE_BF16, DTYPE_Q8_0, DTYPE_Q4_0, DTYPE_Q4_1, DTYPE_Q5_0,
    DTYPE_Q5_1, DTYPE_IQ4_NL, DTYPE_Q2_K, DTYPE_Q3_K, DTYPE_Q4_K, DTYPE_Q5_K, DTYPE_Q6_K,
};

static const struct {
    uint32_t rows, cols;
} shapes[] = {{1, 1}, {3, 5}, {2, 31}, {1, 32}, {3, 32}, {5, 96}, {7, 33}, {4, 576}, {1, 256}, {3, 512}};

/* The truth is the file reader's own dequantisation, which is held to the bits of the gguf package (test_dtype.c) and shares no code with packing. */
START_TEST(values_are_the_files)
{
    enum op_wtype type = _i % OP_W_TYPES;
    uint32_t rows = shapes[_i / OP_W_TYPES].rows, cols = shapes[_i / OP_W_TYPES].cols;
    ck_assert_uint_eq(op_wtype_block(type), dtype_info(file_types[type])->block);
    if (cols % op_wtype_block(type)) {
        ck_assert_uint_eq(op_weight_bytes(type, rows, cols), 0);
        return;
    }
    uint64_t raw_size, n = (uint64_t)rows * cols, state = (uint64_t)_i + 1;
    ck_assert(dtype_bytes(file_types[type], n, &raw_size));
    unsigned char *raw = malloc(raw_size);
    for (size_t i = 0; i < raw_size; i++)
        raw[i] = (unsigned char)test_random(&state);
    uint64_t bad; /* finite scales of any size, some of them subnormal: bytes are drawn again until all are */
    uint32_t block_bytes = dtype_info(file_types[type])->bytes;
    while ((bad = dtype_first_nonfinite(file_types[type], raw, n)) < n)
        for (size_t i = 0; i < block_bytes; i++)
            raw[bad / op_wtype_block(type) * block_bytes + i] = (unsigned char)test_random(&state);
    float *want_values = malloc(n * sizeof *want_values);
    dtype_to_f32(file_types[type], raw, n, want_values);
    uint64_t size = op_weight_bytes(type, rows, cols);
    void *packed = malloc(size);
    float *out = malloc((n + 1) * sizeof *out);
    op_weight_pack(type, rows, cols, raw, packed);
    for (uint32_t r = 0; r < rows; r++) {
        out[cols] = 77;
        op_weight_unpack(type, rows, cols, packed, r, 1, out);
        ck_assert_msg(rows == 1 || out[cols] == 77, "%s [%u, %u]: written past the row", op_wtype_name(type), rows,
                      cols);
        for (uint32_t c = 0; c < cols; c++) {
            float want = want_values[(size_t)r * cols + c];
            ck_assert_msg(memcmp(&want, &out[c], 4) == 0, "%s [%u, %u] at %u, %u: want %.9g, got %.9g",
                          op_wtype_name(type), rows, cols, r, c, want, out[c]);
        }
    }
    free(want_values);
    free(out);
    free(packed);
    free(raw);
}
END_TEST

START_TEST(sizes)
{
    ck_assert_uint_eq(op_weight_bytes(OP_W_F32, 3, 5), 60);
    ck_assert_uint_eq(op_weight_bytes(OP_W_F16, 3, 5), 36);
    ck_assert_uint_eq(op_weight_bytes(OP_W_Q8_0, 3, 32), 3 * 32 + 8);
    ck_assert_uint_eq(op_weight_bytes(OP_W_Q4_0, 2, 64), 2 * 32 + 8);
    ck_assert_uint_eq(op_weight_bytes(OP_W_Q4_1, 2, 64), 2 * 32 + 16);
    ck_assert_uint_eq(op_weight_bytes(OP_W_Q5_1, 2, 64), 2 * 40 + 16);
    ck_assert_uint_eq(op_weight_bytes(OP_W_Q2_K, 3, 256), 3 * 84);
    ck_assert_uint_eq(op_weight_bytes(OP_W_Q3_K, 3, 256), 3 * 116);
    ck_assert_uint_eq(op_weight_bytes(OP_W_Q4_K, 3, 512), 6 * 148);
    ck_assert_uint_eq(op_weight_bytes(OP_W_Q5_K, 3, 256), 3 * 180);
    ck_assert_uint_eq(op_weight_bytes(OP_W_Q6_K, 3, 256), 3 * 212);
    ck_assert_uint_eq(op_weight_bytes(OP_W_Q6_K, 3, 32), 0);
    ck_assert_uint_eq(op_weight_bytes(OP_W_F32, UINT64_MAX / 4, 3), 0);
    ck_assert_uint_eq(op_weight_bytes(OP_W_F32, UINT64_MAX / 8, 4), 0);
    ck_assert_uint_eq(op_weight_bytes(OP_W_Q4_1, UINT64_MAX / 2, 1024), 0);
    ck_assert_uint_eq(op_weight_bytes(OP_W_TYPES, 1, 32), 0);
    ck_assert_uint_eq(op_weight_bytes(OP_W_F32, 0, 32), 0);
}
END_TEST

/* Chunks cover the rows in order, none exceeds a binding, and bad shapes are refused with a sentence. */
START_TEST(plans)
{
    struct rt_device *dev = test_vulkan() ? test_vulkan() : test_host();
    struct rt_arena *arena;
    struct rt_error err = {0};
    ck_assert_int_eq(rt_arena_create(dev, "weights", &arena, &err), RT_OK);
    struct op_weight w, large;
    uint64_t limit = rt_device_info(dev)->limits.max_range;
    uint32_t cols = 4096, rows = limit < 1u << 28 ? (uint32_t)(limit / cols) : 1000; /* four bindings' worth of f32 */
    ck_assert_msg(op_weight_plan(dev, arena, OP_W_F32, rows, cols, "large", &large, &err) == RT_OK, "%s", err.text);
    uint32_t next = 0;
    for (uint32_t i = 0; i < large.n_chunks; i++) {
        const struct op_weight_chunk *c = op_weight_chunk(&large, i);
        ck_assert_uint_eq(c->row0, next);
        ck_assert_uint_gt(c->rows, 0);
        ck_assert(op_weight_bytes(OP_W_F32, c->rows, cols) <= limit);
        next += c->rows;
    }
    ck_assert_uint_eq(next, rows);
    ck_assert(limit >= 1u << 28 || large.n_chunks > 1);
    op_weight_finish(&large);
    op_weight_finish(&large);
    ck_assert_int_eq(op_weight_plan(dev, arena, OP_W_Q4_0, 4, 33, "odd", &w, &err), RT_BAD_FILE);
    ck_assert_ptr_nonnull(strstr(err.text, "odd"));
    ck_assert_int_eq(op_weight_plan(dev, arena, OP_W_F32, 0, 33, "none", &w, &err), RT_BAD_FILE);
    op_weight_finish(&w);
    rt_arena_destroy(&arena);
}
END_TEST

/* A chunk filled from smaller ones has the bytes of one packed at once. */
START_TEST(a_chunk_is_filled_in_parts)
{
    enum op_wtype type = _i;
    enum { ROWS = 11, COLS = 512 };
    uint64_t row_bytes, bytes = op_weight_bytes(type, ROWS, COLS), state = 7;
    ck_assert(dtype_bytes(file_types[type], COLS, &row_bytes));
    unsigned char *raw = malloc(ROWS * row_bytes), *whole = malloc(bytes), *parts = malloc(bytes), *small = malloc(bytes);
    for (uint64_t i = 0; i < ROWS * row_bytes; i++)
        raw[i] = (unsigned char)test_random(&state);
    op_weight_pack(type, ROWS, COLS, raw, whole);
    for (uint32_t each = 2; each <= 12; each += 2) {
        memset(parts, 0x5a, bytes);
        for (uint32_t row0 = 0; row0 < ROWS; row0 += each) {
            uint32_t n = ROWS - row0 < each ? ROWS - row0 : each;
            struct op_weight_part at = op_weight_part(type, ROWS, COLS, row0, n), from = op_weight_part(type, n, COLS, 0, n);
            ck_assert_uint_eq(at.scales % 4, 0);
            ck_assert(at.quant_bytes == from.quant_bytes && at.scale_bytes == from.scale_bytes && at.scales + at.scale_bytes <= bytes);
            op_weight_pack(type, n, COLS, raw + row0 * row_bytes, small);
            memcpy(parts + at.quants, small + from.quants, at.quant_bytes);
            memcpy(parts + at.scales, small + from.scales, at.scale_bytes);
        }
        ck_assert_msg(memcmp(parts, whole, bytes) == 0, "%s in parts of %u rows", op_wtype_name(type), each);
    }
    free(raw), free(whole), free(parts), free(small);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("weight");
    TCase *tc = tcase_create("weight");
    tcase_set_timeout(tc, 300);
    tcase_add_test(tc, halves_are_exact);
    tcase_add_loop_test(tc, a_chunk_is_filled_in_parts, 0, OP_W_TYPES);
    tcase_add_test(tc, sizes);
    tcase_add_loop_test(tc, values_are_the_files, 0, (int)OP_COUNT(shapes) * OP_W_TYPES);
    tcase_add_test(tc, plans);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
