/* mosld/ops/rows.h - rows moved by index: embedding, gather, scatter.
 *
 *     embedding  y[t, :] = W[tokens[t], :]       tokens: u32 [T], each < rows of W; W of any weight type; y: [T, d]
 *     gather     y[i, :] = x[index[i], :]        index: u32 [n]
 *     scatter    y[index[i], :] = x[i, :]        indices are distinct; other rows of y stay
 *
 * A weight of several chunks is several launches, each writing the rows that it holds. */
#ifndef MOSLD_ROWS_H
#define MOSLD_ROWS_H

#include "mosld/ops/weight.h"

enum rt_status op_embedding(struct rt_device *dev, struct rt_span tokens, const struct op_weight *w, struct rt_span y, uint32_t T,
                            struct rt_error *err);
enum rt_status op_gather_rows(struct rt_device *dev, struct rt_span x, struct rt_span index, struct rt_span y, uint32_t n,
                              uint32_t cols, struct rt_error *err);
enum rt_status op_scatter_rows(struct rt_device *dev, struct rt_span x, struct rt_span index, struct rt_span y, uint32_t n,
                               uint32_t cols, struct rt_error *err);

#endif
