/* tools/bench_counters.h - `mosld bench --counters`: which hardware counters are taken, and what they were for each op. */
#ifndef MOSLD_TOOLS_BENCH_COUNTERS_H
#define MOSLD_TOOLS_BENCH_COUNTERS_H

#include "mosld/bench/ops.h"
#include "tools/options.h"

#include <cjson/cJSON.h>

struct bench_counters {
    struct rt_hardware_counter *all; /* [n_all] */
    size_t n_all;
    uint32_t *chosen; /* [n_chosen], indices into `all` */
    uint32_t n_chosen, passes;
};

/* Whether the value of --counters asks for the list alone. */
bool bench_counters_lists(const struct option_list *names);
/* Asks the device, which is open for counters, for all; chooses those whose name has one of `names` in it, whatever its case. RT_USAGE: a name
 * fits none. With "list" it chooses none. */
enum rt_status bench_counters_choose(struct rt_device *dev, const struct option_list *names, struct bench_counters *out, struct rt_error *err);
void bench_counters_finish(struct bench_counters *c);

/* All there are, on standard output. */
enum rt_status bench_counters_print_list(const struct bench_counters *c, bool json, struct rt_error *err);
/* The values, behind the table of ops, and into an op's object. */
void bench_counters_print(const struct bench_counters *c, const struct mosld_bench_op *ops, uint32_t n_ops);
void bench_counters_put(const struct bench_counters *c, const struct mosld_bench_op *op, cJSON *to);
/* {"passes", "list": [{"name", "category", "unit", "description"}]} of the chosen. */
cJSON *bench_counters_json(const struct bench_counters *c);

#endif
