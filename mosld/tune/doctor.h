/* mosld/tune/doctor.h - every variant of every op on a device: is it right, and how fast is it.
 *
 * A trial is one variant with one case: first all small ones, compared with the op's reference in double, then timed ones at
 * a model's size. What came out becomes a tuning file (tuning_file.h): wrong variants are left out, the fastest of a class is taken. */
#ifndef MOSLD_TUNE_DOCTOR_H
#define MOSLD_TUNE_DOCTOR_H

#include "mosld/bench/measure.h"
#include "mosld/ops/op.h"

#include <cjson/cJSON.h>

enum mosld_verdict {
    MOSLD_PASSED,
    MOSLD_WRONG,  /* other numbers than the reference's, or none that is finite */
    MOSLD_FAILED, /* the driver refused, and said why */
    MOSLD_ENDED,  /* the process died, or did not come back: a driver that crashes or hangs */
    MOSLD_VERDICTS
};

struct mosld_trial { /* plain data: it goes through a pipe */
    char op[32], variant[48], class_[48], label[64];
    bool timed;       /* else checked */
    bool first;       /* the tables' own choice for this case, as far as nothing is known of the device */
    enum mosld_verdict verdict;
    double error;     /* largest difference from the reference, as a share of the largest value wanted */
    double seconds;   /* timed: best of a launch */
    char why[200];    /* not passed: what was wrong */
};

/* What counts as wrong: drivers' faults are of the order of 1, and the arithmetic of a variant with 16-bit or 8-bit inputs well below. */
#define MOSLD_WRONG_ABOVE 1e-2

struct mosld_doctor_params {
    struct rt_device *dev;
    double seconds;         /* for each timed trial, about */
    uint32_t wtypes;        /* of the timed trials, 1 << enum op_wtype each; all types are checked */
    const char *only;       /* an op's name: no other one; NULL: all */
    bool time;
    uint32_t first;         /* trials before this one are passed over: they were made already */
    const volatile sig_atomic_t *stop;
    void *user;
    bool (*skip)(void *user, const struct mosld_trial *trial); /* NULL: none */
    /* Before and after each trial; `index` counts all trials, those passed over too. */
    void (*begin)(void *user, uint32_t index, const struct mosld_trial *trial);
    void (*end)(void *user, uint32_t index, const struct mosld_trial *trial);
};

/* Makes all trials. A trial's own failure is its verdict; RT_DEVICE_LOST ends it all, behind the trial's `end`. */
enum rt_status mosld_doctor(const struct mosld_doctor_params *params, struct rt_error *err);

/* What the trials say, as the tuning file has it: *wrong an array, *fastest an object, the caller's to delete. A variant is taken for the fastest
 * only where it beats the tables' choice by 5 %. RT_NO_MEMORY. */
enum rt_status mosld_doctor_result(const struct mosld_trial *trials, size_t n, cJSON **wrong, cJSON **fastest, struct rt_error *err);

#endif
