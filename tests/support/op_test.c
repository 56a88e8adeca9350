/* tests/support/op_test.c - see op_test.h. */
#include "tests/support/op_test.h"

#include "tests/support/vk_test.h"

#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- devices: opened in the process that uses them, since a driver's threads do not survive a fork ---- */

static struct rt_device *host_device, *vulkan_device;

struct rt_device *test_host(void)
{
    struct rt_error err = {0};
    struct rt_device_params params = {.name = "host"};
    if (!host_device)
        ck_assert_msg(rt_device_open(&params, &host_device, &err) == RT_OK, "%s", err.text);
    return host_device;
}

struct rt_device *test_vulkan(void)
{
    static bool looked;
    char name[32];
    if (!looked) {
        looked = true;
        if (vk_test_name(name, sizeof name)) {
            struct rt_error err = {0};
            struct rt_device_params params = {.name = name, .validate = true};
            ck_assert_msg(rt_device_open(&params, &vulkan_device, &err) == RT_OK, "%s", err.text);
        }
    }
    return vulkan_device;
}

/* The same device where inputs of products may be rounded, for the variants that do. */
static struct rt_device *rounding_device(void)
{
    static bool looked;
    static struct rt_device *device;
    char name[32];
    if (!looked && vk_test_name(name, sizeof name)) {
        struct rt_error err = {0};
        struct rt_device_params params = {.name = name, .validate = true, .precision = RT_PRECISION_MEDIUM};
        ck_assert_msg(rt_device_open(&params, &device, &err) == RT_OK, "%s", err.text);
    }
    looked = true;
    return device;
}

void test_check_validation(struct rt_device *dev)
{
    const char *last;
    unsigned n = rt_validation_messages(dev, &last);
    ck_assert_msg(n == 0, "%u validation messages, the last: %s", n, last);
}

/* ---- memory ---- */

#define MAX_SPANS 256
static struct {
    struct rt_device *dev;
    struct rt_arena *arena;
    struct rt_span span;
} spans[MAX_SPANS];

struct rt_span test_span(struct rt_device *dev, uint64_t bytes, const void *data)
{
    struct rt_error err = {0};
    size_t i = 0;
    while (i < MAX_SPANS && spans[i].arena)
        i++;
    ck_assert_msg(i < MAX_SPANS, "too many test spans");
    spans[i].dev = dev;
    ck_assert_msg(rt_arena_create(dev, "test", &spans[i].arena, &err) == RT_OK, "%s", err.text);
    ck_assert_msg(rt_arena_add(spans[i].arena, bytes ? (bytes + 3) & ~3ull : 4, "test", &spans[i].span, &err) == RT_OK, "%s", err.text);
    ck_assert_msg(rt_arena_commit(spans[i].arena, &err) == RT_OK, "%s", err.text);
    if (data && bytes)
        ck_assert_msg(rt_upload(dev, spans[i].span, 0, data, bytes, &err) == RT_OK, "%s", err.text);
    return spans[i].span;
}

void test_release(struct rt_device *dev)
{
    for (size_t i = 0; i < MAX_SPANS; i++)
        if (spans[i].arena && spans[i].dev == dev)
            rt_arena_destroy(&spans[i].arena);
}

