/* mosld/ops/dropout_parts.h - what dropout_stacks.c takes of dropout.c: the truth and the host's function of one module, with the bindings of op_dropout. */
#ifndef MOSLD_DROPOUT_PARTS_H
#define MOSLD_DROPOUT_PARTS_H

struct rt_device;
void dropout_ref(void *const *bindings, const void *push);
void dropout_host(struct rt_device *dev, void *const *bindings, const void *push);

#endif
