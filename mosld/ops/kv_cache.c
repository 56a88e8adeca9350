/* mosld/ops/kv_cache.c - rows of the cache on the host, and op_kv_append: see kv_cache.h and attention.h.
 *
 *     cache[row of token t, :] = the keys and values of token t in the cache's type
 *
 * Rounding is done on integers, and a quant's candidate is corrected by comparisons that are exact, so host and shaders store the same words. */
#include "mosld/ops/attention_common.h"
#include "mosld/ops/host_lanes.h"
#include "mosld/ops/shape.h"
#include "mosld/ops/weight_lanes.h"

#include <math.h>

enum { QKV, CACHE, WHERE };

bool op_kv_suits(enum op_wtype type, uint32_t head_dim)
{
    return type < 32 && (OP_KV_TYPES >> type & 1) && (type != OP_W_Q8_0 || head_dim % 32 == 0);
}

/* ---- a row ---- */

/* To the nearest, ties to even; what would be infinite becomes the largest half. */
HOST_INLINE uint32_t half_of(float x)
{
    uint32_t bits = host_bits(x), m = bits & 0x7fffffff;
    uint32_t tiny = host_bits(host_float(m) + 0.5f) - 0x3f000000; /* of 0.5 the last place is that of a subnormal half */
    uint32_t normal = (m + 0xfff + (m >> 13 & 1) - 0x38000000) >> 13;
    uint32_t h = m < 0x38800000 ? tiny : m >= 0x477ff000 ? 0x7bff : normal;
    return (m > 0x7f800000 ? 0x7e00 : h) | (bits >> 16 & 0x8000);
}

MOSLD_CLONES static void store_halves(const float *x, uint32_t n, uint32_t *row)
{
    for (uint32_t i = 0; i < n / 2; i++)
        row[i] = half_of(x[2 * i]) | half_of(x[2 * i + 1]) << 16;
}

/* The scale's half; q: quants of 32 numbers. */
HOST_INLINE uint32_t quantise(const float *x, int8_t *q)
{
    uint32_t most = 0;
    for (int i = 0; i < 32; i++) {
        uint32_t m = host_bits(x[i]) & 0x7fffffff; /* as integers magnitudes keep their order */
        most = m > most ? m : most;
    }
    uint32_t half = half_of(host_float(most) * (1.0f / 127));
    float d = host_half((uint16_t)half), inverse = d > 0 ? 1 / d : 0;
    for (int i = 0; i < 32; i++) {
        float a = fabsf(x[i]), near = a * inverse + 0.5f, r = (float)(int32_t)(near > 200 ? 200 : near);
        r -= a < (r - 0.5f) * d ? 1.0f : 0.0f; /* products of 8 and 11 bits: exact */
        r += a >= (r + 0.5f) * d ? 1.0f : 0.0f;
        r = r > 127 || d == 0 ? (d == 0 ? 0 : 127) : r;
        q[i] = (int8_t)(x[i] < 0 ? -(int32_t)r : (int32_t)r);
    }
    return half;
}

MOSLD_CLONES static void store_quants(const float *x, uint32_t n, uint32_t *row)
{
    int8_t q[64];
    for (uint32_t i = 0; i < n / 64; i++) { /* an even number of blocks: keys, then as many values */
        uint32_t low = quantise(x + 64 * i, q), high = quantise(x + 64 * i + 32, q + 32);
        memcpy(row + 16 * i, q, sizeof q);
        row[n / 4 + i] = low | high << 16;
    }
}

void op_kv_store(enum op_wtype type, const float *numbers, uint32_t n, uint32_t *row)
{
    if (type == OP_W_F32)
        memcpy(row, numbers, n * sizeof *numbers);
    else if (type == OP_W_F16)
        store_halves(numbers, n, row);
    else
        store_quants(numbers, n, row);
}

MOSLD_CLONES static void load_halves(const uint32_t *row, uint64_t row_words, uint32_t rows, uint32_t col, uint32_t n, float *out)
{
    for (uint32_t r = 0; r < rows; r++, row += row_words, out += n)
        halves_to_floats((const op_half *)row + col, n, out);
}

MOSLD_CLONES static void load_quants(const uint32_t *row, uint64_t row_words, uint32_t row_numbers, uint32_t rows, uint32_t col, uint32_t n, float *out)
{
    for (uint32_t r = 0; r < rows; r++, row += row_words)
        for (uint32_t i = 0; i < n; i += 32, out += 32) {
            float d = host_half(((const op_half *)(row + row_numbers / 4))[(col + i) / 32]);
            for (int k = 0; k < 32; k += LANES) {
                floats f;
                lanes_bytes(row, col + i + k, &f);
                *(floats_any *)(out + k) = f * d;
            }
        }
}

