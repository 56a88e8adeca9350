/* tools/plan.h - a command's plan of memory: printed by --plan before anything is allocated (a config.json is enough for it), and after memory
 * ran out. Where it does not fit, what to lower is searched for with the plan itself: each option alone and to which value, or several. */
#ifndef MOSLD_TOOLS_PLAN_H
#define MOSLD_TOOLS_PLAN_H

#include "mosld/model/memory.h"
#include "tools/session.h"

enum plan_kind { PLAN_TRAIN, PLAN_GENERATE, PLAN_EVAL };

struct plan {
    enum plan_kind kind;
    struct rt_device *dev;
    const char *model; /* what --model says */
    struct mosld_memory_request request; /* as asked for */
    uint32_t rows, length; /* PLAN_TRAIN: rows a pass, and tokens a row at most. PLAN_GENERATE: length is the context. PLAN_EVAL: length is the longest
                            * row, the pass has request.pass.max_tokens */
    uint32_t accumulation; /* PLAN_TRAIN: passes a step, so that a smaller pass keeps the step's size */
};

/* What a generation's context is unless it is given, what it is at least then, and tokens of a prompt that run at a time. */
enum { PLAN_USUAL_CONTEXT = 4096, PLAN_LEAST_CONTEXT = 256, PLAN_PIECE = 256 };

/* Generation: fills in kind, length and request.pass from what is there (dev, model, request.file, weights and adapters, pass.slots and cache_type), as runner.h
 * opens it. wanted: tokens of context, 0: what is usual or, `limited`, what fits. RT_USAGE: more than the model's. */
enum rt_status plan_generation(struct plan *plan, uint32_t wanted, bool limited, struct rt_error *err);

/* Prints the plan to `to`, as a table or as JSON, and what to do where it does not fit. RT_NO_MEMORY: it does not; the message says by how much. */
enum rt_status plan_print(const struct plan *plan, bool json, FILE *to, struct rt_error *err);

#endif
