/* mosld/generate/blocks.c - see blocks.h. */
#include "mosld/generate/blocks.h"

#include <stdlib.h>

enum rt_status block_pool_init(struct block_pool *pool, uint32_t n, struct rt_error *err)
{
    *pool = (struct block_pool){.n = n, .n_free = n, .free = calloc((size_t)n + 1, sizeof *pool->free), .users = calloc((size_t)n + 1, sizeof *pool->users)};
    if (!pool->free || !pool->users)
        return rt_fail(err, RT_NO_MEMORY, "no memory for a list of %u blocks", n);
    for (uint32_t i = 0; i < n; i++)
        pool->free[i] = n - 1 - i; /* the lowest goes first */
    return RT_OK;
}

void block_pool_finish(struct block_pool *pool)
{
    free(pool->free);
    free(pool->users);
    *pool = (struct block_pool){0};
}

static void give_back(struct block_pool *pool, uint32_t block)
{
    if (--pool->users[block] == 0)
        pool->free[pool->n_free++] = block;
}

bool block_list_add(struct block_pool *pool, struct block_list *list)
{
    if (!pool->n_free)
        return false;
    block_list_add_shared(pool, list, pool->free[--pool->n_free]);
    return true;
}

void block_list_add_shared(struct block_pool *pool, struct block_list *list, uint32_t block)
{
    list->block[list->n++] = block;
    pool->users[block]++;
}

void block_list_cut(struct block_pool *pool, struct block_list *list, uint32_t n)
{
    while (list->n > n && list->n > list->first)
        give_back(pool, list->block[--list->n]);
    if (list->n <= list->first)
        list->n = list->first = 0;
}

void block_list_leave(struct block_pool *pool, struct block_list *list, uint32_t first)
{
    while (list->first < first && list->first < list->n)
        give_back(pool, list->block[list->first++]);
}
