/* mosld/profile/profile.h - where the time of steps, tokens and batches goes: the windows of a trace, added up.
 *
 * What is added up together has outermost scopes of one name ("step", "token"). The first of them is kept apart, since drivers still compile
 * in it; it is what is reported where there is no second. All seconds are sums over `windows`.
 *
 * Every moment of a step belongs to one of struct mosld_profile_time's fields, by what was going on then; of two things at a time, the one that stands
 * first counts. So the fields add up to the step, as far as the device's clock and the program's agree: `accounted` takes the device's
 * time from its own clock and says by how much they miss. */
#ifndef MOSLD_PROFILE_H
#define MOSLD_PROFILE_H

#include "runtime/trace.h"

struct mosld_profile_time {
    double work;       /* kernels, or the host's ops, run */
    double transfer;   /* nothing but copies, fills and uploads runs on the device */
    double between;    /* the device is inside a submission and runs nothing that is timed: barriers, launching */
    double latency;    /* submitted and not yet begun, or done and not yet noticed */
    double build;      /* nothing is submitted: the program builds pipelines */
    double move;       /* nothing is submitted: the program moves bytes to or from the device */
    double program;    /* nothing is submitted: it records, or does its own */
};

struct mosld_profile_row {
    const char *name;    /* of the op, the kernel, or the scope */
    const char *variant; /* ops on the host, where no kernel has a name: their variant; else NULL */
    int64_t number;      /* of a layer; negative: none */
    char path[96];       /* phases and modules: names from the outermost scope down, without numbers ("layer / backward / q_proj") */
    uint64_t calls;
    double seconds;      /* sum of their times; they may overlap */
    double flops, bytes; /* 0: not known */
};

struct mosld_profile_rows {
    struct mosld_profile_row *row;
    uint32_t n, cap;
};

struct mosld_profile_part {
    uint32_t windows;
    double wall;            /* seconds */
    double device_clock;    /* of which work and transfer, by the device's clock alone */
    struct mosld_profile_time time;
    double process, thread; /* processor seconds: of all threads, of the calling one */
    uint64_t kernels, transfers, submissions, dropped;
    struct mosld_profile_rows ops, by_kernel, phases, modules, layers;
};

struct mosld_profile_root {
    char name[64];
    struct mosld_profile_part first, rest;
};

struct mosld_profile {
    bool host;
    struct mosld_profile_root *roots;
    uint32_t n_roots;
    bool no_memory; /* some windows are missing */
};

void mosld_profile_init(struct mosld_profile *p, const struct rt_device *dev);
void mosld_profile_finish(struct mosld_profile *p);
/* A window of rt_trace_start. */
void mosld_profile_add(struct mosld_profile *p, const struct rt_window *window);
/* What is reported of a root: the rest, or the first where it is all there is. Rows are sorted, longest first; layers by number. */
const struct mosld_profile_part *mosld_profile_part(struct mosld_profile_root *root);
/* What the fields of `time` add up to with the device's time by its own clock, as a share of the wall time: 1 when all is right. */
double mosld_profile_accounted(const struct mosld_profile_part *part);

#endif
