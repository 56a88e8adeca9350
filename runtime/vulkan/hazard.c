/* runtime/vulkan/hazard.c - see hazard.h. */
#include "runtime/vulkan/hazard.h"

#include <assert.h>
#include <string.h>

static bool conflict(const struct hazard_access *old, const struct hazard_access *new)
{
    return old->buffer == new->buffer && (old->write || new->write) && old->begin < new->end && new->begin < old->end;
}

static bool meets(const struct hazard *h, const struct hazard_access *new)
{
    if (new->begin >= new->end)
        return false;
    for (unsigned i = h->n; i-- > 0;) /* what was touched last is met most often */
        if (conflict(&h->entries[i], new))
            return true;
    return false;
}

/* Adjacent or overlapping ranges of one kind become one, so that a loop over the rows of a tensor stays one entry. */
static void enter(struct hazard *h, const struct hazard_access *new)
{
    if (new->begin >= new->end)
        return;
    for (unsigned i = h->n; i-- > 0;) {
        struct hazard_access *old = &h->entries[i];
        if (old->buffer != new->buffer || old->write != new->write || old->begin > new->end || new->begin > old->end)
            continue;
        if (new->begin < old->begin)
            old->begin = new->begin;
        if (new->end > old->end)
            old->end = new->end;
        return;
    }
    h->entries[h->n++] = *new;
}

bool hazard_command(struct hazard *h, enum hazard_stage stage, const struct hazard_access *accesses, unsigned n,
                    struct hazard_barrier *out)
{
    assert(n <= 64);
    if (h->disabled)
        return false;
    bool needed = h->n + n > HAZARD_MAX;
    for (unsigned i = 0; i < n && !needed; i++)
        needed = meets(h, &accesses[i]);
    if (needed) {
        *out = (struct hazard_barrier){h->stages, h->write_stages};
        h->n = 0;
        h->stages = h->write_stages = 0;
    }
    for (unsigned i = 0; i < n; i++) {
        enter(h, &accesses[i]);
        h->stages |= stage;
        if (accesses[i].write)
            h->write_stages |= stage;
    }
    return needed;
}

void hazard_forget(struct hazard *h, const void *buffer)
{
    unsigned kept = 0;
    for (unsigned i = 0; i < h->n; i++)
        if (h->entries[i].buffer != buffer)
            h->entries[kept++] = h->entries[i];
    h->n = kept; /* the stages stay: at worst a barrier waits for more than it must */
}
