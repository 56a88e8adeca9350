/* mosld/ops/rope.c - rotary position embedding in place, and its gradient, which is the inverse rotation.
 *
 *     a = x[t, h, i], b = x[t, h, i + D/2], (c, s) = table[pos[t], i]
 *     x[t, h, i] = a c - b s;   x[t, h, i + D/2] = b c + a s;          inverse: s negated
 *
 * A rotation's transpose is its inverse, so backward is the same op with the other sign and nothing is kept. */
#include "mosld/ops/rope.h"

#include "mosld/ops/host_lanes.h"
#include "mosld/ops/op.h"
#include "mosld/ops/shape.h"
#include "shaders/rope.h"

#define MOST_HALF 128    /* of head_dim 256 */

enum { X, TABLE, POS };

static void rope_ref(void *const *b, const void *push)
{
    const struct rope_push *p = push;
    double *x = b[X];
    const double *table = b[TABLE];
    const uint32_t *pos = b[POS];
    size_t half = p->head_dim / 2;
    for (size_t t = 0; t < p->rows; t++)
        for (size_t h = 0; h < p->heads; h++)
            for (size_t i = 0; i < half; i++) {
                double *u = x + t * p->stride + p->col + h * p->head_dim + i, *v = u + half, a = *u, bb = *v;
                const double *cs = table + (pos[t] * half + i) * 2;
                *u = a * cs[0] - bb * p->sign * cs[1];
                *v = bb * cs[0] + a * p->sign * cs[1];
            }
}

struct rope_job {
    const struct rope_push *p;
    float *x;
    const float *table;
    const uint32_t *pos;
    uint32_t rows_item;
};

MOSLD_CLONES static void rotate_row(float *row, const float *restrict cs, uint32_t heads, size_t half, float sign)
{
    float c[MOST_HALF], s[MOST_HALF]; /* apart once, for all heads */
    for (size_t i = 0; i < half; i++) {
        c[i] = cs[2 * i];
        s[i] = cs[2 * i + 1] * sign;
    }
    for (uint32_t h = 0; h < heads; h++, row += 2 * half) {
        float *restrict u = row, *restrict v = row + half;
        for (size_t i = 0; i < half; i++) {
            float a = u[i], b = v[i];
            u[i] = a * c[i] - b * s[i];
            v[i] = b * c[i] + a * s[i];
        }
    }
}

static void rope_item(void *arg, int item, int worker)
{
    (void)worker;
    const struct rope_job *job = arg;
    const struct rope_push *p = job->p;
    size_t first = (size_t)item * job->rows_item;
    for (size_t t = first; t < p->rows && t < first + job->rows_item; t++)
        rotate_row(job->x + t * p->stride + p->col, job->table + (size_t)job->pos[t] * p->head_dim, p->heads,
                   p->head_dim / 2, p->sign);
}

static void rope_host(struct rt_device *dev, void *const *b, const void *push)
{
    const struct rope_push *p = push;
    uint64_t words = (uint64_t)p->heads * p->head_dim;
    if (words == 0)
        return;
    struct rope_job job = {p, b[X], b[TABLE], b[POS], words >= 16384 ? 1 : (uint32_t)(16384 / words)};
    rt_parallel(dev, (int)(((uint64_t)p->rows + job.rows_item - 1) / job.rows_item), rope_item, &job);
}

static void pair_an_invocation(const void *push, uint32_t groups[3])
{
    const struct rope_push *p = push;
    groups[0] = op_groups((uint64_t)p->rows * p->heads * (p->head_dim / 2), 128);
}

static const struct op_kernel rope_kernel = {
    .kernel = {"rope", sizeof(struct rope_push), 3, {{"x", RT_READ_WRITE_BY_GROUPS}, {"table", RT_READ}, {"pos", RT_READ}}},
    .map = {X, TABLE, POS},
    .grid = pair_an_invocation,
};
static const struct op_variant rope_variants[] = {
    {.name = "host", .kind = RT_HOST, .host = rope_host},
    {.name = "plain", .kind = RT_VULKAN, .kernels = {&rope_kernel}},
};
static double rope_bytes(const void *push)
{
    const struct rope_push *p = push;
    return 8.0 * p->rows * p->heads * p->head_dim;
}

const struct op op_rope_desc = {
    .name = "rope",
    .n_bindings = 3,
    .bindings = {{"x", RT_READ_WRITE, OP_F32}, {"table", RT_READ, OP_F32}, {"pos", RT_READ, OP_U32}},
    .push_size = sizeof(struct rope_push),
    .ref = rope_ref,
    .bytes = rope_bytes,
    .n_variants = OP_COUNT(rope_variants),
    .variants = rope_variants,
};

enum rt_status op_rope(struct rt_device *dev, const struct op_rope *r, struct rt_error *err)
{
    if (r->head_dim % 2 || r->head_dim > 2 * MOST_HALF)
        return rt_fail(err, RT_FAILED, "rope: a head of %u values; it must be even and at most %u", r->head_dim,
                       2 * MOST_HALF);
    enum rt_status st =
        op_check_rows("rope", "x", r->x, r->rows, r->stride, r->col, (uint64_t)r->heads * r->head_dim, err);
    if (!st)
        st = op_check_rows("rope", "pos", r->pos, r->rows, 1, 0, 1, err);
    if (st || r->rows == 0 || r->heads == 0 || r->head_dim == 0)
        return st;
    struct rope_push p = {r->rows, r->stride, r->col, r->heads, r->head_dim, r->inverse ? -1.0f : 1.0f};
    return op_launch(dev, &op_rope_desc, (struct rt_span[]){r->x, r->table, r->pos}, &p, err);
}
