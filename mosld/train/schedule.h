/* mosld/train/schedule.h - the learning rate over the updates of a run, as Transformers' schedules have it. */
#ifndef MOSLD_SCHEDULE_H
#define MOSLD_SCHEDULE_H

#include <stdint.h>

enum mosld_schedule { MOSLD_LINEAR, MOSLD_COSINE, MOSLD_CONSTANT, MOSLD_CONSTANT_WITH_WARMUP, MOSLD_SCHEDULES };
extern const char *const mosld_schedule_names[MOSLD_SCHEDULES + 1]; /* "linear" ..., NULL */

/* Warm-up updates of a run: `warmup_steps` below 1 is a share of it; where it is 0, `warmup_ratio` is the share.
 * Rounded up. */
uint64_t mosld_warmup_updates(double warmup_steps, double warmup_ratio, uint64_t updates);

/* What the peak learning rate is multiplied by at update `update` (from 0) of `updates`: update / warmup on the way up,
 * so that the first update of a warm-up has rate 0; then to 0 at the end by a line or half a cosine, or 1 throughout.
 * `constant` has no warm-up. */
double mosld_schedule_factor(enum mosld_schedule schedule, uint64_t update, uint64_t warmup, uint64_t updates);

#endif
