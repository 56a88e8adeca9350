/* mosld/ops/linear_few_host.h - what linear_few.c, linear_few_host.c and mixture_few.c share; for these files alone. */
#ifndef MOSLD_LINEAR_FEW_HOST_H
#define MOSLD_LINEAR_FEW_HOST_H

#include "mosld/ops/linear_few.h"
#include "mosld/ops/matmul_common.h"
#include "mosld/ops/mixture.h"

enum { FEW_X, FEW_W, FEW_Y, FEW_OTHER, FEW_STACK, FEW_UL, FEW_B, FEW_BINDINGS };

static inline uint32_t few_type(const struct linear_few_push *p, uint32_t part)
{
    return p->how >> (LINEAR_FEW_TYPE_BITS * part) & ((1u << LINEAR_FEW_TYPE_BITS) - 1);
}
static inline bool few_alone(const struct linear_few_push *p) { return p->how & LINEAR_FEW_ALONE; }
static inline uint32_t few_add(const struct linear_few_push *p) { return p->how >> LINEAR_FEW_ADD_SHIFT & 3; }
static inline uint32_t few_r(const struct linear_few_push *p, uint32_t part) { return p->mix[part] & 0xffff; }
static inline uint32_t few_experts(const struct linear_few_push *p, uint32_t part) { return p->mix[part] >> 16 & 0xff; }
static inline uint32_t few_top_k(const struct linear_few_push *p, uint32_t part) { return p->mix[part] >> 24; }

/* The experts that a token's router chose: z holds their g u, expert after expert, `from` which they are. */
struct mixture_choice {
    uint32_t chosen;
    uint32_t experts[MOSLD_MAX_EXPERTS];
};
/* From a token's u [r] and l [experts]. z: at least r x the chosen. */
void mixture_choose(const float *u, const float *l, uint32_t r, uint32_t experts, uint32_t top_k, struct mixture_choice *choice, float *z);
/* y[c] += scale sum_k <b[c stride + from[k] ...], z[k r ...]> for n columns c. */
void mixture_columns(const float *b, size_t stride, const float *z, const size_t *from, uint32_t chosen, uint32_t r, uint32_t n, float scale, float *y);

/* The same with B transposed: y[c] += scale sum_k sum_i z[k r + i] b[from[k] + i stride + c]. */
void mixture_columns_t(const float *b, size_t stride, const float *z, const size_t *from, uint32_t chosen, uint32_t r, uint32_t n, float scale, float *y);

void linear_few_host(struct rt_device *dev, void *const *bindings, const void *push);

#endif
