/* mosld/adapter/transposed.c - B as generation reads it: see mosld_adapter_for_generation in adapter.h. */
#include "mosld/adapter/adapter.h"

#include <stdlib.h>

static uint64_t words_of(const struct mosld_adapter_module *m) { return (uint64_t)m->d_out * m->experts * m->r; }

enum rt_status mosld_adapter_for_generation(struct mosld_adapter *a, struct rt_error *err)
{
    if (a->trains || a->values.buffer || a->transposed_words)
        return RT_OK;
    for (uint32_t i = 0; i < a->n_modules; i++) {
        a->modules[i].transposed_offset = a->transposed_words;
        a->transposed_words += (words_of(&a->modules[i]) + 63) & ~(uint64_t)63;
    }
    return rt_arena_add(a->arena, a->transposed_words * 4, "transposed B", &a->transposed, err);
}

/* [d_out, E r] to [E r, d_out]: what an expert has, r rows of it, lies together. */
static void transpose(const float *from, uint32_t rows, uint32_t cols, float *to)
{
    for (uint32_t c0 = 0; c0 < cols; c0 += 16)
        for (uint32_t o = 0; o < rows; o++)
            for (uint32_t c = c0; c < cols && c < c0 + 16; c++)
                to[(size_t)c * rows + o] = from[(size_t)o * cols + c];
}

static enum rt_status transpose_module(struct mosld_adapter *a, const struct mosld_adapter_module *m, float *room, struct rt_error *err)
{
    uint64_t n = words_of(m);
    RT_TRY(rt_download(a->dev, a->values, 4 * m->b_offset, room, 4 * n, err));
    transpose(room, m->d_out, m->experts * m->r, room + n);
    return rt_upload(a->dev, a->transposed, 4 * m->transposed_offset, room + n, 4 * n, err);
}

enum rt_status mosld_adapter_transpose(struct mosld_adapter *a, struct rt_error *err)
{
    uint64_t most = 0;
    if (!a->transposed.buffer || a->is_transposed)
        return RT_OK;
    for (uint32_t i = 0; i < a->n_modules; i++)
        most = words_of(&a->modules[i]) > most ? words_of(&a->modules[i]) : most;
    float *room = malloc(8 * most); /* below 2^31 words: mosld_adapter_create */
    enum rt_status st = room ? RT_OK : rt_fail(err, RT_NO_MEMORY, "no memory to put an adapter in order");
    for (uint32_t i = 0; i < a->n_modules && !st; i++)
        st = transpose_module(a, &a->modules[i], room, err);
    free(room);
    a->is_transposed = !st;
    return st;
}
