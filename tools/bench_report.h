/* tools/bench_report.h - what mosld bench found, as tables for people and as one JSON document. */
#ifndef MOSLD_TOOLS_BENCH_REPORT_H
#define MOSLD_TOOLS_BENCH_REPORT_H

#include "mosld/bench/decode.h"
#include "mosld/bench/ops.h"
#include "mosld/bench/steps.h"
#include "tools/bench_counters.h"

struct bench_report {
    const struct rt_device_info *device;
    const char *model_name;
    const struct mosld_model *model; /* NULL: none was needed */
    struct mosld_bench_batch batch;
    bool has_peaks;
    struct mosld_peaks peaks;
    struct mosld_bench_op *ops; /* [n_ops]; none where they were not asked for */
    uint32_t n_ops;
    struct bench_counters counters; /* of the ops; none where they were not asked for */
    struct mosld_bench_variant *variants; /* [n_variants] */
    uint32_t n_variants;
    struct profiling *profiling; /* of the steps; NULL: none */
    struct mosld_bench_decode *decode; /* [n_decode] */
    uint32_t n_decode;
    double read_rate; /* bytes a second that memory gives; 0: not measured */
};

/* Both write to standard output; whoever ends the program looks whether that worked. */
enum rt_status bench_report_text(const struct bench_report *report);
/* In SI units: seconds, FLOP/s, bytes a second, bytes. RT_NO_MEMORY. */
enum rt_status bench_report_json(const struct bench_report *report, struct rt_error *err);

#endif