void op_kv_load(enum op_wtype type, const uint32_t *row, uint64_t row_words, uint32_t row_numbers, uint32_t rows, uint32_t col, uint32_t n, float *out)
{
    if (type == OP_W_F16)
        load_halves(row, row_words, rows, col, n, out);
    else if (type == OP_W_Q8_0)
        load_quants(row, row_words, row_numbers, rows, col, n, out);
    else
        for (uint32_t r = 0; r < rows; r++)
            memcpy(out + (size_t)r * n, row + r * row_words + col, n * sizeof *out);
}

/* ---- the truth ---- */

static double nearest_even(double x)
{
    double low = floor(x), rest = x - low;
    return rest > 0.5 || (rest == 0.5 && fmod(low, 2) != 0) ? low + 1 : low;
}

static uint32_t half_ref(double x)
{
    int exponent;
    double a = fabs(x);
    frexp(a, &exponent); /* a in [2^(exponent - 1), 2^exponent) */
    exponent = exponent < -13 ? -13 : exponent;
    double places = nearest_even(ldexp(a, 11 - exponent)); /* units of the last place: 2^(exponent - 11) */
    if (places == 2048)
        places = 1024, exponent++;
    uint32_t h = places < 1024 ? (uint32_t)places : (uint32_t)(exponent + 14) << 10 | ((uint32_t)places - 1024);
    return (h > 0x7bff ? 0x7bff : h) | (signbit(x) ? 0x8000u : 0);
}

static double half_value_ref(uint32_t h)
{
    int exponent = (int)(h >> 10 & 31);
    double magnitude = ldexp(exponent ? 1024 + (h & 1023) : h & 1023, (exponent ? exponent : 1) - 25);
    return h & 0x8000 ? -magnitude : magnitude;
}

double attention_kv_ref(const struct attention_push *p, const uint32_t *row, uint32_t col)
{
    float f;
    if (p->kv_type == OP_W_F16)
        return half_value_ref(row[col / 2] >> col % 2 * 16 & 0xffff);
    if (p->kv_type == OP_W_Q8_0) {
        uint32_t byte = row[col / 4] >> col % 4 * 8 & 0xff, half = row[p->kv_heads * p->head_dim / 2 + col / 64] >> col / 32 % 2 * 16 & 0xffff;
        return (byte > 127 ? (double)byte - 256 : byte) * half_value_ref(half);
    }
    memcpy(&f, row + col, sizeof f);
    return f;
}

static void store_ref(const struct attention_push *p, const double *x, uint32_t *row)
{
    uint32_t n = 2 * p->kv_heads * p->head_dim;
    memset(row, 0, attention_kv_words(p) * sizeof *row);
    for (uint32_t i = 0; i < n; i++) {
        float f = (float)x[i];
        if (p->kv_type == OP_W_F32)
            memcpy(row + i, &f, sizeof f);
        else if (p->kv_type == OP_W_F16)
            row[i / 2] |= half_ref(x[i]) << i % 2 * 16;
    }
    for (uint32_t b = 0; p->kv_type == OP_W_Q8_0 && b < n / 32; b++) {
        double most = 0;
        for (uint32_t i = 32 * b; i < 32 * b + 32; i++)
            most = fabs(x[i]) > most ? fabs(x[i]) : most;
        uint32_t half = half_ref((float)most * (1.0f / 127)); /* in float, as it is defined */
        double d = half_value_ref(half);
        row[n / 4 + b / 2] |= half << b % 2 * 16;
        for (uint32_t i = 32 * b; i < 32 * b + 32; i++) {
            double r = d > 0 ? floor(fabs(x[i]) / d + 0.5) : 0;
            r = r > 127 ? 127 : r;
            row[i / 4] |= ((uint32_t)(x[i] < 0 ? -r : r) & 0xff) << i % 4 * 8;
        }
    }
}

static void kv_append_ref(void *const *b, const void *push)
{
    const struct attention_push *p = push;
    const uint32_t *where = b[WHERE];
    for (uint32_t t = 0; t < p->T; t++)
        store_ref(p, (const double *)b[QKV] + t * (size_t)attention_qkv_words(p) + (size_t)p->heads * p->head_dim,
                  (uint32_t *)b[CACHE] + attention_kv_row(where, where[2 * t], where[2 * t + 1]) * attention_kv_words(p));
}

/* ---- the host ---- */

#define ITEM_TOKENS 16u

struct append_job {
    const struct attention_push *p;
    const float *qkv;
    const uint32_t *where;
    uint32_t *cache;
};

static void append_item(void *arg, int item, int worker)
{
    (void)worker;
    const struct append_job *job = arg;
    const struct attention_push *p = job->p;
    uint32_t first = (uint32_t)item * ITEM_TOKENS, end = p->T - first < ITEM_TOKENS ? p->T : first + ITEM_TOKENS;
    for (uint32_t t = first; t < end; t++)
        op_kv_store((enum op_wtype)p->kv_type, job->qkv + t * (size_t)attention_qkv_words(p) + (size_t)p->heads * p->head_dim,
                    2 * p->kv_heads * p->head_dim,
                    job->cache + attention_kv_row(job->where, job->where[2 * t], job->where[2 * t + 1]) * attention_kv_words(p));
}

