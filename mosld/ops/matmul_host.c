/* mosld/ops/matmul_host.c - the products on the host: a BLAS, called with one thread for each tile of the output.
 *
 * The output is cut into tiles by the shapes alone, never by the number of threads, and each tile is summed by one
 * thread in one order: so the bits do not depend on who computes. An f32 weight is read where it lies; other types are
 * unpacked a block at a time into scratch that stays in the cache until the BLAS has read it. */
#include "mosld/ops/host_blas.h"
#include "mosld/ops/linear_host.h"

#include <string.h>

#define SCRATCH_FLOATS (192 * 1024) /* most of a level 2 cache */
#define SMALL_FLOATS 2048           /* on the stack, for when there is no memory for more: slow, and right */
#define ENOUGH_TILES 8
#define FEWEST_TILES 4
#define SMALL_TILE (160 * 160) /* below this, packing costs more than sharing out gains */

struct product {
    struct rt_device *dev;
    const struct matmul_push *p;
    const float *x;
    const void *w;
    float *y;
    const float *other;
    uint32_t cols; /* of y */
    const struct linear_push *tail; /* NULL: none; then: */
    const float *z, *b;
    /* The tile's sum from W where it lies (f32), and from W unpacked into `block` of `room` floats. */
    void (*whole)(const struct product *d, uint32_t t0, uint32_t rows, uint32_t c0, uint32_t cols, float beta);
    void (*unpacked)(const struct product *d, uint32_t t0, uint32_t rows, uint32_t c0, uint32_t cols, float beta, float *block,
                     uint32_t room);
    struct tiling {
        uint32_t rows, cols; /* of a tile; multiples of 32, so that blocks of scales are not cut */
        uint32_t across;     /* tiles side by side */
        uint32_t count;
    } tiles;
};

static void nt_whole(const struct product *d, uint32_t t0, uint32_t rows, uint32_t c0, uint32_t cols, float beta);

static uint32_t round_up(uint32_t n) { return (n + 31) / 32 * 32; }

static uint32_t least(uint32_t a, uint32_t b) { return a < b ? a : b; }

/* Every tile costs packing its rows of x and its columns of W once more, so tiles are large, yet many. */
static struct tiling cut(uint32_t rows, uint32_t cols)
{
    uint32_t r = least(round_up(rows), 512), c = least(round_up(cols), 768);
    uint64_t count;
    for (;;) {
        count = ((uint64_t)rows + r - 1) / r * (((uint64_t)cols + c - 1) / c);
        bool small = (r <= 64 && c <= 64) || (count >= FEWEST_TILES && (uint64_t)r * c <= SMALL_TILE);
        if (count >= ENOUGH_TILES || small)
            break;
        if (r > c || c <= 64)
            r = round_up((r + 1) / 2);
        else
            c = round_up((c + 1) / 2);
    }
    return (struct tiling){r, c, (cols + c - 1) / c, (uint32_t)count};
}

/* Writes what the sum of the tile is added to; returns BLAS's beta. */
static float start_tile(const struct product *d, uint32_t t0, uint32_t rows, uint32_t c0, uint32_t cols)
{
    const struct matmul_push *p = d->p;
    if (p->add == MATMUL_ADD_NONE)
        return 0;
    for (size_t t = t0; p->add != MATMUL_ADD_SELF && t < t0 + rows; t++) {
        size_t at = t * p->y_stride + p->y_col + c0;
        const float *from = p->add == MATMUL_ADD_BIAS ? d->other + p->bias_col + c0 : d->other + at;
        memmove(d->y + at, from, cols * sizeof *from); /* a residual may be y itself */
    }
    return 1;
}

/* What op_linear adds to a tile, while it is in the cache. B is [n, r] for nt and [r, k] for nn. */
static void add_tail(const struct product *d, uint32_t t0, uint32_t rows, uint32_t c0, uint32_t cols)
{
    const struct linear_push *p = d->tail;
    bool nt = d->whole == nt_whole;
    size_t b_stride = nt ? p->r : p->m.k;
    if (p->r)
        cblas_sgemm(CblasRowMajor, CblasNoTrans, nt ? CblasTrans : CblasNoTrans, (int)rows, (int)cols, (int)p->r, p->tail_scale,
                    d->z + (size_t)t0 * p->z_stride + p->z_col, (int)p->z_stride, d->b + p->b_offset + (nt ? c0 * b_stride : c0),
                    (int)b_stride, 1, d->y + (size_t)t0 * p->m.y_stride + p->m.y_col + c0, (int)p->m.y_stride);
}

