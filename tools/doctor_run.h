/* tools/doctor_run.h - the trials of mosld/tune/doctor.h in a process of their own, so that a driver that crashes or hangs costs one trial,
 * and the tuning file that comes of them. For `mosld doctor` and `mosld bench --tune`. */
#ifndef MOSLD_TOOLS_DOCTOR_RUN_H
#define MOSLD_TOOLS_DOCTOR_RUN_H

#include "mosld/tune/doctor.h"

struct doctor_run {
    /* what is asked */
    const char *device; /* as --device takes it */
    int threads;
    double seconds;     /* a timed trial, about */
    uint32_t wtypes;    /* whose times are taken */
    const char *only;   /* an op, or NULL */
    bool time, write;   /* write: the tuning file */
    /* what came of it; doctor_run_finish frees it */
    struct mosld_trial *trials;
    size_t n;
    struct rt_device *dev; /* open, with the tables' own choice */
    cJSON *wrong, *fastest;
    char *path;            /* of the tuning file, where it was written */
    bool *replaceable;     /* [cJSON_GetArraySize(wrong)]: another variant stands in for it */
};

/* RT_NO_DEVICE and RT_USAGE as rt_device_open has them. A variant that fails is no failure of the run. */
enum rt_status doctor_run(struct doctor_run *run, struct rt_error *err);
void doctor_run_finish(struct doctor_run *run);

#endif
