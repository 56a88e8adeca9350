/* tools/doctor_report.h - what mosld doctor says: a summary, a text to send in, one JSON document. */
#ifndef MOSLD_TOOLS_DOCTOR_REPORT_H
#define MOSLD_TOOLS_DOCTOR_REPORT_H

#include "tools/doctor_run.h"

#include <stdio.h>

uint32_t doctor_wtypes_default(void); /* the weight types that are timed unless others are asked for */

void doctor_report_summary(const struct doctor_run *run, FILE *to);
/* Everything: device, limits, capabilities, versions, every trial. No paths, host or user names. */
void doctor_report_text(const struct doctor_run *run, FILE *to);
/* On standard output. RT_NO_MEMORY. */
enum rt_status doctor_report_json(const struct doctor_run *run, struct rt_error *err);
/* {op: {class: variant}}, a line each; what differs from the tables. */
void doctor_report_fastest(const struct doctor_run *run, FILE *to);

#endif
