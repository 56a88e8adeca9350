/* mosld/ops/gate_row.h - the router's decision for one token, in float for the host variants and in double for the
 * references.
 *
 *     p = softmax(l);   g = p with all but the k largest set to 0, divided by its sum
 *
 * An expert is kept when fewer than k others stand before it: larger logits, and equal ones of a lower index. l, g, p:
 * [E], E at most MOSLD_MAX_EXPERTS. The mean over a router's tokens of what was kept is f, and of p is P: see
 * mixture.h. */
#ifndef MOSLD_GATE_ROW_H
#define MOSLD_GATE_ROW_H

#include "mosld/ops/host_math.h"
#include "mosld/ops/mixture.h"

#include <stdbool.h>
#include <stdint.h>

/* Whether expert e is among the k first. */
#define GATE_KEEPS(type, name)                                                                                         \
    HOST_INLINE bool name(const type *l, uint32_t E, uint32_t k, uint32_t e)                                           \
    {                                                                                                                  \
        uint32_t before = 0;                                                                                           \
        for (uint32_t j = 0; j < E; j++)                                                                               \
            before += (uint32_t)((l[j] > l[e]) | ((l[j] == l[e]) & (j < e)));                                          \
        return before < k;                                                                                             \
    }
GATE_KEEPS(float, gate_keeps)
GATE_KEEPS(double, gate_keeps_ref)
#undef GATE_KEEPS

HOST_INLINE void gate_row(const float *l, uint32_t E, uint32_t k, float *g, float *p)
{
    float max = l[0], all = 0, kept = 0;
    for (uint32_t e = 1; e < E; e++)
        max = l[e] > max ? l[e] : max;
    for (uint32_t e = 0; e < E; e++)
        p[e] = mosld_expf(l[e] - max);
    for (uint32_t e = 0; e < E; e++) {
        all += p[e];
        g[e] = k >= E || gate_keeps(l, E, k, e) ? p[e] : 0;
        kept += g[e];
    }
    for (uint32_t e = 0; e < E; e++) {
        p[e] = p[e] / all;
        g[e] = g[e] / kept;
    }
}

/* The same in double. */
void gate_row_ref(const double *l, uint32_t E, uint32_t k, double *g, double *p);

#define GATE_MAX_MODULES 3 /* of a group: q, k and v */

/* RT_USAGE when the number of experts is not in 1 .. MOSLD_MAX_EXPERTS, no expert is to be kept, or (of a group) there are too many modules. */
enum rt_status gate_check(const char *op, uint32_t experts, uint32_t top_k, struct rt_error *err);
enum rt_status gate_check_group(const char *op, const struct op_gate *g, struct rt_error *err);

/* What gate.c and gate_bwd.c share: the parameters, and a grid of a few pairs of token and module a group of 64. */
struct gate_push;
struct gate_push gate_push_of(const struct op_gate *g);
void gate_grid(const void *push, uint32_t groups[3]);

#endif
