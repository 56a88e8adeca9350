/* tests/test_matmul_windows.c - products and the embedding where one launch is not enough: weights of every type beyond the binding range,
 * in chunks; x, y and the residual in windows of rows; and sums over the rows of W that are cut for processors' caches.
 *
 * The host, which binds everything and cuts nothing, is what is compared with; its variants agree with the double reference
 * (test_matmul, test_rows). Both sum in f32, in different orders: sums of n products of about one differ by eps n at most, about. */
#include "mosld/ops/matmul_common.h"
#include "mosld/ops/rows.h"
#include "tests/support/op_test.h"
#include "tests/support/vk_test.h"

#include <check.h>
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct shape {
    uint32_t rows, out, in; /* tokens, and W [out, in] */
};

struct results {
    float *y, *dx, *embedded; /* [rows, out], [rows, in], [rows, in] */
};

static float *floats(uint64_t n, uint64_t seed)
{
    float *v = malloc(n * sizeof *v);
    ck_assert_ptr_nonnull(v);
    for (uint64_t i = 0; i < n; i++)
        v[i] = test_uniform(&seed, -1, 1);
    return v;
}

/* The same weight on any device, in as many chunks as it needs there. */
static struct rt_arena *make_weight(struct rt_device *dev, enum op_wtype type, const struct shape *s, struct op_weight *w)
{
    struct rt_error err = {0};
    struct rt_arena *arena;
    unsigned char *raw = test_weight(type, s->out, s->in, 5);
    ck_assert_int_eq(rt_arena_create(dev, "weight", &arena, &err), RT_OK);
    ck_assert_msg(op_weight_plan(dev, arena, type, s->out, s->in, "w", w, &err) == RT_OK, "%s", err.text);
    ck_assert_msg(rt_arena_commit(arena, &err) == RT_OK, "%s", err.text);
    for (uint32_t i = 0; i < w->n_chunks; i++) {
        const struct op_weight_chunk *c = op_weight_chunk(w, i);
        uint64_t bytes = op_weight_bytes(type, c->rows, s->in);
        void *packed = calloc(1, bytes + 4);
        op_weight_pack(type, c->rows, s->in, raw + test_weight_bytes(type, (uint64_t)c->row0 * s->in), packed);
        ck_assert_msg(rt_upload(dev, c->span, 0, packed, bytes, &err) == RT_OK, "%s", err.text);
        free(packed);
    }
    free(raw);
    return arena;
}

static float *fetch(struct rt_device *dev, struct rt_span span, uint64_t n)
{
    struct rt_error err = {0};
    float *v = malloc(n * sizeof *v);
    ck_assert_msg(rt_download(dev, span, 0, v, n * sizeof *v, &err) == RT_OK, "%s", err.text);
    return v;
}

static struct results run(struct rt_device *dev, enum op_wtype type, const struct shape *s, uint32_t *chunks)
{
    struct rt_error err = {0};
    uint64_t n_out = (uint64_t)s->rows * s->out, n_in = (uint64_t)s->rows * s->in;
    float *x = floats(n_in, 1), *dy = floats(n_out, 2), *residual = floats(n_in, 3);
    uint32_t *tokens = malloc(s->rows * sizeof *tokens);
    for (uint32_t t = 0; t < s->rows; t++)
        tokens[t] = (uint32_t)((uint64_t)t * 2654435761u % s->out);
    struct op_weight w;
    struct rt_arena *arena = make_weight(dev, type, s, &w);
    *chunks = w.n_chunks;
    struct rt_span xs = test_span(dev, n_in * 4, x), dys = test_span(dev, n_out * 4, dy), ys = test_span(dev, n_out * 4, NULL),
                   dxs = test_span(dev, n_in * 4, NULL), es = test_span(dev, n_in * 4, NULL);
    struct op_matmul nt = {.x = xs, .x_stride = s->in, .w = &w, .y = ys, .y_stride = s->out, .rows = s->rows};
    struct op_matmul nn = {.x = dys, .x_stride = s->out, .w = &w, .y = dxs, .y_stride = s->in, .rows = s->rows, .scale = 0.5f,
                           .add = OP_ADD_RESIDUAL, .other = test_span(dev, n_in * 4, residual)};
    ck_assert_msg(op_matmul_nt(dev, &nt, &err) == RT_OK, "%s", err.text);
    ck_assert_msg(op_matmul_nn(dev, &nn, &err) == RT_OK, "%s", err.text);
    ck_assert_msg(op_embedding(dev, test_span(dev, s->rows * 4, tokens), &w, es, s->rows, &err) == RT_OK, "%s", err.text);
    struct results r = {fetch(dev, ys, n_out), fetch(dev, dxs, n_in), fetch(dev, es, n_in)};
    test_check_validation(dev);
    test_release(dev);
    rt_arena_destroy(&arena);
    op_weight_finish(&w);
    free(x), free(dy), free(residual), free(tokens);
    return r;
}

