/* mosld/tune/choices.h - the orders of choice.h as JSON: for run.json, checkpoints and tuning files.
 *
 *     {"matmul_nt": {"q4_1 many": ["lanes.q4_1", "rows.q4_1"]}, "rope": {"all": ["vulkan"]}} */
#ifndef MOSLD_TUNE_CHOICES_H
#define MOSLD_TUNE_CHOICES_H

#include "mosld/ops/op.h"

#include <cjson/cJSON.h>

/* The order of every class whose weight type is in `wtypes` (1 << enum op_wtype each). NULL: no memory. The caller deletes it. */
cJSON *mosld_choices_json(struct rt_device *dev, uint32_t wtypes);
/* What was taken since the device was opened, in the same form; ops and classes that were not used are left out. */
cJSON *mosld_choices_taken_json(struct rt_device *dev);

/* Puts orders back. What the object says of ops, classes and variants that are not known is skipped; *whole: nothing was, and all can
 * run here. RT_BAD_FILE where it has another form; `path` is for the message. */
enum rt_status mosld_choices_set(struct rt_device *dev, const cJSON *json, const char *path, bool *whole, struct rt_error *err);

#endif
