/* mosld/generate/blocks.h - which blocks of the cache a sequence has: a pool that counts who uses each, and a sequence's list. For engine.c alone;
 * what stands in the blocks, and in which memory, it does not know. */
#ifndef MOSLD_BLOCKS_H
#define MOSLD_BLOCKS_H

#include "runtime/error.h"

#include <stdbool.h>
#include <stdint.h>

struct block_pool {
    uint32_t n, n_free;
    uint32_t *free, *users; /* [n] each */
};

/* RT_NO_MEMORY. */
enum rt_status block_pool_init(struct block_pool *pool, uint32_t n, struct rt_error *err);
void block_pool_finish(struct block_pool *pool);

/* Blocks [first, n) of a sequence; those before `first` have been given back (a sliding window has left them). */
struct block_list {
    uint32_t *block, first, n;
};

bool block_list_add(struct block_pool *pool, struct block_list *list); /* false: none is free */
void block_list_add_shared(struct block_pool *pool, struct block_list *list, uint32_t block); /* one that another list has */
void block_list_cut(struct block_pool *pool, struct block_list *list, uint32_t n); /* keeps blocks below n at most */
void block_list_leave(struct block_pool *pool, struct block_list *list, uint32_t first); /* gives back those before `first` */
static inline bool block_list_shares(const struct block_pool *pool, const struct block_list *list, uint32_t i) { return pool->users[list->block[i]] > 1; }

#endif