static void kv_append_host(struct rt_device *dev, void *const *b, const void *push)
{
    struct append_job job = {push, b[QKV], b[WHERE], b[CACHE]};
    uint32_t items = (job.p->T + ITEM_TOKENS - 1) / ITEM_TOKENS;
    if (items > 1)
        rt_parallel(dev, (int)items, append_item, &job);
    else if (items)
        append_item(&job, 0, 0);
}

/* ---- the descriptor ---- */

static void grid_words(const void *push, uint32_t groups[3])
{
    const struct attention_push *p = push;
    groups[0] = op_groups(p->T * attention_kv_words(p), 128);
}

static double append_bytes(const void *push)
{
    const struct attention_push *p = push;
    return 4.0 * p->T * (2.0 * p->kv_heads * p->head_dim + (double)attention_kv_words(p));
}

#define APPEND(type)                                                                                                                  \
    {                                                                                                                                 \
        .kernel = {"kv_append." type, sizeof(struct attention_push), 3, {{"qkv", RT_READ}, {"cache", RT_WRITE}, {"where", RT_READ}}}, \
        .map = {QKV, CACHE, WHERE}, .grid = grid_words                                                                                \
    }
static const struct op_kernel append_f32 = APPEND("f32"), append_f16 = APPEND("f16"), append_q8_0 = APPEND("q8_0");

static const struct op_variant variants[] = {
    {.name = "host", .kind = RT_HOST, .host = kv_append_host},
    {.name = "f16", .kind = RT_VULKAN, .applies = attention_kv_is_f16, .wtypes = 1u << OP_W_F16, .kernels = {&append_f16}},
    {.name = "q8_0", .kind = RT_VULKAN, .applies = attention_kv_is_q8_0, .wtypes = 1u << OP_W_Q8_0, .kernels = {&append_q8_0}},
    {.name = "f32", .kind = RT_VULKAN, .applies = attention_kv_is_f32, .wtypes = 1u << OP_W_F32, .kernels = {&append_f32}},
};

const struct op op_kv_append_desc = {
    .name = "kv_append",
    .n_bindings = 3,
    .bindings = {{"qkv", RT_READ, OP_F32}, {"cache", RT_WRITE, OP_U32}, {"where", RT_READ, OP_U32}},
    .push_size = sizeof(struct attention_push),
    .ref = kv_append_ref,
    .bytes = append_bytes,
    .n_variants = OP_COUNT(variants),
    .variants = variants,
};

bool attention_kv_is_f32(const void *push) { return ((const struct attention_push *)push)->kv_type == OP_W_F32; }
bool attention_kv_is_f16(const void *push) { return ((const struct attention_push *)push)->kv_type == OP_W_F16; }
bool attention_kv_is_q8_0(const void *push) { return ((const struct attention_push *)push)->kv_type == OP_W_Q8_0; }

enum rt_status attention_kv_check(const char *op, const struct op_attention_cache *a, struct attention_push *p, struct rt_error *err)
{
    RT_TRY(attention_check(op, a->heads, a->kv_heads, a->head_dim, err));
    *p = (struct attention_push){.T = a->T, .heads = a->heads, .kv_heads = a->kv_heads, .head_dim = a->head_dim, .pos0 = a->pos0, .scale = a->scale,
                                 .window = a->window, .table = a->table, .kv_type = a->type};
    if (!op_kv_suits(a->type, a->head_dim))
        return rt_fail(err, RT_FAILED, "%s: a cache of %s for heads of %u: f32 and f16 go with any, q8_0 with whole 32s", op,
                       a->type < OP_W_TYPES ? op_wtype_name(a->type) : "an unknown type", a->head_dim);
    uint32_t wide = attention_qkv_words(p);
    if (a->pos0 > UINT32_MAX - a->T)
        return rt_fail(err, RT_FAILED, "%s: %u tokens from position %u are more than 32 bits count", op, a->T, a->pos0);
    if (a->cache.size / 4 > UINT32_MAX)
        return rt_fail(err, RT_FAILED, "%s: a cache of %llu bytes: its words do not count in 32 bits", op, (unsigned long long)a->cache.size);
    RT_TRY(op_check_rows(op, "qkv", a->qkv, a->T, wide, 0, wide, err));
    return op_check_rows(op, "where", a->where, a->T, 2, 0, 2, err);
}

enum rt_status op_kv_append(struct rt_device *dev, const struct op_attention_cache *a, struct rt_error *err)
{
    struct attention_push p;
    RT_TRY(attention_kv_check("kv_append", a, &p, err));
    return p.T == 0 ? RT_OK : op_launch(dev, &op_kv_append_desc, (struct rt_span[]){a->qkv, a->cache, a->where}, &p, err);
}
