/* mosld/ops/attention_coop.h - attention by cooperative matrices (shaders/attention_coop.comp): its kernels and where they run; for
 * attention.c alone.
 *
 * Head sizes are multiples of four up to 128, made whole to 64, 96 or 128 columns. A kernel binds four storage buffers, as all do, and takes up to
 * 32 KiB of shared memory. */
#ifndef MOSLD_ATTENTION_COOP_H
#define MOSLD_ATTENTION_COOP_H

#include "mosld/ops/op.h"

/* q, k, v and the weights in two f16 each; and rounded to one. By head size: up to 64, 96, 128. */
extern const struct op_kernel attention_coop_split[3], attention_coop_rounded[3];

bool attention_head_to_64(const void *push);
bool attention_head_to_96(const void *push);
bool attention_head_to_128(const void *push);

/* Matrices of a shape that the kernel is cut for, and a precision that allows for two f16, or for one. */
bool attention_has_matrices(const struct rt_device_info *info);
bool attention_has_matrices_medium(const struct rt_device_info *info);
/* Where it pays as far as the shape tells (docs/kernels.md). */
bool attention_suits_matrices(const struct rt_device_info *info);

#endif
