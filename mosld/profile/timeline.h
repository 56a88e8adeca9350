/* mosld/profile/timeline.h - every moment of a window's outermost scope given to one of the fields of struct mosld_profile_time. */
#ifndef MOSLD_TIMELINE_H
#define MOSLD_TIMELINE_H

#include "mosld/profile/profile.h"

/* Adds the window's times and device_clock to `part`; false when there is no memory for it. */
bool mosld_timeline_add(struct mosld_profile_part *part, const struct rt_window *window);

#endif