static void tile_item(void *arg, int item, int worker)
{
    const struct product *d = arg;
    uint32_t t0 = (uint32_t)item / d->tiles.across * d->tiles.rows,
             c0 = (uint32_t)item % d->tiles.across * d->tiles.cols;
    uint32_t rows = least(d->tiles.rows, d->p->rows - t0), cols = least(d->tiles.cols, d->cols - c0);
    float beta = start_tile(d, t0, rows, c0, cols);
    if (d->p->wtype == OP_W_F32) {
        d->whole(d, t0, rows, c0, cols, beta);
    } else {
        float small[SMALL_FLOATS], *block = rt_host_scratch(d->dev, worker, SCRATCH_FLOATS * sizeof *block);
        d->unpacked(d, t0, rows, c0, cols, beta, block ? block : small, block ? SCRATCH_FLOATS : SMALL_FLOATS);
    }
    if (d->tail)
        add_tail(d, t0, rows, c0, cols);
}

/* ---- nt ---- */

/* The tile's sum with columns [k0, k0 + kn) of x and of the unpacked rows of W. */
static void nt_block(const struct product *d, uint32_t t0, uint32_t rows, uint32_t o0, uint32_t n, uint32_t k0,
                     uint32_t kn, const float *w, size_t w_stride, float beta)
{
    const struct matmul_push *p = d->p;
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (int)rows, (int)n, (int)kn, p->scale,
                d->x + (size_t)t0 * p->x_stride + p->x_col + k0, (int)p->x_stride, w, (int)w_stride, beta,
                d->y + (size_t)t0 * p->y_stride + p->y_col + o0, (int)p->y_stride);
}

static void nt_unpacked(const struct product *d, uint32_t t0, uint32_t rows, uint32_t c0, uint32_t cols, float beta,
                        float *block, uint32_t room)
{
    const struct matmul_push *p = d->p;
    uint32_t kb = least(round_up(p->k), least(room / 32, 2048) / 32 * 32), nb = least(room / kb, cols);
    for (uint32_t o = c0; o < c0 + cols; o += nb) {
        uint32_t n = least(nb, c0 + cols - o);
        for (uint32_t k = 0; k < p->k; k += kb) {
            uint32_t kn = least(kb, p->k - k);
            op_weight_unpack_part(p->wtype, p->n, p->k, d->w, o, n, k, kn, block, kb);
            nt_block(d, t0, rows, o, n, k, kn, block, kb, k == 0 ? beta : 1);
        }
    }
}

static void nt_whole(const struct product *d, uint32_t t0, uint32_t rows, uint32_t c0, uint32_t cols, float beta)
{
    nt_block(d, t0, rows, c0, cols, 0, d->p->k, (const float *)d->w + d->p->w_offset + (size_t)c0 * d->p->k, d->p->k, beta);
}

/* ---- nn ---- */

static void nn_block(const struct product *d, uint32_t t0, uint32_t rows, uint32_t c0, uint32_t cols, uint32_t o0,
                     uint32_t n, const float *w, size_t w_stride, float beta)
{
    const struct matmul_push *p = d->p;
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, (int)rows, (int)cols, (int)n, p->scale,
                d->x + (size_t)t0 * p->x_stride + p->x_col + o0, (int)p->x_stride, w, (int)w_stride, beta,
                d->y + (size_t)t0 * p->y_stride + p->y_col + c0, (int)p->y_stride);
}

