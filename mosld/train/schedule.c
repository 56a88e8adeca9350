/* mosld/train/schedule.c - see schedule.h. */
#include "mosld/train/schedule.h"

#include <math.h>
#include <stddef.h>

const char *const mosld_schedule_names[MOSLD_SCHEDULES + 1] = {"linear", "cosine", "constant", "constant_with_warmup",
                                                               NULL};

uint64_t mosld_warmup_updates(double warmup_steps, double warmup_ratio, uint64_t updates)
{
    if (warmup_steps >= 1)
        return (uint64_t)warmup_steps;
    double share = warmup_steps > 0 ? warmup_steps : warmup_ratio;
    return (uint64_t)ceil(share * (double)updates);
}

double mosld_schedule_factor(enum mosld_schedule schedule, uint64_t update, uint64_t warmup, uint64_t updates)
{
    if (schedule == MOSLD_CONSTANT)
        return 1;
    if (update < warmup)
        return (double)update / (double)warmup;
    if (schedule == MOSLD_CONSTANT_WITH_WARMUP)
        return 1;
    if (update >= updates)
        return 0;
    double length = updates > warmup ? (double)(updates - warmup) : 1;
    double done = (double)(update - warmup) / length;
    return schedule == MOSLD_COSINE ? 0.5 * (1 + cos(3.141592653589793 * done)) : 1 - done;
}