static void check_near(const char *name, const char *type, float *a, float *b, uint64_t n, double tolerance)
{
    for (uint64_t i = 0; i < n; i++)
        ck_assert_msg(fabs((double)a[i] - b[i]) <= tolerance, "%s of %s at %llu: %g on the host, %g on the device", name, type,
                      (unsigned long long)i, a[i], b[i]);
    free(a), free(b);
}

static void compare(struct rt_device *dev, enum op_wtype type, const struct shape *s, uint32_t at_least)
{
    uint32_t host_chunks, chunks;
    struct results a = run(test_host(), type, s, &host_chunks), b = run(dev, type, s, &chunks);
    ck_assert_msg(chunks >= at_least, "%u chunks of %s", chunks, op_wtype_name(type));
    const char *name = op_wtype_name(type);
    check_near("y", name, a.y, b.y, (uint64_t)s->rows * s->out, 2 * FLT_EPSILON * s->in + 8 * FLT_EPSILON);
    check_near("dx", name, a.dx, b.dx, (uint64_t)s->rows * s->in, 2 * FLT_EPSILON * s->out + 8 * FLT_EPSILON);
    check_near("a row", name, a.embedded, b.embedded, (uint64_t)s->rows * s->in, 4 * FLT_EPSILON);
}

/* A device that binds 24 KiB at most: W of every type in chunks, and windows of 64 rows of x and y. */
START_TEST(weights_beyond_a_binding)
{
    char name[32], caps[512], before[512];
    struct rt_device *dev;
    struct rt_error err = {0};
    if (!vk_test_name(name, sizeof name))
        return;
    snprintf(before, sizeof before, "%s", getenv("MOSLD_CAPS") ? getenv("MOSLD_CAPS") : "");
    snprintf(caps, sizeof caps, "%s%srange=24576", before, *before ? "," : "");
    setenv("MOSLD_CAPS", caps, 1);
    ck_assert_msg(rt_device_open(&(struct rt_device_params){.name = name, .validate = true}, &dev, &err) == RT_OK, "%s", err.text);
    setenv("MOSLD_CAPS", before, 1);
    /* Of 256 columns, 24 KiB hold 24 rows of f32 and 168 of q4_0: 95 rows and 400. */
    compare(dev, (enum op_wtype)_i, &(struct shape){_i == 0 ? 70 : 9, _i < OP_W_Q8_0 ? 95 : 400, _i == 0 ? 80 : 256}, 2);
    rt_device_close(&dev);
}
END_TEST

/* More rows than a launch sums on a processor (matmul_nn_cut): three launches or more, of which the last is short. */
START_TEST(long_sums)
{
    struct rt_device *dev = test_vulkan();
    static const enum op_wtype types[] = {OP_W_F32, OP_W_F16, OP_W_Q8_0, OP_W_Q4_1, OP_W_Q3_K, OP_W_Q4_K};
    if (!dev)
        return;
    struct shape s = {17, 0, types[_i] == OP_W_F16 ? 37 : types[_i] < OP_W_Q2_K ? 64 : 256};
    uint32_t cut = matmul_nn_cut(dev, &(struct op_weight){.type = types[_i], .cols = s.in}, s.rows);
    if (rt_device_info(dev)->class_ == RT_CLASS_CPU)
        ck_assert_msg(cut >= 64 && cut % 64 == 0 && cut < 3 * MATMUL_TURNS, "%u rows a launch", cut);
    s.out = cut == UINT32_MAX ? 5000 : 2 * cut + 77;
    compare(dev, types[_i], &s, 1);
    ck_assert_uint_eq(matmul_nn_cut(test_host(), &(struct op_weight){.type = types[_i], .cols = s.in}, s.rows), UINT32_MAX); /* the host reads whole chunks */
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("matmul_windows");
    TCase *tc = tcase_create("windows");
    tcase_set_timeout(tc, 600);
    tcase_add_loop_test(tc, weights_beyond_a_binding, 0, OP_W_TYPES);
    tcase_add_loop_test(tc, long_sums, 0, 6);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
