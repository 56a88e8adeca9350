/* tools/kernels_report.h - what mosld kernels found, as a table, as JSON, as assembly. */
#ifndef MOSLD_KERNELS_REPORT_H
#define MOSLD_KERNELS_REPORT_H

#include "mosld/ops/op.h"
#include "runtime/rt.h"

#include <stdio.h>

struct kernels_row {
    const struct op *op;
    const struct op_variant *variant;
    const struct rt_kernel *kernel;             /* NULL: a host variant, which is a function */
    bool taken;                                 /* by this device; else it could run and is not taken */
    struct rt_kernel_description *description;  /* NULL: it does not build, and `failure` says why */
    char failure[400];
};

struct kernels_report {
    struct rt_device *dev;
    size_t n, failed;
    bool mix; /* the hottest loop of each kernel is counted too (kernels_mix.h), where the driver's assembly can be read */
    struct kernels_row *rows;
};

void kernels_print(const struct kernels_report *r, FILE *to);
enum rt_status kernels_print_json(const struct kernels_report *r, FILE *to, struct rt_error *err);
/* False when the driver gave no text. */
bool kernels_print_assembly(const struct kernels_row *row, FILE *to);
const char *kernels_first_failure(const struct kernels_report *r); /* r->failed > 0 */

#endif
