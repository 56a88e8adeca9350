/* mosld/ops/matmul_common.h - what matmul_nt, matmul_nn and matmul_tn share; for these files alone. */
#ifndef MOSLD_MATMUL_COMMON_H
#define MOSLD_MATMUL_COMMON_H

#include "mosld/ops/matmul.h"
#include "mosld/ops/op.h"
#include "mosld/ops/shape.h"
#include "mosld/ops/weight_layout.h"
#include "shaders/matmul.h"
#include "shaders/matmul_tn.h"

extern const struct op op_matmul_nt_desc, op_matmul_nn_desc, op_matmul_tn_desc;

/* The bindings of nt and nn, in this order. `other` is the bias or the residual; any span when neither is added. */
enum { MATMUL_X, MATMUL_W, MATMUL_Y, MATMUL_OTHER };

/* The layout of a chunk; RT_FAILED unless it lies in the chunk's span and within 32-bit word counts. */
enum rt_status op_weight_check(const char *op, const struct op_weight *w, const struct op_weight_chunk *c,
                               struct op_weight_layout *layout, struct rt_error *err);

/* Rows of two matrices that can be bound at a time: all, or a multiple of 64; 0: not even 64 of them. */
uint32_t matmul_window(const struct rt_device *dev, uint32_t rows, struct rt_span a, uint32_t a_stride, struct rt_span b, uint32_t b_stride);
/* The part of a matrix's span that holds rows [row0, row0 + rows); row0 is a multiple of 64, or 0. */
struct rt_span matmul_rows_of(struct rt_span span, uint32_t stride, uint32_t row0, uint32_t rows);

/* Rows of W that one launch of nn should sum for `rows` tokens, a multiple of 64; UINT32_MAX: any number. A processor reads W in strips of 64
 * columns, each for all blocks of tokens in turn: a strip that stays in the second cache of a core is fetched once. Where there is nothing to
 * share, at most as many as loops may turn there (MATMUL_TURNS). */
uint32_t matmul_nn_cut(const struct rt_device *dev, const struct op_weight *w, uint32_t rows);

/* RT_FAILED unless what the product reads and writes lies in its memory; `nn` swaps which side of W x and y have. */
enum rt_status op_matmul_check(const struct op *op, const struct op_matmul *m, bool nn, struct rt_error *err);
/* Fills the push block and the spans for chunk i of m->w. */
enum rt_status op_matmul_chunk(const struct op *op, const struct op_matmul *m, uint32_t i, bool nn, struct matmul_push *p,
                               struct rt_span spans[4], struct rt_error *err);
/* Checks and launches all chunks. */
enum rt_status op_matmul_launch(struct rt_device *dev, const struct op *op, const struct op_matmul *m, bool nn,
                                struct rt_error *err);

/* What the sum at y[at] in column c is added to (references). */
double matmul_ref_add(const struct matmul_push *p, const double *y, const double *other, uint64_t at, uint64_t c);

extern const struct op_classes matmul_classes; /* of nt and nn */
double matmul_flops(const void *push);
double matmul_nt_bytes(const void *push);
double matmul_nn_bytes(const void *push);
bool matmul_few_rows(const void *push); /* at most MATMUL_FEW tokens: the weights' bytes are the cost */
#define MATMUL_FEW 8
/* So many outputs that tiles of 128 x 64 still give every part of a large GPU something to do. */
bool matmul_fills_a_gpu(uint32_t rows, uint32_t cols);
/* So few outputs, of so long sums, that a GPU is better filled by splitting the sums among the invocations of a workgroup. */
bool matmul_is_skinny(uint32_t rows, uint32_t cols, uint32_t sums);

/* Cooperative matrices of a shape that shaders/matmul_coop.comp is cut for, and a precision that allows for x in two f16, or in one. */
bool matmul_has_matrices(const struct rt_device_info *info);
bool matmul_has_matrices_medium(const struct rt_device_info *info);
/* Where they pay, the large tile and the small one, as far as the shape tells; what it does not tell a tuning file may know.
 *   8x16x16: Intel since Xe2. Its 128 registers hold the small tile alone: the large one spills 208 to 278 of them (docs/kernels.md).
 *   8x8x16: Intel before that, which lists it with matrix units (Arc A) and without any (Tiger Lake, Meteor Lake: 13,000 instructions
 *           for one tile): neither, unless it was measured. */
bool matmul_suits_matrices(const struct rt_device_info *info);
bool matmul_suits_small(const struct rt_device_info *info);
bool matmul_suits_matrices_high(const struct rt_device_info *info); /* and `high` is the precision */
bool matmul_suits_small_high(const struct rt_device_info *info);
bool matmul_suits_cpu(const struct rt_device_info *info);
/* Where the 64 sums an invocation of `wide` fit into registers: not on Intel (550 spills and 8 KiB of scratch by ANV), nor on Adreno (spills on
 * a660, half the subgroups elsewhere). docs/kernels.md. */
bool matmul_suits_wide(const struct rt_device_info *info);
/* Mesa's llvmpipe ends every loop of an invocation, silently, once all its loops together have turned this often, which
 * a sum over a vocabulary can. So the products sum four rows of W a turn, and matmul_nn_cut keeps a launch far below 200,000 rows. */
#define MATMUL_TURNS 65535
/* What the `lanes` kernels need: subgroups of 8 or 16, of which their workgroups are made whole. With fewer lanes (SwiftShader has
 * 4) they would read from lanes that are not there. */
bool matmul_has_lanes(const struct rt_device_info *info);

/* The host variants. */
void matmul_host_nt(struct rt_device *dev, void *const *bindings, const void *push);
void matmul_host_nn(struct rt_device *dev, void *const *bindings, const void *push);
void matmul_host_vec(struct rt_device *dev, void *const *bindings, const void *push); /* nt, few rows */
void matmul_host_tn(struct rt_device *dev, void *const *bindings, const void *push);

#endif