uint64_t test_random(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

float test_uniform(uint64_t *state, float lo, float hi)
{
    return lo + (hi - lo) * (float)((double)(test_random(state) >> 40) / (1 << 24));
}

/* ---- a case ---- */

struct content {
    void *device; /* bytes to upload */
    uint64_t bytes;
    void *ref;    /* what the reference reads and writes */
};

/* A half that is finite and neither tiny nor huge: sign, exponent of 2^-7 .. 2^0, any mantissa. */
static uint16_t random_half(uint64_t *state)
{
    uint64_t r = test_random(state);
    return (uint16_t)((r & 0x83ff) | ((8 + (r >> 20) % 8) << 10));
}

/* The blocks of GGUF's types: bytes, where their f16 scales stand, and between which powers of two (as exponents of a half) these are drawn, so
 * that values are of about one at most. */
static const struct {
    unsigned bytes, d, d_low, d_high, m, m_low, m_high;
} blocks_of[OP_W_TYPES] = {
    [OP_W_Q8_0] = {34, 0, 2, 9, 0, 0, 0},      [OP_W_Q4_0] = {18, 0, 5, 12, 0, 0, 0},    [OP_W_Q4_1] = {20, 0, 5, 12, 2, 8, 15},
    [OP_W_Q5_0] = {22, 0, 4, 11, 0, 0, 0},     [OP_W_Q5_1] = {24, 0, 4, 11, 2, 8, 15},   [OP_W_IQ4_NL] = {18, 0, 2, 9, 0, 0, 0},
    [OP_W_Q2_K] = {84, 80, 5, 11, 82, 5, 11},  [OP_W_Q3_K] = {110, 108, 4, 9, 0, 0, 0},  [OP_W_Q4_K] = {144, 0, 2, 6, 2, 4, 9},
    [OP_W_Q5_K] = {176, 0, 1, 5, 2, 4, 9},     [OP_W_Q6_K] = {210, 208, 1, 4, 0, 0, 0},
};

static void put_half(uint64_t *state, unsigned char *to, unsigned low, unsigned high)
{
    uint64_t r = test_random(state);
    uint16_t half = (uint16_t)((r & 0x83ff) | (low + (r >> 20) % (high - low + 1)) << 10);
    memcpy(to, &half, 2);
}

static void random_blocks(enum op_wtype type, uint64_t n, uint64_t *state, unsigned char *raw)
{
    for (uint64_t i = 0; i < n / op_wtype_block(type); i++, raw += blocks_of[type].bytes) {
        for (size_t j = 0; j < blocks_of[type].bytes; j++)
            raw[j] = (unsigned char)test_random(state);
        put_half(state, raw + blocks_of[type].d, blocks_of[type].d_low, blocks_of[type].d_high);
        if (blocks_of[type].m)
            put_half(state, raw + blocks_of[type].m, blocks_of[type].m_low, blocks_of[type].m_high);
    }
}

/* Random raw blocks of a file's type, as GGUF lays them out. */
static void random_rows(enum op_wtype type, uint64_t rows, uint64_t cols, uint64_t *state, unsigned char *raw)
{
    uint64_t n = rows * cols;
    for (uint64_t i = 0; type == OP_W_F32 && i < n; i++)
        ((float *)raw)[i] = test_uniform(state, -1, 1);
    for (uint64_t i = 0; type == OP_W_F16 && i < n; i++)
        ((uint16_t *)raw)[i] = random_half(state);
    for (uint64_t i = 0; type == OP_W_BF16 && i < n; i++) {
        float v = test_uniform(state, -1, 1);
        uint32_t bits;
        memcpy(&bits, &v, 4);
        ((uint16_t *)raw)[i] = (uint16_t)(bits >> 16);
    }
    if (type >= OP_W_Q8_0)
        random_blocks(type, n, state, raw);
}

static uint64_t raw_bytes(enum op_wtype type, uint64_t n)
{
    static const uint64_t plain[] = {4, 2, 2};
    return type < OP_W_Q8_0 ? n * plain[type] : n / op_wtype_block(type) * blocks_of[type].bytes;
}

void *test_weight(enum op_wtype type, uint32_t rows, uint32_t cols, uint64_t seed)
{
    void *raw = malloc(raw_bytes(type, (uint64_t)rows * cols) + 64);
    ck_assert_ptr_nonnull(raw);
    random_rows(type, rows, cols, &seed, raw);
    return raw;
}

uint64_t test_weight_bytes(enum op_wtype type, uint64_t n) { return raw_bytes(type, n); }

static void make_weight(const struct op_case_binding *b, uint64_t *state, struct content *c)
{
    unsigned char *raw = malloc(raw_bytes(b->wtype, b->n) + 64);
    random_rows(b->wtype, b->rows, b->cols, state, raw);
    c->bytes = op_weight_bytes(b->wtype, b->rows, b->cols);
    ck_assert_msg(c->bytes > 0 || b->n == 0, "op_weight_bytes is 0");
    c->device = calloc(1, c->bytes + 4);
    float *values = malloc((b->n + 1) * sizeof *values);
    op_weight_pack(b->wtype, b->rows, b->cols, raw, c->device);
    op_weight_unpack(b->wtype, b->rows, b->cols, c->device, 0, b->rows, values);
    double *ref = malloc((b->n + 1) * sizeof *ref);
    for (uint64_t i = 0; i < b->n; i++)
        ref[i] = values[i];
    c->ref = ref;
    free(values);
    free(raw);
}

static void make_content(const struct op_binding *binding, const struct op_case_binding *b, uint64_t *state, struct content *c)
{
    if (binding->data == OP_WEIGHT) {
        make_weight(b, state, c);
        return;
    }
    c->bytes = b->n * 4;
    c->device = calloc(1, c->bytes + 4);
    if (binding->data == OP_U32) {
        if (b->words)
            memcpy(c->device, b->words, c->bytes);
        c->ref = malloc(c->bytes + 4);
        memcpy(c->ref, c->device, c->bytes);
        return;
    }
    bool unit = b->lo == 0 && b->hi == 0;
    float *f = c->device;
    double *ref = malloc((b->n + 1) * sizeof *ref);
    for (uint64_t i = 0; i < b->n; i++) {
        f[i] = b->values ? b->values[i] : test_uniform(state, unit ? -1 : b->lo, unit ? 1 : b->hi);
        ref[i] = f[i];
    }
    c->ref = ref;
}

static void compare(const struct op *op, const struct op_variant *v, const struct op_case *c, uint32_t i, const void *got,
                    const void *want)
{
    const struct op_binding *binding = &op->bindings[i];
    for (uint64_t j = 0; j < c->b[i].n; j++) {
        if (binding->data == OP_U32) {
            uint32_t g = ((const uint32_t *)got)[j], w = ((const uint32_t *)want)[j];
            ck_assert_msg(g == w, "%s.%s (%s), %s[%llu]: want %u, got %u", op->name, v->name, c->label, binding->name,
                          (unsigned long long)j, w, g);
        } else {
            double g = ((const float *)got)[j], w = ((const double *)want)[j];
            ck_assert_msg(fabs(g - w) <= c->atol + v->rounding * c->spread + c->rtol * fabs(w), "%s.%s (%s), %s[%llu]: want %.9g, got %.9g", op->name,
                          v->name, c->label, binding->name, (unsigned long long)j, w, g);
        }
    }
}

static void run_variant(struct rt_device *dev, const struct op *op, const struct op_variant *v, const struct op_case *c,
                        const struct content *content)
{
    struct rt_error err = {0};
    struct rt_span bound[OP_MAX_BINDINGS];
    for (uint32_t i = 0; i < op->n_bindings; i++)
        bound[i] = test_span(dev, content[i].bytes, content[i].device);
    ck_assert_msg(op_launch_variant(dev, op, v, bound, c->push, &err) == RT_OK, "%s.%s (%s): %s", op->name, v->name, c->label, err.text);
    ck_assert_msg(rt_finish(dev, &err) == RT_OK, "%s.%s (%s): %s", op->name, v->name, c->label, err.text);
    for (uint32_t i = 0; i < op->n_bindings; i++) {
        if (!(op->bindings[i].access & RT_WRITE) || c->b[i].ignore || content[i].bytes == 0)
            continue;
        void *got = malloc(content[i].bytes);
        ck_assert_msg(rt_download(dev, bound[i], 0, got, content[i].bytes, &err) == RT_OK, "%s", err.text);
        compare(op, v, c, i, got, content[i].ref);
        free(got);
    }
    test_release(dev);
}

static bool wanted(const struct op_variant *v)
{
    const char *prefix = getenv("MOSLD_TEST_VARIANT");
    return !prefix || strncmp(v->name, prefix, strlen(prefix)) == 0;
}

static bool chosen_alone(void)
{
    const char *which = getenv("MOSLD_TEST_VARIANTS");
    ck_assert_msg(!which || strcmp(which, "chosen") == 0 || strcmp(which, "all") == 0, "MOSLD_TEST_VARIANTS is %s, and can be all or chosen", which);
    return which && strcmp(which, "chosen") == 0;
}

static bool runs(const struct rt_device *dev, const struct op_variant *v, const struct op_case *c)
{
    return op_can_run(dev, v) && (!v->applies || v->applies(c->push));
}

/* The last of the table that it can run. */
static const struct op_variant *plainest(const struct rt_device *dev, const struct op *op, const struct op_case *c)
{
    for (uint32_t i = op->n_variants; i-- > 0;)
        if (runs(dev, &op->variants[i], c))
            return &op->variants[i];
    return NULL;
}

static void run_rounding(const struct op *op, const struct op_case *c, const struct content *content)
{
    for (uint32_t i = 0; i < op->n_variants; i++) {
        const struct op_variant *v = &op->variants[i];
        if (v->rounding == 0 || v->kind != RT_VULKAN || !wanted(v) || (v->applies && !v->applies(c->push)))
            continue;
        struct rt_device *dev = rounding_device();
        if (!op_can_run(dev, v) || op_can_run(test_vulkan(), v) || (chosen_alone() && v != op_choose(dev, op, c->push)))
            continue;
        run_variant(dev, op, v, c, content);
        test_check_validation(dev);
    }
}

static void run_device(struct rt_device *dev, const struct op *op, const struct op_case *c, const struct content *content)
{
    const struct op_variant *first = op_choose(dev, op, c->push), *last = plainest(dev, op, c);
    ck_assert_msg(op->optional || first != NULL, "%s (%s): %s can run no variant", op->name, c->label, rt_device_info(dev)->name);
    bool all = !chosen_alone();
    for (uint32_t i = 0; i < op->n_variants; i++) {
        const struct op_variant *v = &op->variants[i];
        if (wanted(v) && runs(dev, v, c) && (all || v == first || v == last))
            run_variant(dev, op, v, c, content);
    }
    test_check_validation(dev);
}

void op_test_run(const struct op *op, const struct op_case *c)
{
    struct content content[OP_MAX_BINDINGS] = {0};
    void *ref[OP_MAX_BINDINGS];
    uint64_t state = c->seed + 1;
    for (uint32_t i = 0; i < op->n_bindings; i++) {
        make_content(&op->bindings[i], &c->b[i], &state, &content[i]);
        ref[i] = content[i].ref;
    }
    op->ref(ref, c->push);
    if (!test_vulkan() || !chosen_alone())
        run_device(test_host(), op, c, content);
    if (test_vulkan()) {
        run_device(test_vulkan(), op, c, content);
        run_rounding(op, c, content);
    }
    for (uint32_t i = 0; i < op->n_bindings; i++) {
        free(content[i].device);
        free(content[i].ref);
    }
}
