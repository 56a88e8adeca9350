/* mosld/ops/matmul_split.h - products whose sums are split over workgroups, for the few outputs of long sums that leave most of a GPU idle
 * (dx of the output head: 9 tiles across, sums over the vocabulary).
 *
 * One kernel writes each part of each sum into scratch, a second adds the parts in their order: the bits depend on shapes, on the kind of GPU
 * and on the scratch that there is, never on timing. For matmul_common.c, linear.c, the tuning and tests. */
#ifndef MOSLD_MATMUL_SPLIT_H
#define MOSLD_MATMUL_SPLIT_H

#include "mosld/ops/matmul_common.h"
#include "shaders/matmul_split.h"

extern const struct op op_matmul_nt_split_desc, op_matmul_nn_split_desc;

enum { MATMUL_PARTS = MATMUL_OTHER + 1 }; /* the binding behind those of the product: f32 [splits, rows, columns in whole fours] */

/* How many parts: enough to fill the device with workgroups of `tile` outputs a side, no part shorter than `least` terms, no more of them than
 * `bytes` hold. 1: not to be split. */
uint32_t matmul_splits(const struct rt_device *dev, uint32_t rows, uint32_t cols, uint32_t sums, uint32_t tile, uint32_t least, uint64_t bytes);
/* Terms in each part but the last, a multiple of 16, for about `splits` of them; *splits becomes how many there are then. */
uint32_t matmul_split_terms(uint32_t sums, uint32_t *splits);

/* The product of p and spans in parts, where that pays: *v is NULL where it does not, else the variant, with its parameters in *split. */
void matmul_split_choose(struct rt_device *dev, const struct op_matmul *m, const struct matmul_push *p, bool nn, struct matmul_split_push *split,
                         const struct op_variant **v);

#endif