static void nn_unpacked(const struct product *d, uint32_t t0, uint32_t rows, uint32_t c0, uint32_t cols, float beta,
                        float *block, uint32_t room)
{
    const struct matmul_push *p = d->p;
    uint32_t cb = least(round_up(cols), room / 8 / 32 * 32), ob = room / cb;
    for (uint32_t c = c0; c < c0 + cols; c += cb) {
        uint32_t cn = least(cb, c0 + cols - c);
        for (uint32_t o = 0; o < p->n; o += ob) {
            uint32_t n = least(ob, p->n - o);
            op_weight_unpack_part(p->wtype, p->n, p->k, d->w, o, n, c, cn, block, cb);
            nn_block(d, t0, rows, c, cn, o, n, block, cb, o == 0 ? beta : 1);
        }
    }
}

static void nn_whole(const struct product *d, uint32_t t0, uint32_t rows, uint32_t c0, uint32_t cols, float beta)
{
    nn_block(d, t0, rows, c0, cols, 0, d->p->n, (const float *)d->w + d->p->w_offset + c0, d->p->k, beta);
}

static void run(struct rt_device *dev, void *const *b, const struct matmul_push *p, struct product d)
{
    if (p->rows == 0 || d.cols == 0)
        return;
    host_blas_alone();
    d.dev = dev, d.p = p, d.x = b[MATMUL_X], d.w = b[MATMUL_W], d.y = b[MATMUL_Y], d.other = b[MATMUL_OTHER];
    d.tiles = cut(p->rows, d.cols);
    rt_parallel(dev, (int)d.tiles.count, tile_item, &d);
}

void matmul_host_nt(struct rt_device *dev, void *const *bindings, const void *push)
{
    const struct matmul_push *p = push;
    run(dev, bindings, p, (struct product){.cols = p->n, .whole = nt_whole, .unpacked = nt_unpacked});
}

void matmul_host_nn(struct rt_device *dev, void *const *bindings, const void *push)
{
    const struct matmul_push *p = push;
    run(dev, bindings, p, (struct product){.cols = p->k, .whole = nn_whole, .unpacked = nn_unpacked});
}

void linear_host_nt(struct rt_device *dev, void *const *b, const void *push)
{
    const struct linear_push *p = push;
    run(dev, b, &p->m, (struct product){.cols = p->m.n, .whole = nt_whole, .unpacked = nt_unpacked, .tail = p, .z = b[LINEAR_Z], .b = b[LINEAR_B]});
}

void linear_host_nn(struct rt_device *dev, void *const *b, const void *push)
{
    const struct linear_push *p = push;
    run(dev, b, &p->m, (struct product){.cols = p->m.k, .whole = nn_whole, .unpacked = nn_unpacked, .tail = p, .z = b[LINEAR_Z], .b = b[LINEAR_B]});
}

/* ---- tn ---- */

struct reduction {
    const struct matmul_tn_push *p;
    const float *x, *y;
    float *w;
    struct tiling tiles;
};

static void tn_item(void *arg, int item, int worker)
{
    (void)worker;
    const struct reduction *d = arg;
    const struct matmul_tn_push *p = d->p;
    uint32_t a0 = (uint32_t)item / d->tiles.across * d->tiles.rows,
             b0 = (uint32_t)item % d->tiles.across * d->tiles.cols;
    uint32_t a = least(d->tiles.rows, p->a - a0), b = least(d->tiles.cols, p->b - b0);
    float *w = d->w + (size_t)a0 * p->b + b0;
    if (p->rows == 0) { /* not every BLAS clears the output of an empty sum */
        for (uint32_t i = 0; i < a && !p->accumulate; i++)
            memset(w + (size_t)i * p->b, 0, b * sizeof *w);
        return;
    }
    cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, (int)a, (int)b, (int)p->rows, p->scale, d->x + p->x_col + a0,
                (int)p->x_stride, d->y + p->y_col + b0, (int)p->y_stride, p->accumulate ? 1 : 0, w, (int)p->b);
}

void matmul_host_tn(struct rt_device *dev, void *const *bindings, const void *push)
{
    const struct matmul_tn_push *p = push;
    if (p->a == 0 || p->b == 0)
        return;
    host_blas_alone();
    struct reduction d = {p, bindings[0], bindings[1], (float *)bindings[2] + p->w_offset, cut(p->a, p->b)};
    rt_parallel(dev, (int)d.tiles.count, tn_item, &d);
}
