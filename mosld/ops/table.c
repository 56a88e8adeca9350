/* mosld/ops/table.c - every op of the engine. To add one: its file, its shader, one line here. */
#include "mosld/ops/op.h"

const struct op *const op_table[] = {
    NULL,
};
