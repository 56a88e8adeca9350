/* shaders/attention.h - parameters of the attention kernels (mosld/ops/attention.h). pos0, window, table and kv_type: 0 but for the cache.
 * from, to: the queries that dk and dv are summed over in this launch; 0, 0 for all (mosld/ops/attention_bwd.c).
 * kv_type is for the host; kernels are compiled for a type. */
#ifndef MOSLD_SHADER_ATTENTION_H
#define MOSLD_SHADER_ATTENTION_H
#include "push.h"

PUSH_BLOCK(attention_push, uint T; uint heads; uint kv_heads; uint head_dim; uint pos0; float scale;
           uint from; uint to; uint window; uint table; uint kv_type;)

/* Where the words of a row of stats lie. */
#define STATS_LAST 3
#define STATS_LSE 4 /* then heads words of delta */

/* Positions of a block of the cache (mosld/ops/kv_cache.h). */
#define KV_BLOCK 64

/* Vulkan: a tile is TILE query tokens by TILE keys; a group sums TILE rows by OUT_CHUNKS * TILE columns of the output,
 * so wide heads take several groups. More groups than ATTENTION_MOST_GROUPS only queue: the kernels stride over the
 * rest. */
#define TILE 32
#define ATTENTION_MOST_GROUPS 65535

/* Vulkan on the processor: rows that an invocation holds, of 16 in a group. */
#define ATTENTION_LANES_OWN 4

#endif
