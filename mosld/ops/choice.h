/* mosld/ops/choice.h - which variant of each op a device takes, and what may change that.
 *
 * Every op of op_table has an order of variants for each class of parameters (struct op_classes). At first it is the order of the
 * table: what pays on the device, and behind it what it could run beside that. A measurement moves a variant to the front, a test that it fails takes it
 * away, and a checkpoint puts back the order that its run began with, so that the bits stay. The order belongs to the open
 * device and goes with it. Ops that are not in op_table have the table's order alone. */
#ifndef MOSLD_CHOICE_H
#define MOSLD_CHOICE_H

#include "mosld/ops/op.h"

#define OP_MAX_VARIANTS 250

uint32_t op_class_count(const struct op *op);
uint32_t op_class_of(const struct op *op, const void *push);
/* "q4_1 many", "many", "q4_1", or "all" where there is one class. */
void op_class_name(const struct op *op, uint32_t class_, char *text, size_t size);
/* The weight type of the class; -1: the op reads no frozen weight. */
int op_class_wtype(const struct op *op, uint32_t class_);
/* The class of that name, or -1; and the variant of that name, or NULL. */
int op_class_find(const struct op *op, const char *name);
const struct op_variant *op_variant_find(const struct op *op, const char *name);
const struct op *op_find(const char *name); /* in op_table, or NULL */

/* The order of the class: at most OP_MAX_VARIANTS into `out`, returns how many. The first that applies to the parameters is taken; what could
 * apply only to weights of another type is left out. */
uint32_t op_choice_order(struct rt_device *dev, const struct op *op, uint32_t class_, const struct op_variant **out);

/* Which of them were taken since the device was opened, in the table's order. */
uint32_t op_choice_taken(struct rt_device *dev, const struct op *op, uint32_t class_, const struct op_variant **out);

/* Puts the variant first in the class, even where the table says that it does not pay. Nothing where the device cannot run it. */
void op_choice_prefer(struct rt_device *dev, const struct op *op, uint32_t class_, const struct op_variant *variant);
/* Takes the variant out of all classes but those where it is the only one (of an optional op, there too): false when there is such a class. */
bool op_choice_ban(struct rt_device *dev, const struct op *op, const struct op_variant *variant);
/* Makes these `n` the order of the class. What the device cannot run is left out; true when all stand there. An empty order
 * changes nothing. */
bool op_choice_set(struct rt_device *dev, const struct op *op, uint32_t class_, const struct op_variant *const *variants, uint32_t n);
void op_choice_reset(struct rt_device *dev); /* back to the tables */

/* MOSLD_FAULT=wrong-variant@OP.VARIANT: that variant does nothing, as a driver might have it. crash-variant@OP.VARIANT: it
 * ends the program. */
bool op_choice_is_planted(struct rt_device *dev, const struct op *op, const struct op_variant *variant);

#endif
