/* mosld/ops/rows_common.h - the descriptors of embedding.c and rows.c, for tables and tests. */
#ifndef MOSLD_ROWS_COMMON_H
#define MOSLD_ROWS_COMMON_H

#include "mosld/ops/op.h"
#include "mosld/ops/rows.h"
#include "shaders/embedding.h"
#include "shaders/rows.h"

extern const struct op op_embedding_desc, op_gather_rows_desc, op_scatter_rows_desc;

#endif
