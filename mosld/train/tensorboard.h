/* mosld/train/tensorboard.h - scalars as a TensorBoard event file (TFRecords of Event protobufs, which are simple
 * enough to write out). */
#ifndef MOSLD_TENSORBOARD_H
#define MOSLD_TENSORBOARD_H

#include "runtime/error.h"

#include <stdint.h>
#include <stdio.h>

/* Opens a new event file in folder `dir`, named as TensorBoard looks for it. The caller closes *out with fclose. */
enum rt_status mosld_tensorboard_open(const char *dir, FILE **out, struct rt_error *err);
/* Appends one scalar; `tag` such as "train/loss". Errors show at fflush or fclose, as stdio has it. */
void mosld_tensorboard_scalar(FILE *file, const char *tag, uint64_t step, double value);

#endif
